//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// As [`BACKLOG`], where one other node connects.
const SYNC_BACKLOG: i32 = 64;

/// Binds `count` TCP sockets to one address, among which the kernel spreads connections (`SO_REUSEPORT`, socket(7)).
///
/// `IP_FREEBIND` lets them bind a virtual address that this node does not hold now, so that a standby is ready before
/// it takes over and no sysctl (`ip_nonlocal_bind`) has to change. They are non-blocking and close-on-exec.
///
/// # Errors
/// What bind(2) or listen(2) says, most often `AddrInUse` or `PermissionDenied`.
pub fn tcp(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    (0..count).map(|_| one_tcp(address)).collect()
}

fn one_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        // `[::]` means every address, of both families, as the configuration says.
        socket.set_only_v6(false)?;
        socket.set_freebind_v6(true)?;
    }
    // Inherited by accepted connections, which saves a system call on each of them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds the one TCP socket of the sync link, on an address that this node has.
///
/// No other program can bind it as well, of whatever user, and it takes connections of its own family alone. It is
/// non-blocking and close-on-exec.
///
/// # Errors
/// `AddrNotAvailable` when the address is on no interface (over IPv6: not yet), `AddrInUse`, and what else bind(2) or
/// listen(2) says.
pub fn sync(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of an earlier life that are not quite over must not be in the way.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(SYNC_BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_one_listener_share_a_port() {
        let first = tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(tcp(address, 3).unwrap().len(), 3);
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_connections_too() {
        let sockets = tcp("[::]:0".parse().unwrap(), 1).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn an_address_that_no_interface_holds_can_be_bound() {
        assert!(tcp("192.0.2.100:0".parse().unwrap(), 1).is_ok());
        assert!(tcp("[2001:db8::100]:0".parse().unwrap(), 1).is_ok());
    }

    #[test]
    fn the_sync_link_shares_its_port_with_nobody() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let first = sync(address.parse().unwrap()).unwrap();
            let again = sync(first.local_addr().unwrap());
            assert_eq!(again.map(|_| ()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
        let elsewhere = sync("192.0.2.100:0".parse().unwrap());
        assert_eq!(elsewhere.map(|_| ()).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
