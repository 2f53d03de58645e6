//! Streams of the Messages API.

use super::{Build, GIANT_BYTES};
use crate::{
    delivered::{Piece, UsageKind, UsagePiece},
    ways::LlmWay,
};

impl Build {
    /// The events of a message; whether its `message_stop` is among them.
    pub(super) fn message_stream(&mut self, prompt_tokens: u64) -> bool {
        const START: &str =
            r#"{"type":"message_start","message":{"id":"m1","role":"assistant","content":[]"#;
        match self.way {
            LlmWay::NoUsage => self.named("message_start", &format!("{START}}}}}")),
            LlmWay::NullUsage => {
                self.named("message_start", &format!(r#"{START},"usage":null}}}}"#));
            }
            _ => {
                let usage = format!(r#"{{"input_tokens":{prompt_tokens},"output_tokens":1}}"#);
                self.named_usage("message_start", START, usage, "}}", prompt_tokens);
            }
        }
        let tokens = self.random.usize(1..25);
        let odd_at = self.random.usize(..tokens);
        for token in 0..tokens {
            if token == odd_at {
                self.message_oddity();
            }
            let bytes = [3, 8, 40, 3_000][self.random.usize(..4)];
            self.text(&"é~".repeat(bytes / 3 + 1));
        }
        let finish = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}"#;
        if matches!(self.way, LlmWay::NoUsage | LlmWay::NullUsage) {
            self.named("message_delta", &format!("{finish}}}"));
        } else {
            let usage = if self.random.bool() {
                r#"{"output_tokens":7}"#.to_owned()
            } else {
                format!(r#"{{"input_tokens":{prompt_tokens}, "output_tokens":7}}"#)
            };
            self.named_usage("message_delta", finish, usage, "}", prompt_tokens);
        }
        if self.way == LlmWay::NoDone {
            return false;
        }
        self.named("message_stop", r#"{"type":"message_stop"}"#);
        true
    }

    fn message_oddity(&mut self) {
        match self.way {
            LlmWay::ErrorFrame => {
                self.named(
                    "error",
                    r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
                );
            }
            LlmWay::Giant => self.text(&"g".repeat(GIANT_BYTES)),
            LlmWay::Malformed => self.oddity(),
            _ => self.named("ping", r#"{"type":"ping"}"#),
        }
    }

    fn text(&mut self, text: &str) {
        self.named(
            "content_block_delta",
            &format!(
                r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#
            ),
        );
    }

    /// An event with a name.
    fn named(&mut self, name: &str, data: &str) {
        let line_end = self.line_end;
        self.exact(&format!(
            "event: {name}{line_end}data: {data}{line_end}{line_end}"
        ));
    }

    fn named_usage(&mut self, name: &str, open: &str, usage: String, close: &str, total: u64) {
        let line_end = self.line_end;
        self.pieces.push(Piece::Usage(UsagePiece {
            before: format!("event: {name}{line_end}data: {open},\"usage\":").into_bytes(),
            usage,
            after: format!("{close}{line_end}{line_end}").into_bytes(),
            only: false,
            kind: UsageKind::Messages { total },
        }));
    }
}
