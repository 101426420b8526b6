//! What an operator types: one file a subcommand.
//!
//! Only here is anything printed. What was asked for goes to stdout, everything else to stderr, and the exit status is 0
//! only when the thing asked for is so.

mod check;
mod demo;
mod keygen;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A high-availability load balancer: two machines, one virtual address, one file.
#[derive(Debug, Parser)]
#[command(name = "baton", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every mistake of a configuration, or what it would run
    Check(check::Arguments),
    /// Show a pair fail over on this machine, in namespaces of its own, without root
    Demo(demo::Arguments),
    /// Make the key that both nodes of a pair share
    Keygen(keygen::Arguments),
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => return demo::run(&arguments),
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
/// When nobody reads it any more, or the disk is full: `println!` would panic.
fn answer(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints what is wrong. That nobody can read it is not reported to anybody, for there is nobody left to tell.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
