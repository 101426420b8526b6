//! What the network says: who holds an address, which virtual routers there are, who answers.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::join_all;
use pnet::util::MacAddr;
use tokio::time::{Instant, timeout_at};

use super::machine::Interface;
use crate::net::neighbour;
use crate::net::vrrp_socket::{Destination, Packet, PacketBuffer, Spec, VrrpSocket};
use crate::units::IpNetwork;

/// Time in which whoever holds an address answers; it is asked three times.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Time that others' adverts are listened for: three of the usual second.
const LISTEN_TIME: Duration = Duration::from_millis(3200);

/// Time for a machine to answer a connect.
const REACH_TIME: Duration = Duration::from_millis(1500);

/// Connects at a time.
const REACHES_MAX: usize = 64;

/// Who answers for each of the addresses; asked so that nobody's memory of them changes (RFC 5227, RFC 4862).
pub(super) fn holders(index: u32, hardware: MacAddr, vips: &[IpNetwork]) -> Vec<io::Result<Option<MacAddr>>> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vips.iter().map(|_| Err(error.kind().into())).collect(),
    };
    let ask = |vip: &IpNetwork| {
        let target = vip.address();
        // From nobody: a question that claims nothing.
        let own = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        neighbour::ask(index, hardware, own, target, PROBE_TIME)
    };
    runtime.block_on(join_all(vips.iter().map(ask)))
}

/// Listens for virtual routers.
pub(super) struct Routers(io::Result<JoinHandle<io::Result<BTreeSet<u8>>>>);

/// Begins to listen on an interface for the adverts that virtual routers send to all.
pub(super) fn hear_routers(interface: &Interface) -> Routers {
    let name = interface.name.clone();
    let mut locals: Vec<IpAddr> = interface.networks.iter().map(|network| network.address()).collect();
    // One address of each family is enough.
    locals.sort_by_key(IpAddr::is_ipv6);
    locals.dedup_by_key(|address| address.is_ipv6());
    Routers(thread::Builder::new().name("routers".to_owned()).spawn(move || listen(&name, &locals)))
}

impl Routers {
    /// The ids that were heard.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_RAW`; what else keeps it from listening.
    pub(super) fn wait(self) -> io::Result<BTreeSet<u8>> {
        self.0?.join().unwrap_or_else(|_| Err(io::Error::other("the listening thread has ended")))
    }
}

fn listen(interface: &str, locals: &[IpAddr]) -> io::Result<BTreeSet<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let open = |local: &IpAddr| {
            let (interface, destination) = (interface.to_owned(), Destination::Group);
            VrrpSocket::open(&Spec { interface, local: *local, destination, never_local: Vec::new() })
        };
        let until = Instant::now() + LISTEN_TIME;
        let opened: Vec<io::Result<VrrpSocket>> = locals.iter().map(open).collect();
        // One family is enough: the other one may have no address yet that can be used.
        let (sockets, failed): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
        let sockets: Vec<VrrpSocket> = sockets.into_iter().flatten().collect();
        if let (true, Some(Err(error))) = (sockets.is_empty(), failed.into_iter().next()) {
            return Err(error);
        }
        let heard = join_all(sockets.iter().map(|socket| ids(socket, until))).await;
        Ok(heard.into_iter().flatten().collect())
    })
}

async fn ids(socket: &VrrpSocket, until: Instant) -> BTreeSet<u8> {
    let mut ids = BTreeSet::new();
    let mut buffer = PacketBuffer::new();
    // It ends at the latest with the time; an error ends what can be heard.
    while let Ok(Ok(packet)) = timeout_at(until, socket.receive(&mut buffer)).await {
        ids.extend(router_id(packet));
    }
    ids
}

/// The id in an advert (RFC 9568 section 5.2), whatever else is right or wrong about it.
fn router_id(packet: Packet<'_>) -> Option<u8> {
    let advert = match packet {
        Packet::Ipv4(bytes) => bytes.get(usize::from(bytes.first()? & 0xf) * 4..)?,
        Packet::Ipv6 { payload, .. } => payload,
    };
    let [kind, id, ..] = advert else { return None };
    (kind & 0xf == 1 && *id != 0).then_some(*id)
}

/// Connects.
///
/// # Errors
/// `ConnectionRefused` when the machine is there and nothing listens; `TimedOut`; what else connect(2) says.
pub(super) fn reach(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&address, REACH_TIME).map(drop)
}

/// The same with each of them, many at a time.
pub(super) fn reach_all(addresses: &[SocketAddr]) -> Vec<io::Result<()>> {
    let mut reached = Vec::with_capacity(addresses.len());
    for some in addresses.chunks(REACHES_MAX) {
        thread::scope(|scope| {
            let threads: Vec<_> = some
                .iter()
                .map(|address| thread::Builder::new().spawn_scoped(scope, move || reach(*address)))
                .collect();
            let results = threads.into_iter().map(|thread| {
                thread?.join().unwrap_or_else(|_| Err(io::Error::other("the connecting thread has ended")))
            });
            reached.extend(results);
        });
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_that_of_an_advert() {
        // IP header of 24 bytes with an option, then VRRPv2 of router 51.
        let mut v4 = vec![0x46; 24];
        v4.extend([0x21, 51, 100, 1]);
        assert_eq!(router_id(Packet::Ipv4(&v4)), Some(51));
        assert_eq!(router_id(Packet::Ipv4(&v4[..25])), None);
        assert_eq!(router_id(Packet::Ipv4(&[])), None);
        let v6 = |payload| Packet::Ipv6 {
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
            hop_limit: 255,
            payload,
        };
        assert_eq!(router_id(v6(&[0x31, 7])), Some(7));
        assert_eq!(router_id(v6(&[0x32, 7])), None, "no advert");
        assert_eq!(router_id(v6(&[0x31, 0])), None, "no id");
    }

    #[test]
    fn many_are_reached_at_once_and_in_order() {
        let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (open, closed) = (there.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let addresses: Vec<SocketAddr> = (0..70).map(|index| if index % 2 == 0 { open } else { closed }).collect();
        let reached: Vec<bool> = reach_all(&addresses).iter().map(Result::is_ok).collect();
        assert_eq!(reached, (0..70).map(|index| index % 2 == 0).collect::<Vec<_>>());
    }
}
