//! `baton janitor`: cleans up after a guard that was killed; started by `baton run` and by nobody else.

/// What `baton run` passes on.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The descriptor of the socket pair to the guard
    descriptor: i32,
}

/// Runs the janitor.
///
/// # Errors
/// What it could not clean up.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    crate::guard::janitor::run(arguments.descriptor)
}
