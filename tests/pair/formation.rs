//! How a pair comes about.

use std::time::Instant;

use libtest_mimic::Trial;

use crate::scene::{Outcome, Plan, Scene};
use crate::wire::Capture;

pub fn trials() -> Vec<Trial> {
    vec![Plan::usual().trial("fresh_pair_never_has_two_active_nodes", fresh_pair_never_has_two_active_nodes)]
}

fn fresh_pair_never_has_two_active_nodes(scene: &mut Scene) -> Outcome {
    let start = Instant::now();
    let captures = ["lb-a", "lb-b"].map(|node| Capture::start(scene.pair.topology(), node));
    let (active, standby) = scene.form()?;
    for (node, capture) in ["lb-a", "lb-b"].iter().zip(captures) {
        for seen in capture?.all() {
            println!("{node} {:?} {seen}", seen.at - start);
        }
    }
    anyhow::bail!("{active} {standby}");
}
