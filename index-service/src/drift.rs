//! Compares our counts of whole prompts with what the upstream reported, model by model.
//!
//! The filter brings both with a commit. The recent ones decide a model's state: a model whose
//! counts are above the upstream's would bill tokens that its prompt never had.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::config::DriftConfig;
use crate::metrics::{Metrics, ModelLabels, StateLabels};

/// Comparisons before there is a verdict.
const LEAST: u32 = 8;
/// What one more comparison leaves of the weight of those before: about the last 64 decide.
const KEPT: f64 = 1.0 - 1.0 / 64.0;
/// Below this share of the upstream's count ours do not follow it at all: images, a template that
/// is not known. Prefixes are billed too low then, never too high.
const UNMAPPED_BELOW: f64 = 0.5;

/// How well our counts follow the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not above the upstream's by more than the bound.
    Trusted,
    /// Above the bound.
    Drifting,
    /// Too few comparisons, or counts far below the upstream's.
    Unmapped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Trusted, Self::Drifting, Self::Unmapped];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Drifting => "drifting",
            Self::Unmapped => "unmapped",
        }
    }
}

/// Decayed sums of tokens, so that long prompts weigh more than short ones.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    comparisons: u32,
    ours: f64,
    theirs: f64,
}

impl Recent {
    fn add(&mut self, ours: u64, theirs: u64) {
        self.comparisons = self.comparisons.saturating_add(1);
        self.ours = self.ours * KEPT + ours as f64;
        self.theirs = self.theirs * KEPT + theirs as f64;
    }

    fn state(&self, config: &DriftConfig) -> State {
        if self.comparisons < LEAST {
            return State::Unmapped;
        }
        let ratio = self.ours / self.theirs;
        if ratio * 1000.0 > f64::from(config.max_ratio_permille) {
            State::Drifting
        } else if ratio < UNMAPPED_BELOW {
            State::Unmapped
        } else {
            State::Trusted
        }
    }
}

/// The comparisons of all models.
pub struct Drift {
    config: DriftConfig,
    models: HashMap<String, Mutex<Recent>>,
}

impl Drift {
    /// No comparisons yet for any of `models`.
    pub fn new<'m>(
        config: DriftConfig,
        models: impl Iterator<Item = &'m str>,
        metrics: &Metrics,
    ) -> Self {
        let models = models
            .map(|model| {
                show(metrics, model, State::Unmapped);
                (model.to_owned(), Mutex::default())
            })
            .collect();
        Self { config, models }
    }

    /// Takes one comparison: our count of a whole prompt and the upstream's `prompt_tokens`.
    pub fn compare(&self, metrics: &Metrics, model: &str, ours: u64, theirs: u64) {
        let Some(recent) = self.models.get(model).filter(|_| theirs > 0) else {
            return;
        };
        let labels = ModelLabels {
            model: model.to_owned(),
        };
        let ratio = ours as f64 / theirs as f64;
        metrics.drift.get_or_create(&labels).observe(ratio);
        let (before, after) = {
            let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
            let before = recent.state(&self.config);
            recent.add(ours, theirs);
            (before, recent.state(&self.config))
        };
        if before != after {
            show(metrics, model, after);
            tracing::warn!(
                model,
                before = before.as_str(),
                after = after.as_str(),
                "our token counts follow the upstream's differently"
            );
        }
    }

    /// The model's state.
    pub fn state(&self, model: &str) -> State {
        self.models.get(model).map_or(State::Unmapped, |recent| {
            recent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .state(&self.config)
        })
    }

    /// The model's state, our recent tokens over the upstream's, and how often they were compared.
    pub fn view(&self, model: &str) -> (State, Option<f64>, u32) {
        let Some(recent) = self.models.get(model) else {
            return (State::Unmapped, None, 0);
        };
        let recent = *recent.lock().unwrap_or_else(PoisonError::into_inner);
        let ratio = (recent.comparisons > 0).then(|| recent.ours / recent.theirs);
        (recent.state(&self.config), ratio, recent.comparisons)
    }

    /// Whether nothing is to be written for this model.
    pub fn stops_writes(&self, model: &str) -> bool {
        self.config.stop_writes && self.state(model) == State::Drifting
    }
}

fn show(metrics: &Metrics, model: &str, now: State) {
    for state in State::ALL {
        let labels = StateLabels {
            model: model.to_owned(),
            state: state.as_str(),
        };
        let gauge = metrics.drift_state.get_or_create(&labels);
        gauge.set(u64::from(state == now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(comparisons: &[(u32, u64, u64)]) -> State {
        let metrics = Metrics::new();
        let config = DriftConfig {
            max_ratio_permille: 1050,
            stop_writes: false,
        };
        let drift = Drift::new(config, ["m"].into_iter(), &metrics);
        for &(times, ours, theirs) in comparisons {
            for _ in 0..times {
                drift.compare(&metrics, "m", ours, theirs);
            }
        }
        drift.state("m")
    }

    #[test]
    fn the_recent_comparisons_decide() {
        let table = [
            (vec![], State::Unmapped),
            (vec![(7, 100, 100)], State::Unmapped),
            (vec![(8, 100, 100)], State::Trusted),
            (vec![(8, 105, 100)], State::Trusted),
            (vec![(8, 106, 100)], State::Drifting),
            (vec![(8, 70, 100)], State::Trusted),
            (vec![(8, 49, 100)], State::Unmapped),
            // Nothing reported is nothing to compare with.
            (vec![(99, 100, 0)], State::Unmapped),
            // One odd prompt among many is no drift, and drift goes when its cause does.
            (vec![(100, 100, 100), (1, 200, 100)], State::Trusted),
            (vec![(100, 100, 100), (64, 120, 100)], State::Drifting),
            (vec![(100, 120, 100), (128, 100, 100)], State::Trusted),
            // Long prompts weigh more.
            (vec![(8, 11, 10), (8, 10_000, 10_000)], State::Trusted),
        ];
        for (comparisons, state) in table {
            assert_eq!(after(&comparisons), state, "{comparisons:?}");
        }
    }
}
