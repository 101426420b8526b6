use super::*;
use crate::units::networks::parse_network;

fn found(name: &str, address: &str) -> FoundServer {
    FoundServer { name: name.to_owned(), address: address.parse().unwrap(), weight: 1, backup: false }
}

fn fixed(name: &str, address: &str) -> Server {
    found(name, address).to_server(ServerOrigin::File)
}

#[test]
fn json_is_a_list_or_a_table_of_one_or_one_server() {
    let one = [found("a", "10.0.0.1:80")];
    for text in [
        r#"[{"name":"a","address":"10.0.0.1:80"}]"#,
        r#"{"servers":[{"name":"a","address":"10.0.0.1:80"}]}"#,
        r#"{"name":"a","address":"10.0.0.1:80"}"#,
    ] {
        assert_eq!(parse(text.as_bytes(), Format::Json).unwrap(), one, "{text}");
    }
    let all = parse(br#"[{"address":"[2001:db8::1]:80","weight":7,"backup":true}]"#, Format::Json).unwrap();
    let expected = FoundServer { weight: 7, backup: true, ..found("v6-2001-db8--1", "[2001:db8::1]:80") };
    assert_eq!(all, [expected]);
    assert_eq!(parse(b"[]", Format::Json).unwrap(), []);
}

#[test]
fn toml_is_a_list_or_one_server() {
    let two = "[[servers]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\n[[servers]]\naddress = \"10.0.0.2:80\"\n";
    assert_eq!(
        parse(two.as_bytes(), Format::Toml).unwrap(),
        [found("a", "10.0.0.1:80"), found("10.0.0.2", "10.0.0.2:80")]
    );
    assert_eq!(parse(b"name = \"a\"\naddress = \"10.0.0.1:80\"\n", Format::Toml).unwrap(), [found("a", "10.0.0.1:80")]);
}

#[test]
fn one_bad_entry_spoils_the_list_and_is_named() {
    for (text, reason) in [
        (r#"[{"name":"a","address":"10.0.0.1:80"},{"name":"b"}]"#, "entry 2: missing field `address`"),
        (r#"[{"name":"a b","address":"10.0.0.1:80"}]"#, "entry 1: name \"a b\" must be 1 to 63 letters"),
        (r#"[{"name":"a","address":"example.com:80"}]"#, "entry 1: address \"example.com:80\" must be an IP address"),
        (r#"[{"name":"a","address":"10.0.0.1:0"}]"#, "the port must be 1 to 65535"),
        (r#"[{"name":"a","address":"0.0.0.0:80"}]"#, "must be an address of one machine"),
        (r#"[{"name":"a","address":"10.0.0.1:80","weight":0}]"#, "weight 0 of server a must be 1 to 256"),
        (r#"[{"name":"a","address":"10.0.0.1:80","weight":257}]"#, "weight 257 of server a must be 1 to 256"),
        (r#"[{"name":"a","address":"10.0.0.1:80","wieght":1}]"#, "unknown field `wieght`"),
        (r#"{"servers":[],"more":1}"#, "something stands beside it"),
        (r#"[{"name":"a""#, "no JSON"),
        ("5", "no list of servers"),
    ] {
        let refused = parse(text.as_bytes(), Format::Json).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
    assert_eq!(parse(b"\xff", Format::Json).unwrap_err(), "the list is not UTF-8");
    assert!(parse(b"servers = [", Format::Toml).unwrap_err().contains("no TOML"));
    let many = format!("[{}]", vec!["{}"; 1025].join(","));
    assert!(parse(many.as_bytes(), Format::Json).unwrap_err().contains("1025 servers"));
}

#[test]
fn a_list_is_the_same_in_any_order() {
    let (a, b) = (found("a", "10.0.0.1:80"), found("b", "10.0.0.2:80"));
    let list = judged(vec![b.clone(), a.clone(), b.clone()], None, false);
    assert_eq!(list, Ok(vec![a, b]));
}

#[test]
fn lies_are_refused() {
    let judge = |address: &str, networks: Option<&str>, is_trusted| {
        let networks = networks.map(|text| NetworkSet::new([parse_network(text).unwrap()]));
        judged(vec![found("a", address)], networks.as_ref(), is_trusted).map(|list| list.len())
    };
    for address in ["127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "[fe80::1]:80", "[::ffff:127.0.0.1]:80"] {
        assert!(judge(address, None, false).unwrap_err().contains("on this machine or its link"), "{address}");
        assert_eq!(judge(address, None, true), Ok(1), "{address}");
    }
    for address in ["0.0.0.0:80", "[::]:80", "224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80"] {
        assert!(judge(address, None, true).unwrap_err().contains("no server can have"), "{address}");
        assert!(judge(address, Some("0.0.0.0/0"), true).is_err(), "{address}");
    }
    assert_eq!(judge("127.0.0.1:80", Some("127.0.0.0/8"), false), Ok(1));
    assert!(judge("10.0.0.1:80", Some("127.0.0.0/8"), false).unwrap_err().contains("none of the networks"));
    let one_name = vec![found("a", "10.0.0.1:80"), found("a", "10.0.0.2:80")];
    assert_eq!(judged(one_name, None, false), Err("two servers are named a".to_owned()));
    let one_address = vec![found("a", "10.0.0.1:80"), found("b", "10.0.0.1:80")];
    assert_eq!(judged(one_address, None, false), Err("two servers have the address 10.0.0.1:80".to_owned()));
}

#[test]
fn names_are_cut_and_cleaned_and_stay_apart() {
    assert_eq!(name_of("node1.web-1"), "node1.web-1");
    assert_eq!(name_of(&"a".repeat(63)), "a".repeat(63));
    let long = name_of(&"a".repeat(64));
    assert_eq!((long.len(), long.starts_with(&"a".repeat(54))), (63, true));
    assert_ne!(long, name_of(&"a".repeat(65)));
    assert_ne!(name_of("a/b"), name_of("a:b"));
    assert!(name_of("_x").starts_with('s'));
}

#[test]
fn weights_keep_their_proportions() {
    assert_eq!(scaled(&[0, 5, 256]), [1, 5, 256]);
    assert_eq!(scaled(&[65_535, 32_768, 1]), [256, 128, 1]);
    assert_eq!(scaled(&[]), [0_u32; 0]);
}

#[test]
fn the_file_goes_first_then_operators_then_what_was_found() {
    let in_file = [fixed("a", "10.0.0.1:80"), fixed("b", "10.0.0.2:80")];
    let changes = Changes { added: vec![found("c", "10.0.0.3:80")], removed: HashSet::from(["b".to_owned()]) };
    let list = [found("a", "10.0.0.9:80"), found("d", "10.0.0.3:80"), found("e", "10.0.0.4:80")];
    let (servers, left_out) = merged(&in_file, &changes, &list);
    let added = Server { origin: ServerOrigin::Operator, ..fixed("c", "10.0.0.3:80") };
    let found_one = Server { origin: ServerOrigin::Found, ..fixed("e", "10.0.0.4:80") };
    assert_eq!(servers, [fixed("a", "10.0.0.1:80"), added, found_one]);
    assert_eq!(left_out, 2);
}

#[test]
fn an_operators_server_takes_the_place_of_the_files_unless_it_is_the_same() {
    let in_file = [fixed("a", "10.0.0.1:80")];
    let with = |address: &str| Changes { added: vec![found("a", address)], ..Changes::default() };
    assert_eq!(merged(&in_file, &with("10.0.0.1:80"), &[]), (in_file.to_vec(), 0));
    let other = Server { origin: ServerOrigin::Operator, ..fixed("a", "10.0.0.2:80") };
    assert_eq!(merged(&in_file, &with("10.0.0.2:80"), &[]), (vec![other], 0));
}

#[test]
fn a_pool_has_no_more_servers_than_it_may() {
    let list: Vec<_> =
        (0..1024).map(|n| found(&format!("s{n}"), &format!("10.0.{}.{}:80", n / 250, n % 250 + 1))).collect();
    let (servers, left_out) = merged(&[fixed("a", "10.9.0.1:80")], &Changes::default(), &list);
    assert_eq!((servers.len(), left_out), (1024, 1));
}
