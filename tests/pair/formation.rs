//! How a pair comes about.

use std::fs;
use std::time::Instant;

use baton::lab::pair::{NODES, SERVERS};
use baton::status::Role;
use libtest_mimic::Trial;

use crate::scene::{Outcome, Plan, Scene};
use crate::wire::Seen;

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("fresh_pair_never_has_two_active_nodes", fresh_pair_never_has_two_active_nodes),
        Plan::usual().trial("pair_forms_and_serves_from_one_node", pair_forms_and_serves_from_one_node),
        Plan::usual().trial("standby_listens_before_it_holds_the_vip", standby_listens_before_it_holds_the_vip),
    ]
}

/// Both start at once and hear nothing at first. The second node waits one interval more, and in it hears the first.
fn fresh_pair_never_has_two_active_nodes(scene: &mut Scene) -> Outcome {
    let start = Instant::now();
    let captures = [scene.capture(NODES[0])?, scene.capture(NODES[1])?];
    let (active, standby) = scene.form()?;
    let (of_active, of_standby) = if active == NODES[0] { (0, 1) } else { (1, 0) };
    captures[of_active].wait("ten adverts of the active node", start, 10, |seen| seen.priority().is_some())?;
    let strays: Vec<Seen> = captures[of_standby].all().into_iter().filter(|seen| seen.priority().is_some()).collect();
    // Started a hold apart to the millisecond, both claim at once; then one gives way before the next advert is due.
    if let (Some(first), Some(last)) = (strays.first(), strays.last()) {
        assert!(last.at - first.at < scene.interval, "{standby} claimed beside {active} for long: {strays:?}");
    }
    assert_eq!(scene.holders()?, [active]);
    Ok(())
}

fn pair_forms_and_serves_from_one_node(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    assert_eq!(scene.holders()?, [active]);
    assert_eq!(scene.vip(active)?.role, Role::Active);
    assert_eq!(scene.vip(standby)?.role, Role::Standby);
    let server = scene.pair.wait_until_serving(crate::scene::PATIENCE)?;
    assert!(SERVERS.contains(&server.as_str()), "{server} answered");
    let peer = scene.vip(standby)?.peer.expect("the standby hears the active node");
    assert_eq!((peer.priority, peer.advert_interval_ms), (scene.vip(active)?.priority, 100));
    Ok(())
}

/// It binds an address that it does not hold, without the sysctl that permits this to every program.
fn standby_listens_before_it_holds_the_vip(scene: &mut Scene) -> Outcome {
    let (_, standby) = scene.form()?;
    assert!(!scene.holds(standby)?);
    let read = |file: &'static str| scene.node(standby).namespace().run(move || fs::read_to_string(file));
    assert_eq!(read("/proc/sys/net/ipv4/ip_nonlocal_bind")??.trim(), "0");
    // 10.77.0.100:80 in the byte order of the file, in state LISTEN.
    let sockets = read("/proc/thread-self/net/tcp")??;
    let listening = sockets.lines().filter(|line| line.contains(": 64004D0A:0050 00000000:0000 0A "));
    assert!(listening.count() >= 1, "no listener on the VIP in\n{sockets}");
    Ok(())
}
