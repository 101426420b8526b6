//! A node of the pair without guard and proxy: the session table and the worker's own end of the sync link, in this process
//! and in the namespace of a machine of the lab.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use baton::config::{self, Config, PairKey};
use baton::lab::namespace::Namespace;
use baton::lab::pair::NODES;
use baton::lab::wait_for;
use baton::net::listen;
use baton::peer::endpoint::End;
use baton::peer::identity::Identity;
use baton::peer::{self, Link};
use baton::proxy::limits::replicated_limits;
use baton::proxy::sessions::{Sessions, replicated_pools};
use baton::session::ServerRef;
use baton::session::key::Key;
use baton::session::replica::{Settings, VERSIONS};
use baton::session::version::Node;
use baton::status::SyncStatus;

use crate::client::user_name;
use crate::stage::{POOL, Stage};

/// Time for two nodes to come together.
const PATIENCE: Duration = Duration::from_secs(15);

/// Servers of the pool.
const SERVERS: u16 = 3;

/// What the nodes of a pair have in common.
pub struct Pairing {
    config: Config,
    key: PairKey,
    pool: u16,
}

impl Pairing {
    /// Of the lab's pair.
    pub fn of(stage: &Stage) -> Result<Self> {
        let path = stage.pair.directory().join("baton.toml");
        let text = fs::read_to_string(&path)?;
        let config = config::parse(&text, &path).map_err(|report| anyhow!("{report}"))?;
        let pool = config.pools.iter().position(|pool| pool.name == POOL).context("the pool with a table")?;
        let key_file = config.pair.key_file.clone().context("the pair has a key")?;
        Ok(Self { key: PairKey::load(&key_file)?, pool: u16::try_from(pool)?, config })
    }
}

/// A node. Its link ends when it is dropped.
pub struct LinkNode {
    pub sessions: Arc<Sessions>,
    pool: u16,
    link: Option<Link>,
}

impl LinkNode {
    /// Starts a node of the pair with an empty table where the configuration has it.
    pub fn start(stage: &Stage, pairing: &Pairing, node: &str) -> Result<Self> {
        let mut started = Self::new(pairing, node);
        started.connect(stage, pairing, node)?;
        Ok(started)
    }

    /// A table alone. To be connected later.
    pub fn new(pairing: &Pairing, node: &str) -> Self {
        let place = if node == NODES[0] { Node::First } else { Node::Second };
        let sessions = Arc::new(Sessions::new(&pairing.config, place, pairing.key.as_bytes()));
        Self { sessions, pool: pairing.pool, link: None }
    }

    pub fn connect(&mut self, stage: &Stage, pairing: &Pairing, node: &str) -> Result<()> {
        let ends = pairing.config.sync_ends(node).context("the pair has a sync link")?;
        self.connect_at(stage.pair.topology().host(node)?, pairing, node, (ends.own, ends.peer))
    }

    /// The same on any machine.
    pub fn connect_at(
        &mut self,
        namespace: &Namespace,
        pairing: &Pairing,
        node: &str,
        (own, peer): (SocketAddr, SocketAddr),
    ) -> Result<()> {
        let ends = pairing.config.sync_ends(node).context("the pair has a sync link")?;
        let identity = Identity::derive(pairing.key.as_bytes(), ends.own_node, ends.peer_node);
        let settings = Settings {
            node: ends.own_node.to_owned(),
            peer: ends.peer_node.to_owned(),
            boot: fastrand::u64(..),
            checksum: pairing.config.short_checksum(),
            versions: VERSIONS,
            pools: replicated_pools(&pairing.config),
            limits: replicated_limits(&pairing.config),
        };
        let identity = identity.map_err(|reason| anyhow!(reason))?;
        let (sessions, listens) = (Arc::clone(&self.sessions), ends.listens);
        // The link's thread lives in the namespace of the one that starts it.
        let started = namespace.run(|| {
            let end = if listens { End::Listen(listen::sync(own)?) } else { End::Connect { from: own.ip(), to: peer } };
            let pair = Some(peer::Pair { identity, end, peer: peer.ip(), settings });
            peer::start(peer::Setup { sessions, pair, apply: Box::new(|_| {}) })
        })?;
        self.link = Some(started?);
        Ok(())
    }

    pub fn status(&self) -> SyncStatus {
        self.link.as_ref().and_then(Link::status).unwrap_or_default()
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.status().state.as_str(), "connected" | "in_sync")
    }

    pub fn wait_until_in_sync(&self) -> Result<()> {
        Ok(wait_for("two tables to be in sync", PATIENCE, || self.status().in_sync.then_some(()))?)
    }

    pub fn entries(&self) -> usize {
        self.sessions.table.stats(self.pool).entries
    }

    /// Gives a key to the server of this number, counted on from the first as often as it takes.
    pub fn put(&self, key: &Key, number: u32) {
        let server = ServerRef { pool: self.pool, server: u16::try_from(number % u32::from(SERVERS)).unwrap_or(0) };
        self.sessions.table.put(key, server, self.sessions.now());
    }

    /// Which server a key belongs to.
    pub fn server(&self, key: &Key) -> Option<u16> {
        Some(self.sessions.table.find(key, self.sessions.now())?.server)
    }

    /// The keys of these users.
    pub fn keys(&self, tag: u32, count: u32) -> Result<Vec<Key>> {
        let key = |user| self.sessions.key(usize::from(self.pool), user_name(tag, user).as_bytes());
        (0..count).map(key).collect::<Option<Vec<_>>>().context("the pool has keys")
    }

    /// Entries for all of these.
    pub fn fill(&self, keys: &[Key]) {
        keys.iter().zip(0..).for_each(|(key, number)| self.put(key, number));
    }
}

impl Drop for LinkNode {
    fn drop(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.stop();
        }
    }
}

/// When something was so, looked at without a pause but for a fraction of a millisecond.
pub fn moment_when(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> Result<Instant> {
    let deadline = Instant::now() + within;
    loop {
        if is_so() {
            return Ok(Instant::now());
        }
        anyhow::ensure!(Instant::now() < deadline, "waited {within:?} in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}
