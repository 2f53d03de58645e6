//! Prompts: conversations that branch, so that requests share prefixes. Who builds them knows
//! which, and how many tokens each prefix has.

use std::{cell::RefCell, collections::HashMap, fmt::Write as _};

use crate::script::Api;

/// Names a text. The same text may stand behind different ones.
pub type Block = u32;

/// Most words of a block by how rare it is: one in a hundred is a document.
const WORDS_MAX: [(u32, usize); 4] = [(15, 50), (75, 160), (99, 500), (100, 5_000)];
const WORDS: [&str; 16] = [
    "river", "stone", "ledger", "window", "garden", "signal", "number", "morning", "über", "naïve",
    "価格", "token", "prefix", "cache", "letter", "harbour",
];

/// A block at `depth` of a topic's conversation, on one of its branches.
pub fn block(topic: u32, depth: usize, branch: u32) -> Block {
    topic
        .wrapping_mul(64)
        .wrapping_add(u32::try_from(depth).unwrap_or(u32::MAX) * 4 + branch)
}

/// The text of a block.
pub fn text(block: Block) -> String {
    let mut random = fastrand::Rng::with_seed(u64::from(block) ^ 0x0b10_c000_0000);
    let rank = random.u32(..100);
    let most = WORDS_MAX.iter().find(|(below, _)| rank < *below);
    let count = random.usize(8..most.map_or(9, |(_, words)| *words));
    let mut text = format!("Block {block}:");
    for _ in 0..count {
        let word = WORDS[random.usize(..WORDS.len())];
        let _ = write!(text, " {word}");
        if random.u8(..8) == 0 {
            let _ = write!(text, " {}.", random.u16(..));
        }
    }
    text
}

/// The tokens of a block's text; the models here count by the text alone.
pub fn tokens(block: Block) -> u64 {
    thread_local! {
        static KNOWN: RefCell<HashMap<Block, u64>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let count = || u64::try_from(bpe_openai::o200k_base().count(&text(block))).unwrap_or(0);
        *known.entry(block).or_insert_with(count)
    })
}

/// Tokens of each prefix of `blocks`.
pub fn cumulative(blocks: &[Block]) -> Vec<u64> {
    let sum = |sum: &mut u64, block: &Block| {
        *sum += tokens(*block);
        Some(*sum)
    };
    blocks.iter().scan(0, sum).collect()
}

/// How a body is written, where that must make no difference to what a prefix is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spelling {
    /// White space between tokens.
    pub spaced: bool,
    /// Members of a part in the other order.
    pub text_first: bool,
    /// Letters escaped.
    pub escaped: bool,
    /// Strings instead of one-part contents, where nothing is marked.
    pub strings: bool,
}

impl Spelling {
    /// A text as a JSON string.
    fn string(self, text: &str) -> String {
        let plain = serde_json::Value::from(text).to_string();
        if self.escaped {
            plain.replace('o', "\\u006f").replace('ü', "\\u00fc")
        } else {
            plain
        }
    }

    /// A text part, with the marker's JSON if it has one.
    fn part(self, text: &str, marker: Option<&str>) -> String {
        let (colon, comma) = if self.spaced {
            (": ", " ,\n ")
        } else {
            (":", ",")
        };
        let text = format!(r#""text"{colon}{}"#, self.string(text));
        let kind = format!(r#""type"{colon}"text""#);
        let mut members = if self.text_first {
            vec![text, kind]
        } else {
            vec![kind, text]
        };
        if let Some(marker) = marker {
            members.insert(
                members.len() - 1,
                format!(r#""cache_control"{colon}{marker}"#),
            );
        }
        format!("{{{}}}", members.join(comma))
    }
}

/// The members of a body that hold the prompt: a system message of the first two blocks, one message for each other block, and
/// the question. `markers` has the blocks that are to be marked, and their markers unless those
/// are left out.
pub fn messages(
    api: Api,
    blocks: &[Block],
    markers: &HashMap<usize, Option<String>>,
    question: &str,
    spelling: Spelling,
) -> String {
    let mut all = vec![];
    let part = |depth: usize| {
        let marker = markers.get(&depth).and_then(Option::as_deref);
        spelling.part(&text(blocks[depth]), marker)
    };
    let system: Vec<_> = (0..blocks.len().min(2)).map(part).collect();
    let system = system.join(",");
    let before = match api {
        Api::Chat => {
            all.push(format!(r#"{{"role":"system","content":[{system}]}}"#));
            String::new()
        }
        Api::Messages => format!(r#""system":[{system}],"#),
    };
    for (depth, block) in blocks.iter().enumerate().skip(2) {
        let role = if depth % 2 == 0 { "user" } else { "assistant" };
        let content = if spelling.strings && !markers.contains_key(&depth) {
            spelling.string(&text(*block))
        } else {
            format!("[{}]", part(depth))
        };
        all.push(format!(r#"{{"role":"{role}","content":{content}}}"#));
    }
    let question = spelling.string(question);
    all.push(format!(r#"{{"role":"user","content":{question}}}"#));
    format!(r#"{before}"messages":[{}]"#, all.join(","))
}
