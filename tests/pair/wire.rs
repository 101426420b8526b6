//! What a machine of the lab sends, as the switch sees it, and frames and packets of our own making.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton::lab::namespace::Namespace;
use baton::lab::topology::Topology;
use baton::net::neighbour::{Claim, claim_in};
use baton::vrrp::packet::{self, Advert};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver};
use pnet::packet::arp::ArpPacket;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::{Packet, ipv4::Ipv4Packet};
use pnet::util::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};

use crate::scene::{PATIENCE, until};

/// How long a capture waits for a frame before it looks whether it is to stop.
const READ_TIMEOUT: Duration = Duration::from_millis(20);

/// Receive buffer of a capture, in frames of the usual length: what comes while its thread does not run.
const READ_BUFFER_BYTES: usize = 4096;

/// Where Ethernet carries what is for every IPv6 node (RFC 2464 section 7).
const ALL_NODES: MacAddr = MacAddr(0x33, 0x33, 0, 0, 0, 1);

/// A frame that a machine sent.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was read from the wire.
    pub at: Instant,
    /// Where it went.
    pub destination: MacAddr,
    /// What it was.
    pub content: Content,
}

/// Frames that tests care about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A valid advert, and the header it came in.
    Advert {
        /// The advert.
        advert: Advert,
        /// Source and destination.
        addresses: (IpAddr, IpAddr),
        /// Time to live and type of service.
        ttl_and_tos: (u8, u8),
    },
    /// A packet of protocol 112 that is no valid advert.
    NoAdvert(packet::DropReason),
    /// An ARP packet.
    Arp {
        /// 1 for a request, 2 for an answer.
        operation: u16,
        /// Who it says it is from.
        sender: Ipv4Addr,
        /// Whom it asks for.
        target: Ipv4Addr,
    },
    /// A neighbour advertisement.
    NeighbourAdvert(Claim),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}: {:?}", self.destination, self.content)
    }
}

impl Seen {
    /// The priority, if it is an advert.
    pub fn priority(&self) -> Option<u8> {
        match &self.content {
            Content::Advert { advert, .. } => Some(advert.priority),
            Content::NoAdvert(_) | Content::Arp { .. } | Content::NeighbourAdvert(_) => None,
        }
    }

    /// Whether it announces `address`: a gratuitous ARP, or an unsolicited neighbour advertisement.
    pub fn announces(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        match self.content {
            Content::Arp { sender, target, .. } => sender == target && IpAddr::from(sender) == address,
            Content::NeighbourAdvert(claim) => self.destination == ALL_NODES && claim.address == address,
            Content::Advert { .. } | Content::NoAdvert(_) => false,
        }
    }
}

/// What one machine sends, from now on. It stops when it is dropped.
pub struct Capture {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Capture {
    /// Watches the switch's port of a machine.
    pub fn start(topology: &Topology, host: &str) -> anyhow::Result<Self> {
        let sender = topology.host(host)?.run(hardware_address)??;
        let mut receiver = topology.switch().run(|| open(host))??;
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let (seen_inside, stop_inside) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = topology.switch().spawn(&format!("capture {host}"), move || {
            while !stop_inside.load(Ordering::Relaxed) {
                let Ok(frame) = receiver.next() else { continue };
                let at = Instant::now();
                if let Some(frame) = EthernetPacket::new(frame).filter(|frame| frame.get_source() == sender)
                    && let Some(content) = content(&frame)
                {
                    let destination = frame.get_destination();
                    seen_inside.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { at, destination, content });
                }
            }
        })?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything read at `from` or later.
    pub fn since(&self, from: Instant) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| seen.at >= from).collect()
    }

    /// The priorities of all adverts since `from`.
    pub fn priorities_since(&self, from: Instant) -> Vec<u8> {
        self.since(from).iter().filter_map(Seen::priority).collect()
    }

    /// Waits until `count` frames since `from` are as wanted, and gives them.
    pub fn wait(
        &self,
        what: &str,
        from: Instant,
        count: usize,
        wanted: impl Fn(&Seen) -> bool,
    ) -> anyhow::Result<Vec<Seen>> {
        until(what, PATIENCE, || {
            let found: Vec<Seen> = self.since(from).into_iter().filter(|seen| wanted(seen)).collect();
            Ok((found.len() >= count).then_some(found))
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that could not enter its namespace saw nothing, and its test has failed by that.
            let _ended = thread.join();
        }
    }
}

/// A receiver of every frame at the interface `port` of the namespace that this thread is in.
pub fn open(port: &str) -> anyhow::Result<Box<dyn DataLinkReceiver>> {
    let interface = datalink::interfaces().into_iter().find(|interface| interface.name == port);
    let interface = interface.with_context(|| format!("the switch has no port {port}"))?;
    let config = Config { read_timeout: Some(READ_TIMEOUT), read_buffer_size: READ_BUFFER_BYTES, ..Config::default() };
    match datalink::channel(&interface, config)? {
        Channel::Ethernet(_, receiver) => Ok(receiver),
        _ => bail!("{port} is no Ethernet port"),
    }
}

/// The hardware address of the machine whose namespace this thread is in.
pub fn hardware_address() -> anyhow::Result<MacAddr> {
    let interface = datalink::interfaces().into_iter().find(|interface| interface.name == "eth0");
    interface.and_then(|interface| interface.mac).context("a machine without eth0")
}

fn content(frame: &EthernetPacket<'_>) -> Option<Content> {
    match frame.get_ethertype() {
        EtherTypes::Arp => {
            let arp = ArpPacket::new(frame.payload())?;
            Some(Content::Arp {
                operation: arp.get_operation().0,
                sender: arp.get_sender_proto_addr(),
                target: arp.get_target_proto_addr(),
            })
        }
        EtherTypes::Ipv6 => claim_in(frame.packet()).map(Content::NeighbourAdvert),
        EtherTypes::Ipv4 => {
            let ip = Ipv4Packet::new(frame.payload())?;
            if ip.get_next_level_protocol().0 != packet::IP_PROTOCOL {
                return None;
            }
            let received = packet::decode_ipv4(frame.payload())
                .and_then(|(envelope, payload)| packet::decode(&envelope, payload, &packet::Format::default()));
            Some(match received {
                Ok(received) => Content::Advert {
                    advert: received.advert,
                    addresses: (received.envelope.source, received.envelope.destination),
                    // pnet gives the six bits of the class and the two below it apart.
                    ttl_and_tos: (ip.get_ttl(), ip.get_dscp() << 2 | ip.get_ecn()),
                },
                Err(reason) => Content::NoAdvert(reason),
            })
        }
        _ => None,
    }
}

/// Sends a packet of protocol 112 with a header of our own making from inside a namespace.
pub fn send_packet(
    from: &Namespace,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    pdu: &[u8],
) -> anyhow::Result<()> {
    let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, ttl, packet::IP_PROTOCOL, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(pdu);
    from.run(|| {
        // The kernel fills in total length, identification and header checksum (raw(7)).
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(packet::IP_PROTOCOL))))?;
        socket.set_header_included_v4(true)?;
        if destination.is_multicast() {
            socket.set_multicast_if_v4(&source)?;
            socket.set_multicast_loop_v4(false)?;
        }
        let destination = std::net::SocketAddrV4::new(destination, 0);
        socket.send_to(&packet, &destination.into())?;
        Ok(())
    })?
}
