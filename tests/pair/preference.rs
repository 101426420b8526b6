//! Whom the VIP belongs to when both nodes could have it.

use baton::lab::pair::NODES;
use baton::status::Role;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene};

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("holder_keeps_the_vip_when_the_other_returns", holder_keeps_the_vip),
        Plan::usual().prefer("lb-b").trial("preferred_node_takes_the_vip_back", preferred_node_takes_the_vip_back),
    ]
}

/// lb-a has the higher priority, and yet does not take the VIP back.
fn holder_keeps_the_vip(scene: &mut Scene) -> Outcome {
    let [first, second] = NODES;
    scene.node_mut(second).start()?;
    scene.wait_for_role(second, Role::Active, PATIENCE)?;
    scene.node_mut(first).start()?;
    assert_eq!(scene.formed()?, (second, first));
    let stays = || Ok(scene.holders()? == [second]);
    scene.holds_for("the holder keeps the VIP", scene.interval * 10, stays)?;
    assert_eq!(scene.vip(second)?.transitions, 2);
    Ok(())
}

fn preferred_node_takes_the_vip_back(scene: &mut Scene) -> Outcome {
    let [other, active] = NODES;
    // Nodes that start at the same moment may both become active, for the time that it takes to hear of one another.
    scene.form()?;
    scene.wait_for_holder(active, PATIENCE)?;
    scene.node_mut(active).stop(PATIENCE)?;
    scene.wait_for_holder(other, PATIENCE)?;
    scene.node_mut(active).start()?;
    scene.wait_for_holder(active, PATIENCE)?;
    assert_eq!(scene.formed()?, (active, other));
    let vip = scene.vip(active)?;
    assert_eq!((vip.priority, vip.reason.as_str()), (254, "peer has lower priority 250"));
    Ok(())
}
