//! Lies that the checker must find out: what the proxy before the service changes.

use prompt_cache_core::wire::CLASSIFY_PATH;
use prompt_cache_e2e::{faults::Tamper, http::Request};
use serde_json::{Value, json};

use crate::settings::Plant;

/// What a plant does to the calls of the service, if anything.
pub fn tamper(plant: Option<Plant>) -> Option<Tamper> {
    match plant {
        Some(Plant::ReadMore) => Some(Tamper {
            request: |_| {},
            answer: read_more,
        }),
        Some(Plant::OtherTenant) => Some(Tamper {
            request: one_tenant,
            answer: |_, _| {},
        }),
        _ => None,
    }
}

fn read_more(path: &str, body: &mut Vec<u8>) {
    let Ok(mut answer) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    if path == CLASSIFY_PATH
        && let Some(read) = answer.pointer_mut("/split/read")
        && let Some(tokens) = read.as_u64().filter(|tokens| *tokens > 0)
    {
        *read = json!(tokens + 1);
        *body = answer.to_string().into_bytes();
    }
}

/// Every fingerprint becomes the same one.
fn one_tenant(request: &mut Request) {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let Some(at) = text.find(r#""principal":""#) else {
        return;
    };
    let digits = at + r#""principal":""#.len();
    let mut body = request.body.clone();
    if let Some(fingerprint) = body.get_mut(digits..digits + 64) {
        fingerprint.fill(b'a');
        request.body = body;
    }
}
