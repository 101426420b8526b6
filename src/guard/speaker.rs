//! The voice and the ears of one VIP: encodes, signs and sends on all of its paths, and says of what comes in whether it
//! is an advert of the peer. It decides nothing about the VIP.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::counters::VipCounters;
use super::paths::VrrpPath;
use super::vitals::Vitals;
use crate::config::{Authentication, Vip, VrrpVersion};
use crate::net::link_socket::LinkSocket;
use crate::net::vrrp_socket::{Packet, PacketBuffer, VrrpSocket};
use crate::units::AdvertInterval;
use crate::vrrp::auth::{Context, KeyRing, Mode, Signer, Verifier};
use crate::vrrp::hello::{self, Channel, Hello, Opened};
use crate::vrrp::packet::{
    Advert, DropReason, Envelope, Expected, Format, Heard, MixedFilter, PRIORITY_RESIGNED, Received, Version,
    append_trailer, decode, decode_ipv4, judge,
};

/// Sends in a row that may fail on every path. The peer, which hears none of them either, is about to claim the VIP.
const SEND_FAILURES_MAX: u32 = 3;

/// More than a process says of one VIP before it notes that it did: two versions on each of two paths.
const UNNOTED: u64 = 8;

/// Time after which an advert counts as arrived. What the link says can overtake it: the peer reads the two from
/// different sockets.
const ARRIVAL_TIME: Duration = Duration::from_millis(100);

/// Where an advert of either version says which virtual router it is of (RFC 9568 section 5.2.3).
const ROUTER_ID_AT: usize = 1;

/// What a speaker is opened with.
#[derive(Clone)]
pub struct Voice {
    /// The VIP.
    pub vip: Vip,
    /// Its VRRP paths.
    pub vrrp: Vec<VrrpPath>,
    /// Checksum and password of its adverts.
    pub format: Format,
    /// The keys that sign and verify; `None` where adverts are not authenticated.
    pub keys: Option<KeyRing>,
    /// A signed advert says more than this, whatever the clock does.
    pub sequence_floor: u64,
    /// For each VRRP path, what the last signed advert of the peer said.
    pub floors: Vec<u64>,
    /// Router ids of other VIPs on the interface, whose adverts are not for us and not worth counting.
    pub siblings: Vec<u8>,
}

/// A VRRP path with its socket.
struct VrrpEnd {
    path: VrrpPath,
    socket: VrrpSocket,
    expected: Expected,
    verifier: Verifier,
    buffer: PacketBuffer,
    failures: u32,
    mixed: MixedFilter,
}

/// A link with this VIP's conversation on it.
pub struct LinkEnd {
    /// Shared by all VIPs.
    pub socket: Rc<LinkSocket>,
    /// This VIP's.
    pub channel: Channel,
    /// The peer's address on it.
    pub peer: IpAddr,
    /// Ours.
    pub local: IpAddr,
    failures: u32,
}

impl LinkEnd {
    /// A link that has said nothing yet.
    pub fn new(socket: Rc<LinkSocket>, channel: Channel, local: IpAddr, peer: IpAddr) -> Self {
        Self { socket, channel, peer, local, failures: 0 }
    }
}

/// What a speaker leaves to one that goes on for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Legacy {
    /// What its last signed advert said.
    sequence: u64,
    /// Its channels, by our address and the peer's.
    channels: Vec<(IpAddr, IpAddr, hello::Legacy)>,
}

/// What one packet was.
#[derive(Debug)]
pub enum Ear {
    /// An advert of the peer, on this path.
    Heard(usize, Heard),
    /// Refused, with its source where that could be read.
    Refused(DropReason, Option<IpAddr>),
    /// Nothing that concerns this VIP.
    Nothing,
}

/// One VIP's voice and ears.
pub struct Speaker {
    voice: Voice,
    signer: Option<Signer>,
    /// When the last adverts were signed, and the sequence before them.
    signed: (Option<Instant>, u64),
    vrrp: Vec<VrrpEnd>,
    links: Vec<LinkEnd>,
    /// Datagrams for this VIP: the link, and the bytes.
    mailbox: mpsc::Receiver<(usize, Vec<u8>)>,
    counters: Arc<VipCounters>,
}

impl Speaker {
    /// A speaker that speaks over the links alone until [`Speaker::open_vrrp`].
    pub fn new(
        voice: Voice,
        links: Vec<LinkEnd>,
        mailbox: mpsc::Receiver<(usize, Vec<u8>)>,
        counters: Arc<VipCounters>,
    ) -> Self {
        let signs = matches!(voice.vip.authentication, Authentication::Enforce | Authentication::Permissive);
        let keys = voice.keys.clone().filter(|_| signs);
        let signer = keys.map(|keys| Signer::new(keys, voice.sequence_floor));
        let signed = (None, voice.sequence_floor);
        Self { voice, signer, signed, vrrp: Vec::new(), links, mailbox, counters }
    }

    /// Opens the VRRP sockets, again where there were some: their interface may have been made anew. Needs `CAP_NET_RAW`
    /// and a tokio runtime.
    ///
    /// # Errors
    /// What [`VrrpSocket::open`] says; the old sockets stay then.
    pub fn open_vrrp(&mut self) -> io::Result<()> {
        let open = |(index, path): (usize, &VrrpPath)| {
            let socket = VrrpSocket::open(&path.spec)?;
            let floor = self
                .vrrp
                .get(index)
                .map_or_else(|| self.voice.floors.get(index).copied().unwrap_or(0), |end| end.verifier.floor());
            let verifier = match self.voice.keys.clone() {
                Some(keys) => Verifier::new(keys, mode(self.voice.vip.authentication), floor),
                None => Verifier::off(),
            };
            let expected = path.expected(&self.voice.vip, socket.local());
            let (path, buffer) = (path.clone(), PacketBuffer::new());
            Ok(VrrpEnd { path, socket, expected, verifier, buffer, failures: 0, mixed: MixedFilter::new() })
        };
        self.vrrp = self.voice.vrrp.iter().enumerate().map(open).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// Whether there is a link to say hello on.
    pub fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Sends an advert on every path.
    ///
    /// # Errors
    /// The kernel's word when it has refused the last few on every path: nobody hears this node any more.
    pub fn advertise(&mut self, priority: u8, hello: &Hello) -> io::Result<()> {
        let (is_sent, failure) = self.advertise_everywhere(priority, hello);
        self.counters.sent.fetch_add(u64::from(is_sent), Ordering::Relaxed);
        match (failure, self.failures()) {
            (Some(error), Some(least)) if least >= SEND_FAILURES_MAX => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether any path took it, and what another one said.
    fn advertise_everywhere(&mut self, priority: u8, hello: &Hello) -> (bool, Option<io::Error>) {
        let mut failure = self.hello(hello);
        let mut is_sent = failure.is_none() && !self.links.is_empty();
        self.signed = (Some(Instant::now()), self.signer.as_ref().map_or(0, Signer::last));
        for index in 0..self.vrrp.len() {
            match self.advertise_on(index, priority) {
                Ok(()) => is_sent = true,
                Err(error) => failure = Some(error),
            }
        }
        (is_sent, failure)
    }

    /// How often in a row every path has failed; `None` without a path.
    fn failures(&self) -> Option<u32> {
        let vrrp = self.vrrp.iter().map(|end| end.failures);
        vrrp.chain(self.links.iter().map(|end| end.failures)).min()
    }

    /// Resigns for a process that has ended, and opens what is not open or of an interface that is gone.
    ///
    /// # Errors
    /// What the kernel says when no path took it.
    pub fn resign(&mut self, hello: &Hello) -> io::Result<()> {
        let (is_sent, mut failure) = self.advertise_everywhere(PRIORITY_RESIGNED, hello);
        let is_open = self.vrrp.len() == self.voice.vrrp.len() && self.vrrp.iter().all(|end| end.failures == 0);
        let is_sent = is_sent
            || !is_open
                && match self.open_vrrp() {
                    Ok(()) => (0..self.vrrp.len()).any(|index| self.advertise_on(index, PRIORITY_RESIGNED).is_ok()),
                    Err(error) => {
                        failure = Some(error);
                        false
                    }
                };
        failure.filter(|_| !is_sent).map_or(Ok(()), Err)
    }

    /// Says hello on every link. The last error, if none took it.
    pub fn hello(&mut self, hello: &Hello) -> Option<io::Error> {
        let hello = Hello { advert_sequence: self.arrived_sequence(), ..*hello };
        let mut failure = None;
        let mut is_sent = false;
        for (index, end) in self.links.iter_mut().enumerate() {
            let result = end.socket.send(&end.channel.seal(&hello));
            self.counters.sent(self.vrrp.len() + index, result.is_ok());
            end.failures = if result.is_ok() { 0 } else { end.failures + 1 };
            is_sent |= result.is_ok();
            failure = result.err().or(failure);
        }
        failure.filter(|_| !is_sent)
    }

    /// The sequence of the last signed advert that the peer has read by now if it came at all: a floor that refuses none
    /// that is still on its way, such as a resignation.
    fn arrived_sequence(&self) -> u64 {
        let (signed_at, before) = self.signed;
        let is_on_its_way = signed_at.is_some_and(|signed_at| signed_at.elapsed() < ARRIVAL_TIME);
        if is_on_its_way { before } else { self.signer.as_ref().map_or(0, Signer::last) }
    }

    fn advertise_on(&mut self, index: usize, priority: u8) -> io::Result<()> {
        let Some(end) = self.vrrp.get_mut(index) else { return Ok(()) };
        let Some(destination) = end.path.destination() else { return Ok(()) };
        let mut result = Ok(());
        for version in versions(self.voice.vip.version, end.path.is_ipv4()) {
            let advert = Advert {
                version: *version,
                virtual_router_id: self.voice.vip.virtual_router_id,
                priority,
                interval: self.voice.vip.advert_interval,
                addresses: end.path.addresses.clone(),
            };
            let source = end.socket.local();
            let mut pdu = advert.encode(source, destination, &self.voice.format);
            if let Some(signer) = &mut self.signer {
                let context = Context { source, version: *version, virtual_router_id: advert.virtual_router_id };
                let trailer = signer.sign(since_epoch(), &context, &pdu);
                pdu = append_trailer(pdu, &trailer, source, destination);
                self.counters.sequence.store(signer.last(), Ordering::Relaxed);
            }
            result = end.socket.send(&pdu).and(result);
        }
        end.failures = if result.is_ok() { 0 } else { end.failures + 1 };
        self.counters.sent(index, result.is_ok());
        result
    }

    /// Waits for one packet on any path. Cancel safe.
    pub async fn listen(&mut self) -> Incoming {
        let siblings = &self.voice.siblings;
        let format = &self.voice.format;
        let vrrp = async {
            match self.vrrp.as_mut_slice() {
                [] => pending().await,
                [one] => hear(0, one, format, siblings).await,
                [one, two, ..] => tokio::select! {
                    ear = hear(0, one, format, siblings) => ear,
                    ear = hear(1, two, format, siblings) => ear,
                },
            }
        };
        tokio::select! {
            biased;
            Some((link, datagram)) = self.mailbox.recv() => Incoming::Datagram(link, datagram),
            ear = vrrp => Incoming::Advert(ear),
        }
    }

    /// Notes what was said last, for whoever has to speak in this process' name.
    pub fn note(&self, vip: usize, vitals: &Vitals) {
        if let Some(signer) = &self.signer {
            vitals.set_sequence(vip, signer.last());
        }
        for (link, end) in self.links.iter().enumerate() {
            vitals.set_hellos(vip, link, end.channel.sealed());
        }
    }

    /// Goes on from where the process that noted it ended, beyond what that may not have come to note.
    pub fn resume(&mut self, vip: usize, vitals: &Vitals) {
        if let Some(signer) = &mut self.signer {
            signer.skip_to(vitals.sequence(vip).saturating_add(UNNOTED));
        }
        for (link, end) in self.links.iter_mut().enumerate() {
            end.channel.resume(vitals.hellos(vip, link).saturating_add(UNNOTED));
        }
    }

    /// Says in what follows that it speaks no more often than this, so that the peer waits longer: RFC 9568 section 6.4.2
    /// has a backup go by what the last advert said. An advert of VRRPv2 says what is configured, in whole seconds.
    /// Returns what it says.
    pub fn slow_down(&mut self, interval: AdvertInterval) -> AdvertInterval {
        if self.voice.vip.version == VrrpVersion::V3 {
            self.voice.vip.advert_interval = interval;
        }
        self.voice.vip.advert_interval
    }

    /// What the next process of this node goes on with.
    pub fn leave(&self) -> Legacy {
        let channels = self.links.iter().map(|end| (end.local, end.peer, end.channel.leave()));
        Legacy { sequence: self.signer.as_ref().map_or(0, Signer::last), channels: channels.collect() }
    }

    /// Goes on with what another process left.
    pub fn take_over(&mut self, legacy: &Legacy) {
        if let Some(signer) = &mut self.signer {
            signer.skip_to(legacy.sequence);
        }
        for end in &mut self.links {
            let left = legacy.channels.iter().find(|(local, peer, _)| (*local, *peer) == (end.local, end.peer));
            left.inspect(|(_, _, left)| end.channel.take_over(left));
        }
    }

    /// From now on hears nothing, so that nothing piles up in a process that only speaks.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub fn deafen(&self) -> io::Result<()> {
        self.vrrp.iter().try_for_each(|end| end.socket.deafen())
    }

    /// Opens what came over a link.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn open_hello(&mut self, link: usize, datagram: &[u8]) -> Result<Opened, DropReason> {
        let end = self.links.get_mut(link).ok_or(DropReason::UnknownSource)?;
        let opened = end.channel.open(datagram)?;
        let path = self.vrrp.len() + link;
        self.counters.present(path);
        if let Opened::Fresh(hello) = &opened {
            // Adverts from before this hello are of the past, however late they come.
            for (index, end) in self.vrrp.iter_mut().enumerate() {
                end.verifier.set_floor(end.verifier.floor().max(hello.advert_sequence));
                self.counters.floor(index, end.verifier.floor());
            }
        }
        Ok(opened)
    }

    /// An advert that came as a hello, for the machine.
    pub fn heard_over_link(&self, link: usize, priority: u8, interval: AdvertInterval) -> Option<Heard> {
        let end = self.links.get(link)?;
        let (source, local, version) = (end.peer, end.local, Version::V3);
        Some(Heard { source, local, version, priority, interval, addresses_differ: false })
    }

    /// The peer's address on a link.
    pub fn peer_of_link(&self, link: usize) -> Option<IpAddr> {
        self.links.get(link).map(|end| end.peer)
    }

    /// The boot of the peer's process that speaks on a link.
    pub fn peer_boot(&self, link: usize) -> Option<u64> {
        self.links.get(link)?.channel.peer_boot()
    }

    /// The path of a link among the counters.
    pub fn path_of_link(&self, link: usize) -> usize {
        self.vrrp.len() + link
    }

    /// Throws away what is queued on every path.
    pub fn discard_queued(&mut self) {
        for end in &mut self.vrrp {
            end.socket.discard_queued(&mut end.buffer);
        }
        while self.mailbox.try_recv().is_ok() {}
    }
}

/// What came in.
pub enum Incoming {
    /// Over VRRP.
    Advert(Ear),
    /// Over a link; still sealed.
    Datagram(usize, Vec<u8>),
}

async fn hear(index: usize, end: &mut VrrpEnd, format: &Format, siblings: &[u8]) -> Ear {
    let VrrpEnd { socket, expected, verifier, buffer, mixed, .. } = end;
    let packet = match socket.receive(buffer).await {
        Ok(packet) => packet,
        // The interface went down or something answered with an ICMP error; the link watch has its own view.
        Err(_) => return Ear::Nothing,
    };
    let (envelope, payload) = match packet {
        Packet::Ipv4(packet) => match decode_ipv4(packet) {
            Ok(decoded) => decoded,
            Err(reason) => return Ear::Refused(reason, None),
        },
        Packet::Ipv6 { source, destination, hop_limit, payload } => {
            let (source, destination) = (IpAddr::V6(source), IpAddr::V6(destination));
            (Envelope { source, destination, hop_limit }, payload)
        }
    };
    // Before anything is found wrong with it: a sibling may have another checksum or password than this VIP.
    if payload.get(ROUTER_ID_AT).is_some_and(|id| siblings.contains(id)) {
        return Ear::Nothing;
    }
    let source = envelope.source;
    let refused = |reason| Ear::Refused(reason, Some(source));
    let received = match decode(&envelope, payload, format) {
        Ok(received) => received,
        Err(reason) => return refused(reason),
    };
    let heard = match judge(&received, expected).and_then(|heard| verified(&received, heard, verifier)) {
        Ok(heard) => heard,
        Err(reason) => return refused(reason),
    };
    // The other version of what was just heard is no fault of anybody.
    if mixed.admit(Instant::now(), &heard).is_err() { Ear::Nothing } else { Ear::Heard(index, heard) }
}

fn verified(received: &Received<'_>, heard: Heard, verifier: &mut Verifier) -> Result<Heard, DropReason> {
    verifier.verify(since_epoch(), received).map(|_| heard)
}

fn versions(version: VrrpVersion, is_ipv4: bool) -> &'static [Version] {
    match version {
        VrrpVersion::V2 if is_ipv4 => &[Version::V2],
        VrrpVersion::Mixed if is_ipv4 => &[Version::V3, Version::V2],
        VrrpVersion::V2 | VrrpVersion::V3 | VrrpVersion::Mixed => &[Version::V3],
    }
}

fn mode(authentication: Authentication) -> Mode {
    match authentication {
        Authentication::Off => Mode::Off,
        Authentication::ReceiveOnly => Mode::ReceiveOnly,
        Authentication::Permissive => Mode::Permissive,
        Authentication::Enforce => Mode::Enforce,
    }
}

/// The time of day: what a signature says of its age.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
