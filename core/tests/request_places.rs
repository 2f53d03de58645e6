//! Where each block of a request stands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_core::request::{BlockPlace, scan};

#[test]
fn places_follow_the_order_of_the_blocks() {
    let body = br#"{
        "tools": [{"name": "a"}, {"name": "b"}],
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"text": "1"}, {"text": "2"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "x"}, {"id": "y"}]},
            {"role": "assistant", "content": "c", "tool_calls": [{"id": "z"}]},
            {"role": "user", "content": []},
            "odd"
        ]}"#;
    let request = scan(body).unwrap();
    let expected = [
        BlockPlace::Tool { tool: 0 },
        BlockPlace::Tool { tool: 1 },
        BlockPlace::Part {
            message: 0,
            part: 0,
        },
        BlockPlace::Part {
            message: 1,
            part: 0,
        },
        BlockPlace::Part {
            message: 1,
            part: 1,
        },
        BlockPlace::ToolCall {
            message: 2,
            call: 0,
        },
        BlockPlace::ToolCall {
            message: 2,
            call: 1,
        },
        BlockPlace::Part {
            message: 3,
            part: 0,
        },
        BlockPlace::ToolCall {
            message: 3,
            call: 0,
        },
        BlockPlace::Empty { message: 4 },
        BlockPlace::Empty { message: 5 },
    ];
    let places: Vec<_> = (0..)
        .map_while(|block| request.block_place(block))
        .collect();
    assert_eq!(places, expected);
    assert_eq!(places.len(), request.block_count());
}

#[test]
fn a_request_without_blocks_has_no_places() {
    assert_eq!(scan(b"{}").unwrap().block_place(0), None);
}
