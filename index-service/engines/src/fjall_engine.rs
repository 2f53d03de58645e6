//! fjall: log-structured merge trees and a journal, in a folder.

use std::path::Path;
use std::sync::Mutex;

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _,
};

use crate::engine::{CACHE_BYTES, Engine, Entry, Key, Value, bounds, later};

pub struct Fjall {
    database: Database,
    entries: Keyspace,
    due: Keyspace,
    /// One at a time: what is written depends on what is there.
    writer: Mutex<()>,
}

impl Fjall {
    fn batch(&self) -> OwnedWriteBatch {
        self.database
            .batch()
            .durability(Some(PersistMode::SyncData))
    }
}

impl Engine for Fjall {
    fn open(dir: &Path) -> Self {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES as u64)
            .open()
            .unwrap();
        let keyspace = |name| {
            database
                .keyspace(name, KeyspaceCreateOptions::default)
                .unwrap()
        };
        Self {
            entries: keyspace("entries"),
            due: keyspace("due"),
            database,
            writer: Mutex::default(),
        }
    }

    fn write(&self, new: &[Entry]) {
        let _writer = self.writer.lock().unwrap();
        let mut batch = self.batch();
        for entry in new {
            if self.entries.get(entry.key).unwrap().is_none() {
                batch.insert(&self.entries, entry.key, entry.value);
                batch.insert(&self.due, entry.due, []);
            }
        }
        batch.commit().unwrap();
    }

    fn find(&self, keys: &[Key]) -> usize {
        let snapshot = self.database.snapshot();
        let found = |key: &&Key| snapshot.get(&self.entries, key).unwrap().is_some();
        keys.iter().filter(found).count()
    }

    fn refresh(&self, keys: &[Key], value: Value) {
        let _writer = self.writer.lock().unwrap();
        let mut batch = self.batch();
        for key in keys {
            if let Some(stored) = self.entries.get(key).unwrap() {
                batch.insert(&self.entries, *key, later(&stored, value));
            }
        }
        batch.commit().unwrap();
    }

    fn sweep(&self, limit: usize) -> usize {
        let _writer = self.writer.lock().unwrap();
        let mut batch = self.batch();
        let mut removed = 0;
        for row in self.due.iter().take(limit) {
            let row = row.key().unwrap();
            let (first, last) = bounds(&row);
            for entry in self.entries.range(first..=last) {
                batch.remove(&self.entries, entry.key().unwrap());
                removed += 1;
            }
            batch.remove(&self.due, row);
        }
        batch.commit().unwrap();
        removed
    }
}
