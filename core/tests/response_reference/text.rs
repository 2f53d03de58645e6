//! A naive parser of JSON text that serde_json has found valid.

use std::ops::Range;

pub enum Node {
    Object(Vec<(Range<usize>, Range<usize>, Node)>),
    Array(Vec<(Range<usize>, Node)>),
    Scalar,
}

fn valid(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Deepest nesting that is followed in a JSON body.
const DEPTH_MAX: usize = 128;

fn depth(node: &Node) -> usize {
    match node {
        Node::Object(members) => 1 + members.iter().map(|it| depth(&it.2)).max().unwrap_or(0),
        Node::Array(items) => 1 + items.iter().map(|it| depth(&it.1)).max().unwrap_or(0),
        Node::Scalar => 0,
    }
}

/// Whether a body is read as JSON. Of another one, whether an error was noted before it broke is
/// not specified.
pub fn readable(body: &[u8]) -> bool {
    valid(body) && depth(&node(body, &mut 0).1) <= DEPTH_MAX
}

fn blanks(text: &[u8], at: &mut usize) {
    while matches!(text[*at], b' ' | b'\n' | b'\r' | b'\t') {
        *at += 1;
    }
}

fn string(text: &[u8], at: &mut usize) -> Range<usize> {
    let start = *at;
    *at += 1;
    while text[*at] != b'"' {
        *at += if text[*at] == b'\\' { 2 } else { 1 };
    }
    *at += 1;
    start..*at
}

fn node(text: &[u8], at: &mut usize) -> (Range<usize>, Node) {
    blanks(text, at);
    let start = *at;
    let node = match text[*at] {
        open @ (b'{' | b'[') => {
            let mut members = Vec::new();
            let mut items = Vec::new();
            *at += 1;
            blanks(text, at);
            while !matches!(text[*at], b'}' | b']') {
                if open == b'{' {
                    let key = string(text, at);
                    blanks(text, at);
                    assert_eq!(text[*at], b':');
                    *at += 1;
                    let (range, value) = node(text, at);
                    members.push((key, range, value));
                } else {
                    items.push(node(text, at));
                }
                blanks(text, at);
                if text[*at] == b',' {
                    *at += 1;
                    blanks(text, at);
                }
            }
            *at += 1;
            if open == b'{' {
                Node::Object(members)
            } else {
                Node::Array(items)
            }
        }
        b'"' => {
            string(text, at);
            Node::Scalar
        }
        _ => {
            while *at < text.len() && !b" \n\r\t,]}".contains(&text[*at]) {
                *at += 1;
            }
            Node::Scalar
        }
    };
    (start..*at, node)
}

pub type Members = Vec<(Range<usize>, Range<usize>, Node)>;

/// The members of a valid object: key, value, what it holds.
pub fn object(text: &[u8]) -> Option<Members> {
    if !valid(text) {
        return None;
    }
    match node(text, &mut 0).1 {
        Node::Object(members) => Some(members),
        _ => None,
    }
}

pub fn named(text: &[u8], key: &Range<usize>, name: &str) -> bool {
    serde_json::from_slice::<String>(&text[key.clone()]).is_ok_and(|key| key == name)
}
