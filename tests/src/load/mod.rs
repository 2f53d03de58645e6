//! Load: a generator with an open loop, what `./just overload` and `./just soak` do with it, and
//! the cheapest LLM behind it.

pub mod llm;
pub mod open_loop;
pub mod overload;
pub mod prompt;
pub mod reply;
pub mod soak;
pub mod wire;
