//! How the active node is lost, and what becomes of it afterwards.

use std::time::{Duration, Instant};

use baton::lab::pair::{NODES, VIP};
use baton::lab::process::ProcessHandle;
use baton::status::Role;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};
use crate::wire::{Content, Seen};

/// Time for what happens at once, on a machine that is busy with something else.
const AT_ONCE: Duration = Duration::from_secs(1);

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("killed_worker_moves_the_vip_at_once", killed_worker_moves_the_vip_at_once),
        Plan::usual().trial("hung_worker_loses_the_vip_within_a_second", hung_worker_loses_the_vip_within_a_second),
        Plan::usual().trial("killed_guard_takes_its_worker_with_it", killed_guard_takes_its_worker_with_it),
        Plan::usual().trial("restarted_guard_removes_its_stale_vip", restarted_guard_removes_its_stale_vip),
        Plan::usual().trial("pulled_cable_releases_the_vip_at_once", pulled_cable_releases_the_vip_at_once),
        // Few checks of servers: what a worker sends makes its node known too.
        Plan::usual()
            .edit("interval = \"500ms\"", "interval = \"1h\"")
            .trial("returning_node_hears_the_holder_in_time", returning_node_hears_the_holder_in_time),
        Plan::usual().trial("stopped_node_resigns_and_leaves_nothing", stopped_node_resigns_and_leaves_nothing),
        Plan::usual().trial(
            "node_that_wakes_from_a_freeze_gives_the_vip_up_in_silence",
            node_that_wakes_from_a_freeze_gives_the_vip_up_in_silence,
        ),
        Plan::usual().trial("vip_deleted_by_another_program_comes_back", vip_deleted_by_another_program_comes_back),
    ]
}

fn killed_worker_moves_the_vip_at_once(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let capture = scene.capture(active)?;
    let from = Instant::now();
    scene.node(active).kill_worker()?;
    scene.wait_for_holder(standby, AT_ONCE)?;
    let adverts = capture.wait("a resignation", from, 1, |seen| seen.priority() == Some(0))?;
    assert_eq!(adverts.len(), 1);
    until("the worker to be back", PATIENCE, || Ok((scene.status(active)?.worker.state == "running").then_some(())))?;
    scene.wait_for_role(active, Role::Standby, PATIENCE)?;
    assert_eq!(scene.formed()?, (standby, active));
    let worker = scene.status(active)?.worker;
    assert_eq!((worker.restarts, worker.last_exit.as_deref()), (1, Some("it was killed by signal 9")));
    Ok(())
}

fn hung_worker_loses_the_vip_within_a_second(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    scene.node_mut(active).hang_worker()?;
    scene.wait_for_holder(standby, Duration::from_secs(1))?;
    assert_eq!(scene.vip(active)?.role, Role::Unfit);
    scene.node_mut(active).wake_worker();
    assert_eq!(scene.formed()?, (standby, active));
    Ok(())
}

fn killed_guard_takes_its_worker_with_it(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    // Fails when the worker is still there after a second.
    scene.node_mut(active).kill_guard()?;
    scene.wait_for_holder(standby, AT_ONCE)?;
    assert_eq!(scene.vip(standby)?.reason, "peer resigned");
    Ok(())
}

fn restarted_guard_removes_its_stale_vip(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    scene.node_mut(active).kill_all()?;
    until("the peer to take over", AT_ONCE, || Ok(scene.holds(standby)?.then_some(())))?;
    assert!(scene.holds(active)?, "nobody was there to take the VIP off");
    scene.node_mut(active).start()?;
    scene.wait_for_holder(standby, PATIENCE)?;
    assert_eq!(scene.formed()?, (standby, active));
    assert_eq!(scene.vip(active)?.transitions, 1);
    Ok(())
}

fn pulled_cable_releases_the_vip_at_once(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    scene.pair.topology().cut_cable(active)?;
    scene.wait_for_holder(standby, AT_ONCE)?;
    let vip = scene.vip(active)?;
    assert_eq!((vip.role, vip.faults), (Role::Unfit, vec!["interface eth0 has no carrier".to_owned()]));
    scene.pair.topology().restore_cable(active)?;
    scene.pair.topology().wait_until_linked(active)?;
    assert_eq!(scene.formed()?, (standby, active));
    Ok(())
}

/// While a node is unreachable the kernel of the other asks for its hardware address once a second, and keeps adverts
/// back until it is told. A node that returns in between hears nothing, and must not take that for silence.
fn returning_node_hears_the_holder_in_time(scene: &mut Scene) -> Outcome {
    for node in NODES {
        scene.forget_neighbours_fast(node)?;
    }
    let (active, standby) = scene.form()?;
    let of_standby = scene.capture(standby)?;
    scene.node_mut(active).kill_guard()?;
    scene.pair.topology().cut_cable(active)?;
    let cut = Instant::now();
    until("the peer to take over", AT_ONCE, || Ok(scene.holds(standby)?.then_some(())))?;
    let asks = |seen: &Seen| {
        let for_peer = matches!(seen.content, Content::Arp { target, .. } if target == scene.address(active));
        for_peer && seen.destination.is_broadcast()
    };
    of_standby.wait("the holder to ask everybody for its peer", cut, 1, asks)?;
    let of_active = scene.capture(active)?;
    let restored = Instant::now();
    scene.pair.topology().restore_cable(active)?;
    scene.pair.topology().wait_until_linked(active)?;
    scene.node_mut(active).start()?;
    scene.wait_for_role(active, Role::Standby, PATIENCE)?;
    of_standby.wait("the holder to go on", Instant::now(), 10, |seen| seen.priority().is_some())?;
    let adverts = of_active.priorities_since(restored);
    assert!(adverts.is_empty(), "{active} claimed the VIP of a living peer: {adverts:?}");
    assert_eq!(scene.formed()?, (standby, active));
    Ok(())
}

fn stopped_node_resigns_and_leaves_nothing(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let capture = scene.capture(active)?;
    let from = Instant::now();
    let status = scene.node_mut(active).stop(PATIENCE)?;
    assert_eq!(status.code(), Some(0));
    scene.wait_for_holder(standby, AT_ONCE)?;
    capture.wait("a resignation", from, 1, |seen| seen.priority() == Some(0))?;
    assert_eq!(capture.priorities_since(from).last(), Some(&0));
    scene.node_mut(active).start()?;
    assert_eq!(scene.formed()?, (standby, active));
    Ok(())
}

/// The whole node stands still for longer than its peer waits, as a suspended machine does, and goes on as if nothing
/// had happened. What it believes is old, so it says nothing before it has given the VIP up.
fn node_that_wakes_from_a_freeze_gives_the_vip_up_in_silence(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let (of_active, of_standby) = (scene.capture(active)?, scene.capture(standby)?);
    let guard = ProcessHandle::open(scene.node(active).guard_pid().expect("the guard runs"))?;
    let children = scene.node_mut(active).children()?;
    guard.signal(Signal::STOP)?;
    children.iter().try_for_each(|child| child.signal(Signal::STOP))?;
    let frozen = Instant::now();
    // Twenty adverts of the peer: two seconds, in which announcements of the frozen node's own takeover fall due.
    of_standby.wait("the peer to be active for long", frozen, 20, |seen| seen.priority() == Some(249))?;
    assert!(scene.holds(active)? && scene.holds(standby)?, "a frozen node still holds its VIP");
    let woken = Instant::now();
    guard.signal(Signal::CONT)?;
    children.iter().try_for_each(|child| child.signal(Signal::CONT))?;
    scene.wait_for_holder(standby, AT_ONCE)?;
    scene.wait_for_role(active, Role::Standby, PATIENCE)?;
    of_standby.wait("the peer to go on", Instant::now(), 10, |seen| seen.priority() == Some(249))?;
    let is_claim = |seen: &&Seen| seen.priority().is_some() || seen.announces(VIP);
    let claims: Vec<Seen> = of_active.since(woken).iter().filter(is_claim).cloned().collect();
    assert!(claims.is_empty(), "{active} claimed the VIP after it woke: {claims:?}");
    assert_eq!(scene.formed()?, (standby, active));
    Ok(())
}

/// Somebody else's tool took the address away: the active node puts it back.
fn vip_deleted_by_another_program_comes_back(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    scene.delete_vip(active)?;
    scene.wait_for_holder(active, PATIENCE)?;
    assert_eq!(scene.vip(active)?.transitions, 2, "no change of role is needed for that");
    Ok(())
}
