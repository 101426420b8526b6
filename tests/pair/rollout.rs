//! Authentication brought to a running pair, and its keys changed, one node after the other. There is no link between the
//! nodes here: they have nothing but adverts to hear each other by.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::ensure;
use baton::lab::pair::VIP;
use baton::status::Role;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};

/// What a test begins with; the next steps take its place in the configuration.
const FIRST_MODE: &str = "authentication = \"off\"";
const FIRST_KEYS: &str = "advert_keys = [{ id = 1, file = \"key1\" }]";

pub fn trials() -> Vec<Trial> {
    let plan = |mode: &str| {
        Plan::usual()
            .patient()
            .keyless()
            .edit("[pair]", format!("[pair]\n{FIRST_KEYS}"))
            .edit("virtual_router_id = 51", format!("virtual_router_id = 51\n{mode}"))
    };
    let enforce = "authentication = \"enforce\"";
    let modes = [FIRST_MODE, "authentication = \"receive_only\"", "authentication = \"permissive\"", enforce];
    let keys = [
        FIRST_KEYS,
        "advert_keys = [{ id = 1, file = \"key1\" }, { id = 2, file = \"key2\" }]",
        "advert_keys = [{ id = 2, file = \"key2\" }, { id = 1, file = \"key1\" }]",
        "advert_keys = [{ id = 2, file = \"key2\" }]",
    ];
    let refused = |scene: &mut Scene, other, reason| is_refused(scene, other, reason);
    vec![
        plan(FIRST_MODE).trial("authentication_is_rolled_out_node_by_node", move |scene| roll_out(scene, &modes)),
        plan(enforce).trial("advert_keys_are_changed_node_by_node", move |scene| roll_out(scene, &keys)),
        plan(enforce).trial("node_with_another_key_of_the_same_number_is_refused", move |scene| {
            refused(scene, "advert_keys = [{ id = 1, file = \"key2\" }]", "wrong_hmac")
        }),
        plan(enforce).trial("node_with_a_key_of_another_number_is_refused", move |scene| {
            refused(scene, "advert_keys = [{ id = 2, file = \"key1\" }]", "unknown_key")
        }),
        plan(enforce).trial("node_without_authentication_is_refused", move |scene| {
            is_refused_both_ways(scene, enforce, FIRST_MODE)
        }),
    ]
}

fn write_keys(scene: &Scene) -> Outcome {
    for (name, digit) in [("key1", "1"), ("key2", "2")] {
        let path = scene.pair.directory().join(name);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        std::io::Write::write_all(&mut file, digit.repeat(64).as_bytes())?;
    }
    Ok(())
}

/// Takes the pair from each setting to the next. Between two, every mixture of them is lived in: either node active, with
/// the old setting and with the new one.
fn roll_out(scene: &mut Scene, settings: &[&str; 4]) -> Outcome {
    write_keys(scene)?;
    let (mut active, mut standby) = scene.form()?;
    expect_peace(scene, active, standby)?;
    for change in settings.windows(2) {
        // The standby learns the new setting first.
        scene.edit_config(change[0], change[1])?;
        scene.node_mut(standby).stop(PATIENCE)?;
        join(scene, standby, active)?;
        // It becomes active, and the other is the standby with the old setting for once.
        scene.edit_config(change[1], change[0])?;
        move_vip(scene, active, standby)?;
        (active, standby) = (standby, active);
        join(scene, standby, active)?;
        // Then the other learns it too.
        scene.edit_config(change[0], change[1])?;
        scene.node_mut(standby).stop(PATIENCE)?;
        join(scene, standby, active)?;
    }
    Ok(())
}

/// Starts a node that is to be the standby of `active`.
fn join(scene: &mut Scene, standby: &str, active: &str) -> Outcome {
    let before = scene.vip(active)?.transitions;
    scene.node_mut(standby).start()?;
    until(&format!("{standby} to hear {active}"), PATIENCE, || {
        expect_one_holder(scene)?;
        let vip = scene.vip(standby)?;
        Ok((vip.role == Role::Standby && vip.peer.is_some()).then_some(()))
    })?;
    expect_peace(scene, active, standby)?;
    ensure!(scene.vip(standby)?.transitions == 1, "{standby} was more than the standby");
    ensure!(scene.vip(active)?.transitions == before, "{active} did not stay active");
    Ok(())
}

/// Has the active node stop, so that the other becomes active: it is asked to, or where nobody can ask, by a resignation.
fn move_vip(scene: &mut Scene, from: &str, to: &str) -> Outcome {
    scene.node_mut(from).ask_to_stop()?;
    until(&format!("{to} to hold the VIP"), PATIENCE, || {
        expect_one_holder(scene)?;
        Ok((scene.holders()? == [to]).then_some(()))
    })?;
    scene.node_mut(from).wait_stopped(PATIENCE)?;
    scene.wait_for_role(to, Role::Active, PATIENCE)?;
    let reason = scene.vip(to)?.reason;
    ensure!(["peer resigned", "peer handed over"].contains(&reason.as_str()), "{to} is active because {reason}");
    Ok(())
}

/// Ten intervals in which nothing moves, and no advert has been refused since either node was started.
fn expect_peace(scene: &Scene, active: &str, standby: &str) -> Outcome {
    let is_alone = || Ok(scene.holders()? == [active]);
    scene.holds_for(&format!("{active} alone holds the VIP"), scene.interval * 10, is_alone)?;
    for node in [active, standby] {
        let dropped = scene.vip(node)?.adverts_dropped;
        ensure!(dropped.is_empty(), "{node} has refused {dropped:?}");
    }
    Ok(())
}

/// By the kernels' word. Both are asked one after the other, so that the first is asked again.
fn expect_one_holder(scene: &Scene) -> Outcome {
    let holders = scene.holders()?;
    let are_two = holders.len() > 1 && scene.pair.topology().carries(&holders[0], VIP)?;
    assert!(!are_two, "both nodes hold the VIP");
    Ok(())
}

/// A node that is configured with something else hears nobody, says why, and does not take what somebody answers for.
fn is_refused(scene: &mut Scene, other: &'static str, reason: &str) -> Outcome {
    write_keys(scene)?;
    scene.node_mut("lb-a").start()?;
    scene.wait_for_role("lb-a", Role::Active, PATIENCE)?;
    scene.edit_config(FIRST_KEYS, other)?;
    scene.node_mut("lb-b").start()?;
    expect_stranger(scene, reason)
}

fn is_refused_both_ways(scene: &mut Scene, enforce: &str, off: &str) -> Outcome {
    write_keys(scene)?;
    scene.node_mut("lb-a").start()?;
    scene.wait_for_role("lb-a", Role::Active, PATIENCE)?;
    scene.edit_config(enforce, off)?;
    scene.node_mut("lb-b").start()?;
    expect_stranger(scene, "unexpected_trailer")?;
    // The other way round: the one that signs nothing is active.
    scene.node_mut("lb-b").stop(PATIENCE)?;
    scene.node_mut("lb-a").stop(PATIENCE)?;
    scene.node_mut("lb-a").start()?;
    scene.wait_for_role("lb-a", Role::Active, PATIENCE)?;
    scene.edit_config(off, enforce)?;
    scene.node_mut("lb-b").start()?;
    expect_stranger(scene, "missing_trailer")
}

fn expect_stranger(scene: &Scene, reason: &str) -> Outcome {
    until(&format!("lb-b to refuse 20 adverts as {reason}"), PATIENCE, || {
        expect_one_holder(scene)?;
        let vip = scene.vip("lb-b")?;
        let is_sole_reason = vip.adverts_dropped.keys().all(|counted| counted == reason);
        ensure!(is_sole_reason, "lb-b has refused {:?}", vip.adverts_dropped);
        Ok((vip.adverts_dropped.get(reason).is_some_and(|count| *count >= 20)).then_some(()))
    })?;
    let vip = scene.vip("lb-b")?;
    ensure!(vip.role == Role::Standby && vip.peer.is_none(), "lb-b is {} and heard {:?}", vip.role, vip.peer);
    let waiting = vip.waiting.unwrap_or_default();
    let expected = "another machine answers before anybody has claimed the vip";
    ensure!(waiting.starts_with(expected), "lb-b waits for {waiting:?}");
    ensure!(scene.holders()? == ["lb-a"], "the VIP is on {:?}", scene.holders()?);
    Ok(())
}
