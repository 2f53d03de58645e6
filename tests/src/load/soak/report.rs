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

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of `count` samples, in which the quantity `leaks` grows by 40 for each million.
    fn report(count: u32, leaks: Option<usize>) -> Report {
        let sample = |n: u32| {
            let requests = MILLION * 2.0 * f64::from(n) / f64::from(count);
            let mut values = [100.0; QUANTITIES.len()];
            if let Some(leaks) = leaks {
                values[leaks] += 40.0 * requests / MILLION;
            }
            Sample { requests, values }
        };
        Report {
            settings: Settings {
                requests: 2_000_000,
                seed: 1,
                connections: 1,
                every: Duration::from_secs(1),
                plot: None,
            },
            time: Duration::from_secs(1),
            samples: (0..count).map(sample).collect(),
            idle: sample(count),
            counts: Counts::default(),
            vms_lost: 0,
            swept: 0,
        }
    }

    #[test]
    fn what_grows_is_named() {
        assert_eq!(report(300, None).growing(), [""; 0]);
        for (index, quantity) in QUANTITIES.iter().enumerate() {
            let growing = report(300, Some(index)).growing();
            assert_eq!(growing.len(), 1, "{growing:?}");
            assert!(growing[0].starts_with(quantity.name), "{growing:?}");
        }
        // Too few to say anything.
        assert_eq!(report(20, Some(0)).growing(), [""; 0]);
    }

    #[test]
    fn wrong_answers_and_missing_reads_are_named() {
        let mut report = report(300, None);
        for n in 0..10 {
            report.counts.ended(Kind::Hot, Ok(()));
            report.counts.cached(Kind::Hot, n < 8, false);
        }
        assert_eq!(report.wrong_answers(), [""; 0]);
        report.counts.ended(Kind::Hot, Ok(()));
        assert_eq!(report.wrong_answers(), ["8 reads of 11"]);
        let broke = Err("no answer".to_owned());
        report.counts.ended(Kind::Failed, broke);
        report.vms_lost = 1;
        let wrong = ["Failed: no answer", "8 reads of 11", "1 VMs lost"];
        assert_eq!(report.wrong_answers(), wrong);
    }
}
