//! `baton server`: takes servers out of service and back, on both nodes.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;

use super::status::ask;
use crate::guard::control::{self, Answer, Request};
use crate::inquiry::{self, Order, ServerAnswer};

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
    };
    let (pool, server) = target
        .server
        .split_once('/')
        .ok_or_else(|| anyhow!("{} names no server: write its pool in front, as in app/app1", target.server))?;
    let request = Request::Server { pool: pool.to_owned(), server: server.to_owned(), order };
    let Answer::Worker(inquiry::Answer::Server(done)) = ask(&target.runtime_dir, &request)? else {
        bail!("the guard answered something else than was asked");
    };
    let text = if target.json { serde_json::to_string_pretty(&done)? + "\n" } else { describe(&done) };
    super::answer(&text).context("it is done, but failed to say so")
}

fn describe(done: &ServerAnswer) -> String {
    let ServerAnswer { pool, server, admin, sessions } = done;
    let sessions = sessions.map_or(String::new(), |count| format!(", with {count} sessions"));
    format!("server {pool}/{server} is {admin} now{sessions}\n")
}
