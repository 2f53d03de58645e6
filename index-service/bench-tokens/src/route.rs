//! A cold prompt of 100 KB through the service's own route: body in, split out.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use prompt_cache_core::ledger::{Breakpoint, Candidate, Fingerprint, Tier, look_back};
use prompt_cache_core::request::scan;
use prompt_cache_core::wire::{
    CLASSIFY_PATH, ClassifyAnswer, ClassifyRequest, TEXT_CONTENT_TYPE, WIRE_VERSION,
};
use prompt_cache_index::clock::SystemClock;
use prompt_cache_index::config::Config;
use prompt_cache_index::{boot, http, server};

use crate::texts::{Kind, text};

const PROMPT_BYTES: usize = 100_000;
const BAR: Duration = Duration::from_millis(15);

/// The median over `requests` cold prompts of each kind.
pub fn table(requests: usize) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let yaml = format!(
        "models: [{{model: demo, encoding: o200k_base}}]\nstore: {{embedded: {{data_dir: {:?}}}}}",
        dir.path()
    );
    let config = Config::parse(&yaml, Path::new("bench.yaml")).expect("a configuration");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let addr = runtime.block_on(async {
        let store = boot::open_store(&config.store).expect("a store");
        let service = boot::assemble(&config, store, Arc::new(SystemClock)).expect("a service");
        service.models.warm_up();
        service.warm.store(true, Ordering::Release);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("an address");
        let router = http::router(Arc::clone(&service));
        tokio::spawn(server::serve(
            listener,
            router,
            service,
            std::future::pending(),
        ));
        addr
    });
    let agent = ureq::Agent::new_with_defaults();
    println!("\nA cold prompt of {PROMPT_BYTES} bytes, classified over HTTP (`o200k_base`)\n");
    println!("| text | requests | median | 90th of 100 | bar | met |\n|---|--:|--:|--:|--:|---|");
    for kind in Kind::ALL {
        let mut times: Vec<Duration> = (0..requests)
            .map(|i| {
                let body = call(kind, i as u64);
                let start = Instant::now();
                let mut answer = agent
                    .post(format!("http://{addr}{CLASSIFY_PATH}"))
                    .header("content-type", TEXT_CONTENT_TYPE)
                    .send(&body)
                    .expect("an answer");
                let answer = answer.body_mut().read_to_string().expect("a body");
                let took = start.elapsed();
                let answer: ClassifyAnswer = serde_json::from_str(&answer).expect("a split");
                let ClassifyAnswer::Ok(classified) = answer else {
                    panic!("{answer:?}");
                };
                // Cold, and counted: nothing read, everything to be written.
                assert!(classified.split.read == 0 && classified.writes.len() == 2);
                took
            })
            .collect();
        times.sort();
        let at = |share: usize| times[times.len() * share / 100];
        println!(
            "| {} | {requests} | {:.1} ms | {:.1} ms | {:.0} ms | {} |",
            kind.as_str(),
            at(50).as_secs_f64() * 1e3,
            at(90).as_secs_f64() * 1e3,
            BAR.as_secs_f64() * 1e3,
            if at(50) <= BAR { "yes" } else { "no" }
        );
    }
}

/// The call for a prompt that nobody has seen: two breakpoints, the second after everything.
fn call(kind: Kind, seed: u64) -> Vec<u8> {
    let half = PROMPT_BYTES / 2;
    let body = serde_json::json!({"model": "demo", "messages": [
        {"role": "system", "content": format!("{seed} {}", text(kind, half, 2 * seed))},
        {"role": "user", "content": text(kind, half, 2 * seed + 1)},
    ]});
    let body = serde_json::to_vec(&body).expect("JSON");
    let breakpoints: Vec<Breakpoint> = (0..2)
        .map(|block| Breakpoint {
            block,
            tier: Tier::FiveMinutes,
        })
        .collect();
    let hashes = scan(&body).expect("a chat request").prefix_hashes(&[], 1);
    let candidates = look_back(&breakpoints)
        .into_iter()
        .zip(hashes)
        .map(|(block, hash)| Candidate { block, hash })
        .collect();
    let request = ClassifyRequest {
        v: WIRE_VERSION,
        api: prompt_cache_core::api::Api::Chat,
        principal: Fingerprint::new([1; 32]),
        model: "demo".to_owned(),
        breakpoints,
        candidates,
    };
    let mut call = serde_json::to_vec(&request).expect("JSON");
    call.push(b'\n');
    call.extend_from_slice(&body);
    call
}
