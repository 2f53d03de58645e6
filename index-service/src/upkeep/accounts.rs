//! Keeps the account map up to date without a restart; a source that fails keeps the last map.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::accounts::AccountMap;
use crate::config::accounts_file::{self, AccountsFile};
use crate::metrics::{Reload, Tally};
use crate::state::Service;

/// Pause between two looks at the source.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a look at a source found.
#[derive(Debug)]
pub enum Loaded {
    /// The same as before.
    Unchanged,
    /// Another map.
    Changed(AccountMap),
}

/// Where accounts come from.
#[async_trait]
pub trait AccountSource: Send {
    /// Looks; the first look is always a change.
    ///
    /// # Errors
    /// In words for an operator, without fingerprints.
    async fn load(&mut self) -> Result<Loaded, String>;
}

/// A file. Its contents are compared, not its time: a mounted file is often replaced by a link
/// to an older one.
pub struct FileSource {
    path: PathBuf,
    seen: Option<blake3::Hash>,
}

impl FileSource {
    /// The file at `path`.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }
}

#[async_trait]
impl AccountSource for FileSource {
    async fn load(&mut self) -> Result<Loaded, String> {
        let (path, seen) = (self.path.clone(), self.seen);
        let look = tokio::task::spawn_blocking(move || {
            let text = accounts_file::read(&path)?;
            let digest = blake3::hash(text.as_bytes());
            if seen == Some(digest) {
                return Ok(None);
            }
            let map = AccountsFile::parse(&text, &path)?.map()?;
            Ok(Some((digest, map)))
        });
        match look.await.map_err(|error| error.to_string())? {
            Ok(None) => Ok(Loaded::Unchanged),
            Ok(Some((digest, map))) => {
                self.seen = Some(digest);
                Ok(Loaded::Changed(map))
            }
            Err::<_, crate::config::ConfigError>(error) => Err(error.to_string()),
        }
    }
}

/// Looks at the source again and again until the task is aborted.
pub async fn run(service: Arc<Service>, mut source: Box<dyn AccountSource>) {
    let mut failing = false;
    loop {
        failing = look(&service, source.as_mut(), failing).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One look; whether it failed. The same failure is logged once, and counted each time.
pub async fn look(service: &Service, source: &mut dyn AccountSource, failing: bool) -> bool {
    match source.load().await {
        Ok(Loaded::Unchanged) => false,
        Ok(Loaded::Changed(map)) => {
            tracing::info!(accounts = map.len(), "accounts loaded");
            service.metrics.account_reloads.count(Reload::Ok);
            service.metrics.accounts.set(map.len() as u64);
            service.principals.replace(map);
            service.announcer.expire();
            false
        }
        Err(error) => {
            if !failing {
                tracing::warn!(%error, "accounts are kept as they were");
            }
            service.metrics.account_reloads.count(Reload::Error);
            true
        }
    }
}
