//! Which node of the file this machine is.

use std::fmt;
use std::net::SocketAddr;

use super::model::{Config, Node};

/// What may say which node this machine is, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeHints<'a> {
    /// `--node`.
    pub flag: Option<&'a str>,
    /// `BATON_NODE`; an empty one counts as none.
    pub environment: Option<&'a str>,
    /// The host name, matched whole and then by its first label, without regard to case.
    pub host_name: &'a str,
}

/// The node that this machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// Index into [`Config::nodes`]; `None` when the file has no nodes, and so no vips either.
    pub index: Option<usize>,
    /// Its name.
    pub name: String,
    /// What said so.
    pub because: ChosenBy,
}

/// What said which node this machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// `--node`.
    Flag,
    /// `BATON_NODE`.
    Environment,
    /// The host name.
    HostName,
    /// The file has a single node, so that no other machine can be meant.
    OnlyNode,
    /// The file has no node, so that a name is all there is.
    NoNodes,
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChosenBy::Flag => "--node says so",
            ChosenBy::Environment => "BATON_NODE says so",
            ChosenBy::HostName => "that is the host name",
            ChosenBy::OnlyNode => "it is the only node of the file",
            ChosenBy::NoNodes => "the file has no [[node]]",
        })
    }
}

/// The file has no node for this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_of_name} is \"{name}\", and the file has no node of that name; it has {known}")]
pub struct NodeNotChosen {
    source_of_name: &'static str,
    name: String,
    known: String,
}

impl NodeNotChosen {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        "say which node this machine is: --node NAME, or BATON_NODE in its environment"
    }
}

impl Config {
    /// Index of the node called `name`.
    pub fn node_named(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The node that this machine is, and the other one where there are two; `None` in a file without nodes.
    pub fn local_and_peer(&self, local: &LocalNode) -> Option<(&Node, Option<&Node>)> {
        let own = local.index?;
        let peer = self.nodes.iter().enumerate().find(|(index, _)| *index != own).map(|(_, node)| node);
        Some((self.nodes.get(own)?, peer))
    }

    /// Where the sync link of `node` runs; `None` without a pair key or a second node, as there is nobody to sync with.
    pub fn sync_ends(&self, node: &str) -> Option<SyncEnds<'_>> {
        self.pair.key_file.as_ref()?;
        let [first, second] = self.nodes.as_slice() else { return None };
        let (own, peer, listens) = match node {
            name if name == first.name => (first, second, true),
            name if name == second.name => (second, first, false),
            _ => return None,
        };
        let end = |node: &Node| SocketAddr::new(node.address, self.pair.sync_port);
        Some(SyncEnds { own: end(own), peer: end(peer), own_node: &own.name, peer_node: &peer.name, listens })
    }
}

/// The two ends of the sync link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncEnds<'config> {
    /// This node's.
    pub own: SocketAddr,
    /// The other one's.
    pub peer: SocketAddr,
    /// This node's name.
    pub own_node: &'config str,
    /// The other one's.
    pub peer_node: &'config str,
    /// Whether this node listens: the first one of the file does, and the other one connects.
    pub listens: bool,
}

/// Finds this machine among the nodes of the file.
///
/// # Errors
/// When the strongest hint names no node of the file. A weaker hint is then not tried: an operator who typed a name and
/// got another node would be misled.
pub fn choose_node(config: &Config, hints: NodeHints<'_>) -> Result<LocalNode, NodeNotChosen> {
    let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    choose_name(&names, hints)
}

pub(super) fn choose_name(names: &[&str], hints: NodeHints<'_>) -> Result<LocalNode, NodeNotChosen> {
    let environment = hints.environment.filter(|name| !name.is_empty());
    let told = hints
        .flag
        .map(|name| (name, ChosenBy::Flag, "--node"))
        .or(environment.map(|name| (name, ChosenBy::Environment, "BATON_NODE")));
    if names.is_empty() {
        let name = told.map_or(hints.host_name, |(name, _, _)| name);
        return Ok(LocalNode { index: None, name: name.to_owned(), because: ChosenBy::NoNodes });
    }
    let found = |index: usize, because| {
        let name = names.get(index).copied().unwrap_or_default().to_owned();
        LocalNode { index: Some(index), name, because }
    };
    let refused = |source_of_name, name: &str| NodeNotChosen {
        source_of_name,
        name: name.to_owned(),
        known: super::cross::listed(names),
    };
    if let Some((name, because, source)) = told {
        let index = names.iter().position(|known| *known == name);
        return index.map(|index| found(index, because)).ok_or_else(|| refused(source, name));
    }
    let first_label = hints.host_name.split('.').next().unwrap_or(hints.host_name);
    let by_host = |host: &str| names.iter().position(|known| known.eq_ignore_ascii_case(host));
    match by_host(hints.host_name).or_else(|| by_host(first_label)) {
        Some(index) => Ok(found(index, ChosenBy::HostName)),
        None if names.len() == 1 => Ok(found(0, ChosenBy::OnlyNode)),
        None => Err(refused("the host name", hints.host_name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints<'a>(flag: Option<&'a str>, environment: Option<&'a str>, host_name: &'a str) -> NodeHints<'a> {
        NodeHints { flag, environment, host_name }
    }

    fn chosen(names: &[&str], hints: NodeHints<'_>) -> Option<(Option<usize>, ChosenBy)> {
        choose_name(names, hints).ok().map(|node| (node.index, node.because))
    }

    #[test]
    fn the_flag_comes_before_the_environment_and_that_before_the_host_name() {
        let pair = ["a", "b"];
        assert_eq!(chosen(&pair, hints(Some("b"), Some("a"), "a")), Some((Some(1), ChosenBy::Flag)));
        assert_eq!(chosen(&pair, hints(None, Some("b"), "a")), Some((Some(1), ChosenBy::Environment)));
        assert_eq!(chosen(&pair, hints(None, Some(""), "a")), Some((Some(0), ChosenBy::HostName)));
    }

    #[test]
    fn a_host_name_matches_whole_or_by_its_first_label() {
        assert_eq!(chosen(&["a.x", "a"], hints(None, None, "a.x")), Some((Some(0), ChosenBy::HostName)));
        assert_eq!(chosen(&["b", "lb-a"], hints(None, None, "LB-A.example.com")), Some((Some(1), ChosenBy::HostName)));
    }

    #[test]
    fn a_wrong_hint_is_refused_with_the_names_of_the_file() {
        let error = choose_name(&["lb-a", "lb-b"], hints(Some("lb-c"), None, "lb-a")).expect_err("there is no lb-c");
        assert_eq!(error.to_string(), "--node is \"lb-c\", and the file has no node of that name; it has lb-a, lb-b");
        assert!(choose_name(&["lb-a", "lb-b"], hints(None, None, "other")).is_err());
        assert!(choose_name(&["lb-a"], hints(None, Some("x"), "lb-a")).is_err());
    }

    #[test]
    fn a_single_node_is_this_machine_whatever_its_name() {
        assert_eq!(chosen(&["lb-a"], hints(None, None, "other")), Some((Some(0), ChosenBy::OnlyNode)));
    }

    #[test]
    fn without_nodes_the_host_name_is_the_name() {
        let node = choose_name(&[], hints(None, None, "box")).expect("no node is needed");
        assert_eq!(node, LocalNode { index: None, name: "box".to_owned(), because: ChosenBy::NoNodes });
    }
}
