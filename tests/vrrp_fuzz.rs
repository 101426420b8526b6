//! Adverts and hellos that nobody honest sent, through everything that stands before the machine, and the machine.
//!
//! `BATON_PACKETS=10000000 cargo test --release --test vrrp_fuzz` tries that many, 100,000 if not told.
//! `BATON_SEED=7 cargo test --release --test vrrp_fuzz` replays one world, of 1,000 packets.
//!
//! In each world one node listens to its peer on three paths: VRRPv2 and v3 mixed over IPv4 unicast, VRRPv2 with a
//! password over IPv4 multicast, VRRPv3 over IPv6 multicast. Between adverts of the peer come noise, damaged, forged and
//! replayed ones. Where authentication is enforced, nothing but an advert as the peer signed it, and that once, may touch
//! the machine. Likewise for hellos: nothing but what the peer said just now is fresh.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use baton::units::{AdvertInterval, Priority, VirtualRouterId};
use baton::vrrp::auth::{Context, KeyRing, Mode, Signer, Verifier};
use baton::vrrp::hello::{Channel, Hello, Opened};
use baton::vrrp::machine::{Input, Machine, Parameters, Preempt, Resignation, Startup, State};
use baton::vrrp::packet::{
    self, Advert, DropReason, Envelope, Expected, ExpectedSource, Format, Heard, MixedFilter, Version, Versions,
};
use fastrand::Rng;

const PACKETS_OF_A_WORLD: u64 = 1_000;
const RECORDED_MAX: usize = 64;
/// What the wall clock says when a world begins.
const NOON: Duration = Duration::from_secs(0x6b01_87c0);

#[test]
fn nothing_but_genuine_packets_moves_anything() {
    let mut counts = Counts::default();
    if let Some(seed) = number("BATON_SEED") {
        world(seed, &mut counts);
        return eprintln!("{counts:#?}");
    }
    let packets = number("BATON_PACKETS").unwrap_or(100_000);
    let started = Instant::now();
    for seed in 0..packets.div_ceil(PACKETS_OF_A_WORLD) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world(seed, &mut counts)));
        assert!(result.is_ok(), "replay: BATON_SEED={seed} cargo test --test vrrp_fuzz");
    }
    eprintln!("{packets} packets in {:?}: {counts:#?}", started.elapsed());
    if packets >= 100_000 {
        counts.assert_everything_happened();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// How often what happened, to see that something was tested.
#[derive(Debug, Default)]
struct Counts {
    genuine: u64,
    hostile: u64,
    /// Hostile packets that were what the peer signed after all: the damage was outside of what counts.
    harmless: u64,
    /// Adverts that were heard from somebody else, where authentication is not enforced.
    believed: u64,
    role_changes: u64,
    hostile_while_backup: u64,
    hostile_while_active: u64,
    fresh_hellos: u64,
    unproven_hellos: u64,
    refused: BTreeMap<DropReason, u64>,
}

impl Counts {
    fn assert_everything_happened(&self) {
        let counts = [self.genuine, self.hostile_while_backup, self.hostile_while_active, self.believed];
        assert!(counts.iter().all(|count| *count > 1_000), "{self:#?}");
        let counts = [self.harmless, self.fresh_hellos, self.unproven_hellos];
        assert!(counts.iter().all(|count| *count > 100), "{self:#?}");
        assert!(self.role_changes > 50, "{self:#?}");
        // No world here compares clocks, and nobody who has the key says what cannot be.
        let never = [DropReason::Stale, DropReason::BadHello];
        let expected = DropReason::ALL.into_iter().filter(|reason| !never.contains(reason));
        let missing: Vec<_> = expected.filter(|reason| !self.refused.contains_key(reason)).collect();
        assert!(missing.is_empty(), "never refused for {missing:?}");
    }
}

fn interval(ms: u64) -> AdvertInterval {
    AdvertInterval::new(Duration::from_millis(ms)).unwrap()
}

fn router_id() -> VirtualRouterId {
    VirtualRouterId::new(51).unwrap()
}

fn ring() -> KeyRing {
    KeyRing::new(vec![(1, vec![1; 32]), (2, vec![2; 32])]).unwrap()
}

/// The machine of our node.
fn machine(zero: Instant) -> Machine {
    let parameters = Parameters {
        virtual_router_id: router_id(),
        priority: Priority::new(100).unwrap(),
        advert_interval: interval(1000),
        preempt: Preempt::Never,
        resignation: Resignation::AtOnce,
        startup: Startup::Prompt,
        probe_first: false,
        witness: false,
        epoch: 0,
    };
    let mut machine = Machine::new(parameters, zero);
    machine.handle(zero, Input::Fit);
    machine
}

/// A way by which the peer is heard.
struct Path {
    versions: Versions,
    from: Envelope,
    format: Format,
    addresses: Vec<IpAddr>,
    expected: Expected,
    verifier: Verifier,
    filter: MixedFilter,
    /// What came by it before.
    recorded: Vec<(Envelope, Vec<u8>)>,
}

fn paths(mode: Mode) -> [Path; 3] {
    let path = |versions, [peer, local, destination]: [&str; 3], password, addresses: &[&str]| {
        let [source, local, destination]: [IpAddr; 3] = [peer, local, destination].map(|name| name.parse().unwrap());
        let link_local = source.is_ipv6();
        let peer = if link_local { ExpectedSource::AnyLinkLocal } else { ExpectedSource::Exactly(source) };
        let addresses: Vec<IpAddr> = addresses.iter().map(|name| name.parse().unwrap()).collect();
        let expected = Expected {
            virtual_router_id: router_id(),
            local,
            peer,
            destination,
            addresses: addresses.clone(),
            versions,
            interval: interval(1000),
        };
        Path {
            versions,
            from: Envelope { source, destination, hop_limit: 255 },
            format: Format { password, ..Format::default() },
            addresses,
            expected,
            verifier: Verifier::new(ring(), mode, 0),
            filter: MixedFilter::new(),
            recorded: Vec::new(),
        }
    };
    [
        path(Versions::Mixed, ["10.88.0.11", "10.88.0.12", "10.88.0.12"], None, &["10.88.0.100"]),
        path(
            Versions::V2,
            ["10.88.0.11", "10.88.0.12", "224.0.0.18"],
            Some(*b"s3cretpw"),
            &["10.88.0.100", "10.88.0.101"],
        ),
        path(Versions::V3, ["fe80::11", "fe80::12", "ff02::12"], None, &["fe80::100", "fd88::100"]),
    ]
}

impl Path {
    /// What stands before the machine, in the order that `vrrp` states.
    fn examine(&mut self, now: Instant, envelope: &Envelope, payload: &[u8]) -> Result<Heard, DropReason> {
        let received = packet::decode(envelope, payload, &self.format)?;
        let heard = packet::judge(&received, &self.expected)?;
        self.verifier.verify(Duration::ZERO, &received)?;
        self.filter.admit(now, &heard)?;
        Ok(heard)
    }

    fn advert(&self, random: &mut Rng) -> Advert {
        let version = match self.versions {
            Versions::V2 => Version::V2,
            Versions::V3 => Version::V3,
            Versions::Mixed => [Version::V2, Version::V3][random.usize(0..2)],
        };
        // Mostly such that our node stays what it is; and now and then a resignation, or somebody better.
        let priority = match random.u8(0..16) {
            0 => 0,
            1 => random.u8(101..=255),
            _ => random.u8(1..100),
        };
        let addresses = self.addresses.clone();
        Advert { version, virtual_router_id: router_id(), priority, interval: interval(1000), addresses }
    }

    /// A payload as the peer would send it, with the next trailer of `signer`.
    fn sign(&self, advert: &Advert, signer: &mut Signer) -> Vec<u8> {
        let Envelope { source, destination, .. } = self.from;
        let pdu = advert.encode(source, destination, &self.format);
        let Advert { version, virtual_router_id, .. } = *advert;
        let trailer = signer.sign(NOON, &Context { version, virtual_router_id, source }, &pdu);
        packet::append_trailer(pdu, &trailer, source, destination)
    }

    fn record(&mut self, random: &mut Rng, envelope: Envelope, payload: Vec<u8>) {
        if self.recorded.len() == RECORDED_MAX {
            self.recorded.swap_remove(random.usize(0..RECORDED_MAX));
        }
        self.recorded.push((envelope, payload));
    }
}

/// A packet from the attacker, and what the peer signed that it was made of and did not arrive.
struct Hostile {
    envelope: Envelope,
    payload: Vec<u8>,
    signed: Option<Vec<u8>>,
}

fn hostile(path: &Path, other: &Path, signer: &mut Signer, random: &mut Rng) -> Hostile {
    let mut advert = path.advert(random);
    advert.priority = [0, 255, advert.priority][random.usize(0..3)];
    let Envelope { source, destination, .. } = path.from;
    let unsigned = advert.encode(source, destination, &path.format);
    let of_stranger = |id| Signer::new(KeyRing::new(vec![(id, vec![7; 32])]).unwrap(), signer.last());
    let hostile = |payload| Hostile { envelope: path.from, payload, signed: None };
    match random.u8(0..8) {
        // Noise.
        0 => hostile((0..random.usize(0..100)).map(|_| random.u8(..)).collect()),
        // Signed by somebody else, or not at all.
        1 => hostile(path.sign(&advert, &mut of_stranger([1, 2, 3][random.usize(0..3)]))),
        2 => hostile(unsigned),
        // Heard before, here or on another path.
        3 if !path.recorded.is_empty() => {
            let (envelope, payload) = path.recorded[random.usize(0..path.recorded.len())].clone();
            Hostile { envelope, payload, signed: None }
        }
        4 if !other.recorded.is_empty() => {
            let (_, payload) = other.recorded[random.usize(0..other.recorded.len())].clone();
            hostile(if random.bool() { payload } else { with_trailer_of(&payload, unsigned, path) })
        }
        // Held back and changed.
        _ => {
            let signed = path.sign(&advert, signer);
            let mut hostile = Hostile { envelope: path.from, payload: signed.clone(), signed: Some(signed) };
            for _ in 0..random.usize(1..=3) {
                change(&mut hostile, path, random);
            }
            hostile
        }
    }
}

fn with_trailer_of(signed: &[u8], unsigned: Vec<u8>, path: &Path) -> Vec<u8> {
    match signed.last_chunk() {
        Some(trailer) => packet::append_trailer(unsigned, trailer, path.from.source, path.from.destination),
        None => unsigned,
    }
}

fn change(hostile: &mut Hostile, path: &Path, random: &mut Rng) {
    let Hostile { envelope, payload, .. } = hostile;
    let at = random.usize(0..payload.len().max(1));
    match random.u8(0..10) {
        0 => payload.truncate(at),
        1 => payload.extend((0..random.usize(1..=40)).map(|_| random.u8(..))),
        2 => envelope.hop_limit = random.u8(..),
        3 => envelope.source = [path.expected.local, path.from.destination][random.usize(0..2)],
        4 => envelope.source = [IpAddr::from([10, 88, 0, 13]), "fe80::13".parse().unwrap()][random.usize(0..2)],
        5 => envelope.destination = path.from.source,
        // The fields of an advert, with their most interesting values.
        6 => {
            if let Some(byte) = payload.get_mut(at % 8) {
                *byte = [0, 1, 2, 0x21, 0x31, 51, 255][random.usize(0..7)];
            }
        }
        _ => {
            if let Some(byte) = payload.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
    }
    if random.u8(0..4) > 0 {
        mend(payload, envelope, random);
    }
}

/// Writes the checksum anew, of the advert alone or, as over IPv6, of all.
fn mend(payload: &mut [u8], envelope: &Envelope, random: &mut Rng) {
    let is_v2 = payload.first().is_some_and(|byte| byte >> 4 == 2);
    let covered = if random.bool() { payload.len() } else { payload.len().saturating_sub(28) };
    let Some(covered) = payload.get_mut(..covered).filter(|bytes| bytes.len() >= 8) else { return };
    covered[6..8].fill(0);
    let mut bytes = covered.to_vec();
    if !is_v2 {
        for address in [envelope.source, envelope.destination] {
            match address {
                IpAddr::V4(address) => bytes.splice(0..0, address.octets()).for_each(drop),
                IpAddr::V6(address) => bytes.splice(0..0, address.octets()).for_each(drop),
            }
        }
        bytes.extend([0, 112]);
        bytes.extend((covered.len() as u16).to_be_bytes());
    }
    let mut sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    covered[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// An IPv4 packet around the payload, with or without damage in its header, opened as if it came from a raw socket.
/// Over IPv6 there is no header to damage.
fn through_ipv4(envelope: Envelope, payload: &[u8], random: &mut Rng) -> Result<(Envelope, Vec<u8>), DropReason> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (envelope.source, envelope.destination) else {
        return Ok((envelope, payload.to_vec()));
    };
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x45, 0xc0, high, low, 0, 0, 0, 0, envelope.hop_limit, 112, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    if random.u8(0..4) == 0 {
        let at = random.usize(0..20);
        packet[at] = random.u8(..);
    }
    if random.u8(0..16) == 0 {
        packet.truncate(random.usize(0..=packet.len()));
    }
    packet::decode_ipv4(&packet).map(|(envelope, payload)| (envelope, payload.to_vec()))
}

/// Whether two payloads are the same but for the checksum, which no trailer covers.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.get(..6) == other.get(..6) && one.get(8..) == other.get(8..)
}

fn world(seed: u64, counts: &mut Counts) {
    let mut random = Rng::with_seed(seed);
    let zero = Instant::now();
    let mode = [Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Permissive, Mode::Off][random.usize(0..5)];
    let mut node = Node { machine: machine(zero), paths: paths(mode), mode };
    let mut hellos = Hellos::new(&mut random);
    let mut signer = Signer::new(ring(), 0);
    for packet in 0..PACKETS_OF_A_WORLD {
        let now = zero + Duration::from_micros(packet);
        match random.u8(0..8) {
            0 => node.genuine(now, &mut signer, &mut random, counts),
            1 => hellos.exchange(&mut random, counts),
            _ => node.hostile(now, &mut signer, &mut random, counts),
        }
    }
}

/// Our node.
struct Node {
    machine: Machine,
    paths: [Path; 3],
    mode: Mode,
}

impl Node {
    fn genuine(&mut self, now: Instant, signer: &mut Signer, random: &mut Rng, counts: &mut Counts) {
        let path = &mut self.paths[random.usize(0..3)];
        let advert = path.advert(random);
        let (envelope, payload) = (path.from, path.sign(&advert, signer));
        let state = self.machine.state();
        match path.examine(now, &envelope, &payload) {
            Ok(heard) => {
                assert_eq!((heard.source, heard.priority), (envelope.source, advert.priority));
                self.machine.handle(now, Input::Heard(heard));
            }
            // Its twin in version 3 counts instead.
            Err(reason @ DropReason::SupersededVersion) => *counts.refused.entry(reason).or_default() += 1,
            Err(DropReason::UnexpectedTrailer) if self.mode == Mode::Off => {}
            Err(reason) => panic!("a genuine advert was refused: {reason}"),
        }
        path.record(random, envelope, payload);
        counts.genuine += 1;
        counts.role_changes += u64::from(self.machine.state() != state);
    }

    fn hostile(&mut self, now: Instant, signer: &mut Signer, random: &mut Rng, counts: &mut Counts) {
        let (index, other) = (random.usize(0..3), random.usize(0..3));
        let hostile = hostile(&self.paths[index], &self.paths[other], signer, random);
        let path = &mut self.paths[index];
        let before = (self.machine.state(), self.machine.deadline());
        counts.hostile += 1;
        match before.0 {
            State::Backup => counts.hostile_while_backup += 1,
            State::Active => counts.hostile_while_active += 1,
            State::Init => {}
        }
        let opened = through_ipv4(hostile.envelope, &hostile.payload, random);
        let examined = opened.clone().and_then(|(envelope, payload)| path.examine(now, &envelope, &payload));
        match examined {
            Ok(heard) => {
                let (envelope, payload) = opened.unwrap();
                let is_genuine = envelope.source == path.from.source
                    && hostile.signed.is_some_and(|signed| is_same(&signed, &payload));
                if is_genuine {
                    counts.harmless += 1;
                } else {
                    assert!(self.mode != Mode::Enforce, "believed {payload:02x?} from {envelope:?}");
                    counts.believed += 1;
                }
                self.machine.handle(now, Input::Heard(heard));
                path.record(random, envelope, payload);
            }
            Err(reason) => {
                *counts.refused.entry(reason).or_default() += 1;
                assert_eq!((self.machine.state(), self.machine.deadline()), before);
            }
        }
    }
}

/// Our channel, that of the peer's process, and what the attacker recorded.
struct Hellos {
    ours: Channel,
    peer: Channel,
    epoch: u32,
    recorded: Vec<Vec<u8>>,
}

impl Hellos {
    fn new(random: &mut Rng) -> Self {
        let ours = Channel::new(b"pair key", "web", "lb-b", "lb-a", 0, random.u64(..));
        Self { ours, peer: Self::peer(random), epoch: 0, recorded: Vec::new() }
    }

    fn peer(random: &mut Rng) -> Channel {
        Channel::new(b"pair key", "web", "lb-a", "lb-b", 0, random.u64(..))
    }

    fn hello(&mut self) -> Hello {
        self.epoch += 1;
        Hello {
            state: State::Backup,
            priority: 100,
            interval: interval(100),
            epoch: self.epoch,
            fit: true,
            synced: true,
            claim_request: None,
            handover_request: Some(1),
            pools_up: 1,
            servers_up: 2,
            heard_paths: 3,
            config_checksum: [5; 8],
            advert_sequence: 6,
            advert_stamp: 7,
            heard_stamp: 8,
        }
    }

    fn exchange(&mut self, random: &mut Rng, counts: &mut Counts) {
        match random.u8(0..8) {
            0 => self.peer = Self::peer(random),
            1 | 2 => self.genuine(random, counts),
            _ => self.hostile(random, counts),
        }
    }

    /// The peer says hello, and is fresh at the latest once it had an answer.
    fn genuine(&mut self, random: &mut Rng, counts: &mut Counts) {
        for _ in 0..2 {
            let hello = self.hello();
            let datagram = self.peer.seal(&hello);
            let opened = self.ours.open(&datagram).unwrap();
            self.record(random, datagram);
            if opened == Opened::Fresh(hello) {
                counts.fresh_hellos += 1;
                return;
            }
            counts.unproven_hellos += 1;
            let hello = self.hello();
            let answer = self.ours.seal(&hello);
            assert_eq!(self.peer.open(&answer), Ok(Opened::Fresh(hello)));
            self.record(random, answer);
        }
        panic!("the peer could not prove itself");
    }

    fn hostile(&mut self, random: &mut Rng, counts: &mut Counts) {
        let hello = self.hello();
        let established = self.ours.peer_boot();
        let mut datagram = match random.u8(0..3) {
            0 => (0..random.usize(0..170)).map(|_| random.u8(..)).collect(),
            1 if !self.recorded.is_empty() => self.recorded[random.usize(0..self.recorded.len())].clone(),
            _ => changed(self.peer.clone().seal(&hello), random),
        };
        if random.u8(0..8) == 0 {
            // Somebody who has the key, and something else to say.
            let mut other = Channel::new(b"pair key", ["web", "mail"][random.usize(0..2)], "lb-a", "lb-b", 0, 1);
            datagram = other.seal(&Hello { epoch: u32::MAX, ..hello });
        }
        match self.ours.open(&datagram) {
            Ok(Opened::Fresh(_)) => panic!("believed {datagram:02x?}"),
            Ok(Opened::Unproven { answer_now }) => {
                counts.unproven_hellos += 1;
                if answer_now {
                    self.ours.seal(&hello);
                }
            }
            Err(reason) => *counts.refused.entry(reason).or_default() += 1,
        }
        assert_eq!(self.ours.peer_boot(), established);
    }

    fn record(&mut self, random: &mut Rng, datagram: Vec<u8>) {
        if self.recorded.len() == RECORDED_MAX {
            self.recorded.swap_remove(random.usize(0..RECORDED_MAX));
        }
        self.recorded.push(datagram);
    }
}

/// Damaged for certain: every bit is covered.
fn changed(mut datagram: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    let at = random.usize(0..datagram.len());
    match random.u8(0..4) {
        0 => datagram.truncate(at),
        1 => datagram.extend((0..random.usize(1..80)).map(|_| random.u8(..))),
        2 => datagram[4] = 2,
        _ => datagram[at] ^= 1 << random.u8(0..8),
    }
    datagram
}
