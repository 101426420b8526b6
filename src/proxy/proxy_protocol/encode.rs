//! The PROXY protocol as a sender writes it, so that a server learns whose connection it is. Core.
//!
//! The sections are those of <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::SendProxy;

/// Signature of version 2 (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command LOCAL: the connection is our own.
const LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// The header of a client's connection, at most 107 bytes. `source` is the client, `destination` where it connected to.
pub fn of_client(version: SendProxy, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    // One family for both ends. What has come as IPv4 over a socket of IPv6 is IPv4.
    let (source_ip, destination_ip) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (IpAddr::V4(source), IpAddr::V4(destination)),
        (source, destination) => (IpAddr::V6(as_v6(source)), IpAddr::V6(as_v6(destination))),
    };
    match version {
        SendProxy::V1 => {
            let family = if source_ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let ports = format!("{} {}", source.port(), destination.port());
            format!("PROXY {family} {source_ip} {destination_ip} {ports}\r\n").into_bytes()
        }
        SendProxy::V2 => {
            let (family, len) = if source_ip.is_ipv4() { (0x11, 12_u8) } else { (0x21, 36) };
            let mut header = head(PROXY, family, len);
            for ip in [source_ip, destination_ip] {
                match ip {
                    IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
                }
            }
            for port in [source.port(), destination.port()] {
                header.extend_from_slice(&port.to_be_bytes());
            }
            header
        }
    }
}

/// The header of a connection that is nobody's, such as a health check's.
pub fn of_ourselves(version: SendProxy) -> Vec<u8> {
    match version {
        SendProxy::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        SendProxy::V2 => head(LOCAL, 0x00, 0),
    }
}

fn head(command: u8, family: u8, len: u8) -> Vec<u8> {
    let mut header = Vec::with_capacity(16 + usize::from(len));
    header.extend_from_slice(&SIGNATURE);
    header.extend_from_slice(&[command, family, 0, len]);
    header
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_is_a_line() {
        // Section 2.1 has this example.
        let header = of_client(SendProxy::V1, address("192.168.0.1:56324"), address("192.168.0.11:443"));
        assert_eq!(header, b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        let header = of_client(SendProxy::V1, address("[2001:db8::1]:1"), address("[2001:db8::2]:65535"));
        assert_eq!(header, b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n");
        let mapped = of_client(SendProxy::V1, address("[::ffff:192.0.2.1]:1"), address("192.0.2.2:2"));
        assert_eq!(mapped, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        let mixed = of_client(SendProxy::V1, address("[2001:db8::1]:1"), address("192.0.2.2:2"));
        assert_eq!(mixed, b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 2\r\n");
        assert_eq!(of_ourselves(SendProxy::V1), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_as_haproxy_2_6_writes_it() {
        let header = of_client(SendProxy::V2, address("127.0.0.1:40001"), address("127.0.0.1:29201"));
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x01\x9c\x41\x72\x11";
        assert_eq!(header, expected);
        let header = of_client(SendProxy::V2, address("[::1]:33306"), address("[::1]:29205"));
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
        expected.extend_from_slice(&[0; 15]);
        expected.push(1);
        expected.extend_from_slice(&[0; 15]);
        expected.extend_from_slice(b"\x01\x82\x1a\x72\x15");
        assert_eq!(header, expected);
        assert_eq!(of_ourselves(SendProxy::V2), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
