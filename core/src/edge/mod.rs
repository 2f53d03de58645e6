//! What the filter decides at the edge, free of any host: the plan for a request, the breaker,
//! the commit queue, the reasons.

mod breaker;
mod bypass;
mod commits;
mod plan;
mod policy;
mod principal;
mod route;

pub use breaker::Breaker;
pub use bypass::Bypass;
pub use commits::{CommitQueue, CommitResult, Settled};
pub use plan::{Callout, Forward, Plan, PlanContext, plan};
pub use policy::PolicyView;
pub use principal::bearer_token;
pub use route::is_chat_completions;
