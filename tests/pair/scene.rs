//! The stage of one test: a pair in its own network, and ways to wait for what happens on it.

use std::fs;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use baton::lab::node::Node;
use baton::lab::pair::{NODES, Pair, PairSpec, VIP};
use baton::lab::process::{Process, log_tail};
use baton::lab::topology::INTERFACE;
use baton::net::netlink::Netlink;
use baton::status::{NodeStatus, Role, VipStatus};
use baton::units::{AdvertInterval, IpNetwork};
use libtest_mimic::Trial;

use crate::wire::Capture;

/// What a test returns.
pub type Outcome = anyhow::Result<()>;

/// Time for anything that has no limit of its own. A busy machine may be slow; a broken one is not worth more.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Time for a node to answer its control socket.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(3);

/// Lines of each log shown when a test fails.
const LOG_LINES: usize = 40;

/// What the pair of a test is like.
#[derive(Debug, Clone)]
pub struct Plan {
    interval_ms: u64,
    edits: Vec<(&'static str, String)>,
    has_own_program: bool,
}

impl Plan {
    /// 100 ms between adverts, unicast, no preferred node.
    pub fn usual() -> Self {
        Self { interval_ms: 100, edits: Vec::new(), has_own_program: false }
    }

    /// Another time between adverts.
    pub fn every_ms(interval_ms: u64) -> Self {
        Self { interval_ms, ..Self::usual() }
    }

    /// Adverts go to the multicast group.
    pub fn multicast(self) -> Self {
        self.edit(r#"transport = "unicast""#, r#"transport = "multicast""#)
    }

    /// The VIP goes back to `node` whenever it can.
    pub fn prefer(self, node: &str) -> Self {
        self.edit(
            "virtual_router_id = 51",
            format!("virtual_router_id = 51\nprefer = \"{node}\"\nprefer_hold = \"500ms\""),
        )
    }

    /// No pair key: neither signatures nor a link between the nodes.
    pub fn keyless(self) -> Self {
        self.edit("key_file = ", "# key_file = ")
    }

    /// A worker that a busy machine keeps waiting is not taken for hung.
    pub fn patient(self) -> Self {
        self.edit("[pair]", "[worker]\nprobe_timeout = \"5s\"\n\n[pair]")
    }

    /// The nodes run a copy of the program, which can be replaced.
    pub fn with_own_program(self) -> Self {
        Self { has_own_program: true, ..self }
    }

    /// Changes the generated configuration.
    pub fn edit(mut self, from: &'static str, to: impl Into<String>) -> Self {
        self.edits.push((from, to.into()));
        self
    }

    /// The time between adverts.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// A test on such a pair, whose nodes are not started yet.
    pub fn trial(self, name: &str, body: impl FnOnce(&mut Scene) -> Outcome + Send + 'static) -> Trial {
        Trial::test(name, move || Scene::build(&self)?.play(body).map_err(|error| format!("{error:#}").into()))
    }
}

/// A pair, and whatever else a test starts.
pub struct Scene {
    /// The pair.
    pub pair: Pair,
    /// The time between adverts.
    pub interval: Duration,
    /// Logs that are shown on failure besides those of the nodes.
    pub logs: Vec<PathBuf>,
    /// The program, where the nodes have one of their own.
    pub program: Option<PathBuf>,
}

impl Scene {
    /// Builds the network and writes the configuration.
    pub fn build(plan: &Plan) -> anyhow::Result<Self> {
        let own = std::env::temp_dir().join(format!("baton-{:016x}", fastrand::u64(..)));
        let own = plan.has_own_program.then_some(own);
        if let Some(own) = &own {
            fs::copy(program(), own)?;
        }
        let spec = PairSpec {
            program: own.clone().unwrap_or_else(program),
            advert_interval: AdvertInterval::new(plan.interval()).context("an interval of the wire")?,
            config_extra: String::new(),
            netns_prefix: None,
        };
        let scene = Self { pair: Pair::build(&spec)?, interval: plan.interval(), logs: Vec::new(), program: own };
        for (from, to) in &plan.edits {
            scene.edit_config(from, to)?;
        }
        Ok(scene)
    }

    /// Runs the test, and shows the logs when it fails.
    fn play(mut self, body: impl FnOnce(&mut Scene) -> Outcome) -> Outcome {
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&mut self)));
        if !matches!(outcome, Ok(Ok(()))) {
            self.show_logs();
        }
        drop(self);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn show_logs(&self) {
        let nodes = self.pair.nodes().iter().map(Node::log);
        for log in nodes.chain(self.logs.iter().cloned()) {
            eprintln!("--- the last lines of {}", log.display());
            log_tail(&log, LOG_LINES).iter().for_each(|line| eprintln!("{line}"));
        }
    }

    /// The configuration of both nodes.
    pub fn config(&self) -> PathBuf {
        self.pair.directory().join("baton.toml")
    }

    /// Replaces a part of it.
    pub fn edit_config(&self, from: &str, to: &str) -> Outcome {
        let text = fs::read_to_string(self.config())?;
        anyhow::ensure!(text.contains(from), "the configuration has no {from}");
        Ok(fs::write(self.config(), text.replacen(from, to, 1))?)
    }

    /// Starts both nodes, and gives the names of the active one and the other once the pair is healthy and serves.
    pub fn form(&mut self) -> anyhow::Result<(&'static str, &'static str)> {
        self.pair.start()?;
        self.formed()
    }

    /// Starts both nodes so that this one holds the VIP; returns both names as [`Scene::form`] does.
    pub fn form_on(&mut self, active: &'static str) -> anyhow::Result<(&'static str, &'static str)> {
        self.node_mut(active).start()?;
        until("the first node to hold the VIP", PATIENCE, || Ok(self.holds(active)?.then_some(())))?;
        let standby = if active == NODES[0] { NODES[1] } else { NODES[0] };
        self.node_mut(standby).start()?;
        self.formed()
    }

    /// The names of the active and the standby node, of two that run already.
    pub fn formed(&self) -> anyhow::Result<(&'static str, &'static str)> {
        let active = self.pair.wait_until_healthy(PATIENCE)?;
        self.pair.wait_until_serving(PATIENCE)?;
        Ok(if active == NODES[0] { (NODES[0], NODES[1]) } else { (NODES[1], NODES[0]) })
    }

    /// A node.
    pub fn node(&self, name: &str) -> &Node {
        self.pair.node(name).expect("tests name nodes of the pair")
    }

    /// A node's own address.
    pub fn address(&self, name: &str) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, if name == NODES[0] { 11 } else { 12 })
    }

    /// Lets the kernel of a node find out in two seconds, not fifty, that a neighbour does not answer any more.
    pub fn forget_neighbours_fast(&self, name: &str) -> Outcome {
        self.node(name).namespace().run(|| {
            fs::write("/proc/sys/net/ipv4/neigh/eth0/base_reachable_time_ms", "100")?;
            fs::write("/proc/sys/net/ipv4/neigh/eth0/delay_first_probe_time", "0")?;
            Ok(fs::write("/proc/sys/net/ipv4/neigh/eth0/ucast_solicit", "1")?)
        })?
    }

    /// A node, to do something to it.
    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        self.pair.node_mut(name).expect("tests name nodes of the pair")
    }

    /// Starts a node with something added to its environment, outside the pair's own care.
    pub fn start_with(&self, name: &str, environment: &[(&str, String)]) -> anyhow::Result<Process> {
        let mut command = self.node(name).namespace().command(program());
        command.arg("run").arg("--config").arg(self.config()).args(["--node", name]);
        command.arg("--runtime-dir").arg(self.node(name).runtime_dir());
        command.arg("--state-dir").arg(self.node(name).state_dir());
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        Ok(Process::spawn(name, command, &self.node(name).log())?)
    }

    /// What a node says about itself.
    pub fn status(&self, name: &str) -> anyhow::Result<NodeStatus> {
        Ok(self.node(name).status(STATUS_TIMEOUT)?)
    }

    /// What a node says about its VIP.
    pub fn vip(&self, name: &str) -> anyhow::Result<VipStatus> {
        self.status(name)?.vips.into_iter().next().ok_or_else(|| anyhow!("{name} has no VIP"))
    }

    /// Whether the interface of a node, or of another machine, carries the VIP.
    pub fn holds(&self, name: &str) -> anyhow::Result<bool> {
        Ok(self.pair.topology().carries(name, VIP)?)
    }

    /// Watches what a machine sends, from now on.
    pub fn capture(&self, host: &str) -> anyhow::Result<Capture> {
        Capture::start(self.pair.topology(), host)
    }

    /// Takes the VIP off a node behind its back, as somebody else's tool would.
    pub fn delete_vip(&self, name: &str) -> Outcome {
        self.node(name).namespace().run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let netlink = Netlink::open()?;
                let index = netlink.interface(INTERFACE).await?.index;
                let vip = IpNetwork::new(VIP, 24).context("a prefix length")?;
                anyhow::ensure!(netlink.remove_address(index, vip).await?, "the VIP was not there");
                Ok(())
            })
        })?
    }

    /// The nodes whose interfaces carry the VIP.
    pub fn holders(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.pair.holders()?)
    }

    /// Waits until `name` holds the VIP and no other node does, by the kernel's word.
    pub fn wait_for_holder(&self, name: &str, within: Duration) -> Outcome {
        let holders = || Ok((self.holders()? == [name]).then_some(()));
        until(&format!("{name} alone to hold the VIP"), within, holders)
    }

    /// Waits until a node says that it has this role.
    pub fn wait_for_role(&self, name: &str, role: Role, within: Duration) -> Outcome {
        until(&format!("{name} to be {role}"), within, || Ok((self.vip(name)?.role == role).then_some(())))
    }

    /// Looks at a condition for `time`, and fails as soon as it does not hold.
    pub fn holds_for(
        &self,
        what: &str,
        time: Duration,
        mut condition: impl FnMut() -> anyhow::Result<bool>,
    ) -> Outcome {
        let end = Instant::now() + time;
        while Instant::now() < end {
            anyhow::ensure!(condition()?, "it does not hold that {what}; the VIP is on {:?}", self.holders()?);
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Whoever runs it has it still.
        self.program.take().inspect(|program| drop(fs::remove_file(program)));
    }
}

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("BATON_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_baton")), PathBuf::from)
}

/// Another program that a test needs. Without it the test fails; it does not pass by not running.
pub fn find_program(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Programs for administrators are not in the PATH of an ordinary user.
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("this test needs the program {name}: install the package {package}"))
}

/// Waits until `condition` gives a value; an error of it is as good as none until the time is over.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let late = Instant::now() >= deadline;
        let last = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::new(),
            Err(error) => format!(" ({error:#})"),
        };
        if late {
            bail!("waited {} ms in vain for {what}{last}", within.as_millis());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A file of /proc whose parts are separated by zeros; empty when the process is gone.
pub fn shown(pid: u32, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
