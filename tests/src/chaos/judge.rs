//! Judges one exchange by everything that was promised.

use crate::{
    books::{Books, Sent, State},
    caller::Got,
    delivered::{Seen, compare},
    prompt,
    script::{Api, Script},
    split::{Shown, allowed},
    ways::Junk,
};

/// The filter's `classify_deadline_ms` in these runs.
pub const CLASSIFY_DEADLINE_MS: i64 = 1_500;
/// What a step may take beyond what it must, on a machine that has nothing else to do.
const SLACK_MS: i64 = 1_500;

/// How an exchange went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Read,
    Created,
    Zeros,
    Untouched,
    /// No usage object arrived.
    NoUsage,
    Refused,
    UpstreamBroke,
    ClientLeft,
}

impl Ended {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "ended: read",
            Self::Created => "ended: created",
            Self::Zeros => "ended: zeros",
            Self::Untouched => "ended: uncached",
            Self::NoUsage => "ended: no usage",
            Self::Refused => "ended: refused",
            Self::UpstreamBroke => "ended: upstream broke",
            Self::ClientLeft => "ended: client left",
        }
    }
}

/// Judges `got`; a violation is in the journal afterwards.
pub fn judge(script: &Script, got: &Got, books: &Books) -> Option<Ended> {
    books.used(script);
    let mut state = books.lock();
    let sent = state.sent.remove(&script.number);
    state.look();
    let verdict = verdict(script, got, sent.as_ref(), &state);
    let now_ms = state.clocks.now_ms();
    match verdict {
        Ok(ended) => {
            state.journal.count(ended.as_str());
            if script.api == Api::Messages {
                let what = format!("{}, Messages API", ended.as_str());
                state.journal.count(&what);
            }
            return Some(ended);
        }
        Err(message) => {
            let what = format!(
                "{message}\n{script:?}\n{:?} {} bytes, complete {}, left {}, {:?}, from {} (sent {}, first {:?}) to {} ms\nsent: {:?}",
                got.status,
                got.body.len(),
                got.complete,
                got.left,
                got.error,
                got.began_ms,
                got.sent_ms,
                got.first_ms,
                got.end_ms,
                sent.map(|sent| (
                    sent.arrived_ms,
                    sent.first_event_ms,
                    sent.last_ms,
                    sent.answer.status,
                    sent.answer.earns_at,
                    sent.answer.resets_at
                )),
            );
            state.journal.violation(books.seed, now_ms, &what);
        }
    }
    None
}

fn verdict(
    script: &Script,
    got: &Got,
    sent: Option<&Sent>,
    state: &State,
) -> Result<Ended, String> {
    if got.stood_still {
        return Err("the stream stood still".to_owned());
    }
    if script.junk.is_some_and(|junk| junk.refused()) {
        return refused(got, sent);
    }
    let Some(sent) = sent else {
        return if got.left {
            Ok(Ended::ClientLeft)
        } else {
            let body = String::from_utf8_lossy(&got.body);
            Err(format!("never reached the upstream: {body:?}"))
        };
    };
    if let Some(problem) = &sent.problem {
        return Err(problem.clone());
    }
    in_time(got, sent, state)?;
    let broke = sent.answer.resets_at.is_some();
    // Envoy's own answer, where it had none to pass on; who left has perhaps not read it.
    let by_envoy = got.left || got.body.starts_with(b"upstream connect error");
    if broke && got.status == Some(503) && by_envoy {
        return Ok(Ended::UpstreamBroke);
    }
    if !got.left && !broke {
        if !got.complete {
            return Err("broke off, though the upstream's answer was complete".to_owned());
        }
        if got.status != Some(sent.answer.status) {
            return Err(format!("status {:?}", got.status));
        }
    }
    if got
        .status
        .is_some_and(|status| status != sent.answer.status)
    {
        return Err(format!("status {:?}", got.status));
    }
    let complete = got.complete && !broke;
    let seen = compare(&sent.answer.pieces, &got.body, sent.usage_only, complete)
        .map_err(|difference| format!("delivered {difference}"))?;
    for shown in seen.iter().flatten() {
        billed(script, got, sent, state, *shown)?;
    }
    Ok(if got.left {
        Ended::ClientLeft
    } else if broke {
        Ended::UpstreamBroke
    } else {
        ended(&seen)
    })
}

fn ended(seen: &[Seen]) -> Ended {
    let Some(last) = seen.last() else {
        return Ended::NoUsage;
    };
    match last {
        None => Ended::Untouched,
        Some(shown) if shown.read > 0 => Ended::Read,
        Some(shown) if shown.created() > 0 => Ended::Created,
        Some(_) => Ended::Zeros,
    }
}

fn refused(got: &Got, sent: Option<&Sent>) -> Result<Ended, String> {
    if sent.is_some() {
        return Err("the upstream saw what was to be refused".to_owned());
    }
    let is_refusal = |body: &[u8]| String::from_utf8_lossy(body).contains("invalid_request_error");
    match got.status {
        Some(400) if got.left || is_refusal(&got.body) => Ok(Ended::Refused),
        None if got.left => Ok(Ended::ClientLeft),
        _ => Err("was to be refused".to_owned()),
    }
}

/// What the client was told may be true.
fn billed(
    script: &Script,
    got: &Got,
    sent: &Sent,
    state: &State,
    shown: Shown,
) -> Result<(), String> {
    // To be read, if as nothing that can be marked: an unmarked request.
    let is_unmarked = script.junk == Some(Junk::NoMessages) && script.tenant.is_some();
    if is_unmarked && shown == Shown::default() {
        return Ok(());
    }
    let (Some(tenant), true) = (script.tenant, script.billable()) else {
        return Err(format!(
            "{shown:?} for a request of which nothing may be known"
        ));
    };
    let key = |depth: usize| (tenant, script.model, script.blocks[..=depth].to_vec());
    let counts = prompt::cumulative(&script.blocks);
    let readable = |depth| {
        let until_ms = got.end_ms;
        state
            .ledger
            .readable(&key(depth), got.began_ms, until_ms, &state.clocks)
    };
    if shown.read + shown.created() > sent.answer.prompt_tokens {
        return Err(format!("{shown:?} of {} tokens", sent.answer.prompt_tokens));
    }
    let may_be = allowed(script, &counts, sent.answer.prompt_tokens, readable);
    if may_be.iter().any(|allowed| allowed.shown == shown) {
        return Ok(());
    }
    let histories: Vec<_> = (0..counts.len())
        .map(|depth| {
            format!(
                "  {} tokens: {}",
                counts[depth],
                state.ledger.history(&key(depth))
            )
        })
        .collect();
    Err(format!(
        "{shown:?}, which it may not be told; prefixes:\n{}",
        histories.join("\n")
    ))
}

/// Nothing waited longer than it may.
fn in_time(got: &Got, sent: &Sent, state: &State) -> Result<(), String> {
    let slack_ms = SLACK_MS + 2 * state.lag_ms(got.began_ms, got.end_ms);
    let late = |what: &str, since_ms: i64, at_ms: i64| {
        let took_ms = at_ms - since_ms;
        if took_ms <= slack_ms {
            return Ok(());
        }
        Err(format!("{what} took {took_ms} ms, {slack_ms} at most"))
    };
    if got.sent_ms > 0 {
        late("the way to the upstream", got.sent_ms, sent.arrived_ms)?;
    }
    if let (Some(sent_ms), Some(got_ms)) = (sent.first_event_ms, got.first_ms) {
        late("the first event", sent_ms, got_ms)?;
    }
    if let (Some(last_ms), false) = (sent.last_ms, got.left) {
        let may_wait_until_ms = last_ms.max(sent.arrived_ms + CLASSIFY_DEADLINE_MS);
        late("the end", may_wait_until_ms, got.end_ms)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
