//! What goes on beside the requests, until the service stops.

mod accounts;
mod accounts_table;
mod history;
mod models;
mod sweep;

pub use accounts::{AccountSource, FileSource, Loaded, look, run as reload_accounts};
pub use accounts_table::TableSource;
pub use history::run as keep_history;
pub use models::run as refresh_models;
pub use sweep::run as sweep;
