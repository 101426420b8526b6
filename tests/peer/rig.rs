//! A node of the pair without guard and proxy: its sessions and its end of the sync link.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::config;
use baton::peer::endpoint::End;
use baton::peer::identity::Identity;
use baton::peer::{self, Link, Pair, Setup};
use baton::proxy::limits::replicated_limits;
use baton::proxy::sessions::{Sessions, replicated_pools};
use baton::session::ServerRef;
use baton::session::facts::FactKey;
use baton::session::key::Key;
use baton::session::replica::{Settings, VERSIONS};
use baton::session::version;
use baton::status::SyncStatus;

/// Time for anything that has no limit of its own.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The pair key.
pub const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
/// Another one.
pub const OTHER_KEY: &[u8] = b"another key of the same length!!";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub const CONFIG: &str = r#"
[[listener]]
name = "http"
bind = ["127.0.0.1:80"]
protocol = "http"
pool = "app"
rate_limit = { requests = 1000, per = "24h" }

[[pool]]
name = "app"
servers = [{ name = "one", address = "127.0.0.1:8081" }, { name = "two", address = "127.0.0.1:8082" }]

[pool.sticky]
by = "source_ip"
entries_max = 1000000
"#;

/// A server.
pub const ONE: ServerRef = ServerRef { pool: 0, server: 0 };
/// Another one.
pub const TWO: ServerRef = ServerRef { pool: 0, server: 1 };

/// A node.
pub struct Node {
    pub sessions: Arc<Sessions>,
    pub link: Link,
    /// Where the first node listens.
    pub at: SocketAddr,
}

impl Node {
    /// The first node of the pair, on a port of its own.
    pub fn first(key: &[u8]) -> Self {
        Self::first_at(key, "127.0.0.1:0")
    }

    /// The first node of the pair.
    pub fn first_at(key: &[u8], at: &str) -> Self {
        let listener = baton::net::listen::sync(at.parse().unwrap()).unwrap();
        Self::listening(key, listener)
    }

    /// The first node of the pair, on a socket that outlives it.
    pub fn listening(key: &[u8], listener: TcpListener) -> Self {
        let at = listener.local_addr().unwrap();
        let identity = Identity::derive(key, "lb-a", "lb-b").unwrap();
        Self::start(version::Node::First, key, at, identity, End::Listen(listener), "lb-b")
    }

    /// The first node of a pair whose second one has another name.
    pub fn waiting_for_another(key: &[u8], listener: TcpListener, identity: Identity) -> Self {
        let at = listener.local_addr().unwrap();
        Self::start(version::Node::First, key, at, identity, End::Listen(listener), "lb-x")
    }

    /// The second one, which connects to it.
    pub fn second(key: &[u8], first: SocketAddr) -> Self {
        let identity = Identity::derive(key, "lb-b", "lb-a").unwrap();
        Self::start(version::Node::Second, key, first, identity, End::Connect { from: first.ip(), to: first }, "lb-a")
    }

    fn start(node: version::Node, key: &[u8], at: SocketAddr, identity: Identity, end: End, peer_node: &str) -> Self {
        let config = config::parse(CONFIG, Path::new("baton.toml")).unwrap();
        let sessions = Arc::new(Sessions::new(&config, node, key));
        let own = if peer_node == "lb-a" { "lb-b" } else { "lb-a" };
        let settings = Settings {
            node: own.to_owned(),
            peer: peer_node.to_owned(),
            boot: fastrand::u64(..),
            checksum: config.short_checksum(),
            versions: VERSIONS,
            pools: replicated_pools(&config),
            limits: replicated_limits(&config),
        };
        let pair = Pair { identity, end, peer: at.ip(), settings };
        let setup = Setup { sessions: Arc::clone(&sessions), pair: Some(pair), apply: Box::new(|_| {}) };
        Self { sessions, link: peer::start(setup).unwrap(), at }
    }

    /// How its link is.
    pub fn status(&self) -> SyncStatus {
        self.link.status().unwrap()
    }

    /// How many it refused for a reason.
    pub fn refused(&self, reason: &str) -> u64 {
        self.status().refused.get(reason).copied().unwrap_or(0)
    }

    /// Waits until it has refused that many for a reason, and gives what it says about the last.
    pub fn wait_until_refused(&self, reason: &str, count: u64) -> String {
        until(&format!("{count} refusals for {reason}"), || {
            let status = self.status();
            (status.refused.get(reason).copied().unwrap_or(0) >= count).then_some(status.last_error?)
        })
    }

    /// Waits until it is in sync.
    pub fn wait_until_synced(&self) {
        until("the node to be in sync", || self.status().in_sync.then_some(()));
    }

    /// Gives a client to a server.
    pub fn put(&self, client: u64, server: ServerRef) {
        self.sessions.table.put(&self.key(client), server, self.sessions.now());
    }

    /// The server of a client.
    pub fn find(&self, client: u64) -> Option<ServerRef> {
        self.sessions.table.find(&self.key(client), self.sessions.now())
    }

    /// The key of a client, the same on both nodes.
    pub fn key(&self, client: u64) -> Key {
        self.sessions.key(0, &client.to_be_bytes()).unwrap()
    }

    /// Says something to the other node.
    pub fn say(&self, what: &str) {
        assert!(self.sessions.tell(FactKey::TicketKeys, what.as_bytes().to_vec()));
    }

    /// Waits until the other node has said it.
    pub fn wait_until_told(&self, what: &str) {
        until("what the other node said", || {
            let facts = self.sessions.facts();
            (facts.get(&FactKey::TicketKeys) == Some(what.as_bytes())).then_some(())
        });
    }
}

/// Two nodes that are in sync.
pub fn pair() -> (Node, Node) {
    let first = Node::first(KEY);
    let second = Node::second(KEY, first.at);
    first.wait_until_synced();
    second.wait_until_synced();
    (first, second)
}

/// Whether the pair still does what it is for.
pub fn assert_in_service(first: &Node, second: &Node, word: &str) {
    first.say(word);
    second.wait_until_told(word);
    let back = format!("{word} back");
    second.say(&back);
    first.wait_until_told(&back);
}

/// Waits until `condition` gives a value.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Memory of this process, in bytes (proc(5), statm).
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Where tests are.
pub fn loopback() -> IpAddr {
    LOOPBACK
}
