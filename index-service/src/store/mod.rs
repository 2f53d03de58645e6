//! The ledger's store: one trait and its terms. `tests/conformance` holds every implementation to them.
//!
//! Time is passed in, so that expiry is the caller's clock and testable to the millisecond. An
//! entry is live while `now_ms < expires_at_ms`. The rules of a write ([`merge`]) are part of
//! the contract, whatever a store is made of.

pub mod embedded;
pub mod postgres;
mod tier;
mod tls;

use async_trait::async_trait;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{LiveEntry, MAX_CANDIDATES, NewEntry};
use prompt_cache_core::wire::Fingerprint;

/// Entries one write or refresh batch may carry; callers split what is larger.
pub const BATCH_ENTRIES_MAX: usize = 4096;
/// Hashes one look-up may ask for.
pub const LOOK_UP_HASHES_MAX: usize = MAX_CANDIDATES;
/// Length of a scope in bytes.
pub const SCOPE_BYTES: usize = 16;

/// Digest of (principal, model, tokenizer version): nothing is ever shared across scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope([u8; SCOPE_BYTES]);

impl Scope {
    /// The scope of these three. 128 bits of BLAKE3 over length-prefixed parts: a collision
    /// would need 2^64 scopes, and a chosen one 2^128 work against a keyed fingerprint.
    pub fn of(principal: &Fingerprint, model: &str, tokenizer_version: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"prompt-cache scope 1");
        hasher.update(principal.as_bytes());
        for part in [model, tokenizer_version] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut scope = [0; SCOPE_BYTES];
        hasher.finalize_xof().fill(&mut scope);
        Self(scope)
    }

    /// The raw bytes, as stored.
    pub const fn as_bytes(&self) -> &[u8; SCOPE_BYTES] {
        &self.0
    }
}

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

    /// Writes a batch by the rules of [`merge`], all or nothing where the store can. Returns
    /// once it is durable.
    async fn write(&self, writes: Vec<Write>, now_ms: u64) -> Result<(), StoreError>;

    /// Extends lives, never shortens them, never changes a tier or a count.
    async fn refresh(&self, refreshes: Vec<Refresh>) -> Result<(), StoreError>;

    /// Removes expired entries, looking at no more than `limit`, and says whether more may be
    /// due. May leave entries that expired less than a second ago. A store with native expiry
    /// has nothing to do.
    async fn sweep(&self, now_ms: u64, limit: usize) -> Result<Swept, StoreError>;

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
