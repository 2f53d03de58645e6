//! Tokenizers that change under requests: each is answered, by what it began with or by the new.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prompt_cache_core::wire::ClassifyAnswer;
use prompt_cache_index::policy::Refreshed;
use prompt_cache_index::tokens::Prompt;

use crate::harness::{M5, Running, chat, request, start};
use crate::model_files::write;

/// Requests that must be under way while the model changes.
const SPANNING: u64 = 20;
/// For a machine that is busy with other things.
const LONGEST: Duration = Duration::from_secs(60);

/// The number before each message is a token of its own, and so is each word.
fn template(number: u64) -> String {
    let extra = "x ".repeat(number as usize);
    format!("{{% for m in messages %}}{extra}{{{{ m.content }}}} {{% endfor %}}")
}

fn change(model: &Path, number: u64) {
    // Another size each time: the clock of a file system may be too coarse to tell them apart.
    let file = model.join("chat_template.jinja");
    std::fs::write(file, template(number)).unwrap();
}

/// What the model as it is now counts for a prompt of `words` words in two messages.
fn version_and_count(running: &Running, body: &[u8]) -> (String, u64) {
    let model = running.service.models.get("demo").unwrap();
    let prompt = Prompt::parse(body).unwrap();
    let counts = model.tokens.count(&prompt, None, &[1], &|| true).unwrap();
    (model.tokens.version().to_owned(), counts.prefixes[0])
}

/// A prompt that no other request has, of a length that is the same for all.
fn cold(number: u64) -> Vec<u8> {
    let words = format!("n{number:09} ").repeat(3000);
    chat(&[&words, &words])
}

#[test]
fn no_request_is_dropped_while_a_model_changes() {
    let dir = tempfile::TempDir::new().unwrap();
    let model = dir.path().join("model");
    write(&model);
    change(&model, 0);
    let yaml = format!("models: [{{model: demo, tokenizer: {{dir: {model:?}}}}}]\n");
    let running = start(&yaml);
    let mut versions = HashMap::from([version_and_count(&running, &cold(0))]);
    let (changes, spanning, next) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(1));
    let start = Instant::now();
    let go_on = || spanning.load(Ordering::SeqCst) < SPANNING && start.elapsed() < LONGEST;
    let answers = std::thread::scope(|scope| {
        let client = || {
            let mut answers = Vec::new();
            while go_on() {
                let body = cold(next.fetch_add(1, Ordering::SeqCst));
                let asked = request(1, &body, &[(1, M5)]);
                let before = changes.load(Ordering::SeqCst);
                // Any other status than 200 fails in there.
                answers.push(running.ask_with_text(&asked, &body));
                if changes.load(Ordering::SeqCst) > before {
                    spanning.fetch_add(1, Ordering::SeqCst);
                }
            }
            answers
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(client)).collect();
        while go_on() {
            let number = changes.load(Ordering::SeqCst) + 1;
            change(&model, number);
            let loaded = Refreshed {
                loaded: 1,
                failed: 0,
            };
            assert_eq!(running.service.models.refresh(), loaded);
            let (version, count) = version_and_count(&running, &cold(0));
            assert_eq!(versions.insert(version, count), None);
            changes.fetch_add(1, Ordering::SeqCst);
        }
        let clients = clients.into_iter();
        let answers: Vec<_> = clients.flat_map(|client| client.join().unwrap()).collect();
        answers
    });
    assert!(spanning.load(Ordering::SeqCst) >= SPANNING);
    for answer in answers {
        let ClassifyAnswer::Ok(classified) = answer else {
            panic!("{answer:?}");
        };
        // Counted by one version from the start to the end, and by the one it names.
        let count = versions[&classified.tokenizer_version];
        assert_eq!(classified.writes[0].tokens as u64, count);
    }
}
