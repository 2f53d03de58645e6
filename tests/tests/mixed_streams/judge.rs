//! The client of one stream, and whether what it got is right.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    sync::Mutex,
};

use prompt_cache_core::{
    ledger::{Split, TierTokens},
    response::Answer,
};
use prompt_cache_e2e::{backend::expected, client::Client, http::find};
use serde_json::Value;
use tokio::time::timeout;

use crate::{STANDSTILL_MAX, llm::Sent, script::Script};

/// How a stream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    Cached,
    Zeros,
    Uncached,
    ClientLeft,
    UpstreamBroke,
    Failed,
}

/// What the client got.
pub struct Got {
    pub status: u16,
    pub body: Vec<u8>,
    pub complete: bool,
}

/// Sends a stream's request and reads its answer as its script says. `TimedOut` when it stood still.
pub async fn run(client: Client, script: &Script) -> io::Result<Got> {
    let mut connection = client.connect().await;
    let bytes = script.request().encode("llm");
    moving(connection.write(&bytes)).await?;
    let Some(head) = moving(connection.read_head()).await? else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let mut got = Got {
        status: head.status,
        body: vec![],
        complete: false,
    };
    loop {
        if script
            .client_leaves_at
            .is_some_and(|at| got.body.len() >= at)
        {
            return Ok(got);
        }
        match moving(connection.read_piece()).await {
            Ok(Some(piece)) => got.body.extend_from_slice(&piece),
            Ok(None) => {
                got.complete = true;
                return Ok(got);
            }
            Err(e) if e.kind() == ErrorKind::TimedOut => return Err(e),
            Err(_) => return Ok(got),
        }
    }
}

async fn moving<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STANDSTILL_MAX, step).await?
}

/// The split that a response shows, read from its last usage.
pub fn shown(body: &[u8], stream: bool) -> Option<Split> {
    let text = String::from_utf8_lossy(body);
    let at = text.rfind("\"usage\":{")?;
    let json = if stream {
        text[..]
            .rsplit("data: ")
            .find(|event| event.contains("\"usage\":{"))?
            .trim_end()
    } else {
        &text
    };
    let Ok(value) = serde_json::from_str::<Value>(json) else {
        panic!("broken usage: {}", &text[at..]);
    };
    let usage = &value["usage"];
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    Some(Split {
        read: number("/cache_read_input_tokens")?,
        creation: TierTokens {
            five_minutes: number("/cache_creation/ephemeral_5m_input_tokens").unwrap(),
            one_hour: number("/cache_creation/ephemeral_1h_input_tokens").unwrap(),
            day: number("/cache_creation/ephemeral_24h_input_tokens").unwrap(),
        },
    })
}

/// The same of a body that broke off, as far as its numbers are there.
fn split_so_far(body: &[u8]) -> Option<Split> {
    let number = |name: &str| {
        let at = find(body, name.as_bytes())? + name.len();
        let digits = body[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        body.get(at + digits)?;
        String::from_utf8_lossy(&body[at..at + digits]).parse().ok()
    };
    Some(Split {
        read: number("\"cache_read_input_tokens\":")?,
        creation: TierTokens {
            five_minutes: number("\"ephemeral_5m_input_tokens\":")?,
            ..TierTokens::default()
        },
    })
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Judges one stream; `Err` says what is wrong.
pub fn judge(
    script: &Script,
    got: &Got,
    sent: Option<&Sent>,
    totals: &Mutex<HashMap<usize, u64>>,
) -> Result<Ended, String> {
    let Some(sent) = sent else {
        return if script.client_leaves_at.is_some() {
            Ok(Ended::ClientLeft)
        } else {
            Err(format!(
                "never reached the upstream: {} {}",
                got.status,
                String::from_utf8_lossy(&got.body)
            ))
        };
    };
    let broken = !got.complete;
    if broken && script.client_leaves_at.is_none() && !sent.broke {
        return Err(format!("broke off after {} bytes", got.body.len()));
    }
    if sent.broke && got.status == 503 && got.body.starts_with(b"upstream connect error") {
        // Broken before Envoy had read the head.
        return Ok(Ended::UpstreamBroke);
    }
    if got.status != script.status {
        return Err(format!("status {}", got.status));
    }
    let may_be = |answer| {
        if script.known_model {
            expected(&sent.body, script.kind(), sent.drop_usage_only, answer)
        } else {
            sent.body.clone()
        }
    };
    let split = if broken || sent.drop_usage_only {
        None
    } else {
        shown(&got.body, script.stream)
    };
    let uncached = may_be(Answer::Inactive);
    if broken {
        let wanted = split_so_far(&got.body).map_or(uncached, |split| may_be(Answer::Split(split)));
        let same = common(&got.body, &wanted);
        // The usage object itself may be cut before its numbers.
        let usage_at = find(&got.body, b"\"usage\":{").unwrap_or(got.body.len());
        let in_usage = same >= usage_at && got.body.len() - usage_at < 600;
        if same < got.body.len() && !in_usage {
            return Err(format!("differs at {same} of {}", got.body.len()));
        }
        return Ok(if sent.broke {
            Ended::UpstreamBroke
        } else {
            Ended::ClientLeft
        });
    }
    let wanted = split.map_or(uncached, |split| may_be(Answer::Split(split)));
    if got.body != wanted {
        let same = common(&got.body, &wanted);
        return Err(format!(
            "differs at {same}: {} of {} bytes, {:?} instead of {:?}",
            got.body.len(),
            wanted.len(),
            String::from_utf8_lossy(
                &got.body[same.saturating_sub(20)..(same + 80).min(got.body.len())]
            ),
            String::from_utf8_lossy(
                &wanted[same.saturating_sub(20)..(same + 80).min(wanted.len())]
            ),
        ));
    }
    let Some(split) = split else {
        return Ok(if got.status == 200 {
            Ended::Uncached
        } else {
            Ended::Failed
        });
    };
    let total = split.read + split.creation.five_minutes;
    match script.topic {
        None if total == 0 => Ok(Ended::Zeros),
        None => Err(format!("unmarked, and {split:?}")),
        Some(topic) => {
            let known = *totals.lock().unwrap().entry(topic).or_insert(total);
            if total == known && (split.read == 0 || split.creation.five_minutes == 0) {
                Ok(Ended::Cached)
            } else {
                Err(format!("{split:?}, but the prefix has {known} tokens"))
            }
        }
    }
}
