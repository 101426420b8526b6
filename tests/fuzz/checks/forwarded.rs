//! Forwarded and X-Forwarded-For: what a list says of who the client is.
//!
//! The bytes are the value of a header.

use std::net::IpAddr;

use baton::proxy::http::forwarded::{client_of, element, listed_backwards, node_address, parse};
use baton::units::networks::{NetworkSet, parse_network};

/// Bytes to begin with.
pub const SAMPLES: &[&[u8]] = &[
    b"for=\"_gazonk\"",
    b"For=\"[2001:db8:cafe::17]:4711\"",
    b"for=192.0.2.60;proto=http;by=203.0.113.43",
    b"for=192.0.2.43, for=\"[2001:db8:cafe::17]\", for=unknown",
    b"for=\"a,b;c=\\\"d\\\\\";host=\"a.example:81\"",
    b"198.51.100.1, 10.0.0.2:4711,[2001:db8::2]:80 ,\t::ffff:10.0.0.1",
];

/// Pieces that mean something.
pub const SPLINTERS: &[&[u8]] = &[
    b",",
    b", ",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"for=",
    b"proto=https",
    b"[",
    b"]",
    b":",
    b"10.0.0.1",
    b"::1",
    b"_",
    b" ",
    b"\t",
];

/// What must hold for any value.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let peer: IpAddr = "10.0.0.1".parse().unwrap();
    let trusted = NetworkSet::new([parse_network("10.0.0.0/8").unwrap()]);
    // A stranger is nobody else, whatever it says.
    let stranger: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(client_of(stranger, &trusted, listed_backwards(text)), stranger);
    // What the nearest proxy has added last counts.
    let client = client_of(peer, &trusted, listed_backwards(&format!("{text}, 198.51.100.7")));
    assert_eq!(client, "198.51.100.7".parse::<IpAddr>().unwrap());
    for node in listed_backwards(text).flatten() {
        if let Some(address) = node_address(node) {
            assert_eq!(address, address.to_canonical());
        }
    }
    let own = element(peer, "https", Some(text));
    let read = parse(&own).expect("what we write can be read");
    assert_eq!((read.len(), read[0].host.as_deref(), read[0].for_node.as_deref()), (1, Some(text), Some("10.0.0.1")));
    if let Some(before) = parse(text).map(|elements| elements.len()) {
        let list = format!("{text}, {own}");
        let elements = parse(&list).expect("a list goes on behind one that is whole");
        assert_eq!(elements.len(), before + 1, "nothing swallows what is written behind it");
        assert_eq!(elements.last(), read.first());
    }
}
