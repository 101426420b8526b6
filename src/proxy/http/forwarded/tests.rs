//! The examples of RFC 7239, what is none, and lists that are made and mutated.

use fastrand::Rng;

use super::*;
use crate::units::networks::parse_network;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn set(networks: &[&str]) -> NetworkSet {
    NetworkSet::new(networks.iter().map(|text| parse_network(text).unwrap()))
}

/// The parts of each element, `-` for what is not there.
fn read(list: &str) -> Option<Vec<[String; 3]>> {
    let shown = |part: Option<Cow<'_, str>>| part.map_or_else(|| "-".to_owned(), Cow::into_owned);
    let elements = parse(list)?.into_iter();
    Some(elements.map(|element| [shown(element.for_node), shown(element.proto), shown(element.host)]).collect())
}

fn elements(list: &str, expected: &[[&str; 3]]) {
    let expected: Vec<[String; 3]> = expected.iter().map(|parts| parts.map(str::to_owned)).collect();
    assert_eq!(read(list), Some(expected), "{list:?}");
}

#[test]
fn examples_of_the_rfc_are_understood() {
    elements("for=\"_gazonk\"", &[["_gazonk", "-", "-"]]);
    elements("For=\"[2001:db8:cafe::17]:4711\"", &[["[2001:db8:cafe::17]:4711", "-", "-"]]);
    elements("for=192.0.2.60;proto=http;by=203.0.113.43", &[["192.0.2.60", "http", "-"]]);
    elements("for=192.0.2.43, for=198.51.100.17", &[["192.0.2.43", "-", "-"], ["198.51.100.17", "-", "-"]]);
    elements(
        "for=192.0.2.43, for=\"[2001:db8:cafe::17]\"",
        &[["192.0.2.43", "-", "-"], ["[2001:db8:cafe::17]", "-", "-"]],
    );
    elements(
        "for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown",
        &[["192.0.2.43", "-", "-"], ["[2001:db8:cafe::17]", "-", "-"], ["unknown", "-", "-"]],
    );
    elements("for=_hidden, for=_SEVKISEK", &[["_hidden", "-", "-"], ["_SEVKISEK", "-", "-"]]);
    elements("by=203.0.113.43;host=\"a.example:81\";secret=1", &[["-", "-", "a.example:81"]]);
}

#[test]
fn spaces_empty_parts_and_escapes_are_taken_as_the_grammar_has_them() {
    elements("", &[]);
    elements(" , ,\t", &[]);
    elements("for=a , ,for=b;", &[["a", "-", "-"], ["b", "-", "-"]]);
    elements("for=a ; proto=https", &[["a", "https", "-"]]);
    elements("for=\"a,b;c=\\\"d\\\\\\e\"", &[["a,b;c=\"d\\e", "-", "-"]]);
    elements("for=\"\"", &[["", "-", "-"]]);
}

#[test]
fn what_could_be_understood_in_two_ways_is_no_list() {
    for list in [
        "for",
        "for=",
        "=a",
        "for =a",
        "for= a",
        "for=\"a",
        "for=\"a\\",
        "for=\"a\\\"",
        "for=a b",
        "for=\"a\"b",
        "for=[::1]",
        "for=1.2.3.4:80",
        "for=a;for=b",
        "for=a;FOR=a",
        "proto=http;proto=https",
        "for=a,\"",
        "for=ä",
        "for=a\u{0}",
    ] {
        assert_eq!(read(list), None, "{list:?}");
    }
}

#[test]
fn nodes_are_addresses_with_or_without_a_port() {
    for (node, address) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.1:_x", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:65535", "2001:db8::1"),
        ("[2001:db8::1]:_a.b-c_D", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
    ] {
        assert_eq!(node_address(node), Some(ip(address)), "{node:?}");
    }
    for node in [
        "",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:123456",
        "192.0.2.1:_",
        "192.0.2.1:a",
        "192.0.2.01",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "[::1%eth0]",
        "localhost",
        " ::1",
    ] {
        assert_eq!(node_address(node), None, "{node:?}");
    }
}

#[test]
fn client_is_the_last_address_that_is_no_trusted_proxys() {
    let trusted = set(&["10.0.0.0/8", "2001:db8::/32"]);
    let client = |peer: &str, list: &str| client_of(ip(peer), &trusted, listed_backwards(list)).to_string();
    // Nobody is somebody else by saying so.
    assert_eq!(client("192.0.2.1", "198.51.100.1"), "192.0.2.1");
    assert_eq!(client("192.0.2.1", ""), "192.0.2.1");
    assert_eq!(client("10.0.0.1", ""), "10.0.0.1");
    assert_eq!(client("10.0.0.1", "198.51.100.1"), "198.51.100.1");
    assert_eq!(client("10.0.0.1", "6.6.6.6, 198.51.100.1"), "198.51.100.1");
    assert_eq!(client("10.0.0.1", "6.6.6.6, 198.51.100.1,10.0.0.2 ,\t2001:db8::2"), "198.51.100.1");
    assert_eq!(client("10.0.0.1", "6.6.6.6,10.9.9.9, 198.51.100.1:4711, [2001:db8::2]:80"), "198.51.100.1");
    assert_eq!(client("10.0.0.1", "10.0.0.3, 10.0.0.2"), "10.0.0.3");
    // What hides an address is the word of the proxy behind it, and nobody is believed over that.
    assert_eq!(client("10.0.0.1", "198.51.100.1, unknown"), "10.0.0.1");
    assert_eq!(client("10.0.0.1", "198.51.100.1, x, 10.0.0.2"), "10.0.0.2");
    assert_eq!(client("10.0.0.1", ", 198.51.100.1, ,"), "198.51.100.1");
    let long = format!("198.51.100.1, {}", vec!["10.0.0.2"; HOPS_MAX - 1].join(", "));
    assert_eq!(client("10.0.0.1", &long), "198.51.100.1");
    assert_eq!(client("10.0.0.1", &format!("{long}, 10.0.0.2")), "10.0.0.2");
}

#[test]
fn elements_are_quoted_where_they_have_to_be() {
    assert_eq!(element(ip("192.0.2.1"), "https", Some("a.example")), "for=192.0.2.1;host=a.example;proto=https");
    assert_eq!(element(ip("2001:db8::1"), "http", None), "for=\"[2001:db8::1]\";proto=http");
    assert_eq!(element(ip("192.0.2.1"), "http", Some("a:81")), "for=192.0.2.1;host=\"a:81\";proto=http");
    assert_eq!(element(ip("192.0.2.1"), "http", Some("a\"b\\")), "for=192.0.2.1;host=\"a\\\"b\\\\\";proto=http");
    assert_eq!(element(ip("192.0.2.1"), "http", Some("")), "for=192.0.2.1;host=\"\";proto=http");
}

#[test]
fn lists_say_what_was_put_into_them_and_mutated_ones_end_nothing() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    const CHARACTERS: &[char] = &['a', '1', '.', ':', '[', ']', ',', ';', '=', '"', '\\', ' ', '\t', '_', '/', 'ä'];
    for _ in 0..20_000 {
        let hosts: Vec<String> = (0..rng.usize(1..4))
            .map(|_| (0..rng.usize(..8)).map(|_| CHARACTERS[rng.usize(..CHARACTERS.len())]).collect())
            .collect();
        let address: IpAddr =
            if rng.bool() { rng.u32(..).to_be_bytes().into() } else { rng.u128(..).to_be_bytes().into() };
        let written: Vec<String> = hosts.iter().map(|host| element(address, "http", Some(host))).collect();
        let mut list = written.join(", ");
        let elements = parse(&list).unwrap_or_else(|| panic!("{list:?} is none"));
        assert_eq!(elements.iter().map(|element| element.host.as_deref().unwrap()).collect::<Vec<_>>(), hosts);
        for element in &elements {
            assert_eq!(node_address(element.for_node.as_deref().unwrap()), Some(address.to_canonical()));
        }
        for _ in 0..rng.usize(..4) {
            let at = list.char_indices().map(|(at, _)| at).nth(rng.usize(..list.chars().count())).unwrap();
            let character = CHARACTERS[rng.usize(..CHARACTERS.len())];
            list.remove(at);
            if rng.bool() {
                list.insert(at, character);
            }
        }
        // What follows a list that was understood is an element of its own: nothing swallows it.
        if let Some(before) = parse(&list).map(|elements| elements.len()) {
            let appended = format!("{list}, for=192.0.2.1");
            let elements = parse(&appended).unwrap_or_else(|| panic!("{appended:?} is none"));
            assert_eq!(elements.len(), before + 1, "{appended:?}");
            assert_eq!(elements.last().unwrap().for_node.as_deref(), Some("192.0.2.1"));
        }
    }
}
