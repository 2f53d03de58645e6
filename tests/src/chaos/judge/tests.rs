//! Exchanges that are right, and the same ones with something wrong.

use super::*;
use crate::{
    answer::{Answer, Framing},
    delivered::{Piece, UsageKind, UsageOnly, UsagePiece},
    ledger::Tier,
    script::{Api, Mark, Model},
    ways::{CallerWay, LlmWay},
};

const PROMPT_TOKENS: u64 = 1_000_000;

/// Tenant 1 marks its whole prompt.
fn script() -> Script {
    Script {
        tenant: Some(1),
        model: Model::Alpha,
        blocks: vec![3, 4, 5],
        marks: vec![Mark {
            depth: 2,
            tier: None,
        }],
        stream: true,
        asked: true,
        api: Api::Chat,
        caller: CallerWay::Plain,
        llm: LlmWay::Whole,
        junk: None,
        ..Script::of(1, 1)
    }
}

fn count() -> u64 {
    prompt::cumulative(&script().blocks)[2]
}

fn usage(read: u64, written: u64) -> String {
    format!(
        r#"{{"prompt_tokens":{PROMPT_TOKENS},"prompt_tokens_details":{{"cached_tokens":{read},"cache_write_tokens":{written}}},"cache_read_input_tokens":{read},"cache_creation_input_tokens":{written},"cache_creation":{{"ephemeral_5m_input_tokens":{written},"ephemeral_1h_input_tokens":0,"ephemeral_24h_input_tokens":0}}}}"#
    )
}

fn sent() -> Sent {
    let piece = UsagePiece {
        before: b"data: {\"choices\":[],\"usage\":".to_vec(),
        usage: format!(r#"{{"prompt_tokens":{PROMPT_TOKENS}}}"#),
        after: b"}\n\n".to_vec(),
        only: true,
        kind: UsageKind::Chat,
    };
    Sent {
        answer: Answer {
            status: 200,
            framing: Framing::Chunked,
            pieces: vec![Piece::Exact(b"data: a\n\n".to_vec()), Piece::Usage(piece)],
            earns_at: None,
            resets_at: None,
            first_event_bytes: Some(9),
            prompt_tokens: PROMPT_TOKENS,
        },
        usage_only: UsageOnly::Arrives,
        arrived_ms: 110,
        first_event_ms: Some(120),
        last_ms: Some(130),
        broke: false,
        problem: None,
    }
}

fn got(usage: &str) -> Got {
    Got {
        status: Some(200),
        body: format!("data: a\n\ndata: {{\"choices\":[],\"usage\":{usage}}}\n\n").into_bytes(),
        complete: true,
        began_ms: 100,
        sent_ms: 105,
        first_ms: Some(125),
        end_ms: 140,
        ..Got::default()
    }
}

/// The verdict where tenant 1 has paid for its prompt (or not), and `change` made it wrong.
fn judged(
    paid: bool,
    usage: &str,
    change: impl Fn(&mut Script, &mut Got, &mut Sent),
) -> Result<Ended, String> {
    let books = Books::open(1, None, false);
    let (mut script, mut got, mut sent) = (script(), got(usage), sent());
    if paid {
        let key = (1, Model::Alpha, script.blocks.clone());
        let mut state = books.lock();
        let State { clocks, ledger, .. } = &mut *state;
        ledger.paid(key, Tier::FiveMinutes, 0, 50, clocks);
    }
    change(&mut script, &mut got, &mut sent);
    let state = books.lock();
    verdict(&script, &got, Some(&sent), &state)
}

#[test]
fn what_is_right() {
    let plain = format!(r#"{{"prompt_tokens":{PROMPT_TOKENS}}}"#);
    assert_eq!(judged(true, &plain, |_, _, _| {}), Ok(Ended::Untouched));
    assert_eq!(
        judged(true, &usage(count(), 0), |_, _, _| {}),
        Ok(Ended::Read)
    );
    assert_eq!(
        judged(false, &usage(0, count()), |_, _, _| {}),
        Ok(Ended::Created)
    );
    assert_eq!(judged(false, &usage(0, 0), |_, _, _| {}), Ok(Ended::Zeros));
    // An end that waits for the classification.
    let late = |_: &mut Script, got: &mut Got, _: &mut Sent| {
        got.end_ms = 110 + CLASSIFY_DEADLINE_MS + SLACK_MS;
    };
    assert_eq!(judged(true, &usage(count(), 0), late), Ok(Ended::Read));
}

#[test]
fn what_nobody_may_be_told() {
    let right = usage(count(), 0);
    let wrong = |paid, usage: &str| judged(paid, usage, |_, _, _| {}).is_err();
    assert!(wrong(false, &right), "nobody paid");
    assert!(wrong(true, &usage(count() + 1, 0)));
    assert!(wrong(true, &usage(count() - 1, 0)));
    assert!(wrong(true, &usage(count(), 1)));
    assert!(wrong(false, &usage(0, count() + 1)));
    let other = |script: &mut Script, _: &mut Got, _: &mut Sent| script.tenant = Some(2);
    assert!(judged(true, &right, other).is_err(), "another tenant's");
    let other = |script: &mut Script, _: &mut Got, _: &mut Sent| script.model = Model::Beta;
    assert!(judged(true, &right, other).is_err(), "another model's");
    let other = |script: &mut Script, _: &mut Got, _: &mut Sent| script.tenant = None;
    assert!(judged(true, &usage(0, 0), other).is_err(), "nobody's");
    let expired = |_: &mut Script, got: &mut Got, _: &mut Sent| {
        // All of it a life later, and nothing late in it.
        for at in [&mut got.began_ms, &mut got.end_ms] {
            *at += Tier::FiveMinutes.life_ms();
        }
        got.sent_ms = 0;
        got.first_ms = None;
        got.left = true;
    };
    assert!(judged(true, &right, expired).is_err(), "expired");
    let small = |_: &mut Script, _: &mut Got, sent: &mut Sent| {
        sent.answer.prompt_tokens = count() - 1;
    };
    assert!(judged(true, &right, small).is_err(), "more than the prompt");
}

#[test]
fn what_went_wrong_on_the_way() {
    type Change = fn(&mut Script, &mut Got, &mut Sent);
    let right = usage(count(), 0);
    let changes: [(&str, Change); 8] = [
        ("status", |_, got, _| got.status = Some(503)),
        ("a byte", |_, got, _| got.body[6] ^= 1),
        ("cut short", |_, got, _| got.complete = false),
        ("stands still", |_, got, _| got.stood_still = true),
        ("forwarded wrongly", |_, _, sent| {
            sent.problem = Some("x".to_owned())
        }),
        ("late at the upstream", |_, _, sent| {
            sent.arrived_ms = 106 + SLACK_MS;
            (sent.first_event_ms, sent.last_ms) = (None, None);
        }),
        ("a late first event", |_, got, _| {
            got.first_ms = Some(121 + SLACK_MS);
            got.end_ms = 121 + SLACK_MS;
        }),
        ("a late end", |_, got, _| {
            got.end_ms = 111 + CLASSIFY_DEADLINE_MS + SLACK_MS;
        }),
    ];
    for (what, change) in changes {
        assert!(judged(true, &right, change).is_err(), "{what}");
    }
    let state = Books::open(1, None, false);
    let state = state.lock();
    assert!(
        verdict(&script(), &got(&right), None, &state).is_err(),
        "never sent on"
    );
}
