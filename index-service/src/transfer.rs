//! A ledger as lines of JSON: a head, its scopes, its entries, and an end that counts them.
//!
//! ```text
//! {"ledger":1}
//! {"account":"<64 hex>","model":"demo","tokenizer_version":"…"}
//! {"scope":"<32 hex>","hash":"<64 hex>","tokens":1500,"tier":"1h","expires_at_ms":1800000000000}
//! {"scopes":1,"entries":1}
//! ```
//!
//! Writing an import goes by the rules of a commit, so it may be repeated, and into a ledger
//! that is in use.

use std::collections::HashSet;
use std::io::{BufRead, Write as Out};

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Fingerprint, NewEntry, Tier};
use serde::{Deserialize, Serialize};

use crate::store::{
    BATCH_ENTRIES_MAX, Cursor, SCOPE_BYTES, Scope, ScopeInfo, Store, StoreError, Write,
};

/// Version of the format.
const VERSION: u32 = 1;
/// Items read from the store at once.
const PAGE_ITEMS: usize = 4096;
/// Scopes registered at once.
const SCOPES_PER_BATCH: usize = 1000;
/// Longest line of an import.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Why a transfer ended early. What was written stays written.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {reason}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Scopes.
    pub scopes: u64,
    /// Live entries.
    pub entries: u64,
    /// Entries of an import that had expired, and were left out.
    pub expired: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Entry {
        scope: Hex,
        hash: PrefixHash,
        tokens: u32,
        tier: Tier,
        expires_at_ms: u64,
    },
    Scope {
        account: Fingerprint,
        model: String,
        tokenizer_version: String,
    },
    End {
        scopes: u64,
        entries: u64,
    },
    Head {
        ledger: u32,
    },
}

/// A scope as 32 hex digits.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex(Scope);

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        format!("{:032x}", u128::from_be_bytes(*hex.0.as_bytes()))
    }
}

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&hex, 16)
            .ok()
            .filter(|_| hex.len() == 2 * SCOPE_BYTES)
            .map(|scope| Self(Scope::from_bytes(scope.to_be_bytes())))
            .ok_or("a scope is 32 hex digits")
    }
}

/// Writes everything that is live at `now_ms`.
///
/// # Errors
/// See [`TransferError`].
pub async fn export(
    store: &dyn Store,
    now_ms: u64,
    out: &mut (impl Out + Send),
) -> Result<Moved, TransferError> {
    let mut moved = Moved::default();
    put(out, &Line::Head { ledger: VERSION })?;
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = store.scopes(cursor, PAGE_ITEMS).await?;
        for info in page.items {
            moved.scopes += 1;
            let line = Line::Scope {
                account: info.account,
                model: info.model,
                tokenizer_version: info.tokenizer_version,
            };
            put(out, &line)?;
        }
        from = page.next;
    }
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = store.scan(cursor, PAGE_ITEMS).await?;
        for write in page.items {
            if write.expires_at_ms <= now_ms {
                continue;
            }
            moved.entries += 1;
            let line = Line::Entry {
                scope: Hex(write.scope),
                hash: write.entry.hash,
                tokens: write.entry.tokens,
                tier: write.entry.tier,
                expires_at_ms: write.expires_at_ms,
            };
            put(out, &line)?;
        }
        from = page.next;
    }
    let (scopes, entries) = (moved.scopes, moved.entries);
    put(out, &Line::End { scopes, entries })?;
    Ok(moved)
}

fn put(out: &mut impl Out, line: &Line) -> Result<(), TransferError> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Writes an export into `store`.
///
/// # Errors
/// See [`TransferError`]; an export that was cut off is one.
pub async fn import(
    store: &dyn Store,
    now_ms: u64,
    mut lines: impl BufRead + Send,
) -> Result<Moved, TransferError> {
    let mut import = Import {
        store,
        now_ms,
        moved: Moved::default(),
        seen: 0,
        known: HashSet::new(),
        scopes: Vec::new(),
        writes: Vec::new(),
    };
    let mut text = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        let failed = |reason: String| TransferError::Line {
            line: number,
            reason,
        };
        text.clear();
        let mut limited = std::io::Read::take(&mut lines, LINE_BYTES_MAX as u64);
        if limited.read_until(b'\n', &mut text)? == 0 {
            return Err(failed("the export is cut off".to_owned()));
        }
        let line: Line = serde_json::from_slice(&text)
            .map_err(|_| failed("not a line of an export".to_owned()))?;
        match line {
            Line::Head { ledger: VERSION } if number == 1 => {}
            Line::Head { ledger } => {
                return Err(failed(format!("format {ledger} in this place is not read")));
            }
            _ if number == 1 => return Err(failed("not an export".to_owned())),
            Line::End { scopes, entries } => {
                import.flush().await?;
                let found = (import.moved.scopes, import.seen);
                return if found == (scopes, entries) {
                    Ok(import.moved)
                } else {
                    Err(failed(format!(
                        "the export counts {scopes} scopes and {entries} entries, {} and {} were read",
                        found.0, found.1
                    )))
                };
            }
            line => import.take(line).await.map_err(|error| match error {
                TransferError::Line { reason, .. } => failed(reason),
                other => other,
            })?,
        }
    }
}

struct Import<'s> {
    store: &'s dyn Store,
    now_ms: u64,
    moved: Moved,
    /// Entries, also expired ones.
    seen: u64,
    /// Scopes of the export.
    known: HashSet<Scope>,
    scopes: Vec<ScopeInfo>,
    writes: Vec<Write>,
}

impl Import<'_> {
    async fn take(&mut self, line: Line) -> Result<(), TransferError> {
        match line {
            Line::Scope {
                account,
                model,
                tokenizer_version,
            } => {
                let info = ScopeInfo {
                    account,
                    model,
                    tokenizer_version,
                };
                self.known.insert(info.scope());
                self.moved.scopes += 1;
                self.scopes.push(info);
                if self.scopes.len() >= SCOPES_PER_BATCH {
                    self.flush().await?;
                }
            }
            Line::Entry {
                scope: Hex(scope),
                hash,
                tokens,
                tier,
                expires_at_ms,
            } => {
                if !self.known.contains(&scope) {
                    let reason = "an entry of a scope that the export does not describe";
                    return Err(TransferError::Line {
                        line: 0,
                        reason: reason.to_owned(),
                    });
                }
                self.seen += 1;
                if expires_at_ms <= self.now_ms {
                    self.moved.expired += 1;
                    return Ok(());
                }
                self.moved.entries += 1;
                self.writes.push(Write {
                    scope,
                    entry: NewEntry { hash, tokens, tier },
                    expires_at_ms,
                });
                if self.writes.len() >= BATCH_ENTRIES_MAX {
                    self.flush().await?;
                }
            }
            Line::Head { .. } | Line::End { .. } => {}
        }
        Ok(())
    }

    /// Scopes first, so that no entry is ever without.
    async fn flush(&mut self) -> Result<(), TransferError> {
        if !self.scopes.is_empty() {
            self.store.register(&self.scopes).await?;
            self.scopes.clear();
        }
        if !self.writes.is_empty() {
            let writes = std::mem::take(&mut self.writes);
            self.store.write(writes, self.now_ms).await?;
        }
        Ok(())
    }
}
