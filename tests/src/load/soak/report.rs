//! What a soak found: counts, the line through each quantity, and whether that is good.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    Settings,
    sample::{QUANTITIES, Quantity, Sample},
    slope::Slope,
    traffic::Kind,
};

/// Part of the requests that warms up: by then everything with a bound has reached it.
const WARM_UP_PARTS: f64 = 1.0 / 3.0;
/// Requests that the growth is stated for.
const MILLION: f64 = 1e6;
/// Of the requests that may read, and of those that may write: the cache works.
const CACHED_PARTS_MIN: f64 = 0.8;
/// Wrong answers that are shown.
const WRONG_SHOWN: usize = 5;

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    sent: u64,
    read: u64,
    created: u64,
    wrong: u64,
}

/// Requests by kind, and the first wrong answers.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    by_kind: BTreeMap<Kind, Count>,
    wrong: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Report {
    pub settings: Settings,
    pub time: Duration,
    pub samples: Vec<Sample>,
    /// When no client was left.
    pub idle: Sample,
    pub counts: Counts,
    /// Envoy's counters of replaced VMs that are not zero.
    pub vms_lost: usize,
    /// Expired entries that the service removed.
    pub swept: u64,
}

impl Counts {
    /// A request has ended, well or not.
    pub fn ended(&mut self, kind: Kind, outcome: Result<(), String>) {
        let count = self.by_kind.entry(kind).or_default();
        count.sent += 1;
        if let Err(why) = outcome {
            count.wrong += 1;
            if self.wrong.len() < WRONG_SHOWN {
                self.wrong.push(format!("{kind:?}: {why}"));
            }
        }
    }

    /// What its usage said.
    pub fn cached(&mut self, kind: Kind, read: bool, created: bool) {
        let count = self.by_kind.entry(kind).or_default();
        count.read += u64::from(read);
        count.created += u64::from(created);
    }
}

impl Report {
    /// The requests with which warm-up ended.
    pub fn warm_at(&self) -> f64 {
        self.settings.requests as f64 * WARM_UP_PARTS
    }

    /// The growth of each quantity in a million requests, after warm-up; without enough samples
    /// there is none.
    pub fn slopes(&self) -> Vec<(Quantity, Option<Slope>)> {
        let warm = |sample: &&Sample| sample.requests >= self.warm_at();
        let of = |(index, quantity): (usize, Quantity)| {
            let points: Vec<(f64, f64)> = self
                .samples
                .iter()
                .filter(warm)
                .map(|sample| (sample.requests / MILLION, sample.values[index]))
                .collect();
            (quantity, Slope::of(&points))
        };
        QUANTITIES.into_iter().enumerate().map(of).collect()
    }

    /// What is wrong with the answers: too few reads count, too.
    pub fn wrong_answers(&self) -> Vec<String> {
        let mut wrong = self.counts.wrong.clone();
        let count = |kind| self.counts.by_kind.get(&kind).copied().unwrap_or_default();
        let (hot, cold) = (count(Kind::Hot), count(Kind::Cold));
        for (what, some, all) in [
            ("reads", hot.read, hot.sent),
            ("writes", cold.created, cold.sent),
        ] {
            if (some as f64) < all as f64 * CACHED_PARTS_MIN {
                wrong.push(format!("{some} {what} of {all}"));
            }
        }
        if self.vms_lost > 0 {
            wrong.push(format!("{} VMs lost", self.vms_lost));
        }
        wrong
    }

    /// What grows, for sure and by more than it may.
    pub fn growing(&self) -> Vec<String> {
        self.slopes()
            .into_iter()
            .filter_map(|(quantity, slope)| {
                let slope = slope.filter(|slope| slope.exceeds(quantity.growth_max))?;
                Some(format!(
                    "{} grows by {:.2} {} in a million requests",
                    quantity.name, slope.value, quantity.unit
                ))
            })
            .collect()
    }
}

/// Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        writeln!(
            f,
            "{} requests over {} connections in {:.0} s, {:.0} per second; {} samples; {} expired entries removed.\n",
            self.settings.requests,
            self.settings.connections,
            seconds,
            self.settings.requests as f64 / seconds,
            self.samples.len(),
            self.swept,
        )?;
        writeln!(f, "| requests | sent | read | written | wrong |")?;
        writeln!(f, "|---|--:|--:|--:|--:|")?;
        for (kind, count) in &self.counts.by_kind {
            let Count {
                sent,
                read,
                created,
                wrong,
            } = count;
            writeln!(f, "| {kind:?} | {sent} | {read} | {created} | {wrong} |")?;
        }
        writeln!(
            f,
            "\n| | begin | warm | end | idle | growth in a million requests | may be |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|")?;
        let warm_at = self.warm_at();
        let warm = self.samples.iter().find(|s| s.requests >= warm_at);
        for (index, (quantity, slope)) in self.slopes().into_iter().enumerate() {
            let at = |sample: Option<&Sample>| {
                sample.map_or_else(String::new, |sample| format!("{:.1}", sample.values[index]))
            };
            let slope = slope.map_or_else(String::new, |slope| {
                format!("{:+.2} ± {:.2}", slope.value, slope.half_width)
            });
            writeln!(
                f,
                "| {} {} | {} | {} | {} | {} | {slope} | {:.0} |",
                quantity.name,
                quantity.unit,
                at(self.samples.first()),
                at(warm),
                at(self.samples.last()),
                at(Some(&self.idle)),
                quantity.growth_max,
            )?;
        }
        Ok(())
    }
}
