//! Hears who else claims an address on a link, and asks for the holder of one.
//!
//! The packet sockets here carry a filter that the kernel runs (classic BPF, socket(7) `SO_ATTACH_FILTER`), so that the
//! traffic of the proxy is never copied for them and wakes nobody. Over IPv4 it does not even reach the filter.

use std::future::pending;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pnet::packet::ethernet::EtherTypes;
use pnet::util::MacAddr;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use super::{Announcer, Claim, claim_in, link_address, question};

/// Addresses of each family that one watcher looks for; the filter takes two steps for each, and the kernel limits the
/// memory of filters (net.core.optmem_max, 20 KiB and more).
const ADDRESSES_MAX: usize = 512;

/// Bytes of a frame that are read. An advertisement with its one option has 86; what is longer than this is padding, or
/// options that we do not know and that do not come before it.
const FRAME_MAX: usize = 1514;

/// Frames thrown away in a row, so that a flood cannot keep us there.
const DISCARD_MAX: usize = 4096;

/// How often a question is asked before nobody is there: one may be lost, and a gateway may limit its answers.
const QUESTIONS: u32 = 3;

/// Hears others claim any of some addresses on one interface.
#[derive(Debug)]
pub struct ClaimWatcher {
    arp: Option<Ear>,
    discovery: Option<Ear>,
    addresses: Vec<IpAddr>,
    own: Vec<MacAddr>,
}

impl ClaimWatcher {
    /// Begins to listen. `own` holds every hardware address from which this machine itself may claim them: its
    /// interface's, and the virtual router's. Needs `CAP_NET_RAW` and a tokio runtime.
    ///
    /// # Errors
    /// `PermissionDenied` without the capability; `NotFound` (ENODEV) when the interface is gone, `NetworkDown` when it
    /// is down; `InvalidInput` for more than 512 addresses of a family.
    pub fn open(interface_index: u32, addresses: Vec<IpAddr>, own: Vec<MacAddr>) -> io::Result<Self> {
        let v4: Vec<u32> = addresses.iter().filter_map(|address| v4(*address)).map(Ipv4Addr::to_bits).collect();
        let v6: Vec<u32> = addresses.iter().filter_map(|address| v6(*address)).map(last_word).collect();
        if v4.len().max(v6.len()) > ADDRESSES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many addresses to watch"));
        }
        let arp = (!v4.is_empty()).then(|| Ear::open(interface_index, EtherTypes::Arp.0, &arp_filter(&v4)));
        let discovery = (!v6.is_empty()).then(|| Ear::open(interface_index, EtherTypes::Ipv6.0, &advert_filter(&v6)));
        Ok(Self { arp: arp.transpose()?, discovery: discovery.transpose()?, addresses, own })
    }

    /// Waits for the next claim of somebody else. Cancel safe: a claim is either returned or still queued. Claims that
    /// come faster than they are asked for are dropped by the kernel once the receive buffer is full.
    ///
    /// # Errors
    /// `NetworkDown` once when the interface goes down or away. When it is up again, the same one, the watcher hears
    /// again; for an interface that was made anew a new watcher is needed.
    pub async fn next(&mut self) -> io::Result<Claim> {
        tokio::select! {
            claim = hear(&self.arp, &self.addresses, &self.own) => claim,
            claim = hear(&self.discovery, &self.addresses, &self.own) => claim,
        }
    }

    /// Throws away what is queued now. Returns the count of frames.
    pub fn discard_queued(&self) -> usize {
        [&self.arp, &self.discovery].into_iter().flatten().map(Ear::discard_queued).sum()
    }
}

/// Asks for the holder of one address, again and again. Keep it between questions: closing a packet socket takes the
/// kernel some milliseconds, in which the thread waits.
#[derive(Debug)]
pub struct Asker {
    interface_index: u32,
    announcer: Announcer,
    watcher: ClaimWatcher,
    question: Vec<u8>,
}

impl Asker {
    /// `hardware` is that of the interface, `own` an address of this node on it. Needs `CAP_NET_RAW` and a tokio runtime.
    ///
    /// # Errors
    /// As [`ClaimWatcher::open`]; `InvalidInput` when the addresses differ in family.
    pub fn open(interface_index: u32, hardware: MacAddr, own: IpAddr, target: IpAddr) -> io::Result<Self> {
        let question = question(hardware, own, target).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{own} and {target} differ in family"))
        })?;
        let watcher = ClaimWatcher::open(interface_index, vec![target], vec![hardware])?;
        Ok(Self { interface_index, announcer: Announcer::open()?, watcher, question })
    }

    /// Asks up to three times within `timeout` and gives the hardware address of whoever says that the address is theirs,
    /// by an answer or by anything else sent meanwhile; `None` when nobody did. Cancel safe.
    ///
    /// # Errors
    /// `NetworkDown` when the interface is down or gone; what else the kernel says.
    pub async fn ask(&mut self, timeout: Duration) -> io::Result<Option<MacAddr>> {
        self.watcher.discard_queued();
        let started = Instant::now();
        for turn in 1..=QUESTIONS {
            self.announcer.send(self.interface_index, &self.question)?;
            if let Ok(claim) = timeout_at(started + timeout * turn / QUESTIONS, self.watcher.next()).await {
                return claim.map(|claim| Some(claim.hardware));
            }
        }
        Ok(None)
    }
}

/// Asks once for the holder of an address; see [`Asker`].
///
/// # Errors
/// As [`Asker::open`] and [`Asker::ask`].
pub async fn ask(
    interface_index: u32,
    hardware: MacAddr,
    own: IpAddr,
    target: IpAddr,
    timeout: Duration,
) -> io::Result<Option<MacAddr>> {
    Asker::open(interface_index, hardware, own, target)?.ask(timeout).await
}

/// One packet socket on one interface, for frames of one kind that others send.
#[derive(Debug)]
struct Ear {
    socket: AsyncFd<Socket>,
}

impl Ear {
    fn open(interface_index: u32, ethertype: u16, filter: &[SockFilter]) -> io::Result<Self> {
        // With protocol 0 it hears nothing until it is bound, and by then the filter is in place.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))?;
        socket.attach_filter(filter)?;
        socket.bind(&link_address(interface_index, ethertype))?;
        // SAFETY: a `Socket` owns one descriptor and returns the same one until it is dropped, and nothing here replaces it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    async fn claim(&self, addresses: &[IpAddr], own: &[MacAddr]) -> io::Result<Claim> {
        let mut frame = [0_u8; FRAME_MAX];
        loop {
            // A flood must not keep other tasks of the thread waiting.
            consume_budget().await;
            let mut ready = self.socket.readable().await?;
            let Ok(len_bytes) = ready.try_io(|socket| socket.get_ref().read(&mut frame)) else { continue };
            if let Some(claim) = claim_in(frame.get(..len_bytes?).unwrap_or(&[]))
                && addresses.contains(&claim.address)
                && !own.contains(&claim.hardware)
            {
                return Ok(claim);
            }
        }
    }

    fn discard_queued(&self) -> usize {
        let mut frame = [0_u8; FRAME_MAX];
        (0..DISCARD_MAX).take_while(|_| self.socket.get_ref().read(&mut frame).is_ok()).count()
    }
}

async fn hear(ear: &Option<Ear>, addresses: &[IpAddr], own: &[MacAddr]) -> io::Result<Claim> {
    match ear {
        Some(ear) => ear.claim(addresses, own).await,
        None => pending().await,
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

/// The filter looks at the last 32 bits of an address; the few frames that agree in those are looked at in whole by us.
fn last_word(address: Ipv6Addr) -> u32 {
    let [.., a, b, c, d] = address.octets();
    u32::from_be_bytes([a, b, c, d])
}

/// Takes ARP packets whose sender's address is one of these.
fn arp_filter(addresses: &[u32]) -> Vec<SockFilter> {
    const SENDER_ADDRESS_AT: u32 = 14 + 14;
    filter(&[], SENDER_ADDRESS_AT, addresses)
}

/// Takes neighbour advertisements whose target ends in one of these words.
fn advert_filter(last_words: &[u32]) -> Vec<SockFilter> {
    const NEXT_HEADER_AT: u32 = 14 + 6;
    const ICMP_TYPE_AT: u32 = 14 + 40;
    const TARGET_LAST_WORD_AT: u32 = 14 + 40 + 8 + 12;
    const ICMPV6: u32 = 58;
    const NEIGHBOUR_ADVERT: u32 = 136;
    filter(&[(NEXT_HEADER_AT, ICMPV6), (ICMP_TYPE_AT, NEIGHBOUR_ADVERT)], TARGET_LAST_WORD_AT, last_words)
}

/// Takes frames in which each byte of `required` has its value and the word at `at` is one of `words`. Reading past the
/// end of a frame drops it.
fn filter(required: &[(u32, u32)], at: u32, words: &[u32]) -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const SKIP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let drop = || SockFilter::new(RETURN, 0, 0, 0);
    let take = || SockFilter::new(RETURN, 0, 0, FRAME_MAX as u32);
    let mut steps = Vec::with_capacity(required.len() * 3 + words.len() * 2 + 2);
    for (at, value) in required {
        steps.extend([SockFilter::new(LOAD_BYTE, 0, 0, *at), SockFilter::new(SKIP_IF_EQUAL, 1, 0, *value), drop()]);
    }
    steps.push(SockFilter::new(LOAD_WORD, 0, 0, at));
    for word in words {
        steps.extend([SockFilter::new(SKIP_IF_EQUAL, 0, 1, *word), take()]);
    }
    steps.push(drop());
    steps
}
