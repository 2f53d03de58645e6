//! What the upstream answers, piece by piece.

mod messages;

use crate::{
    delivered::{Piece, UsageKind, UsagePiece},
    script::{Api, Script},
    ways::LlmWay,
};

/// An event above the filter's `max_event_bytes` in these runs.
const GIANT_BYTES: usize = 80 << 10;
/// Bytes at the end of a usage frame that a frame at the end of a body may miss: its blank line.
const MISSED_BYTES_MAX: usize = 4;

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    /// By the end of the connection. For Envoy a reset is one too: a body that breaks off is
    /// complete, and nobody behind it can know better.
    UntilClose,
}

/// An answer, decided before its first byte is sent.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub framing: Framing,
    pub pieces: Vec<Piece>,
    /// How many bytes have left when nothing more is needed for the request to be paid for;
    /// `usize::MAX` where that takes the end itself. `None`: it never is.
    pub earns_at: Option<usize>,
    pub resets_at: Option<usize>,
    /// The bytes of the first event, where that is one that nothing may hold back.
    pub first_event_bytes: Option<usize>,
    /// What its usage claims.
    pub prompt_tokens: u64,
}

impl Answer {
    /// The answer to `script` of a prompt of `prompt_tokens`; `usage` is asked for, by whomever.
    pub fn of(script: &Script, prompt_tokens: u64, usage: bool) -> Self {
        let mut random = script.random.clone();
        let prompt_tokens = match script.llm {
            LlmWay::SmallPrompt => random.u64(..=prompt_tokens),
            _ => prompt_tokens + 40,
        };
        let draw = random.u8(..10);
        let status = match script.llm {
            LlmWay::Fails { status } => status,
            _ => 200,
        };
        let mut build = Build {
            line_end: if random.bool() { "\n" } else { "\r\n" },
            usage: match script.api {
                Api::Chat => usage_object(&mut random, prompt_tokens),
                Api::Messages => {
                    format!(r#"{{"input_tokens":{prompt_tokens},"output_tokens":7}}"#)
                }
            },
            kind: match script.api {
                Api::Chat => UsageKind::Chat,
                Api::Messages => UsageKind::Messages {
                    total: prompt_tokens,
                },
            },
            random,
            pieces: vec![],
            way: script.llm,
        };
        let done = match (status, script.stream) {
            (200, true) if script.api == Api::Messages => build.message_stream(prompt_tokens),
            (200, true) => build.stream(usage || script.random.clone().u8(..) < 64),
            _ => {
                build.json(status);
                false
            }
        };
        let stream = script.stream && status == 200;
        let framing = match draw {
            0..4 if !stream => Framing::Length,
            4..6 if stream => Framing::UntilClose,
            _ => Framing::Chunked,
        };
        let answer = build.answer(status, framing, prompt_tokens, stream);
        Self {
            earns_at: answer.earns_at(done),
            ..answer
        }
    }

    /// See the field.
    fn earns_at(&self, done: bool) -> Option<usize> {
        self.earns_at?;
        let total = self.bytes().len();
        match (self.resets_at, self.framing) {
            (Some(at), Framing::UntilClose) => {
                let mut end = 0;
                let whole = self.pieces.iter().any(|piece| {
                    end += piece.bytes().len();
                    matches!(piece, Piece::Usage(_)) && end <= at + MISSED_BYTES_MAX
                });
                whole.then_some(usize::MAX)
            }
            // The last byte is the end, whatever the upstream does after it.
            (_, Framing::Length) => Some(total),
            _ => Some(if done { total } else { usize::MAX }),
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(Piece::bytes).collect()
    }
}

struct Build {
    random: fastrand::Rng,
    pieces: Vec<Piece>,
    way: LlmWay,
    line_end: &'static str,
    usage: String,
    kind: UsageKind,
}

impl Build {
    /// A stream of events; whether `[DONE]` ends it.
    fn stream(&mut self, with_usage: bool) -> bool {
        let continuous = self.way == LlmWay::ContinuousUsage && with_usage;
        let tokens = self.random.usize(1..25);
        let odd_at = self.random.usize(..tokens);
        if self.way == LlmWay::Malformed && self.random.u8(..4) == 0 {
            self.exact("\u{feff}");
        }
        for token in 0..tokens {
            if token == odd_at {
                self.oddity();
            }
            let bytes = [3, 8, 40, 3_000][self.random.usize(..4)];
            let content = "é~".repeat(bytes / 3 + 1);
            let chunk = choice(&format!(r#"{{"content":"{content}"}}"#), "null");
            if continuous {
                self.usage_frame(&chunk, false);
            } else if self.way == LlmWay::NullUsage {
                self.event(&format!(r#"{chunk},"usage":null}}"#));
            } else {
                self.event(&format!("{chunk}}}"));
            }
        }
        let finish = choice("{}", r#""stop""#);
        let has_usage = with_usage && !matches!(self.way, LlmWay::NoUsage | LlmWay::NullUsage);
        if has_usage && self.way == LlmWay::UsageAtFinish {
            self.usage_frame(&finish, false);
        } else {
            self.event(&format!("{finish}}}"));
            if has_usage {
                self.usage_frame(r#"{"id":"c1","choices":[]"#, true);
            }
        }
        if self.way == LlmWay::NoDone {
            return false;
        }
        self.event("[DONE]");
        true
    }

    /// What is out of the ordinary in the middle of a stream.
    fn oddity(&mut self) {
        match self.way {
            LlmWay::ErrorFrame if self.random.bool() => {
                let line_end = self.line_end;
                self.exact(&format!("event: error{line_end}"));
                self.event(r#"{"message":"overloaded"}"#);
            }
            LlmWay::ErrorFrame => self.event(r#"{"error":{"message":"overloaded"}}"#),
            LlmWay::Giant => {
                let content = "g".repeat(GIANT_BYTES);
                let chunk = choice(&format!(r#"{{"content":"{content}"}}"#), "null");
                self.event(&format!("{chunk}}}"));
            }
            LlmWay::Malformed => match self.random.u8(..6) {
                0 => self.event(r#"{"choices":[{"delta":{"content":"cut"#),
                1 => self
                    .pieces
                    .push(Piece::Exact(b"data: \xff\xfe\x00\n\n".to_vec())),
                2 => self.exact(": a comment\r\rretry 5\nnonsense\n\n\n"),
                3 => self.event(r#"[1,{"usage":{"prompt_tokens":1}}]"#),
                4 => self.event(r#"{"usage":[1],"error":null,"choices":[{"index":0}]}"#),
                _ => self.exact("event: ping\nid: 3\ndata:\n\n"),
            },
            _ => {}
        }
    }

    fn event(&mut self, data: &str) {
        let line_end = self.line_end;
        self.exact(&format!("data: {data}{line_end}{line_end}"));
    }

    fn exact(&mut self, text: &str) {
        self.pieces.push(Piece::Exact(text.as_bytes().to_vec()));
    }

    /// A frame whose JSON object starts like `open`, and has a usage object.
    fn usage_frame(&mut self, open: &str, only: bool) {
        let line_end = self.line_end;
        self.pieces.push(Piece::Usage(UsagePiece {
            before: format!(r#"data: {open},"usage":"#).into_bytes(),
            usage: self.usage.clone(),
            after: format!(r#","x":1.50}}{line_end}{line_end}"#).into_bytes(),
            only,
            kind: self.kind,
        }));
    }

    fn json(&mut self, status: u16) {
        if self.way == LlmWay::Malformed {
            return self.exact(r#"{"id":"c1","choices":[],"usage":{"prompt_tokens":7"#);
        }
        let bytes = match self.way {
            LlmWay::Giant => GIANT_BYTES,
            _ => self.random.usize(..2_000),
        };
        let content = "j".repeat(bytes);
        let choices = format!(
            r#""choices": [{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}]"#
        );
        let failed = status != 200 || self.way == LlmWay::ErrorFrame;
        let rest = if failed {
            r#""error":{"message":"overloaded","code":1}"#.to_owned()
        } else {
            choices
        };
        let without = matches!(self.way, LlmWay::NoUsage | LlmWay::NullUsage);
        if without || failed && self.random.bool() {
            let null = if self.way == LlmWay::NullUsage {
                r#","usage":null"#
            } else {
                ""
            };
            return self.exact(&format!(r#"{{"id":"c1",{rest}{null}}}"#));
        }
        let (before, after) = if self.random.bool() {
            (format!(r#"{{"id":"c1",{rest},"usage":"#), "}\n".to_owned())
        } else {
            (r#"{"usage": "#.to_owned(), format!(r#" ,{rest}}}"#))
        };
        self.pieces.push(Piece::Usage(UsagePiece {
            before: before.into_bytes(),
            usage: self.usage.clone(),
            after: after.into_bytes(),
            only: false,
            kind: self.kind,
        }));
    }

    fn answer(mut self, status: u16, framing: Framing, prompt_tokens: u64, stream: bool) -> Answer {
        let sizes: Vec<_> = self
            .pieces
            .iter()
            .map(|piece| piece.bytes().len())
            .collect();
        let total: usize = sizes.iter().sum();
        let has_usage = self.pieces.iter().any(|p| matches!(p, Piece::Usage(_)));
        let earns = status == 200 && has_usage && self.way != LlmWay::ErrorFrame;
        let first_passes = matches!(
            (&self.pieces[0], self.kind),
            (Piece::Exact(_), _) | (_, UsageKind::Messages { .. })
        );
        let resets_at = match self.way {
            LlmWay::Resets { percent } => Some(total * percent / 100),
            // Before the usage, so that nothing of it is ever paid for.
            LlmWay::WaitsForLeave => {
                let first_usage = self
                    .pieces
                    .iter()
                    .position(|p| matches!(p, Piece::Usage(_)));
                let before: usize = sizes[..first_usage.unwrap_or(0)].iter().sum();
                Some(self.random.usize(..=before))
            }
            LlmWay::ResetsAtOnce => Some(0),
            _ => None,
        };
        Answer {
            status,
            framing,
            earns_at: earns.then_some(total),
            resets_at,
            // The usage at the start of a message does not wait either.
            first_event_bytes: (stream && first_passes).then(|| sizes[0]),
            pieces: self.pieces,
            prompt_tokens,
        }
    }
}

/// The start of a chunk with one choice.
fn choice(delta: &str, finish_reason: &str) -> String {
    format!(
        r#"{{"id":"c1","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish_reason}}}]"#
    )
}

fn usage_object(random: &mut fastrand::Rng, prompt_tokens: u64) -> String {
    let more = [
        "",
        r#","prompt_tokens_details":null"#,
        r#","prompt_tokens_details":{"cached_tokens":3,"audio_tokens":0}"#,
        r#","completion_tokens_details":{"reasoning_tokens":2}"#,
    ][random.usize(..4)];
    let total = prompt_tokens + 7;
    format!(
        r#"{{"prompt_tokens":{prompt_tokens},"completion_tokens":7,"total_tokens":{total}{more}}}"#
    )
}
