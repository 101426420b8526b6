//! The sockets of the heartbeat between real kernels: adverts over IPv6, the UDP link, and what neighbours are told,
//! asked and heard to claim. No node runs here; three machines on one switch are enough.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use baton::lab::namespace::Namespace;
use baton::lab::topology::{INTERFACE, Topology, TopologySpec};
use baton::net::link_socket::LinkSocket;
use baton::net::neighbour::{Announcer, Asker, Claim, ClaimWatcher, announcement, ask, probe, question};
use baton::net::vrrp_socket::{Destination, GROUP_V6, Packet, PacketBuffer, Spec, VrrpSocket};
use baton::units::IpNetwork;
use futures_util::TryStreamExt;
use libtest_mimic::Trial;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use pnet::datalink::{self, Channel, Config, NetworkInterface};
use pnet::util::MacAddr;
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec};
use tokio::runtime::Runtime;

use crate::scene::{Outcome, PATIENCE, until};

/// The addresses of the three machines, and those that may be anywhere.
const HOSTS: [(&str, &str, &str); 3] =
    [("left", "10.88.0.11", "fd88::11"), ("right", "10.88.0.12", "fd88::12"), ("third", "10.88.0.13", "fd88::13")];
const VIP_V4: &str = "10.88.0.100";
const VIP_V6: &str = "fd88::100";

/// How long a question waits for an answer that does not come.
const UNANSWERED: Duration = Duration::from_millis(300);

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, body: fn(&Stage) -> Outcome| {
        Trial::test(format!("sockets_{name}"), move || {
            Stage::build().and_then(|stage| body(&stage)).map_err(|error| format!("{error:#}").into())
        })
    };
    vec![
        trial("ipv6_multicast_adverts_come_from_the_link_local_address", multicast_over_ipv6),
        trial("ipv6_unicast_adverts_arrive_and_multicast_ones_do_not", unicast_over_ipv6),
        trial("ipv6_adverts_on_the_wire_have_the_marks_of_vrrp", marks_on_the_wire),
        trial("a_virtual_link_local_address_is_never_the_source", virtual_link_local_is_no_source),
        trial("an_interface_without_link_local_address_is_told", no_link_local_address),
        trial("queued_adverts_can_be_thrown_away", queued_adverts_are_discarded),
        trial("link_survives_a_refusing_peer", link_survives_refusal),
        trial("announcements_move_the_neighbour_entry_of_others", announcements_move_neighbours),
        trial("probes_are_answered_and_move_no_neighbour_entry", probes_are_answered),
        trial("claims_of_others_are_heard_and_nothing_else", claims_are_heard),
        trial("traffic_does_not_reach_a_claim_watcher", traffic_is_not_heard),
        trial("a_claim_watcher_tells_that_its_interface_went", watcher_tells_of_its_interface),
        trial("questions_find_who_is_there_and_nobody_else", questions_find_holders),
    ]
}

/// Three machines on a switch, and a runtime on which sockets of all of them can be waited for.
struct Stage {
    topology: Topology,
    runtime: Runtime,
}

impl Stage {
    fn build() -> anyhow::Result<Self> {
        let hosts = HOSTS.map(|(name, v4, _)| (name.to_owned(), network(v4, 24)));
        let topology = Topology::build(&TopologySpec { hosts: hosts.to_vec(), netns_prefix: None })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stage = Self { topology, runtime };
        for (name, _, v6) in HOSTS {
            stage.host(name)?.run(|| {
                // Where it cannot be written, the kernel's doubts about an address last a second or two.
                drop(fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/accept_dad"), "0"));
            })?;
            stage.add(name, v6)?;
        }
        Ok(stage)
    }

    fn host(&self, name: &str) -> anyhow::Result<&Namespace> {
        Ok(self.topology.host(name)?)
    }

    /// Runs `work` inside a machine; what it opens can be waited for outside.
    fn inside<T: Send>(
        &self,
        host: &str,
        work: impl FnOnce(&NetworkInterface) -> io::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let handle = self.runtime.handle();
        let done = self.host(host)?.run(|| {
            let _on_runtime = handle.enter();
            let interface = datalink::interfaces().into_iter().find(|interface| interface.name == INTERFACE);
            work(&interface.ok_or_else(|| io::Error::other("a machine without eth0"))?)
        })?;
        Ok(done?)
    }

    /// Gives a machine an address and waits until it can be used.
    fn add(&self, host: &str, address: &str) -> Outcome {
        let network = network(address, if address.contains(':') { 64 } else { 24 });
        self.netlink(host, async move |netlink, index| {
            netlink.address().add(index, network.address(), network.prefix_len()).execute().await
        })?;
        until(&format!("{address} to be usable on {host}"), PATIENCE, || {
            self.inside(host, |interface| Ok(UdpSocket::bind(scoped(network.address(), interface.index)).ok()))
        })?;
        Ok(())
    }

    fn netlink<T: Send, F: Future<Output = Result<T, rtnetlink::Error>>>(
        &self,
        host: &str,
        work: impl FnOnce(Handle, u32) -> F + Send,
    ) -> anyhow::Result<T> {
        let index = self.inside(host, |interface| Ok(interface.index))?;
        self.host(host)?.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                let serving = tokio::spawn(connection);
                let done = work(handle, index).await;
                serving.abort();
                Ok(done?)
            })
        })?
    }

    fn hardware(&self, host: &str) -> anyhow::Result<MacAddr> {
        self.inside(host, |interface| interface.mac.ok_or_else(|| io::Error::other("no hardware address")))
    }

    /// Opens the socket of adverts, as soon as the kernel is sure of the addresses.
    fn adverts(&self, host: &str, local: &str, destination: Destination) -> anyhow::Result<VrrpSocket> {
        let spec =
            Spec { interface: INTERFACE.to_owned(), local: ip(local), destination, never_local: vec![ip("fe80::1")] };
        until(&format!("{local} to be usable on {host}"), PATIENCE, || {
            self.inside(host, |_| match VrrpSocket::open(&spec) {
                Ok(socket) => Ok(Some(socket)),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
                Err(error) => Err(error),
            })
        })
    }

    /// Sends a frame out of a machine's interface.
    fn send(&self, host: &str, frame: Option<Vec<u8>>) -> Outcome {
        let frame = frame.context("a frame")?;
        self.inside(host, |interface| Announcer::open()?.send(interface.index, &frame))
    }

    fn watch(&self, host: &str, addresses: &[&str]) -> anyhow::Result<ClaimWatcher> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
        let own = vec![self.hardware(host)?];
        self.inside(host, |interface| ClaimWatcher::open(interface.index, addresses, own))
    }

    /// Waits for something, but not for ever.
    fn wait<T>(&self, what: &str, work: impl Future<Output = io::Result<T>>) -> anyhow::Result<T> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
        Ok(waited.with_context(|| format!("waited in vain for {what}"))??)
    }

    fn next_claim(&self, watcher: &mut ClaimWatcher) -> anyhow::Result<Claim> {
        self.wait("a claim", watcher.next())
    }

    /// Where a machine believes an address to be.
    fn neighbour(&self, host: &str, address: &str) -> anyhow::Result<Option<MacAddr>> {
        let address = ip(address);
        let entries =
            self.netlink(host, async |netlink, _| netlink.neighbours().get().execute().try_collect::<Vec<_>>().await)?;
        let is_of = |attribute: &NeighbourAttribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => IpAddr::from(*found) == address,
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => IpAddr::from(*found) == address,
            _ => false,
        };
        let entry = entries.into_iter().find(|entry| entry.attributes.iter().any(is_of));
        Ok(entry.and_then(|entry| {
            entry.attributes.into_iter().find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(octets) => <[u8; 6]>::try_from(octets).ok().map(MacAddr::from),
                _ => None,
            })
        }))
    }

    fn expect_neighbour(&self, host: &str, address: &str, hardware: MacAddr) -> Outcome {
        until(&format!("{host} to believe that {address} is at {hardware}"), PATIENCE, || {
            Ok((self.neighbour(host, address)? == Some(hardware)).then_some(()))
        })
    }

    /// Sends a datagram to an address, for which the sender has to find out where it is.
    fn send_datagram(&self, host: &str, from: &str, to: &str) -> Outcome {
        let (from, to) = (SocketAddr::new(ip(from), 0), SocketAddr::new(ip(to), 9));
        self.inside(host, |_| UdpSocket::bind(from)?.send_to(b"where are you", to).map(|_| ()))
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(address: &str, prefix_len: u8) -> IpNetwork {
    IpNetwork::new(ip(address), prefix_len).unwrap()
}

fn scoped(address: IpAddr, interface_index: u32) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            std::net::SocketAddrV6::new(address, 0, 0, interface_index).into()
        }
        address => SocketAddr::new(address, 0),
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => panic!("{address} is no IPv6 address"),
    }
}

/// The next packet, as source, destination, hop limit and payload.
fn next_v6(stage: &Stage, socket: &VrrpSocket) -> anyhow::Result<(Ipv6Addr, Ipv6Addr, u8, Vec<u8>)> {
    let mut buffer = PacketBuffer::new();
    match stage.wait("an advert", socket.receive(&mut buffer))? {
        Packet::Ipv6 { source, destination, hop_limit, payload } => {
            Ok((source, destination, hop_limit, payload.to_vec()))
        }
        Packet::Ipv4(packet) => panic!("an IPv4 packet on an IPv6 socket: {packet:?}"),
    }
}

fn multicast_over_ipv6(stage: &Stage) -> Outcome {
    let left = stage.adverts("left", "fd88::11", Destination::Group)?;
    let right = stage.adverts("right", "fd88::12", Destination::Group)?;
    let (from_left, from_right) = (as_v6(left.local()), as_v6(right.local()));
    assert!(from_left.is_unicast_link_local() && from_right.is_unicast_link_local());
    assert_eq!(left.destination(), Some(ip("ff02::12")));
    left.send(b"from the left")?;
    assert_eq!(next_v6(stage, &right)?, (from_left, GROUP_V6, 255, b"from the left".to_vec()));
    // The first that comes to the left is the answer, and not its own advert.
    right.send(b"from the right")?;
    assert_eq!(next_v6(stage, &left)?, (from_right, GROUP_V6, 255, b"from the right".to_vec()));
    // What was sent to the address alone shows as that, so that it can be refused.
    let alone = stage.adverts("left", &from_left.to_string(), Destination::Peer(from_right.into()))?;
    alone.send(b"not for all")?;
    assert_eq!(next_v6(stage, &right)?, (from_left, from_right, 255, b"not for all".to_vec()));
    Ok(())
}

fn unicast_over_ipv6(stage: &Stage) -> Outcome {
    let to_all = stage.adverts("left", "fd88::11", Destination::Group)?;
    let left = stage.adverts("left", "fd88::11", Destination::Peer(ip("fd88::12")))?;
    let right = stage.adverts("right", "fd88::12", Destination::Peer(ip("fd88::11")))?;
    // Somebody else on the right listens to the group, so that the kernel lets it in.
    let group = stage.adverts("right", "fd88::12", Destination::Group)?;
    assert_eq!((left.local(), left.destination()), (ip("fd88::11"), Some(ip("fd88::12"))));
    to_all.send(b"to all")?;
    assert_eq!(next_v6(stage, &group)?.3, b"to all");
    left.send(b"to the peer")?;
    let (source, local) = (as_v6(ip("fd88::11")), as_v6(ip("fd88::12")));
    assert_eq!(next_v6(stage, &right)?, (source, local, 255, b"to the peer".to_vec()));
    let silent = stage.adverts("right", "fd88::12", Destination::Nowhere)?;
    assert_eq!(silent.destination(), None);
    silent.send(b"to nobody")?;
    right.send(b"to the left")?;
    assert_eq!(next_v6(stage, &left)?, (local, source, 255, b"to the left".to_vec()));
    Ok(())
}

/// Version and traffic class, next header, hop limit: as in the captures of keepalived's adverts.
fn marks_on_the_wire(stage: &Stage) -> Outcome {
    let group = stage.adverts("left", "fd88::11", Destination::Group)?;
    let peer = stage.adverts("left", "fd88::11", Destination::Peer(ip("fd88::12")))?;
    let mut frames = stage.inside("right", |interface| {
        let config = Config { read_timeout: Some(PATIENCE), ..Config::default() };
        match datalink::channel(interface, config)? {
            Channel::Ethernet(_, frames) => Ok(frames),
            _ => Err(io::Error::other("no Ethernet")),
        }
    })?;
    let mut next = || -> io::Result<Vec<u8>> {
        loop {
            let frame = frames.next()?;
            if frame[12..14] == [0x86, 0xdd] && frame[20] == 112 {
                return Ok(frame.to_vec());
            }
        }
    };
    group.send(b"to all")?;
    let to_all = next()?;
    peer.send(b"to the peer")?;
    let to_peer = next()?;
    for frame in [&to_all, &to_peer] {
        assert_eq!((frame[14], frame[15] & 0xf0, frame[21]), (0x6c, 0x00, 255));
    }
    assert_eq!(to_all[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
    assert_eq!(&to_all[54..], b"to all", "the kernel wrote no checksum into it");
    assert_eq!(&to_peer[54..], b"to the peer");
    Ok(())
}

fn virtual_link_local_is_no_source(stage: &Stage) -> Outcome {
    let before = stage.adverts("left", "fd88::11", Destination::Group)?;
    stage.add("left", "fe80::1")?;
    let after = stage.adverts("left", "fd88::11", Destination::Group)?;
    assert_eq!(after.local(), before.local());
    let right = stage.adverts("right", "fd88::12", Destination::Group)?;
    after.send(b"still me")?;
    assert_eq!(IpAddr::from(next_v6(stage, &right)?.0), before.local());
    Ok(())
}

fn no_link_local_address(stage: &Stage) -> Outcome {
    let link_local = stage.adverts("left", "fd88::11", Destination::Group)?.local();
    stage.netlink("left", async |netlink, index| {
        let message = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(as_v6(link_local), 64).build();
        netlink.address().del(message).execute().await
    })?;
    let spec = Spec {
        interface: INTERFACE.to_owned(),
        local: ip("fd88::11"),
        destination: Destination::Group,
        never_local: Vec::new(),
    };
    let refused = stage.inside("left", |_| Ok(VrrpSocket::open(&spec).map(|_| ()).unwrap_err()))?;
    assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
    assert_eq!(refused.to_string(), "eth0 has no link-local IPv6 address that can be used (yet)");
    let gone = Spec { interface: "eth9".to_owned(), ..spec };
    let refused = stage.inside("left", |_| Ok(VrrpSocket::open(&gone).map(|_| ()).unwrap_err()))?;
    assert_eq!(refused.raw_os_error(), Some(libc::ENODEV));
    Ok(())
}

fn queued_adverts_are_discarded(stage: &Stage) -> Outcome {
    let left = stage.adverts("left", "fd88::11", Destination::Group)?;
    let right = stage.adverts("right", "fd88::12", Destination::Group)?;
    let control = stage.adverts("right", "fd88::12", Destination::Group)?;
    for _ in 0..3 {
        left.send(b"old")?;
    }
    // Once a second socket has heard all of them, so has the first.
    for _ in 0..3 {
        assert_eq!(next_v6(stage, &control)?.3, b"old");
    }
    assert_eq!(right.discard_queued(&mut PacketBuffer::new()), 3);
    left.send(b"new")?;
    assert_eq!(next_v6(stage, &right)?.3, b"new");
    Ok(())
}

fn expect_heard(stage: &Stage, sender: &LinkSocket, far: &LinkSocket, text: &[u8]) -> Outcome {
    sender.send(text)?;
    let mut buffer = PacketBuffer::new();
    let heard = stage.wait("a datagram", far.receive(&mut buffer))?;
    assert_eq!(heard, text);
    Ok(())
}

fn link_survives_refusal(stage: &Stage) -> Outcome {
    for (left_at, right_at) in [("10.88.0.11", "10.88.0.12"), ("fd88::11", "fd88::12")] {
        let (left_at, right_at) = (SocketAddr::new(ip(left_at), 7947), SocketAddr::new(ip(right_at), 7947));
        let left = stage.inside("left", |_| LinkSocket::open(left_at, right_at))?;
        let mut buffer = PacketBuffer::new();
        for _ in 0..3 {
            left.send(b"nobody there")?;
            // The refusal comes in this time, and the wait for a datagram outlasts it.
            let waited = stage
                .runtime
                .block_on(async { tokio::time::timeout(Duration::from_millis(50), left.receive(&mut buffer)).await });
            assert!(waited.is_err(), "{waited:?}");
        }
        let right = stage.inside("right", |_| LinkSocket::open(right_at, left_at))?;
        expect_heard(stage, &left, &right, b"somebody there")?;
        expect_heard(stage, &right, &left, b"and here")?;
        let again = stage.inside("left", |_| Ok(LinkSocket::open(left_at, right_at).map(|_| ()).unwrap_err()))?;
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }
    Ok(())
}

fn announcements_move_neighbours(stage: &Stage) -> Outcome {
    let (left, right) = (stage.hardware("left")?, stage.hardware("right")?);
    for (vip, third_at) in [(VIP_V4, "10.88.0.13"), (VIP_V6, "fd88::13")] {
        stage.add("left", vip)?;
        stage.send_datagram("third", third_at, vip)?;
        stage.expect_neighbour("third", vip, left)?;
        stage.send("right", announcement(right, ip(vip)))?;
        stage.expect_neighbour("third", vip, right)?;
    }
    Ok(())
}

fn probes_are_answered(stage: &Stage) -> Outcome {
    let (left, right) = (stage.hardware("left")?, stage.hardware("right")?);
    for (vip, third_at) in [(VIP_V4, "10.88.0.13"), (VIP_V6, "fd88::13")] {
        stage.add("left", vip)?;
        stage.send_datagram("third", third_at, vip)?;
        stage.expect_neighbour("third", vip, left)?;
        let mut watcher = stage.watch("right", &[VIP_V4, VIP_V6])?;
        stage.send("right", probe(right, ip(vip)))?;
        assert_eq!(stage.next_claim(&mut watcher)?, Claim { address: ip(vip), hardware: left });
        assert_eq!(stage.neighbour("third", vip)?, Some(left));
    }
    Ok(())
}

fn claims_are_heard(stage: &Stage) -> Outcome {
    let (right, third) = (stage.hardware("right")?, stage.hardware("third")?);
    // One has the last 32 bits of the address that is watched.
    let others = ["10.88.0.101", "fd88::101", "fd88::1:0:100"];
    for vip in [VIP_V4, VIP_V6] {
        let mut watcher = stage.watch("right", &[VIP_V4, VIP_V6])?;
        let mut everything: Vec<IpAddr> = others.iter().chain([&vip]).map(|address| ip(address)).collect();
        everything.sort_unstable();
        let mut control =
            stage.inside("right", |interface| ClaimWatcher::open(interface.index, everything.clone(), Vec::new()))?;
        // What this machine says itself, and when the network sends that back; somebody else who looks for the address.
        stage.send("right", announcement(right, ip(vip)))?;
        stage.send("third", announcement(right, ip(vip)))?;
        stage.send("third", probe(third, ip(vip)))?;
        for other in others {
            stage.send("third", announcement(third, ip(other)))?;
        }
        // Frames from several threads may overtake each other: all of these are to be there before the one that counts.
        let mut heard = Vec::new();
        for _ in 0..everything.len() {
            heard.push(stage.next_claim(&mut control)?.address);
        }
        heard.sort_unstable();
        assert_eq!(heard, everything);
        stage.send("third", announcement(third, ip(vip)))?;
        assert_eq!(stage.next_claim(&mut watcher)?, Claim { address: ip(vip), hardware: third });
    }
    let mut watcher = stage.watch("right", &[VIP_V4])?;
    stage.send("third", question(third, ip(VIP_V4), ip("10.88.0.12")))?;
    assert_eq!(stage.next_claim(&mut watcher)?, Claim { address: ip(VIP_V4), hardware: third });
    Ok(())
}

fn traffic_is_not_heard(stage: &Stage) -> Outcome {
    let watcher = stage.watch("right", &[VIP_V4, VIP_V6])?;
    for (from, to) in [("10.88.0.11", "10.88.0.12"), ("fd88::11", "fd88::12")] {
        let receiver = stage.inside("right", |_| UdpSocket::bind(SocketAddr::new(ip(to), 0)))?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        let to = receiver.local_addr()?;
        let sender = stage.inside("left", |_| UdpSocket::bind(SocketAddr::new(ip(from), 0)))?;
        for _ in 0..100 {
            sender.send_to(&[136; 200], to)?;
            receiver.recv(&mut [0; 256])?;
        }
    }
    // The questions and answers of the kernels about these addresses have passed as well.
    assert_eq!(watcher.discard_queued(), 0);
    Ok(())
}

fn watcher_tells_of_its_interface(stage: &Stage) -> Outcome {
    let third = stage.hardware("third")?;
    let mut watcher = stage.watch("right", &[VIP_V4])?;
    let set = |is_up: bool| {
        stage.netlink("right", async move |netlink, _| {
            let link = LinkUnspec::new_with_name(INTERFACE);
            netlink.link().set(if is_up { link.up() } else { link.down() }.build()).execute().await
        })
    };
    set(false)?;
    let told = stage.wait("the interface to be down", watcher.next()).unwrap_err();
    assert_eq!(told.downcast::<io::Error>()?.kind(), io::ErrorKind::NetworkDown);
    set(true)?;
    stage.topology.wait_until_linked("right")?;
    stage.send("third", announcement(third, ip(VIP_V4)))?;
    assert_eq!(stage.next_claim(&mut watcher)?.hardware, third);
    stage.netlink("right", async |netlink, index| netlink.link().del(index).execute().await)?;
    let told = stage.wait("the interface to be gone", watcher.next()).unwrap_err();
    assert_eq!(told.downcast::<io::Error>()?.kind(), io::ErrorKind::NetworkDown);
    Ok(())
}

fn questions_find_holders(stage: &Stage) -> Outcome {
    let (left, right) = (stage.hardware("left")?, stage.hardware("right")?);
    for (own, present, absent) in [("10.88.0.12", "10.88.0.11", VIP_V4), ("fd88::12", "fd88::11", VIP_V6)] {
        let open = |target| stage.inside("right", |at| Asker::open(at.index, right, ip(own), ip(target)));
        let mut present_asker = open(present)?;
        for _ in 0..2 {
            assert_eq!(stage.wait("an answer", present_asker.ask(PATIENCE))?, Some(left));
        }
        assert_eq!(stage.wait("no answer", open(absent)?.ask(UNANSWERED))?, None);
        // The address moves to the left: the same asker finds it.
        let mut asker = open(absent)?;
        stage.add("left", absent)?;
        assert_eq!(stage.wait("an answer", asker.ask(PATIENCE))?, Some(left));
    }
    // The cable is out: no answer is no error.
    stage.topology.cut_cable("left")?;
    let mut asker = stage.inside("right", |at| Asker::open(at.index, right, ip("10.88.0.12"), ip("10.88.0.11")))?;
    assert_eq!(stage.wait("no answer", asker.ask(UNANSWERED))?, None);
    let mixed = stage.inside("right", |at| {
        let asked = ask(at.index, right, ip("10.88.0.12"), ip("fd88::11"), UNANSWERED);
        Ok(futures_util::FutureExt::now_or_never(asked))
    })?;
    assert_eq!(mixed.context("refused at once")?.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    Ok(())
}
