//! Hostile templates and conversations: refused within the bounds, never a panic or a stall.

use std::cell::Cell;
use std::time::{Duration, Instant};

use prompt_cache_index::tokens::template::{
    BadTemplate, ChatTemplate, Conversation, RenderError, SOURCE_BYTES_MAX,
};
use serde_json::{Map, json};

use crate::zoo::{conversation, now, render, template};

/// A debug build on a busy machine takes a few seconds for what a release does in half of one.
const FAR_TOO_LONG: Duration = Duration::from_secs(60);

fn refusal_of(source: &str) -> RenderError {
    let start = Instant::now();
    let body = json!({"messages": [{"role": "user", "content": "hello"}]});
    let error = render(&template(source), &body).unwrap_err();
    assert!(start.elapsed() < FAR_TOO_LONG, "{source}");
    error
}

#[test]
fn loops_run_out_of_fuel() {
    let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
                  {% set x = 1 %}{% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(refusal_of(nested), RenderError::TooExpensive);
}

#[test]
fn strings_that_double_run_out_of_fuel() {
    let doubling = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}\
                    {% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
    assert_eq!(refusal_of(doubling), RenderError::TooExpensive);
    let lists = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}\
                 {% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    assert_eq!(refusal_of(lists), RenderError::TooExpensive);
    let printed = lists.replace(" | tojson", "");
    assert_eq!(refusal_of(&printed), RenderError::TooExpensive);
    let indented = "{{ ('a\n' * 1000) | indent(1000000000) }}";
    assert_eq!(refusal_of(indented), RenderError::TooExpensive);
    let replaced = "{% set ns = namespace(x='aaaa') %}{% for i in range(40) %}\
                    {% set ns.x = ns.x.replace('a', 'aaaaaaaa') %}{% endfor %}{{ ns.x }}";
    assert_eq!(refusal_of(replaced), RenderError::TooExpensive);
}

#[test]
fn recursion_ends() {
    let endless = "{% macro a(n) %}{{ a(n + 1) }}{% endmacro %}{{ a(0) }}";
    assert!(matches!(refusal_of(endless), RenderError::Refused(_)));
    let call = "{% macro a() %}{% call a() %}x{% endcall %}{% endmacro %}{{ a() }}";
    assert!(matches!(refusal_of(call), RenderError::Refused(_)));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(matches!(
        ChatTemplate::new(&deep, Vec::new(), None, now),
        Err(BadTemplate::Syntax(_))
    ));
}

#[test]
fn recursion_ends_before_the_stack_of_a_worker_does() {
    let bodies = [
        "{% macro a(n) %}{% for x in [1] %}{% if true %}{{ a(n + 1) ~ 'x' }}{% endif %}{% endfor %}\
         {% endmacro %}{{ a(0) }}",
        "{% macro a(n) %}{% set x %}{% filter upper %}{{ a(n + 1) }}{% endfilter %}{% endset %}{{ x }}\
         {% endmacro %}{{ a(0) }}",
        "{%- for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    ];
    for body in bodies {
        // What tokio gives a blocking thread.
        let worker = std::thread::Builder::new().stack_size(2 << 20);
        let error = worker.spawn(|| refusal_of(body)).unwrap().join().unwrap();
        assert!(
            matches!(error, RenderError::Refused(_) | RenderError::TooExpensive),
            "{error:?}"
        );
    }
}

#[test]
fn output_is_bounded() {
    let much = "{% set x = 'a' * 100000 %}{% for i in range(9999) %}{{ x }}{% endfor %}";
    assert_eq!(refusal_of(much), RenderError::TooExpensive);
}

#[test]
fn a_render_stops_when_its_time_is_up() {
    let template = template("{% for i in range(9999) %}{{ i }}{% endfor %}");
    let body = json!({"messages": []});
    let asked = Cell::new(0);
    let go_on = || {
        asked.set(asked.get() + 1);
        asked.get() < 10
    };
    let rendered = conversation(&template, &body).render(&template, &go_on);
    assert_eq!(rendered, Err(RenderError::TooSlow));
    assert_eq!(asked.get(), 10);
}

#[test]
fn a_template_has_a_size() {
    let huge = "a".repeat(SOURCE_BYTES_MAX + 1);
    assert!(matches!(
        ChatTemplate::new(&huge, Vec::new(), None, now),
        Err(BadTemplate::TooLarge)
    ));
    assert!(matches!(
        ChatTemplate::new("{% for", Vec::new(), None, now),
        Err(BadTemplate::Syntax(_))
    ));
}

#[test]
fn files_and_the_process_are_out_of_reach() {
    for source in [
        "{% include '/etc/passwd' %}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__() }}",
    ] {
        let built = ChatTemplate::new(source, Vec::new(), None, now);
        let Ok(template) = built else { continue };
        let body = json!({"messages": [{"role": "user", "content": "hello"}]});
        let rendered = render(&template, &body);
        assert!(
            matches!(rendered, Err(RenderError::Refused(_))),
            "{source}: {rendered:?}"
        );
    }
}

#[test]
fn odd_bodies_are_no_conversations() {
    let template = template("{{ messages | length }}");
    for body in [
        "{}",
        r#"{"messages": 1}"#,
        r#"{"messages": ["a"]}"#,
        r#"{"messages": [null]}"#,
        r#"{"messages": [], "tools": 5}"#,
        r#"{"messages": [], "chat_template_kwargs": []}"#,
        "[]",
        "",
    ] {
        let parsed = Conversation::parse(body.as_bytes(), template.format(), &Map::new());
        assert!(parsed.is_err(), "{body}");
    }
}

/// Each of these has a shape that something might trip over.
#[test]
fn odd_messages_render_or_are_refused() {
    let messages = [
        json!({}),
        json!({"role": 5, "content": 5}),
        json!({"role": "assistant", "tool_calls": [5, null, {}, {"function": 5}]}),
        json!({"role": "assistant", "tool_calls": [{"function": {"arguments": "[1"}}]}),
        json!({"role": "assistant", "tool_calls": {"a": 1}, "reasoning": {"deep": [1]}}),
        json!({"role": "user", "content": [null, 5, {}, {"type": 5}, {"type": "text"}, "text"]}),
        json!({"role": "user", "content": {"text": "no list"}}),
        json!({"role": "tool", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
    ];
    for animal in &crate::zoo::ZOO {
        for message in &messages {
            let body = json!({"tools": [5, {}, {"function": {}}], "messages": [message]});
            let _ = render(&animal.template(), &body);
            let _ = crate::zoo::prefixes(&animal.template(), &body);
        }
    }
}
