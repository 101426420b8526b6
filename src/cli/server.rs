//! `baton server`: takes servers out of service and back, on both nodes.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;

use super::status::ask;
use crate::guard::control::{self, Answer, Request};
use crate::inquiry::{self, ChangedAnswer, Order, ServerAnswer, ServerOrder};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    order: OrderArguments,
}

#[derive(Debug, Subcommand)]
enum OrderArguments {
    /// Let a server keep the clients that belong to it, and send no new ones there
    Drain(Target),
    /// Send no requests to a server at all
    Disable(Target),
    /// Send requests to a server again
    Enable(Target),
    /// Add a server to a pool, on both nodes
    Add(Addition),
    /// Remove a server from a pool, on both nodes: requests under way end, and its clients get other servers
    Remove(Removal),
}

#[derive(Debug, clap::Args)]
struct Addition {
    #[command(flatten)]
    target: Target,
    /// Where it listens: 10.0.0.4:8080
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Its share beside the others, 1 to 256
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// Use it when no other server of the pool is up
    #[arg(long)]
    backup: bool,
    /// Have it after a restart of both nodes as well
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, clap::Args)]
struct Removal {
    #[command(flatten)]
    target: Target,
    /// Have it gone after a restart of both nodes as well
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The server, with its pool in front: app/app1
    #[arg(value_name = "POOL/SERVER")]
    server: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Where the node keeps its control socket
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

/// Gives the order, and says what came of it.
///
/// # Errors
/// When it was not done, and why: a server that is not known, a worker that does not answer.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (target, order) = match &arguments.order {
        OrderArguments::Drain(target) => (target, Order::Drain),
        OrderArguments::Disable(target) => (target, Order::Disable),
        OrderArguments::Enable(target) => (target, Order::Enable),
        OrderArguments::Add(Addition { target, address, weight, backup, keep }) => {
            let (address, weight, backup, keep) = (address.clone(), *weight, *backup, *keep);
            return change(target, ServerOrder::Add { address, weight, backup, keep });
        }
        OrderArguments::Remove(Removal { target, keep }) => return change(target, ServerOrder::Remove { keep: *keep }),
    };
    let (pool, server) = target.names()?;
    let request = Request::Server { pool, server, order };
    let Answer::Worker(inquiry::Answer::Server(done)) = ask(&target.runtime_dir, &request)? else { bail!(UNEXPECTED) };
    let text = if target.json { serde_json::to_string_pretty(&done)? + "\n" } else { describe(&done) };
    super::answer(&text).context("it is done, but failed to say so")
}

const UNEXPECTED: &str = "the guard answered something else than was asked";

impl Target {
    fn names(&self) -> anyhow::Result<(String, String)> {
        let names = self.server.split_once('/');
        let (pool, server) =
            names.ok_or_else(|| anyhow!("{} names no server: write its pool in front, as in app/app1", self.server))?;
        Ok((pool.to_owned(), server.to_owned()))
    }
}

fn change(target: &Target, change: ServerOrder) -> anyhow::Result<()> {
    let (pool, server) = target.names()?;
    let request = Request::Change { pool, server, change };
    let Answer::Worker(inquiry::Answer::Changed(done)) = ask(&target.runtime_dir, &request)? else { bail!(UNEXPECTED) };
    let text = if target.json { serde_json::to_string_pretty(&done)? + "\n" } else { describe_change(&done) };
    super::answer(&text).context("it is done, but failed to say so")
}

fn describe_change(done: &ChangedAnswer) -> String {
    let ChangedAnswer { pool, server, address, keep } = done;
    let until = if *keep { "" } else { "; not after a restart of both nodes, as --keep was not there" };
    match address {
        Some(address) => format!("server {pool}/{server} at {address} is added{until}\n"),
        None => format!("server {pool}/{server} is removed{until}\n"),
    }
}

fn describe(done: &ServerAnswer) -> String {
    let ServerAnswer { pool, server, admin, sessions } = done;
    let sessions = sessions.map_or(String::new(), |count| format!(", with {count} sessions"));
    format!("server {pool}/{server} is {admin} now{sessions}\n")
}
