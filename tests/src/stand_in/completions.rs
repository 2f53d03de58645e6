//! Completions of plain text.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    items, prompt,
    refusal::{self, Refusal},
    reply::Reply,
    sse,
};

/// Answers a completion: one choice for each prompt.
pub fn answer(request: &Value, delay: Duration) -> Result<Response, Refusal> {
    let Some(model) = request["model"].as_str() else {
        return Err(Refusal::invalid("model is required"));
    };
    let prompts = prompts(&request["prompt"])?;
    let streams = refusal::streams(request)?;
    let answer = Answer {
        model,
        prompts: prompts.len(),
        prompt_tokens: prompts.iter().sum(),
        words: Reply::sentence(),
    };
    Ok(if streams {
        let include_usage = request["stream_options"]["include_usage"] == true;
        sse::response(answer.events(include_usage), delay)
    } else {
        answer.whole()
    })
}

/// Tokens of each prompt: a text, texts, token ids, or lists of token ids.
fn prompts(prompt: &Value) -> Result<Vec<u64>, Refusal> {
    let of = |prompt: &Value| match prompt {
        Value::String(text) => Some(prompt::count(text)),
        Value::Array(ids) if ids.iter().all(Value::is_u64) => Some(ids.len() as u64),
        _ => None,
    };
    let counts = match of(prompt) {
        Some(count) => Some(vec![count]),
        None => items(prompt).map(of).collect(),
    };
    counts
        .filter(|counts| !counts.is_empty())
        .ok_or_else(|| Refusal::invalid("prompt: a text or a list of texts or tokens is required"))
}

struct Answer<'r> {
    model: &'r str,
    prompts: usize,
    prompt_tokens: u64,
    words: Vec<String>,
}

impl Answer<'_> {
    fn usage(&self) -> Value {
        let completion_tokens = (self.words.len() * self.prompts) as u64;
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        })
    }

    fn whole(&self) -> Response {
        let text = self.words.concat();
        let choices: Vec<_> = (0..self.prompts)
            .map(|index| choice(index, &text, Some("stop")))
            .collect();
        let mut body = self.body(&choices);
        body["usage"] = self.usage();
        Json(body).into_response()
    }

    fn events(&self, include_usage: bool) -> Vec<String> {
        let event = |choices: &[Value], usage: Value| {
            let mut event = self.body(choices);
            if include_usage {
                event["usage"] = usage;
            }
            sse::plain(&event)
        };
        let mut events = Vec::new();
        for index in 0..self.prompts {
            let words = self.words.iter().map(|word| choice(index, word, None));
            let choices = words.chain([choice(index, "", Some("stop"))]);
            events.extend(choices.map(|choice| event(&[choice], Value::Null)));
        }
        if include_usage {
            events.push(event(&[], self.usage()));
        }
        events.push(sse::DONE.to_owned());
        events
    }

    fn body(&self, choices: &[Value]) -> Value {
        json!({
            "id": "cmpl-stand-in", "object": "text_completion", "created": 0, "model": self.model,
            "choices": choices,
        })
    }
}

fn choice(index: usize, text: &str, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_in_every_spelling() {
        for (prompt, counts) in [
            (json!("hello world"), Some(vec![2])),
            (json!(["hello world", "hello"]), Some(vec![2, 1])),
            (json!([1, 2, 3]), Some(vec![3])),
            (json!([[1, 2], [3]]), Some(vec![2, 1])),
            (json!([{}]), None),
            (Value::Null, None),
        ] {
            assert_eq!(prompts(&prompt).ok(), counts, "{prompt}");
        }
    }
}
