//! Forged adverts, made by scapy on the machine of the clients: each is refused for what is wrong with it, and moves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, ensure};
use baton::lab::pair::CLIENT;
use baton::status::{Role, VipStatus};
use libtest_mimic::Trial;
use pnet::datalink;

use super::recording::Recording;
use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};
use crate::wire::hardware_address;

/// What the packets of `forge.py` are refused for, by VIP; each counts once.
const REFUSED: [(&str, &[&str]); 3] = [
    (
        "web",
        &[
            "wrong_ttl",
            "wrong_ttl",
            "wrong_checksum",
            "wrong_router_id",
            "wrong_auth_type",
            "wrong_version",
            "wrong_type",
            "unknown_source",
            "unknown_source",
            "missing_trailer",
            "missing_trailer",
            "missing_trailer",
            "missing_addresses",
            "trailing_bytes",
            "short",
            "missing_addresses",
            "wrong_hmac",
            "wrong_hmac",
            "unknown_key",
            "wrong_trailer_type",
        ],
    ),
    (
        "old",
        &[
            "wrong_ttl",
            "wrong_checksum",
            "wrong_password",
            "wrong_auth_type",
            "wrong_interval",
            "unknown_source",
            "wrong_version",
        ],
    ),
    (
        "six",
        &[
            "unknown_source",
            "unknown_source",
            "wrong_ttl",
            "wrong_checksum",
            "missing_trailer",
            "missing_trailer",
            "wrong_router_id",
        ],
    ),
];

/// Two more VIPs beside the one of the lab.
const VIPS: &str = r#"
[[vip]]
name = "old"
addresses = ["10.77.0.101/24"]
interface = "eth0"
virtual_router_id = 52
version = "2"
transport = "multicast"
authentication = "off"
password_file = "vrrp-password"

[[vip]]
name = "six"
addresses = ["fd77::100/64"]
interface = "eth0"
virtual_router_id = 53
transport = "multicast"

[[listener]]
"#;

pub fn trials() -> Vec<Trial> {
    vec![Plan::usual().patient().trial("adverts_forged_by_scapy_are_refused", forged_are_refused)]
}

/// The nodes' addresses.
fn address(node: &str) -> &'static str {
    if node == "lb-a" { "10.77.0.11" } else { "10.77.0.12" }
}

fn forged_are_refused(scene: &mut Scene) -> Outcome {
    scene.edit_config("\n[[listener]]\n", VIPS)?;
    let password = scene.pair.directory().join("vrrp-password");
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(password)?;
    std::io::Write::write_all(&mut file, b"open-ses\n")?;
    for node in ["lb-a", "lb-b"] {
        scene.pair.topology().wait_until_addressed(node)?;
    }
    let resignation = record_resignation(scene)?;
    let before = [standings(scene, "lb-a")?, standings(scene, "lb-b")?];
    for (node, peer, replayed) in [("lb-a", "lb-b", None), ("lb-b", "lb-a", Some(resignation.as_slice()))] {
        forge(scene, node, peer, replayed)?;
    }
    for (node, has_replayed) in [("lb-a", false), ("lb-b", true)] {
        expect_refused(scene, node, has_replayed)?;
    }
    let after = [standings(scene, "lb-a")?, standings(scene, "lb-b")?];
    ensure!(before == after, "the roles were {before:?} and are {after:?}");
    scene.holds_for("lb-a holds the VIP", scene.interval * 10, || Ok(scene.holders()? == ["lb-a"]))
}

/// Has lb-a resign, and take the VIPs again. Gives the resignation for `web` as it was sent.
fn record_resignation(scene: &mut Scene) -> anyhow::Result<Vec<u8>> {
    scene.node_mut("lb-a").start()?;
    wait_for_roles(scene, "lb-a", Role::Active)?;
    let recording = Recording::start(scene.pair.topology(), "lb-a")?;
    scene.node_mut("lb-b").start()?;
    wait_for_roles(scene, "lb-b", Role::Standby)?;
    for (from, to) in [("lb-a", "lb-b"), ("lb-b", "lb-a")] {
        scene.node_mut(from).stop(PATIENCE)?;
        wait_for_roles(scene, to, Role::Active)?;
        scene.node_mut(from).start()?;
        wait_for_roles(scene, from, Role::Standby)?;
    }
    // Of protocol 112, virtual router 51, priority 0.
    let is_it = |frame: &&Vec<u8>| frame.len() > 36 && frame[23] == 112 && frame[35..37] == [51, 0];
    recording.frames().iter().find(is_it).cloned().context("lb-a did not resign")
}

fn wait_for_roles(scene: &Scene, node: &str, role: Role) -> Outcome {
    until(&format!("{node} to be {role} for every VIP"), PATIENCE, || {
        let vips = scene.status(node)?.vips;
        let is_heard = |vip: &VipStatus| role == Role::Active || vip.peer.is_some();
        Ok((vips.len() == REFUSED.len() && vips.iter().all(|vip| vip.role == role && is_heard(vip))).then_some(()))
    })
}

/// What must not change, whatever is forged.
fn standings(scene: &Scene, node: &str) -> anyhow::Result<Vec<(Role, u64, String)>> {
    Ok(scene.status(node)?.vips.into_iter().map(|vip| (vip.role, vip.transitions, vip.reason)).collect())
}

fn forge(scene: &Scene, node: &str, peer: &str, replayed: Option<&[u8]>) -> Outcome {
    let mac = scene.node(node).namespace().run(hardware_address)??;
    let link_local = scene.node(peer).namespace().run(|| {
        let interfaces = datalink::interfaces().into_iter().filter(|interface| interface.name == "eth0");
        let mut addresses = interfaces.flat_map(|interface| interface.ips).map(|network| network.ip().to_string());
        addresses.find(|address| address.starts_with("fe80:"))
    })?;
    // Debian's own, for which python3-scapy is.
    let mut command = scene.pair.topology().host(CLIENT)?.command("/usr/bin/python3");
    command.arg("-c").arg(include_str!("forge.py")).arg(mac.to_string()).args([address(node), address(peer)]);
    command.arg(link_local.context("no link-local address")?);
    command.arg(replayed.map_or("-".to_owned(), |frame| frame.iter().map(|byte| format!("{byte:02x}")).collect()));
    let output = command.env("HOME", scene.pair.directory()).output()?;
    ensure!(
        output.status.success(),
        "forge.py, which needs the package python3-scapy: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Waits until a node has counted every forged advert under its reason, and nothing else.
fn expect_refused(scene: &Scene, node: &str, has_replayed: bool) -> Outcome {
    let mut expected: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (vip, reasons) in REFUSED {
        let replayed = (has_replayed && vip == "web").then_some("replayed");
        for reason in reasons.iter().copied().chain(replayed) {
            *expected.entry(vip.to_owned()).or_default().entry(reason.to_owned()).or_default() += 1;
        }
    }
    let mut counted = BTreeMap::new();
    let waited = until(&format!("{node} to count what was forged"), PATIENCE, || {
        counted = scene.status(node)?.vips.into_iter().map(|vip| (vip.name, vip.adverts_dropped)).collect();
        Ok((counted == expected).then_some(()))
    });
    waited.with_context(|| format!("{node} counted {counted:?}, and it should be {expected:?}"))
}
