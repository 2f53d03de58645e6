//! What the filter decides at the edge, free of any host: the plan for a request, the leases, the
//! shared callouts, the breaker, the outbox, the reasons.

mod breaker;
mod bypass;
mod flights;
mod lane;
mod leases;
mod outbox;
mod plan;
mod policy;
mod principal;
mod query;

pub use breaker::Breaker;
pub use bypass::Bypass;
pub use flights::{Flight, Flights, Landed, Prompt, Seat};
pub use lane::Aged;
pub use leases::{LEASE_BYTES, Leased, Leases};
pub use outbox::{Arrived, Delivery, Outbox, Settled};
pub use plan::{Callout, Forward, Marked, Plan, PlanContext, plan};
pub use policy::PolicyView;
pub use principal::bearer_token;
pub use query::{QueryBreakpoint, query_breakpoint};
