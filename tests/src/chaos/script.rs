//! What one request is: everything about it follows from the seed and its number.

use std::collections::HashMap;

use prompt_cache_e2e::{http::Request, world::CHAT};

use crate::{
    ledger::Tier,
    prompt::{self, Block, Spelling},
    ways::{CallerWay, Junk, LlmWay},
};

/// Carries a request's number to the upstream.
pub const NUMBER: &str = "x-chaos-number";
const TENANTS: usize = 4;
/// Topics that are talked about at the same time.
const TOPICS: u32 = 5;
/// Requests after which a topic is given up for a new one.
const TOPIC_REQUESTS: u64 = 400;
/// Numbers from here on are of requests that nothing happens to.
const HEALTHY: u64 = 1 << 40;
/// Tries of one of them.
const TRIES: u64 = 1 << 10;
/// Tokens that such a request has at least.
const HEALTHY_TOKENS: u64 = 500;
const DEPTH_MAX: usize = 9;
const BRANCHES: u32 = 3;

/// Where the Messages API is.
const MESSAGES: &str = "/v1/messages";
/// Topics of it, apart from the others': prefixes are not shared across APIs here.
const MESSAGES_TOPICS: u32 = 1 << 20;

/// What a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Chat,
    Messages,
}

/// A model that requests name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    Alpha,
    Beta,
    /// One that the service does not serve.
    Unknown,
}

impl Model {
    /// Those that the service serves.
    pub const ACTIVE: [Self; 2] = [Self::Alpha, Self::Beta];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Alpha => "alpha",
            Self::Beta => "beta",
            Self::Unknown => "nobody's",
        }
    }

    /// The least tokens of a prefix that is written.
    pub const fn floor(self) -> u64 {
        match self {
            Self::Alpha | Self::Unknown => 100,
            Self::Beta => 300,
        }
    }

    /// The tier of a marker that names none.
    pub const fn default_tier(self) -> Tier {
        match self {
            Self::Alpha | Self::Unknown => Tier::FiveMinutes,
            Self::Beta => Tier::OneHour,
        }
    }
}

/// A marker: the depth of its block, and its tier where it names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub depth: usize,
    pub tier: Option<Tier>,
}

/// Everything about one request.
#[derive(Clone, Debug)]
pub struct Script {
    pub number: u64,
    /// The number that its question names: another one's, where it repeats that.
    pub question: u64,
    pub api: Api,
    /// Who pays; nobody without a credential.
    pub tenant: Option<usize>,
    pub model: Model,
    pub blocks: Vec<Block>,
    pub marks: Vec<Mark>,
    pub spelling: Spelling,
    pub stream: bool,
    /// The client asks for usage itself.
    pub asked: bool,
    pub caller: CallerWay,
    pub llm: LlmWay,
    pub junk: Option<Junk>,
    pub random: fastrand::Rng,
}

impl Script {
    /// A try to read a prefix of its own, `which`, through healthy parts.
    pub fn healthy(seed: u64, which: u64, attempt: u64) -> Self {
        Self::of(seed, HEALTHY + which * TRIES + attempt)
    }

    pub fn of(seed: u64, number: u64) -> Self {
        if let Some(number_of) = number.checked_sub(HEALTHY) {
            return Self::plain(number, number_of / TRIES);
        }
        let mut random = fastrand::Rng::with_seed(
            seed.rotate_left(17) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let replays = random.u8(..100) < 8 && number > 60;
        let back = random.u64(1..50);
        let caller = CallerWay::draw(&mut random);
        let llm = match caller {
            CallerWay::Vanishes { .. } if random.bool() => LlmWay::WaitsForLeave,
            _ => LlmWay::draw(&mut random),
        };
        if replays {
            return Self {
                number,
                caller,
                llm,
                random,
                ..Self::of(seed, number - back)
            };
        }
        let age = u32::try_from(number / TOPIC_REQUESTS).unwrap_or(u32::MAX);
        let (api, first) = match random.u8(..100) {
            0..25 => (Api::Messages, MESSAGES_TOPICS),
            _ => (Api::Chat, 0),
        };
        let topic = first + age + random.u32(..TOPICS);
        let blocks: Vec<_> = (0..random.usize(1..=DEPTH_MAX))
            .map(|depth| {
                let branch = if random.u8(..100) < 80 {
                    0
                } else {
                    random.u32(..BRANCHES)
                };
                prompt::block(topic, depth, branch)
            })
            .collect();
        let model = match random.u8(..100) {
            0..5 => Model::Unknown,
            5..30 => Model::Beta,
            _ => Model::Alpha,
        };
        let mut marks = marks(&mut random, blocks.len());
        if api == Api::Messages {
            longest_first(&mut marks, model);
        }
        let chance = |percent: u8, random: &mut fastrand::Rng| random.u8(..100) < percent;
        Self {
            number,
            question: number,
            tenant: (!chance(3, &mut random)).then(|| random.usize(..TENANTS)),
            api,
            model,
            marks,
            spelling: Spelling {
                spaced: chance(20, &mut random),
                text_first: random.bool(),
                escaped: chance(10, &mut random),
                strings: random.bool(),
            },
            stream: chance(75, &mut random),
            asked: chance(70, &mut random) || api == Api::Messages,
            caller,
            llm,
            junk: chance(4, &mut random).then(|| Junk::draw(&mut random)),
            blocks,
            random,
        }
    }

    fn plain(number: u64, which: u64) -> Self {
        let topic = u32::MAX / 128 + u32::try_from(which).unwrap_or(0);
        let mut blocks = vec![];
        while blocks.iter().map(|b| prompt::tokens(*b)).sum::<u64>() < HEALTHY_TOKENS {
            blocks.push(prompt::block(topic, blocks.len(), 0));
        }
        Self {
            number,
            question: number,
            api: if which.is_multiple_of(3) {
                Api::Messages
            } else {
                Api::Chat
            },
            tenant: Some(0),
            model: Model::Alpha,
            marks: vec![Mark {
                depth: blocks.len() - 1,
                tier: None,
            }],
            blocks,
            spelling: Spelling::default(),
            stream: number.is_multiple_of(2),
            asked: true,
            caller: CallerWay::Plain,
            llm: LlmWay::Whole,
            junk: None,
            random: fastrand::Rng::with_seed(number),
        }
    }

    /// Whether the service may know who pays for what.
    pub fn billable(&self) -> bool {
        self.tenant.is_some() && self.model != Model::Unknown && self.junk.is_none()
    }

    /// The body, with its markers or without.
    pub fn body(&self, marked: bool) -> String {
        let marker = |mark: &Mark| {
            let json = match mark.tier {
                None => r#"{"type":"ephemeral"}"#.to_owned(),
                Some(tier) => format!(r#"{{"ttl":"{}","type":"ephemeral"}}"#, tier.name()),
            };
            (mark.depth, marked.then_some(json))
        };
        let markers: HashMap<_, _> = self.marks.iter().map(marker).collect();
        let question = format!("Question {}?", self.question);
        let messages = prompt::messages(self.api, &self.blocks, &markers, &question, self.spelling);
        let model = self.model.name();
        if self.api == Api::Messages {
            let stream = if self.stream { r#""stream":true,"# } else { "" };
            return format!(
                r#"{{"model":"{model}","max_tokens":64,{stream}{messages},"temperature":0.70}}"#
            );
        }
        let stream = match (self.stream, self.asked) {
            (false, _) => "",
            (true, false) => r#""stream":true,"#,
            (true, true) => r#""stream":true,"stream_options":{"include_usage":true},"#,
        };
        format!(r#"{{"model":"{model}",{stream}{messages},"temperature":0.70}}"#)
    }

    /// What the client sends.
    pub fn request(&self) -> Request {
        let body = match self.junk {
            None => self.body(true).into_bytes(),
            Some(junk) => junk.body(self),
        };
        let path = match self.api {
            Api::Chat => CHAT,
            Api::Messages => MESSAGES,
        };
        let request = Request::post(path, body).header(NUMBER, &self.number.to_string());
        match self.tenant {
            Some(tenant) if self.api == Api::Messages => {
                request.header("x-api-key", &format!("tenant-{tenant}"))
            }
            Some(tenant) => request.header("authorization", &format!("Bearer tenant-{tenant}")),
            None => request,
        }
    }

    /// The tier that a marker stands for.
    pub fn tier(&self, mark: &Mark) -> Tier {
        mark.tier.unwrap_or(self.model.default_tier())
    }
}

/// The Messages API refuses a longer tier after a shorter one.
fn longest_first(marks: &mut [Mark], model: Model) {
    let mut tiers: Vec<_> = marks.iter().map(|mark| mark.tier).collect();
    tiers.sort_by_key(|tier| std::cmp::Reverse(tier.unwrap_or(model.default_tier())));
    for (mark, tier) in marks.iter_mut().zip(tiers) {
        mark.tier = tier;
    }
}

/// None, or up to four, the deepest block more often than others.
fn marks(random: &mut fastrand::Rng, depths: usize) -> Vec<Mark> {
    if random.u8(..100) < 12 {
        return vec![];
    }
    let mut at: Vec<usize> = (0..random.usize(1..=4))
        .map(|_| random.usize(..depths))
        .collect();
    if random.u8(..100) < 70 {
        at[0] = depths - 1;
    }
    at.sort_unstable();
    at.dedup();
    let tiers = [None, None, Some(Tier::FiveMinutes), Some(Tier::OneHour)];
    at.into_iter()
        .map(|depth| Mark {
            depth,
            tier: tiers[random.usize(..tiers.len())],
        })
        .collect()
}
