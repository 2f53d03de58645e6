//! The requests of a soak: which there are, and what each must lead to.

use prompt_cache_core::api::Api;
use serde_json::json;

use crate::load::{
    llm::Script,
    prompt::{Mark, Template, Values, text},
    reply,
};

/// The four APIs, the first of them twice as often as all others.
const APIS: [Api; 4] = [Api::Chat, Api::Messages, Api::Responses, Api::Completions];
/// Answers of each API, in the order of [`scripts`].
const ANSWERS: u8 = 5;
const JSON: u8 = 0;
const STREAM: u8 = 1;
const ENDLESS: u8 = 2;
const BROKEN: u8 = 3;
const ERROR_FRAME: u8 = 4;
/// Answers that are no success, after those.
const STATUSES: [u16; 4] = [400, 429, 500, 503];

/// Bytes of the first block: above the floor, and two sizes that buffers and lanes treat apart.
const SMALL_BYTES: usize = 2_000;
const LARGE_BYTES: usize = 24_000;
const HUGE_BYTES: usize = 1_000_000;
/// Prompts that are read again, of each tenant.
const HOT_TOPICS: u64 = 4;
const TENANTS: u16 = 40;
/// Models that are served, and one that is not.
pub const MODELS: [u8; 2] = [0, 1];
const OTHER_MODEL: u8 = 9;
/// Topics of prompts that come once.
const FIRST_TOPIC: u64 = 1_000_000;

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Unmarked,
    Hot,
    Cold,
    OtherModel,
    Refused,
    Failed,
    ErrorFrame,
    Broken,
    Leaves,
    Huge,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This status, and a whole answer.
    Status(u16),
    /// An answer that breaks off.
    Breaks,
    /// The client leaves as soon as it sees a first word.
    Leaves,
}

/// One request.
pub struct Shot {
    pub kind: Kind,
    pub expected: Expected,
    pub bytes: Vec<u8>,
}

/// Draws requests.
pub struct Traffic {
    random: fastrand::Rng,
    topic: u64,
    /// By API, stream and mark.
    small: Vec<Template>,
    large: Vec<Template>,
    huge: Vec<Template>,
}

/// What the LLM is to answer.
pub fn scripts() -> Vec<Script> {
    let of = |api| {
        [
            reply::json(api),
            reply::stream(api),
            reply::endless(api),
            reply::broken(api),
            reply::error_frame(api),
        ]
    };
    let error = json!({"error": {"type": "server_error", "message": "no"}});
    let failures = STATUSES.map(|status| reply::status(status, &error));
    APIS.into_iter().flat_map(of).chain(failures).collect()
}

/// In a thousand.
const SHARES: [(Kind, u32); 10] = [
    (Kind::Unmarked, 260),
    (Kind::Hot, 360),
    (Kind::Cold, 210),
    (Kind::OtherModel, 30),
    (Kind::Refused, 30),
    (Kind::Failed, 40),
    (Kind::ErrorFrame, 20),
    (Kind::Broken, 20),
    (Kind::Leaves, 28),
    (Kind::Huge, 2),
];

impl Kind {
    fn drawn(random: &mut fastrand::Rng) -> Self {
        let mut left = random.u32(..1000);
        for (kind, share) in SHARES {
            if left < share {
                return kind;
            }
            left -= share;
        }
        Self::Unmarked
    }

    fn mark(self) -> Mark {
        match self {
            Self::Unmarked | Self::Huge => Mark::None,
            Self::Refused => Mark::Wrong,
            _ => Mark::Right,
        }
    }
}

impl Traffic {
    /// The same for the same seed.
    pub fn new(seed: u64) -> Self {
        let all = |bytes: usize| {
            let text = text(bytes);
            let mut templates = vec![];
            for api in APIS {
                for stream in [false, true] {
                    for mark in [Mark::None, Mark::Right, Mark::Wrong] {
                        templates.push(Template::new(api, stream, mark, &text));
                    }
                }
            }
            templates
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            topic: FIRST_TOPIC,
            small: all(SMALL_BYTES),
            large: all(LARGE_BYTES),
            huge: all(HUGE_BYTES),
        }
    }

    /// The next request.
    pub fn draw(&mut self) -> Shot {
        let kind = Kind::drawn(&mut self.random);
        let random = &mut self.random;
        let api = match random.u8(..12) {
            0..8 => 0,
            8 | 9 => 1,
            10 => 2,
            _ => 3,
        };
        let mut stream = random.bool();
        let answer = match kind {
            Kind::Failed => Err(random.u8(..STATUSES.len() as u8)),
            Kind::ErrorFrame => Ok(ERROR_FRAME),
            Kind::Broken => Ok(BROKEN),
            Kind::Leaves => Ok(ENDLESS),
            _ if stream => Ok(STREAM),
            _ => Ok(JSON),
        };
        stream |= answer.is_ok_and(|answer| answer >= ENDLESS);
        let expected = match (kind, answer) {
            (Kind::Refused, _) => Expected::Status(400),
            (Kind::Broken, _) => Expected::Breaks,
            (Kind::Leaves, _) => Expected::Leaves,
            (_, Err(failure)) => Expected::Status(STATUSES[usize::from(failure)]),
            (_, Ok(_)) => Expected::Status(200),
        };
        let topic = match kind {
            Kind::Hot => random.u64(..HOT_TOPICS),
            _ => {
                self.topic += 1;
                self.topic
            }
        };
        let model = match kind {
            Kind::OtherModel => OTHER_MODEL,
            _ => MODELS[random.usize(..MODELS.len())],
        };
        let values = Values {
            topic,
            tenant: random.u16(..TENANTS),
            model,
            answer: match answer {
                Ok(answer) => api * ANSWERS + answer,
                Err(failure) => APIS.len() as u8 * ANSWERS + failure,
            },
        };
        let size = match kind {
            Kind::Huge => &self.huge,
            Kind::Hot if topic == 0 => &self.large,
            Kind::Unmarked | Kind::Cold if random.u8(..20) == 0 => &self.large,
            _ => &self.small,
        };
        let mark = match kind.mark() {
            Mark::None => 0,
            Mark::Right => 1,
            Mark::Wrong => 2,
        };
        let index = (usize::from(api) * 2 + usize::from(stream)) * 3 + mark;
        Shot {
            kind,
            expected,
            bytes: size[index].with(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_there_is() {
        assert_eq!(SHARES.iter().map(|(_, share)| share).sum::<u32>(), 1000);
        let mut traffic = Traffic::new(1);
        let mut kinds: Vec<Kind> = (0..3000).map(|_| traffic.draw().kind).collect();
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), SHARES.len());
    }
}
