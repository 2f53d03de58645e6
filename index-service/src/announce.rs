//! What the policy route answers: the active models, and the epoch that says whether what was
//! answered before still stands.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use prompt_cache_core::wire::{Policy, WIRE_VERSION, WIRE_VERSIONS};
use tokio::time::Instant;

use crate::metrics::{Metrics, StoreOperation, Tally};
use crate::policy::Models;
use crate::principals::Principals;
use crate::store::{Epoch, Store};

/// How old a read of the store's epoch may be: what a purge on another replica takes to be
/// announced here, and what keeps policy requests from becoming look-ups.
const EPOCH_AGE_MAX: Duration = Duration::from_secs(1);
/// Longest wait for the store; then the last known epoch is announced.
const EPOCH_TIMEOUT: Duration = Duration::from_secs(1);
/// Hex digits of the announced epoch and of the entity tag.
const DIGEST_DIGITS: usize = 32;

/// A policy as it is answered.
#[derive(Debug, Default)]
pub struct Announced {
    /// The policy as JSON; the same bytes as long as the policy is the same.
    pub body: Bytes,
    /// Its strong entity tag, with its quotes.
    pub etag: String,
    /// The epoch in it.
    pub epoch: Arc<str>,
}

/// The policy that is being announced.
#[derive(Default)]
pub struct Announcer {
    last: RwLock<Last>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Last {
    announced: Arc<Announced>,
    epoch: Option<Epoch>,
    /// When the store was asked, or tried to be.
    asked: Option<Instant>,
}

impl Announcer {
    /// The policy, with an epoch read at most [`EPOCH_AGE_MAX`] ago while the store answers.
    ///
    /// # Errors
    /// When the policy cannot be written as JSON.
    pub async fn policy(
        &self,
        models: &Models,
        principals: &Principals,
        store: &dyn Store,
        metrics: &Metrics,
    ) -> Result<Arc<Announced>, serde_json::Error> {
        if let Some(announced) = self.fresh() {
            return Ok(announced);
        }
        let _turn = self.asking.lock().await;
        if let Some(announced) = self.fresh() {
            return Ok(announced);
        }
        let read = tokio::time::timeout(EPOCH_TIMEOUT, store.epoch()).await;
        let epoch = match read {
            Ok(Ok(epoch)) => Some(epoch),
            Ok(Err(_)) | Err(_) => {
                metrics.store_errors.count(StoreOperation::Epoch);
                self.read(|last| last.epoch)
            }
        };
        let announced = Arc::new(announce(models, principals, epoch)?);
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Last {
            announced: Arc::clone(&announced),
            epoch,
            asked: Some(Instant::now()),
        };
        Ok(announced)
    }

    /// The epoch that was announced last, without asking the store; empty when it is not known.
    pub fn epoch(&self) -> Arc<str> {
        self.read(|last| Arc::clone(&last.announced.epoch))
    }

    /// Has the next policy request ask the store again.
    pub fn expire(&self) {
        self.last
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .asked = None;
    }

    fn fresh(&self) -> Option<Arc<Announced>> {
        self.read(|last| {
            let asked = last.asked?;
            (asked.elapsed() < EPOCH_AGE_MAX).then(|| Arc::clone(&last.announced))
        })
    }

    fn read<T>(&self, part: impl FnOnce(&Last) -> T) -> T {
        part(&self.last.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn announce(
    models: &Models,
    principals: &Principals,
    epoch: Option<Epoch>,
) -> Result<Announced, serde_json::Error> {
    let accounts = principals.digest();
    let epoch = epoch.map_or_else(String::new, |epoch| {
        hex_digest(&[epoch.as_bytes(), accounts.as_slice()].concat())
    });
    let policy = Policy {
        v: WIRE_VERSION,
        speaks: WIRE_VERSIONS.to_vec(),
        epoch: epoch.clone(),
        models: models.policies(),
    };
    let body = serde_json::to_vec(&policy)?;
    let etag = format!("\"{}\"", hex_digest(&body));
    Ok(Announced {
        body: body.into(),
        etag,
        epoch: epoch.into(),
    })
}

fn hex_digest(bytes: &[u8]) -> String {
    let digest = blake3::hash(bytes).to_hex();
    digest.chars().take(DIGEST_DIGITS).collect()
}
