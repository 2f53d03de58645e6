//! What is made to be slow is not. Natively alone: elsewhere nobody tells how long a thread has waited
//! for a processor, and what is quadratic is so everywhere.
#![cfg(not(target_family = "wasm"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used
)]

mod answers;
mod linear;
mod requests;

/// Shapes by name: each of about `n` bytes.
type Shapes = Vec<(&'static str, Box<dyn Fn(usize) -> Vec<u8>>)>;

/// `head`, so many `item`s that they are about `n` bytes, `tail`.
fn repeated(head: &str, item: &str, tail: &str, n: usize) -> Vec<u8> {
    [head, &item.repeat(n / item.len() + 1), tail]
        .concat()
        .into_bytes()
}

fn shape(
    head: &'static str,
    item: impl Into<String>,
    tail: &'static str,
) -> Box<dyn Fn(usize) -> Vec<u8>> {
    let item = item.into();
    Box::new(move |n| repeated(head, &item, tail, n))
}
