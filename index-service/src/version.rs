//! What is running: for the boot log and `GET /version`.

use prompt_cache_core::wire::WIRE_VERSION;
use serde::Serialize;

/// A build of this program.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Build {
    version: &'static str,
    git_commit: &'static str,
    wire_version: u32,
}

impl Build {
    /// This version, built from `commit`. The binary says which: the library is not compiled anew
    /// for every commit.
    pub const fn of(commit: Option<&'static str>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            git_commit: match commit {
                Some(commit) => commit,
                None => "unknown",
            },
            wire_version: WIRE_VERSION,
        }
    }

    /// The version of the package.
    pub const fn version(&self) -> &'static str {
        self.version
    }

    /// The commit it was built from, `-dirty` behind it if files had changed, or `unknown`.
    pub const fn git_commit(&self) -> &'static str {
        self.git_commit
    }
}
