//! Behaviour of the whole: text in, `Config` or `Report` out. One entry a rule is in `tests/check`.

mod routes;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::units::{AdvertInterval, IpNetwork, VirtualRouterId};

const MINIMAL: &str = r#"
[[listener]]
name = "web"
bind = ["0.0.0.0:80"]
pool = "app"

[[pool]]
name = "app"
servers = [{ name = "app1", address = "10.0.0.1:8080" }]
"#;

fn good(text: &str) -> Config {
    parse(text, Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = good(MINIMAL);
    assert_eq!(config.nodes, []);
    let pair = Pair {
        key_file: None,
        sync_port: 7947,
        advert_keys: Vec::new(),
        witness: None,
        switchover_drain: Duration::from_secs(1),
    };
    assert_eq!(config.pair, pair);
    let listener = &config.listeners[0];
    assert_eq!(listener.protocol, Protocol::Http);
    assert_eq!(listener.pool, Some(PoolIndex(0)));
    assert_eq!(listener.head_timeout, Duration::from_secs(10));
    assert_eq!(listener.idle_timeout, Duration::from_secs(60));
    assert_eq!(listener.connections_max, 10_000);
    let protection = ListenerProtection {
        rate_limits: Vec::new(),
        connection_rate: None,
        connections_per_address: None,
        head_bytes_max: 32_768,
        headers_max: 100,
        uri_bytes_max: 8_192,
        body_bytes_max: None,
        body_rate: None,
        response_rate: None,
    };
    assert_eq!(listener.protection, protection);
    let pool = &config.pools[0];
    assert_eq!((&pool.health, &pool.sticky), (&None, &None));
    assert_eq!(pool.connect_timeout, Duration::from_secs(3));
    assert_eq!(pool.response_timeout, Duration::from_secs(30));
    assert_eq!(pool.idle_timeout, Duration::from_secs(30));
    assert_eq!(pool.idle_connections_max, 64);
    assert_eq!(config.worker.probe_interval, Duration::from_millis(50));
    assert_eq!(config.worker.probe_timeout, Duration::from_millis(200));
    assert_eq!(config.worker.drain_timeout, Duration::from_secs(10));
    assert_eq!(config.worker.user, None);
    assert_eq!(config.worker.limits, WorkerLimits::default());
    assert_eq!(pool.connections, None);
}

#[test]
fn defaults_of_a_rate_limit() {
    let limit = |rest: &str| {
        let limit = format!("pool = \"app\"\nrate_limit = {{ requests = 100, per = \"10s\"{rest} }}\n\n[[pool]]");
        good(&MINIMAL.replace("pool = \"app\"\n\n[[pool]]", &limit)).listeners[0].protection.rate_limits[0].clone()
    };
    let expected = RateLimit {
        requests: 100,
        per: Duration::from_secs(10),
        burst: 100,
        by: RateLimitKey::SourceIp,
        prefix_v4: 32,
        prefix_v6: 64,
        entries_max: 100_000,
        log_only: false,
        headers: false,
    };
    assert_eq!(limit(""), expected);
    assert_eq!(limit(", headers = true"), RateLimit { headers: true, ..expected.clone() });
    assert_eq!(limit(", log_only = true"), RateLimit { log_only: true, ..expected.clone() });
    let by = RateLimitKey::Cookie { name: "Sid".to_owned() };
    assert_eq!(limit(", by = \"cookie\", name = \"Sid\""), RateLimit { by, ..expected.clone() });
    let by = RateLimitKey::Header { name: "x-api-key".to_owned() };
    assert_eq!(limit(", burst = 7, by = \"header\", name = \"X-Api-Key\""), RateLimit { burst: 7, by, ..expected });
}

#[test]
fn defaults_of_a_pair_and_its_vips() {
    let config = good(
        r#"
[[node]]
name = "lb-a"
address = "192.0.2.11"
[[node]]
name = "lb-b"
address = "192.0.2.12"
[pair]
key_file = "pair.key"
[[vip]]
name = "web"
addresses = ["192.0.2.100/24"]
interface = "eth0"
virtual_router_id = 51
prefer = "lb-b"
"#,
    );
    assert_eq!(config.nodes.iter().map(|node| node.priority.get()).collect::<Vec<_>>(), [250, 249]);
    assert_eq!(config.pair.key_file.as_deref(), Some(Path::new("/etc/baton/pair.key")));
    let vip = &config.vips[0];
    assert_eq!(vip.advert_interval.get(), Duration::from_millis(100));
    assert_eq!(vip.transport, Transport::Unicast);
    assert_eq!(vip.prefer, Some(1));
    assert_eq!(config.node_named("lb-b"), Some(1));
    assert_eq!(config.node_named("lb-c"), None);
}

const PAIR: &str = r#"
[[node]]
name = "lb-a"
address = "192.0.2.11"
[[node]]
name = "lb-b"
address = "192.0.2.12"
"#;

/// The only vip of a pair; `rest` are further keys, and blocks after them.
fn vip_of(addresses: &str, rest: &str) -> Vip {
    let vip =
        format!("[[vip]]\nname = \"web\"\naddresses = {addresses}\ninterface = \"eth0\"\nvirtual_router_id = 51\n");
    good(&format!("{vip}{rest}{PAIR}")).vips.remove(0)
}

const V4: &str = "[\"192.0.2.100/24\"]";
const KEY: &str = "[pair]\nkey_file = \"pair.key\"\n";

#[test]
fn defaults_of_a_vip() {
    let vip = vip_of(V4, KEY);
    assert_eq!(vip.advert_interface, "eth0");
    assert_eq!(vip.version, VrrpVersion::V3);
    assert_eq!(vip.checksum, AdvertChecksum::Rfc);
    assert_eq!(vip.password_file, None);
    assert!(!vip.virtual_mac);
    assert_eq!(vip.prefer, None);
    assert_eq!(vip.prefer_hold, Duration::from_secs(30));
    assert!(vip.probe_first);
    assert_eq!(vip.announce.burst, 1);
    let after_ms: Vec<u128> = vip.announce.repeat.iter().map(Duration::as_millis).collect();
    assert_eq!(after_ms, [50, 100, 200, 400, 800, 2000, 5000]);
    assert_eq!(vip.announce.refresh, Some(Duration::from_secs(60)));
}

#[test]
fn adverts_are_authenticated_where_a_pair_has_a_key() {
    let authentication = |rest: &str| vip_of(V4, rest).authentication;
    assert_eq!(authentication(KEY), Authentication::Enforce);
    assert_eq!(authentication("[pair]\nadvert_keys = [{ id = 1, file = \"k\" }]\n"), Authentication::Enforce);
    assert_eq!(authentication(""), Authentication::Off);
    assert_eq!(authentication(&format!("authentication = \"off\"\n{KEY}")), Authentication::Off);
    assert_eq!(authentication(&format!("authentication = \"receive_only\"\n{KEY}")), Authentication::ReceiveOnly);
    assert_eq!(authentication(&format!("authentication = \"permissive\"\n{KEY}")), Authentication::Permissive);
    assert_eq!(authentication(&format!("authentication = \"enforce\"\n{KEY}")), Authentication::Enforce);
    let one_node = MINIMAL.to_owned()
        + KEY
        + "[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n[[vip]]\nname = \"web\"\naddresses = [\"192.0.2.100/24\"]\n\
           interface = \"eth0\"\nvirtual_router_id = 51\n";
    assert_eq!(good(&one_node).vips[0].authentication, Authentication::Off);
}

#[test]
fn versions_are_words_or_numbers() {
    let version = |text: &str| vip_of(V4, &format!("version = {text}\n")).version;
    assert_eq!(version("\"2\""), VrrpVersion::V2);
    assert_eq!(version("2"), VrrpVersion::V2);
    assert_eq!(version("\"3\""), VrrpVersion::V3);
    assert_eq!(version("3"), VrrpVersion::V3);
    assert_eq!(version("\"2+3\""), VrrpVersion::Mixed);
}

#[test]
fn the_default_interval_of_version_2_is_one_that_it_can_say() {
    let interval = |rest: &str| vip_of(V4, rest).advert_interval.get();
    assert_eq!(interval("version = \"2\"\n"), Duration::from_secs(1));
    assert_eq!(interval("version = \"2+3\"\n"), Duration::from_millis(100));
    assert_eq!(interval("version = \"2\"\nadvert_interval = \"3s\"\n"), Duration::from_secs(3));
}

#[test]
fn everything_that_a_vip_can_say_is_read() {
    let vip = vip_of(
        "[\"192.0.2.100/24\", { address = \"10.0.0.100/16\", interface = \"eth1\" }]",
        r#"
advert_interface = "eth2"
advert_interval = "2s"
transport = "multicast"
version = "2+3"
checksum = "without_pseudo_header"
password_file = "vrrp.password"
virtual_mac = true
prefer = "lb-b"
prefer_hold = "90s"
probe_first = false
announce = { burst = 3, repeat = ["10ms", "1m"], refresh = "5m" }
"#,
    );
    let network = |text: &str, prefix_len| IpNetwork::new(text.parse::<IpAddr>().unwrap(), prefix_len).unwrap();
    assert_eq!(
        vip,
        Vip {
            name: "web".to_owned(),
            addresses: vec![
                VipAddress { network: network("192.0.2.100", 24), interface: "eth0".to_owned() },
                VipAddress { network: network("10.0.0.100", 16), interface: "eth1".to_owned() },
            ],
            interface: "eth0".to_owned(),
            advert_interface: "eth2".to_owned(),
            virtual_router_id: VirtualRouterId::new(51).unwrap(),
            advert_interval: AdvertInterval::new(Duration::from_secs(2)).unwrap(),
            transport: Transport::Multicast,
            version: VrrpVersion::Mixed,
            checksum: AdvertChecksum::WithoutPseudoHeader,
            authentication: Authentication::Off,
            password_file: Some("/etc/baton/vrrp.password".into()),
            virtual_mac: true,
            prefer: Some(1),
            prefer_hold: Duration::from_secs(90),
            announce: Announce {
                burst: 3,
                repeat: vec![Duration::from_millis(10), Duration::from_secs(60)],
                refresh: Some(Duration::from_secs(300)),
            },
            probe_first: false,
        }
    );
}

#[test]
fn announcements_can_be_left_out() {
    let vip = vip_of(V4, "announce = { repeat = [], refresh = \"0s\" }\n");
    assert_eq!(vip.announce, Announce { burst: 1, repeat: Vec::new(), refresh: None });
    assert_eq!(vip_of(V4, &format!("transport = \"udp\"\n{KEY}")).transport, Transport::Udp);
}

#[test]
fn link_local_addresses_come_first_among_the_ipv6_ones() {
    let addresses = "[\"2001:db8::1/64\", \"192.0.2.100/24\", \"2001:db8::2/64\", \"fe80::2/64\", \"192.0.2.101/24\", \
                     { address = \"fe80::1/64\", interface = \"eth1\" }]";
    let vip = vip_of(addresses, KEY);
    let order: Vec<(String, &str)> =
        vip.addresses.iter().map(|at| (at.network.to_string(), at.interface.as_str())).collect();
    let order: Vec<(&str, &str)> = order.iter().map(|(network, interface)| (network.as_str(), *interface)).collect();
    assert_eq!(
        order,
        [
            ("fe80::2/64", "eth0"),
            ("192.0.2.100/24", "eth0"),
            ("fe80::1/64", "eth1"),
            ("2001:db8::1/64", "eth0"),
            ("192.0.2.101/24", "eth0"),
            ("2001:db8::2/64", "eth0"),
        ]
    );
}

#[test]
fn everything_that_a_pair_can_say_is_read() {
    let config = good(&format!(
        r#"{MINIMAL}
[[node]]
name = "lb-a"
address = "2001:db8::11"
further_addresses = ["10.9.0.11", "fd00::11"]
[[node]]
name = "lb-b"
address = "2001:db8::12"
further_addresses = ["10.9.0.12", "fd00::12"]
priority = 7
[pair]
key_file = "/k"
sync_port = 65535
witness = "[2001:db8::50]:7948"
switchover_drain = "20s"
advert_keys = [{{ id = 255, file = "two.key" }}, {{ id = 1, file = "/one.key" }}]
"#
    ));
    let all: Vec<String> = config.nodes[0].all_addresses().map(|address| address.to_string()).collect();
    assert_eq!(all, ["2001:db8::11", "10.9.0.11", "fd00::11"]);
    assert_eq!(config.nodes[1].priority.get(), 7);
    assert_eq!(
        config.pair,
        Pair {
            key_file: Some("/k".into()),
            sync_port: 65_535,
            advert_keys: vec![
                AdvertKey { id: 255, file: "/etc/baton/two.key".into() },
                AdvertKey { id: 1, file: "/one.key".into() },
            ],
            witness: Some("[2001:db8::50]:7948".parse().unwrap()),
            switchover_drain: Duration::from_secs(20),
        }
    );
}

#[test]
fn the_peer_is_the_node_that_this_machine_is_not() {
    let config = good(&format!("{MINIMAL}{PAIR}"));
    let local = |index| LocalNode { index, name: String::new(), because: ChosenBy::Flag };
    let names = |index| {
        let (own, peer) = config.local_and_peer(&local(index))?;
        Some((own.name.as_str(), peer.map(|peer| peer.name.as_str())))
    };
    assert_eq!(names(Some(0)), Some(("lb-a", Some("lb-b"))));
    assert_eq!(names(Some(1)), Some(("lb-b", Some("lb-a"))));
    assert_eq!(names(Some(2)), None);
    assert_eq!(names(None), None);
    let single = good(&format!("{MINIMAL}[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n"));
    assert_eq!(single.local_and_peer(&local(Some(0))), Some((&single.nodes[0], None)));
}

#[test]
fn the_sync_link_needs_a_key_and_two_nodes_and_the_first_of_them_listens() {
    let keyed = PAIR.to_owned() + KEY;
    let config = good(&format!("{MINIMAL}{keyed}"));
    let ends = |own: &str, peer: &str| (own.parse().unwrap(), peer.parse().unwrap());
    let (first, second) = ends("192.0.2.11:7947", "192.0.2.12:7947");
    assert_eq!(
        config.sync_ends("lb-a"),
        Some(SyncEnds { own: first, peer: second, own_node: "lb-a", peer_node: "lb-b", listens: true })
    );
    assert_eq!(
        config.sync_ends("lb-b"),
        Some(SyncEnds { own: second, peer: first, own_node: "lb-b", peer_node: "lb-a", listens: false })
    );
    assert_eq!(config.sync_ends("lb-c"), None);
    assert_eq!(good(&format!("{MINIMAL}{PAIR}")).sync_ends("lb-a"), None);
    assert_eq!(good(&format!("{MINIMAL}{KEY}[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n")).sync_ends("a"), None);
}

/// The fitness checks of a pair with the vips `web` on eth0 and `api` on eth1.
fn fitness_of(text: &str) -> Vec<FitnessCheck> {
    let vip = |name: &str, interface: &str, id: u8| {
        format!(
            "[[vip]]\nname = \"{name}\"\naddresses = [\"192.0.2.10{id}/24\"]\ninterface = \"{interface}\"\n\
             virtual_router_id = {id}\n"
        )
    };
    good(&format!("{}{}{text}{PAIR}", vip("web", "eth0", 1), vip("api", "eth1", 2))).fitness
}

#[test]
fn every_kind_of_fitness_check_is_read() {
    let checks = fitness_of(
        r#"
[[fitness]]
name = "router"
type = "gateway"
address = "fe80::1"
[[fitness]]
name = "other-router"
type = "gateway"
address = "192.0.2.1"
vips = ["api"]
[[fitness]]
name = "third-router"
type = "gateway"
address = "192.0.2.2"
interface = "eth7"
[[fitness]]
name = "disk"
type = "command"
command = ["/bin/sh", "-c", ""]
interval = "10s"
timeout = "9s"
fall = 1
rise = 100
vips = ["api", "web"]
[[fitness]]
name = "there"
type = "file"
path = "flag"
[[fitness]]
name = "not-there"
type = "file"
path = "/run/flag"
must = "be_absent"
[[fitness]]
name = "resolver"
type = "process"
process = "unbound"
interval = "50ms"
"#,
    );
    let subjects: Vec<&FitnessSubject> = checks.iter().map(|check| &check.subject).collect();
    let gateway = |address: &str, interface: &str| FitnessSubject::Gateway {
        address: address.parse().unwrap(),
        interface: interface.to_owned(),
    };
    assert_eq!(
        subjects,
        [
            &gateway("fe80::1", "eth0"),
            &gateway("192.0.2.1", "eth1"),
            &gateway("192.0.2.2", "eth7"),
            &FitnessSubject::Command { command: vec!["/bin/sh".to_owned(), "-c".to_owned(), String::new()] },
            &FitnessSubject::File { path: "/etc/baton/flag".into(), must_exist: true },
            &FitnessSubject::File { path: "/run/flag".into(), must_exist: false },
            &FitnessSubject::Process { process: "unbound".to_owned() },
        ]
    );
    let vips: Vec<&[usize]> = checks.iter().map(|check| check.vips.as_slice()).collect();
    assert_eq!(vips, [&[0, 1][..], &[1], &[0, 1], &[1, 0], &[0, 1], &[0, 1], &[0, 1]]);
    let times = |check: &FitnessCheck| (check.interval.as_millis(), check.timeout.as_millis(), check.fall, check.rise);
    assert_eq!(times(&checks[0]), (1000, 500, 3, 2));
    assert_eq!(times(&checks[3]), (10_000, 9000, 1, 100));
    // The default timeout follows a short interval.
    assert_eq!(times(&checks[6]), (50, 50, 3, 2));
}

#[test]
fn events_are_read() {
    let defaults =
        Events { command: None, webhook: None, timeout: Duration::from_secs(10), kept_max: 1000, user: None };
    assert_eq!(good(MINIMAL).events, defaults);
    assert_eq!(good(&format!("{MINIMAL}[events]\n")).events, defaults);
    let written = "[events]\ncommand = [\"/bin/move\", \"route\"]\nwebhook = \"https://h.example/x\"\ntimeout = \"1s\"\n\
                   kept_max = 5\nuser = \"courier\"\n";
    assert_eq!(
        good(&format!("{MINIMAL}{written}")).events,
        Events {
            command: Some(vec!["/bin/move".to_owned(), "route".to_owned()]),
            webhook: Some("https://h.example/x".to_owned()),
            timeout: Duration::from_secs(1),
            kept_max: 5,
            user: Some("courier".to_owned()),
        }
    );
}

#[test]
fn defaults_of_health_and_sticky() {
    let config = good(&format!("{MINIMAL}[pool.health]\n[pool.sticky]\n"));
    let health = config.pools[0].health.as_ref().expect("the block is there");
    assert_eq!(health.check, Check::Http(HttpCheck::default()));
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!((health.fall, health.rise), (3, 2));
    let cookie = StickyCookie {
        name: "BATON".to_owned(),
        ttl: None,
        ttl_max: None,
        secure: CookieSecure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        path: "/".to_owned(),
        domain: None,
        on_down: OnDown::Rebalance,
    };
    assert_eq!(config.pools[0].sticky, Some(Sticky::Cookie(cookie)));
    assert_eq!(config.sessions, Sessions { snapshot_interval: Duration::from_secs(60), store: None });
}

fn sticky(keys: &str) -> Sticky {
    good(&format!("{MINIMAL}[pool.sticky]\n{keys}\n")).pools[0].sticky.clone().expect("the block is there")
}

#[test]
fn stickiness_with_a_table_has_defaults_of_its_own() {
    let expected = StickyTable {
        key: StickyKey::SourceIp { prefix_v4: 32, prefix_v6: 64 },
        ttl: Duration::from_secs(3600),
        ttl_max: None,
        entries_max: 1_000_000,
        on_down: OnDown::Rebalance,
    };
    assert_eq!(sticky("by = \"source_ip\""), Sticky::Table(expected));
}

#[test]
fn every_key_of_sticky_is_read() {
    let keys = "by = \"cookie\"\nname = \"S\"\nttl = \"1h\"\nttl_max = \"2h\"\nsecure = \"always\"\nhttp_only = false\n\
                same_site = \"none\"\npath = \"/shop\"\ndomain = \"Example.com\"\non_down = \"fail\"";
    let expected = StickyCookie {
        name: "S".to_owned(),
        ttl: Some(Duration::from_secs(3600)),
        ttl_max: Some(Duration::from_secs(7200)),
        secure: CookieSecure::Always,
        http_only: false,
        same_site: SameSite::None,
        path: "/shop".to_owned(),
        domain: Some("example.com".to_owned()),
        on_down: OnDown::Fail,
    };
    assert_eq!(sticky(keys), Sticky::Cookie(expected));
    let table = |key| {
        let (ttl, ttl_max) = (Duration::from_secs(60), Some(Duration::from_secs(120)));
        Sticky::Table(StickyTable { key, ttl, ttl_max, entries_max: 5, on_down: OnDown::Fail })
    };
    let more = "ttl = \"1m\"\nttl_max = \"2m\"\nentries_max = 5\non_down = \"fail\"";
    let read = |keys: &str| sticky(&format!("{keys}\n{more}"));
    let name = |name: &str| name.to_owned();
    assert_eq!(
        read("by = \"app_cookie\"\nname = \"JSESSIONID\""),
        table(StickyKey::AppCookie { name: name("JSESSIONID") })
    );
    assert_eq!(read("by = \"header\"\nname = \"X-User\""), table(StickyKey::Header { name: name("x-user") }));
    assert_eq!(read("by = \"query\"\nname = \"User\""), table(StickyKey::Query { name: name("User") }));
    assert_eq!(
        read("by = \"source_ip\"\nprefix_v4 = 24\nprefix_v6 = 56"),
        table(StickyKey::SourceIp { prefix_v4: 24, prefix_v6: 56 })
    );
}

#[test]
fn the_default_health_timeout_follows_a_short_interval() {
    let config = good(&format!("{MINIMAL}[pool.health]\ninterval = \"200ms\"\n"));
    let health = config.pools[0].health.as_ref().expect("the block is there");
    assert_eq!(health.timeout, Duration::from_millis(200));
}

#[test]
fn checksum_is_sha_256_in_lower_case_hex() {
    assert_eq!(checksum(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(good(MINIMAL).checksum, checksum(MINIMAL.as_bytes()));
}

#[test]
fn warnings_name_pools_whose_cookies_take_each_other_away() {
    let pool = |name: &str, keys: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\nservers = [{{ name = \"s\", address = \"10.0.0.9:80\" }}]\nsticky = {{ {keys} }}\n"
        )
    };
    let route = |keys: &str, pool: &str| format!("[[route]]\nlistener = \"web\"\n{keys}\npool = \"{pool}\"\n");
    let key = "[pair]\nkey_file = \"k\"\n";
    let warnings = |more: [String; 4]| good(&format!("{MINIMAL}sticky = {{}}\n{key}{}", more.concat())).warnings();
    let api = route("path_prefix = \"/api\"", "api");
    let shop = route("host = \"shop.example\"", "shop");
    let cart = route("host = \"shop.example\"\npath_prefix = \"/cart\"", "cart");
    let both = |first: &str, second: &str| {
        format!(
            "pools {first} and {second} of listener web both set the cookie BATON, and each takes the other's away: name one \
             of them differently"
        )
    };
    let none = String::new;
    assert_eq!(warnings([pool("api", ""), api.clone(), none(), none()]), [both("api", "app")]);
    assert_eq!(warnings([pool("api", "name = \"API\""), api.clone(), none(), none()]), [""; 0]);
    assert_eq!(warnings([pool("api", "path = \"/api\""), api.clone(), none(), none()]), [""; 0]);
    assert_eq!(warnings([pool("api", "by = \"source_ip\""), api, none(), none()]), [""; 0]);
    let of_shop = [both("cart", "shop"), both("cart", "app")];
    assert_eq!(warnings([pool("shop", ""), shop, pool("cart", ""), cart]), of_shop);
}

#[test]
fn a_store_that_no_pool_has_a_use_for_is_warned_of() {
    let rest = "[pair]\nkey_file = \"k\"\n[sessions]\nstore = \"redis://a\"\n";
    let warnings = |sticky: &str| good(&format!("{MINIMAL}{sticky}{rest}")).warnings();
    assert_eq!(
        warnings("sticky = {}\n"),
        ["sessions.store is used by no pool, as none is sticky by something that has to be remembered"]
    );
    assert_eq!(warnings("sticky = { by = \"source_ip\" }\n"), [""; 0]);
}

#[test]
fn a_password_of_the_store_that_others_can_read_is_warned_of() {
    let warnings = |url: &str, more: &str| {
        let sessions = format!("[pair]\nkey_file = \"k\"\n[sessions]\nstore = \"{url}\"\n{more}");
        good(&format!("{MINIMAL}sticky = {{ by = \"source_ip\" }}\n{sessions}")).warnings()
    };
    let password = "store_password_file = \"p\"\n";
    let clear = "the password of sessions.store travels in clear: write rediss:// where the store has TLS";
    assert_eq!(warnings("redis://10.0.0.5", password), [clear]);
    assert_eq!(warnings("redis://store.example", password), [clear]);
    assert_eq!(warnings("redis://10.0.0.5", ""), [""; 0]);
    for url in ["rediss://10.0.0.5", "redis://127.0.0.1", "redis://[::1]", "redis://localhost"] {
        assert_eq!(warnings(url, password), [""; 0], "{url}");
    }
}

#[test]
fn warnings_say_what_sessions_lose_without_a_pair_key() {
    let nodes = "[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n[[node]]\nname = \"b\"\naddress = \"192.0.2.12\"\n";
    let keyless = "pair.key_file is not set, so that anybody can work out a server's cookie or another client's key";
    let alone = "pair.key_file is not set, so that the nodes exchange no sessions, and a failover loses them";
    let counts = "pair.key_file is not set, so that each node counts for its rate limits alone";
    let warnings = |sticky: &str, rest: &str| good(&format!("{MINIMAL}{sticky}{rest}")).warnings();
    let by_address = "sticky = { by = \"source_ip\" }\n";
    assert_eq!(warnings("", ""), [""; 0]);
    assert_eq!(warnings("sticky = {}\n", ""), [keyless]);
    assert_eq!(warnings("sticky = {}\n", nodes), [keyless]);
    assert_eq!(warnings(by_address, nodes), [alone, keyless]);
    let store = format!("{nodes}[sessions]\nstore = \"redis://a\"\n");
    assert_eq!(warnings(by_address, &store), [keyless]);
    assert_eq!(warnings(by_address, &format!("{nodes}[pair]\nkey_file = \"k\"\n")), [""; 0]);
    let limited =
        MINIMAL.replace("pool = \"app\"\n\n", "pool = \"app\"\nrate_limit = { requests = 1, per = \"1s\" }\n\n");
    assert_eq!(good(&limited).warnings(), [""; 0]);
    assert_eq!(good(&format!("{limited}{nodes}")).warnings(), [counts]);
}

#[test]
fn warnings_name_pools_that_nothing_uses() {
    let config = good(&format!(
        "{MINIMAL}[[pool]]\nname = \"spare\"\nservers = [{{ name = \"a\", address = \"10.0.0.9:80\" }}]\n"
    ));
    assert_eq!(config.warnings(), ["pool spare is used by no listener and no route"]);
}

#[test]
fn an_error_of_syntax_does_not_hide_mistakes_elsewhere() {
    let text = MINIMAL.replace("name = \"web\"", "name = \"web").replace("10.0.0.1:8080", "10.0.0.1");
    let report = parse(&text, Path::new("f")).expect_err("two mistakes are in it");
    let lines: Vec<_> = report.mistakes().iter().filter_map(|at| at.position.as_ref()).map(|at| at.line).collect();
    assert_eq!(lines, [3, 9], "{report}");
}

#[test]
fn no_edit_of_the_reference_makes_the_reader_panic() {
    let original = include_str!("../../config/baton.toml");
    let fragments = [
        "[",
        "]",
        "[[",
        "\"",
        "=",
        "{",
        "}",
        "\n",
        ",",
        "#",
        ".",
        "'''",
        "\"\"\"",
        "\u{0}",
        "é",
        "-1",
        "9999999999999999999999999999999999999999999",
        "[[pool]]\n",
        "[pool.health]\n",
        "0x",
        "1e9",
    ];
    let seed = std::env::var("BATON_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("BATON_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..3000 {
        let mut text: Vec<char> = original.chars().collect();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..text.len());
            let end = (at + random.usize(..40)).min(text.len());
            match random.u8(..4) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, fragments[random.usize(..fragments.len())].chars())),
                2 => drop(text.splice(at..end, fragments[random.usize(..fragments.len())].chars())),
                _ => {
                    let copied = text[at..end].to_vec();
                    let to = random.usize(..text.len());
                    text.splice(to..to, copied);
                }
            }
            if text.is_empty() {
                text.push('\n');
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(report) = parse(&text, Path::new("f")) {
            assert!(!report.mistakes().is_empty());
            assert!(!report.to_string().contains("report this file"), "seed {seed}: {report}\n{text}");
        }
    }
}
