//! Listeners that requests come back to: a pool has a listener of this pair for a server, and that leads to the first one again.
//!
//! One listener behind another is none of these: it may well pass TLS on to the one that ends it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::model::{Config, Listener, Pool};

/// From one listener to another.
struct Way {
    /// What of the listener leads there, in words.
    by: String,
    address: SocketAddr,
    to: usize,
}

/// Adds a warning for each server that leads requests back to a listener that they have been at.
pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    let ends = Ends::of(config);
    let ways: Vec<Vec<Way>> = config.listeners.iter().map(|listener| ways(config, listener, &ends)).collect();
    for (from, listener) in config.listeners.iter().enumerate() {
        for way in ways.get(from).into_iter().flatten().filter(|way| leads(&ways, way.to, from)) {
            let there = match config.listeners.get(way.to) {
                Some(other) if way.to != from => format!("listener {}, which leads back here", other.name),
                Some(_) | None => "this listener itself".to_owned(),
            };
            warnings.push(format!(
                "{} of listener {} is at {}, and that is {there}: requests go round in a circle until they are answered \
                 508, and connections without HTTP until there are no more; write the address of the machine that is meant",
                way.by, listener.name, way.address
            ));
        }
    }
}

/// Whether what comes to a listener may come to another.
fn leads(ways: &[Vec<Way>], from: usize, to: usize) -> bool {
    let (mut seen, mut next) = (HashSet::from([from]), VecDeque::from([from]));
    while let Some(at) = next.pop_front() {
        if at == to {
            return true;
        }
        next.extend(ways.get(at).into_iter().flatten().map(|way| way.to).filter(|to| seen.insert(*to)));
    }
    false
}

fn ways(config: &Config, listener: &Listener, ends: &Ends) -> Vec<Way> {
    let of_routes = listener.routes.iter();
    let routed = of_routes.flat_map(|route| route.pools().chain(route.mirror.as_ref().map(|mirror| mirror.pool)));
    let mut seen = HashSet::new();
    let indexes = listener.pool.into_iter().chain(routed).filter(|index| seen.insert(*index));
    let pools: Vec<&Pool> = indexes.filter_map(|index| config.pools.get(index.0)).collect();
    let servers = pools.into_iter().flat_map(|pool| {
        let named = |name: &str| format!("server {name} of pool {}", pool.name);
        pool.servers.iter().map(move |server| (named(&server.name), server.address))
    });
    let asked = listener.authorizers().map(|asked| ("what is asked by authorize".to_owned(), asked.address));
    let way = |(by, address)| Some(Way { by, address, to: ends.listener_at(address)? });
    servers.chain(asked).filter_map(way).collect()
}

/// Where the listeners of the pair are reached.
struct Ends {
    exact: HashMap<SocketAddr, usize>,
    /// By family and port, those of every address.
    wide: HashMap<(bool, u16), usize>,
    /// The addresses of both nodes, and those that they share.
    own: HashSet<IpAddr>,
}

impl Ends {
    fn of(config: &Config) -> Self {
        let of_nodes = config.nodes.iter().flat_map(|node| node.all_addresses());
        let of_vips = config.vips.iter().flat_map(|vip| &vip.addresses).map(|at| at.network.address());
        let own = of_nodes.chain(of_vips).collect();
        let mut ends = Self { exact: HashMap::new(), wide: HashMap::new(), own };
        for (index, listener) in config.listeners.iter().enumerate() {
            for bind in &listener.bind {
                let ip = bind.ip().to_canonical();
                if !ip.is_unspecified() {
                    ends.exact.insert(SocketAddr::new(ip, bind.port()), index);
                    continue;
                }
                ends.wide.insert((ip.is_ipv4(), bind.port()), index);
                // `[::]` takes IPv4 as well.
                ends.wide.entry((true, bind.port())).or_insert(index);
            }
        }
        ends
    }

    fn listener_at(&self, address: SocketAddr) -> Option<usize> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let is_own = ip.is_loopback() || self.own.contains(&ip);
        let wide = || self.wide.get(&(ip.is_ipv4(), port)).filter(|_| is_own);
        self.exact.get(&SocketAddr::new(ip, port)).or_else(wide).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    const NODES: &str = "[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n[[node]]\nname = \"b\"\naddress = \"192.0.2.12\"\n\
                         [pair]\nkey_file = \"k\"\n";

    fn listener(name: &str, bind: &str, more: &str) -> String {
        format!("[[listener]]\nname = \"{name}\"\nbind = [\"{bind}\"]\n{more}\n")
    }

    fn pool(name: &str, server: &str) -> String {
        format!("[[pool]]\nname = \"{name}\"\nservers = [{{ name = \"one\", address = \"{server}\" }}]\n")
    }

    /// What is warned of, up to what stands there of its consequences.
    fn warned(blocks: &[String]) -> Vec<String> {
        let text = NODES.to_owned() + &blocks.concat();
        let config = parse(&text, Path::new("x")).unwrap_or_else(|report| panic!("{report}"));
        let of_loops = config.warnings().into_iter().filter(|warning| warning.contains("round in a circle"));
        of_loops.map(|warning| warning.split(": requests").next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_server_that_is_the_listener_itself_is_a_loop() {
        let itself = |server: &str| {
            vec![format!("server one of pool p of listener l is at {server}, and that is this listener itself")]
        };
        let with = |bind: &str, server: &str| warned(&[listener("l", bind, "pool = \"p\""), pool("p", server)]);
        for (bind, server) in [
            ("192.0.2.100:80", "192.0.2.100:80"),
            ("0.0.0.0:80", "192.0.2.11:80"),
            ("[::]:80", "192.0.2.12:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
        ] {
            assert_eq!(with(bind, server), itself(server), "{bind}");
        }
        for (bind, server) in [
            ("192.0.2.100:80", "192.0.2.100:81"),
            ("192.0.2.100:80", "192.0.2.11:80"),
            ("0.0.0.0:80", "192.0.2.13:80"),
            ("0.0.0.0:80", "[::1]:80"),
        ] {
            assert_eq!(with(bind, server), [""; 0], "{bind} {server}");
        }
    }

    #[test]
    fn a_circle_may_be_of_several_listeners_and_a_line_is_none() {
        let front = listener("front", "192.0.2.100:443", "protocol = \"tcp\"\npool = \"inner\"");
        let inner = [pool("inner", "127.0.0.1:8080"), listener("inner", "127.0.0.1:8080", "pool = \"app\"")].concat();
        let line = [front.clone(), inner.clone(), pool("app", "10.0.0.1:80")];
        assert_eq!(warned(&line), [""; 0]);
        let circle = [front.clone(), inner.clone(), pool("app", "192.0.2.100:443")];
        assert_eq!(
            warned(&circle),
            [
                "server one of pool inner of listener front is at 127.0.0.1:8080, and that is listener inner, which leads back here",
                "server one of pool app of listener inner is at 192.0.2.100:443, and that is listener front, which leads back here",
            ]
        );
        // By a route, and by what is asked.
        let route = "[[route]]\nlistener = \"inner\"\npath_prefix = \"/x\"\npool = \"back\"\n".to_owned();
        let routed = [line.concat(), route, pool("back", "192.0.2.100:443")];
        assert_eq!(warned(&routed).len(), 2);
        let asking = listener("l", "0.0.0.0:80", "pool = \"p\"\nauthorize = { url = \"http://127.0.0.1:80/\" }");
        assert_eq!(
            warned(&[asking, pool("p", "10.0.0.1:80")]),
            ["what is asked by authorize of listener l is at 127.0.0.1:80, and that is this listener itself"]
        );
    }
}
