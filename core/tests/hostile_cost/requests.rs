//! Requests.

use prompt_cache_core::{
    api::Api,
    config::FilterConfig,
    edge::{Leases, PlanContext, PolicyView, QueryBreakpoint, plan},
    ledger::{Fingerprint, Tier},
    request::{Edits, Implied, MarkerRules, MixedTtlOrder, scan_as},
    wire::ModelPolicy,
};

use crate::{Shapes, linear::assert_linear, repeated, shape};

/// All that the filter does with a request: its plan, and what depends on the API alone.
fn request_work(api: Api) -> impl Fn(&[u8]) {
    move |body: &[u8]| {
        let model = ModelPolicy {
            model: "m".to_owned(),
            tiers: Tier::ALL.to_vec(),
            default_tier: Tier::FiveMinutes,
            auto: Some(Tier::OneHour),
            min_prefix_tokens: 1024,
            tokenizer_version: "v".to_owned(),
        };
        let policy = PolicyView::Known {
            epoch: "e".to_owned(),
            models: [("m".to_owned(), model)].into(),
        };
        let config = FilterConfig {
            volatile_prefixes: vec!["x".to_owned(), "y".to_owned()],
            cache_salt: true,
            ..FilterConfig::default()
        };
        let context = PlanContext {
            api,
            query: QueryBreakpoint::LastUserMessage,
            config: &config,
            policy: &policy,
            principal: Some(Fingerprint::new([7; 32])),
            callouts_allowed: true,
            now_ms: 0,
        };
        let _ = plan(body, &context, &mut Leases::new(1 << 16, 1000));
        // A plan that refuses ends early.
        if let Ok(request) = scan_as(api, body) {
            let rules = MarkerRules {
                tiers: &Tier::ALL,
                default_tier: Tier::FiveMinutes,
                mixed_ttl_order: MixedTtlOrder::LongestFirst,
                implied: Implied::EveryTurn(Tier::OneHour),
            };
            let _ = request.breakpoints(&rules);
            let _ = request.forwarded(&Edits {
                ensure_usage: true,
                cache_salt: Some("s"),
            });
            let _ = request.prefix_hashes(&config.prefix_params, u32::MAX);
            for block in 0..request.block_count() {
                let _ = request.block_text(block);
                let _ = request.block_place(block as u32);
                let _ = request.part_json(block as u32);
            }
        }
    }
}

const TAIL: &str = r#"{"role":"user","content":"x"}]}"#;

fn requests() -> Shapes {
    let mark = r#""cache_control":{"type":"ephemeral"}"#;
    let messages = r#"{"model":"m","messages":["#;
    let part = r#"{"model":"m","messages":[{"role":"user","content":["#;
    let system = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"system":["#;
    let nested = "[".repeat(100) + &"]".repeat(100);
    vec![
        (
            "white space",
            shape(r#"{"model":"m","messages":["#, " \n", TAIL),
        ),
        (
            "one text",
            shape(
                r#"{"model":"m","messages":[{"role":"user","content":""#,
                "text ",
                r#""}]}"#,
            ),
        ),
        (
            "escapes",
            shape(
                r#"{"model":"m","messages":[{"role":"user","content":""#,
                r"\u0041",
                r#""}]}"#,
            ),
        ),
        (
            "backslashes",
            shape(
                r#"{"model":"m","messages":[{"role":"user","content":""#,
                r"\\",
                r#""}]}"#,
            ),
        ),
        (
            "surrogates",
            shape(
                r#"{"model":"m","messages":[{"role":"user","content":""#,
                r"\ud83d\ude00",
                r#""}]}"#,
            ),
        ),
        ("one key", shape(r#"{"model":"m",""#, "k", r#"":1}"#)),
        (
            "one escaped key",
            shape(r#"{"model":"m",""#, r"\u006b", r#"":1}"#),
        ),
        ("one number", shape(r#"{"model":"m","n":1"#, "0", "}")),
        (
            "one small number",
            shape(r#"{"model":"m","n":0."#, "0", "1e-5}"),
        ),
        (
            "one number with a large exponent",
            shape(r#"{"model":"m","n":1e-"#, "0", "1}"),
        ),
        (
            "many numbers",
            shape(r#"{"model":"m","documents":["#, "1.5e300,", "1]}"),
        ),
        (
            "members",
            shape(r#"{"model":"m","#, r#""a":1,"#, r#""messages":[]}"#),
        ),
        (
            "members of a parameter",
            shape(
                r#"{"model":"m","#,
                r#""documents":1,"#,
                r#""messages":[{"role":"user","content":"x"}]}"#,
            ),
        ),
        (
            "members of it in another order",
            Box::new(|n| {
                let members: String = (0..n / 30)
                    .map(|at| format!(r#""{:06}":{{"b":1,"a":2}},"#, (at * 7919) % 999_983))
                    .collect();
                format!(r#"{{"model":"m","documents":{{{members}"z":1}},"messages":[{TAIL}"#)
                    .into_bytes()
            }),
        ),
        (
            "messages again and again",
            shape(
                r#"{"model":"m","#,
                r#""messages":[{"content":"x"}],"#,
                r#""messages":[]}"#,
            ),
        ),
        ("empty messages", shape(messages, "{},", TAIL)),
        ("numbers for messages", shape(messages, "1,", TAIL)),
        (
            "short messages",
            shape(messages, r#"{"role":"user","content":"x"},"#, TAIL),
        ),
        (
            "turns",
            shape(
                messages,
                r#"{"role":"user","content":"x"},{"role":"assistant","content":"y"},"#,
                TAIL,
            ),
        ),
        (
            "empty parts",
            shape(part, "{},", r#"{"type":"text","text":"x"}]}]}"#),
        ),
        (
            "parts",
            shape(
                part,
                r#"{"type":"text","text":"x"},"#,
                r#"{"type":"text","text":"x"}]}]}"#,
            ),
        ),
        (
            "marked parts",
            shape(
                part,
                format!(r#"{{"type":"text","text":"x",{mark}}},"#),
                r#"{"type":"text","text":"x"}]}]}"#,
            ),
        ),
        (
            "parts with markers of the other kind",
            shape(
                part,
                r#"{"type":"text","text":"x","prompt_cache_breakpoint":{"mode":"explicit"}},"#,
                r#"{"type":"text","text":"x"}]}]}"#,
            ),
        ),
        (
            "markers that are wrong",
            shape(messages, r#"{"cache_control":{"type":"x"}},"#, TAIL),
        ),
        (
            "one marker of many members",
            shape(
                r#"{"model":"m","cache_control":{"#,
                r#""ttl":"5m","#,
                r#""type":"ephemeral"},"messages":[{"role":"user","content":"x"}]}"#,
            ),
        ),
        (
            "markers again and again",
            Box::new(move |n| {
                let part = format!(r#"{{{}"type":"text"}},"#, format!("{mark},").repeat(900));
                repeated(
                    r#"{"model":"m","messages":[{"content":["#,
                    &part,
                    r#"{}]}]}"#,
                    n,
                )
            }),
        ),
        (
            "messages of many members",
            Box::new(|n| {
                let members: String = (0..1000)
                    .rev()
                    .map(|at| format!(r#""{at:04}":1,"#))
                    .collect();
                repeated(
                    r#"{"model":"m","messages":["#,
                    &format!(r#"{{{members}"role":"user"}},"#),
                    TAIL,
                    n,
                )
            }),
        ),
        (
            "calls",
            shape(
                r#"{"model":"m","messages":[{"role":"assistant","tool_calls":["#,
                r#"{"id":"c"},"#,
                "{}]}]}",
            ),
        ),
        (
            "tools",
            shape(
                r#"{"model":"m","tools":["#,
                r#"{"type":"function"},"#,
                r#"{}],"messages":[{"role":"user","content":"x"}]}"#,
            ),
        ),
        (
            "nests",
            shape(r#"{"model":"m","messages":["#, format!("{nested},"), TAIL),
        ),
        (
            "system blocks",
            shape(
                system,
                r#"{"type":"text","text":"x"},{"type":"text","text":"z"},"#,
                "1]}",
            ),
        ),
        (
            "results in results",
            Box::new(|n| {
                let inner = r#"{"type":"tool_result","content":["#.to_owned()
                    + &r#"{"cache_control":{"type":"x"}},"#.repeat(200)
                    + r#"{}],"content":[{}]},"#;
                repeated(
                    r#"{"model":"m","messages":[{"role":"user","content":["#,
                    &inner,
                    r#"{"type":"text"}]}]}"#,
                    n,
                )
            }),
        ),
        (
            "contents again and again",
            Box::new(|n| {
                let contents = r#""content":[{"cache_control":{"type":"x"}}],"#.repeat(1000);
                repeated(
                    r#"{"model":"m","messages":[{"role":"user","content":["#,
                    &format!(r#"{{{contents}"type":"text"}},"#),
                    "1]}]}",
                    n,
                )
            }),
        ),
        (
            "a run of uses",
            shape(
                part,
                r#"{"type":"tool_use"},"#,
                r#"{"type":"tool_use","cache_control":{"type":"ephemeral"}}]}]}"#,
            ),
        ),
        (
            "thinking",
            shape(
                r#"{"model":"m","cache_control":{"type":"ephemeral"},"messages":[{"role":"assistant","content":["#,
                r#"{"type":"thinking"},"#,
                r#"{"type":"thinking"}]}]}"#,
            ),
        ),
        (
            "items",
            shape(
                r#"{"model":"m","input":["#,
                r#"{"type":"function_call_output","output":[{}]},"#,
                "{}]}",
            ),
        ),
        (
            "prompts",
            shape(r#"{"model":"m","prompt":["#, r#""x",1,"#, "1]}"),
        ),
    ]
}

#[test]
fn requests_cost_as_much_as_they_are_long() {
    for (name, make) in requests() {
        for api in [Api::Chat, Api::Messages, Api::Responses, Api::Completions] {
            assert_linear(
                &format!("{name}, {api:?}"),
                &make,
                100_000,
                &request_work(api),
            );
        }
    }
}

/// However many there were before it, and whatever came between.
#[test]
fn of_a_parameter_given_many_times_the_last_counts() {
    let many = |rounds: usize| {
        let members: String = (0..rounds)
            .map(|n| format!(r#""documents":{n},"tools":[],"reasoning_effort":"{n}","#))
            .collect();
        format!(r#"{{{members}"documents":"d","messages":[{{"content":"x"}}]}}"#)
    };
    let params = ["documents", "reasoning_effort"].map(str::to_owned);
    let hashes = |body: &str| {
        let request = scan_as(Api::Chat, body.as_bytes()).unwrap();
        request.prefix_hashes(&params, u32::MAX)
    };
    for rounds in [1, 681, 682, 683, 1024, 2048, 5000] {
        let last = rounds - 1;
        let plain = format!(
            r#"{{"reasoning_effort":"{last}","tools":[],"documents":"d","messages":[{{"content":"x"}}]}}"#
        );
        assert_eq!(hashes(&many(rounds)), hashes(&plain), "{rounds}");
    }
}
