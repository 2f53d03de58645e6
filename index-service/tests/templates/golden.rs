//! Renderings and prefixes spelled out.
