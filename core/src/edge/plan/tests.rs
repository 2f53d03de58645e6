//! Plans of whole requests.

mod messages;

use std::cell::RefCell;

use super::*;
use crate::{
    ledger::Tier,
    request::RefusalReason,
    wire::{Classified, Lease},
};

const MARKED: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}]}"#;
const UNMARKED: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}"#;

const NOW_MS: u64 = 1_000;

fn known() -> PolicyView {
    let policy = r#"{"v":1,"models":[{"model":"m","tiers":["5m","1h"],"default_tier":"5m","min_prefix_tokens":1024,"tokenizer_version":"t"}]}"#;
    PolicyView::parse(policy.as_bytes()).unwrap()
}

struct Given {
    api: Api,
    query: QueryBreakpoint,
    config: FilterConfig,
    policy: PolicyView,
    principal: Option<Fingerprint>,
    callouts_allowed: bool,
    leases: RefCell<Leases>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            api: Api::Chat,
            query: QueryBreakpoint::Absent,
            config: FilterConfig::default(),
            policy: known(),
            principal: Some(Fingerprint::new([7; 32])),
            callouts_allowed: true,
            leases: RefCell::new(Leases::new(1 << 20, 30_000)),
        }
    }
}

impl Given {
    fn plan(&self, body: &str) -> Plan {
        let context = PlanContext {
            api: self.api,
            query: self.query,
            config: &self.config,
            policy: &self.policy,
            principal: self.principal,
            callouts_allowed: self.callouts_allowed,
            now_ms: NOW_MS,
        };
        plan(body.as_bytes(), &context, &mut self.leases.borrow_mut())
    }

    fn forward(&self, body: &str) -> Forward {
        match self.plan(body) {
            Plan::Forward(forward) => forward,
            Plan::Refuse(refusal) => panic!("{refusal:?}"),
        }
    }

    fn bypass(&self, body: &str) -> Option<Bypass> {
        match self.forward(body).callout {
            Callout::Inactive(bypass) => Some(bypass),
            Callout::Known(_) | Callout::Leased(_) | Callout::Ask(_) => None,
        }
    }
}

#[test]
fn a_marked_request_of_an_active_model_asks() {
    let forward = Given::default().forward(MARKED);
    let Callout::Ask(ask) = forward.callout else {
        panic!("{:?}", forward.callout)
    };
    assert_eq!((ask.model.as_str(), ask.breakpoints.len()), ("m", 1));
    assert_eq!(ask.breakpoints[0].tier, Tier::FiveMinutes);
    assert_eq!(ask.candidates.len(), 1);
    assert!(forward.marked == Marked::Client && forward.drop_usage_only);
    let body = String::from_utf8(forward.body.unwrap()).unwrap();
    assert!(!body.contains("cache_control") && body.contains(r#""include_usage":true"#));
}

#[test]
fn an_unmarked_request_of_an_active_model_is_known_to_be_zero() {
    let forward = Given::default().forward(UNMARKED);
    assert!(matches!(forward.callout, Callout::Known(split) if split == Split::default()));
    assert!(forward.marked == Marked::No && forward.drop_usage_only);
}

#[test]
fn why_a_request_is_not_cached() {
    let unknown = Given {
        policy: PolicyView::Unknown,
        ..Given::default()
    };
    let nobody = Given {
        principal: None,
        ..Given::default()
    };
    let open = Given {
        callouts_allowed: false,
        ..Given::default()
    };
    let foreign = Given {
        policy: PolicyView::parse(br#"{"v":1,"speaks":[2,3],"models":[]}"#).unwrap(),
        ..Given::default()
    };
    assert_eq!(unknown.bypass(MARKED), Some(Bypass::NoPolicy));
    assert_eq!(foreign.bypass(MARKED), Some(Bypass::WireVersion));
    assert_eq!(nobody.bypass(MARKED), Some(Bypass::NoPrincipal));
    assert_eq!(nobody.bypass(UNMARKED), Some(Bypass::NoPrincipal));
    assert_eq!(open.bypass(MARKED), Some(Bypass::BreakerOpen));
    assert_eq!(open.bypass(UNMARKED), None);
    let other = MARKED.replace(r#""m""#, r#""other""#);
    assert_eq!(Given::default().bypass(&other), Some(Bypass::UnknownModel));
    assert!(matches!(
        Given::default().bypass("[]"),
        Some(Bypass::Body(_))
    ));
}

#[test]
fn an_inactive_model_loses_only_its_markers() {
    let body = MARKED.replace(r#""m""#, r#""other""#);
    let forward = Given::default().forward(&body);
    let expected = body.replace(r#","cache_control":{"type":"ephemeral"}"#, "");
    assert_eq!(forward.body.as_deref(), Some(expected.as_bytes()));
    assert!(!forward.drop_usage_only);
}

#[test]
fn a_bad_marker_is_refused_whatever_the_model() {
    let body = MARKED.replace("ephemeral", "persistent");
    for given in [
        Given::default(),
        Given {
            policy: PolicyView::Unknown,
            principal: None,
            ..Given::default()
        },
    ] {
        let Plan::Refuse(refusal) = given.plan(&body) else {
            panic!()
        };
        assert_eq!(refusal.reason, RefusalReason::UnsupportedType);
    }
}

#[test]
fn an_edit_never_takes_a_body_over_the_limit() {
    let mut given = Given::default();
    given.config.max_request_bytes = UNMARKED.len();
    let forward = given.forward(UNMARKED);
    assert_eq!((forward.body, forward.drop_usage_only), (None, false));
    let growth = r#","stream_options":{"include_usage":true}"#.len();
    given.config.max_request_bytes = UNMARKED.len() + growth;
    let forward = given.forward(UNMARKED);
    assert_eq!(
        forward.body.map(|body| body.len()),
        Some(UNMARKED.len() + growth)
    );
    assert!(forward.drop_usage_only);
}

#[test]
fn optional_edits_are_off_by_default() {
    let mut given = Given::default();
    let forward = given.forward(MARKED);
    assert_eq!(forward.routing_hash, None);
    given.config.cache_salt = true;
    given.config.prefix_hash_header = Some("x-prefix".into());
    let forward = given.forward(MARKED);
    assert!(forward.routing_hash.is_some());
    let body = String::from_utf8(forward.body.unwrap()).unwrap();
    let fingerprint = given.principal.unwrap().to_string();
    assert!(body.contains("cache_salt") && !body.contains(&fingerprint));
}

#[test]
fn a_salt_is_a_tenant_s_own_and_always_the_same() {
    let salt = |tenant: u8| {
        let mut given = Given {
            principal: Some(Fingerprint::new([tenant; 32])),
            ..Given::default()
        };
        given.config.cache_salt = true;
        let body = given.forward(MARKED).body.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["cache_salt"].as_str().unwrap().to_owned()
    };
    assert_eq!(salt(1).len(), 64);
    assert_eq!(salt(1), salt(1));
    assert_ne!(salt(1), salt(2));
}

#[test]
fn a_leased_breakpoint_is_a_read_without_a_callout_also_while_the_breaker_is_open() {
    let given = Given::default();
    let Callout::Ask(asked) = given.forward(MARKED).callout else {
        panic!("nothing is leased yet");
    };
    let leases = vec![Lease {
        hash: asked.candidates[0].hash,
        tokens: 2_000,
        tier: Tier::FiveMinutes,
        ttl_ms: 300_000,
    }];
    let classified = Classified {
        tokenizer_version: "t".into(),
        epoch: "e".into(),
        leases,
        ..Classified::default()
    };
    {
        let mut table = given.leases.borrow_mut();
        table.renew("e", NOW_MS);
        table.classified(&asked, &classified, NOW_MS, NOW_MS);
    }
    let given = Given {
        callouts_allowed: false,
        ..given
    };
    let forward = given.forward(MARKED);
    let Callout::Leased(leased) = forward.callout else {
        panic!("{:?}", forward.callout);
    };
    assert_eq!(leased.split.read, 2_000);
    assert!(forward.body.is_some(), "the marker is removed all the same");
}

fn with_auto() -> PolicyView {
    let policy = r#"{"v":1,"models":[{"model":"m","tiers":["5m","1h"],"default_tier":"5m","auto":"1h","min_prefix_tokens":1024,"tokenizer_version":"t"}]}"#;
    PolicyView::parse(policy.as_bytes()).unwrap()
}

fn asked(forward: &Forward) -> Vec<(u32, Tier)> {
    match &forward.callout {
        Callout::Ask(request) => {
            let points = request.breakpoints.iter();
            points.map(|point| (point.block, point.tier)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_s_policy_may_mark_what_nobody_marked() {
    let given = Given {
        policy: with_auto(),
        ..Given::default()
    };
    let forward = given.forward(UNMARKED);
    assert_eq!(forward.marked, Marked::Policy);
    assert_eq!(asked(&forward), [(0, Tier::OneHour)]);
    let forward = given.forward(MARKED);
    assert_eq!(forward.marked, Marked::Client);
    assert_eq!(asked(&forward), [(0, Tier::FiveMinutes)]);
    let forward = given.forward(r#"{"model":"m","messages":[]}"#);
    assert_eq!(forward.marked, Marked::No);
    let forward = given.forward(&UNMARKED.replace("\"m\"", "\"n\""));
    assert!(matches!(
        forward.callout,
        Callout::Inactive(Bypass::UnknownModel)
    ));
}

#[test]
fn all_turns_of_a_conversation_are_routed_alike() {
    let mut given = Given {
        policy: with_auto(),
        ..Given::default()
    };
    given.config.prefix_hash_header = Some("x-prefix-hash".into());
    let turns = |count: usize| {
        let own = r#",{"role":"assistant","content":"a"},{"role":"user","content":"b"}"#;
        let list = own.repeat(count);
        format!(
            r#"{{"model":"m","messages":[{{"role":"system","content":"s"}},{{"role":"user","content":"x"}}{list}]}}"#
        )
    };
    let hash = |given: &Given, body: &str| given.forward(body).routing_hash.unwrap();
    let first = hash(&given, &turns(0));
    assert_eq!(hash(&given, &turns(1)), first);
    assert_eq!(hash(&given, &turns(5)), first);
    let other = turns(1).replace("\"x\"", "\"y\"");
    assert_ne!(hash(&given, &other), first);

    given.query = QueryBreakpoint::LastUserMessage;
    assert_eq!(hash(&given, &turns(5)), first);
    // A marker in the body decides: here the system prompt.
    let marked = r#"[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]"#;
    let marked = |count| turns(count).replace("\"s\"", marked);
    assert_eq!(hash(&given, &marked(0)), hash(&given, &marked(3)));
    assert_ne!(hash(&given, &marked(0)), first);
}

#[test]
fn a_query_marks_or_is_refused() {
    let asking = |query, policy| Given {
        query,
        policy,
        ..Given::default()
    };
    let last = asking(QueryBreakpoint::LastUserMessage, with_auto());
    let forward = last.forward(UNMARKED);
    assert_eq!(forward.marked, Marked::Client);
    assert_eq!(asked(&forward), [(0, Tier::FiveMinutes)]);
    for policy in [known(), PolicyView::Unknown] {
        let Plan::Refuse(refusal) = asking(QueryBreakpoint::Unknown, policy).plan(UNMARKED) else {
            panic!("not refused");
        };
        assert_eq!(refusal.param, "cacheBreakpoint");
        assert_eq!(refusal.reason, RefusalReason::MalformedCacheControl);
    }
}

#[test]
fn a_conversation_without_a_system_prompt_is_routed_by_its_first_message() {
    let mut given = Given {
        policy: with_auto(),
        ..Given::default()
    };
    given.config.prefix_hash_header = Some("x-prefix-hash".into());
    let hash = |more: &str| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}{more}]}}"#);
        given.forward(&body).routing_hash.unwrap()
    };
    let turn = r#",{"role":"assistant","content":"a"},{"role":"user","content":"b"}"#;
    for turns in 1..5 {
        assert_eq!(hash(""), hash(&turn.repeat(turns)), "{turns}");
    }
}

/// In the Messages API, whose clients send many at once.
#[test]
fn runs_of_tools_are_one_step_of_the_look_back() {
    const CALLS: u32 = 30;
    let list = |of: &dyn Fn(u32) -> String| (0..CALLS).map(of).collect::<Vec<_>>().join(",");
    let uses = list(&|n| format!(r#"{{"type":"tool_use","id":"{n}","name":"t","input":{{}}}}"#));
    let results = list(&|n| format!(r#"{{"type":"tool_result","tool_use_id":"{n}"}}"#));
    let messages = format!(
        r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":[{uses}]}},{{"role":"user","content":[{results},{{"type":"text","text":"y","cache_control":{{"type":"ephemeral"}}}}]}}]}}"#
    );
    let calls = list(&|n| {
        format!(r#"{{"id":"{n}","type":"function","function":{{"name":"t","arguments":""}}}}"#)
    });
    let results = list(&|n| format!(r#"{{"role":"tool","tool_call_id":"{n}","content":"r"}}"#));
    let chat = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"x"}},{{"role":"assistant","tool_calls":[{calls}]}},{results},{{"role":"user","content":[{{"type":"text","text":"y","cache_control":{{"type":"ephemeral"}}}}]}}]}}"#
    );
    let cases = [
        (Api::Messages, messages, 0),
        (Api::Chat, chat, 2 * CALLS + 1 - 19),
    ];
    for (api, body, first) in cases {
        let given = Given {
            api,
            ..Given::default()
        };
        let Callout::Ask(request) = given.forward(&body).callout else {
            panic!("{body}");
        };
        let blocks: Vec<_> = request.candidates.iter().map(|c| c.block).collect();
        let last = 2 * CALLS + 1;
        assert_eq!(blocks, (first..=last).collect::<Vec<_>>(), "{api:?}");
    }
}

#[test]
fn completions_ask_for_usage_and_responses_do_not() {
    let completions = Given {
        api: Api::Completions,
        ..Given::default()
    };
    let forward = completions.forward(r#"{"model":"m","stream":true,"prompt":"x"}"#);
    let asks =
        r#"{"model":"m","stream":true,"prompt":"x","stream_options":{"include_usage":true}}"#;
    assert_eq!(forward.body.as_deref(), Some(asks.as_bytes()));
    assert!(forward.drop_usage_only);
    let responses = Given {
        api: Api::Responses,
        ..Given::default()
    };
    let forward = responses.forward(r#"{"model":"m","stream":true,"input":"x"}"#);
    assert_eq!(forward.body, None);
    assert!(!forward.drop_usage_only);
}

/// Found by `./just chaos`: a filter that had just started, beside a service that did not answer,
/// refused what the model's policy allows.
#[test]
fn without_a_policy_nothing_is_refused_that_a_policy_may_allow() {
    let part = |cache: &str| format!(r#"{{"type":"text","text":"x","cache_control":{cache}}}"#);
    let body = |parts: &[String], top: &str| {
        let parts = parts.join(",");
        format!(
            r#"{{"model":"m",{top}"max_tokens":1,"messages":[{{"role":"user","content":[{parts}]}}]}}"#
        )
    };
    let [plain, hour, day] = [
        r#"{"type":"ephemeral"}"#,
        r#"{"type":"ephemeral","ttl":"1h"}"#,
        r#"{"type":"ephemeral","ttl":"24h"}"#,
    ];
    let may_be_right = [
        // In order where the default is an hour.
        body(&[part(plain), part(hour)], ""),
        body(&[part(day)], ""),
        body(&[part(plain)], &format!(r#""cache_control":{hour},"#)),
    ];
    let given = |policy| Given {
        api: Api::Messages,
        policy,
        ..Given::default()
    };
    for body in may_be_right {
        let Plan::Refuse(_) = given(known()).plan(&body) else {
            panic!("wrong for this policy: {body}");
        };
        for none in [PolicyView::Unknown, PolicyView::Foreign] {
            let Plan::Forward(forward) = given(none).plan(&body) else {
                panic!("refused without a policy: {body}");
            };
            let sent = String::from_utf8(forward.body.unwrap()).unwrap();
            assert!(!sent.contains("cache_control"), "{sent}");
            assert!(matches!(
                forward.callout,
                Callout::Inactive(Bypass::NoPolicy | Bypass::WireVersion)
            ));
        }
    }
    // What no policy allows.
    let five = vec![part(plain); 5];
    for wrong in [
        body(&[part(r#"{"type":"ephemeral","ttl":"2h"}"#)], ""),
        body(&[part("7")], ""),
        body(&five, ""),
    ] {
        let plan = given(PolicyView::Unknown).plan(&wrong);
        assert!(matches!(plan, Plan::Refuse(_)), "{wrong}");
    }
}
