//! The log: one line per event on standard error, JSON or text. Never prompt text, credentials
//! or whole fingerprints. Beside it, where they are configured, traces.

use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::traces::Traces;

/// Installs the process-wide log, and traces. Does nothing the second time.
pub fn init(config: &LogConfig, traces: &Traces) {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Without traces nobody wants a span, and a span that nobody wants costs nothing.
    let events = FilterFn::new(move |metadata| metadata.is_event() && *metadata.level() <= level)
        .with_max_level_hint(level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(events).boxed(),
        LogFormat::Text => lines.with_ansi(false).with_filter(events).boxed(),
    };
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(traces.layer())
        .try_init();
}
