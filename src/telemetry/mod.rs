//! Logs: to standard error, from where the service manager takes them.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines that may wait to be written; more are dropped.
const LINES_MAX: usize = 8192;

/// Logging, for as long as this lives. Dropped, it waits a second at most for lines that are still to be written.
#[derive(Debug)]
#[must_use = "dropped, it ends logging"]
pub struct Logging(#[expect(dead_code, reason = "its drop writes what waits")] WorkerGuard);

/// Starts logging for this process. `BATON_LOG` sets the level: error, warn, info (default), debug or trace.
///
/// A thread of its own writes: whoever reads our logs may stall, and the disk may be full, and neither may hold up or end
/// a process that holds an address. Call it after giving up privileges, which that thread would otherwise keep.
///
/// Under systemd the journal adds the time, so it is left out; colours only on a terminal, and not where `NO_COLOR` is.
pub fn start() -> Logging {
    let level = std::env::var("BATON_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(Level::INFO);
    let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(io::stderr());
    // Without `log_internal_errors(false)` a line that cannot be written would end the process.
    let builder = fmt()
        .with_max_level(level)
        .with_writer(writer)
        .with_ansi(coloured)
        .with_target(false)
        .log_internal_errors(false);
    // What libraries log, such as h2 of each frame that it does not expect, a client could fill the log with.
    let ours = Targets::new().with_target("baton", level);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().finish().with(ours).init();
    } else {
        builder.finish().with(ours).init();
    }
    Logging(guard)
}
