//! Whether a connection is let in: by how often its client connects, and by how many connections it has.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::refusals::Reason;
use super::state::{Listener, Site};
use super::sticky::with_network;
use super::thread::Thread;
use crate::config::AddressLimit;
use crate::limit::Verdict;

/// A connection that was let in, counted for its client until it is dropped.
pub struct Admission {
    site: Arc<Site>,
    listener: usize,
    /// Nothing where nobody counts.
    client: Option<u128>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let (Some(client), Some(listener)) = (self.client, self.site.listener(self.listener)) {
            listener.presence.connections.give_back(client);
        }
    }
}

/// Lets a connection in, or counts why not; then it is to be reset. `address` is the one that counts as the client's.
pub fn admit(thread: &Rc<Thread>, listener: usize, address: IpAddr) -> Option<Admission> {
    let site = &thread.site;
    let known = site.listener(listener)?;
    match check(site, known, address) {
        Ok(client) => Some(Admission { site: Arc::clone(site), listener, client }),
        Err(reason) => {
            thread.refused(listener, reason);
            None
        }
    }
}

/// What the connection was counted under. The number of connections comes first: one that is refused for it does not use
/// up the rate as well, or a client with too many could not make one when some have ended.
fn check(site: &Site, listener: &Listener, address: IpAddr) -> Result<Option<u128>, Reason> {
    let client = match &listener.config.protection.connections_per_address {
        None => None,
        Some(limit) => {
            let client = client(address, limit);
            if !listener.presence.connections.take(client, limit.connections) {
                return Err(Reason::ConnectionsPerAddress);
            }
            Some(client)
        }
    };
    let Some(rate) = &listener.limits.connections else { return Ok(client) };
    match site.sessions.limits.check_connection(rate, address, site.sessions.now()) {
        Verdict::Allowed => Ok(client),
        Verdict::Limited { .. } => {
            client.inspect(|client| listener.presence.connections.give_back(*client));
            Err(Reason::ConnectionRate)
        }
    }
}

/// What counts as one client. IPv4 networks lie where IPv6 has addresses of IPv4 (RFC 4291 section 2.5.5.2), which no
/// client has.
fn client(address: IpAddr, limit: &AddressLimit) -> u128 {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let network = with_network(address, limit.prefix_v4, limit.prefix_v6, number);
    if address.to_canonical().is_ipv4() { network | 0xffff << 32 } else { network }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_by_the_bits_that_count() {
        let limit = AddressLimit { connections: 1, prefix_v4: 24, prefix_v6: 64 };
        let client = |address: &str| client(address.parse().unwrap(), &limit);
        assert_eq!(client("192.0.2.1"), client("192.0.2.255"));
        assert_ne!(client("192.0.2.1"), client("192.0.3.1"));
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("::c000:201"), client("192.0.2.1"));
    }
}
