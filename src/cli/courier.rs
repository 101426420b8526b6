//! `baton courier`: the process that tells others of events, started by `baton run` and by nobody else.

/// What `baton run` passes on.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The descriptor of the socket pair to the guard
    descriptor: i32,
}

/// Runs the courier.
///
/// # Errors
/// Why it could not start or had to end.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    crate::courier::run(arguments.descriptor)
}
