//! `./just demo`: the whole point in four requests and a refusal, with the numbers checked.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Logs, Settings, Stack, run_dir, stop::Stop};
use crate::{
    client::{Client, Response},
    deadline::poll,
    http::Request,
    layout::Layout,
};

/// How long one step may take.
const STEP_DEADLINE: Duration = Duration::from_secs(20);
/// Prefixes shorter than this are not written (the built-in policy of the model `demo`).
const FLOOR_TOKENS: u64 = 1024;
const COMMITS: &str = "promptcache_commit_total";

/// Runs the demo on free ports. `Err` when a number is not what it must be.
pub async fn run(layout: &Layout) -> Result<(), String> {
    let mut stop = Stop::listen()?;
    let run_dir = run_dir()?;
    let work = async {
        println!("Starting the index service, a stand-in LLM, and Envoy with the filter …");
        let settings = Settings::isolated();
        let mut stack = Stack::start(layout, &settings, run_dir.path(), Logs::Files).await?;
        let result = show(&stack).await;
        stack.stop().await;
        result
    };
    tokio::select! {
        result = work => result,
        () = stop.requested() => Err("interrupted".to_owned()),
    }
}

async fn show(stack: &Stack) -> Result<(), String> {
    let llm = Client::new(stack.envoy.listener());
    println!(
        "\n  client ──▶ Envoy + filter ──▶ LLM        (all on this machine, free ports)\n\
         \x20                  │\n\
         \x20                  └──▶ index service: which prefixes are live, how many tokens they hold\n"
    );
    let mut commits = 0;
    for (title, stream, document) in [
        ("streamed", true, handbook("orders")),
        ("buffered", false, handbook("refunds")),
    ] {
        println!("A {title} chat completion. Its long system prompt carries a marker:");
        println!("  \"cache_control\": {{\"type\": \"ephemeral\"}}\n");
        let first = ask(&llm, &document, stream).await?;
        let written = print_usage("  first time", &first)?;
        commits += 1;
        await_commits(stack, commits).await?;
        let second = ask(&llm, &document, stream).await?;
        let read = print_usage("  second time", &second)?;
        if written.creation < FLOOR_TOKENS || written.read != 0 {
            return Err(format!(
                "the first request must write its prefix: {written:?}"
            ));
        }
        if read.creation != 0 || read.read != written.creation {
            return Err(format!(
                "the second must read what the first wrote: {read:?}"
            ));
        }
        println!("  → {} tokens written once, then read.\n", written.creation);
    }
    refusal(&llm).await?;
    counters(stack, commits).await
}

/// The cache's share of a usage object.
#[derive(Debug)]
struct Cached {
    read: u64,
    creation: u64,
}

fn print_usage(when: &str, response: &Response) -> Result<Cached, String> {
    let usage = last_usage(response).ok_or_else(|| format!("no usage in {}", response.text()))?;
    let pretty = serde_json::to_string_pretty(&usage).map_err(|e| e.to_string())?;
    println!("{when}: \"usage\": {}\n", pretty.replace('\n', "\n    "));
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    let read = number("/cache_read_input_tokens");
    let creation = number("/cache_creation_input_tokens");
    let (Some(read), Some(creation)) = (read, creation) else {
        return Err("the usage says nothing about the cache".to_owned());
    };
    let details = "/prompt_tokens_details";
    if number(&format!("{details}/cached_tokens")) != Some(read)
        || number(&format!("{details}/cache_write_tokens")) != Some(creation)
    {
        return Err("the two spellings of the usage disagree".to_owned());
    }
    Ok(Cached { read, creation })
}

fn last_usage(response: &Response) -> Option<Value> {
    let text = response.text();
    let objects = if text.starts_with('{') {
        vec![text.as_str()]
    } else {
        data_lines(&text)
    };
    let mut usages = objects.into_iter().filter_map(|object| {
        let mut object: Value = serde_json::from_str(object).ok()?;
        object
            .get_mut("usage")
            .map(Value::take)
            .filter(Value::is_object)
    });
    usages.next_back()
}

fn data_lines(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect()
}

async fn ask(llm: &Client, document: &str, stream: bool) -> Result<Response, String> {
    let mut body = json!({
        "model": "demo",
        "messages": [
            {"role": "system", "content": [
                {"type": "text", "text": document, "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "user", "content": "What is rule 7?"},
        ],
    });
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    let response = post(llm, &body).await?;
    if response.status == 200 {
        Ok(response)
    } else {
        Err(format!("answered {}", shown(&response)))
    }
}

async fn refusal(llm: &Client) -> Result<(), String> {
    println!("A marker that nobody could honour is refused before the LLM sees the request:\n");
    let body = json!({
        "model": "demo",
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "2h"}},
        ]}],
    });
    let response = post(llm, &body).await?;
    println!("  {}\n", shown(&response));
    let error: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    if response.status != 400 || error["error"]["code"] != "invalid_cache_control" {
        return Err("the marker must be refused with invalid_cache_control".to_owned());
    }
    Ok(())
}

async fn counters(stack: &Stack, commits: u64) -> Result<(), String> {
    let filter = stack
        .envoy
        .stats()
        .await
        .ok_or("Envoy's admin interface does not answer")?;
    println!("The filter's counters (Envoy's /stats/prometheus):\n");
    println!("{}\n", indent(filter.lines("promptcache_"), "_bucket"));
    let index = stack
        .index
        .stats()
        .await
        .ok_or("the index service's /metrics do not answer")?;
    println!("The index service's (/metrics):\n");
    println!("{}\n", indent(index.lines("prompt"), "_bucket"));
    let requests = |outcome| filter.counter("promptcache_requests_total", &[("outcome", outcome)]);
    for (what, counted, expected) in [
        ("written", requests("create_only"), commits),
        ("read", requests("read"), commits),
        (
            "refused",
            filter.counter("promptcache_markers_rejected_total", &[]),
            1,
        ),
    ] {
        if counted != expected {
            return Err(format!(
                "{counted} requests counted as {what}, expected {expected}"
            ));
        }
    }
    println!("All numbers are as they must be.");
    Ok(())
}

fn indent(lines: Vec<String>, without: &str) -> String {
    let mut out = String::new();
    for line in lines.iter().filter(|line| !line.contains(without)) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {line}");
    }
    out.trim_end().to_owned()
}

/// Entries are committed a moment after the answer; the next request must not overtake that.
async fn await_commits(stack: &Stack, commits: u64) -> Result<(), String> {
    let landed = poll(STEP_DEADLINE, async || {
        let landed = stack
            .envoy
            .stats()
            .await?
            .counter(COMMITS, &[("result", "ok")]);
        (landed >= commits).then_some(())
    });
    landed
        .await
        .ok_or_else(|| "the commit did not land".to_owned())
}

async fn post(llm: &Client, body: &Value) -> Result<Response, String> {
    let request = Request::post("/v1/chat/completions", body.to_string())
        .header("authorization", "Bearer demo-key");
    match timeout(STEP_DEADLINE, llm.try_call(&request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(e)) => Err(format!("the request failed: {e}")),
        Err(_) => Err("the request got no answer in time".to_owned()),
    }
}

fn shown(response: &Response) -> String {
    format!("{} {}", response.status, response.text())
}

/// A prompt well above the floor.
fn handbook(subject: &str) -> String {
    (1..=150).fold(
        format!("You answer questions about {subject}.\n"),
        |mut text, rule| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "Rule {rule}: every question about {subject} gets a kind answer."
            );
            text
        },
    )
}
