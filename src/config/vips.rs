//! Reads `[[vip]]`: the addresses, how adverts are sent and trusted, how a takeover is announced.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::units::{AdvertInterval, VirtualRouterId};

use super::blocks::{VipAddressBlock, VipBlock, file};
use super::model::{AdvertChecksum, Announce, Authentication, Transport, VrrpVersion};
use super::reader::{Table, Value, Written};
use super::report::{Located, Mistakes};
use super::values;

const ADDRESSES_MAX: usize = 16;
const PREFER_HOLD_MAX: Duration = Duration::from_secs(24 * 3600);
const PREFER_HOLD_DEFAULT: Duration = Duration::from_secs(30);
/// VRRPv2 says its interval in whole seconds (RFC 3768 section 5.3.7); the longest is the longest of VRRPv3, cut.
const V2_INTERVAL_MIN: Duration = Duration::from_secs(1);
const V2_INTERVAL_MAX: Duration = Duration::from_secs(40);

const TRANSPORTS: [(&str, Transport); 3] =
    [("unicast", Transport::Unicast), ("multicast", Transport::Multicast), ("udp", Transport::Udp)];
const VERSIONS: [(&str, VrrpVersion); 3] =
    [("3", VrrpVersion::V3), ("2", VrrpVersion::V2), ("2+3", VrrpVersion::Mixed)];
const CHECKSUMS: [(&str, AdvertChecksum); 2] =
    [("rfc9568", AdvertChecksum::Rfc), ("without_pseudo_header", AdvertChecksum::WithoutPseudoHeader)];
const AUTHENTICATIONS: [(&str, Authentication); 4] = [
    ("enforce", Authentication::Enforce),
    ("permissive", Authentication::Permissive),
    ("receive_only", Authentication::ReceiveOnly),
    ("off", Authentication::Off),
];

const ANNOUNCE_BURST_MAX: u32 = 10;
const ANNOUNCE_REPEATS_MAX: usize = 16;
const ANNOUNCE_REPEAT_MIN: Duration = Duration::from_millis(1);
const ANNOUNCE_REPEAT_MAX: Duration = Duration::from_secs(300);
/// The first announcement moves the traffic; the others are for when it was lost, the last for hosts and switches that
/// were just then restarting.
const ANNOUNCE_REPEATS_MS_DEFAULT: [u64; 7] = [50, 100, 200, 400, 800, 2_000, 5_000];
const ANNOUNCE_REFRESH_MIN: Duration = Duration::from_secs(1);
const ANNOUNCE_REFRESH_MAX: Duration = Duration::from_secs(24 * 3600);
const ANNOUNCE_REFRESH_DEFAULT: Duration = Duration::from_secs(60);

/// Reads a `[[vip]]`. Relative paths in it are relative to `directory`.
pub(super) fn vip(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> VipBlock {
    let name = table.name();
    let (addresses, are_addresses_whole) = addresses(&mut table);
    let interface = table
        .required("interface", "name the interface that carries the addresses, such as \"eth0\"")
        .and_then(|value| value.parsed(values::interface));
    let advert_interface = table.written("advert_interface", |value| value.parsed(values::interface));
    let virtual_router_id = table
        .required("virtual_router_id", "choose a number from 1 to 255 that no other virtual router here uses")
        .and_then(|value| value.integer(1..=255))
        .and_then(|found| {
            let value = u8::try_from(found.value).ok().and_then(VirtualRouterId::new)?;
            Some(Located { value, place: found.place })
        });
    let interval = table.written("advert_interval", |value| advert_interval(value, mistakes));
    let transport = table.written("transport", |value| value.choice(&TRANSPORTS, &[]));
    // Nothing is said about families while an address of either may be among those that could not be read.
    let families = are_addresses_whole.then(|| Families::of(&addresses));
    let vrrp = vrrp(&mut table, &transport, families, mistakes, directory);
    if vrrp.version == VrrpVersion::V2 {
        check_v2_interval(&interval, mistakes);
    }
    let (prefer, prefer_hold) = preference(&mut table);
    let announce = table.block("announce").map_or_else(announce_defaults, |table| announce(table, mistakes));
    let block = VipBlock {
        place: table.place().clone(),
        name,
        addresses,
        are_addresses_whole,
        interface,
        advert_interface,
        virtual_router_id,
        advert_interval: interval.into_known().map(|found| found.value),
        transport,
        version: vrrp.version,
        checksum: vrrp.checksum,
        authentication: vrrp.authentication,
        password_file: vrrp.password_file,
        virtual_mac: table.boolean("virtual_mac", false),
        prefer,
        prefer_hold,
        announce,
        probe_first: table.boolean("probe_first", true),
    };
    table.finish();
    block
}

/// The addresses, and whether every one of them could be read.
fn addresses(table: &mut Table<'_>) -> (Vec<VipAddressBlock>, bool) {
    let values = table
        .required("addresses", "list the addresses that move together, such as [\"192.0.2.100/24\"]")
        .map(|value| value.list(ADDRESSES_MAX))
        .unwrap_or_default();
    let count = values.len();
    let addresses: Vec<VipAddressBlock> = values.into_iter().filter_map(address).collect();
    let are_whole = count > 0 && addresses.len() == count;
    (addresses, are_whole)
}

/// `"192.0.2.100/24"`, or a table where the address is on another interface than the others.
fn address(value: Value<'_>) -> Option<VipAddressBlock> {
    if !value.is_table() {
        return Some(VipAddressBlock { network: value.parsed(values::vip_address)?, interface: Written::No });
    }
    let mut table = value.block()?;
    let network = table
        .required("address", "write the address with its prefix length, such as \"192.0.2.100/24\"")
        .and_then(|value| value.parsed(values::vip_address));
    let interface = table.written("interface", |value| value.parsed(values::interface));
    table.finish();
    Some(VipAddressBlock { network: network?, interface })
}

fn advert_interval(value: Value<'_>, mistakes: &Mistakes<'_>) -> Option<Located<AdvertInterval>> {
    let found = value.duration(AdvertInterval::MIN..=AdvertInterval::MAX)?;
    let interval = AdvertInterval::new(found.value);
    if interval.is_none() {
        let below = values::duration_text(Duration::from_millis(found.value.as_millis() as u64 / 10 * 10));
        mistakes.value(
            &found.place,
            "must be a multiple of 10ms, the unit of an advert",
            format!("the nearest below is \"{below}\""),
        );
    }
    Some(Located { value: interval?, place: found.place })
}

fn check_v2_interval(interval: &Written<Located<AdvertInterval>>, mistakes: &Mistakes<'_>) {
    let Some(interval) = interval.known() else { return };
    let is_whole = interval.value.get().subsec_nanos() == 0;
    if !is_whole || !(V2_INTERVAL_MIN..=V2_INTERVAL_MAX).contains(&interval.value.get()) {
        mistakes.value(
            &interval.place,
            "must be 1s to 40s in whole seconds with version = \"2\"",
            "write such as \"1s\"; for less, version = \"3\"",
        );
    }
}

/// Which families the addresses are of.
#[derive(Clone, Copy)]
struct Families {
    has_ipv4: bool,
    has_ipv6: bool,
}

impl Families {
    fn of(addresses: &[VipAddressBlock]) -> Self {
        let has = |kind: fn(&IpAddr) -> bool| addresses.iter().any(|at| kind(&at.network.value.address()));
        Self { has_ipv4: has(IpAddr::is_ipv4), has_ipv6: has(IpAddr::is_ipv6) }
    }
}

/// What a vip says about the packets of VRRP.
struct Vrrp {
    version: VrrpVersion,
    checksum: AdvertChecksum,
    authentication: Written<Located<Authentication>>,
    password_file: Option<Located<PathBuf>>,
}

fn vrrp(
    table: &mut Table<'_>,
    transport: &Written<Located<Transport>>,
    families: Option<Families>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
) -> Vrrp {
    if transport.known().is_some_and(|transport| transport.value == Transport::Udp) {
        table.without_meaning(
            &["version", "checksum", "authentication", "password_file"],
            "has no meaning with transport = \"udp\", which sends no VRRP and always authenticates",
            "leave it out, or choose another transport",
        );
        return Vrrp {
            version: VrrpVersion::V3,
            checksum: AdvertChecksum::Rfc,
            authentication: Written::No,
            password_file: None,
        };
    }
    let version = table.written("version", |value| value.choice(&VERSIONS, &[]));
    let checksum = table.written("checksum", |value| value.choice(&CHECKSUMS, &[]));
    let password_file = table.written("password_file", |value| file(value, directory));
    let authentication = table.written("authentication", |value| value.choice(&AUTHENTICATIONS, &[]));
    check_version(&version, families, mistakes);
    check_checksum(&checksum, version.or_default(VrrpVersion::V3), families, mistakes);
    if let (Some(file), Some(VrrpVersion::V3)) = (password_file.known(), version.or_default(VrrpVersion::V3)) {
        mistakes.value(
            &file.place,
            "has no meaning with version = \"3\", which has no passwords",
            "leave it out, or write version = \"2\" or \"2+3\"; a key authenticates every version",
        );
    }
    Vrrp {
        version: version.or_default(VrrpVersion::V3).unwrap_or(VrrpVersion::V3),
        checksum: checksum.or_default(AdvertChecksum::Rfc).unwrap_or(AdvertChecksum::Rfc),
        authentication,
        password_file: password_file.into_known(),
    }
}

fn check_version(version: &Written<Located<VrrpVersion>>, families: Option<Families>, mistakes: &Mistakes<'_>) {
    if let (Some(version), Some(Families { has_ipv6: true, .. })) = (version.known(), families)
        && version.value == VrrpVersion::V2
    {
        mistakes.value(
            &version.place,
            "must not be 2 with an IPv6 address in the vip: VRRPv2 is for IPv4 alone",
            "write \"2+3\" or \"3\", or give the IPv6 addresses a vip of their own",
        );
    }
}

fn check_checksum(
    checksum: &Written<Located<AdvertChecksum>>,
    version: Option<VrrpVersion>,
    families: Option<Families>,
    mistakes: &Mistakes<'_>,
) {
    let Some(checksum) = checksum.known() else { return };
    if checksum.value == AdvertChecksum::Rfc {
        return;
    }
    if version == Some(VrrpVersion::V2) {
        mistakes.value(
            &checksum.place,
            "has no meaning with version = \"2\", whose checksum never covers a pseudo-header",
            "leave it out",
        );
    } else if let Some(Families { has_ipv4: false, .. }) = families {
        mistakes.value(
            &checksum.place,
            "has no meaning without an IPv4 address: over IPv6 the checksum always covers the pseudo-header",
            "leave it out",
        );
    }
}

/// `prefer` and `prefer_hold`.
fn preference(table: &mut Table<'_>) -> (Option<Located<String>>, Duration) {
    let Some(prefer) = table.optional("prefer") else {
        table.without_meaning(
            &["prefer_hold"],
            "has no meaning without prefer: whoever holds the vip keeps it",
            "leave it out, or name a node with prefer = \"…\"",
        );
        return (None, PREFER_HOLD_DEFAULT);
    };
    let hold = table.duration("prefer_hold", Duration::ZERO..=PREFER_HOLD_MAX, PREFER_HOLD_DEFAULT);
    (prefer.parsed(values::reference), hold)
}

fn announce_defaults() -> Announce {
    Announce {
        burst: 1,
        repeat: ANNOUNCE_REPEATS_MS_DEFAULT.map(Duration::from_millis).to_vec(),
        refresh: Some(ANNOUNCE_REFRESH_DEFAULT),
    }
}

fn announce(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> Announce {
    let mut announce = announce_defaults();
    announce.burst = table.integer("burst", 1..=ANNOUNCE_BURST_MAX, announce.burst);
    if let Some(value) = table.optional("repeat") {
        announce.repeat = repeats(value, mistakes);
    }
    if let Some(found) =
        table.optional("refresh").and_then(|value| value.duration(Duration::ZERO..=ANNOUNCE_REFRESH_MAX))
    {
        announce.refresh = (!found.value.is_zero()).then_some(found.value);
        if announce.refresh.is_some_and(|refresh| refresh < ANNOUNCE_REFRESH_MIN) {
            mistakes.value(
                &found.place,
                "must be 1s to 24h, or 0s for never",
                "the nearest that are allowed are \"0s\" and \"1s\"",
            );
        }
    }
    table.finish();
    announce
}

fn repeats(value: Value<'_>, mistakes: &Mistakes<'_>) -> Vec<Duration> {
    let mut repeats: Vec<Duration> = Vec::new();
    for value in value.list_of(0, ANNOUNCE_REPEATS_MAX) {
        let Some(found) = value.duration(ANNOUNCE_REPEAT_MIN..=ANNOUNCE_REPEAT_MAX) else { continue };
        if let Some(before) = repeats.last().filter(|before| **before >= found.value) {
            let before = values::duration_text(*before);
            mistakes.value(
                &found.place,
                format!("must be later than the one before, which is {before}"),
                "put the times in ascending order, each once",
            );
        }
        repeats.push(found.value);
    }
    repeats
}
