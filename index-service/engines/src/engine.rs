//! What the ledger asks of an engine, in its own row formats (`store/embedded/record.rs`).

use std::path::Path;

/// Scope number ‖ prefix hash.
pub type Key = [u8; 36];
/// Expiry and tier ‖ tokens.
pub type Value = [u8; 10];
/// Second ‖ first 8 bytes of the key.
pub type Due = [u8; 12];

/// A row of both tables.
#[derive(Clone)]
pub struct Entry {
    pub key: Key,
    pub value: Value,
    pub due: Due,
}

/// Memory for pages or blocks.
pub const CACHE_BYTES: usize = 256 << 20;

/// A ledger in a folder. Every write is durable when the call returns.
pub trait Engine: Sync {
    fn open(dir: &Path) -> Self
    where
        Self: Sized;

    /// Writes entries that are not there yet, in one transaction.
    fn write(&self, entries: &[Entry]);

    /// How many of `keys` are there, as of one moment.
    fn find(&self, keys: &[Key]) -> usize;

    /// Gives those of `keys` that are there the expiry of `value`, in one transaction.
    fn refresh(&self, keys: &[Key], value: Value);

    /// Removes the `limit` entries that are due first, in one transaction.
    fn sweep(&self, limit: usize) -> usize;
}

/// The first and the last key that a row of the expiry index stands for.
pub fn bounds(due: &[u8]) -> (Key, Key) {
    let bound = |fill| {
        let mut key = [fill; 36];
        key[..8].copy_from_slice(&due[4..12]);
        key
    };
    (bound(0), bound(0xff))
}

/// The stored tokens under another expiry.
pub fn later(stored: &[u8], value: Value) -> Value {
    let mut value = value;
    value[6..].copy_from_slice(&stored[6..10]);
    value
}
