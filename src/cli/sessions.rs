//! `baton sessions`: which clients belong to which servers. Keys are shown as hashes alone.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde::Serialize;

use super::status::{ask, describe_sync, size, time};
use crate::guard::control::{self, Answer, Request};
use crate::inquiry::{self, Filter, PAGE_ENTRIES_MAX, SessionCounts, SessionEntry, SessionsQuestion, VALUE_BYTES_MAX};
use crate::status::{SessionsStatus, SyncStatus};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List sessions, in the order of their keys' hashes
    List(List),
    /// Show how many sessions there are, by pool and server, or the one of a key
    Show(Show),
    /// Remove sessions, on both nodes
    Clear(Clear),
}

#[derive(Debug, clap::Args)]
struct Chosen {
    /// Of this pool alone
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// On servers of this name alone
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// Of the client that sends this: the value of the cookie, header or parameter, or the source address; - reads it from
    /// standard input, as other users of the machine can see arguments
    #[arg(long, value_name = "VALUE")]
    key: Option<String>,
    /// Where the node keeps its control socket
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    chosen: Chosen,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Print one JSON object for each, a line each
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    chosen: Chosen,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Clear {
    #[command(flatten)]
    chosen: Chosen,
    /// All of them
    #[arg(long, conflicts_with_all = ["pool", "server", "key"])]
    all: bool,
}

impl Chosen {
    /// # Errors
    /// When the key cannot be read from standard input.
    fn filter(&self) -> anyhow::Result<Filter> {
        let key = match self.key.as_deref() {
            Some("-") => Some(key_of_stdin().context("failed to read the key from standard input")?),
            key => key.map(str::to_owned),
        };
        Ok(Filter { pool: self.pool.clone(), server: self.server.clone(), key })
    }
}

/// The first line. One that is too long is read as far as it takes to be refused for that.
fn key_of_stdin() -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(io::stdin().take(VALUE_BYTES_MAX as u64 + 2)).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Does what was asked.
///
/// # Errors
/// When it could not be done, and why: a pool that is not known, a worker that does not answer.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::List(list) => list.run(),
        Command::Show(show) => show.run(),
        Command::Clear(clear) => clear.run(),
    }
}

fn ask_worker(runtime_dir: &Path, question: SessionsQuestion) -> anyhow::Result<inquiry::Answer> {
    match ask(runtime_dir, &Request::Sessions { question })? {
        Answer::Worker(answer) => Ok(answer),
        _ => bail!(UNEXPECTED),
    }
}

const UNEXPECTED: &str = "the guard answered something else than was asked";

impl List {
    /// Page by page, so that neither this program nor the node holds more than a page.
    fn run(&self) -> anyhow::Result<()> {
        let filter = self.chosen.filter()?;
        let mut left = self.limit;
        let mut after = None;
        let mut is_first = true;
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX);
            let question = SessionsQuestion::List { filter: filter.clone(), after, limit };
            let inquiry::Answer::Entries { entries, next } = ask_worker(&self.chosen.runtime_dir, question)? else {
                bail!(UNEXPECTED);
            };
            left = left.saturating_sub(entries.len() as u64);
            self.print(&entries, is_first)?;
            is_first = false;
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
        if !self.json && !is_first {
            super::complain("there are more; --limit shows them");
        }
        Ok(())
    }

    fn print(&self, entries: &[SessionEntry], is_first: bool) -> anyhow::Result<()> {
        let mut text = String::new();
        if is_first && !self.json && !entries.is_empty() {
            text += &row(["KEY", "POOL", "SERVER", "IDLE", "EXPIRES IN", "VERSION"].map(str::to_owned));
        }
        for entry in entries {
            if self.json {
                text += &(serde_json::to_string(entry)? + "\n");
            } else {
                text += &describe_entry(entry);
            }
        }
        super::answer(&text).context("failed to print the sessions")
    }
}

fn describe_entry(entry: &SessionEntry) -> String {
    let SessionEntry { key, pool, server, idle_ms, expires_in_ms, version } = entry;
    row([key.clone(), pool.clone(), server.clone(), time(*idle_ms), time(*expires_in_ms), version.clone()])
}

fn row([key, pool, server, idle, expires_in, version]: [String; 6]) -> String {
    format!("{key:<32} {pool:<16} {server:<16} {idle:<12} {expires_in:<12} {version}\n")
}

/// What `show --json` prints.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    counts: SessionCounts,
    evicted: u64,
    expired: u64,
    sync: Option<SyncStatus>,
    archive: Option<crate::status::ArchiveStatus>,
}

impl Show {
    fn run(&self) -> anyhow::Result<()> {
        let text = if self.chosen.key.is_some() { self.one()? } else { self.counts()? };
        super::answer(&text).context("failed to print the sessions")
    }

    /// The entries of a key: one in each pool that has it.
    fn one(&self) -> anyhow::Result<String> {
        let question = SessionsQuestion::List { filter: self.chosen.filter()?, after: None, limit: PAGE_ENTRIES_MAX };
        let inquiry::Answer::Entries { entries, .. } = ask_worker(&self.chosen.runtime_dir, question)? else {
            bail!(UNEXPECTED);
        };
        if entries.is_empty() {
            bail!("there is no session of this key");
        }
        if self.json {
            return Ok(serde_json::to_string_pretty(&entries)? + "\n");
        }
        let mut text = String::new();
        for entry in entries {
            let SessionEntry { key, pool, server, idle_ms, expires_in_ms, version } = entry;
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(
                text,
                "{pool}/{server}\n  key {key}\n  last used {} ago, ends in {} without use\n  version {version}",
                time(idle_ms),
                time(expires_in_ms)
            );
        }
        Ok(text)
    }

    fn counts(&self) -> anyhow::Result<String> {
        let question = SessionsQuestion::Count { filter: self.chosen.filter()? };
        let inquiry::Answer::Counts(counts) = ask_worker(&self.chosen.runtime_dir, question)? else {
            bail!(UNEXPECTED);
        };
        let Answer::Status(status) = ask(&self.chosen.runtime_dir, &Request::Status)? else { bail!(UNEXPECTED) };
        if self.json {
            let (evicted, expired) = counts
                .pools
                .iter()
                .fold((0, 0), |(evicted, expired), pool| (evicted + pool.evicted, expired + pool.expired));
            let archive = status.sessions.archive;
            let shown = Shown { counts, evicted, expired, sync: status.sync, archive };
            return Ok(serde_json::to_string_pretty(&shown)? + "\n");
        }
        Ok(describe_counts(&counts, status.sync.as_ref(), &status.sessions))
    }
}

fn describe_counts(counts: &SessionCounts, sync: Option<&SyncStatus>, sessions: &SessionsStatus) -> String {
    let mut text = format!("{} sessions, {}\n", counts.entries, size(counts.bytes));
    for pool in &counts.pools {
        let _ = writeln!(
            text,
            "\npool {}   {} of at most {} sessions, {} evicted, {} expired",
            pool.pool, pool.entries, pool.entries_max, pool.evicted, pool.expired
        );
        for server in &pool.by_server {
            let _ = writeln!(text, "  {:<16} {}", server.server, server.entries);
        }
    }
    for pool in &counts.cookie_pools {
        let _ =
            writeln!(text, "\npool {pool}   no sessions here: each client carries the name of its server in a cookie");
    }
    if let Some(sync) = sync {
        describe_sync(&mut text, sync);
    }
    if sessions.store.is_some() {
        text += "\nThe store has all sessions; these are the ones that this node has seen of late.\n";
    }
    if let Some(archive) = &sessions.archive {
        super::status::describe_archive(&mut text, archive);
    }
    text
}

impl Clear {
    fn run(&self) -> anyhow::Result<()> {
        let filter = self.chosen.filter()?;
        if filter.is_empty() && !self.all {
            bail!("say which sessions, with --pool, --server or --key; or --all");
        }
        let question = SessionsQuestion::Clear { filter };
        let inquiry::Answer::Cleared { count } = ask_worker(&self.chosen.runtime_dir, question)? else {
            bail!(UNEXPECTED);
        };
        let sessions = if count == 1 { "session" } else { "sessions" };
        super::answer(&format!("removed {count} {sessions}\n")).context("it is done, but failed to say so")
    }
}
