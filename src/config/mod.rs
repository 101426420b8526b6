//! The configuration file: read, checked whole, resolved.
//!
//! One file serves both nodes. [`load`] either gives a [`Config`] in which every value is valid and every name resolved,
//! or a [`Report`] of everything that is wrong with it, so that an operator corrects a file in one go. Called by the
//! guard and the worker at their start and at a reload, and by `baton check`.
//!
//! In the order of their work: `reader` walks the document, `values` says how each kind of value is written,
//! `blocks` (with `vips`, `traffic`, `routes`, `tls`, `identity`, `protection`, `access_log`, `compression`, `error_pages`,
//! `pools`, `balance`, `discovery`, `sticky`, `store` and `watching`) reads each section, `cross` (with `pairing`)
//! compares the sections, `machine` compares them with this machine, `resolve` makes the `model`. Mistakes gather in
//! `report`. `scenario` is another file of an operator's, read in the same way: that of a drill.

mod access_log;
mod balance;
mod blocks;
pub mod certificates;
mod changes;
mod choose;
mod compression;
mod cross;
mod discovery;
mod error_pages;
mod files;
mod health;
mod identity;
mod key;
mod loops;
mod machine;
mod model;
mod networkd;
mod pairing;
mod passive;
mod pools;
mod protection;
mod reader;
mod report;
mod resolve;
mod route_values;
mod routes;
pub mod scenario;
mod shadows;
pub mod staple;
mod sticky;
mod store;
mod subnets;
mod templates;
mod tls;
mod traffic;
mod upstream;
mod users;
mod values;
mod vips;
mod warnings;
mod watching;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeTable;

pub use changes::Changes;
pub use choose::{ChosenBy, LocalNode, NodeHints, NodeNotChosen, SyncEnds, choose_node};
pub use discovery::name_of_address;
pub use error_pages::content_type;
pub use files::{
    DIRECTORY_FILES_MAX, FileError, FileKind, SERVERS_FILE_MAX_BYTES, SYSTEM_ROOTS, WORKER_FILE_MAX_BYTES, WorkerFile,
    list_directory, list_servers, read_file,
};
pub use key::{AdminToken, AdvertPassword, KeyError, PAIR_KEY_LEN_BYTES, PairKey, PasswordError, StorePassword};
pub use model::*;
pub use report::{Mistake, Position, Report};
pub use route_values::{expression, expression_prefix};
pub use subnets::{has_prefix_of, nobodys, subnet_text};
pub use users::{PASSWORD_BYTES_MAX, USERS_MAX, Users, UsersError};
pub use values::{bytes_text, duration_text};

use crate::units::IpNetwork;
use report::Mistakes;

/// Bytes of a configuration file. A thousand servers take a tenth of it.
pub const FILE_MAX_BYTES: usize = 1 << 20;

impl Config {
    /// The first eight bytes of [`Config::checksum`]: enough for two nodes to see whether they run the same file.
    pub fn short_checksum(&self) -> [u8; 8] {
        let number = self.checksum.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.unwrap_or(0).to_be_bytes()
    }
}

/// How much of a configuration is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The file by itself: good on any machine.
    File,
    /// Also what depends on this machine: interfaces, key files and certificates.
    Machine,
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// Every mistake in the file, in one report.
pub fn load(path: &Path, scope: Scope) -> Result<Config, Report> {
    let text = read(path)?;
    checked(&text, path, scope, None)
}

/// As [`load`], and finds which node of the file this machine is.
///
/// # Errors
/// Every mistake in the file, in one report; a file that has no node for this machine is one of them.
pub fn load_for_node(path: &Path, scope: Scope, hints: NodeHints<'_>) -> Result<(Config, LocalNode), Report> {
    parse_for_node(&read(path)?, path, scope, hints)
}

/// As [`load_for_node`], for a text that was read from `path`.
///
/// # Errors
/// As [`load_for_node`].
pub fn parse_for_node(
    text: &str,
    path: &Path,
    scope: Scope,
    hints: NodeHints<'_>,
) -> Result<(Config, LocalNode), Report> {
    let config = checked(text, path, scope, Some(hints))?;
    let node = choose_node(&config, hints).map_err(|error| Report::of_file(path, error.to_string(), error.remedy()))?;
    Ok((config, node))
}

/// Checks `text`, which stands in the file at `path`, by itself.
///
/// # Errors
/// Every mistake in it, in one report.
pub fn parse(text: &str, path: &Path) -> Result<Config, Report> {
    checked(text, path, Scope::File, None)
}

fn checked(text: &str, path: &Path, scope: Scope, hints: Option<NodeHints<'_>>) -> Result<Config, Report> {
    if text.len() > FILE_MAX_BYTES {
        return Err(too_large(path));
    }
    let mistakes = Mistakes::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        mistakes.syntax(error.span(), error.message(), "correct what is marked; see https://toml.io");
    }
    // Absolute, so that the paths in the file still lead there after the daemon has changed its directory.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    let root = reader::Table::root(&mistakes, document.get_ref());
    let blocks = blocks::read(root, &mistakes, directory);
    cross::check(&blocks, &mistakes);
    if scope == Scope::Machine {
        machine::check(&blocks, &mistakes);
    }
    if let Some(hints) = hints {
        machine::check_node(&blocks, hints, &mistakes);
    }
    if let Some(report) = mistakes.into_report(path) {
        return Err(report);
    }
    resolve::resolve(blocks, checksum(text.as_bytes())).ok_or_else(|| {
        Report::of_file(
            path,
            "baton found no mistake, and yet a value is missing",
            "report this file to the developers",
        )
    })
}

/// Whether `text` may be the name of a node, a pool and the like.
///
/// # Errors
/// The rule that it breaks, and the remedy.
pub fn check_name(text: &str) -> Result<(), (String, String)> {
    values::name(text).map(drop).map_err(|wrong| (wrong.rule, wrong.remedy))
}

/// Reads a virtual address with its prefix length, as the file writes it.
///
/// # Errors
/// The rule that it breaks, and the remedy.
pub fn parse_vip_address(text: &str) -> Result<IpNetwork, (String, String)> {
    values::vip_address(text).map_err(|wrong| (wrong.rule, wrong.remedy))
}

/// Reads the address of a server with its port, as the file writes it.
///
/// # Errors
/// The rule that it breaks, and the remedy.
pub fn parse_server_address(text: &str) -> Result<SocketAddr, (String, String)> {
    values::server_address(text).map_err(|wrong| (wrong.rule, wrong.remedy))
}

/// Reads the file at `path`.
///
/// # Errors
/// When it cannot be read, is not a regular file, is larger than [`FILE_MAX_BYTES`] or is not UTF-8.
pub fn read(path: &Path) -> Result<String, Report> {
    let bytes = read_bytes(path).map_err(|error| unreadable(path, &error))?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(too_large(path));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        Report::of_file(path, format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let (file, metadata) = files::open(path)?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut bytes = Vec::new();
    // Of a directory the kernel says so here.
    file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Report {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "name the file with --config FILE; the annotated baton.toml is a good beginning",
        io::ErrorKind::PermissionDenied => "run as root, or as a user who may read the file",
        io::ErrorKind::IsADirectory => "name the file in it with --config FILE",
        _ => "name a file that can be read with --config FILE",
    };
    Report::of_file(path, format!("failed to read the configuration: {error}"), remedy)
}

fn too_large(path: &Path) -> Report {
    Report::of_file(path, "the file is larger than 1 MiB", "name a configuration file; none needs to be that large")
}

/// SHA-256 in lower-case hex.
fn checksum(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
