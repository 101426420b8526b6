//! `baton release`: takes the virtual addresses off, for a service manager to run after a guard that was killed.

use std::path::PathBuf;

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

/// Takes them off.
///
/// # Errors
/// Every mistake of the configuration, a node that runs here, or which address is still there and why.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Of the file alone: whatever else is wrong with this machine, its addresses have to go.
    let config = config::load(&arguments.config, Scope::File)?;
    let _logging = telemetry::start();
    guard::release(&config, &arguments.runtime_dir)
}
