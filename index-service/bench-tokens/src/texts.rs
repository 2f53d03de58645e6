//! What is counted: English, code, CJK and JSON, of any size, the same in each run.

use std::fmt::Write as _;

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    English,
    Code,
    Cjk,
    Json,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::English, Self::Code, Self::Cjk, Self::Json];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Code => "code",
            Self::Cjk => "CJK",
            Self::Json => "JSON",
        }
    }
}

/// Texts without the word boundaries that tokenizers cut at, as patterns to repeat.
pub const HOSTILE: [(&str, &str); 9] = [
    ("one letter", "a"),
    ("spaces", " "),
    ("combining marks", "\u{301}"),
    ("two letters", "ab"),
    ("digits", "0"),
    ("line ends", "\n"),
    ("punctuation", "!"),
    ("one ideograph", "字"),
    ("joined emoji", "👩\u{200d}"),
];

/// This repository's own prose and program.
const ENGLISH: &[&str] = &[
    include_str!("../../../docs/semantics.md"),
    include_str!("../../../docs/architecture.md"),
    include_str!("../../../docs/operations.md"),
    include_str!("../../../docs/testing.md"),
    include_str!("../../../docs/prefix-hash.md"),
];
const CODE: &[&str] = &[
    include_str!("../../src/classify.rs"),
    include_str!("../../src/store/embedded/writer.rs"),
    include_str!("../../src/http/limits.rs"),
    include_str!("../../src/config/validate.rs"),
    include_str!("../../src/tokens/pool.rs"),
    include_str!("../../tests/service/harness.rs"),
    include_str!("../../../core/src/ledger/classify.rs"),
    include_str!("../../../src/exchange.rs"),
];
const CJK: &[&str] = &[
    "每个前缀的词元数都和它的哈希一起保存，所以同一段文字一生只需要计算一次。",
    "サービスは新しい接頭辞だけを数え、残りは台帳から読み出します。",
    "요청이 성공하면 필터가 나중에 기록을 보내고, 그때부터 읽을 수 있습니다.",
    "如果上游返回错误，就不会写入任何内容，客户也不会为此付费。",
    "会話が伸びても、前の部分をもう一度トークンに分ける必要はありません。",
    "긴 문서가 들어와도 짧은 요청은 기다리지 않고 바로 처리됩니다.",
    "图片、表格和工具定义都是提示的一部分；它们的顺序不能改变。",
    "料金は数えたトークンに基づくため、数え方はエンジンと同じでなければなりません。",
    "시간이 지난 항목은 절대 읽히지 않으며, 나중에 조용히 지워집니다.",
    "系统消息通常很长，而且在许多请求之间保持不变，这正是缓存的价值所在。",
];

/// A small generator, so that no paragraph order repeats soon.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Text of `bytes` (to a character); another `seed` gives another one.
pub fn text(kind: Kind, bytes: usize, seed: u64) -> String {
    let mut random = Random::new(seed + 1);
    let mut text = String::with_capacity(bytes + 4096);
    while text.len() < bytes {
        match kind {
            Kind::English => paragraph(&mut text, ENGLISH, "\n\n", &mut random),
            Kind::Code => paragraph(&mut text, CODE, "\n\n", &mut random),
            Kind::Cjk => text.push_str(CJK[random.below(CJK.len())]),
            Kind::Json => record(&mut text, &mut random),
        }
    }
    text.truncate(text.floor_char_boundary(bytes));
    text
}

fn paragraph(text: &mut String, sources: &[&str], end: &str, random: &mut Random) {
    let paragraphs: Vec<&str> = sources[random.below(sources.len())].split(end).collect();
    text.push_str(paragraphs[random.below(paragraphs.len())]);
    text.push_str(end);
}

fn record(text: &mut String, random: &mut Random) {
    let names = [
        "get_weather",
        "search_orders",
        "createTicket",
        "ледger_entry",
        "list-files",
    ];
    let _ = write!(
        text,
        r#"{{"id":"call_{:08x}","type":"function","function":{{"name":"{}","arguments":"{{\"query\": \"invoice {} of {}\", \"limit\": {}, \"exact\": true}}"}},"at":"2026-0{}-1{}T0{}:{}0:00Z","score":0.{:05},"tags":["a","{}",null]}},"#,
        random.below(1 << 31),
        names[random.below(names.len())],
        random.below(100_000),
        names[random.below(names.len())],
        random.below(50),
        1 + random.below(9),
        random.below(10),
        random.below(10),
        random.below(6),
        random.below(100_000),
        names[random.below(names.len())],
    );
}
