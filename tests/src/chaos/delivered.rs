//! What arrived beside what was sent: every byte outside usage objects is the same.

use serde_json::Value;

use crate::split::Shown;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Arrives as it is.
    Exact(Vec<u8>),
    /// Bytes around a usage object.
    Usage(UsagePiece),
}

/// Something with a usage object in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsagePiece {
    pub before: Vec<u8>,
    pub usage: String,
    pub after: Vec<u8>,
    /// A frame with nothing else for the client in it.
    pub only: bool,
    pub kind: UsageKind,
}

/// Which members a usage object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKind {
    Chat,
    /// What is neither read nor created is told apart; `total` is all of the prompt.
    Messages {
        total: u64,
    },
}

impl Piece {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Exact(bytes) => bytes.clone(),
            Self::Usage(piece) => {
                [&piece.before[..], piece.usage.as_bytes(), &piece.after].concat()
            }
        }
    }
}

impl UsagePiece {
    /// Whether `got` ends before the frame's last brace.
    fn is_cut(&self, got: &[u8]) -> bool {
        let whole = Piece::Usage(self.clone()).bytes();
        let brace = whole.iter().rposition(|byte| *byte == b'}').unwrap_or(0);
        got.len() <= brace && whole.starts_with(got)
    }
}

/// Whether frames of usage alone arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageOnly {
    Arrives,
    IsDropped,
    MayBeDropped,
}

/// The cache's part of a usage object that arrived: `None` where it is as it was sent.
pub type Seen = Option<Shown>;

/// Compares what arrived with what was sent and returns the usage objects in it. Of a body that
/// is not `complete` the rest may be missing.
pub fn compare(
    pieces: &[Piece],
    got: &[u8],
    usage_only: UsageOnly,
    complete: bool,
) -> Result<Vec<Seen>, String> {
    let Some((piece, rest)) = pieces.split_first() else {
        return if got.is_empty() {
            Ok(vec![])
        } else {
            Err(format!("{} bytes too many: {:?}", got.len(), excerpt(got)))
        };
    };
    match piece {
        Piece::Exact(bytes) => match take(got, bytes, complete)? {
            None => Ok(vec![]),
            Some(left) => compare(rest, left, usage_only, complete),
        },
        Piece::Usage(usage) => {
            let present = || with_usage(usage, rest, got, usage_only, complete);
            let absent = || compare(rest, got, usage_only, complete);
            match usage_only {
                // Cut off in the middle it is no such frame.
                UsageOnly::IsDropped if usage.only && !complete && usage.is_cut(got) => Ok(vec![]),
                UsageOnly::IsDropped if usage.only => absent(),
                UsageOnly::MayBeDropped if usage.only => present().or_else(|error| {
                    absent().map_err(|other| format!("{error}; or, without the frame, {other}"))
                }),
                _ => present(),
            }
        }
    }
}

fn with_usage(
    piece: &UsagePiece,
    rest: &[Piece],
    got: &[u8],
    usage_only: UsageOnly,
    complete: bool,
) -> Result<Vec<Seen>, String> {
    let Some(left) = take(got, &piece.before, complete)? else {
        return Ok(vec![]);
    };
    let mut values = serde_json::Deserializer::from_slice(left).into_iter::<Value>();
    let usage = match values.next() {
        Some(Ok(usage)) => usage,
        Some(Err(error)) if error.is_eof() && !complete => return Ok(vec![]),
        None if !complete => return Ok(vec![]),
        _ => return Err(format!("no usage object: {:?}", excerpt(left))),
    };
    let (usage_text, left) = left.split_at(values.byte_offset());
    let seen = if usage_text == piece.usage.as_bytes() {
        None
    } else {
        Some(shown(&usage, &piece.usage, piece.kind)?)
    };
    let mut all = vec![seen];
    if let Some(left) = take(left, &piece.after, complete)? {
        all.extend(compare(rest, left, usage_only, complete)?);
    }
    Ok(all)
}

/// What follows `wanted` in `got`; `None` where `got` ends in it and may.
fn take<'a>(got: &'a [u8], wanted: &[u8], complete: bool) -> Result<Option<&'a [u8]>, String> {
    if let Some(left) = got.strip_prefix(wanted) {
        return Ok(Some(left));
    }
    if !complete && wanted.starts_with(got) {
        return Ok(None);
    }
    let back = common(got, wanted).saturating_sub(20);
    Err(format!(
        "{:?} instead of {:?}",
        excerpt(&got[back.min(got.len())..]),
        excerpt(&wanted[back..])
    ))
}

/// How many bytes are the same.
pub fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The start of some bytes, for messages.
pub fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned()
}

/// Reads the cache's part and compares the rest with what was sent.
fn shown(usage: &Value, sent: &str, kind: UsageKind) -> Result<Shown, String> {
    let wrong = |what: &str| format!("{what}: {usage} for {sent}");
    let number = |path: &str| {
        let value = usage.pointer(path).and_then(Value::as_u64);
        value.ok_or_else(|| wrong(&format!("no number at {path}")))
    };
    let shown = Shown {
        read: number("/cache_read_input_tokens")?,
        five_minutes: number("/cache_creation/ephemeral_5m_input_tokens")?,
        one_hour: number("/cache_creation/ephemeral_1h_input_tokens")?,
        day: number("/cache_creation/ephemeral_24h_input_tokens")?,
    };
    let agrees = match kind {
        UsageKind::Chat => {
            number("/prompt_tokens_details/cached_tokens")? == shown.read
                && number("/prompt_tokens_details/cache_write_tokens")? == shown.created()
        }
        UsageKind::Messages { total } => {
            number("/input_tokens")? + shown.read + shown.created() == total
        }
    } && number("/cache_creation_input_tokens")? == shown.created();
    if !agrees {
        return Err(wrong("the fields disagree"));
    }
    let sent: Value = serde_json::from_str(sent).map_err(|_| wrong("sent no JSON"))?;
    if others(usage, kind) != others(&sent, kind) {
        return Err(wrong("other members changed"));
    }
    Ok(shown)
}

/// The members of a usage object that are not the cache's.
fn others(usage: &Value, kind: UsageKind) -> Value {
    let mut usage = usage.clone();
    if let Some(usage) = usage.as_object_mut() {
        for name in [
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "cache_creation",
        ] {
            usage.remove(name);
        }
        if let UsageKind::Messages { .. } = kind {
            usage.remove("input_tokens");
        }
        if let Some(details) = usage.remove("prompt_tokens_details") {
            let mut details = details.as_object().cloned().unwrap_or_default();
            details.remove("cached_tokens");
            details.remove("cache_write_tokens");
            if !details.is_empty() {
                usage.insert("prompt_tokens_details".into(), details.into());
            }
        }
    }
    usage
}

#[cfg(test)]
mod tests;
