//! The matrix against keepalived: version, family and transport; who is preferred; how the active node fails; in either
//! direction. All VIPs live on one pair at once, each with its own row, and fail together, so that a few starts of
//! keepalived try every cell.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::Context;
use baton::lab::pair::NODES;
use baton::status::{Role, VipStatus};
use baton::units::IpNetwork;
use libtest_mimic::Trial as TestTrial;

use super::Loss;
use super::keepalived::{Keepalived, OTHER};
use super::rows::{HOLD, Preferred, SERVICE_INTERFACE, Special, Vip, configuration};
use super::table::{Direction, Table, Trial};
use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};

/// The node with Baton.
const BATON: &str = NODES[0];

/// What a busy machine may add to a takeover.
const GRACE: Duration = Duration::from_secs(1);

/// How long nothing may change before and after a takeover: more than the longest advert interval.
const SETTLE_TIME: Duration = Duration::from_millis(1200);

/// How long both nodes may have a VIP while it changes hands between two that live.
const OVERLAP_MAX: Duration = Duration::from_millis(200);

/// How often the kernels are asked.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

pub fn trials() -> Vec<TestTrial> {
    vec![Plan::usual().trial("interop_matrix_with_keepalived", |scene| Matrix::set_up(scene)?.run())]
}

/// All VIPs on a pair of Baton and keepalived.
struct Matrix<'scene> {
    scene: &'scene mut Scene,
    vips: Vec<Vip>,
    table: Table,
    /// When a node was last started.
    started: Instant,
}

impl<'scene> Matrix<'scene> {
    fn set_up(scene: &'scene mut Scene) -> anyhow::Result<Self> {
        let vips = Vip::all();
        fs::write(scene.config(), configuration(&vips))?;
        let password = scene.pair.directory().join("vrrp-password");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(password)?;
        std::io::Write::write_all(&mut file, b"open-ses\n")?;
        for (name, last) in [(BATON, 0x11), (OTHER, 0x12)] {
            let address =
                IpNetwork::new(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last), 64).context("a prefix length")?;
            scene.pair.topology().add_address(name, address)?;
            add_service_interface(scene, name)?;
            scene.pair.topology().wait_until_addressed(name)?;
        }
        Ok(Self { scene, vips, table: Table::default(), started: Instant::now() })
    }

    fn run(mut self) -> Outcome {
        let mut keepalived = self.start_keepalived()?;
        self.wait_for_holders(|_| OTHER)?;
        self.start_baton()?;
        self.expect_standing("keepalived first", |_| OTHER)?;
        self.lose_keepalived(&mut keepalived, Loss::Stopped, |_| true)?;

        keepalived = self.start_keepalived()?;
        self.expect_backup(&keepalived)?;
        self.expect_standing("keepalived came back", |_| BATON)?;
        self.lose_baton(&keepalived, Loss::Stopped)?;

        self.start_baton()?;
        self.expect_standing("baton came back", |_| OTHER)?;
        self.lose_keepalived(&mut keepalived, Loss::Killed, |_| true)?;

        keepalived = self.start_keepalived()?;
        self.expect_backup(&keepalived)?;
        self.expect_standing("keepalived came back from its death", |_| BATON)?;
        self.lose_baton(&keepalived, Loss::Killed)?;

        self.start_baton()?;
        self.expect_standing("baton came back from its death", |_| OTHER)?;
        self.expect_return(Direction::ToBaton, Preferred::Baton)?;
        self.expect_standing("baton took back", |vip| holder(vip, Preferred::Baton, BATON, OTHER))?;
        self.lose_keepalived(&mut keepalived, Loss::Stopped, |vip| vip.preferred != Preferred::Baton)?;

        keepalived = self.start_keepalived()?;
        self.expect_backup(&keepalived)?;
        self.expect_return(Direction::ToKeepalived, Preferred::Keepalived)?;
        self.expect_standing("keepalived took back", |vip| holder(vip, Preferred::Keepalived, OTHER, BATON))?;

        println!("\n{}\n", self.table);
        let failures = self.table.failures();
        anyhow::ensure!(
            failures.is_empty(),
            "{} of {} cells failed:\n{}",
            failures.len(),
            self.table.len(),
            failures.join("\n")
        );
        // 6 rows with 3 preferences, 4 losses each; 12 returns; 8 rows with 4 losses.
        anyhow::ensure!(self.table.len() == 6 * 3 * 4 + 12 + 8 * 4, "there are {} cells", self.table.len());
        Ok(())
    }

    fn start_keepalived(&mut self) -> anyhow::Result<Keepalived> {
        self.started = Instant::now();
        let instances: Vec<_> = self.vips.iter().map(Vip::instance).collect();
        Keepalived::start(self.scene, &instances)
    }

    /// Starts Baton, and waits until it has heard keepalived for every VIP.
    fn start_baton(&mut self) -> Outcome {
        self.started = Instant::now();
        self.scene.node_mut(BATON).start()?;
        until("baton to hear keepalived for every VIP", PATIENCE, || {
            let statuses = self.statuses()?;
            let mut waiting = statuses.iter().filter(|(_, vip)| vip.role != Role::Standby || vip.peer.is_none());
            match waiting.next() {
                None if statuses.len() == self.vips.len() => Ok(Some(())),
                None => Ok(None),
                Some((name, vip)) => anyhow::bail!("{name} is {} and heard {:?}", vip.role, vip.peer),
            }
        })?;
        // Learned from keepalived's adverts, and not three times its own interval of 200 ms.
        let statuses = self.statuses()?;
        let slow = self.vips.iter().filter(|vip| vip.row.special == Special::SlowBaton);
        let patience: Vec<u64> = slow.filter_map(|vip| Some(statuses.get(&vip.name)?.patience_ms)).collect();
        anyhow::ensure!(patience == [302], "baton waits for {patience:?} ms of silence");
        Ok(())
    }

    fn expect_backup(&self, keepalived: &Keepalived) -> Outcome {
        self.vips.iter().try_for_each(|vip| keepalived.wait_for_state(&vip.name, "BACKUP"))
    }

    fn statuses(&self) -> anyhow::Result<BTreeMap<String, VipStatus>> {
        Ok(self.scene.status(BATON)?.vips.into_iter().map(|vip| (vip.name.clone(), vip)).collect())
    }

    /// Every address that a node has.
    fn carried(&self, node: &str) -> anyhow::Result<Vec<IpAddr>> {
        let topology = self.scene.pair.topology();
        let mut carried = topology.carried(node)?;
        carried.extend(topology.carried_on(node, SERVICE_INTERFACE)?);
        Ok(carried)
    }

    fn wait_for_holders(&self, holder: impl Fn(&Vip) -> &'static str) -> Outcome {
        until("every VIP to be where it belongs", PATIENCE, || {
            let misplaced = self.misplaced(&holder)?;
            if misplaced.is_empty() { Ok(Some(())) } else { anyhow::bail!("{}", misplaced.join(", ")) }
        })
    }

    /// The VIPs that are not on exactly the node where they belong, by the kernels' word.
    fn misplaced(&self, holder: impl Fn(&Vip) -> &'static str) -> anyhow::Result<Vec<String>> {
        let [ours, theirs] = [self.carried(BATON)?, self.carried(OTHER)?];
        let wrong = self.vips.iter().filter_map(|vip| {
            let found = (share(vip, &ours), share(vip, &theirs));
            let expected = if holder(vip) == BATON { (Share::All, Share::None) } else { (Share::None, Share::All) };
            (found != expected)
                .then(|| format!("{} ({}): baton has {:?}, keepalived {:?}", vip.name, vip.row, found.0, found.1))
        });
        Ok(wrong.collect())
    }

    /// Nobody takes or loses anything for a while, and Baton has refused nothing.
    fn expect_standing(&mut self, when: &str, holder: impl Fn(&Vip) -> &'static str) -> Outcome {
        self.wait_for_holders(&holder)?;
        let end = Instant::now() + SETTLE_TIME;
        while Instant::now() < end {
            let misplaced = self.misplaced(&holder)?;
            anyhow::ensure!(misplaced.is_empty(), "{when}, and it does not last: {}", misplaced.join(", "));
            std::thread::sleep(POLL_INTERVAL);
        }
        for (name, vip) in self.statuses()? {
            anyhow::ensure!(vip.adverts_dropped.is_empty(), "{when}: {name} has dropped {:?}", vip.adverts_dropped);
            anyhow::ensure!(vip.faults.is_empty(), "{when}: {name} has faults {:?}", vip.faults);
        }
        Ok(())
    }

    /// Ends keepalived, and sees Baton take over what is `lost`.
    fn lose_keepalived(&mut self, keepalived: &mut Keepalived, loss: Loss, lost: impl Fn(&Vip) -> bool) -> Outcome {
        let trial = Trial::Loss(Direction::ToBaton, loss);
        let before = self.carried(BATON)?;
        let from = Instant::now();
        let ended = keepalived.begin_to_lose(loss)?;
        let living = (loss == Loss::Stopped).then_some(OTHER);
        let watched = self.watch(&Move { from, to: BATON, living, loss: Some(loss), before }, lost)?;
        keepalived.end(ended)?;
        let statuses = self.statuses()?;
        for (vip, outcome) in self.vips.iter().zip(watched) {
            let Some(outcome) = outcome else { continue };
            let outcome = outcome.and_then(|took| {
                check_baton(vip, statuses.get(&vip.name), loss)?;
                check_keepalived(vip, keepalived)?;
                Ok(took)
            });
            self.table.note(vip, trial, outcome);
        }
        Ok(())
    }

    /// Ends Baton, and sees keepalived take over everything.
    fn lose_baton(&mut self, keepalived: &Keepalived, loss: Loss) -> Outcome {
        let trial = Trial::Loss(Direction::ToKeepalived, loss);
        let before = self.carried(OTHER)?;
        let from = Instant::now();
        match loss {
            Loss::Stopped => self.scene.node_mut(BATON).ask_to_stop()?,
            Loss::Killed => self.scene.node_mut(BATON).kill_all()?,
        }
        let living = (loss == Loss::Stopped).then_some(BATON);
        let watched = self.watch(&Move { from, to: OTHER, living, loss: Some(loss), before }, |_| true)?;
        if loss == Loss::Stopped {
            self.scene.node_mut(BATON).wait_stopped(PATIENCE)?;
        }
        for (vip, outcome) in self.vips.iter().zip(watched) {
            let Some(outcome) = outcome else { continue };
            let said = keepalived.state(&vip.name)?;
            let outcome = outcome.and_then(|took| match said {
                Some("MASTER") => Ok(took),
                other => Err(format!("keepalived says that it is {other:?}")),
            });
            self.table.note(vip, trial, outcome);
        }
        Ok(())
    }

    /// The preferred node takes back what it should after its hold time, and the rest stays.
    fn expect_return(&mut self, direction: Direction, preferred: Preferred) -> Outcome {
        let (to, from) = if direction == Direction::ToBaton { (BATON, OTHER) } else { (OTHER, BATON) };
        let change = Move { from: self.started, to, living: Some(from), loss: None, before: Vec::new() };
        let watched = self.watch(&change, |vip| vip.preferred == preferred)?;
        for (vip, outcome) in self.vips.iter().zip(watched) {
            if let Some(outcome) = outcome {
                self.table.note(vip, Trial::Return(direction), outcome);
            }
        }
        Ok(())
    }

    /// Waits until the new holder has every wanted VIP, and says for each when it had, or what was wrong.
    fn watch(
        &self,
        change: &Move<'_>,
        wanted: impl Fn(&Vip) -> bool,
    ) -> anyhow::Result<Vec<Option<Result<u128, String>>>> {
        let mut watched: Vec<Watched> = self.vips.iter().map(|_| Watched::default()).collect();
        let patience = HOLD + PATIENCE;
        let mut settled_at = None;
        loop {
            // In this order both are read to have a VIP only when they have it at one time.
            let ours = self.carried(change.to)?;
            let at = Instant::now();
            let theirs = change.living.map(|node| self.carried(node)).transpose()?.unwrap_or_default();
            let mut is_waiting = false;
            for (vip, watched) in self.vips.iter().zip(&mut watched).filter(|(vip, _)| wanted(vip)) {
                watched.look(vip, at.duration_since(change.from), at, &ours, &theirs);
                is_waiting |= watched.gained.is_none() || watched.is_shared;
            }
            if !is_waiting && settled_at.is_none() {
                settled_at = Some(at);
            }
            let is_over = settled_at.is_some_and(|settled| at.duration_since(settled) > SETTLE_TIME);
            if is_over || at.duration_since(change.from) > patience {
                break;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let outcome = |(vip, watched): (&Vip, Watched)| {
            wanted(vip).then(|| match share(vip, &change.before) {
                Share::None => watched.outcome(change.limit(vip)),
                Share::Some | Share::All => Err("the other node had it already".to_owned()),
            })
        };
        Ok(self.vips.iter().zip(watched).map(outcome).collect())
    }
}

/// Where a VIP goes that one of the nodes takes back, and all others.
fn holder(vip: &Vip, preferred: Preferred, preferred_node: &'static str, other: &'static str) -> &'static str {
    if vip.preferred == preferred { preferred_node } else { other }
}

/// A move of VIPs from one node to the other.
struct Move<'node> {
    /// When it began.
    from: Instant,
    /// The new holder.
    to: &'node str,
    /// The old one, where it lives to give the VIPs up.
    living: Option<&'node str>,
    /// How the old one was lost; `None` when the new one takes back what is preferred to be there.
    loss: Option<Loss>,
    /// What the new one had before.
    before: Vec<IpAddr>,
}

impl Move<'_> {
    /// A resignation is followed within the skew, which Baton does not wait for; silence after three intervals and the
    /// skew. keepalived lets its hold time pass, and then ignores the other node until that counts as silent.
    fn limit(&self, vip: &Vip) -> Duration {
        let interval = vip.baton_interval().max(vip.keepalived_interval());
        GRACE
            + match (self.loss, self.to) {
                (Some(Loss::Stopped), BATON) => Duration::ZERO,
                (Some(Loss::Stopped), _) => interval,
                (Some(Loss::Killed), _) => interval * 4,
                (None, _) => HOLD + interval * 4,
            }
    }
}

/// How much of a VIP a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    All,
    Some,
    None,
}

fn share(vip: &Vip, carried: &[IpAddr]) -> Share {
    let has = |address: &&String| address.parse().is_ok_and(|address: IpAddr| carried.contains(&address));
    match vip.addresses.iter().filter(has).count() {
        0 => Share::None,
        count if count == vip.addresses.len() => Share::All,
        _ => Share::Some,
    }
}

/// What was seen of a VIP while it changed hands.
#[derive(Debug, Default)]
struct Watched {
    /// When the new holder had all of it.
    gained: Option<Duration>,
    /// The new holder did not keep it.
    is_lost: bool,
    /// Both have some of it now.
    is_shared: bool,
    /// When both first had some of it.
    shared_since: Option<Instant>,
    /// For how long both had some of it.
    overlap: Duration,
}

impl Watched {
    fn look(&mut self, vip: &Vip, elapsed: Duration, at: Instant, ours: &[IpAddr], theirs: &[IpAddr]) {
        let (ours, theirs) = (share(vip, ours), share(vip, theirs));
        self.is_lost |= self.gained.is_some() && ours != Share::All;
        if ours == Share::All {
            self.gained.get_or_insert(elapsed);
        }
        self.is_shared = ours != Share::None && theirs != Share::None;
        if self.is_shared {
            self.overlap = at.duration_since(*self.shared_since.get_or_insert(at));
        }
    }

    fn outcome(self, limit: Duration) -> Result<u128, String> {
        let Some(gained) = self.gained else { return Err("nobody took over".to_owned()) };
        if self.is_lost {
            return Err("it changed hands more than once".to_owned());
        }
        if self.is_shared || self.overlap > OVERLAP_MAX {
            return Err(format!("two held it for {} ms", self.overlap.as_millis()));
        }
        if gained > limit {
            return Err(format!("took {} ms, more than {}", gained.as_millis(), limit.as_millis()));
        }
        Ok(gained.as_millis())
    }
}

/// What Baton says after it took over.
fn check_baton(vip: &Vip, status: Option<&VipStatus>, loss: Loss) -> Result<(), String> {
    let status = status.ok_or("baton says nothing of it")?;
    let is_told = match loss {
        Loss::Stopped => status.reason == "peer resigned",
        Loss::Killed => status.reason.starts_with("no advert from the peer for "),
    };
    if status.role != Role::Active || !is_told {
        return Err(format!("baton is {} because {}", status.role, status.reason));
    }
    if status.transitions != 2 {
        return Err(format!("baton changed its role {} times", status.transitions));
    }
    if !status.adverts_dropped.is_empty() {
        return Err(format!("baton dropped {:?}", status.adverts_dropped));
    }
    let heard = status.peer.as_ref().map_or(0, |peer| peer.advert_interval_ms);
    if u128::from(heard) != vip.keepalived_interval().as_millis() {
        return Err(format!("baton heard of an interval of {heard} ms"));
    }
    Ok(())
}

/// A keepalived that lived for one tenure says so once.
fn check_keepalived(vip: &Vip, keepalived: &Keepalived) -> Result<(), String> {
    let said = keepalived.said().map_err(|error| error.to_string())?;
    let entered = said.matches(&format!("({}) Entering MASTER STATE", vip.name)).count();
    if entered == 1 { Ok(()) } else { Err(format!("keepalived became MASTER {entered} times")) }
}

/// Another interface for addresses, on a cable that ends in the same machine.
fn add_service_interface(scene: &Scene, name: &str) -> Outcome {
    let ip = crate::scene::find_program("ip", "iproute2")?;
    for arguments in ["link add svc0 type veth peer name svc1", "link set svc0 up", "link set svc1 up"] {
        let status = scene.node(name).namespace().command(&ip).args(arguments.split(' ')).status()?;
        anyhow::ensure!(status.success(), "ip {arguments}: {status}");
    }
    Ok(())
}
