//! What is left of a cut once it is healed: one holder, whom clients find. And what else may leave clients with the wrong
//! node: one that wakes from a freeze, announcements that were lost.
//!
//! Two rounds of each; `BATON_HEAL_ROUNDS` for more, 20 for the figures. Noise of the machine only ever makes a time
//! longer. So every round has to stay within its figure and [`NOISE`], and the median within the figure itself.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton::lab::load::{Load, LoadSpec};
use baton::lab::pair::{NODES, SERVERS, TARGET, VIP};
use baton::lab::process::ProcessHandle;
use baton::status::Role;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::handover::{baton, said};
use crate::holders::HolderWatch;
use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};
use crate::split::{block_adverts, nft, unblock_adverts};
use crate::wire::{Content, Seen, hardware_address};

/// How much a machine that is busy with something else may add to a time.
const NOISE: Duration = Duration::from_millis(600);

/// How long nothing may have failed before a round.
const QUIET_TIME: Duration = Duration::from_millis(300);

/// Time between two probes, and for one of them.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

/// By then the announcements that follow a takeover are over but for the refresh.
const REPEATS_ARE_OVER_MS: u64 = 5_500;

/// How long a node is frozen.
const FREEZE: Duration = Duration::from_secs(4);

/// How the nodes are kept from hearing each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Adverts and hellos are lost, and nothing else.
    Heartbeat,
    /// Those of the better node alone.
    OneWay,
    /// Nothing passes to and from the active node, which keeps its carrier and sees its servers go.
    BlackHole,
    /// The same of the standby, which claims where nobody hears it.
    BlackHoleOfStandby,
    /// The active node has no carrier.
    Cable,
}

/// What one round took.
#[derive(Debug, Clone, Copy)]
struct Round {
    two_holders: Duration,
    outage: Duration,
}

impl Round {
    /// Draws the times from what was noted, and prints them.
    fn between(from: Instant, to: Instant, load: &Load, watch: &HolderWatch) -> Self {
        let outage = load.window(from, to).outage;
        let round = Self { two_holders: watch.time_with(2, from, to), outage: outage.length };
        let begun = outage.start.saturating_duration_since(from);
        println!("two holders {:?}, without service {:?} after {begun:?}", round.two_holders, round.outage);
        round
    }
}

/// Lines printed in the end.
static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints the figures of what was played.
pub fn print_table() {
    let table = TABLE.lock().unwrap();
    if !table.is_empty() {
        println!("after the cut is healed, the node wakes, or the announcements are lost: min / median / max\n");
        println!("| what | advert | two holders | without service | rounds |");
        println!("|---|---|---|---|---|");
        table.iter().for_each(|row| println!("{row}"));
    }
}

pub fn trials() -> Vec<Trial> {
    let cuts = [
        ("healed_heartbeat_leaves_one_holder_whom_clients_find", Cut::Heartbeat),
        ("healed_heartbeat_of_one_side_leaves_one_holder_whom_clients_find", Cut::OneWay),
        ("healed_black_hole_leaves_one_holder_whom_clients_find", Cut::BlackHole),
        ("healed_black_hole_of_the_standby_leaves_one_holder_whom_clients_find", Cut::BlackHoleOfStandby),
        ("healed_cable_leaves_one_holder_whom_clients_find", Cut::Cable),
    ];
    let mut trials = Vec::new();
    for interval_ms in [100, 1_000] {
        for (name, cut) in cuts {
            let name = format!("{name}_at_{interval_ms}_ms");
            trials.push(Plan::every_ms(interval_ms).trial(&name, move |scene| heals(scene, cut)));
        }
        let name = format!("node_frozen_for_4_s_leaves_no_second_holder_at_{interval_ms}_ms");
        trials.push(Plan::every_ms(interval_ms).trial(&name, wakes));
    }
    trials.push(Plan::usual().trial("lost_announcements_are_made_up_for_within_a_second", first_announcements_lost));
    trials
}

fn rounds() -> usize {
    std::env::var("BATON_HEAL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// No client is without service for longer than two intervals after the heartbeat is back, and as long at most there
/// are two holders.
fn heals(scene: &mut Scene, cut: Cut) -> Outcome {
    scene.form()?;
    let (load, watch) = (probe(scene)?, HolderWatch::start(scene)?);
    let mut played = Vec::new();
    for number in 0..rounds() {
        played.push(heal_once(scene, &load, &watch, cut, number).with_context(|| format!("round {number}"))?);
    }
    let limit = scene.interval * 2;
    judge(&format!("{cut:?} healed"), scene.interval, &played, limit, limit)
}

/// The prober alone. What is asked of the wrong node is never answered; what a busy machine answers late is.
fn probe(scene: &Scene) -> anyhow::Result<Load> {
    let servers = SERVERS.iter().map(|name| (*name).to_owned()).collect();
    let steady = LoadSpec::steady(TARGET, servers);
    let spec = LoadSpec {
        probe_interval: PROBE_INTERVAL,
        probe_timeout: PROBE_TIMEOUT,
        busy_connections: 0,
        users: 0,
        ..steady
    };
    Ok(Load::start(scene.pair.client()?, spec)?)
}

fn heal_once(scene: &mut Scene, load: &Load, watch: &HolderWatch, cut: Cut, number: usize) -> anyhow::Result<Round> {
    // Of one side alone it makes two holders only while the better one is active.
    let number = if cut == Cut::OneWay { 0 } else { number };
    let (active, standby) = settled(scene, load, number)?;
    let [better, lesser] = NODES;
    let winner = if cut == Cut::Cable { standby } else { better };
    let captures = [scene.capture(better)?, scene.capture(lesser)?];
    let [of_winner, of_loser] =
        if winner == better { [&captures[0], &captures[1]] } else { [&captures[1], &captures[0]] };
    let strike = Instant::now();
    begin(scene, cut, (active, standby))?;
    part(scene, cut, (active, standby))?;
    let of_standby = if standby == winner { of_winner } else { of_loser };
    of_standby.wait("the other node to be active for a while", strike, 3, |seen| seen.priority().is_some())?;
    any_time_of_an_interval(scene);

    let healed = Instant::now();
    end(scene, cut, (active, standby))?;
    scene.wait_for_holder(winner, PATIENCE)?;
    let alone = Instant::now();
    if cut != Cut::Cable {
        of_winner.wait("the winner to announce again", healed, 1, |seen| seen.announces(VIP))?;
    }
    until("the client to know the winner", PATIENCE, || client_knows(scene, winner))?;
    until("clients to be served in peace", PATIENCE, || Ok(load.is_quiet(QUIET_TIME).then_some(())))?;
    of_winner.wait("the winner to go on", alone, 3, |seen| seen.priority().is_some())?;
    let now = Instant::now();
    assert_eq!(scene.formed()?.0, winner);
    assert_eq!(watch.time_with(0, healed, now), Duration::ZERO, "nobody held the VIP for a while");
    let claims = of_loser.since(alone + scene.interval);
    assert!(!claims.iter().any(is_claim), "the loser goes on: {claims:?}");
    Ok(Round::between(healed, now, load, watch))
}

/// By turns the better node is the active one and the other; what was before is over, and clients are served.
fn settled(scene: &mut Scene, load: &Load, number: usize) -> anyhow::Result<(&'static str, &'static str)> {
    let (mut active, mut standby) = scene.formed()?;
    if active == NODES[number % 2] {
        until("announcements to be over", PATIENCE, || {
            Ok((scene.vip(active)?.since_ms > REPEATS_ARE_OVER_MS).then_some(()))
        })?;
    } else {
        switch_over(scene, active)?;
        (active, standby) = (standby, active);
        assert_eq!(scene.formed()?, (active, standby));
    }
    until("both nodes to reach their servers", PATIENCE, || {
        Ok(NODES.iter().all(|node| servers_up(scene, node).is_ok_and(|up| up == SERVERS.len())).then_some(()))
    })?;
    until("clients to be served in peace", PATIENCE, || Ok(load.is_quiet(QUIET_TIME).then_some(())))?;
    Ok((active, standby))
}

/// Has the active node hand over: unlike a failure it can be repeated as often as one likes.
/// At once: connections that are handed on would have the client learn of the new holder without an announcement.
fn switch_over(scene: &Scene, active: &str) -> Outcome {
    until("the active node to hear the other over the link", PATIENCE, || {
        let says = scene.vip(active)?.peer_says;
        Ok(says.filter(|says| says.fit && says.age_ms < 2 * scene.interval.as_millis() as u64).map(drop))
    })?;
    let output = baton(scene, active, &["switchover", "--now"])?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(())
}

fn servers_up(scene: &Scene, node: &str) -> anyhow::Result<usize> {
    let servers = scene.status(node)?.pools.into_iter().flat_map(|pool| pool.servers);
    Ok(servers.filter(|server| server.up && server.checked).count())
}

/// What is waited for is tied to the adverts; an event of real life is not.
fn any_time_of_an_interval(scene: &Scene) {
    std::thread::sleep(scene.interval.mul_f64(fastrand::f64()));
}

fn begin(scene: &Scene, cut: Cut, (active, standby): (&str, &str)) -> Outcome {
    match cut {
        Cut::Heartbeat => block_adverts(scene, &NODES)?,
        Cut::OneWay => block_adverts(scene, &NODES[..1])?,
        Cut::BlackHole => scene.pair.topology().isolate(active)?,
        Cut::BlackHoleOfStandby => scene.pair.topology().isolate(standby)?,
        Cut::Cable => scene.pair.topology().cut_cable(active)?,
    }
    Ok(())
}

fn end(scene: &Scene, cut: Cut, (active, standby): (&str, &str)) -> Outcome {
    match cut {
        Cut::Heartbeat | Cut::OneWay => unblock_adverts(scene)?,
        Cut::BlackHole => scene.pair.topology().rejoin(active)?,
        Cut::BlackHoleOfStandby => scene.pair.topology().rejoin(standby)?,
        Cut::Cable => scene.pair.topology().restore_cable(active)?,
    }
    Ok(())
}

/// Waits until the cut has had its effect.
fn part(scene: &Scene, cut: Cut, (active, standby): (&str, &str)) -> Outcome {
    match cut {
        Cut::Cable => scene.wait_for_holder(standby, PATIENCE)?,
        Cut::Heartbeat | Cut::OneWay | Cut::BlackHole | Cut::BlackHoleOfStandby => {
            for node in NODES {
                scene.wait_for_role(node, Role::Active, PATIENCE)?;
            }
            assert_eq!(scene.holders()?, NODES);
        }
    }
    let alone = match cut {
        Cut::BlackHole => Some(active),
        Cut::BlackHoleOfStandby => Some(standby),
        Cut::Heartbeat | Cut::OneWay | Cut::Cable => None,
    };
    if let Some(alone) = alone {
        let misses = || Ok((servers_up(scene, alone)? == 0).then_some(()));
        until("the node that is alone to miss its servers", PATIENCE, misses)?;
    }
    let known = match cut {
        Cut::Heartbeat | Cut::BlackHole | Cut::Cable => standby,
        Cut::BlackHoleOfStandby => active,
        // Each of them announces when it hears of the other.
        Cut::OneWay => return Ok(()),
    };
    until("the client to know one node", PATIENCE, || client_knows(scene, known))?;
    Ok(())
}

/// Whether the client's kernel sends what is for the VIP to this node.
fn client_knows(scene: &Scene, node: &str) -> anyhow::Result<Option<()>> {
    let hardware = scene.node(node).namespace().run(hardware_address)??.to_string();
    // Another thread of this process is in the namespace of the client for the time of the question.
    let table = scene.pair.client()?.run(|| fs::read_to_string("/proc/thread-self/net/arp"))??;
    let address = VIP.to_string();
    let entry = table.lines().find(|line| line.split_whitespace().next() == Some(&address));
    Ok(entry.is_some_and(|line| line.contains(&hardware)).then_some(()))
}

/// A resignation that waited for the cable is none.
fn is_claim(seen: &Seen) -> bool {
    let answers = matches!(seen.content, Content::Arp { operation: 2, sender, .. } if sender == VIP);
    seen.priority().is_some_and(|priority| priority != 0) || seen.announces(VIP) || answers
}

/// A whole node stands still for four seconds and goes on. It neither says nor answers anything for the VIP once it had
/// the chance to take it off.
fn wakes(scene: &mut Scene) -> Outcome {
    scene.form()?;
    let (load, watch) = (probe(scene)?, HolderWatch::start(scene)?);
    let mut played = Vec::new();
    for number in 0..rounds() {
        played.push(wake_once(scene, &load, &watch, number).with_context(|| format!("round {number}"))?);
    }
    judge("node woken", scene.interval, &played, scene.interval, scene.interval * 2)
}

fn wake_once(scene: &mut Scene, load: &Load, watch: &HolderWatch, number: usize) -> anyhow::Result<Round> {
    let (active, standby) = settled(scene, load, number)?;
    let (of_active, of_standby) = (scene.capture(active)?, scene.capture(standby)?);
    let guard = ProcessHandle::open(scene.node(active).guard_pid().context("the guard runs")?)?;
    let children = scene.node_mut(active).children()?;
    any_time_of_an_interval(scene);
    let frozen = Instant::now();
    guard.signal(Signal::STOP)?;
    children.iter().try_for_each(|child| child.signal(Signal::STOP))?;
    let left = FREEZE.saturating_sub(frozen.elapsed());
    scene.holds_for("the frozen node keeps its VIP", left, || scene.holds(active))?;
    ensure!(scene.holds(standby)?, "the other node has not taken over in four seconds");
    until("clients to be served in peace", PATIENCE, || Ok(load.is_quiet(Duration::from_millis(50)).then_some(())))?;

    let woken = Instant::now();
    guard.signal(Signal::CONT)?;
    children.iter().try_for_each(|child| child.signal(Signal::CONT))?;
    scene.wait_for_holder(standby, PATIENCE)?;
    scene.wait_for_role(active, Role::Standby, PATIENCE)?;
    of_standby.wait("the other node to go on", Instant::now(), 3, |seen| seen.priority().is_some())?;
    let now = Instant::now();
    let claims: Vec<Seen> = of_active.since(woken).into_iter().filter(is_claim).collect();
    assert!(claims.is_empty(), "{active} claimed the VIP after it woke: {claims:?}");
    assert_eq!(scene.formed()?, (standby, active));
    Ok(Round::between(woken, now, load, watch))
}

/// As many announcements are lost as keepalived sends at a takeover, before it waits for five seconds.
fn first_announcements_lost(scene: &mut Scene) -> Outcome {
    scene.form()?;
    let (load, watch) = (probe(scene)?, HolderWatch::start(scene)?);
    let mut played = Vec::new();
    for number in 0..rounds() {
        played.push(lose_announcements_once(scene, &load, &watch, number)?);
    }
    judge("5 announcements lost", scene.interval, &played, scene.interval, Duration::from_secs(1))
}

fn lose_announcements_once(
    scene: &mut Scene,
    load: &Load,
    watch: &HolderWatch,
    number: usize,
) -> anyhow::Result<Round> {
    let (active, standby) = settled(scene, load, number)?;
    let rules = format!(
        "table netdev lost {{ chain first {{ type filter hook ingress device \"{standby}\" priority 0; \
         arp saddr ip {VIP} arp daddr ip {VIP} numgen inc mod 1000 < 5 drop; }}; }}\n"
    );
    nft(scene, &rules)?;
    let struck = Instant::now();
    switch_over(scene, active)?;
    until("the client to know the new holder", PATIENCE, || client_knows(scene, standby))?;
    until("clients to be served in peace", PATIENCE, || Ok(load.is_quiet(QUIET_TIME).then_some(())))?;
    let now = Instant::now();
    nft(scene, "delete table netdev lost\n")?;
    let round = Round::between(struck, now, load, watch);
    ensure!(round.outage >= Duration::from_millis(200), "no announcement was lost: {:?}", round.outage);
    Ok(round)
}

/// Writes the rounds down, and holds them against the limits of the two times.
fn judge(what: &str, interval: Duration, played: &[Round], two_max: Duration, outage_max: Duration) -> Outcome {
    let two = Spread::of(played.iter().map(|round| round.two_holders));
    let outage = Spread::of(played.iter().map(|round| round.outage));
    let row = format!("| {what} | {} ms | {two} | {outage} | {} |", interval.as_millis(), played.len());
    TABLE.lock().unwrap().push(row.clone());
    ensure!(two.median <= two_max && two.max <= two_max + NOISE, "two holders for longer than {two_max:?}: {row}");
    ensure!(
        outage.median <= outage_max && outage.max <= outage_max + NOISE,
        "without service for longer than {outage_max:?}: {row}"
    );
    Ok(())
}

/// The least, the middle and the most of some times.
struct Spread {
    min: Duration,
    median: Duration,
    max: Duration,
}

impl Spread {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        Self {
            min: times[0],
            median: (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2,
            max: times[times.len() - 1],
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(f, "{:.1} / {:.1} / {:.1} ms", ms(self.min), ms(self.median), ms(self.max))
    }
}
