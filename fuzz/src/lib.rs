//! What the fuzz targets share: how an input is read, and the slow references of core's tests.

#[path = "../../core/tests/request_reference/mod.rs"]
pub mod request_reference;
#[path = "../../core/tests/request_support/tree.rs"]
pub mod request_support;
#[path = "../../core/tests/response_reference/mod.rs"]
pub mod response_reference;

pub mod exact;
pub mod facts;
pub mod input;
pub mod setup;
