//! What a node says and hears: adverts over two networks, hellos, and the client of the witness. All of it real code;
//! only the sockets are not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use baton::units::VirtualRouterId;
use baton::vrrp::auth::{Context, KeyRing, Mode, Signer, Verifier};
use baton::vrrp::hello::{Channel, Hello, Opened, Stamps};
use baton::vrrp::machine::{Machine, Parameters, PeerSeen, State};
use baton::vrrp::packet::{
    self, Advert, DropReason, Envelope, Expected, ExpectedSource, Format, Heard, Version, Versions, append_trailer,
};
use baton::vrrp::witness::{Client, Key, Name};

/// VRRP over IPv4, VRRP over IPv6, and the hellos over UDP.
pub const V4: usize = 0;
pub const V6: usize = 1;
pub const HELLO: usize = 2;
/// To the witness and from it, by the node at the other end.
pub const ASK: usize = 3;
pub const ANSWER: usize = 4;
pub const LINKS: usize = 5;

pub const PAIR_KEY: &[u8] = b"the key of the pair, 32 bytes   ";
pub const OTHER_KEY: &[u8] = b"the key of somebody else, 32 byt";
pub const NAMES: [&str; 2] = ["a", "b"];

const VIPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)), IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100))];

/// By path and node.
const ADDRESSES: [[IpAddr; 2]; 2] = [
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12))],
    [
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11)),
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x12)),
    ],
];

/// Something that came over a link.
#[derive(Debug, Clone)]
pub struct Packet {
    pub path: usize,
    pub bytes: Vec<u8>,
    /// By the attacker.
    pub injected: bool,
}

/// What a genuine hello amounts to.
pub struct Greeting {
    pub seen: PeerSeen,
    pub heard: Option<Heard>,
    pub claim_request: Option<u32>,
}

pub struct Wire {
    node: usize,
    /// Adverts are signed and verified.
    authentic: bool,
    expected: [Expected; 2],
    /// They survive the process: their floors are kept.
    signer: Signer,
    verifiers: [Verifier; 2],
    channel: Channel,
    stamps: Stamps,
    /// Of which process of the peer, and its newest stamp.
    heard_stamp: (Option<u64>, u64),
    pub client: Client,
}

impl Wire {
    pub fn new(node: usize, parameters: &Parameters, authentic: bool) -> Self {
        let expected = |path: usize| Expected {
            virtual_router_id: parameters.virtual_router_id,
            local: ADDRESSES[path][node],
            peer: ExpectedSource::Exactly(ADDRESSES[path][1 - node]),
            destination: ADDRESSES[path][node],
            addresses: vec![VIPS[path]],
            versions: Versions::V3,
            interval: parameters.advert_interval,
        };
        let verifier = || match authentic {
            true => Verifier::new(KeyRing::derived(PAIR_KEY), Mode::Enforce, 0),
            false => Verifier::off(),
        };
        Self {
            node,
            authentic,
            expected: [expected(V4), expected(V6)],
            signer: Signer::new(KeyRing::derived(PAIR_KEY), 0),
            verifiers: [verifier(), verifier()],
            channel: channel(node, 1),
            stamps: Stamps::new(0),
            heard_stamp: (None, 0),
            client: client(node, 1),
        }
    }

    /// A new process.
    pub fn boot(&mut self, random: u64) {
        self.channel = channel(self.node, random);
        self.stamps = Stamps::new(random);
        self.heard_stamp = (None, 0);
        self.client = client(self.node, random.max(1));
    }

    /// Higher wins.
    pub fn address(&self) -> IpAddr {
        ADDRESSES[V4][self.node]
    }

    pub fn advert(&mut self, path: usize, unix_time: Duration, priority: u8, parameters: &Parameters) -> Vec<u8> {
        let [source, destination] = [ADDRESSES[path][self.node], ADDRESSES[path][1 - self.node]];
        let pdu = self.pdu(path, priority, parameters).encode(source, destination, &Format::default());
        let pdu = if self.authentic {
            let context = Context { version: Version::V3, virtual_router_id: parameters.virtual_router_id, source };
            let trailer = self.signer.sign(unix_time, &context, &pdu);
            append_trailer(pdu, &trailer, source, destination)
        } else {
            pdu
        };
        packet_of(source, destination, pdu)
    }

    fn pdu(&self, path: usize, priority: u8, parameters: &Parameters) -> Advert {
        Advert {
            version: Version::V3,
            virtual_router_id: parameters.virtual_router_id,
            priority,
            interval: parameters.advert_interval,
            addresses: vec![VIPS[path]],
        }
    }

    /// What somebody without the key can make of an advert of this node: to the byte, but for the HMAC.
    pub fn forged(&self, path: usize, unix_time: Duration, priority: u8, parameters: &Parameters) -> Vec<u8> {
        let [source, destination] = [ADDRESSES[path][self.node], ADDRESSES[path][1 - self.node]];
        let pdu = self.pdu(path, priority, parameters).encode(source, destination, &Format::default());
        let context = Context { version: Version::V3, virtual_router_id: parameters.virtual_router_id, source };
        let trailer = Signer::new(KeyRing::derived(OTHER_KEY), u64::MAX >> 1).sign(unix_time, &context, &pdu);
        packet_of(source, destination, append_trailer(pdu, &trailer, source, destination))
    }

    /// The way of an advert from the socket to the machine.
    pub fn hear(&mut self, packet: &Packet, unix_time: Duration) -> Result<Heard, DropReason> {
        let local = ADDRESSES[packet.path][self.node];
        let (envelope, payload) = match local {
            IpAddr::V4(_) => packet::decode_ipv4(&packet.bytes)?,
            IpAddr::V6(_) => {
                let source = ADDRESSES[packet.path][1 - self.node];
                (Envelope { source, destination: local, hop_limit: 255 }, packet.bytes.as_slice())
            }
        };
        let received = packet::decode(&envelope, payload, &Format::default())?;
        let heard = packet::judge(&received, &self.expected[packet.path])?;
        self.verifiers[packet.path].verify(unix_time, &received)?;
        Ok(heard)
    }

    /// A hello; with `advert`, one that is an advert of this priority.
    pub fn hello(&mut self, now: Instant, machine: &Machine, fit: bool, synced: bool, advert: Option<u8>) -> Vec<u8> {
        let parameters = machine.parameters();
        let state = if advert.is_some_and(|priority| priority > 0) { State::Active } else { machine.state() };
        let hello = Hello {
            state,
            priority: advert.unwrap_or(parameters.priority.get()),
            interval: parameters.advert_interval,
            epoch: machine.epoch(),
            fit,
            synced,
            claim_request: machine.claim_request(),
            handover_request: None,
            pools_up: 0,
            servers_up: 0,
            heard_paths: 0,
            config_checksum: [0; 8],
            advert_sequence: self.signer.last(),
            advert_stamp: if state == State::Active { self.stamps.next(now) } else { 0 },
            heard_stamp: self.heard_stamp.1,
        };
        self.channel.seal(&hello)
    }

    /// `Ok(None)` for one that proves nothing; whether it wants an answer.
    pub fn greet(&mut self, bytes: &[u8]) -> Result<Result<Greeting, bool>, DropReason> {
        let hello = match self.channel.open(bytes)? {
            Opened::Fresh(hello) => hello,
            Opened::Unproven { answer_now } => return Ok(Err(answer_now)),
        };
        let boot = self.channel.peer_boot();
        if self.heard_stamp.0 != boot {
            self.heard_stamp = (boot, 0);
        }
        self.heard_stamp.1 = self.heard_stamp.1.max(hello.advert_stamp);
        let is_advert = hello.state == State::Active || hello.priority == 0;
        let heard = is_advert.then(|| Heard {
            source: ADDRESSES[V4][1 - self.node],
            local: ADDRESSES[V4][self.node],
            version: Version::V3,
            priority: hello.priority,
            interval: hello.interval,
            addresses_differ: false,
        });
        let seen = PeerSeen {
            state: hello.state,
            interval: hello.interval,
            fit: hello.fit,
            synced: hello.synced,
            epoch: hello.epoch,
            acknowledged: self.stamps.sent_at(hello.heard_stamp),
        };
        Ok(Ok(Greeting { seen, heard, claim_request: hello.claim_request }))
    }
}

fn channel(node: usize, boot: u64) -> Channel {
    Channel::new(PAIR_KEY, "web", NAMES[node], NAMES[1 - node], 0, boot)
}

fn client(node: usize, boot: u64) -> Client {
    let name = |name| Name::new(name).unwrap();
    Client::new(Key::derived(PAIR_KEY), name(NAMES[node]), name("web"), boot)
}

/// As the socket delivers it: over IPv4 with its header, over IPv6 without.
fn packet_of(source: IpAddr, destination: IpAddr, pdu: Vec<u8>) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { return pdu };
    let mut packet = vec![0x45, 0xc0, 0, 20 + pdu.len() as u8, 0, 0, 0, 0, 255, 112, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(pdu);
    packet
}

pub fn router_id() -> VirtualRouterId {
    VirtualRouterId::new(51).unwrap()
}
