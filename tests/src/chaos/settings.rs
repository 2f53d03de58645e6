//! What the command line asks for.

use std::time::Duration;

use prompt_cache_test_servers::{postgres::Postgres, redis::Redis};

/// How to call this program.
pub const USAGE: &str = "usage: chaos MINUTES SEED [embedded|postgres|redis] [--plant LIE]";

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub time: Duration,
    pub seed: u64,
    /// The one store to run on; each in turn when not given.
    pub store: Option<StoreKind>,
    /// A lie that the checker must find out.
    pub plant: Option<Plant>,
}

/// Where the ledger lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Embedded,
    Postgres,
    Redis,
}

impl StoreKind {
    pub const ALL: [Self; 3] = [Self::Embedded, Self::Postgres, Self::Redis];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Embedded => true,
            Self::Postgres => Postgres::is_installed(),
            Self::Redis => Redis::is_installed(),
        }
    }

    /// An embedded ledger has one process.
    pub const fn replicas(self) -> usize {
        match self {
            Self::Embedded => 1,
            Self::Postgres | Self::Redis => 2,
        }
    }
}

/// What is wrong on purpose, to see the checker notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Each read is one token more.
    ReadMore,
    /// Every tenant is asked for as if it were one and the same.
    OtherTenant,
    /// One byte of a token is another one when it leaves the upstream.
    FlipByte,
    /// What broke off or failed was complete, but for what the model is told.
    Unearned,
    /// The model's clock is an hour and more ahead of the service's.
    Expired,
    /// The filter waits longer than the model is told.
    LongHold,
    /// The upstream fails where the model is told that it answers.
    Failed,
}

impl Settings {
    /// The stores to run on: of those that were not asked for by name, what is installed. In CI
    /// all must be.
    pub fn stores(&self) -> Vec<StoreKind> {
        let strict = std::env::var_os("CI").is_some();
        let known = |kind: &StoreKind| {
            let found = strict || kind.is_installed();
            if !found {
                println!("{}: left out, it is not installed", kind.as_str());
            }
            found
        };
        match self.store {
            Some(store) => vec![store],
            None => StoreKind::ALL.into_iter().filter(known).collect(),
        }
    }
}

impl Plant {
    pub const ALL: [(&'static str, Self); 7] = [
        ("read-more", Self::ReadMore),
        ("other-tenant", Self::OtherTenant),
        ("flip-byte", Self::FlipByte),
        ("unearned", Self::Unearned),
        ("expired", Self::Expired),
        ("long-hold", Self::LongHold),
        ("failed", Self::Failed),
    ];
}

impl Settings {
    /// Reads the arguments.
    pub fn read(arguments: &[String]) -> Result<Self, String> {
        let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut plant = None;
        if let Some(at) = words.iter().position(|word| *word == "--plant") {
            let name = words.get(at + 1).copied().ok_or(USAGE)?;
            let found = Plant::ALL.iter().find(|(known, _)| *known == name);
            plant = Some(found.ok_or(USAGE)?.1);
            words.drain(at..at + 2);
        }
        let [minutes, seed, store @ ..] = &words[..] else {
            return Err(USAGE.to_owned());
        };
        let minutes: f64 = minutes.parse().map_err(|_| USAGE)?;
        let store = match store {
            [] => None,
            [name] => {
                let found = StoreKind::ALL
                    .into_iter()
                    .find(|kind| kind.as_str() == *name);
                Some(found.ok_or(USAGE)?)
            }
            _ => return Err(USAGE.to_owned()),
        };
        if !(0.05..=10_000.0).contains(&minutes) {
            return Err(format!("{minutes} minutes: 0.05 to 10000\n{USAGE}"));
        }
        Ok(Self {
            time: Duration::from_secs_f64(minutes * 60.0),
            seed: seed.parse().map_err(|_| USAGE)?,
            store,
            plant,
        })
    }
}
