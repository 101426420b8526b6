//! `baton release`: takes the virtual addresses off, for a service manager to run after a guard that was killed.

use std::path::PathBuf;

use tracing::warn;

use crate::config::{self, Scope};
use crate::guard::{self, control};
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/baton/baton.toml")]
    config: PathBuf,
    /// Where a node that runs keeps its lock
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

/// Takes off those that the node has recorded, and those of the configuration.
///
/// # Errors
/// A node that runs here; which address is still there and why; every mistake of the configuration, where nothing is recorded.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Of the file alone: whatever else is wrong with this machine, its addresses have to go.
    let config = config::load(&arguments.config, Scope::File);
    let _logging = telemetry::start();
    let is_recorded = guard::release(config.as_ref().ok(), &arguments.runtime_dir)?;
    match config {
        Err(mistakes) if is_recorded => {
            warn!("what the node had on its interfaces is off; the configuration was not looked at: {mistakes:#}");
            Ok(())
        }
        config => Ok(config.map(drop)?),
    }
}
