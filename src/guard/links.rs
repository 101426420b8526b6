//! The links of the pair: authenticated datagrams between the node addresses, over which both nodes say at every advert
//! interval how they are. For every VIP they are a path of adverts like VRRP, and the only one that a standby speaks on.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::paths::LinkPath;
use super::speaker::LinkEnd;
use crate::net::link_socket::LinkSocket;
use crate::net::vrrp_socket::PacketBuffer;
use crate::vrrp::hello::{self, Channel, Hello};
use crate::vrrp::machine::{Parameters, State};

/// Datagrams that may wait for a VIP; more are dropped, and the next one says the same again.
const MAILBOX_MAX: usize = 64;

/// What all links are opened with.
pub struct Setup {
    /// None without a pair key or a peer.
    pub paths: Vec<LinkPath>,
    /// The pair key; empty where there are no links.
    pub key: Vec<u8>,
    /// This node's name.
    pub own_node: String,
    /// The peer's.
    pub peer_node: String,
    /// Random for each start of the guard: proves that what the peer says is not from an earlier life.
    pub boot: u64,
    /// How many guards have said something under this number before.
    pub generation: u64,
    /// Links that a guard before this one, in the same process, has opened.
    pub inherited: Vec<(LinkPath, OwnedFd)>,
}

/// An open link.
pub struct Link {
    socket: Rc<LinkSocket>,
}

/// To the VIPs, by the tag that their datagrams bear.
pub type Mailboxes = HashMap<[u8; 8], mpsc::Sender<(usize, Vec<u8>)>>;

/// Opens every link that is not open.
///
/// # Errors
/// What bind(2) says: `AddrNotAvailable` when the node's address is on no interface of this machine.
pub fn open(setup: &Setup) -> io::Result<Vec<Link>> {
    let open = |path: &LinkPath| {
        let inherited = setup.inherited.iter().find(|(known, _)| known == path);
        let socket = match inherited {
            Some((_, descriptor)) => LinkSocket::inherit(descriptor.try_clone()?)?,
            None => LinkSocket::open(path.local, path.peer)?,
        };
        Ok(Link { socket: Rc::new(socket) })
    };
    setup.paths.iter().map(open).collect()
}

/// Takes over links that another process has opened, in its order.
///
/// # Errors
/// What epoll_ctl(2) says.
pub fn inherit(descriptors: Vec<OwnedFd>) -> io::Result<Vec<Link>> {
    let inherit = |descriptor| Ok(Link { socket: Rc::new(LinkSocket::inherit(descriptor)?) });
    descriptors.into_iter().map(inherit).collect()
}

/// Links for a process that is to inherit them.
///
/// # Errors
/// What dup(2) says.
pub fn descriptors(links: &[Link]) -> io::Result<Vec<OwnedFd>> {
    links.iter().map(|link| link.socket.descriptor()).collect()
}

/// A VIP's ends of all links, and its mailbox.
pub fn join(
    setup: &Setup,
    links: &[Link],
    vip: &str,
    mailboxes: &mut Mailboxes,
) -> (Vec<LinkEnd>, mpsc::Receiver<(usize, Vec<u8>)>) {
    let (sender, mailbox) = mpsc::channel(MAILBOX_MAX);
    mailboxes.insert(hello::tag(vip), sender);
    let ends = setup.paths.iter().zip(links).enumerate().map(|(index, (path, link))| {
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        let mut channel = Channel::new(&setup.key, vip, &setup.own_node, &setup.peer_node, index, setup.boot);
        channel.begin_above(setup.generation);
        LinkEnd::new(Rc::clone(&link.socket), channel, path.local.ip(), path.peer.ip())
    });
    (ends.collect(), mailbox)
}

/// Reads a link and hands what comes to the VIPs, for as long as the thread lives.
pub async fn read(index: usize, link: Link, mailboxes: Rc<Mailboxes>) {
    let mut buffer = PacketBuffer::new();
    loop {
        // An ICMP error says that the peer does not listen; it is silent then, which is all that counts.
        let Ok(datagram) = link.socket.receive(&mut buffer).await else { continue };
        if let Some(mailbox) = hello::tag_of(datagram).and_then(|tag| mailboxes.get(&tag)) {
            drop(mailbox.try_send((index, datagram.to_vec())));
        }
    }
}

impl Setup {
    /// Whether this node and the peer sync: then the node is not synced until its worker says so, and otherwise there is
    /// nothing that it could lack.
    pub fn syncs(&self) -> bool {
        !self.paths.is_empty()
    }
}

/// The hello of a node that has nothing to say yet.
pub fn first_hello(config_checksum: [u8; 8], parameters: &Parameters, synced: bool) -> Hello {
    Hello {
        state: State::Init,
        priority: parameters.priority.get(),
        interval: parameters.advert_interval,
        epoch: parameters.epoch,
        fit: false,
        synced,
        claim_request: None,
        handover_request: None,
        pools_up: 0,
        servers_up: 0,
        heard_paths: 0,
        config_checksum,
        advert_sequence: 0,
        advert_stamp: 0,
        heard_stamp: 0,
    }
}
