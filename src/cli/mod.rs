//! What an operator types: one file a subcommand.
//!
//! Only here is anything printed. What was asked for goes to stdout, everything else to stderr, and the exit status is 0
//! only when the thing asked for is so.

mod check;
mod courier;
mod demo;
mod drill;
mod explain;
mod init;
mod interrupt;
mod janitor;
mod keygen;
mod release;
mod reload;
mod results;
mod run;
mod screen;
mod server;
mod sessions;
mod staged;
mod status;
mod successor;
mod switchover;
mod witness;
mod worker;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::NodeHints;

/// A high-availability load balancer: two machines, one virtual address, one file.
#[derive(Debug, Parser)]
#[command(name = "baton", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run this node: heartbeat, virtual addresses and load balancer
    Run(run::Arguments),
    /// Show how this node is
    Status(status::Arguments),
    /// Say why each virtual address is where it is
    Explain(explain::Arguments),
    /// Move virtual addresses to the other node, planned
    Switchover(switchover::Arguments),
    /// Read the configuration again and use it, without breaking a connection
    #[command(long_about = reload::ABOUT)]
    Reload(reload::Arguments),
    /// Take servers out of service, and back
    Server(server::Arguments),
    /// List, count or remove sessions: which clients belong to which servers
    Sessions(sessions::Arguments),
    /// Report every mistake of a configuration, or what it would run
    Check(check::Arguments),
    /// Show a pair fail over on this machine, in namespaces of its own, without root
    Demo(demo::Arguments),
    /// Drill a pair: events under load, and a report of what clients noticed
    #[command(long_about = drill::ABOUT)]
    Drill(drill::Arguments),
    /// Set a pair up: ask for what it needs, check the answers, write the configuration and the key
    #[command(long_about = init::ABOUT)]
    Init(init::Arguments),
    /// Make the key that both nodes of a pair share
    Keygen(keygen::Arguments),
    /// Take the virtual addresses off this machine, when no baton runs any more
    Release(release::Arguments),
    /// What cleans up after a guard that was killed; started by `run`
    #[command(hide = true)]
    Janitor(janitor::Arguments),
    /// Decide, from a third place, who may hold a VIP while two nodes cannot hear each other
    #[command(long_about = witness::ABOUT)]
    Witness(witness::Arguments),
    /// Whether this program can go on for one that runs; started by `run`
    #[command(hide = true)]
    Successor,
    /// The data plane's process; started by `run`
    #[command(hide = true)]
    Worker(worker::Arguments),
    /// The process that tells others of events; started by `run`
    #[command(hide = true)]
    Courier(courier::Arguments),
}

/// The command line, for those who write manuals and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Switchover(arguments) => switchover::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Server(arguments) => server::run(&arguments),
        Command::Sessions(arguments) => sessions::run(&arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Janitor(arguments) => janitor::run(&arguments),
        Command::Witness(arguments) => witness::run(&arguments),
        Command::Courier(arguments) => courier::run(&arguments),
        Command::Worker(arguments) => worker::run(&arguments),
        Command::Successor => successor::run(),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => return demo::run(&arguments),
        Command::Drill(arguments) => return drill::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what was asked for.
///
/// # Errors
/// When the disk is full, say: `println!` would panic.
fn answer(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads, `head` for one, has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints what is wrong. That nobody can read it is not reported to anybody, for there is nobody left to tell.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What may say which node this machine is.
struct ThisMachine {
    flag: Option<String>,
    environment: Option<String>,
    host_name: String,
}

impl ThisMachine {
    fn new(flag: Option<String>) -> Self {
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { flag, environment: std::env::var("BATON_NODE").ok(), host_name }
    }

    fn hints(&self) -> NodeHints<'_> {
        let (flag, environment) = (self.flag.as_deref(), self.environment.as_deref());
        NodeHints { flag, environment, host_name: &self.host_name }
    }
}
