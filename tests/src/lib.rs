//! Everything around the two programs that is not the product: the harness of the end-to-end
//! tests, the stand-in LLM, and the stack runner behind `./just up` and `./just demo`.

pub mod backend;
pub mod client;
pub mod cpu;
pub mod deadline;
pub mod engine;
pub mod envoy;
pub mod faults;
pub mod http;
pub mod http2;
pub mod index;
pub mod layout;
pub mod load;
pub mod machine;
pub mod process;
pub mod spread;
pub mod stack;
pub mod stand_in;
pub mod upstream;
pub mod world;
