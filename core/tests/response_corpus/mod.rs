//! The bodies that the response tests run through the rewriter, and the answer they get.
#![allow(dead_code)]

use prompt_cache_core::{
    ledger::{Split, TierTokens},
    response::{Answer, BodyKind, RewriteOptions},
};

pub const SPLIT: Answer = Answer::Split(Split {
    read: 1000,
    creation: TierTokens {
        five_minutes: 200,
        one_hour: 40,
        day: 0,
    },
});

pub const TRANSCRIPTS: [(&str, &str); 28] = [
    ("azure", include_str!("../transcripts/azure.sse")),
    ("deepseek", include_str!("../transcripts/deepseek.sse")),
    (
        "error_event",
        include_str!("../transcripts/error_event.sse"),
    ),
    (
        "error_field",
        include_str!("../transcripts/error_field.sse"),
    ),
    (
        "error_mid_stream",
        include_str!("../transcripts/error_mid_stream.sse"),
    ),
    (
        "error_ollama",
        include_str!("../transcripts/error_ollama.sse"),
    ),
    (
        "error_openrouter",
        include_str!("../transcripts/error_openrouter.sse"),
    ),
    (
        "escaped_key",
        include_str!("../transcripts/escaped_key.sse"),
    ),
    ("fields", include_str!("../transcripts/fields.sse")),
    ("groq", include_str!("../transcripts/groq.sse")),
    ("litellm", include_str!("../transcripts/litellm.sse")),
    ("mistral", include_str!("../transcripts/mistral.sse")),
    ("multi_byte", include_str!("../transcripts/multi_byte.sse")),
    ("no_done", include_str!("../transcripts/no_done.sse")),
    ("ollama", include_str!("../transcripts/ollama.sse")),
    ("openai", include_str!("../transcripts/openai.sse")),
    ("openrouter", include_str!("../transcripts/openrouter.sse")),
    ("perplexity", include_str!("../transcripts/perplexity.sse")),
    ("reasoning", include_str!("../transcripts/reasoning.sse")),
    ("sglang", include_str!("../transcripts/sglang.sse")),
    (
        "single_line_feeds",
        include_str!("../transcripts/single_line_feeds.sse"),
    ),
    ("tgi", include_str!("../transcripts/tgi.sse")),
    ("tool_calls", include_str!("../transcripts/tool_calls.sse")),
    ("two_usages", include_str!("../transcripts/two_usages.sse")),
    (
        "usage_after_done",
        include_str!("../transcripts/usage_after_done.sse"),
    ),
    ("vllm", include_str!("../transcripts/vllm.sse")),
    (
        "vllm_continuous",
        include_str!("../transcripts/vllm_continuous.sse"),
    ),
    ("xai", include_str!("../transcripts/xai.sse")),
];

/// Streams of the Messages API.
pub const MESSAGES_TRANSCRIPTS: [(&str, &str); 3] = [
    ("messages", include_str!("../transcripts/messages.sse")),
    (
        "messages_error",
        include_str!("../transcripts/messages_error.sse"),
    ),
    (
        "messages_vllm",
        include_str!("../transcripts/messages_vllm.sse"),
    ),
];

/// Bodies of the Messages API.
pub const MESSAGES_BODIES: [&str; 4] = [
    r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"see \"usage\""}],"stop_reason":"end_turn","usage":{"input_tokens":2006,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":3,"service_tier":"standard"}}"#,
    r#"{"usage":{"input_tokens":6,"cache_creation_input_tokens":500,"cache_read_input_tokens":1500,"cache_creation":null,"output_tokens":3},"content":[]}"#,
    r#"{"usage":{"input_tokens":1100,"cache_read_input_tokens":null,"output_tokens":3}}"#,
    r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
];

/// Streams of the Responses API.
pub const RESPONSES_TRANSCRIPTS: [(&str, &str); 3] = [
    (
        "responses_error",
        include_str!("../transcripts/responses_error.sse"),
    ),
    ("responses", include_str!("../transcripts/responses.sse")),
    (
        "responses_failed",
        include_str!("../transcripts/responses_failed.sse"),
    ),
];

/// Bodies of the Responses API.
pub const RESPONSES_BODIES: [&str; 3] = [
    r#"{"id":"resp_1","object":"response","status":"completed","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"see \"usage\""}]}],"usage":{"input_tokens":2006,"input_tokens_details":{"cached_tokens":1500,"cache_write_tokens":0},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":2009},"prompt_tokens":1}"#,
    r#"{"status":"in_progress","error":null,"usage":null}"#,
    r#"{"status":"failed","error":{"code":"server_error","message":"x"},"usage":{"input_tokens":1100,"prompt_tokens_details":{"cached_tokens":7},"input_tokens_details":null}}"#,
];

pub const JSON_BODIES: [&str; 15] = [
    r#"{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","content":"see \"usage\": {"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2006,"completion_tokens":3,"total_tokens":2009,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0}},"system_fingerprint":"fp"}"#,
    "{\n  \"usage\" : {\n    \"prompt_tokens\" : 1200.0\n  },\n  \"x\" : [ 1e3, { \"usage\" : { } } ]\n}\n",
    r#"{"us\u0061ge":{"prompt_tokens":12},"usage":null,"usage":{"prompt_tokens":1300,"cache_read_input_tokens":1}}"#,
    r#"{"error":{"message":"x"},"usage":{}}"#,
    r#"{"error":null,"usage":[{}]}"#,
    r#"[{"usage":{"prompt_tokens":1}}]"#,
    r#"{"usage":{"prompt_tokens":1}} x"#,
    r#"{"usage":{"prompt_tokens":1}"#,
    r#"{"usage":{"prompt_tokens":1},"a":01}"#,
    r#"{"a":{"usage":{}},"b":"\\\"usage\":{}\u00e9","é":"🦀"}"#,
    "",
    "upstream connect error",
    // DeepSeek: empty lines while the request waits for its turn.
    "\n\n\n{\"id\":\"9f\",\"choices\":[{\"message\":{\"content\":\"ok\"}}],\"usage\":{\"prompt_tokens\":1700,\"prompt_cache_hit_tokens\":1664,\"prompt_cache_miss_tokens\":36}}",
    // OpenRouter: an error under the status 200. Gemini: one in an array.
    r#"{"id":"gen-1","error":{"code":502,"message":"Provider returned error"},"choices":[{"finish_reason":"error"}],"usage":{"prompt_tokens":1100}}"#,
    r#"[{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}]"#,
];

pub fn options(kind: BodyKind) -> RewriteOptions {
    RewriteOptions {
        api: prompt_cache_core::api::Api::Chat,
        kind,
        drop_usage_only: false,
        event_bytes_max: 1 << 20,
        held_bytes_max: 1 << 18,
        scrub: false,
    }
}
