//! Failures on demand, so that a client's own retries are seen at work.
//!
//! `x-stand-in-fail: KEY STATUS[,STATUS…]` makes the first requests with that KEY fail with these
//! statuses, one after the other; what comes then is answered.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::http::{HeaderMap, StatusCode};

use super::refusal::Refusal;

const HEADER: &str = "x-stand-in-fail";
/// Keys that are remembered; later ones are refused.
const KEYS_MAX: usize = 10_000;

/// How many requests of each key were made to fail.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<String, usize>>);

impl Failures {
    /// `Err` for a request that is to fail now.
    pub fn next(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(wish) = headers.get(HEADER) else {
            return Ok(());
        };
        let (key, statuses) =
            wish.to_str().ok().and_then(parse).ok_or_else(|| {
                Refusal::invalid(format!("{HEADER}: KEY STATUS[,STATUS…] expected"))
            })?;
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() == KEYS_MAX && !failed.contains_key(key) {
            return Err(Refusal::invalid(format!("{HEADER}: too many keys")));
        }
        let count = failed.entry(key.to_owned()).or_default();
        let Some(status) = statuses.get(*count) else {
            return Ok(());
        };
        *count += 1;
        Err(Refusal::failure(*status, "failed as asked"))
    }
}

fn parse(wish: &str) -> Option<(&str, Vec<StatusCode>)> {
    let (key, statuses) = wish.split_once(' ')?;
    let status = |text: &str| {
        let status = StatusCode::from_bytes(text.as_bytes()).ok()?;
        (status.is_client_error() || status.is_server_error()).then_some(status)
    };
    let statuses: Option<Vec<_>> = statuses.split(',').map(status).collect();
    Some((key, statuses?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_fails_as_often_as_it_says() {
        let failures = Failures::default();
        let ask = |wish: &str| {
            let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), wish.parse().unwrap())]);
            failures.next(&headers).is_ok()
        };
        assert_eq!(
            [(); 4].map(|()| ask("a 429,503")),
            [false, false, true, true]
        );
        assert_eq!([(); 2].map(|()| ask("b 500")), [false, true]);
        for wrong in ["a", "a ", "a 200", "a 429,x"] {
            assert!(!ask(wrong), "{wrong}");
        }
        assert!(failures.next(&HeaderMap::new()).is_ok());
    }
}
