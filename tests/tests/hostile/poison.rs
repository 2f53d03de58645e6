//! One client's requests that go wrong must not take the cache away from the others.

use prompt_cache_e2e::{
    faults::{Fault, Route},
    http::Request,
    world::{World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::json;

/// The breaker opens after five failures of the service: a request that the service does not take
/// is none.
#[tokio::test]
async fn refused_requests_do_not_open_the_breaker() {
    let mut world = World::start().await;
    for status in [400, 413] {
        let refusal = json!({"error": {"code": "invalid_request", "message": "no"}});
        let fault = Fault::Answer(status, refusal.to_string().into_bytes());
        world.faults.set(Route::Classify, fault);
        for n in 0..10 {
            let body = marked(&long_prefix(&format!("refused {status} {n}")));
            let (response, _) = world.exchange(&chat("bad", &body), &completion(5000)).await;
            assert_eq!(response.text(), completion(5000).to_string());
        }
        world.faults.set(Route::Classify, Fault::None);
        let body = marked(&long_prefix(&format!("good after {status}")));
        let (response, _) = world
            .exchange(&chat("good", &body), &completion(5000))
            .await;
        assert!(cache_of(&response.usage()).five_minutes > 1024);
    }
}

/// A request that is nested as deep as it may be has a chat form that is nested deeper.
#[tokio::test]
async fn a_prompt_that_cannot_be_counted_is_served() {
    let mut world = World::start().await;
    let deep = format!("{}{}", "[".repeat(122), "]".repeat(122));
    let text = serde_json::to_string(&long_prefix("deep")).unwrap();
    let body = format!(
        r#"{{"model":"demo","messages":[{{"role":"assistant","content":[{{"type":"text","text":{text},"cache_control":{{"type":"ephemeral"}}}},{{"type":"tool_use","id":"t","name":"n","input":{deep}}}]}}]}}"#
    );
    let request = Request::post("/v1/messages", body).header("x-api-key", "a");
    for _ in 0..6 {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        assert_eq!(response.status, 200);
    }
    let body = marked(&long_prefix("flat"));
    let (response, _) = world.exchange(&chat("b", &body), &completion(5000)).await;
    assert!(cache_of(&response.usage()).five_minutes > 1024);
    world.assert_no_vm_lost().await;
}
