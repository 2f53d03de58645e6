//! Trees of chat requests: read, printed in any spelling, edited.

/// A JSON value that keeps what `serde_json::Value` loses: member order, duplicates, spelling of
/// numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

pub use Json::{Array, Bool, Null, Number, Object, String as Text};

pub fn text(value: &str) -> Json {
    Json::String(value.to_owned())
}

pub fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
    Object(
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

impl Json {
    /// The last member of that name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Object(members) => members
                .iter()
                .rev()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn members_mut(&mut self) -> Option<&mut Vec<(String, Json)>> {
        match self {
            Object(members) => Some(members),
            _ => None,
        }
    }
}

/// A small deterministic generator: spellings must not cost proptest's time.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.roll(i + 1));
        }
    }
}

/// How a tree is spelled: white space by `space` (none if `None`), escapes by `escapes` and the
/// string's own content (none that are not needed if `None`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    pub space: Option<u64>,
    pub escapes: Option<u64>,
}

pub fn print(tree: &Json, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    let mut printer = Printer {
        out: &mut out,
        space: style.space.map(Dice::new),
        style,
    };
    printer.space();
    printer.value(tree);
    printer.space();
    out
}

pub fn compact(tree: &Json) -> Vec<u8> {
    print(tree, Style::default())
}

struct Printer<'o> {
    out: &'o mut Vec<u8>,
    space: Option<Dice>,
    style: Style,
}

impl Printer<'_> {
    fn space(&mut self) {
        if let Some(dice) = &mut self.space {
            for _ in 0..dice.roll(6).saturating_sub(2) {
                self.out.push(b" \n\t\r"[dice.roll(4)]);
            }
        }
    }

    fn value(&mut self, tree: &Json) {
        match tree {
            Null => self.out.extend(b"null"),
            Bool(value) => self.out.extend(value.to_string().bytes()),
            Number(spelling) => self.out.extend(spelling.bytes()),
            Text(value) => self.string(value),
            Array(items) => {
                self.out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.space();
                    self.value(item);
                    self.space();
                }
                self.out.push(b']');
            }
            Object(members) => {
                self.out.push(b'{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.space();
                    self.string(name);
                    self.space();
                    self.out.push(b':');
                    self.space();
                    self.value(value);
                    self.space();
                }
                self.out.push(b'}');
            }
        }
    }

    fn string(&mut self, value: &str) {
        let own = value
            .bytes()
            .fold(0, |seed: u64, byte| seed.rotate_left(5) ^ u64::from(byte));
        let mut dice = self.style.escapes.map(|seed| Dice::new(seed ^ own << 1));
        self.out.push(b'"');
        for c in value.chars() {
            let escape = dice.as_mut().is_some_and(|dice| dice.roll(4) == 0);
            let short = match c {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                '\t' => Some("\\t"),
                '\u{8}' => Some("\\b"),
                '\u{c}' => Some("\\f"),
                '/' if escape => Some("\\/"),
                _ => None,
            };
            match short {
                Some(short) if !escape || c == '/' => self.out.extend(short.bytes()),
                _ if escape || short.is_some() || c < ' ' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let upper = dice.as_mut().is_some_and(|dice| dice.roll(2) == 0);
                        let spelling = if upper {
                            format!("\\u{unit:04X}")
                        } else {
                            format!("\\u{unit:04x}")
                        };
                        self.out.extend(spelling.bytes());
                    }
                }
                _ => self.out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        self.out.push(b'"');
    }
}

/// The bytes without the white space outside strings.
pub fn squeeze(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut inside, mut escaped) = (false, false);
    for &byte in json {
        if inside || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            out.push(byte);
        }
        if escaped {
            escaped = false;
        } else if byte == b'"' {
            inside = !inside;
        } else if byte == b'\\' {
            escaped = inside;
        }
    }
    out
}

/// What an honoured position knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    Top,
    Message,
    Part,
    ToolOrCall,
}

impl Carrier {
    pub fn is_marker(self, name: &str) -> bool {
        match self {
            Self::Top => matches!(name, "cache_control" | "prompt_cache_options"),
            Self::Part => matches!(name, "cache_control" | "prompt_cache_breakpoint"),
            Self::Message | Self::ToolOrCall => name == "cache_control",
        }
    }
}

/// Visits every object at an honoured position, those in overridden duplicates included.
pub fn each_carrier(tree: &mut Json, visit: &mut impl FnMut(Carrier, &mut Vec<(String, Json)>)) {
    let Object(members) = tree else { return };
    for (name, value) in members.iter_mut() {
        let Array(items) = value else { continue };
        for item in items {
            let Object(inner) = item else { continue };
            match name.as_str() {
                "tools" => visit(Carrier::ToolOrCall, inner),
                "messages" => {
                    for (name, value) in inner.iter_mut() {
                        let carrier = match name.as_str() {
                            "content" => Carrier::Part,
                            "tool_calls" => Carrier::ToolOrCall,
                            _ => continue,
                        };
                        let Array(items) = value else { continue };
                        for members in items.iter_mut().filter_map(Json::members_mut) {
                            visit(carrier, members);
                        }
                    }
                    visit(Carrier::Message, inner);
                }
                _ => {}
            }
        }
    }
    visit(Carrier::Top, members);
}

/// The tree without its markers; `null` ones too if asked.
pub fn without_markers(tree: &Json, nulls: bool) -> Json {
    let mut tree = tree.clone();
    each_carrier(&mut tree, &mut |carrier, members| {
        members.retain(|(name, value)| !carrier.is_marker(name) || (!nulls && *value == Null));
    });
    tree
}

/// The tree with markers, valid and not, put anywhere they are honoured.
pub fn with_markers(tree: &Json, seed: u64) -> Json {
    let mut tree = tree.clone();
    let mut dice = Dice::new(seed);
    each_carrier(&mut tree, &mut |carrier, members| {
        for name in [
            "cache_control",
            "prompt_cache_breakpoint",
            "prompt_cache_options",
        ] {
            if !carrier.is_marker(name) || dice.roll(3) > 0 {
                continue;
            }
            let marker = match dice.roll(6) {
                0 => Null,
                1 => object([("ttl", text("1h")), ("type", text("ephemeral"))]),
                2 => object([("mode", text("explicit"))]),
                3 => object([
                    ("type", Number("7".into())),
                    ("messages", Array(vec![Null])),
                ]),
                4 => text("}, \"cache_control\": ["),
                _ => object([("type", text("ephemeral"))]),
            };
            let at = dice.roll(members.len() + 1);
            members.insert(at, (name.to_owned(), marker));
        }
    });
    tree
}
