//! Reads `[access_log]` and what a `[[listener]]` says of it.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::blocks::Blocks;
use super::model::{AccessLog, LogFormat, LogTarget, SyslogFormat};
use super::reader::Table;
use super::report::{Located, Mistakes, Wrong};
use super::route_values::path_prefix;
use super::values;

const EXCEPT_MAX: usize = 64;
/// Places that lines of all listeners go to; each has a thread of the worker.
const TARGETS_MAX: usize = 16;
const MILLION: u32 = 1_000_000;

/// The keys of `[access_log]`, those that are written.
#[derive(Default)]
pub(super) struct AccessLogBlock {
    format: Option<LogFormat>,
    target: Option<Located<LogTarget>>,
    sample_ppm: Option<u32>,
    only_errors: Option<bool>,
    except_paths: Option<Vec<String>>,
}

/// What a listener says of the access log.
pub(super) enum ListenerLog {
    /// Nothing: as `[access_log]` has it.
    Inherited,
    /// None for this listener.
    Off,
    /// Some of it is different here.
    Own(AccessLogBlock),
}

/// What a target is, before it is known where it is.
#[derive(Clone, PartialEq)]
enum To {
    Stdout,
    Syslog,
    Journal,
    File(PathBuf),
}

/// Reads `[access_log]`, of the file or of a listener.
pub(super) fn access_log(mut table: Table<'_>, directory: &Path) -> AccessLogBlock {
    let formats = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
    let format = table.optional("format").and_then(|value| value.choice(&formats, &[]));
    let errors = [("all", false), ("errors", true)];
    let only = table.optional("only").and_then(|value| value.choice(&errors, &[]));
    let block = AccessLogBlock {
        format: format.map(|found| found.value),
        target: target(&mut table, directory),
        sample_ppm: table.optional("sample").and_then(|value| value.share(MILLION)),
        only_errors: only.map(|found| found.value),
        except_paths: table.optional("except_paths").map(|value| {
            let paths = value.list_of(0, EXCEPT_MAX).into_iter().filter_map(|value| value.parsed(excepted));
            paths.map(|found| found.value).collect()
        }),
    };
    table.finish();
    block
}

/// Reads `access_log` of a listener.
pub(super) fn of_listener(table: &mut Table<'_>, directory: &Path) -> ListenerLog {
    let Some(value) = table.optional("access_log") else { return ListenerLog::Inherited };
    if value.is_table() {
        return value.block().map_or(ListenerLog::Inherited, |table| ListenerLog::Own(access_log(table, directory)));
    }
    let off = value.parsed(|text| match text {
        "off" => Ok(()),
        _ => Err(Wrong::new(
            "must be \"off\", or a block [listener.access_log]",
            "write access_log = \"off\", or leave it out and have [access_log] for all listeners",
        )),
    });
    off.map_or(ListenerLog::Inherited, |_| ListenerLog::Off)
}

fn target(table: &mut Table<'_>, directory: &Path) -> Option<Located<LogTarget>> {
    let to = table.optional("to").map(|value| value.parsed(|text| to(text, directory)));
    let is_broken = matches!(to, Some(None));
    let to = to.flatten();
    let socket = |table: &mut Table<'_>, default: &str| {
        let file = table.optional("socket").and_then(|value| super::blocks::file(value, directory));
        file.map_or_else(|| PathBuf::from(default), |found| found.value)
    };
    let no_syslog = "has no meaning without to = \"syslog\" beside it";
    let kind = to.as_ref().map(|found| found.value.clone());
    let value = match kind {
        Some(To::Syslog) => {
            let formats = [("rfc3164", SyslogFormat::Rfc3164), ("rfc5424", SyslogFormat::Rfc5424)];
            let format = table.optional("syslog_format").and_then(|value| value.choice(&formats, &[]));
            let format = format.map_or(SyslogFormat::Rfc3164, |found| found.value);
            LogTarget::Syslog { socket: socket(table, "/dev/log"), format }
        }
        Some(To::Journal) => {
            table.without_meaning(&["syslog_format"], no_syslog, "leave it out");
            LogTarget::Journal { socket: socket(table, "/run/systemd/journal/socket") }
        }
        other => {
            if is_broken {
                table.skip(&["socket", "syslog_format"]);
            } else {
                let rule = "has no meaning without to = \"syslog\" or \"journal\" beside it";
                table.without_meaning(&["socket"], rule, "leave it out");
                table.without_meaning(&["syslog_format"], no_syslog, "leave it out");
            }
            match other? {
                To::File(path) => LogTarget::File(path),
                To::Stdout | To::Syslog | To::Journal => LogTarget::Stdout,
            }
        }
    };
    Some(Located { value, place: to?.place })
}

fn to(text: &str, directory: &Path) -> Result<To, Wrong> {
    match text {
        "stdout" => Ok(To::Stdout),
        "syslog" => Ok(To::Syslog),
        "journal" => Ok(To::Journal),
        // A misspelt word is no file.
        word if !word.contains('/') => Err(Wrong::new(
            "must be \"stdout\", \"syslog\", \"journal\" or a path",
            "write a path such as \"/var/log/baton/access.log\"; one beside this file begins with \"./\"",
        )),
        path => Ok(To::File(directory.join(values::file(path)?))),
    }
}

fn excepted(text: &str) -> Result<String, Wrong> {
    path_prefix(text)?.ok_or_else(|| {
        Wrong::new("every path lies below \"/\"", "write access_log = \"off\" where nothing is to be written")
    })
}

/// What holds for a listener; `None` when nothing is to be written.
pub(super) fn resolved(all: Option<&AccessLogBlock>, own: &ListenerLog) -> Option<AccessLog> {
    let nothing = AccessLogBlock::default();
    let (own, all) = match own {
        ListenerLog::Off => return None,
        ListenerLog::Inherited => (&nothing, all?),
        ListenerLog::Own(own) => (own, all.unwrap_or(&nothing)),
    };
    let target = own.target.as_ref().or(all.target.as_ref());
    Some(AccessLog {
        format: own.format.or(all.format).unwrap_or(LogFormat::Json),
        target: target.map_or(LogTarget::Stdout, |found| found.value.clone()),
        sample_ppm: own.sample_ppm.or(all.sample_ppm).unwrap_or(MILLION),
        only_errors: own.only_errors.or(all.only_errors).unwrap_or(false),
        except_paths: own.except_paths.as_ref().or(all.except_paths.as_ref()).cloned().unwrap_or_default(),
    })
}

/// Everything that the file says of access logs.
fn all(blocks: &Blocks) -> impl Iterator<Item = &AccessLogBlock> {
    let of_listeners = blocks.listeners.iter().filter_map(|listener| match &listener.access_log {
        ListenerLog::Own(block) => Some(block),
        ListenerLog::Inherited | ListenerLog::Off => None,
    });
    blocks.access_log.iter().chain(of_listeners)
}

/// Checks that there are not too many places.
pub(super) fn check(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let mut known: Vec<&LogTarget> = Vec::new();
    for found in all(blocks).filter_map(|log| log.target.as_ref()) {
        if known.contains(&&found.value) {
            continue;
        }
        known.push(&found.value);
        if known.len() == TARGETS_MAX + 1 {
            mistakes.value(
                &found.place,
                format!("access logs may go to {TARGETS_MAX} places, this is one more"),
                "have listeners share a file; each line names its listener",
            );
        }
    }
}

/// Checks the files against this machine.
pub(super) fn check_files(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    for found in all(blocks).filter_map(|log| log.target.as_ref()) {
        if let LogTarget::File(path) = &found.value
            && let Err(wrong) = check_file(path)
        {
            mistakes.wrong(&found.place, wrong);
        }
    }
}

/// Whether lines can be appended to the file, as far as can be seen without making it.
fn check_file(path: &Path) -> Result<(), Wrong> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        let remedy = format!("make it with `mkdir -p {}`", parent.display());
        return Err(Wrong::new(format!("there is no directory {}", parent.display()), remedy));
    }
    match std::fs::metadata(path) {
        Ok(metadata) => {
            let kind = metadata.file_type();
            if kind.is_file() || kind.is_char_device() {
                return Ok(());
            }
            Err(Wrong::new("is no file that lines can be appended to", "name a file; one that is not there is made"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Wrong::new(format!("cannot be looked at: {error}"), "name a file that can be written")),
    }
}
