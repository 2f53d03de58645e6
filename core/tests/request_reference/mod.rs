//! Slow, obvious references of the request side.
#![allow(dead_code)]

pub mod consistent;
pub mod plain;
pub mod prefix;
