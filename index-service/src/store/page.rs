//! Reading all of a store in steps.

/// Where a scan goes on: bytes that only the store that made them understands. The default is
/// the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// A place in a store, not empty: that is the beginning.
    pub const fn new(place: Vec<u8>) -> Self {
        Self(place)
    }

    /// The place; empty at the beginning.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One step of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found; may be empty before the end.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}
