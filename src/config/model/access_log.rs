//! `[access_log]`, and what a listener says of it.

use std::path::PathBuf;

/// Which requests are written down, how and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// How a line looks. Default JSON.
    pub format: LogFormat,
    /// Where lines go. Default standard output.
    pub target: LogTarget,
    /// Of a million requests so many are written, chosen by chance; 1 to 1000000. Default all.
    pub sample_ppm: u32,
    /// Only those with a status of 400 or more, and those that did not come to their end. Default false.
    pub only_errors: bool,
    /// Paths whose requests are not written, as whole segments; at most 64, each as [`super::Route::path_prefix`].
    pub except_paths: Vec<String>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// What nginx and Apache call `combined`.
    Combined,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, which lines are appended to.
    File(PathBuf),
    /// The system's log.
    Syslog {
        /// Its socket. Default `/dev/log`.
        socket: PathBuf,
        /// What stands around a line. Default RFC 3164.
        format: SyslogFormat,
    },
    /// The journal of systemd, in its own protocol.
    Journal {
        /// Its socket. Default `/run/systemd/journal/socket`.
        socket: PathBuf,
    },
}

/// What stands around a line in syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogFormat {
    /// What all programs understand on a machine's own socket.
    Rfc3164,
    /// The one with the node's name and a time of microseconds.
    Rfc5424,
}

impl std::fmt::Display for LogTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
            Self::Syslog { .. } => f.write_str("syslog"),
            Self::Journal { .. } => f.write_str("journal"),
        }
    }
}

impl super::Config {
    /// Where lines of any listener go, each place once, in the order of the listeners.
    pub fn log_targets(&self) -> Vec<&LogTarget> {
        let mut targets: Vec<&LogTarget> = Vec::new();
        for log in self.listeners.iter().filter_map(|listener| listener.access_log.as_ref()) {
            if !targets.contains(&&log.target) {
                targets.push(&log.target);
            }
        }
        targets
    }
}
