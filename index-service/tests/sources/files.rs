//! A small model: one token for each word and each mark, special tokens, a ChatML template.

use std::path::Path;

use serde_json::json;

/// ChatML; a word is a token and so is each of the two markers.
pub const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}\
     {% if add_generation_prompt %}<|im_start|>assistant{% endif %}";

/// A `tokenizer.json` that knows no word, so that each one is a token of its own.
pub fn tokenizer_json() -> String {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(1, "<|im_start|>"), special(2, "<|im_end|>")],
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
    })
    .to_string()
}

/// Every file of the model, as a hub or a directory has them.
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("tokenizer.json", tokenizer_json()),
        (
            "tokenizer_config.json",
            json!({"bos_token": null, "chat_template": TEMPLATE}).to_string(),
        ),
    ]
}

pub fn write(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for (name, contents) in files() {
        std::fs::write(dir.join(name), contents).unwrap();
    }
}
