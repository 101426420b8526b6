//! What happens to the VIP when the guard cannot see to it any more: killed, or stopped in its tracks.

use std::time::{Duration, Instant};

use baton::status::Role;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};

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
