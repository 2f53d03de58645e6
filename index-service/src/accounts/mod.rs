//! Accounts: which credentials belong together and share what they have cached.
//!
//! An account owns entries under a fingerprint of its own, so its keys may come and go. Who has
//! no account is left to `unknown_principal`.

mod file;
mod map;
mod reload;
mod table;

pub use file::AccountsFile;
pub use map::{Account, AccountMap, Owner};
pub use reload::{AccountSource, FileSource, Loaded, look, run};
pub use table::TableSource;
