//! Where log lines go.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::LogFormat;

/// What decides which lines are written.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Sends log lines to standard error from now on. `directives` is what `log.level` says, a list
/// such as `info,tally::node=debug`. A second call changes nothing.
pub fn start(directives: &str, format: LogFormat) {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(directives));
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if started.is_err() || FILTER.set(handle).is_err() {
        tracing::debug!("the log was started before");
    }
}

/// Selects lines by other directives from now on, if the log was started.
pub fn set(directives: &str) {
    let set = FILTER
        .get()
        .map(|filter| filter.reload(EnvFilter::new(directives)));
    if let Some(Err(error)) = set {
        tracing::warn!(%error, "log.level can not be changed");
    }
}
