//! The command line: what does not load is an error of the configuration; `count` explains a
//! request.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

use crate::files::write;

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .current_dir(dir)
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn files_that_do_not_load_are_named_with_their_key() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let yaml = "models: [{model: m, tokenizer: {dir: model}}]";
    std::fs::write(dir.path().join("c.yaml"), yaml).unwrap();
    let good = run(dir.path(), &["check-config", "--config", "c.yaml"]);
    assert_eq!(good.status.code(), Some(0));

    let breakages = [
        ("tokenizer.json", "{}", "model"),
        (
            "chat_template.jinja",
            "{% for",
            "chat template does not compile",
        ),
        ("tokenizer_config.json", "[", "tokenizer_config.json"),
    ];
    for (name, contents, reason) in breakages {
        write(&dir.path().join("model"));
        std::fs::write(dir.path().join("model").join(name), contents).unwrap();
        for command in ["check-config", "serve"] {
            let refused = run(dir.path(), &[command, "--config", "c.yaml"]);
            let stderr = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(2), "{command} {name}: {stderr}");
            let line = stderr.lines().last().unwrap();
            assert!(
                line.starts_with("prompt-cache-index: c.yaml: models[0].tokenizer: "),
                "{stderr}"
            );
            assert!(line.contains(reason), "{stderr}");
        }
        std::fs::remove_dir_all(dir.path().join("model")).unwrap();
    }
    let missing = run(dir.path(), &["check-config", "--config", "c.yaml"]);
    let stderr = String::from_utf8(missing.stderr).unwrap();
    assert!(stderr.contains("tokenizer.json: "), "{stderr}");
}

#[test]
fn count_shows_blocks_and_tokens() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let yaml = "models: [{model: m, tokenizer: {dir: model}, min_prefix_tokens: 5}]";
    std::fs::write(dir.path().join("c.yaml"), yaml).unwrap();
    let body = json!({"messages": [
        {"role": "system", "content": "be brief", "cache_control": {"type": "ephemeral"}},
        {"role": "user", "content": [
            {"type": "text", "text": "one two three"},
            {"type": "text", "text": "four", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ]},
    ]});
    std::fs::write(dir.path().join("r.json"), body.to_string()).unwrap();
    let counted = run(
        dir.path(),
        &["count", "--config", "c.yaml", "--model", "m", "r.json"],
    );
    assert_eq!(counted.status.code(), Some(0), "{counted:?}");
    let text = String::from_utf8(counted.stdout).unwrap();
    let (table, rest) = text.split_once("\n\n").unwrap();
    let expected = [
        "block  where                   kind         tokens  prefix  marker",
        "    0  messages[0].content     system text       4       4  5m, below 5: not written",
        "    1  messages[1].content[0]  user text         6      10",
        "    2  messages[1].content[1]  user text         1      11  1h",
    ];
    assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    assert!(rest.starts_with("whole prompt: 14 tokens"), "{rest}");
    assert!(rest.contains("as the engine counts"), "{rest}");
    // The prompt itself is not shown.
    assert!(!text.contains("three"), "{text}");

    let unknown = run(
        dir.path(),
        &["count", "--config", "c.yaml", "--model", "other", "r.json"],
    );
    assert_eq!(unknown.status.code(), Some(1));
}

/// A word is a token; `<|im_start|>` and a role are two more, `<|im_end|>` is another one.
#[test]
fn count_takes_requests_of_every_api() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let yaml = "models: [{model: m, tokenizer: {dir: model}}]";
    std::fs::write(dir.path().join("c.yaml"), yaml).unwrap();
    let table = [
        (
            "messages",
            json!({"system": "be brief", "messages": [{"role": "user", "content": [
                {"type": "text", "text": "one two"},
                {"type": "text", "text": "three", "cache_control": {"type": "ephemeral"}},
            ]}]}),
            &[
                "    0  system                  system text       4       4",
                "    1  messages[0].content[0]  user text         5       9",
                "    2  messages[0].content[1]  user text         1      10  5m, below 1024: not written",
            ][..],
            "whole prompt: 13 tokens",
        ),
        (
            "responses",
            json!({"instructions": "be brief", "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "one two"}]},
                {"type": "reasoning", "summary": []},
                {"role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
                {"type": "item_reference", "id": "i"},
                {"role": "user", "content": "four"},
            ]}),
            &[
                "    0  instructions         system text                 4       4",
                "    1  input[0].content[0]  user input_text             5       9",
                "    2  input[1]             reasoning                   0       9",
                "    3  input[2].content[0]  assistant output_text       4      13",
                "    4  input[3]             item_reference              0      13",
                "    5  input[4].content     user text                   4      17",
            ],
            "whole prompt: 20 tokens",
        ),
        (
            "completions",
            json!({"prompt": ["one two", "<|im_start|> three"]}),
            &["    0  prompt  list       4       4"],
            "whole prompt: 4 tokens",
        ),
    ];
    for (api, body, rows, whole) in table {
        std::fs::write(dir.path().join("r.json"), body.to_string()).unwrap();
        let mut args = vec!["count", "--config", "c.yaml", "--model", "m"];
        args.extend(["--api", api, "r.json"]);
        let counted = run(dir.path(), &args);
        assert_eq!(counted.status.code(), Some(0), "{api} {counted:?}");
        let text = String::from_utf8(counted.stdout).unwrap();
        let (shown, rest) = text.split_once("\n\n").unwrap();
        assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), rows, "{text}");
        assert!(rest.starts_with(whole), "{text}");
    }
    std::fs::write(dir.path().join("r.json"), "[]").unwrap();
    let args = [
        "count",
        "--config",
        "c.yaml",
        "--model",
        "m",
        "--api",
        "responses",
        "r.json",
    ];
    let refused = run(dir.path(), &args);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(stderr.contains("not a request of its API"), "{stderr}");
}

#[test]
fn count_shows_what_images_count() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("model"));
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    // The head of a GIF of 600 by 300 pixels.
    let gif = "data:image/gif;base64,R0lGODlhWAIsAQAAAAAAAAAAAA==";
    let body = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "one two"}, image(gif), image("https://example.org/x.png"),
    ]}]});
    std::fs::write(dir.path().join("r.json"), body.to_string()).unwrap();
    let table = [
        (
            "ignore",
            "0 tokens of the above by image_tokens: ignore",
            [4, 4, 4],
        ),
        (
            "{fixed: 7}",
            "14 tokens of the above by image_tokens: fixed",
            [4, 11, 18],
        ),
        (
            "{tiles: {}}",
            "680 tokens of the above by image_tokens: tiles; 1 of unknown size, counted as the \
             smallest",
            [4, 429, 684],
        ),
    ];
    for (rule, line, prefixes) in table {
        let yaml =
            format!("models: [{{model: m, tokenizer: {{dir: model}}, image_tokens: {rule}}}]");
        std::fs::write(dir.path().join("c.yaml"), yaml).unwrap();
        let counted = run(
            dir.path(),
            &["count", "--config", "c.yaml", "--model", "m", "r.json"],
        );
        let text = String::from_utf8(counted.stdout).unwrap();
        assert!(
            text.contains(&format!("images:       2, {line}\n")),
            "{text}"
        );
        let shown: Vec<u64> = text
            .lines()
            .skip(1)
            .take(3)
            .map(|row| row.split_whitespace().nth(5).unwrap().parse().unwrap())
            .collect();
        assert_eq!(shown, prefixes, "{text}");
    }
}
