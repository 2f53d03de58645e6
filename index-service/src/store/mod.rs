//! The ledger's store: one trait and its terms. `tests/conformance` holds every implementation to them.
//!
//! Time is passed in, so that expiry is the caller's clock and testable to the millisecond. An
//! entry is live while `now_ms < expires_at_ms`. The rules of a write ([`merge`]) are part of
//! the contract, whatever a store is made of.

pub mod embedded;
mod epoch;
mod page;
pub mod postgres;
pub mod redis;
mod scope;
mod tier;
mod tls;

use async_trait::async_trait;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Breakpoint, Candidate, LiveEntry, MAX_CANDIDATES, NewEntry};

pub use epoch::{EPOCH_BYTES, Epoch};
pub use page::{Cursor, Page};
pub use scope::{SCOPE_BYTES, Scope, ScopeInfo};

/// Entries one write or refresh batch may carry; callers split what is larger.
pub const BATCH_ENTRIES_MAX: usize = 4096;
/// Hashes one look-up may ask for.
pub const LOOK_UP_HASHES_MAX: usize = MAX_CANDIDATES;
/// An entry to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose it is.
    pub scope: Scope,
    /// Hash, tokens and tier.
    pub entry: NewEntry,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// An entry whose life a read extends. Does nothing where the entry is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Whose it is.
    pub scope: Scope,
    /// Which.
    pub hash: PrefixHash,
    /// The new expiry, where it is later than the stored one.
    pub expires_at_ms: u64,
}

/// What one step of a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries removed.
    pub removed: usize,
    /// Whether another step may find more.
    pub more: bool,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries, including those expired and not yet swept.
    pub entries: u64,
    /// Bytes on disk; 0 where the store does not know.
    pub disk_bytes: u64,
    /// Times a failed operation was tried again since the start.
    pub retries: u64,
}

/// A store that could not answer. Never carries keys or prompt text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Too much work is waiting.
    #[error("the store's queue is full")]
    Busy,
    /// The store has shut down.
    #[error("the store is closed")]
    Closed,
    /// Anything else, in the words of the store.
    #[error("{0}")]
    Failed(String),
}

/// Where the ledger lives. All methods may be called from many tasks at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The live entry of each of `hashes` (at most [`LOOK_UP_HASHES_MAX`]), in their order, in
    /// one round trip. Sees every write whose call has returned.
    async fn look_up(
        &self,
        scope: &Scope,
        hashes: &[PrefixHash],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError>;

    /// What `find_hit` needs to know of `candidates` (ascending by block, among them each
    /// breakpoint's): as [`Store::look_up`], but what lies before the deepest live candidate may
    /// be left out (`None`) where it is no breakpoint. For a store that is charged per hash.
    async fn find(
        &self,
        scope: &Scope,
        breakpoints: &[Breakpoint],
        candidates: &[Candidate],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        let _ = breakpoints;
        let hashes: Vec<PrefixHash> = candidates.iter().map(|c| c.hash).collect();
        self.look_up(scope, &hashes, now_ms).await
    }

    /// Writes a batch by the rules of [`merge`], all or nothing where the store can. Returns
    /// once it is durable.
    async fn write(&self, writes: Vec<Write>, now_ms: u64) -> Result<(), StoreError>;

    /// Extends lives, never shortens them, never changes a tier or a count. Returns once that is
    /// durable.
    async fn refresh(&self, refreshes: Vec<Refresh>) -> Result<(), StoreError>;

    /// Removes expired entries, looking at no more than `limit`, and says whether more may be
    /// due. May leave entries that expired less than a second ago. A store with native expiry
    /// has nothing to do.
    async fn sweep(&self, now_ms: u64, limit: usize) -> Result<Swept, StoreError>;

    /// Remembers whose these scopes are, for [`Store::scopes`]. Idempotent; returns once it is
    /// durable. Callers do this before their first write into a scope and remember that they
    /// did, so a purge must not forget a registration.
    async fn register(&self, scopes: &[ScopeInfo]) -> Result<(), StoreError>;

    /// The registered scopes, each at least once over all pages; `limit` is a wish.
    async fn scopes(&self, from: Cursor, limit: usize) -> Result<Page<ScopeInfo>, StoreError>;

    /// Removes every entry of `scopes` (none is allowed) and replaces the epoch, in this order or
    /// at once. When it returns both are durable, no entry written before the call is readable,
    /// and every replica reads the new epoch. Says how many entries went.
    async fn purge(&self, scopes: &[Scope]) -> Result<u64, StoreError>;

    /// The epoch of the ledger. Cheap enough for once a second from every replica.
    async fn epoch(&self) -> Result<Epoch, StoreError>;

    /// The entries, page by page, for an export: each one that is there from the first page to
    /// the last at least once. Expired ones may be among them; `limit` is a wish.
    async fn scan(&self, from: Cursor, limit: usize) -> Result<Page<Write>, StoreError>;

    /// What it holds.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Succeeds when the store answers and accepts writes.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Finishes what was accepted and lets go of the files or connections.
    async fn close(&self);
}

/// What a write leaves behind where `stored` was: an expired entry is as good as none; a live
/// one keeps the longer tier, the later expiry and its own count, which for an equal hash and
/// tokenizer is the same number.
pub fn merge(stored: Option<LiveEntry>, write: &Write, now_ms: u64) -> LiveEntry {
    let new = LiveEntry {
        tokens: write.entry.tokens,
        tier: write.entry.tier,
        expires_at_ms: write.expires_at_ms,
    };
    match stored.filter(|entry| is_live(entry, now_ms)) {
        None => new,
        Some(live) => LiveEntry {
            tokens: live.tokens,
            tier: live.tier.max(new.tier),
            expires_at_ms: live.expires_at_ms.max(new.expires_at_ms),
        },
    }
}

/// Whether the entry may be read: the millisecond of its expiry is already too late.
pub const fn is_live(entry: &LiveEntry, now_ms: u64) -> bool {
    now_ms < entry.expires_at_ms
}
