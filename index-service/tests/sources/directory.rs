//! A model from a directory: its counts, its version, and what a change of its files does.

use std::sync::Arc;

use prompt_cache_index::policy::{Models, Refreshed};
use prompt_cache_index::tokens::{Counted, Method, Prompt, TokenSource};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::files::{TEMPLATE, write};
use crate::models;

const YAML: &str = "models: [{model: m, tokenizer: {dir: model}}]";

fn model(dir: &TempDir) -> Models {
    Models::new(&models(dir.path(), YAML)).unwrap()
}

fn source() -> (TempDir, Arc<dyn TokenSource>) {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let tokens = Arc::clone(&model(&dir).get("m").unwrap().tokens);
    (dir, tokens)
}

fn count(
    source: &dyn TokenSource,
    body: &Value,
    from: Option<Counted>,
    boundaries: &[u32],
) -> (Vec<u64>, Option<u64>, Method) {
    let body = serde_json::to_vec(body).unwrap();
    let prompt = Prompt::parse(&body).unwrap();
    let counts = source.count(&prompt, from, boundaries, &|| true).unwrap();
    (counts.prefixes, counts.prompt, counts.method)
}

fn body() -> Value {
    json!({"messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "text", "text": "one two three", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "four"},
        ]},
    ]})
}

/// `<|im_start|>system be brief` is 4 tokens; its end, the next start, `user` and three words are
/// 6 more; `four` is one; the end and `<|im_start|>assistant` are 3.
#[test]
fn counts_are_those_of_the_rendered_prompt() {
    let (_dir, source) = source();
    let all = count(&*source, &body(), None, &[0, 1, 2]);
    assert_eq!(all, (vec![4, 10, 11], Some(14), Method::Rendered));
}

#[test]
fn going_on_from_a_hit_gives_the_same() {
    let (_dir, source) = source();
    let hit = Counted {
        block: 1,
        tokens: 10,
    };
    assert_eq!(count(&*source, &body(), Some(hit), &[2]).0, [11]);
    // What the ledger holds is never undercut.
    let paid = Counted {
        block: 1,
        tokens: 12,
    };
    assert_eq!(count(&*source, &body(), Some(paid), &[2]).0, [12]);
}

#[test]
fn a_refusal_falls_back_to_block_texts() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let refusing = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}\
                    {% endif %}{{ m.content }}{% endfor %}";
    std::fs::write(dir.path().join("model/chat_template.jinja"), refusing).unwrap();
    let source = Arc::clone(&model(&dir).get("m").unwrap().tokens);
    let counted = count(&*source, &body(), None, &[0, 2]);
    assert_eq!(counted, (vec![2, 6], None, Method::Refused));
    let odd = json!({"messages": ["no object"]});
    assert_eq!(
        count(&*source, &odd, None, &[0]),
        (vec![0], None, Method::Refused)
    );
}

#[test]
fn without_a_template_block_texts_are_counted() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    std::fs::remove_file(dir.path().join("model/tokenizer_config.json")).unwrap();
    let source = Arc::clone(&model(&dir).get("m").unwrap().tokens);
    let counted = count(&*source, &body(), None, &[0, 1]);
    assert_eq!(counted, (vec![2, 5], None, Method::BlockTexts));
}

#[test]
fn a_named_template_is_for_tools() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let named = json!({"chat_template": [
        {"name": "default", "template": TEMPLATE},
        {"name": "tool_use", "template": "tools {{ tools | length }} {{ messages[0].content }}"},
    ]});
    let config = dir.path().join("model/tokenizer_config.json");
    std::fs::write(config, named.to_string()).unwrap();
    let source = Arc::clone(&model(&dir).get("m").unwrap().tokens);
    let plain = json!({"messages": [{"role": "user", "content": "x y"}]});
    assert_eq!(count(&*source, &plain, None, &[0]).1, Some(7));
    let mut with_tools = plain;
    with_tools["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(count(&*source, &with_tools, None, &[1]).1, Some(4));
}

#[test]
fn a_changed_file_takes_effect_and_a_broken_one_does_not() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let models = model(&dir);
    let before = models.get("m").unwrap();
    assert_eq!(models.refresh(), Refreshed::default());

    let template = dir.path().join("model/chat_template.jinja");
    std::fs::write(&template, "{{ messages[0].content }}").unwrap();
    let loaded = Refreshed {
        loaded: 1,
        failed: 0,
    };
    assert_eq!(models.refresh(), loaded);
    let after = models.get("m").unwrap();
    assert_ne!(before.tokens.version(), after.tokens.version());
    assert_eq!(
        models.policies()[0].tokenizer_version,
        after.tokens.version()
    );
    // A request that began before goes on with what it has.
    assert_eq!(count(&*before.tokens, &body(), None, &[0]).0, [4]);
    assert_eq!(count(&*after.tokens, &body(), None, &[0]).0, [2]);

    std::fs::write(&template, "{% for").unwrap();
    let failed = Refreshed {
        loaded: 0,
        failed: 1,
    };
    assert_eq!(models.refresh(), failed);
    assert_eq!(
        models.get("m").unwrap().tokens.version(),
        after.tokens.version()
    );
    assert_eq!(models.pending(), None);
}

#[test]
fn the_version_covers_what_decides_a_count() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    write(&dir.path().join("copy"));
    let yaml = "models: [{model: a, tokenizer: {dir: model}}, \
                {model: same, tokenizer: {dir: copy}}, \
                {model: kwargs, tokenizer: {dir: model, chat_template_kwargs: {x: 1}}}, \
                {model: format, tokenizer: {dir: model, content_format: openai}}]";
    let models = Models::new(&models(dir.path(), yaml)).unwrap();
    let version = |name| models.get(name).unwrap().tokens.version().to_owned();
    assert_eq!(version("a"), version("same"));
    assert_eq!(version("a").len(), 32);
    assert_ne!(version("a"), version("kwargs"));
    assert_ne!(version("a"), version("format"));
    assert_ne!(version("kwargs"), version("format"));
}
