//! Baton and keepalived start at once, and both take the VIP from a node of lower priority: whoever claims first, the one
//! of higher priority has it in the end.

use baton::lab::pair::NODES;
use baton::status::Role;
use libtest_mimic::Trial;

use super::keepalived::{Instance, Keepalived, OTHER, Preempt};
use crate::scene::{Outcome, PATIENCE, Plan, Scene};

const BATON: &str = NODES[0];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (transport, plan) in
        [("unicast", Plan::usual().patient().keyless()), ("multicast", Plan::usual().patient().keyless().multicast())]
    {
        let unicast = (transport == "unicast").then_some(("10.77.0.12", "10.77.0.11"));
        let name = format!("baton_wins_by_priority_at_a_common_start_over_{transport}");
        trials.push(plan.clone().prefer(BATON).trial(&name, move |scene| priority_decides(scene, unicast, BATON)));
        let name = format!("keepalived_wins_by_priority_at_a_common_start_over_{transport}");
        let low = plan.edit("address = \"10.77.0.11\"", "address = \"10.77.0.11\"\npriority = 50");
        trials.push(low.trial(&name, move |scene| priority_decides(scene, unicast, OTHER)));
    }
    trials
}

fn priority_decides(scene: &mut Scene, unicast: Option<(&'static str, &'static str)>, winner: &str) -> Outcome {
    let instance = Instance {
        name: "web".to_owned(),
        id: 51,
        version: 3,
        priority: 100,
        interval: scene.interval,
        preempt: Preempt::AtOnce,
        unicast,
        addresses: vec!["10.77.0.100/24 dev eth0".to_owned()],
        extra: String::new(),
    };
    let keepalived = Keepalived::start(scene, &[instance])?;
    scene.node_mut(BATON).start()?;
    scene.wait_for_role(BATON, if winner == BATON { Role::Active } else { Role::Standby }, PATIENCE)?;
    keepalived.wait_for_state("web", if winner == OTHER { "MASTER" } else { "BACKUP" })?;
    scene.wait_for_holder(winner, PATIENCE)?;
    let is_alone = || Ok(scene.holders()? == [winner]);
    scene.holds_for(&format!("{winner} alone holds the VIP"), scene.interval * 10, is_alone)
}
