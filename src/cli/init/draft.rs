//! The configuration that the answers make.

use std::net::SocketAddr;

use super::answers::{Node, Server, is_bindable};
use crate::units::IpNetwork;

/// All that was answered.
#[derive(Debug)]
pub(super) struct Draft {
    /// This node first.
    pub(super) nodes: [Node; 2],
    pub(super) interface: String,
    pub(super) vips: Vec<IpNetwork>,
    pub(super) servers: Vec<Server>,
    pub(super) port: u16,
    pub(super) virtual_router_id: u8,
    pub(super) prefer: Option<String>,
    pub(super) health_path: Option<String>,
}

impl Draft {
    /// The file. Every value but names and addresses is quoted as TOML has it.
    pub(super) fn text(&self, key_file: &str) -> String {
        let nodes: String = self.nodes.iter().map(node).collect();
        let vips: Vec<String> = self.vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        let ends = self.vips.iter().map(|vip| SocketAddr::new(vip.address(), self.port)).filter(is_bindable);
        let binds: Vec<String> = ends.map(|end| format!("\"{end}\"")).collect();
        let servers: String = self.servers.iter().map(server).collect();
        let prefer = match &self.prefer {
            Some(name) => format!("prefer = {}  # takes the address back when it can\n", quoted(name)),
            None => {
                "#prefer = \"NAME\"  # a node that takes the address back when it can; else whoever has it keeps it\n"
                    .to_owned()
            }
        };
        let health = match &self.health_path {
            Some(path) => format!("type = \"http\"\npath = {}\n", quoted(path)),
            None => "type = \"tcp\"  # connects; type = \"http\" with path = \"/health\" asks for a page as well\n"
                .to_owned(),
        };
        format!(
            "\
# Baton's configuration, begun by `baton init`; the same file on both nodes. After a change: `baton check`, copy it to the
# other node, and `systemctl reload baton` on both. Every key there is: /usr/share/doc/baton/examples/baton.toml

{nodes}[pair]
key_file = {key}  # the same on both nodes, with mode 0600

# What clients connect to: one node holds it, and the other takes it over.
[[vip]]
name = \"web\"
addresses = [{vips}]
interface = {interface}  # of both nodes
virtual_router_id = {id}  # used by no other virtual router on this network
{prefer}
[[listener]]
name = \"http\"
bind = [{binds}]
pool = \"app\"

[[pool]]
name = \"app\"
servers = [
{servers}]

[pool.health]
{health}
# Each client keeps its server, by a cookie. Without this block any server will do.
[pool.sticky]
by = \"cookie\"
",
            key = quoted(key_file),
            vips = vips.join(", "),
            interface = quoted(&self.interface),
            id = self.virtual_router_id,
            binds = binds.join(", "),
        )
    }
}

fn node(node: &Node) -> String {
    format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\n\n", node.name, node.address)
}

fn server(server: &Server) -> String {
    format!("  {{ name = \"{}\", address = \"{}\" }},\n", server.name, server.address)
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn draft() -> Draft {
        let node = |name: &str, address: &str| Node { name: name.to_owned(), address: address.parse().unwrap() };
        let vip = |address: &str, prefix_len| {
            IpNetwork::new(address.parse::<std::net::IpAddr>().unwrap(), prefix_len).unwrap()
        };
        Draft {
            nodes: [node("lb-a", "192.0.2.11"), node("lb-b", "192.0.2.12")],
            interface: "eth0".to_owned(),
            vips: vec![vip("192.0.2.100", 24), vip("2001:db8::100", 64), vip("fe80::100", 64)],
            servers: vec![Server { name: "app1".to_owned(), address: "10.0.0.1:8080".parse().unwrap() }],
            port: 8000,
            virtual_router_id: 7,
            prefer: None,
            health_path: None,
        }
    }

    #[test]
    fn the_configuration_is_good_and_says_what_was_answered() {
        let config = config::parse(&draft().text("/etc/baton/pair.key"), Path::new("/x")).unwrap();
        assert_eq!(config.nodes[1].name, "lb-b");
        assert_eq!(config.vips[0].interface, "eth0");
        assert_eq!(config.vips[0].virtual_router_id.get(), 7);
        assert_eq!(config.vips[0].addresses.len(), 3);
        let binds: Vec<String> = config.listeners[0].bind.iter().map(ToString::to_string).collect();
        assert_eq!(binds, ["192.0.2.100:8000", "[2001:db8::100]:8000"], "none that would have to name its link");
        assert_eq!(config.pools[0].servers[0].name, "app1");
        assert!(config.vips[0].prefer.is_none());
    }

    #[test]
    fn a_preference_and_a_path_are_taken_over() {
        let mut draft = draft();
        (draft.prefer, draft.health_path) = (Some("lb-b".to_owned()), Some("/up?deep=\"1\"".to_owned()));
        let config = config::parse(&draft.text("/etc/baton/pair.key"), Path::new("/x")).unwrap();
        assert_eq!(config.vips[0].prefer, Some(1));
        let Some(config::Check::Http(http)) = config.pools[0].health.as_ref().map(|health| &health.check) else {
            panic!("no http check")
        };
        assert_eq!(http.path, "/up?deep=\"1\"");
    }

    #[test]
    fn odd_paths_are_quoted() {
        assert_eq!(quoted("/a b/\"c\"\\\u{1}"), "\"/a b/\\\"c\\\"\\\\\\u0001\"");
    }
}
