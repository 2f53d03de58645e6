//! A model from a directory: its counts, its version, and what a change of its files does.

use std::sync::Arc;

use prompt_cache_core::api::Api;
use prompt_cache_index::policy::{Models, Refreshed};
use prompt_cache_index::tokens::{Counted, Counts, Method, Prompt, PromptBody, TokenSource};
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

fn completions(source: &dyn TokenSource, prompt: &Value) -> Counts {
    let body = serde_json::to_vec(&json!({ "prompt": prompt })).unwrap();
    let form = PromptBody::of(Api::Completions, &body).unwrap();
    let counts = source.count(&form.prompt().unwrap(), None, &[0], &|| true);
    counts.unwrap()
}

/// A text is tokenized as it is: no template, and what the model's files put around it.
#[test]
fn a_completions_prompt_has_the_tokenizer_s_own_special_tokens() {
    let around = json!({
        "type": "TemplateProcessing", "pair": [],
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
        ],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]},
            "<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]},
        },
    });
    let moves_ends = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let both = json!({"type": "Sequence", "processors": [moves_ends, around]});
    let bos = json!({"add_bos_token": true, "bos_token": "<|im_start|>"});
    let table = [
        (Value::Null, json!({}), 0),
        (Value::Null, bos.clone(), 0),
        (moves_ends, json!({}), 0),
        (around.clone(), json!({}), 2),
        (around, json!({"add_bos_token": false}), 2),
        (both, bos, 2),
    ];
    for (post_processor, config, added) in table {
        let dir = TempDir::new().unwrap();
        write(&dir.path().join("model"));
        let path = dir.path().join("model/tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        tokenizer["post_processor"] = post_processor;
        std::fs::write(path, tokenizer.to_string()).unwrap();
        std::fs::write(
            dir.path().join("model/tokenizer_config.json"),
            config.to_string(),
        )
        .unwrap();
        let source = Arc::clone(&model(&dir).get("m").unwrap().tokens);
        let prompts = [
            (json!("one two <|im_end|>"), 3 + added),
            (json!(""), added),
            (json!(["one", "two three"]), 3 + 2 * added),
            (json!([5, 6, 7]), 3),
            (json!([[5, 6], [7, 8, 9]]), 5),
        ];
        for (prompt, tokens) in prompts {
            let counts = completions(&*source, &prompt);
            let expected = Counts {
                prefixes: vec![tokens],
                prompt: Some(tokens),
                method: Method::Plain,
            };
            assert_eq!(counts, expected, "{config} {prompt}");
        }
        // A rendered chat brings its own.
        std::fs::write(dir.path().join("model/chat_template.jinja"), TEMPLATE).unwrap();
        let source = Arc::clone(&model(&dir).get("m").unwrap().tokens);
        let counted = count(&*source, &body(), None, &[0, 1, 2]);
        assert_eq!(counted, (vec![4, 10, 11], Some(14), Method::Rendered));
    }
}

#[test]
fn a_completions_prompt_and_a_built_in_encoding() {
    let dir = TempDir::new().unwrap();
    let yaml = "models: [{model: m, encoding: o200k_base, image_tokens: {fixed: 9}}]";
    let models = Models::new(&models(dir.path(), yaml)).unwrap();
    let source = Arc::clone(&models.get("m").unwrap().tokens);
    for (prompt, tokens) in [
        (json!("hello world"), 2),
        (json!(["hello world", ""]), 2),
        (json!([1, 2, 3]), 3),
    ] {
        let counts = completions(&*source, &prompt);
        assert_eq!(
            (counts.prefixes, counts.prompt),
            (vec![tokens], Some(tokens)),
            "{prompt}"
        );
    }
}
