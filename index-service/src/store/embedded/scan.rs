//! Reading what is not on the path of a request: the epoch, the registry, all entries.

use std::collections::HashMap;
use std::ops::Bound;

use redb::{Database, ReadTransaction, ReadableDatabase};

use super::file::{ENTRIES, EPOCH, SCOPES};
use super::record::{KEY_BYTES, decode_row, decode_scope, scope_number, split_key};
use crate::store::{Cursor, Epoch, Page, SCOPE_BYTES, Scope, ScopeInfo, StoreError, Write};

/// The epoch.
pub(super) fn epoch(database: &Database) -> Result<Epoch, StoreError> {
    let read = || -> Result<Option<Epoch>, redb::Error> {
        let table = database.begin_read()?.open_table(EPOCH)?;
        let epoch = table.get(())?;
        Ok(epoch.map(|epoch| Epoch::from_bytes(*epoch.value())))
    };
    read()
        .map_err(failed)?
        .ok_or_else(|| StoreError::Failed("the ledger has no epoch".to_owned()))
}

/// Registered scopes after `from`, in the order of their keys.
pub(super) fn scopes(
    database: &Database,
    from: &Cursor,
    limit: usize,
) -> Result<Page<ScopeInfo>, StoreError> {
    let start = after::<SCOPE_BYTES>(from)?;
    let read = || -> Result<Page<ScopeInfo>, redb::Error> {
        let table = database.begin_read()?.open_table(SCOPES)?;
        let mut page = Builder::new(limit);
        for row in table.range::<&[u8; SCOPE_BYTES]>((start.as_ref(), Bound::Unbounded))? {
            let (key, info) = row?;
            if !page.add(key.value(), decode_scope(info.value())) {
                break;
            }
        }
        Ok(page.finish())
    };
    read().map_err(failed)
}

/// Entries after `from`, in the order of their keys.
pub(super) fn entries(
    database: &Database,
    from: &Cursor,
    limit: usize,
) -> Result<Page<Write>, StoreError> {
    let start = after::<KEY_BYTES>(from)?;
    let read = || -> Result<Page<Write>, redb::Error> {
        let transaction = database.begin_read()?;
        let scopes = by_number(&transaction)?;
        let table = transaction.open_table(ENTRIES)?;
        let mut page = Builder::new(limit);
        for row in table.range::<&[u8; KEY_BYTES]>((start.as_ref(), Bound::Unbounded))? {
            let (key, value) = row?;
            let write = split_key(key.value())
                .and_then(|(number, hash)| decode_row(*scopes.get(&number)?, hash, value.value()));
            if !page.add(key.value(), write) {
                break;
            }
        }
        Ok(page.finish())
    };
    read().map_err(failed)
}

/// Read anew for every page: an export has few pages and holds no lock on the ledger.
fn by_number(transaction: &ReadTransaction) -> Result<HashMap<u32, Scope>, redb::Error> {
    let mut scopes = HashMap::new();
    for row in transaction
        .open_table(SCOPES)?
        .range::<&[u8; SCOPE_BYTES]>(..)?
    {
        let (scope, row) = row?;
        if let Some(number) = scope_number(row.value()) {
            scopes.insert(number, Scope::from_bytes(*scope.value()));
        }
    }
    Ok(scopes)
}

/// A page that ends after the row that fills it.
struct Builder<T> {
    limit: usize,
    items: Vec<T>,
    next: Option<Cursor>,
}

impl<T> Builder<T> {
    const fn new(limit: usize) -> Self {
        Self {
            limit,
            items: Vec::new(),
            next: None,
        }
    }

    /// Adds a row, unless this version cannot read it; whether there is room for another.
    fn add(&mut self, key: &[u8], item: Option<T>) -> bool {
        self.items.extend(item);
        let full = self.items.len() >= self.limit;
        if full {
            self.next = Some(Cursor::new(key.to_vec()));
        }
        !full
    }

    fn finish(self) -> Page<T> {
        Page {
            items: self.items,
            next: self.next,
        }
    }
}

fn after<const N: usize>(from: &Cursor) -> Result<Bound<[u8; N]>, StoreError> {
    match from.as_bytes() {
        [] => Ok(Bound::Unbounded),
        place => <[u8; N]>::try_from(place)
            .map(Bound::Excluded)
            .map_err(|_| StoreError::Failed("a cursor of another store".to_owned())),
    }
}

fn failed(error: redb::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}
