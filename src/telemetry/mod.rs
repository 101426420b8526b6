//! Logs: to standard error, from where the service manager takes them.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::fmt;

/// Starts logging for this process. `BATON_LOG` sets the level: error, warn, info (default), debug or trace.
///
/// Under systemd the journal adds the time, so it is left out; colours only on a terminal, and not where `NO_COLOR` is.
pub fn start() {
    let level = std::env::var("BATON_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(Level::INFO);
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(coloured).with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}
