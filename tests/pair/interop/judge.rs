//! tshark as the judge of what a pair of Batons sends: adverts of every kind, resignations, announcements.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, ensure};
use baton::status::Role;
use baton::units::IpNetwork;
use libtest_mimic::Trial;

use super::recording::{Recording, shortened, tshark};
use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};

/// Bytes of a signature.
const TRAILER_LEN: usize = 28;

/// Adverts that tshark is shown of each kind, at least.
const ADVERTS: usize = 3;

/// What tshark says of the checksum.
const GOOD: &str = "1";
const BAD: &str = "0";

pub fn trials() -> Vec<Trial> {
    vec![Plan::usual().trial("tshark_finds_no_fault_with_what_is_sent", finds_no_fault)]
}

/// A kind of advert.
struct Kind {
    id: u8,
    addresses: &'static [&'static str],
    settings: &'static str,
    is_signed: bool,
    /// Destination; version; interval as version 2 and as version 3 say it; addresses over IPv4 and IPv6.
    said: [&'static str; 6],
}

const V4_GROUP: &str = "224.0.0.18";
const V6_GROUP: &str = "ff02::12";

/// Unsigned with an even id, signed with the odd one after it.
const KINDS: [Kind; 14] = [
    kind(
        60,
        &["10.77.0.160/24"],
        "version = \"2\"\ntransport = \"multicast\"",
        [V4_GROUP, "2", "1", "", "10.77.0.160", ""],
    ),
    kind(
        61,
        &["10.77.0.161/24"],
        "version = \"2\"\ntransport = \"multicast\"",
        [V4_GROUP, "2", "1", "", "10.77.0.161", ""],
    ),
    kind(62, &["10.77.0.162/24"], "version = \"2\"", ["10.77.0.12", "2", "1", "", "10.77.0.162", ""]),
    kind(63, &["10.77.0.163/24"], "version = \"2\"", ["10.77.0.12", "2", "1", "", "10.77.0.163", ""]),
    kind(64, &["10.77.0.164/24"], "transport = \"multicast\"", [V4_GROUP, "3", "", "10", "10.77.0.164", ""]),
    kind(65, &["10.77.0.165/24"], "transport = \"multicast\"", [V4_GROUP, "3", "", "10", "10.77.0.165", ""]),
    kind(66, &["10.77.0.166/24", "10.78.0.166/24"], "", ["10.77.0.12", "3", "", "10", "10.77.0.166,10.78.0.166", ""]),
    kind(67, &["10.77.0.167/24"], "", ["10.77.0.12", "3", "", "10", "10.77.0.167", ""]),
    kind(
        68,
        &["fd77::168/64", "fe80::168/64"],
        "transport = \"multicast\"",
        [V6_GROUP, "3", "", "10", "", "fe80::168,fd77::168"],
    ),
    kind(69, &["fd77::169/64"], "transport = \"multicast\"", [V6_GROUP, "3", "", "10", "", "fd77::169"]),
    kind(70, &["fd77::170/64"], "", ["fd77::12", "3", "", "10", "", "fd77::170"]),
    kind(71, &["fd77::171/64"], "", ["fd77::12", "3", "", "10", "", "fd77::171"]),
    kind(
        72,
        &["10.77.0.172/24"],
        "checksum = \"without_pseudo_header\"",
        ["10.77.0.12", "3", "", "10", "10.77.0.172", ""],
    ),
    kind(
        74,
        &["10.77.0.174/24"],
        "version = \"2\"\npassword_file = \"vrrp-password\"",
        ["10.77.0.12", "2", "1", "", "10.77.0.174", ""],
    ),
];

const fn kind(id: u8, addresses: &'static [&'static str], settings: &'static str, said: [&'static str; 6]) -> Kind {
    Kind { id, addresses, settings, is_signed: id % 2 == 1, said }
}

impl Kind {
    fn table(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let interval = if self.said[1] == "2" { "1s" } else { "100ms" };
        let authentication = if self.is_signed { "enforce" } else { "off" };
        format!(
            "\n[[vip]]\nname = \"vip{id}\"\naddresses = [{addresses}]\ninterface = \"eth0\"\nvirtual_router_id = {id}
advert_interval = \"{interval}\"\nauthentication = \"{authentication}\"\n{settings}\n",
            id = self.id,
            addresses = addresses.join(", "),
            settings = self.settings,
        )
    }

    /// What tshark 4.0 says of the checksum: it takes a signature for a part of the advert, which over IPv4 keepalived
    /// does not, and we neither.
    fn checksum(&self, is_shortened: bool) -> &'static str {
        let is_ipv6 = self.addresses[0].contains(':');
        if self.is_signed && !is_ipv6 && !is_shortened { BAD } else { GOOD }
    }
}

/// The configuration of both nodes, with `tables` of VIPs.
fn configuration(scene: &Scene, tables: &str) -> Outcome {
    let text = format!(
        "[[node]]\nname = \"lb-a\"\naddress = \"10.77.0.11\"\nfurther_addresses = [\"fd77::11\"]\n
[[node]]\nname = \"lb-b\"\naddress = \"10.77.0.12\"\nfurther_addresses = [\"fd77::12\"]\n
[worker]\nprobe_timeout = \"5s\"\n
[pair]\nkey_file = \"pair.key\"\n{tables}"
    );
    Ok(fs::write(scene.config(), text)?)
}

fn set_up(scene: &Scene) -> Outcome {
    for (name, last) in [("lb-a", 0x11), ("lb-b", 0x12)] {
        let address = IpNetwork::new(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last), 64).context("a prefix length")?;
        scene.pair.topology().add_address(name, address)?;
        scene.pair.topology().wait_until_addressed(name)?;
    }
    let password = scene.pair.directory().join("vrrp-password");
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(password)?;
    std::io::Write::write_all(&mut file, b"open-ses\n")?;
    configuration(scene, &KINDS.iter().map(Kind::table).collect::<String>())
}

fn wait_for_roles(scene: &Scene, node: &str, role: Role) -> Outcome {
    until(&format!("{node} to be {role} for every VIP"), PATIENCE, || {
        let vips = scene.status(node)?.vips;
        Ok((vips.len() == KINDS.len() && vips.iter().all(|vip| vip.role == role)).then_some(()))
    })
}

fn finds_no_fault(scene: &mut Scene) -> Outcome {
    set_up(scene)?;
    scene.node_mut("lb-a").start()?;
    wait_for_roles(scene, "lb-a", Role::Active)?;
    let first = Recording::start(scene.pair.topology(), "lb-a")?;
    scene.node_mut("lb-b").start()?;
    wait_for_roles(scene, "lb-b", Role::Standby)?;
    let heard = || {
        let vips = scene.status("lb-b")?.vips;
        let mut paths = vips.iter().flat_map(|vip| &vip.paths).filter(|path| !path.is_link);
        Ok(paths.all(|path| path.received > ADVERTS as u64).then_some(()))
    };
    until("adverts of every kind", PATIENCE, heard)?;
    for node in ["lb-a", "lb-b"] {
        let dropped: Vec<_> = scene.status(node)?.vips.into_iter().map(|vip| vip.adverts_dropped).collect();
        ensure!(dropped.iter().all(BTreeMap::is_empty), "{node} has dropped {dropped:?}");
    }
    let second = Recording::start(scene.pair.topology(), "lb-b")?;
    scene.node_mut("lb-a").stop(PATIENCE)?;
    wait_for_roles(scene, "lb-b", Role::Active)?;
    // The recording may lag behind.
    until("tshark to find no fault with the adverts", PATIENCE, || judge_adverts(scene, &first.frames()).map(Some))?;
    let addresses = KINDS.iter().map(|kind| kind.addresses.len()).sum::<usize>();
    until("an announcement of every address", PATIENCE, || {
        Ok((judge_announcements(scene, &second.frames())? == addresses).then_some(()))
    })
}

/// What is asked of tshark about an advert, besides what [`Kind::said`] has.
const ADVERT_FIELDS: [&str; 14] = [
    "vrrp.virt_rtr_id",
    "vrrp.prio",
    "vrrp.checksum.status",
    "_ws.expert.message",
    "ip.ttl",
    "ipv6.hlim",
    "ip.checksum.status",
    "ip.dst",
    "ipv6.dst",
    "vrrp.version",
    "vrrp.adver_int",
    "vrrp.short_adver_int",
    "vrrp.ip_addr",
    "vrrp.ipv6_addr",
];

/// Every advert is what it should be, once as it was sent and once without its signature; each node resigned in the end.
fn judge_adverts(scene: &Scene, frames: &[Vec<u8>]) -> Outcome {
    let is_signed_v4 = |frame: &[u8]| {
        frame.len() > 35
            && frame[12..14] == [8, 0]
            && frame[23] == 112
            && KINDS.iter().any(|kind| kind.id == frame[35] && kind.is_signed)
    };
    let cut = |frame: &Vec<u8>| if is_signed_v4(frame) { shortened(frame, TRAILER_LEN) } else { frame.clone() };
    let short: Vec<Vec<u8>> = frames.iter().map(cut).collect();
    for (frames, is_shortened) in [(frames, false), (short.as_slice(), true)] {
        // The one kind without the pseudo-header is looked at with the setting for it, and all others without.
        for (filter, options) in [
            ("vrrp && vrrp.virt_rtr_id != 72 && !icmp && !icmpv6", [].as_slice()),
            ("vrrp && vrrp.virt_rtr_id == 72 && !icmp", ["-o", "vrrp.v3_checksum_as_in_v2:TRUE"].as_slice()),
        ] {
            let said = tshark(scene.pair.directory(), frames, options, filter, &ADVERT_FIELDS)?;
            ensure!(!said.is_empty(), "tshark sees no adverts with {filter}");
            said.iter().try_for_each(|advert| judge_advert(advert, is_shortened))?;
            let kinds = KINDS.iter().filter(|kind| (kind.id == 72) != options.is_empty());
            for kind in kinds {
                let of_kind = |priority: &str| {
                    said.iter().filter(|advert| advert[0] == kind.id.to_string() && advert[1] == priority).count()
                };
                ensure!(of_kind("250") >= ADVERTS, "{} adverts of vip{}", of_kind("250"), kind.id);
                ensure!(of_kind("0") == 1, "{} resignations of vip{}", of_kind("0"), kind.id);
            }
        }
    }
    ensure!(
        tshark(scene.pair.directory(), frames, &[], "_ws.malformed", &["frame.protocols"])?.is_empty(),
        "tshark calls frames malformed"
    );
    Ok(())
}

fn judge_advert(advert: &[String], is_shortened: bool) -> Outcome {
    let kind = KINDS.iter().find(|kind| kind.id.to_string() == advert[0]).context("an advert of nobody")?;
    let [destination, version, seconds, centiseconds, v4, v6] = kind.said;
    let is_ipv6 = !v6.is_empty();
    let (hops, ip) =
        if is_ipv6 { (["", "255"], ["", "", destination]) } else { (["255", ""], [GOOD, destination, ""]) };
    let expected: Vec<&str> = [kind.checksum(is_shortened)]
        .into_iter()
        .chain(hops)
        .chain(ip)
        .chain([version, seconds, centiseconds, v4, v6])
        .collect();
    let said: Vec<&str> = advert[2..3].iter().chain(&advert[4..]).map(String::as_str).collect();
    ensure!(said == expected, "tshark says {said:?} of an advert of vip{}, and it should be {expected:?}", kind.id);
    let is_expert = |text: &str| match kind.checksum(is_shortened) {
        BAD => text.starts_with("Bad checksum [should be 0x") && !text.contains(','),
        _ => text.is_empty(),
    };
    ensure!(is_expert(&advert[3]), "tshark says of vip{}: {}", kind.id, advert[3]);
    Ok(())
}

/// Every announcement is as it should be. Gives how many addresses were announced.
fn judge_announcements(scene: &Scene, frames: &[Vec<u8>]) -> anyhow::Result<usize> {
    let mut announced = std::collections::BTreeSet::new();
    let fields = ["eth.dst", "arp.opcode", "arp.src.proto_ipv4", "arp.dst.proto_ipv4", "_ws.expert.message"];
    for arp in tshark(scene.pair.directory(), frames, &[], "arp.isgratuitous == 1", &fields)? {
        ensure!(arp[0] == "ff:ff:ff:ff:ff:ff" && arp[1] == "1" && arp[2] == arp[3] && arp[4].is_empty(), "{arp:?}");
        announced.insert(arp[2].clone());
    }
    let fields = [
        "icmpv6.nd.na.target_address",
        "eth.dst",
        "ipv6.hlim",
        "icmpv6.checksum.status",
        "icmpv6.nd.na.flag.s",
        "icmpv6.nd.na.flag.o",
        "icmpv6.opt.type",
        "_ws.expert.message",
    ];
    let filter = "icmpv6.type == 136 && ipv6.dst == ff02::1";
    for advertisement in tshark(scene.pair.directory(), frames, &[], filter, &fields)? {
        let expected = ["33:33:00:00:00:01", "255", GOOD, "0", "1", "2", ""];
        ensure!(advertisement[1..] == expected, "{advertisement:?}, and it should be {expected:?}");
        announced.insert(advertisement[0].clone());
    }
    Ok(announced.len())
}
