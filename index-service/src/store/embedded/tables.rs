//! What a job does to the tables, within the writer's transaction.

use redb::{ReadableTable, Table, WriteTransaction};

use super::file::{DUE, ENTRIES, EPOCH, META, NEXT_SCOPE_KEY, PROBE, SCOPES};
use super::record::{
    DUE_BYTES, KEY_BYTES, Key, VALUE_BYTES, Value, decode, due, due_end, due_keys, encode,
    encode_scope, key, key_bounds, scope_number,
};
use crate::store::{Epoch, Refresh, SCOPE_BYTES, Scope, ScopeInfo, Swept, Write, is_live, merge};

/// The tables of one write transaction.
pub(super) struct Tables<'t> {
    transaction: &'t WriteTransaction,
    entries: Table<'t, &'static [u8; KEY_BYTES], &'static [u8; VALUE_BYTES]>,
    rows: Table<'t, &'static [u8; DUE_BYTES], ()>,
    scopes: Table<'t, &'static [u8; SCOPE_BYTES], &'static [u8]>,
    /// The last scope that was asked for: a commit's entries are all of one.
    last: Option<(Scope, u32)>,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            transaction,
            entries: transaction.open_table(ENTRIES)?,
            rows: transaction.open_table(DUE)?,
            scopes: transaction.open_table(SCOPES)?,
            last: None,
        })
    }

    pub fn write(&mut self, write: &Write, now_ms: u64) -> Result<(), redb::Error> {
        let number = match self.number(&write.scope)? {
            Some(number) => number,
            None => self.add_scope(&write.scope, None)?,
        };
        let key = key(number, &write.entry.hash);
        let stored = self.entries.get(&key)?.map(|value| *value.value());
        let merged = encode(&merge(stored.as_ref().and_then(decode), write, now_ms));
        if stored == Some(merged) {
            return Ok(());
        }
        self.entries.insert(&key, &merged)?;
        if stored.is_none() {
            self.rows.insert(&due(write.expires_at_ms, &key), ())?;
        }
        Ok(())
    }

    pub fn refresh(&mut self, refresh: &Refresh) -> Result<(), redb::Error> {
        let Some(number) = self.number(&refresh.scope)? else {
            return Ok(());
        };
        let key = key(number, &refresh.hash);
        let stored = self.entries.get(&key)?;
        let stored = stored.and_then(|value| decode(value.value()));
        let later = stored.filter(|entry| entry.expires_at_ms < refresh.expires_at_ms);
        if let Some(mut entry) = later {
            entry.expires_at_ms = refresh.expires_at_ms;
            self.entries.insert(&key, &encode(&entry))?;
        }
        Ok(())
    }

    pub fn register(&mut self, info: &ScopeInfo) -> Result<(), redb::Error> {
        self.add_scope(&info.scope(), Some(info)).map(drop)
    }

    pub fn sweep(&mut self, now_ms: u64, limit: usize) -> Result<Swept, redb::Error> {
        let end = due_end(now_ms);
        let mut found = Vec::new();
        for row in self.rows.range::<&[u8; DUE_BYTES]>(..&end)?.take(limit) {
            found.push(*row?.0.value());
        }
        let mut removed = 0;
        for row in &found {
            self.rows.remove(row)?;
            let (first, last) = due_keys(row);
            for (key, value) in self.between(&first, &last, usize::MAX)? {
                match decode(&value).filter(|entry| is_live(entry, now_ms)) {
                    Some(live) => {
                        self.rows.insert(&due(live.expires_at_ms, &key), ())?;
                    }
                    None => {
                        self.entries.remove(&key)?;
                        removed += 1;
                    }
                }
            }
        }
        Ok(Swept {
            removed,
            more: found.len() == limit,
        })
    }

    /// Removes at most `limit` entries of the scopes; when there are no more, the epoch becomes
    /// `next`. Rows of `due` stay until the sweep finds nothing behind them.
    pub fn purge(
        &mut self,
        scopes: &[Scope],
        limit: usize,
        next: &Epoch,
    ) -> Result<Swept, redb::Error> {
        let mut removed = 0;
        for scope in scopes {
            let Some(number) = self.number(scope)? else {
                continue;
            };
            let (first, last) = key_bounds(number);
            for (key, _) in self.between(&first, &last, limit - removed)? {
                self.entries.remove(&key)?;
                removed += 1;
            }
            if removed >= limit {
                let more = true;
                return Ok(Swept { removed, more });
            }
        }
        let mut epoch = self.transaction.open_table(EPOCH)?;
        epoch.insert((), next.as_bytes())?;
        let more = false;
        Ok(Swept { removed, more })
    }

    /// Writes so many bytes, to see whether that works.
    pub fn probe(&self, bytes: usize) -> Result<(), redb::Error> {
        let mut probe = self.transaction.open_table(PROBE)?;
        let last = probe
            .get(())?
            .and_then(|last| last.value().first().copied());
        let next = last.unwrap_or_default().wrapping_add(1);
        probe.insert((), vec![next; bytes].as_slice())?;
        Ok(())
    }

    /// At most `limit` entries with keys from `first` to `last`.
    fn between(
        &self,
        first: &Key,
        last: &Key,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, redb::Error> {
        let range = self.entries.range::<&[u8; KEY_BYTES]>(first..=last)?;
        range
            .take(limit)
            .map(|row| {
                let (key, value) = row?;
                Ok((*key.value(), *value.value()))
            })
            .collect()
    }

    /// The number of a scope that the ledger knows.
    fn number(&mut self, scope: &Scope) -> Result<Option<u32>, redb::Error> {
        if let Some((_, number)) = self.last.filter(|(last, _)| last == scope) {
            return Ok(Some(number));
        }
        let row = self.scopes.get(scope.as_bytes())?;
        let number = row.and_then(|row| scope_number(row.value()));
        self.last = number.map(|number| (*scope, number));
        Ok(number)
    }

    /// Gives a scope a number, unless it has one, and notes what it stands for.
    fn add_scope(&mut self, scope: &Scope, info: Option<&ScopeInfo>) -> Result<u32, redb::Error> {
        let number = match self.number(scope)? {
            Some(number) => number,
            None => self.next_number()?,
        };
        if let Some(row) = encode_scope(number, info) {
            self.scopes.insert(scope.as_bytes(), row.as_slice())?;
            self.last = Some((*scope, number));
        }
        Ok(number)
    }

    fn next_number(&self) -> Result<u32, redb::Error> {
        let mut meta = self.transaction.open_table(META)?;
        let next = meta.get(NEXT_SCOPE_KEY)?.map_or(0, |next| next.value());
        // Four billion scopes: the numbers of forgotten ones are not used again.
        let number = u32::try_from(next)
            .map_err(|_| redb::Error::Corrupted("out of scope numbers".to_owned()))?;
        meta.insert(NEXT_SCOPE_KEY, next + 1)?;
        Ok(number)
    }
}
