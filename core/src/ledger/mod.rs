//! The ledger's maths, shared by both programs: tiers, splits, caps and the classification.

mod classify;
mod fingerprint;
mod refresh;
mod scope;
mod split;
mod tier;

pub use classify::{
    Breakpoint, Candidate, Found, LOOK_BACK_BLOCKS, LiveEntry, MAX_BREAKPOINTS, MAX_CANDIDATES,
    NewEntry, find_hit, look_back, look_back_runs, split_writes,
};
pub use fingerprint::{Fingerprint, FingerprintKey};
pub use refresh::{REFRESH_GAIN_PARTS_MIN, refreshed};
pub use scope::{SCOPE_BYTES, Scope};
pub use split::{Cap, Outcome, Split};
pub use tier::{Tier, TierTokens};
