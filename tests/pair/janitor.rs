//! What happens to the VIP when the guard cannot see to it any more: killed, or stopped in its tracks.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;
use baton::lab::process::ProcessHandle;
use baton::status::Role;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::keeping::{MACVLANS, formed_with_macvlans, macvlans, virtual_mac};
use crate::scene::{Outcome, PATIENCE, Plan, Scene, shown, until};

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::every_ms(1_000)
            .trial("killed_guard_is_followed_at_once_at_any_interval", killed_guard_is_followed_at_once),
        Plan::usual()
            .multicast()
            .keyless()
            .trial("killed_guard_is_followed_at_once_without_a_key", resigns_without_a_key),
        Plan::usual()
            .edit("transport = \"unicast\"", "transport = \"udp\"")
            .trial("killed_guard_is_followed_at_once_over_udp_alone", resigns_over_udp),
        Plan::usual().trial("hung_guard_leaves_no_second_holder", hung_guard_leaves_no_second_holder),
        Plan::usual().trial("stopped_node_leaves_no_janitor_behind", stopped_node_leaves_no_janitor),
        Plan::usual().trial("standby_guard_that_is_killed_changes_nothing", killed_standby_changes_nothing),
        virtual_mac().trial("killed_guard_leaves_no_macvlan", killed_guard_leaves_no_macvlan),
        Plan::usual().trial("killed_janitor_is_replaced", killed_janitor_is_replaced),
        Plan::usual().trial("janitor_shows_no_secret", janitor_shows_no_secret),
    ]
}

/// Nobody waits for three intervals, which are three seconds here: somebody resigned in the guard's name.
fn killed_guard_is_followed_at_once(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let killed = Instant::now();
    scene.node_mut(active).kill_guard()?;
    scene.wait_for_holder(standby, scene.interval * 2)?;
    let took = killed.elapsed();
    assert!(took < scene.interval, "it took {took:?}");
    assert_eq!(scene.vip(standby)?.reason, "peer resigned");
    scene.node_mut(active).start()?;
    scene.formed()?;
    assert_eq!(scene.holders()?, [standby]);
    Ok(())
}

fn resigns_without_a_key(scene: &mut Scene) -> Outcome {
    expect_resignation(scene)
}

fn resigns_over_udp(scene: &mut Scene) -> Outcome {
    expect_resignation(scene)
}

fn expect_resignation(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    scene.node_mut(active).kill_guard()?;
    scene.wait_for_holder(standby, PATIENCE)?;
    assert_eq!(scene.vip(standby)?.reason, "peer resigned");
    Ok(())
}

/// The kernel of a machine whose guard hangs goes on to answer for the address.
fn hung_guard_leaves_no_second_holder(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    scene.node_mut(active).hang_guard()?;
    scene.wait_for_holder(standby, PATIENCE)?;
    scene.wait_for_role(standby, Role::Active, PATIENCE)?;
    // Whoever keeps the service running starts it again.
    until("the hung guard to be ended", PATIENCE, || Ok(scene.node_mut(active).exit_status()?.map(|_| ())))?;
    scene.node_mut(active).start()?;
    scene.formed()?;
    assert_eq!(scene.holders()?, [standby]);
    Ok(())
}

fn stopped_node_leaves_no_janitor(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let children = scene.node_mut(active).children()?;
    assert!(children.len() >= 2, "a worker and a janitor, and there are {}", children.len());
    let status = scene.node_mut(active).stop(PATIENCE)?;
    assert!(status.success(), "{status}");
    scene.wait_for_holder(standby, PATIENCE)?;
    until("every child to be gone", PATIENCE, || Ok(children.iter().all(|child| !child.is_running()).then_some(())))
}

fn killed_standby_changes_nothing(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let before = scene.vip(active)?.transitions;
    scene.node_mut(standby).kill_guard()?;
    let alone = || Ok(scene.holders()? == [active]);
    scene.holds_for("the VIP stays", Duration::from_secs(1), alone)?;
    assert_eq!(scene.vip(active)?.transitions, before);
    Ok(())
}

fn killed_guard_leaves_no_macvlan(scene: &mut Scene) -> Outcome {
    let (active, standby) = formed_with_macvlans(scene)?;
    // Returns when the janitor has ended too.
    scene.node_mut(active).kill_guard()?;
    assert!(macvlans(scene, active)?.is_empty());
    until("the other node to have them", PATIENCE, || Ok((macvlans(scene, standby)? == MACVLANS).then_some(())))?;
    assert_eq!(scene.vip(standby)?.reason, "peer resigned");
    Ok(())
}

fn killed_janitor_is_replaced(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let first = janitor(scene, active)?;
    first.signal(Signal::KILL)?;
    until("another janitor that is ready", PATIENCE, || {
        let pid = janitor(scene, active)?.pid();
        Ok((pid != first.pid() && is_ready(pid)).then_some(()))
    })?;
    let log = fs::read_to_string(scene.node(active).log())?;
    assert!(log.contains("the janitor has ended; another one is started"), "{log}");
    scene.node_mut(active).kill_guard()?;
    scene.wait_for_holder(standby, PATIENCE)?;
    assert_eq!(scene.vip(standby)?.reason, "peer resigned");
    Ok(())
}

/// The guard's janitor.
fn janitor(scene: &mut Scene, node: &str) -> anyhow::Result<ProcessHandle> {
    let children = scene.node_mut(node).children()?;
    let mut janitors = children.into_iter().filter(|child| shown(child.pid(), "cmdline").starts_with("baton janitor "));
    janitors.next().ok_or_else(|| anyhow::anyhow!("{node} has no janitor"))
}

/// Whether it has everything that it needs in the end: then it starts the thread that waits for it.
fn is_ready(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok()).any(|name| name == "lifeline\n")
}

/// Whoever may list processes sees the arguments, and whoever is root the environment.
fn janitor_shows_no_secret(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let pid = janitor(scene, active)?.pid();
    let (arguments, environment) = (shown(pid, "cmdline"), shown(pid, "environ"));
    let descriptor = arguments.strip_prefix("baton janitor ").unwrap_or_default().trim();
    ensure!(descriptor.parse::<u32>().is_ok(), "its arguments are {arguments:?}");
    let known = ["BATON_LOG=", "NO_COLOR=", "JOURNAL_STREAM=", "SSL_CERT_FILE=", "SSL_CERT_DIR="];
    let others: Vec<_> = environment
        .split_whitespace()
        .filter(|variable| !known.iter().any(|known| variable.starts_with(known)))
        .collect();
    ensure!(others.is_empty(), "its environment has {others:?}");
    Ok(())
}
