//! `baton init`: from a machine with Baton on it to the configuration and the key of a pair.
//!
//! | file | what it holds |
//! |---|---|
//! | [`interview`] | where answers come from: flags, else the terminal |
//! | [`finding`] | what a check has found, as it is shown |
//! | [`machine`] | this machine's interfaces, and what it is asked of them |
//! | [`answers`] | answers read and judged by what this machine knows |
//! | [`network`] | what the network says: who holds an address, which virtual routers there are, who answers |
//! | [`draft`] | the configuration |
//! | [`files`] | both files put in their places, or neither |

mod answers;
mod draft;
mod files;
mod finding;
mod interview;
mod machine;
mod network;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::config;

use self::answers::Node;
use self::draft::Draft;
use self::files::Files;
use self::finding::Finding;
use self::interview::{Interview, Question};
use self::machine::Machine;
use super::staged::directory_of;

/// What `--help` says.
pub(super) const ABOUT: &str = "\
Set a pair up: ask for what it needs, check the answers, write the configuration and the key

On a terminal it asks for what no flag says, with what this machine suggests in brackets, and asks again where an answer \
cannot be. Without a terminal, and with --yes, nothing is asked: --vip, --peer and --server have to be there, and the rest is \
as this machine suggests.

Each answer is checked: the interface has a carrier and an address in the subnet, nobody holds the virtual address (ARP \
and neighbour discovery), no other virtual router uses the id, the other node and the servers answer, the port is free. \
Asking the network needs CAP_NET_RAW; without it that is said, and not checked. What cannot work is refused, what may be \
meant is a warning.

Both files are written, or neither; a file that somebody has edited, and a key, are never replaced without --force. At \
the end stands the command that carries both to the other node.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The interface that carries the virtual address, of the same name on both nodes
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// This node: its name, which is best its host name, and its own address
    #[arg(long, value_name = "NAME=ADDRESS")]
    node: Option<String>,
    /// The other node
    #[arg(long, value_name = "NAME=ADDRESS")]
    peer: Option<String>,
    /// A virtual address, IPv4 or IPv6, such as 192.0.2.100/24; may be given several times
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    vip: Vec<String>,
    /// A server behind the pair, such as 10.0.0.1:8080; may be given several times
    #[arg(long, value_name = "[NAME=]ADDRESS:PORT")]
    server: Vec<String>,
    /// The port that clients connect to [default: 80]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    listen: Option<u16>,
    /// Check the servers with a GET of this path instead of a connect
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// The number of the virtual router, 1 to 255 [default: 51, or one that nobody uses on this network]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    virtual_router_id: Option<u8>,
    /// The node that takes the address back when it can; otherwise whoever holds it keeps it
    #[arg(long, value_name = "NAME")]
    prefer: Option<String>,
    /// Where the configuration goes
    #[arg(long, value_name = "FILE", default_value = "/etc/baton/baton.toml")]
    config: PathBuf,
    /// Where the key goes [default: pair.key beside the configuration]; one that is there is used
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    /// Replace a configuration that somebody has written (it is kept beside it), and a key that cannot be used
    #[arg(long)]
    force: bool,
}

/// Asks, checks, writes, and says what comes next.
///
/// # Errors
/// What cannot work, or cannot be written. Nothing is written then.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Looked at first: nobody should answer questions in vain.
    let files = Files::look(&arguments.config, arguments.key.as_deref(), arguments.force)?;
    let interview = Interview::new(arguments.yes);
    interview.require(&[
        ("--peer", arguments.peer.is_some()),
        ("--vip", !arguments.vip.is_empty()),
        ("--server", !arguments.server.is_empty()),
    ])?;
    let draft = ask(arguments, &interview)?;
    let text = draft.text(files.key_text()?);
    let config = config::parse(&text, files.config()).context("the answers do not fit together")?;
    let warnings = config.machine_warnings(config.nodes.first());
    interview.show(&warnings.into_iter().map(Finding::remark).collect::<Vec<_>>());
    interview.confirm(&format!("Write {}", files.names()))?;
    let written = files.write(&text)?;
    super::answer(&next_steps(&written, &draft, &files)).context("the files are written, but failed to say so")
}

/// All questions, each with its checks.
fn ask(arguments: &Arguments, interview: &Interview) -> anyhow::Result<Draft> {
    let machine = Machine::look();
    let given = arguments.interface.as_deref();
    let question = Question { label: "Interface that carries the virtual address", default: machine.usual_interface() };
    let interface = interview.settle(&question, given, |text, said| machine.check_interface(text, said))?;
    let Some(interface) = interface else { bail!(interview::REFUSED) };
    // They are listened for while the questions go on.
    let routers = network::hear_routers(&interface);

    let question = Question { label: "This node, NAME=ADDRESS", default: machine.usual_node(&interface) };
    let given = arguments.node.as_deref();
    let node = interview.settle(&question, given, |text, said| answers::this_node(text, &machine, said))?;
    let question = Question { label: "The other node, NAME=ADDRESS", default: None };
    let given = arguments.peer.as_deref();
    let peer =
        interview.settle(&question, given, |text, said| answers::other_node(text, node.as_ref(), &machine, said))?;

    let nodes: Vec<Node> = node.iter().chain(&peer).cloned().collect();
    let question = Question { label: "Virtual address with prefix length, or several", default: None };
    let given = interview::joined(&arguments.vip);
    let vips = interview
        .settle(&question, given.as_deref(), |text, said| answers::vips(text, &interface, &nodes, &machine, said))?;
    let question = Question { label: "Servers, [NAME=]ADDRESS:PORT, with spaces between them", default: None };
    let given = interview::joined(&arguments.server);
    let addresses = vips.as_deref().unwrap_or_default();
    let servers = interview.settle(&question, given.as_deref(), |text, said| {
        answers::servers(text, &interface, &nodes, addresses, said)
    })?;
    let question = Question { label: "Port that clients connect to", default: Some("80".to_owned()) };
    let given = arguments.listen.map(|port| port.to_string());
    let port = interview.settle(&question, given.as_deref(), |text, said| answers::port(text, addresses, said))?;
    let (Some(node), Some(peer), Some(vips), Some(servers), Some(port)) = (node, peer, vips, servers, port) else {
        // Without waiting for what the network says of virtual routers.
        bail!(interview::REFUSED)
    };
    let router = interview.judge(|said| answers::virtual_router(arguments.virtual_router_id, routers.wait(), said));
    let Some(virtual_router_id) = router else { bail!(interview::REFUSED) };
    Ok(Draft {
        nodes: [node, peer],
        interface: interface.name,
        vips,
        servers,
        port,
        virtual_router_id,
        prefer: arguments.prefer.clone(),
        health_path: arguments.health_path.clone(),
    })
}

/// What was written, and the commands from here to a pair that serves.
fn next_steps(written: &files::Written, draft: &Draft, files: &Files) -> String {
    let [_, peer] = &draft.nodes;
    let mut text = written.text(files);
    text.push_str(&format!("\nNext, on this node; the first one carries both files to {}:\n", peer.name));
    text.push_str(&format!("  {}\n", copy_command(files, peer)));
    let start = if files.config() == Path::new("/etc/baton/baton.toml") {
        "systemctl enable --now baton".to_owned()
    } else {
        format!("baton run --config {}", word(files.config()))
    };
    text.push_str(&format!("  {start}\nand on {}:\n  {start}\n", peer.name));
    text.push_str(&format!(
        "It has to have the host name {0}, or BATON_NODE={0} in /etc/default/baton (RPM: /etc/sysconfig/baton).\n\
         How the pair is: baton status\n",
        peer.name
    ));
    text
}

/// The one command that carries both files to the other node.
fn copy_command(files: &Files, peer: &Node) -> String {
    let host = if peer.address.is_ipv6() { format!("[{}]", peer.address) } else { peer.address.to_string() };
    let (config, key) = (files.config(), files.key());
    if directory_of(config) == directory_of(key) {
        let directory = directory_of(config).join("");
        return format!("scp -p {} {} root@{host}:{}", word(config), word(key), word(&directory));
    }
    let one = |file: &Path| format!("scp -p {0} root@{host}:{0}", word(file));
    format!("{} && {}", one(config), one(key))
}

/// A path as a shell takes it for one word.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@:".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
