//! redb: a copy-on-write B-tree in one file.

use std::path::Path;
use std::sync::RwLock;

use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, TableDefinition,
};

use crate::engine::{CACHE_BYTES, Due, Engine, Entry, Key, Value, bounds, later};

const ENTRIES: TableDefinition<&Key, &Value> = TableDefinition::new("entries");
const DUE: TableDefinition<&Due, ()> = TableDefinition::new("due");

pub struct Redb {
    database: Database,
    /// Replaced after each transaction, as the service does.
    snapshot: RwLock<ReadOnlyTable<&'static Key, &'static Value>>,
}

impl Redb {
    fn renew(&self) {
        *self.snapshot.write().unwrap() = snapshot(&self.database);
    }
}

fn snapshot(database: &Database) -> ReadOnlyTable<&'static Key, &'static Value> {
    database.begin_read().unwrap().open_table(ENTRIES).unwrap()
}

impl Engine for Redb {
    fn open(dir: &Path) -> Self {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(dir.join("ledger.redb"))
            .unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(ENTRIES).unwrap();
        transaction.open_table(DUE).unwrap();
        transaction.commit().unwrap();
        let snapshot = RwLock::new(snapshot(&database));
        Self { database, snapshot }
    }

    fn write(&self, new: &[Entry]) {
        let transaction = self.database.begin_write().unwrap();
        {
            let mut entries = transaction.open_table(ENTRIES).unwrap();
            let mut due = transaction.open_table(DUE).unwrap();
            for entry in new {
                if entries.get(&entry.key).unwrap().is_none() {
                    entries.insert(&entry.key, &entry.value).unwrap();
                    due.insert(&entry.due, ()).unwrap();
                }
            }
        }
        transaction.commit().unwrap();
        self.renew();
    }

    fn find(&self, keys: &[Key]) -> usize {
        let snapshot = self.snapshot.read().unwrap();
        let found = |key: &&Key| snapshot.get(*key).unwrap().is_some();
        keys.iter().filter(found).count()
    }

    fn refresh(&self, keys: &[Key], value: Value) {
        let transaction = self.database.begin_write().unwrap();
        {
            let mut entries = transaction.open_table(ENTRIES).unwrap();
            for key in keys {
                let stored = entries.get(key).unwrap().map(|stored| *stored.value());
                if let Some(stored) = stored {
                    entries.insert(key, &later(&stored, value)).unwrap();
                }
            }
        }
        transaction.commit().unwrap();
        self.renew();
    }

    fn sweep(&self, limit: usize) -> usize {
        let transaction = self.database.begin_write().unwrap();
        let mut removed = 0;
        {
            let mut entries = transaction.open_table(ENTRIES).unwrap();
            let mut due = transaction.open_table(DUE).unwrap();
            let rows = due.iter().unwrap().take(limit);
            let rows: Vec<Due> = rows.map(|row| *row.unwrap().0.value()).collect();
            for row in rows {
                due.remove(&row).unwrap();
                let (first, last) = bounds(&row);
                let range = entries.range::<&Key>(&first..=&last).unwrap();
                let keys: Vec<Key> = range.map(|row| *row.unwrap().0.value()).collect();
                for key in keys {
                    entries.remove(&key).unwrap();
                    removed += 1;
                }
            }
        }
        transaction.commit().unwrap();
        self.renew();
        removed
    }
}
