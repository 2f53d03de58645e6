//! The ledger's maths, shared by both programs: tiers, splits, caps and the classification.

mod classify;
mod split;
mod tier;

pub use classify::{
    Breakpoint, Candidate, Found, LOOK_BACK_BLOCKS, LiveEntry, MAX_BREAKPOINTS, MAX_CANDIDATES,
    NewEntry, find_hit, look_back, split_writes,
};
pub use split::{Cap, Outcome, Split};
pub use tier::{Tier, TierTokens};
