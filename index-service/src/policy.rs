//! The active models: what the filter is told about them, and what counts their tokens. They
//! follow their files: a changed one is loaded beside the old and takes its place.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prompt_cache_core::wire::ModelPolicy;

use crate::config::ModelConfig;
use crate::tokens::source::{Loader, SourceConfig, SourceError, Stamp};
use crate::tokens::{ImageTokens, TokenSource};

/// First pause after a source that did not load; doubled after each further one.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// A model with a cache policy.
pub struct ActiveModel {
    /// What the filter is told.
    pub policy: ModelPolicy,
    /// What counts its tokens.
    pub tokens: Arc<dyn TokenSource>,
}

/// A model's source did not load.
#[derive(Debug, thiserror::Error)]
#[error("models[{index}].tokenizer: {error}")]
pub struct ModelError {
    /// Index of the model in the configuration.
    pub index: usize,
    /// What is wrong.
    pub error: SourceError,
}

/// The configured models.
pub struct Models {
    loader: Loader,
    slots: RwLock<Slots>,
}

struct Slots {
    slots: Vec<Slot>,
    by_name: HashMap<String, Arc<ActiveModel>>,
}

struct Slot {
    config: ModelConfig,
    stamp: Stamp,
    loaded: Option<Arc<dyn TokenSource>>,
    retry: Option<Retry>,
}

/// When a source that did not load is tried again.
struct Retry {
    at: Instant,
    pause: Duration,
}

/// What became of the sources that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Loaded anew.
    pub loaded: u64,
    /// Not loadable; an older one stays in use, if there is one.
    pub failed: u64,
}

impl Models {
    /// Loads the sources of `configs` that are on this machine; those of a hub wait for
    /// [`Models::refresh`]. Blocking.
    ///
    /// # Errors
    /// With the first model whose files do not load.
    pub fn new(configs: &[ModelConfig]) -> Result<Self, ModelError> {
        let loader = Loader::default();
        let mut slots = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let stamp = Stamp::of(&config.source);
            let remote = config.source.is_remote();
            let loaded = if remote {
                None
            } else {
                let loaded = loader.load(&config.source, config.images);
                Some(loaded.map_err(|error| ModelError { index, error })?)
            };
            slots.push(Slot {
                config: config.clone(),
                stamp,
                loaded,
                retry: remote.then(|| Retry {
                    at: Instant::now(),
                    pause: RETRY_MIN,
                }),
            });
        }
        let by_name = by_name(&slots);
        Ok(Self {
            loader,
            slots: RwLock::new(Slots { slots, by_name }),
        })
    }

    /// The model of that name, if it is active. It stays as it is while the caller holds it.
    pub fn get(&self, model: &str) -> Option<Arc<ActiveModel>> {
        self.read(|slots| slots.by_name.get(model).map(Arc::clone))
    }

    /// What the filter is told, in the order of the configuration.
    pub fn policies(&self) -> Vec<ModelPolicy> {
        self.read(|slots| {
            let names = slots.slots.iter().map(|slot| &slot.config.model);
            let active = names.filter_map(|name| slots.by_name.get(name));
            active.map(|model| model.policy.clone()).collect()
        })
    }

    /// The first model whose source has not been loaded yet.
    pub fn pending(&self) -> Option<String> {
        self.read(|slots| {
            let pending = slots.slots.iter().find(|slot| slot.loaded.is_none());
            pending.map(|slot| slot.config.model.clone())
        })
    }

    /// Loads what has changed and what did not load before. Requests go on with what they have.
    /// Blocking.
    pub fn refresh(&self) -> Refreshed {
        let due: Vec<(usize, SourceConfig, ImageTokens, Stamp)> = self.read(|slots| {
            let looked_at = slots.slots.iter().enumerate().filter_map(|(at, slot)| {
                let stamp = Stamp::of(&slot.config.source);
                let due = match &slot.retry {
                    Some(retry) => Instant::now() >= retry.at,
                    None => stamp != slot.stamp,
                };
                due.then(|| (at, slot.config.source.clone(), slot.config.images, stamp))
            });
            looked_at.collect()
        });
        let mut refreshed = Refreshed::default();
        for (at, config, images, stamp) in due {
            let loaded = self.loader.load(&config, images);
            if let Ok(source) = &loaded {
                source.warm_up();
            }
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            let Some(slot) = slots.slots.get_mut(at) else {
                continue;
            };
            let model = &slot.config.model;
            match loaded {
                Ok(source) => {
                    tracing::info!(model, version = source.version(), "tokenizer loaded");
                    slot.loaded = Some(source);
                    slot.retry = None;
                    refreshed.loaded += 1;
                }
                Err(error) => {
                    let in_use = slot.loaded.is_some();
                    tracing::warn!(model, %error, in_use, "tokenizer does not load");
                    let pause = slot.retry.as_ref().map_or(RETRY_MIN, |retry| retry.pause);
                    slot.retry = Some(Retry {
                        at: Instant::now() + pause,
                        pause: pause.saturating_mul(2).min(RETRY_MAX),
                    });
                    refreshed.failed += 1;
                }
            }
            slot.stamp = stamp;
            slots.by_name = by_name(&slots.slots);
        }
        refreshed
    }

    /// Loads what the first count of each model would otherwise wait for. Blocking.
    pub fn warm_up(&self) {
        let models: Vec<_> = self.read(|slots| slots.by_name.values().cloned().collect());
        for model in models {
            model.tokens.warm_up();
        }
    }

    fn read<T>(&self, part: impl FnOnce(&Slots) -> T) -> T {
        part(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn by_name(slots: &[Slot]) -> HashMap<String, Arc<ActiveModel>> {
    let active = slots.iter().filter_map(|slot| {
        let (config, tokens) = (&slot.config, slot.loaded.as_ref()?);
        let policy = ModelPolicy {
            model: config.model.clone(),
            tiers: config.tiers.clone(),
            default_tier: config.default_tier,
            auto: config.auto,
            min_prefix_tokens: config.min_prefix_tokens,
            tokenizer_version: tokens.version().to_owned(),
        };
        let tokens = Arc::clone(tokens);
        Some((
            config.model.clone(),
            Arc::new(ActiveModel { policy, tokens }),
        ))
    });
    active.collect()
}
