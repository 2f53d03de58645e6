//! Requests that are written once, with digits to make each another one.

use std::ops::Range;

use memchr::memmem;
use serde_json::{Value, json};

use prompt_cache_core::api::Api;

use super::llm::ANSWER_HEADER;

/// Stand in a template for digits of the same length: another prompt from its first block on,
/// another tenant, another model, another answer of the LLM.
const TOPIC: &str = "T000000000000000";
const TENANT: &str = "K000";
const MODEL: &str = "M0";

/// One request, head and body, with places for what varies.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    topic: Range<usize>,
    tenant: Range<usize>,
    model: Range<usize>,
    answer: Range<usize>,
}

/// What varies.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    /// Which prompt.
    pub topic: u64,
    /// Whose, below 1000.
    pub tenant: u16,
    /// To which model, below 10: `M0` to `M9`.
    pub model: u8,
    /// Which answer of the LLM, below 100.
    pub answer: u8,
}

/// How a prompt is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Not at all.
    None,
    /// Its first block, for five minutes.
    Right,
    /// In a way that is refused.
    Wrong,
}

impl Template {
    /// A request of `api` whose first block is `text`.
    pub fn new(api: Api, stream: bool, mark: Mark, text: &str) -> Self {
        let body = body(api, stream, mark, &format!("{TOPIC} {text}")).to_string();
        let path = match api {
            Api::Chat => "/v1/chat/completions",
            Api::Messages => "/v1/messages",
            Api::Responses => "/v1/responses",
            Api::Completions => "/v1/completions",
        };
        let bytes = format!(
            "POST {path} HTTP/1.1\r\nhost: llm.example\r\nuser-agent: load\r\naccept: */*\r\n\
             content-type: application/json\r\nauthorization: Bearer {TENANT}\r\n\
             {ANSWER_HEADER}: 00\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes();
        let place = |what: &str, length: usize| {
            let at = memmem::find(&bytes, what.as_bytes()).unwrap_or_default() + what.len();
            at - length..at
        };
        Self {
            topic: place(TOPIC, TOPIC.len() - 1),
            tenant: place(TENANT, TENANT.len() - 1),
            model: place(MODEL, MODEL.len() - 1),
            answer: place(&format!("{ANSWER_HEADER}: 00"), 2),
            bytes,
        }
    }

    /// The request with these values.
    pub fn with(&self, values: Values) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut write = |place: &Range<usize>, digits: String| {
            bytes[place.clone()].copy_from_slice(digits.as_bytes());
        };
        write(&self.topic, format!("{:015}", values.topic));
        write(&self.tenant, format!("{:03}", values.tenant));
        write(&self.model, format!("{}", values.model));
        write(&self.answer, format!("{:02}", values.answer));
        bytes
    }
}

fn body(api: Api, stream: bool, mark: Mark, text: &str) -> Value {
    let control = match mark {
        Mark::Wrong => json!({"type": "ephemeral", "ttl": "forever"}),
        Mark::Right | Mark::None => json!({"type": "ephemeral"}),
    };
    let mut block = json!({"type": "text", "text": text});
    if mark != Mark::None {
        block["cache_control"] = control.clone();
    }
    let mut body = match api {
        Api::Chat => json!({
            "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": [block]},
                {"role": "user", "content": "And now?"},
            ],
        }),
        Api::Messages => json!({
            "max_tokens": 16,
            "system": [block],
            "messages": [{"role": "user", "content": "And now?"}],
        }),
        Api::Responses => {
            let mut part = json!({"type": "input_text", "text": text});
            match mark {
                Mark::None => {}
                Mark::Right => part["prompt_cache_breakpoint"] = json!({"mode": "explicit"}),
                Mark::Wrong => part["prompt_cache_breakpoint"] = json!({"mode": "sometimes"}),
            }
            let question = json!({"type": "input_text", "text": "And now?"});
            json!({"input": [{"role": "user", "content": [part, question]}]})
        }
        Api::Completions => {
            let mut body = json!({"prompt": text, "stream_options": {"include_usage": true}});
            if mark != Mark::None {
                body["cache_control"] = control;
            }
            body
        }
    };
    if !stream && let Some(members) = body.as_object_mut() {
        members.remove("stream_options");
    }
    body["model"] = json!(MODEL);
    body["stream"] = json!(stream);
    body
}

/// About `bytes` bytes of plain text.
pub fn text(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    let mut number = 0;
    while text.len() < bytes {
        text += &format!("Fact {number} of the file is that nothing in it was ever changed. ");
        number += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use prompt_cache_core::request::scan_as;

    use super::*;

    #[test]
    fn a_template_takes_its_values() {
        for api in [Api::Chat, Api::Messages, Api::Responses, Api::Completions] {
            let template = Template::new(api, true, Mark::Right, &text(100));
            let values = Values {
                topic: 77,
                tenant: 12,
                model: 3,
                answer: 45,
            };
            let bytes = template.with(values);
            let text = String::from_utf8(bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("Bearer K012\r\n") && head.contains("x-load-answer: 45\r\n"));
            assert!(head.ends_with(&format!("content-length: {}", body.len())));
            assert!(body.contains("T000000000000077 Fact 0"));
            let request = scan_as(api, body.as_bytes()).unwrap();
            assert_eq!(request.model(), Some("M3"));
            assert!(request.stream());
        }
    }
}
