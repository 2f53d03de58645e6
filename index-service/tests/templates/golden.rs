//! Renderings spelled out, and how prefixes end where templates move what they are given.

use serde_json::{Value, json};

use crate::zoo::{by_name, prefixes, render, template};

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {}}})
}

/// The prefix that ends with each block ends with these texts.
fn prefixes_end(animal: &str, body: &Value, ends: &[&str]) {
    let texts = prefixes(&by_name(animal), body);
    assert_eq!(texts.len(), ends.len(), "{animal}");
    for (text, end) in texts.into_iter().zip(ends) {
        let text = text.unwrap();
        assert!(text.ends_with(end), "{animal}: {end:?}\n{text}");
    }
}

#[test]
fn a_plain_conversation_ends_where_its_texts_end() {
    let body = json!({"messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
        {"role": "assistant", "content": "C"},
        {"role": "user", "content": "D"},
    ]});
    let qwen = [
        "<|im_start|>system\nS",
        "<|im_end|>\n<|im_start|>user\nA",
        "<|im_start|>user\nA\nB",
        "<|im_end|>\n<|im_start|>assistant\nC",
        "<|im_end|>\n<|im_start|>user\nD",
    ];
    prefixes_end("qwen2.5", &body, &qwen);
    prefixes_end("qwen3", &body, &qwen);
    // Its parts are a list, joined by nothing.
    let tekken = [
        "[SYSTEM_PROMPT]S",
        "[INST]A",
        "[INST]AB",
        "[/INST]C",
        "</s>[INST]D",
    ];
    prefixes_end("mistral-tekken", &body, &tekken);
    let whole = render(&by_name("gemma3"), &body).unwrap();
    assert_eq!(
        whole,
        "<s><start_of_turn>user\nS\n\nAB<end_of_turn>\n<start_of_turn>model\nC<end_of_turn>\n\
         <start_of_turn>user\nD<end_of_turn>\n<start_of_turn>model\n"
    );
}

/// Tools come after the system text: the prefix of the system message holds both.
#[test]
fn tools_after_the_system_text_belong_to_its_prefix() {
    let body = json!({
        "tools": [tool("first"), tool("second")],
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
    });
    let last = "\"description\": null, \"parameters\": {}}}\n";
    prefixes_end("qwen2.5", &body, &[last, last, last, "<|im_start|>user\nU"]);
    let texts = prefixes(&by_name("qwen2.5"), &body);
    let system = texts[2].as_ref().unwrap();
    assert!(
        system.starts_with("<|im_start|>system\nS\n\n# Tools"),
        "{system}"
    );
    assert!(system.contains("\"second\""), "{system}");
    assert!(!texts[0].as_ref().unwrap().contains("second"));
}

/// Tools are shown in the first user message, after the system turn.
#[test]
fn tools_inside_a_user_message_belong_to_the_system_prefix() {
    let body = json!({
        "tools": [tool("only")],
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
    });
    for animal in ["llama3.1", "mistral-v3"] {
        let texts = prefixes(&by_name(animal), &body);
        for text in texts {
            let text = text.unwrap();
            assert!(text.contains("only"), "{animal}: {text}");
        }
    }
    let texts = prefixes(&by_name("mistral-v3"), &body);
    let user = texts[2].as_ref().unwrap();
    assert!(user.ends_with("[/AVAILABLE_TOOLS][INST] S\n\nU"), "{user}");
}

/// A system message in the middle is moved to the front; its prefix still holds the talk before.
#[test]
fn a_late_system_message_keeps_what_came_before_it() {
    let body = json!({"messages": [
        {"role": "user", "content": "a long question, long enough to be told from the end of a turn, \
                                     which has to have about a hundred letters"},
        {"role": "assistant", "content": "A"},
        {"role": "system", "content": "LATE"},
        {"role": "user", "content": "U"},
    ]});
    let texts = prefixes(&by_name("deepseek-r1"), &body);
    let late = texts[2].as_ref().unwrap();
    assert!(late.starts_with("<s>LATE<|User|>a long"), "{late}");
    assert!(late.ends_with("<|Assistant|>A"), "{late}");
}

/// Within a tool loop the reasoning is shown; a later question drops it.
#[test]
fn reasoning_counts_in_the_turn_it_belongs_to() {
    let call = json!({"id": "call00001", "type": "function",
                      "function": {"name": "f", "arguments": "{\"x\": [1, 2.0, \"é\"]}"}});
    let body = json!({
        "tools": [tool("f")],
        "messages": [
            {"role": "user", "content": "U"},
            {"role": "assistant", "reasoning_content": "WHY", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call00001", "content": "R"},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": "next"},
        ],
    });
    let texts = prefixes(&by_name("qwen3"), &body);
    let text = |block: usize| texts[block].as_ref().unwrap();
    let with_reasoning = "<think>\nWHY\n</think>\n\n<tool_call>\n{\"name\": \"f\", \
                          \"arguments\": {\"x\": [1, 2.0, \"é\"]}}\n</tool_call>";
    assert!(text(3).ends_with(with_reasoning), "{}", text(3));
    assert!(text(4).ends_with("<tool_response>\nR\n"), "{}", text(4));
    assert!(text(4).contains("WHY"));
    assert!(!text(6).contains("WHY"), "{}", text(6));
}

/// What transformers' environment does that a plain Jinja does not.
#[test]
fn the_environment_is_that_of_transformers() {
    let table = [
        ("{{ strftime_now('%d %b %Y') }}", "06 Mar 2025"),
        (
            "{{ {'b': '<é>', 'a': [1, 2.5, none, true]} | tojson }}",
            "{\"b\": \"<é>\", \"a\": [1, 2.5, null, true]}",
        ),
        (
            "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true) }}",
            "{\"a\": 1, \"b\": \"\\u00e9\"}",
        ),
        (
            "{{ {'a': [1], 'b': {}} | tojson(indent=2) }}",
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}",
        ),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{% generation %}\nx{% endgeneration %}", "x"),
        (
            "{%- for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "13",
        ),
        ("  {% if true %}\n  y\n  {% endif %}\nz", "  y\nz"),
        (
            "{{ true }} {{ none }} {{ 1.0 }} {{ 1e16 }} {{ missing }}",
            "True None 1.0 1e+16 ",
        ),
        ("{{ bos_token }}{{ messages[0]['content'][-2:] }}", "<s>lo"),
        ("{{ ' a\u{1f}' | trim }}|{{ '\u{a0}b '.strip() }}", "a|b"),
        ("{{ 'a b  c'.split() | join('-') }}", "a-b-c"),
        ("{{ 'a\r\nb\n\nc' | indent(2) }}", "a\n  b\n\n  c"),
        (
            "{{ 'a\u{2028}b\n' | indent(width=1, first=true, blank=true) }}",
            " a\n b\n ",
        ),
        (
            "{{ [1.0, \"it's\", {'a': none}] }}",
            "[1.0, \"it's\", {'a': None}]",
        ),
        (
            "{{ \"get_weather for CJK字a it's\".title() }}",
            "Get_Weather For Cjk字A It'S",
        ),
        (
            "{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}",
            "2",
        ),
        (
            "{{ messages[0] is mapping }}{{ 'x' is sequence }}{{ messages is iterable }}",
            "TrueTrueTrue",
        ),
    ];
    let body = json!({"messages": [{"role": "user", "content": "hello"}]});
    for (source, expected) in table {
        assert_eq!(
            render(&template(source), &body).as_deref(),
            Ok(expected),
            "{source}"
        );
    }
}
