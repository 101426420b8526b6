//! `baton run`: this node, until it is told to stop.

use std::path::PathBuf;

use crate::config::{self, Scope};
use crate::guard::{self, Options, control};
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/baton/baton.toml")]
    config: PathBuf,
    /// The node that this machine is; otherwise BATON_NODE or the host name says so
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where the control socket and the lock are kept
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
    /// Where is kept what has to outlast a restart of the machine, such as events that are to be delivered
    #[arg(long, value_name = "DIR", default_value = guard::STATE_DIR)]
    state_dir: PathBuf,
}

/// Runs the node.
///
/// # Errors
/// Every mistake of the configuration, in which case nothing was started; or why the node could not start.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let this_machine = super::ThisMachine::new(arguments.node.clone());
    let inherited = guard::takeover::inherited()?;
    let config_text = match &inherited {
        Some((legacy, _)) => legacy.config_text.clone(),
        None => config::read(&arguments.config)?,
    };
    let parsed = config::parse_for_node(&config_text, &arguments.config, Scope::Machine, this_machine.hints());
    if let (Err(_), Some((legacy, _))) = (&parsed, &inherited) {
        legacy.give_up();
    }
    let (config, local) = parsed?;
    let _logging = telemetry::start();
    let config_path = arguments.config.clone();
    let (runtime_dir, state_dir) = (arguments.runtime_dir.clone(), arguments.state_dir.clone());
    let node = arguments.node.clone();
    guard::run(Options { config, config_path, config_text, local, runtime_dir, state_dir, node, inherited })
}
