//! Where the addresses are while a node holds the VIP: they stay there, whatever other programs and machines do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton::lab::pair::{NODES, VIP};
use baton::lab::process::ProcessHandle;
use baton::lab::topology::INTERFACE;
use baton::net::neighbour::{Announcer, announcement};
use baton::net::netlink::Netlink;
use baton::status::Role;
use baton::units::IpNetwork;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program, program, until};
use crate::surroundings::{ip, ip_on};
use crate::wire::hardware_address;

/// The IPv6 address of the VIP, in the tests that have one.
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);

/// The address on a second interface.
const ASIDE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 100);

/// Time for what happens at once, on a machine that is busy with something else.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The macvlans of virtual router 51.
pub const MACVLANS: [&str; 2] = ["bvr51.4", "bvr51.6"];

fn with_addresses(plan: Plan, addresses: &str) -> Plan {
    plan.edit(r#"addresses = ["10.77.0.100/24"]"#, format!("addresses = {addresses}"))
}

fn both_families() -> Plan {
    with_addresses(Plan::usual(), r#"["10.77.0.100/24", "2001:db8::100/64"]"#)
}

pub fn virtual_mac() -> Plan {
    both_families().edit("virtual_router_id = 51", "virtual_router_id = 51\nvirtual_mac = true")
}

fn two_interfaces() -> Plan {
    with_addresses(Plan::usual(), r#"["10.77.0.100/24", { address = "10.78.0.100/24", interface = "eth1" }]"#)
}

pub fn trials() -> Vec<Trial> {
    let announce = "virtual_router_id = 51\nannounce = { burst = 2, repeat = [\"50ms\"], refresh = \"1s\" }";
    let quiet = "virtual_router_id = 51\nannounce = { repeat = [], refresh = \"0s\" }";
    vec![
        both_families().trial("deleted_vip_is_back_at_once", deleted_vip_is_back_at_once),
        Plan::usual().trial("fight_over_the_vip_is_bounded_and_won", fight_over_the_vip_is_bounded_and_won),
        both_families().trial("ipv6_vip_is_usable_at_once_and_no_source", ipv6_vip_is_usable_at_once_and_no_source),
        with_addresses(Plan::every_ms(1000), r#"["10.77.0.100/24", "2001:db8::100/64"]"#)
            .trial("vip_that_failed_duplicate_detection_is_mended_and_told", vip_that_failed_duplicate_detection),
        two_interfaces().trial("vip_has_addresses_on_two_interfaces", vip_has_addresses_on_two_interfaces),
        two_interfaces().trial("vip_is_held_whole_or_not_at_all", vip_is_held_whole_or_not_at_all),
        Plan::usual().trial("standby_takes_a_stray_vip_off", standby_takes_a_stray_vip_off),
        Plan::usual()
            .edit("virtual_router_id = 51", announce)
            .trial("announcements_follow_the_configuration", announcements_follow_the_configuration),
        both_families().trial("ipv6_takeover_moves_the_neighbours", ipv6_takeover_moves_the_neighbours),
        Plan::usual()
            .edit("virtual_router_id = 51", quiet)
            .trial("strangers_claim_is_answered_and_told", strangers_claim_is_answered_and_told),
        virtual_mac().trial("virtual_mac_is_what_neighbours_learn", virtual_mac_is_what_neighbours_learn),
        virtual_mac().trial("virtual_mac_stays_through_a_failover", virtual_mac_stays_through_a_failover),
        virtual_mac().trial("deleted_macvlan_is_made_again", deleted_macvlan_is_made_again),
        virtual_mac().trial("macvlans_of_a_killed_node_are_removed", macvlans_of_a_killed_node_are_removed),
    ]
}

/// Takes an address off a node's interface as somebody else's tool would, and measures the time until it is back.
fn delete_and_wait(scene: &Scene, node: &str, address: IpAddr, prefix_len: u8) -> anyhow::Result<Duration> {
    scene.node(node).namespace().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let netlink = Netlink::open()?;
            let index = netlink.interface(INTERFACE).await?.index;
            let network = IpNetwork::new(address, prefix_len).context("a prefix length")?;
            let deleted = Instant::now();
            ensure!(netlink.remove_address(index, network).await?, "{address} was not there");
            while !netlink.all_addresses().await?.iter().any(|at| at.network.address() == address) {
                ensure!(deleted.elapsed() < PATIENCE, "{address} stays away");
            }
            Ok(deleted.elapsed())
        })
    })?
}

fn log_of(scene: &Scene, node: &str) -> String {
    scene.node(node).log_tail(1000).join("\n")
}

fn deleted_vip_is_back_at_once(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    for (address, prefix_len) in [(IpAddr::from(VIP), 24), (IpAddr::from(VIP6), 64)] {
        let capture = scene.capture(active)?;
        let from = Instant::now();
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(delete_and_wait(scene, active, address, prefix_len)?);
            // More than twenty in a second would be a fight.
            std::thread::sleep(Duration::from_millis(60));
        }
        times.sort();
        println!("{address} was back after {:?} (median of 10; {:?} to {:?})", times[5], times[0], times[9]);
        assert!(times[9] < AT_ONCE, "{address} was back after {times:?}");
        capture.wait("each return to be announced", from, 10, |seen| seen.announces(address))?;
    }
    let vip = scene.vip(active)?;
    assert_eq!((vip.addresses_restored, vip.transitions), (20, 2), "no change of role is needed for that");
    assert!(log_of(scene, active).contains("put back addresses that somebody else removed"));
    assert_eq!(scene.formed()?.0, active);
    Ok(())
}

fn fight_over_the_vip_is_bounded_and_won(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let begun = Instant::now();
    let mut deleted = 0;
    while begun.elapsed() < Duration::from_millis(2500) {
        if scene.delete_vip(active).is_ok() {
            deleted += 1;
        }
    }
    scene.wait_for_holder(active, PATIENCE)?;
    let restored = scene.vip(active)?.addresses_restored;
    assert!((21..=70).contains(&restored), "put back {restored} times in 2.5 s after {deleted} deletions");
    let log = log_of(scene, active);
    assert!(log.contains("another program fights for its addresses"), "{log}");
    assert!(log.matches("put back addresses").count() <= 8, "it may not fill the log");
    assert_eq!(scene.formed()?.0, active);
    Ok(())
}

fn ipv6_vip_is_usable_at_once_and_no_source(scene: &mut Scene) -> Outcome {
    for node in NODES {
        ip(
            scene.node(node),
            &format!("addr add 2001:db8::{}/64 dev eth0 nodad", if node == NODES[0] { 11 } else { 12 }),
        )?;
    }
    let (active, _) = scene.form()?;
    let shown = ip(scene.node(active), "-6 -o addr show to 2001:db8::100")?;
    assert!(shown.contains(" nodad ") && shown.contains(" deprecated ") && !shown.contains("tentative"), "{shown}");
    let route = ip(scene.node(active), "-6 route get 2001:db8::1:50")?;
    assert!(route.contains("src 2001:db8::11") || route.contains("src 2001:db8::12"), "{route}");
    Ok(())
}

/// Another machine has the address, and a program adds it in a way that lets the kernel find out.
fn vip_that_failed_duplicate_detection(scene: &mut Scene) -> Outcome {
    let [name, _] = NODES;
    scene.node_mut(name).start()?;
    scene.wait_for_role(name, Role::Active, PATIENCE)?;
    scene
        .node(name)
        .namespace()
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/router_solicitation_delay", "0"))??;
    ip_on(scene.pair.client()?, "addr add 2001:db8::100/64 dev eth0 nodad")?;
    let guard = ProcessHandle::open(scene.node(name).guard_pid().expect("the guard runs"))?;
    guard.signal(Signal::STOP)?;
    ip(scene.node(name), "addr del 2001:db8::100/64 dev eth0")?;
    ip(scene.node(name), "addr add 2001:db8::100/64 dev eth0")?;
    let failed = until("the kernel to find the other machine", AT_ONCE, || {
        Ok(ip(scene.node(name), "-6 -o addr show dadfailed")?.contains("2001:db8::100").then_some(()))
    });
    guard.signal(Signal::CONT)?;
    failed?;
    until("the address to be usable", PATIENCE, || {
        let shown = ip(scene.node(name), "-6 -o addr show to 2001:db8::100")?;
        Ok((shown.contains("nodad") && !shown.contains("dadfailed")).then_some(()))
    })?;
    let told = "vip web: the kernel found 2001:db8::100 in use at another machine (dadfailed)";
    until("the status to say so", AT_ONCE, || {
        Ok(scene.status(name)?.warnings.iter().any(|warning| warning.starts_with(told)).then_some(()))
    })?;
    assert_eq!(scene.vip(name)?.role, Role::Active);
    assert!(log_of(scene, name).contains("dadfailed"));
    Ok(())
}

/// A second interface on each node, on a wire of its own.
fn add_second_interfaces(scene: &Scene) -> Outcome {
    for node in NODES {
        ip(scene.node(node), "link add eth1 type veth peer name far")?;
        ip(scene.node(node), "link set far up")?;
        ip(scene.node(node), "link set eth1 up")?;
    }
    Ok(())
}

fn has_aside(scene: &Scene, node: &str) -> anyhow::Result<bool> {
    Ok(ip(scene.node(node), "-o addr show dev eth1").is_ok_and(|shown| shown.contains(&format!("{ASIDE}/24"))))
}

fn vip_has_addresses_on_two_interfaces(scene: &mut Scene) -> Outcome {
    add_second_interfaces(scene)?;
    let (active, standby) = scene.form()?;
    assert!(has_aside(scene, active)? && !has_aside(scene, standby)?);
    ip(scene.node(active), &format!("addr del {ASIDE}/24 dev eth1"))?;
    until("the second address to be back", AT_ONCE, || Ok(has_aside(scene, active)?.then_some(())))?;
    scene.node(active).kill_worker()?;
    until("the other node to have the second address alone", AT_ONCE, || {
        Ok((has_aside(scene, standby)? && !has_aside(scene, active)?).then_some(()))
    })?;
    scene.wait_for_holder(standby, AT_ONCE)
}

fn vip_is_held_whole_or_not_at_all(scene: &mut Scene) -> Outcome {
    add_second_interfaces(scene)?;
    let (active, standby) = scene.form()?;
    ip(scene.node(active), "link del eth1")?;
    scene.wait_for_holder(standby, PATIENCE)?;
    assert!(has_aside(scene, standby)?);
    // Where the kernel tells of the addresses before the carrier, putting them back is tried, fails, and counts as a fault
    // until the next review.
    until("the reason", PATIENCE, || {
        let faults = scene.vip(active)?.faults;
        Ok((faults == ["interface eth1 has no carrier"]).then_some(()))
    })
}

fn standby_takes_a_stray_vip_off(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    for _ in 0..5 {
        ip(scene.node(standby), &format!("addr add {VIP}/24 dev eth0"))?;
        until("the stray address to go", AT_ONCE, || Ok((!scene.holds(standby)?).then_some(())))?;
    }
    // On loopback it is somebody's purpose, and answers to nobody.
    ip(scene.node(standby), &format!("addr add {VIP}/32 dev lo"))?;
    let before = scene.vip(standby)?.since_ms;
    until("two more reviews", PATIENCE, || Ok((scene.vip(standby)?.since_ms > before + 2_500).then_some(())))?;
    assert!(ip(scene.node(standby), "-o addr show dev lo")?.contains(&VIP.to_string()));
    assert!(log_of(scene, standby).contains("took an address off that somebody else added"));
    scene.wait_for_holder(active, AT_ONCE)
}

fn announcements_follow_the_configuration(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let capture = scene.capture(standby)?;
    let from = Instant::now();
    scene.node(active).kill_worker()?;
    let seen =
        capture.wait("two at once, two after 50 ms, and two each second", from, 8, |seen| seen.announces(VIP))?;
    let at = |index: usize| seen[index].at - seen[0].at;
    assert!(at(1) < Duration::from_millis(40), "{:?}", at(1));
    assert!(at(2) >= Duration::from_millis(40) && at(3) < Duration::from_millis(700), "{:?} {:?}", at(2), at(3));
    for (first, seconds) in [(4, 1), (6, 2)] {
        let due = Duration::from_millis(50) + Duration::from_secs(seconds);
        assert!(at(first) >= due - Duration::from_millis(20), "{:?} instead of {due:?}", at(first));
        assert!(at(first + 1) < due + Duration::from_millis(700), "{:?} instead of {due:?}", at(first + 1));
    }
    Ok(())
}

fn ipv6_takeover_moves_the_neighbours(scene: &mut Scene) -> Outcome {
    ip_on(scene.pair.client()?, "addr add 2001:db8::50/64 dev eth0 nodad")?;
    let (active, standby) = scene.form()?;
    assert_eq!(learned(scene, "2001:db8::100")?, scene.node(active).namespace().run(hardware_address)??.to_string());
    let capture = scene.capture(standby)?;
    let from = Instant::now();
    scene.node(active).kill_worker()?;
    capture.wait("the takeover to be announced", from, 1, |seen| seen.announces(VIP6))?;
    let of_standby = scene.node(standby).namespace().run(hardware_address)??.to_string();
    until("the client to know the new holder", AT_ONCE, || {
        Ok((known(scene, "2001:db8::100")? == of_standby).then_some(()))
    })
}

/// What the client's kernel believes about an address.
fn known(scene: &Scene, address: &str) -> anyhow::Result<String> {
    let shown = ip_on(scene.pair.client()?, &format!("neigh show {address} dev eth0"))?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr").skip(1);
    Ok(words.next().unwrap_or("").to_owned())
}

/// The same once it has asked.
fn learned(scene: &Scene, address: &str) -> anyhow::Result<String> {
    let target: IpAddr = address.parse()?;
    until("the client to learn where the VIP is", PATIENCE, || {
        scene.pair.client()?.run(|| {
            let socket = std::net::UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            // Nobody listens there; it is enough that the kernel has to find the machine.
            socket.send_to(b"hello", (target, 9))
        })??;
        Ok(Some(known(scene, address)?).filter(|hardware| !hardware.is_empty()))
    })
}

/// A machine that is no node says that the VIP is its own.
fn strangers_claim_is_answered_and_told(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let capture = scene.capture(active)?;
    let stranger = scene.pair.topology().host("web3")?.run(hardware_address)??;
    let claim = || -> Outcome {
        scene.pair.topology().host("web3")?.run(|| {
            let frame = announcement(stranger, VIP.into()).context("a frame")?;
            let interface = pnet::datalink::interfaces().into_iter().find(|interface| interface.name == INTERFACE);
            Ok(Announcer::open()?.send(interface.context("eth0")?.index, &frame)?)
        })?
    };
    let own = scene.node(active).namespace().run(hardware_address)??.to_string();
    learned(scene, "10.77.0.100")?;
    let from = Instant::now();
    claim()?;
    capture.wait("the VIP to be defended", from, 1, |seen| seen.announces(VIP))?;
    until("the client to be back", AT_ONCE, || Ok((known(scene, "10.77.0.100")? == own).then_some(())))?;
    // One that does not stop is answered once a second.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        claim()?;
    }
    let answers = capture.since(begun).iter().filter(|seen| seen.announces(VIP)).count();
    assert!((1..=3).contains(&answers), "{answers} answers in two seconds");
    let vip = scene.vip(active)?;
    assert!((2..=4).contains(&vip.address_conflicts), "{}", vip.address_conflicts);
    assert_eq!((vip.role, vip.transitions), (Role::Active, 2));
    let warning = format!("vip web: another machine ({stranger}) claims 10.77.0.100 as well");
    assert!(scene.status(active)?.warnings.iter().any(|told| told.starts_with(&warning)));
    let log = log_of(scene, active);
    assert!(log.contains("another machine claims an address that is held here") && log.contains(&stranger.to_string()));
    Ok(())
}

pub fn macvlans(scene: &Scene, node: &str) -> anyhow::Result<Vec<&'static str>> {
    let shown = ip(scene.node(node), "-o link show type macvlan")?;
    Ok(MACVLANS.into_iter().filter(|name| shown.contains(&format!(": {name}@eth0:"))).collect())
}

fn virtual_mac_is_what_neighbours_learn(scene: &mut Scene) -> Outcome {
    ip_on(scene.pair.client()?, "addr add 2001:db8::50/64 dev eth0 nodad")?;
    let (active, standby) = formed_with_macvlans(scene)?;
    assert_eq!(macvlans(scene, active)?, MACVLANS);
    assert!(macvlans(scene, standby)?.is_empty());
    for _ in 0..5 {
        ip_on(scene.pair.client()?, "neigh flush dev eth0")?;
        assert_eq!(learned(scene, "10.77.0.100")?, "00:00:5e:00:01:33");
        assert_eq!(learned(scene, "2001:db8::100")?, "00:00:5e:00:02:33");
        // The node's own address keeps its own hardware address.
        let own = scene.node(active).namespace().run(hardware_address)??.to_string();
        assert_eq!(learned(scene, &scene.address(active).to_string())?, own);
    }
    // When the node asks for the client to answer it, it must not do so in the VIP's name.
    ip(scene.node(active), "neigh flush dev eth0")?;
    scene.pair.wait_until_serving(PATIENCE)?;
    assert_eq!(known(scene, "10.77.0.100")?, "00:00:5e:00:01:33");
    scene.node_mut(active).stop(PATIENCE)?;
    assert!(macvlans(scene, active)?.is_empty(), "a node that has stopped leaves no macvlan");
    Ok(())
}

/// As [`Scene::form`], for a VIP that is not on eth0.
pub fn formed_with_macvlans(scene: &mut Scene) -> anyhow::Result<(&'static str, &'static str)> {
    scene.pair.start()?;
    let active = until("one node to be active", PATIENCE, || {
        let roles = [scene.vip(NODES[0])?.role, scene.vip(NODES[1])?.role];
        Ok(match roles {
            [Role::Active, Role::Standby] => Some((NODES[0], NODES[1])),
            [Role::Standby, Role::Active] => Some((NODES[1], NODES[0])),
            _ => None,
        })
    })?;
    scene.pair.wait_until_serving(PATIENCE)?;
    Ok(active)
}

fn virtual_mac_stays_through_a_failover(scene: &mut Scene) -> Outcome {
    let (active, standby) = formed_with_macvlans(scene)?;
    assert_eq!(learned(scene, "10.77.0.100")?, "00:00:5e:00:01:33");
    let killed = Instant::now();
    scene.node(active).kill_worker()?;
    until(
        "the other node to have the macvlans",
        AT_ONCE,
        || Ok((macvlans(scene, standby)? == MACVLANS).then_some(())),
    )?;
    scene.pair.wait_until_serving(AT_ONCE)?;
    println!("with a virtual MAC the other node served {:?} after the worker was killed", killed.elapsed());
    until("the other node to have the macvlans alone", PATIENCE, || {
        Ok(macvlans(scene, active)?.is_empty().then_some(()))
    })?;
    assert_eq!(known(scene, "10.77.0.100")?, "00:00:5e:00:01:33");
    // Whatever the old holder still had to say, the switch would follow: longer than its kernel leaves groups.
    for hardware in ["00:00:5e:00:01:33", "00:00:5e:00:02:33"] {
        until("the switch to send the virtual hardware address to the new holder", AT_ONCE, || {
            Ok((ports_of(scene, hardware)? == [standby]).then_some(()))
        })?;
    }
    scene.holds_for("the switch stays with the new holder", Duration::from_secs(2), || {
        Ok(ports_of(scene, "00:00:5e:00:01:33")? == [standby] && ports_of(scene, "00:00:5e:00:02:33")? == [standby])
    })
}

/// The ports of the switch behind which it has learned a hardware address to be.
fn ports_of(scene: &Scene, hardware: &str) -> anyhow::Result<Vec<String>> {
    let mut command = scene.pair.topology().switch().command(find_program("bridge", "iproute2")?);
    let shown = String::from_utf8(command.args(["fdb", "show", "br", "br0"]).output()?.stdout)?;
    let of_hardware = shown.lines().filter_map(|line| line.strip_prefix(hardware)?.split_whitespace().nth(1));
    Ok(of_hardware.map(str::to_owned).collect())
}

fn deleted_macvlan_is_made_again(scene: &mut Scene) -> Outcome {
    let (active, _) = formed_with_macvlans(scene)?;
    ip(scene.node(active), "link del bvr51.4")?;
    until("the macvlan to be back", AT_ONCE, || Ok((macvlans(scene, active)? == MACVLANS).then_some(())))?;
    ip_on(scene.pair.client()?, "neigh flush dev eth0")?;
    scene.pair.wait_until_serving(AT_ONCE)?;
    assert_eq!(known(scene, "10.77.0.100")?, "00:00:5e:00:01:33");
    assert_eq!(scene.vip(active)?.transitions, 2, "no change of role is needed for that");
    Ok(())
}

fn macvlans_of_a_killed_node_are_removed(scene: &mut Scene) -> Outcome {
    let (active, standby) = formed_with_macvlans(scene)?;
    // With its janitor.
    scene.node_mut(active).kill_all()?;
    assert_eq!(macvlans(scene, active)?, MACVLANS);
    let mut release = scene.node(active).namespace().command(program());
    release.arg("release").arg("--config").arg(scene.config());
    let done = release.arg("--runtime-dir").arg(scene.node(active).runtime_dir()).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(macvlans(scene, active)?.is_empty());
    until("the other node to have them", AT_ONCE, || Ok((macvlans(scene, standby)? == MACVLANS).then_some(())))?;
    scene.pair.wait_until_serving(AT_ONCE)?;
    // Started again, it finds what was left behind by itself as well.
    scene.node_mut(standby).kill_all()?;
    scene.node_mut(standby).start()?;
    scene.node_mut(active).start()?;
    until("exactly one node to have them", PATIENCE, || {
        let held = [macvlans(scene, active)?.len(), macvlans(scene, standby)?.len()];
        Ok((held == [0, 2] || held == [2, 0]).then_some(()))
    })
}
