//! What may be out of the ordinary about a request: its client, its upstream, its body.

use crate::script::Script;

/// What the client does beside sending its request and reading the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerWay {
    Plain,
    /// Leaves when it has so many bytes of the body.
    Vanishes {
        bytes: usize,
    },
    /// Leaves in the middle of its request.
    VanishesSending,
    /// Sends its request in small pieces.
    Dribbles,
}

/// What the upstream does beside answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmWay {
    Whole,
    /// Pauses between chunks.
    Slow {
        pause_ms: u64,
    },
    /// One long pause in the middle.
    Stalls {
        pause_ms: u64,
    },
    /// Breaks off after this part of its bytes, in percent.
    Resets {
        percent: usize,
    },
    /// Breaks off instead of answering.
    ResetsAtOnce,
    Fails {
        status: u16,
    },
    /// An error in the middle of a success.
    ErrorFrame,
    Malformed,
    /// An event larger than any that is edited.
    Giant,
    NoUsage,
    NullUsage,
    NoDone,
    /// Usage with every token.
    ContinuousUsage,
    /// Usage with the finish reason.
    UsageAtFinish,
    /// Claims fewer prompt tokens than there are.
    SmallPrompt,
    /// Waits for the client to leave before it would finish.
    WaitsForLeave,
}

/// A body that is no proper chat request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Junk {
    NotJson,
    Truncated,
    Array,
    Deep,
    NoMessages,
    Binary,
    /// Refused: more than four markers.
    FiveMarkers,
    /// Refused: no such ttl.
    BadTtl,
}

impl CallerWay {
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(..100) {
            0..9 => CallerWay::Vanishes {
                bytes: [0, 1, 200, 1_000, 4_000][random.usize(..5)],
            },
            9..12 => CallerWay::VanishesSending,
            12..17 => CallerWay::Dribbles,
            _ => CallerWay::Plain,
        }
    }
}

impl LlmWay {
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(..100) {
            0..8 => LlmWay::Slow {
                pause_ms: random.u64(2..30),
            },
            8..12 => LlmWay::Stalls {
                pause_ms: random.u64(200..3_000),
            },
            12..17 => LlmWay::Resets {
                percent: random.usize(..100),
            },
            17..19 => LlmWay::ResetsAtOnce,
            19..24 => LlmWay::Fails {
                status: [500, 502, 503, 429, 400][random.usize(..5)],
            },
            24..27 => LlmWay::ErrorFrame,
            27..30 => LlmWay::Malformed,
            30..32 => LlmWay::Giant,
            32..34 => LlmWay::NoUsage,
            34..36 => LlmWay::NullUsage,
            36..39 => LlmWay::NoDone,
            39..43 => LlmWay::ContinuousUsage,
            43..46 => LlmWay::UsageAtFinish,
            46..49 => LlmWay::SmallPrompt,
            _ => LlmWay::Whole,
        }
    }
}

impl Junk {
    const ALL: [Self; 8] = [
        Self::NotJson,
        Self::Truncated,
        Self::Array,
        Self::Deep,
        Self::NoMessages,
        Self::Binary,
        Self::FiveMarkers,
        Self::BadTtl,
    ];

    pub fn draw(random: &mut fastrand::Rng) -> Self {
        Self::ALL[random.usize(..Self::ALL.len())]
    }

    /// Whether the filter answers itself.
    pub const fn refused(self) -> bool {
        matches!(self, Self::FiveMarkers | Self::BadTtl)
    }

    /// The body, in place of the script's.
    pub fn body(self, script: &Script) -> Vec<u8> {
        let whole = script.body(false);
        let marked = |ttl: &str| {
            format!(
                r#"{{"type":"text","text":"x","cache_control":{{"type":"ephemeral","ttl":"{ttl}"}}}}"#
            )
        };
        let chat = |parts: String| {
            format!(
                r#"{{"model":"{}","messages":[{{"role":"user","content":[{parts}]}}]}}"#,
                script.model.name()
            )
        };
        match self {
            Self::NotJson => b"model=alpha&messages=hello".to_vec(),
            Self::Truncated => whole.into_bytes()[..40].to_vec(),
            Self::Array => format!("[{whole}]").into_bytes(),
            Self::Deep => "[".repeat(20_000).into_bytes(),
            Self::NoMessages => br#"{"model":"alpha","messages":{"cache_control":1}}"#.to_vec(),
            Self::Binary => (0..2_000).map(|_| script.random.clone().u8(..)).collect(),
            Self::FiveMarkers => chat(vec![marked("5m"); 5].join(",")).into_bytes(),
            Self::BadTtl => chat(marked("2h")).into_bytes(),
        }
    }
}
