//! Which faults strike when: a schedule that follows from the seed alone.

use std::time::Duration;

use crate::settings::StoreKind;

/// What is done to the service, as the filter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFault {
    /// `kill -9`; started again at the end.
    Kill,
    /// Stopped and continued.
    Pause,
    /// Connections are refused.
    Refuses,
    /// Calls are never answered, nor passed on.
    Silent,
    Slow {
        ms: u64,
    },
    Errors,
    /// JSON that is no answer.
    WrongJson,
    /// Something that is not HTTP.
    NotHttp,
    /// The answer breaks off in its head or body.
    Cut {
        bytes: usize,
    },
    /// Heard and done, but the answer is lost.
    AnswersLost,
}

/// What is done to the store, as the service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    Kill,
    Pause,
    Silent,
    Slow {
        ms: u64,
    },
    Severed,
    /// The embedded store's disk is full.
    DiskFull,
}

/// What is done to Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Another plugin configuration, which is as good.
    Good,
    /// One that the filter refuses.
    Bad,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    Service(usize, ServiceFault),
    Store(StoreFault),
    Envoy(Reload),
    /// A replica's clock is so far off from the others'.
    Skew(usize, i64),
}

/// The beginning or the end of a strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: Duration,
    pub strike: Strike,
    pub begins: bool,
}

impl Strike {
    /// Its kind, for counting.
    pub fn name(self) -> String {
        let name = match self {
            Self::Service(_, fault) => format!("service {fault:?}"),
            Self::Store(fault) => format!("store {fault:?}"),
            Self::Envoy(reload) => format!("Envoy reload {reload:?}"),
            Self::Skew(..) => "clock skew".to_owned(),
        };
        name.split(" {").next().unwrap_or_default().to_owned()
    }
}

/// The schedule of one act: everything that begins also ends in it.
pub fn schedule(seed: u64, store: StoreKind, time: Duration, clocks: bool) -> Vec<Moment> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x57_0a_57_0a);
    let mut all = vec![];
    let end_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut lane =
        |calm_ms: [u64; 2], most_ms: u64, draw: &dyn Fn(&mut fastrand::Rng) -> Strike| {
            let mut at_ms = random.u64(..calm_ms[1]);
            loop {
                let strike = draw(&mut random);
                let lasts_ms = random.u64(150..=most_ms);
                if at_ms + lasts_ms >= end_ms {
                    return;
                }
                let moment = |at_ms, begins| Moment {
                    at: Duration::from_millis(at_ms),
                    strike,
                    begins,
                };
                all.extend([moment(at_ms, true), moment(at_ms + lasts_ms, false)]);
                at_ms += lasts_ms + random.u64(calm_ms[0]..calm_ms[1]);
            }
        };
    for replica in 0..store.replicas() {
        lane([500, 5_000], 3_000, &|random| {
            Strike::Service(replica, service_fault(random))
        });
    }
    lane([2_000, 9_000], 3_000, &|random| {
        Strike::Store(store_fault(random, store))
    });
    lane([4_000, 15_000], 500, &|random| {
        Strike::Envoy(if random.u8(..4) == 0 {
            Reload::Bad
        } else {
            Reload::Good
        })
    });
    if clocks {
        for replica in 0..store.replicas() {
            lane([5_000, 15_000], 5_000, &|random| {
                Strike::Skew(replica, random.i64(-20_000..20_000))
            });
        }
    }
    all.sort_by_key(|moment| moment.at);
    all
}

fn service_fault(random: &mut fastrand::Rng) -> ServiceFault {
    match random.u8(..12) {
        0..2 => ServiceFault::Kill,
        2 => ServiceFault::Pause,
        3 => ServiceFault::Refuses,
        4 => ServiceFault::Silent,
        5 | 6 => ServiceFault::Slow {
            ms: random.u64(20..2_500),
        },
        7 => ServiceFault::Errors,
        8 => ServiceFault::WrongJson,
        9 => ServiceFault::NotHttp,
        10 => ServiceFault::Cut {
            bytes: random.usize(1..400),
        },
        _ => ServiceFault::AnswersLost,
    }
}

fn store_fault(random: &mut fastrand::Rng, store: StoreKind) -> StoreFault {
    if store == StoreKind::Embedded {
        return StoreFault::DiskFull;
    }
    match random.u8(..6) {
        0 => StoreFault::Kill,
        1 => StoreFault::Pause,
        2 => StoreFault::Silent,
        3 => StoreFault::Slow {
            ms: random.u64(5..600),
        },
        _ => StoreFault::Severed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        let minute = Duration::from_secs(60);
        for store in StoreKind::ALL {
            let one = schedule(7, store, minute, true);
            assert_eq!(one, schedule(7, store, minute, true));
            assert_ne!(one, schedule(8, store, minute, true));
            assert!(one.is_sorted_by_key(|moment| moment.at));
            assert!(one.iter().all(|moment| moment.at < minute));
            let begins = one.iter().filter(|moment| moment.begins).count();
            assert_eq!(begins * 2, one.len());
        }
    }
}
