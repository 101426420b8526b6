use super::*;

fn interface(networks: &[(&str, u8)]) -> Interface {
    let network = |(address, prefix_len): &(&str, u8)| IpNetwork::new(address.parse::<IpAddr>().unwrap(), *prefix_len);
    Interface {
        name: "eth0".to_owned(),
        index: 2,
        hardware: None,
        has_carrier: false,
        networks: networks.iter().map(|at| network(at).unwrap()).collect(),
    }
}

fn refused(finding: &Finding) -> String {
    finding.to_string()
}

#[test]
fn a_node_is_a_name_and_an_address() {
    let read = |text: &str| node(text, Some("lb-a")).map(|node| (node.name, node.address.to_string()));
    assert_eq!(read("lb-x=192.0.2.11").unwrap(), ("lb-x".to_owned(), "192.0.2.11".to_owned()));
    assert_eq!(read("lb-x = 2001:db8::1").unwrap(), ("lb-x".to_owned(), "2001:db8::1".to_owned()));
    assert_eq!(read("192.0.2.11").unwrap().0, "lb-a", "the usual name, where none is written");
    assert!(refused(&node("192.0.2.11", None).unwrap_err()).contains("192.0.2.11 has no name: write NAME=ADDRESS"));
    for (text, part) in [
        ("lb-x=192.0.2", "192.0.2 is no IPv4 or IPv6 address"),
        ("lb-x=192.0.2.11/24", "192.0.2.11/24 is no IPv4 or IPv6 address"),
        ("=192.0.2.11", "as a name must be 1 to 63"),
        ("l b=192.0.2.11", "l b as a name must be 1 to 63"),
        ("lb-x=127.0.0.1", "127.0.0.1 is no address that the other node reaches it at"),
        ("lb-x=0.0.0.0", "0.0.0.0 is no address"),
        ("lb-x=fe80::1", "fe80::1 is no address"),
        ("lb-x=169.254.0.1", "169.254.0.1 is no address"),
        ("lb-x=224.0.0.18", "224.0.0.18 is no address"),
    ] {
        let said = refused(&node(text, Some("lb-a")).unwrap_err());
        assert!(said.starts_with("  error    ") && said.contains(part), "{text}: {said}");
    }
}

#[test]
fn the_other_node_is_guessed_where_names_go_by_letter_or_number() {
    let guess = |name: &str| sibling(name);
    assert_eq!(guess("lb-a").as_deref(), Some("lb-b"));
    assert_eq!(guess("lb_b").as_deref(), Some("lb_a"));
    assert_eq!(guess("proxy1").as_deref(), Some("proxy2"));
    assert_eq!(guess("lb-2").as_deref(), Some("lb-1"));
    for name in ["alpha", "web", "proxy3", "a", "1", ""] {
        assert_eq!(guess(name), None, "{name}");
    }
}

#[test]
fn a_virtual_address_is_one_of_the_interfaces_subnet() {
    let interface = interface(&[("192.0.2.11", 24), ("198.51.100.1", 31)]);
    let read = |text: &str| vip(text, &interface).map(|vip| vip.to_string()).map_err(|finding| refused(&finding));
    assert_eq!(read("192.0.2.100/24").unwrap(), "192.0.2.100/24");
    assert_eq!(read("192.0.2.100/32").unwrap(), "192.0.2.100/32");
    assert_eq!(read("192.0.2.100").unwrap(), "192.0.2.100/24", "the prefix length of the interface's network");
    assert_eq!(read("198.51.100.0/32").unwrap(), "198.51.100.0/32", "a network of two has no address but its own");
    for (text, part) in [
        ("192.0.3.100/24", "192.0.3.100 is in no subnet of eth0, which has 192.0.2.0/24, 198.51.100.0/31: choose"),
        ("192.0.3.100", "192.0.3.100 is in no subnet of eth0"),
        ("192.0.2.0/32", "192.0.2.0 is the network itself of 192.0.2.11/24 on eth0"),
        (
            "192.0.2.100/8",
            "192.0.2.100/8 is of 192.0.2.0/24 on eth0, and whoever holds it would look for all of 192.0.0.0/8",
        ),
        ("192.0.2.100/25", "would look for all of 192.0.2.0/25 on eth0: write 192.0.2.100/24"),
        ("192.0.2.255/32", "192.0.2.255 is the broadcast address of 192.0.2.11/24"),
        ("192.0.2.100/33", "192.0.2.100/33 the prefix length must be 1 to 32"),
        ("shop.example", "shop.example must be an IP address with a prefix length"),
        ("224.0.0.18/24", "must be an address of one machine"),
    ] {
        let said = read(text).unwrap_err();
        assert!(said.contains(part), "{text}: {said}");
    }
}

#[test]
fn servers_without_a_name_are_numbered() {
    let read = |text: &str| {
        let servers = servers(text, &interface(&[("192.0.2.11", 24)]), &[], &[], &mut Vec::new())?;
        Ok(servers.into_iter().map(|server| format!("{}={}", server.name, server.address)).collect::<Vec<_>>())
    };
    let refused = |text: &str| refused(&read(text).unwrap_err());
    // Nothing listens on port 1 of this machine: the answer comes at once, and is a warning.
    assert_eq!(
        read("127.0.0.1:1, shop=127.0.0.2:1 [::1]:1").unwrap(),
        ["app1=127.0.0.1:1", "shop=127.0.0.2:1", "app3=[::1]:1"]
    );
    assert!(refused("127.0.0.1").contains("127.0.0.1 is no address with a port: write ADDRESS:PORT"));
    assert!(refused("127.0.0.1:0").contains("is no address with a port"));
    assert!(refused("0.0.0.0:80").contains("is no address with a port"));
    assert!(refused("app1=127.0.0.1:1 app1=127.0.0.2:1").contains("is there twice"));
    assert!(refused("127.0.0.1:1 127.0.0.1:1").contains("is there twice"));
    assert!(refused("-=127.0.0.1:1").contains("- as a name must be"));
    assert!(refused(" , ").contains("there is no server"));
}

#[test]
fn a_server_is_another_machine() {
    let interface = interface(&[("192.0.2.11", 24), ("127.0.0.9", 8)]);
    let nodes =
        [node("lb-a=192.0.2.11", None).unwrap(), Node { name: "lb-b".to_owned(), address: [127, 0, 0, 2].into() }];
    let vips = [IpNetwork::new([192, 0, 2, 100], 24).unwrap()];
    let read = |text: &str, said: &mut Vec<Finding>| servers(text, &interface, &nodes, &vips, said);
    for (text, part) in [
        ("192.0.2.100:80", "192.0.2.100:80 is at a virtual address of this pair, which leads back to itself: write an"),
        ("[::ffff:192.0.2.100]:81", "is at a virtual address of this pair"),
        ("192.0.2.255:80", "192.0.2.255:80 is at the broadcast address of 192.0.2.0/24 on eth0: write the address"),
        ("192.0.2.0:80", "192.0.2.0:80 is at the network's own address of 192.0.2.0/24"),
        ("224.0.0.18:80", "224.0.0.18:80 must be an address of one machine, not a multicast address"),
        ("255.255.255.255:80", "not the broadcast address"),
    ] {
        let said = refused(&read(text, &mut Vec::new()).unwrap_err());
        assert!(said.contains(part), "{text}: {said}");
    }
    let mut said = Vec::new();
    read("here=127.0.0.2:1", &mut said).unwrap();
    assert!(
        said[0].to_string().contains("server here at 127.0.0.2:1 is on lb-b, a node of the pair itself"),
        "{}",
        said[0]
    );
}

#[test]
fn a_port_that_another_program_has_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used = taken.local_addr().unwrap().port();
    let vips = [IpNetwork::new([127, 0, 0, 1], 8).unwrap()];
    let said = refused(&port(&used.to_string(), &vips, &mut Vec::new()).unwrap_err());
    assert!(said.contains(&format!("port {used} is in use on this node by another program: `ss -ltnp")), "{said}");
    assert!(refused(&port("65536", &vips, &mut Vec::new()).unwrap_err()).contains("65536 is no port"));
    assert!(refused(&port("0", &[], &mut Vec::new()).unwrap_err()).contains("0 is no port"));
}

#[test]
fn a_virtual_router_gets_an_id_that_nobody_uses() {
    let choose = |given, heard: &[u8]| {
        let mut said = Vec::new();
        virtual_router(given, Ok(heard.iter().copied().collect()), &mut said).map_err(|finding| refused(&finding))
    };
    assert_eq!(choose(None, &[]), Ok(51));
    assert_eq!(choose(None, &[51, 52]), Ok(53));
    assert_eq!(choose(None, &(51..=255).collect::<Vec<u8>>()), Ok(1));
    assert!(choose(None, &(1..=255).collect::<Vec<u8>>()).unwrap_err().contains("every id"));
    assert_eq!(choose(Some(51), &[52]), Ok(51));
    assert!(
        choose(Some(52), &[52])
            .unwrap_err()
            .contains("another virtual router on this network has the id 52: 51 is free")
    );
    let mut said = Vec::new();
    let without_right = Err(io::ErrorKind::PermissionDenied.into());
    assert_eq!(virtual_router(Some(9), without_right, &mut said), Ok(9));
    assert!(said[0].to_string().starts_with("  warning  whether another virtual router has the id 9 is not checked"));
}
