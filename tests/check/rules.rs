//! One literal a rule: a file with one mistake, and the line, key and rule that the report must give.

use std::path::Path;

use baton::config::{Mistake, parse};

/// A pair of nodes; the snippet before it begins on line 1.
pub(super) const PAIR: &str = r#"
[[node]]
name = "lb-a"
address = "192.0.2.11"
[[node]]
name = "lb-b"
address = "192.0.2.12"
"#;

/// A listener and its pool.
pub(super) const TRAFFIC: &str = r#"
[[listener]]
name = "web"
bind = ["0.0.0.0:80"]
pool = "app"
[[pool]]
name = "app"
servers = [{ name = "app1", address = "10.0.0.1:8080" }]
"#;

pub(super) fn mistakes(text: &str) -> Vec<Mistake> {
    parse(text, Path::new("baton.toml")).map_or_else(|report| report.mistakes().to_vec(), |_| Vec::new())
}

/// The file has one mistake and no other: a mistake must not be followed by what it alone causes.
pub(super) fn check_one(text: &str, line: usize, key: &str, rule: &str) {
    let found = mistakes(text);
    let [mistake] = found.as_slice() else {
        panic!("expected one mistake, found {found:#?}");
    };
    assert_eq!(mistake.position.as_ref().map(|at| at.line), Some(line), "{mistake:#?}");
    assert_eq!(mistake.key, key, "{mistake:#?}");
    assert!(mistake.rule.contains(rule), "{:?} is not in {mistake:#?}", rule);
    assert!(!mistake.remedy.is_empty(), "{mistake:#?}");
    let lower = |text: &str| !text.ends_with('.') && !text.starts_with(|c: char| c.is_ascii_uppercase() && c != 'I');
    assert!(lower(&mistake.rule), "style: {}", mistake.rule);
}

macro_rules! refused {
    ($($name:ident: [$($part:expr),+], $line:literal, $key:literal, $rule:literal;)+) => {
        $(#[test] fn $name() { check_one(&[$($part),+].concat(), $line, $key, $rule); })+
    };
}

pub(super) use refused;

// The file as a whole, types, keys.
refused! {
    syntax_error: ["[[pool]\n"], 1, "", "unclosed array table";
    key_twice: ["[worker]\nthreads = 1\nthreads = 2\n", TRAFFIC], 3, "", "duplicate key";
    unknown_block: ["[workers]\n", TRAFFIC], 1, "workers", "unknown key";
    unknown_key: ["[worker]\ncolour = 1\n", TRAFFIC], 2, "worker.colour", "unknown key";
    misspelt_key_is_not_missing_as_well: [PAIR, "[[vip]]\nname = \"v\"\nadresses = [\"192.0.2.9/24\"]\ninterface = \"lo\"\nvirtual_router_id = 1\n"],
        10, "vip[v].adresses", "unknown key";
    missing_key: ["[[listener]]\nname = \"a\"\nbind = [\"127.0.0.1:1\"]\npool = \"app\"\n[[route]]\npool = \"app\"\n", TRAFFIC],
        5, "route[#1].listener", "missing";
    missing_name: ["[[node]]\naddress = \"192.0.2.1\"\n", TRAFFIC], 1, "node[#1].name", "missing";
    number_for_a_string: ["[worker]\nuser = 5\n", TRAFFIC], 2, "worker.user", "must be a string, not an integer";
    string_for_a_number: ["[worker]\nthreads = \"2\"\n", TRAFFIC], 2, "worker.threads", "must be a whole number, not a string";
    string_for_a_list: ["[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:1\"\npool = \"app\"\n", TRAFFIC],
        3, "listener[a].bind", "must be a list, not a string";
    empty_list: ["[[listener]]\nname = \"a\"\nbind = []\npool = \"app\"\n", TRAFFIC], 3, "listener[a].bind", "must have 1 to 64";
    one_bracket_for_two: ["[node]\nname = \"a\"\naddress = \"192.0.2.1\"\n", TRAFFIC], 1, "node", "must be a list of tables";
    two_brackets_for_one: ["[[worker]]\nthreads = 1\n", TRAFFIC], 1, "worker", "must stand once";
    value_for_a_block: ["worker = 1\n", TRAFFIC], 1, "worker", "must be a table";
    string_for_a_boolean: ["[[pool]]\nname = \"b\"\nservers = [{ name = \"s\", address = \"10.0.0.1:1\", backup = \"yes\" }]\n", TRAFFIC],
        3, "pool[b].servers[s].backup", "must be true or false";
    bad_name: ["[[node]]\nname = \"a b\"\naddress = \"192.0.2.1\"\n", TRAFFIC], 2, "node[#1].name", "1 to 63 letters";
    duration_without_unit: ["[worker]\ndrain_timeout = 5\n", TRAFFIC], 2, "worker.drain_timeout", "needs a unit";
    duration_without_unit_in_quotes: ["[worker]\ndrain_timeout = \"5\"\n", TRAFFIC], 2, "worker.drain_timeout", "needs a unit";
    bad_duration: ["[worker]\ndrain_timeout = \"5 parsecs\"\n", TRAFFIC], 2, "worker.drain_timeout", "must be a duration";
}

// Nodes and the pair.
refused! {
    node_address_is_a_name: ["[[node]]\nname = \"a\"\naddress = \"lb-a.example.com\"\n", TRAFFIC], 3, "node[a].address", "must be an IP address";
    node_address_with_prefix: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1/24\"\n", TRAFFIC], 3, "node[a].address", "must be an IP address";
    node_address_unspecified: ["[[node]]\nname = \"a\"\naddress = \"0.0.0.0\"\n", TRAFFIC], 3, "node[a].address", "not the unspecified";
    node_address_multicast: ["[[node]]\nname = \"a\"\naddress = \"224.0.0.18\"\n", TRAFFIC], 3, "node[a].address", "not a multicast";
    node_address_loopback_in_a_pair: ["[[node]]\nname = \"a\"\naddress = \"127.0.0.1\"\n[[node]]\nname = \"b\"\naddress = \"192.0.2.2\"\n", TRAFFIC],
        3, "node[a].address", "cannot reach a loopback";
    node_addresses_equal: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[node]]\nname = \"b\"\naddress = \"192.0.2.1\"\n", TRAFFIC],
        6, "node[b].address", "node[a].address is the same";
    node_names_equal: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[node]]\nname = \"a\"\naddress = \"192.0.2.2\"\n", TRAFFIC],
        5, "node[a].name", "another node has that name";
    node_priority_zero: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\npriority = 0\n", TRAFFIC], 4, "node[a].priority", "must be 1 to 254";
    node_priority_of_an_owner: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\npriority = 255\n", TRAFFIC], 4, "node[a].priority", "must be 1 to 254";
    node_priorities_equal: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\npriority = 7\n[[node]]\nname = \"b\"\naddress = \"192.0.2.2\"\npriority = 7\n", TRAFFIC],
        8, "node[b].priority", "both nodes have priority 7";
    node_priority_equal_to_a_default: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\npriority = 249\n[[node]]\nname = \"b\"\naddress = \"192.0.2.2\"\n", TRAFFIC],
        4, "node[a].priority", "both nodes have priority 249";
    third_node: [PAIR, "[[node]]\nname = \"c\"\naddress = \"192.0.2.13\"\n", TRAFFIC], 8, "node[c]", "at most two nodes";
    sync_port_zero: ["[pair]\nsync_port = 0\n", TRAFFIC], 2, "pair.sync_port", "must be 1 to 65535";
    sync_port_too_large: ["[pair]\nsync_port = 65536\n", TRAFFIC], 2, "pair.sync_port", "must be 1 to 65535";
    sync_port_beyond_any_number: ["[pair]\nsync_port = 99999999999999999999999999999999999999999999\n", TRAFFIC],
        2, "pair.sync_port", "must be 1 to 65535";
    key_file_empty: ["[pair]\nkey_file = \"\"\n", TRAFFIC], 2, "pair.key_file", "must be the path of a file";
}

/// A vip of which one key is replaced; the addresses stand on line 3, the rest below.
pub(super) fn vip(addresses: &str, rest: &str) -> String {
    format!("[[vip]]\nname = \"v\"\naddresses = {addresses}\ninterface = \"eth0\"\n{rest}\n")
}

refused! {
    vip_without_prefix: [vip("[\"192.0.2.100\"]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "must have a prefix length";
    vip_prefix_too_long: [vip("[\"192.0.2.100/33\"]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "1 to 32";
    vip_multicast: [vip("[\"224.0.0.5/24\"]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "not a multicast";
    vip_loopback: [vip("[\"127.0.0.5/8\"]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "not a loopback";
    vip_unspecified: [vip("[\"0.0.0.0/8\"]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "not the unspecified";
    vip_network_address: [vip("[\"192.0.2.0/24\"]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "network's own";
    vip_is_a_node: [vip("[\"192.0.2.12/24\"]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "node[lb-b].address is that address";
    vip_address_twice: [vip("[\"192.0.2.9/24\", \"192.0.2.9/32\"]", "virtual_router_id = 1"), PAIR.to_owned()],
        3, "vip[v].addresses[#2]", "is the same address";
    vip_seventeen_addresses: [vip(&format!("[{}]", (1..18).map(|i| format!("\"198.51.100.{i}/24\"")).collect::<Vec<_>>().join(",")), "virtual_router_id = 1"), PAIR.to_owned()],
        3, "vip[v].addresses", "has 17";
    vip_address_in_two: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1"), "[[vip]]\nname = \"w\"\naddresses = [\"192.0.2.9/24\"]\ninterface = \"eth0\"\nvirtual_router_id = 2\n".to_owned(), PAIR.to_owned()],
        8, "vip[w].addresses[#1]", "vip[v].addresses[#1] is the same address";
    router_id_zero: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 0"), PAIR.to_owned()], 5, "vip[v].virtual_router_id", "must be 1 to 255";
    router_id_too_large: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 256"), PAIR.to_owned()], 5, "vip[v].virtual_router_id", "must be 1 to 255";
    router_id_twice_on_an_interface: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1"), "[[vip]]\nname = \"w\"\naddresses = [\"192.0.2.10/24\"]\ninterface = \"eth0\"\nvirtual_router_id = 1\n".to_owned(), PAIR.to_owned()],
        10, "vip[w].virtual_router_id", "is the same on eth0";
    advert_interval_too_short: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1\nadvert_interval = \"9ms\""), PAIR.to_owned()],
        6, "vip[v].advert_interval", "must be 10ms to 40.95s";
    advert_interval_too_long: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1\nadvert_interval = \"40.96s\""), PAIR.to_owned()],
        6, "vip[v].advert_interval", "must be 10ms to 40.95s";
    advert_interval_between_steps: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1\nadvert_interval = \"105ms\""), PAIR.to_owned()],
        6, "vip[v].advert_interval", "multiple of 10ms";
    unknown_transport: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1\ntransport = \"broadcast\""), PAIR.to_owned()],
        6, "vip[v].transport", "must be \"unicast\", \"multicast\" or \"udp\"";
    dangling_prefer: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1\nprefer = \"lb-c\""), PAIR.to_owned()], 6, "vip[v].prefer", "no node of that name";
    bad_interface: ["[[vip]]\nname = \"v\"\naddresses = [\"192.0.2.9/24\"]\ninterface = \"eth0/1\"\nvirtual_router_id = 1\n", PAIR],
        4, "vip[v].interface", "name of a network interface";
    vip_without_nodes: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1")], 1, "vip[v]", "needs a [[node]]";
    vip_names_equal: [vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1"), vip("[\"192.0.2.10/24\"]", "virtual_router_id = 2"), PAIR.to_owned()],
        7, "vip[v].name", "another vip has that name";
}

/// A listener with other binds than [`TRAFFIC`]; `rest` begins on line 4.
fn listener(bind: &str, rest: &str) -> String {
    format!("[[listener]]\nname = \"x\"\nbind = {bind}\n{rest}\n{TRAFFIC}")
}

/// A listener with a limit on line 5, from the number of its requests on.
fn limited(requests: &str) -> String {
    listener("[\"192.0.2.1:81\"]", &format!("pool = \"app\"\nrate_limit = {{ requests = {requests} }}"))
}

refused! {
    bind_without_port: [listener("[\"192.0.2.1\"]", "pool = \"app\"")], 3, "listener[x].bind[#1]", "an IP address and a port";
    bind_port_zero: [listener("[\"192.0.2.1:0\"]", "pool = \"app\"")], 3, "listener[x].bind[#1]", "1 to 65535";
    bind_multicast: [listener("[\"224.0.0.1:80\"]", "pool = \"app\"")], 3, "listener[x].bind[#1]", "TCP can listen on";
    bind_twice: [listener("[\"192.0.2.1:81\", \"192.0.2.1:81\"]", "pool = \"app\"")], 3, "listener[x].bind[#2]", "listener[x].bind[#1] is the same";
    bind_below_a_wildcard: [listener("[\"192.0.2.1:80\"]", "pool = \"app\"")], 8, "listener[web].bind[#1]", "listener[x].bind[#1] = 192.0.2.1:80 overlaps";
    bind_below_an_ipv6_wildcard: [listener("[\"[::]:80\"]", "pool = \"app\"")], 8, "listener[web].bind[#1]", "overlaps";
    bind_ipv6_below_its_wildcard: [listener("[\"[::]:81\", \"[2001:db8::1]:81\"]", "pool = \"app\"")], 3, "listener[x].bind[#2]", "overlaps";
    bind_mapped_is_the_same: [listener("[\"192.0.2.1:81\", \"[::ffff:192.0.2.1]:81\"]", "pool = \"app\"")], 3, "listener[x].bind[#2]", "overlaps";
    sixty_five_binds: [listener(&format!("[{}]", (1..66).map(|port| format!("\"192.0.2.1:{port}\"")).collect::<Vec<_>>().join(",")), "pool = \"app\"")],
        3, "listener[x].bind", "has 65";
    listener_without_purpose: [listener("[\"192.0.2.1:81\"]", "")], 1, "listener[x]", "neither a pool nor a route";
    listener_names_equal: [listener("[\"192.0.2.1:81\"]", "pool = \"app\""), "[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:82\"]\npool = \"app\"\n".to_owned()],
        14, "listener[x].name", "another listener has that name";
    dangling_listener_pool: [listener("[\"192.0.2.1:81\"]", "pool = \"apx\"")], 4, "listener[x].pool", "no pool of that name";
    tcp_without_a_pool: [listener("[\"192.0.2.1:81\"]", "protocol = \"tcp\"")], 1, "listener[x]", "has no pool";
    tcp_with_a_route: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nprotocol = \"tcp\"\n[[route]]\nlistener = \"x\"\npool = \"app\"")],
        7, "route[#1].listener", "no hosts and paths";
    protocol_udp: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nprotocol = \"udp\"")], 5, "listener[x].protocol", "not in this release";
    protocol_unknown: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nprotocol = \"htp\"")], 5, "listener[x].protocol", "must be \"http\"";
    head_timeout_zero: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nhead_timeout = \"0s\"")], 5, "listener[x].head_timeout", "must be 10ms to 1h";
    client_idle_timeout_too_long: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nidle_timeout = \"25h\"")], 5, "listener[x].idle_timeout", "must be 10ms to 24h";
    rate_limit_without_requests: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nrate_limit = { per = \"1s\" }")], 5, "listener[x].rate_limit.requests", "missing";
    rate_limit_without_its_time: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nrate_limit = { requests = 1 }")], 5, "listener[x].rate_limit.per", "missing";
    rate_limit_of_nothing: [limited("0, per = \"1s\"")], 5, "listener[x].rate_limit.requests", "must be 1 to 1000000";
    rate_limit_of_too_much: [limited("1000001, per = \"1s\"")], 5, "listener[x].rate_limit.requests", "must be 1 to 1000000";
    rate_limit_time_too_short: [limited("1, per = \"99ms\"")], 5, "listener[x].rate_limit.per", "must be 100ms to 24h";
    rate_limit_time_too_long: [limited("1, per = \"86400001ms\"")], 5, "listener[x].rate_limit.per", "must be 100ms to 24h";
    rate_limit_time_without_unit: [limited("1, per = 10")], 5, "listener[x].rate_limit.per", "a duration needs a unit";
    rate_limit_burst_zero: [limited("1, per = \"1s\", burst = 0")], 5, "listener[x].rate_limit.burst", "must be 1 to 1000000";
    rate_limit_by_nothing_known: [limited("1, per = \"1s\", by = \"moon\", name = \"X-Key\"")], 5, "listener[x].rate_limit.by", "must be \"source_ip\", \"header\" or \"cookie\"";
    rate_limit_by_a_header_without_a_name: [limited("1, per = \"1s\", by = \"header\"")], 5, "listener[x].rate_limit.name", "missing";
    rate_limit_header_name: [limited("1, per = \"1s\", by = \"header\", name = \"X Key\"")], 5, "listener[x].rate_limit.name", "must be the name of a header";
    rate_limit_name_of_an_address: [limited("1, per = \"1s\", name = \"X-Key\"")], 5, "listener[x].rate_limit.name", "no meaning with by = \"source_ip\"";
    rate_limit_prefix_v4_zero: [limited("1, per = \"1s\", prefix_v4 = 0")], 5, "listener[x].rate_limit.prefix_v4", "must be 1 to 32";
    rate_limit_prefix_v4_too_long: [limited("1, per = \"1s\", prefix_v4 = 33")], 5, "listener[x].rate_limit.prefix_v4", "must be 1 to 32";
    rate_limit_prefix_v6_too_long: [limited("1, per = \"1s\", prefix_v6 = 129")], 5, "listener[x].rate_limit.prefix_v6", "must be 1 to 128";
    rate_limit_entries_zero: [limited("1, per = \"1s\", entries_max = 0")], 5, "listener[x].rate_limit.entries_max", "must be 1 to 16000000";
    rate_limit_entries_too_many: [limited("1, per = \"1s\", entries_max = 16000001")], 5, "listener[x].rate_limit.entries_max", "must be 1 to 16000000";
    rate_limit_unknown_key: [limited("1, per = \"1s\", burts = 2")], 5, "listener[x].rate_limit.burts", "unknown key";
    rate_limit_of_connections: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nprotocol = \"tcp\"\nrate_limit = { requests = 1, per = \"1s\" }")], 6, "listener[x].rate_limit", "no meaning without protocol = \"http\"";
    rate_limit_that_is_no_table: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nrate_limit = 100")], 5, "listener[x].rate_limit", "must be a table";
    connections_max_zero: [listener("[\"192.0.2.1:81\"]", "pool = \"app\"\nconnections_max = 0")], 5, "listener[x].connections_max", "must be 1 to 1000000";
}

/// A route on line 1; `rest` begins on line 4.
fn route(rest: &str) -> String {
    format!("[[route]]\nlistener = \"web\"\npool = \"app\"\n{rest}\n{TRAFFIC}")
}

refused! {
    route_to_no_pool: ["[[route]]\nlistener = \"web\"\npool = \"apx\"\n", TRAFFIC], 3, "route[#1].pool", "no pool of that name";
    route_of_no_listener: ["[[route]]\nlistener = \"wev\"\npool = \"app\"\n", TRAFFIC], 2, "route[#1].listener", "no listener of that name";
    route_path_without_slash: [route("path_prefix = \"api\"")], 4, "route[#1].path_prefix", "must begin with '/'";
    route_path_with_query: [route("path_prefix = \"/api?x=1\"")], 4, "route[#1].path_prefix", "without a query";
    route_path_with_space: [route("path_prefix = \"/a b\"")], 4, "route[#1].path_prefix", "printable ASCII";
    route_wildcard_in_the_middle: [route("host = \"a.*.example.com\"")], 4, "route[#1].host", "may have '*' in front alone";
    route_host_with_port: [route("host = \"shop.example.com:443\"")], 4, "route[#1].host", "without a port";
    route_host_empty_label: [route("host = \"shop..example.com\"")], 4, "route[#1].host", "must be a host name";
    route_host_not_ascii: [route("host = \"bücher.example\"")], 4, "route[#1].host", "in ASCII";
    route_twice: [route("host = \"a.example\"\npath_prefix = \"/x\""), "[[route]]\nlistener = \"web\"\npool = \"app\"\nhost = \"A.example\"\npath_prefix = \"/x/\"\n".to_owned()],
        14, "route[#2]", "never reached";
}

/// A pool on line 1 with one server; `rest` begins on line 4.
fn pool(rest: &str) -> String {
    format!("[[pool]]\nname = \"p\"\nservers = [{{ name = \"s\", address = \"10.0.0.1:1\" }}]\n{rest}\n{TRAFFIC}")
}

fn servers(list: &str) -> String {
    format!("[[pool]]\nname = \"p\"\nservers = [\n{list}\n]\n{TRAFFIC}")
}

refused! {
    pool_names_equal: [pool(""), "[[pool]]\nname = \"p\"\nservers = [{ name = \"s\", address = \"10.0.0.1:1\" }]\n".to_owned()], 14, "pool[p].name", "another pool has that name";
    pool_without_servers: ["[[pool]]\nname = \"p\"\n", TRAFFIC], 1, "pool[p].servers", "missing";
    pool_of_no_servers: ["[[pool]]\nname = \"p\"\nservers = []\n", TRAFFIC], 3, "pool[p].servers", "must have 1 to 1024";
    pool_of_1025_servers: [servers(&(0..1025).map(|i| format!("{{ name = \"s{i}\", address = \"10.0.{}.{}:1\" }},", i / 250, i % 250 + 1)).collect::<String>())],
        3, "pool[p].servers", "has 1025";
    hash_of_another_algorithm: [pool("algorithm = \"random\"\nhash = { on = \"path\" }")], 5, "pool[p].hash", "without algorithm = \"consistent_hash\"";
    resource_of_another_algorithm: [pool("resource = { header = \"X-Load\" }")], 4, "pool[p].resource", "without algorithm = \"resource\"";
    hash_on_unknown: [pool("algorithm = \"consistent_hash\"\nhash = { on = \"host\" }")], 5, "pool[p].hash.on", "must be \"address\"";
    hash_on_header_without_name: [pool("algorithm = \"consistent_hash\"\nhash = { on = \"header\" }")], 5, "pool[p].hash.name", "missing";
    hash_on_path_with_name: [pool("algorithm = \"consistent_hash\"\nhash = { on = \"path\", name = \"x\" }")], 5, "pool[p].hash.name", "has no meaning with on";
    hash_factor_too_small: [pool("algorithm = \"consistent_hash\"\nhash = { balance_factor = 99 }")], 5, "pool[p].hash.balance_factor", "must be 100 to 10000";
    resource_header_no_name: [pool("algorithm = \"resource\"\nresource = { header = \"a b\" }")], 5, "pool[p].resource.header", "";
    slow_start_too_short: [pool("slow_start = \"99ms\"")], 4, "pool[p].slow_start", "must be 100ms to 1h";
    panic_threshold_above_all: [pool("panic_threshold = 101")], 4, "pool[p].panic_threshold", "must be 0 to 100";
    zone_threshold_above_all: [pool("zone_threshold = 101")], 4, "pool[p].zone_threshold", "must be 0 to 100";
    server_connections_zero: [servers("{ name = \"s\", address = \"10.0.0.1:1\", connections_max = 0 }")], 4, "pool[p].servers[s].connections_max", "must be 1 to 1000000";
    server_zone_no_name: [servers("{ name = \"s\", address = \"10.0.0.1:1\", zone = \"a b\" }")], 4, "pool[p].servers[s].zone", "";
    algorithm_unknown: [pool("algorithm = \"fastest\"")], 4, "pool[p].algorithm", "must be \"round_robin\"";
    server_names_equal: [servers("{ name = \"s\", address = \"10.0.0.1:1\" },\n{ name = \"s\", address = \"10.0.0.2:1\" }")],
        5, "pool[p].servers[s].name", "two servers of this pool";
    server_addresses_equal: [servers("{ name = \"s\", address = \"10.0.0.1:1\" },\n{ name = \"t\", address = \"10.0.0.1:1\" }")],
        5, "pool[p].servers[t].address", "pool[p].servers[s] has that address";
    server_host_name: [servers("{ name = \"s\", address = \"app.internal:80\" }")], 4, "pool[p].servers[s].address", "an IP address and a port";
    server_unspecified: [servers("{ name = \"s\", address = \"0.0.0.0:80\" }")], 4, "pool[p].servers[s].address", "not the unspecified";
    server_weight: [servers("{ name = \"s\", address = \"10.0.0.1:1\", weight = 257 }")], 4, "pool[p].servers[s].weight", "must be 0 to 256";
    server_is_a_string: [servers("\"10.0.0.1:1\"")], 4, "pool[p].servers[#1]", "must be a table";
    connect_timeout_too_long: [pool("connect_timeout = \"301s\"")], 4, "pool[p].connect_timeout", "must be 10ms to 5m";
    response_timeout_zero: [pool("response_timeout = \"0s\"")], 4, "pool[p].response_timeout", "must be 10ms to 24h";
    idle_timeout_zero: [pool("idle_timeout = \"0s\"")], 4, "pool[p].idle_timeout", "must be 10ms to 24h";
    idle_connections_negative: [pool("idle_connections_max = -1")], 4, "pool[p].idle_connections_max", "must be 0 to 65536";
    body_timeout_zero: [pool("body_timeout = \"0s\"")], 4, "pool[p].body_timeout", "must be 10ms to 24h";
    request_timeout_zero: [pool("request_timeout = \"0s\"")], 4, "pool[p].request_timeout", "must be 10ms to 24h";
    http2_connections_none: [pool("http2 = { connections_max = 0 }")], 4, "pool[p].http2.connections_max", "must be 1 to 1024";
    http2_streams_none: [pool("http2 = { streams_max = 0 }")], 4, "pool[p].http2.streams_max", "must be 1 to 1000";
    server_protocol_unknown: [pool("protocol = \"spdy\"")], 4, "pool[p].protocol", "must be \"http1\"";
    retries_none: [pool("retries = { attempts = 0 }")], 4, "pool[p].retries.attempts", "must be 1 to 10";
    retries_of_good_status: [pool("retries = { on = [\"200\"] }")], 4, "pool[p].retries.on[#1]", "from 400 to 599";
    retries_of_no_cause: [pool("retries = { on = [\"connect\"] }")], 4, "pool[p].retries.on[#1]", "no cause";
    retries_budget_above_all: [pool("retries = { budget_percent = 101 }")], 4, "pool[p].retries.budget_percent", "must be 0 to 100";
    hedge_at_once: [pool("retries = { hedge_after = \"0s\" }")], 4, "pool[p].retries.hedge_after", "must be 1ms to 10m";
    hedge_after_the_end: [pool("response_timeout = \"1s\"\nretries = { hedge_after = \"1s\" }")], 5, "pool[p].retries.hedge_after", "below response_timeout";
    hedge_of_one_attempt: [pool("retries = { attempts = 1, hedge_after = \"1s\" }")], 4, "pool[p].retries.hedge_after", "attempts = 1";
    hedge_of_sticky_clients: [pool("sticky = {}\nretries = { hedge_after = \"1s\" }")], 5, "pool[p].retries.hedge_after", "sticky";
    retries_replay_too_large: [pool("retries = { replay_body_max = 1048577 }")], 4, "pool[p].retries.replay_body_max", "must be 0 to 1048576";
    server_h2_without_tls: [pool("protocol = \"h2\"")], 4, "pool[p].protocol", "within TLS";
    server_auto_without_tls: [pool("protocol = \"auto\"")], 4, "pool[p].protocol", "this pool has no tls";
    server_h2c_with_tls: [pool("protocol = \"h2c\"\ntls = {}")], 4, "pool[p].protocol", "in clear text";
    server_h2c_with_send_proxy: [pool("protocol = \"h2c\"\nsend_proxy = \"v2\"")], 4, "pool[p].protocol", "clients share connections";
    send_proxy_unknown: [pool("send_proxy = \"v3\"")], 4, "pool[p].send_proxy", "must be \"v1\"";
    server_tls_ca_unverified: [pool("tls = { verify = false, ca_file = \"ca.crt\" }")], 4, "pool[p].tls.ca_file", "no meaning";
    server_tls_name: [pool("tls = { server_name = \"a b\" }")], 4, "pool[p].tls.server_name", "must be";
    server_tls_certificate_without_key: [pool("tls = { certificate = { cert = \"a.crt\" } }")], 4, "pool[p].tls.certificate.key", "missing";
    health_type_unknown: [pool("health = { type = \"icmp\" }")], 4, "pool[p].health.type", "must be \"http\", \"tcp\"";
    health_path_without_slash: [pool("health = { path = \"health\" }")], 4, "pool[p].health.path", "must begin with '/'";
    health_path_with_control_characters: [pool("health = { path = \"/a\\r\\nb\" }")], 4, "pool[p].health.path", "printable ASCII";
    health_path_of_tcp: [pool("health = { type = \"tcp\", path = \"/\" }")], 4, "pool[p].health.path", "no meaning";
    health_host: [pool("health = { host = \"a b\" }")], 4, "pool[p].health.host", "must be a host name";
    health_interval_too_short: [pool("health = { interval = \"99ms\" }")], 4, "pool[p].health.interval", "must be 100ms to 1h";
    health_timeout_above_interval: [pool("health = { interval = \"1s\", timeout = \"1001ms\" }")], 4, "pool[p].health.timeout", "must not be above interval, which is 1s";
    health_fall_zero: [pool("health = { fall = 0 }")], 4, "pool[p].health.fall", "must be 1 to 100";
    health_rise_too_large: [pool("health = { rise = 101 }")], 4, "pool[p].health.rise", "must be 1 to 100";
    sticky_by_nothing_known: [pool("sticky = { by = \"moon\", name = \"a b\", prefix_v4 = 0 }")], 4, "pool[p].sticky.by", "must be \"cookie\", \"app_cookie\"";
    sticky_cookie_name: [pool("sticky = { name = \"a b\" }")], 4, "pool[p].sticky.name", "must be a cookie name";
    sticky_ttl_zero: [pool("sticky = { ttl = \"0s\" }")], 4, "pool[p].sticky.ttl", "must be 1s to 9600h";
    sticky_ttl_of_a_table_too_long: [pool("sticky = { by = \"source_ip\", ttl = \"9601h\" }")], 4, "pool[p].sticky.ttl", "must be 1s to 9600h";
    sticky_ttl_max_below_ttl: [pool("sticky = { ttl = \"2s\", ttl_max = \"1999ms\" }")], 4, "pool[p].sticky.ttl_max", "must not be below ttl, which is 2s";
    sticky_ttl_max_below_the_default_ttl: [pool("sticky = { by = \"source_ip\", ttl_max = \"59m\" }")], 4, "pool[p].sticky.ttl_max", "must not be below ttl, which is 1h";
    sticky_app_cookie_without_a_name: [pool("sticky = { by = \"app_cookie\" }")], 4, "pool[p].sticky.name", "missing";
    sticky_header_without_a_name: [pool("sticky = { by = \"header\" }")], 4, "pool[p].sticky.name", "missing";
    sticky_query_without_a_name: [pool("sticky = { by = \"query\" }")], 4, "pool[p].sticky.name", "missing";
    sticky_header_name: [pool("sticky = { by = \"header\", name = \"X User\" }")], 4, "pool[p].sticky.name", "must be the name of a header";
    sticky_query_name: [pool("sticky = { by = \"query\", name = \"a&b\" }")], 4, "pool[p].sticky.name", "must be the name of a query parameter";
    sticky_source_ip_with_a_name: [pool("sticky = { by = \"source_ip\", name = \"x\" }")], 4, "pool[p].sticky.name", "no meaning with by = \"source_ip\"";
    sticky_prefix_of_a_cookie: [pool("sticky = { prefix_v4 = 24 }")], 4, "pool[p].sticky.prefix_v4", "no meaning with by = \"cookie\"";
    sticky_entries_of_a_cookie: [pool("sticky = { entries_max = 10 }")], 4, "pool[p].sticky.entries_max", "no meaning with by = \"cookie\"";
    sticky_attributes_of_a_header: [pool("sticky = { by = \"header\", name = \"x\", secure = \"never\" }")], 4, "pool[p].sticky.secure", "no meaning with by = \"header\"";
    sticky_prefix_v4_too_long: [pool("sticky = { by = \"source_ip\", prefix_v4 = 33 }")], 4, "pool[p].sticky.prefix_v4", "must be 1 to 32";
    sticky_prefix_v6_zero: [pool("sticky = { by = \"source_ip\", prefix_v6 = 0 }")], 4, "pool[p].sticky.prefix_v6", "must be 1 to 128";
    sticky_entries_zero: [pool("sticky = { by = \"source_ip\", entries_max = 0 }")], 4, "pool[p].sticky.entries_max", "must be 1 to 16000000";
    sticky_entries_too_many: [pool("sticky = { by = \"source_ip\", entries_max = 16000001 }")], 4, "pool[p].sticky.entries_max", "must be 1 to 16000000";
    sticky_on_down: [pool("sticky = { on_down = \"wait\" }")], 4, "pool[p].sticky.on_down", "must be \"rebalance\" or \"fail\"";
    sticky_secure: [pool("sticky = { secure = true }")], 4, "pool[p].sticky.secure", "must be a string";
    sticky_http_only: [pool("sticky = { http_only = \"yes\" }")], 4, "pool[p].sticky.http_only", "must be true or false";
    sticky_same_site: [pool("sticky = { same_site = \"loose\" }")], 4, "pool[p].sticky.same_site", "must be \"lax\"";
    sticky_same_site_none_never_secure: [pool("sticky = { same_site = \"none\", secure = \"never\" }")], 4, "pool[p].sticky.same_site", "with Secure alone";
    sticky_path: [pool("sticky = { path = \"/a;b\" }")], 4, "pool[p].sticky.path", "without ';'";
    sticky_path_without_slash: [pool("sticky = { path = \"a\" }")], 4, "pool[p].sticky.path", "must begin with '/'";
    sticky_domain_with_a_dot: [pool("sticky = { domain = \".example.com\" }")], 4, "pool[p].sticky.domain", "without a dot in front";
    sticky_by_sni_over_http: [TRAFFIC, "sticky = { by = \"tls_sni\" }\n"], 9, "pool[app].sticky.by", "protocol = \"tcp\" alone";
    sticky_by_cookie_over_tcp: ["[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\nprotocol = \"tcp\"\npool = \"p\"\n", pool("sticky = {}").as_str()],
        5, "listener[x].pool", "sticky by cookie";
    sticky_by_header_over_tcp: ["[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\nprotocol = \"tcp\"\npool = \"p\"\n", pool("sticky = { by = \"header\", name = \"a\" }").as_str()],
        5, "listener[x].pool", "sticky by header";
    sticky_by_session_id_behind_tls: ["[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\nprotocol = \"tcp\"\npool = \"p\"\ntls = { certificates = [{ cert = \"c\", key = \"k\" }] }\n",
        pool("sticky = { by = \"tls_session_id\" }").as_str()], 5, "listener[x].pool", "no TLS sessions of clients";
    sticky_by_session_id_over_a_route: [listener("[\"192.0.2.1:81\"]", "[[route]]\nlistener = \"x\"\npool = \"q\"").as_str(),
        "[[pool]]\nname = \"q\"\nservers = [{ name = \"s\", address = \"10.0.0.1:1\" }]\nsticky = { by = \"tls_session_id\" }\n"], 18, "pool[q].sticky.by", "protocol = \"tcp\" alone";
}

// The worker, and what a later release will have.
refused! {
    threads_zero: ["[worker]\nthreads = 0\n", TRAFFIC], 2, "worker.threads", "must be 1 to 256";
    threads_too_many: ["[worker]\nthreads = 257\n", TRAFFIC], 2, "worker.threads", "must be 1 to 256";
    user_empty: ["[worker]\nuser = \"\"\n", TRAFFIC], 2, "worker.user", "must be the name of a user";
    probe_interval_too_long: ["[worker]\nprobe_interval = \"11s\"\n", TRAFFIC], 2, "worker.probe_interval", "must be 10ms to 10s";
    probe_timeout_below_interval: ["[worker]\nprobe_interval = \"1s\"\nprobe_timeout = \"999ms\"\n", TRAFFIC], 3, "worker.probe_timeout", "must not be below probe_interval";
    switchover_drain_too_long: ["[pair]\nswitchover_drain = \"21s\"\n", TRAFFIC], 2, "pair.switchover_drain", "must be 0ms to 20s";
    drain_timeout_too_long: ["[worker]\ndrain_timeout = \"2h\"\n", TRAFFIC], 2, "worker.drain_timeout", "must be 0ms to 1h";
    admin_without_bind: ["[admin]\n", TRAFFIC], 1, "admin.bind", "missing";
    admin_bind: ["[admin]\nbind = \"9909\"\n", TRAFFIC], 2, "admin.bind", "must be";
    admin_bind_of_a_listener: [TRAFFIC, "\n[admin]\nbind = \"192.0.2.1:80\"\n"], 11, "admin.bind", "overlaps with it";
    admin_hosts: ["[admin]\nbind = \"127.0.0.1:9909\"\nhosts = [\"lb.example.com:9909\"]\n", TRAFFIC], 3, "admin.hosts[#1]", "";
    store_without_a_scheme: ["[sessions]\nstore = \"10.0.0.5:6379\"\n", TRAFFIC], 2, "sessions.store", "must be a URL";
    store_of_another_kind: ["[sessions]\nstore = \"memcached://10.0.0.5\"\n", TRAFFIC], 2, "sessions.store", "must begin with redis://";
    store_with_a_password: ["[sessions]\nstore = \"redis://:secret@10.0.0.5\"\n", TRAFFIC], 2, "sessions.store", "must not hold a user or a password";
    store_with_a_port_zero: ["[sessions]\nstore = \"redis://10.0.0.5:0\"\n", TRAFFIC], 2, "sessions.store", "the port must be 1 to 65535";
    store_with_a_database_out_of_range: ["[sessions]\nstore = \"redis://10.0.0.5/65536\"\n", TRAFFIC], 2, "sessions.store", "must be the number of a database";
    store_with_several_urls_and_no_cluster: ["[sessions]\nstore = [\"redis://a\", \"redis://b\"]\nstore_cluster = false\n", TRAFFIC], 2, "sessions.store", "are those of one cluster";
    store_with_a_database_of_a_cluster: ["[sessions]\nstore = [\"redis://a\", \"redis://b/1\"]\n", TRAFFIC], 2, "sessions.store[#2]", "no databases but number 0";
    store_half_with_tls: ["[sessions]\nstore = [\"redis://a\", \"rediss://b\"]\n", TRAFFIC], 2, "sessions.store[#2]", "with TLS, or none";
    store_with_authorities_and_no_tls: ["[sessions]\nstore = \"redis://a\"\nstore_ca_file = \"ca.pem\"\n", TRAFFIC], 3, "sessions.store_ca_file", "no meaning without TLS";
    store_with_a_user_and_no_password: ["[sessions]\nstore = \"redis://a\"\nstore_username = \"lb\"\n", TRAFFIC], 3, "sessions.store_username", "needs a password";
    store_username: ["[sessions]\nstore = \"redis://a\"\nstore_username = \"l b\"\nstore_password_file = \"p\"\n", TRAFFIC], 3, "sessions.store_username", "must be the name of a user";
    store_timeout_too_short: ["[sessions]\nstore = \"redis://a\"\nstore_timeout = \"0.9ms\"\n", TRAFFIC], 3, "sessions.store_timeout", "must be 1ms to 10s";
    store_timeout_too_long: ["[sessions]\nstore = \"redis://a\"\nstore_timeout = \"10001ms\"\n", TRAFFIC], 3, "sessions.store_timeout", "must be 1ms to 10s";
    store_prefix: ["[sessions]\nstore = \"redis://a\"\nstore_prefix = \"{lb}:\"\n", TRAFFIC], 3, "sessions.store_prefix", "without spaces and braces";
    store_timeout_without_a_store: ["[sessions]\nstore_timeout = \"1s\"\n", TRAFFIC], 2, "sessions.store_timeout", "has no meaning without a store";
    snapshot_interval_too_short: ["[sessions]\nsnapshot_interval = \"999ms\"\n", TRAFFIC], 2, "sessions.snapshot_interval", "must be 1s to 24h";
}

#[test]
fn both_sides_of_every_boundary_are_as_documented() {
    let good = [
        "[worker]\nthreads = 256\nprobe_interval = \"10ms\"\nprobe_timeout = \"10ms\"\ndrain_timeout = \"0s\"\n"
            .to_owned()
            + TRAFFIC,
        "[worker]\nthreads = 1\nprobe_interval = \"10s\"\nprobe_timeout = \"60s\"\ndrain_timeout = \"1h\"\n".to_owned()
            + TRAFFIC,
        "[worker]\nprobe_interval = \"10s\"\n".to_owned() + TRAFFIC,
        vip("[\"192.0.2.9/32\"]", "virtual_router_id = 255\nadvert_interval = \"40.95s\"") + PAIR,
        vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1\nadvert_interval = \"10ms\"\ntransport = \"multicast\"")
            + PAIR,
        pool(
            "health = { interval = \"100ms\", timeout = \"100ms\", fall = 1, rise = 100 }\nsticky = { ttl = \"9600h\" }",
        ),
        pool(
            "sticky = { ttl = \"1s\", ttl_max = \"1s\", same_site = \"none\", secure = \"always\", domain = \"example.com\" }",
        ),
        pool("sticky = { by = \"source_ip\", prefix_v4 = 1, prefix_v6 = 1, entries_max = 1, ttl_max = \"1h\" }"),
        pool("sticky = { by = \"source_ip\", prefix_v4 = 32, prefix_v6 = 128, entries_max = 16000000 }"),
        pool("sticky = { by = \"tls_sni\", on_down = \"fail\" }"),
        "[sessions]\nsnapshot_interval = \"1s\"\n".to_owned() + TRAFFIC,
        "[sessions]\nsnapshot_interval = \"24h\"\n".to_owned() + TRAFFIC,
        "[sessions]\nstore = \"redis://a/65535\"\nstore_timeout = \"1ms\"\nstore_prefix = \"\"\n".to_owned() + TRAFFIC,
        "[sessions]\nstore = [\"rediss://a\", \"rediss://b\"]\nstore_timeout = \"10s\"\nstore_ca_file = \"ca.pem\"\n"
            .to_owned()
            + TRAFFIC,
        servers(
            "{ name = \"s\", address = \"[2001:db8::1]:1\", weight = 256, zone = \"rack-1\", connections_max = 1, backup = true }",
        ),
        servers("{ name = \"s\", address = \"10.0.0.1:1\", weight = 0, connections_max = 1000000 }"),
        pool("algorithm = \"consistent_hash\"\nslow_start = \"1h\"\npanic_threshold = 100\nzone_threshold = 0"),
        pool("algorithm = \"consistent_hash\"\nhash = { on = \"cookie\", name = \"U\", balance_factor = 100 }"),
        pool("algorithm = \"resource\"\nresource = { header = \"X-Load\", max_age = \"100ms\" }"),
        listener(
            "[\"[2001:db8::1]:80\", \"192.0.2.1:81\", \"192.0.2.2:81\"]",
            "pool = \"app\"\nconnections_max = 1000000",
        ),
        limited("1, per = \"100ms\", burst = 1, prefix_v4 = 1, prefix_v6 = 1, entries_max = 1"),
        limited("1000000, per = \"24h\", burst = 1000000, prefix_v4 = 32, prefix_v6 = 128, entries_max = 16000000"),
        limited("1, per = \"1s\", by = \"header\", name = \"X-Key\", prefix_v4 = 24"),
        listener("[\"192.0.2.1:81\"]", "[[route]]\nlistener = \"x\"\npool = \"app\""),
    ];
    for text in good {
        assert_eq!(mistakes(&text), [], "{text}");
    }
}

#[test]
fn an_empty_file_has_nothing_to_do() {
    let found = mistakes("# nothing\n");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].position.as_ref(), found[0].key.as_str()), (None, ""));
    assert!(found[0].rule.contains("no [[listener]] and no [[vip]]"));
}

#[test]
fn a_file_larger_than_a_mebibyte_is_refused() {
    let text = format!("{TRAFFIC}#{}", "x".repeat((1 << 20) - TRAFFIC.len() - 1));
    assert_eq!(text.len(), 1 << 20);
    assert_eq!(mistakes(&text), []);
    assert!(mistakes(&format!("{text}x"))[0].rule.contains("larger than 1 MiB"));
}

#[test]
fn a_broken_pool_still_lends_its_name() {
    let text = TRAFFIC.replace("10.0.0.1:8080", "nowhere");
    let found = mistakes(&text);
    assert_eq!(found.iter().map(|found| found.key.as_str()).collect::<Vec<_>>(), ["pool[app].servers[app1].address"]);
}

#[test]
fn a_pool_without_a_name_makes_no_reference_dangle() {
    let text = TRAFFIC.replace("name = \"app\"\n", "nane = \"app\"\n");
    let found = mistakes(&text);
    assert_eq!(found.iter().map(|found| found.key.as_str()).collect::<Vec<_>>(), ["pool[#1].nane"]);
}

#[test]
fn a_typing_error_is_answered_with_what_was_meant() {
    let remedy = |text: &str| mistakes(text).pop().map(|found| found.remedy).unwrap_or_default();
    assert_eq!(remedy(&format!("[worker]\nthread = 1\n{TRAFFIC}")), "did you mean threads?");
    assert_eq!(remedy(&format!("[[rote]]\n{TRAFFIC}")), "did you mean route?");
    assert_eq!(remedy(&TRAFFIC.replace("pool = \"app\"", "pool = \"ap\"")), "did you mean \"app\"?");
    assert_eq!(remedy(&pool("algorithm = \"round-robin\"")), "did you mean \"round_robin\"?");
}

#[test]
fn twelve_mistakes_are_reported_in_one_go() {
    let text = include_str!("twelve.toml");
    let found: Vec<(usize, String)> =
        mistakes(text).into_iter().map(|found| (found.position.map_or(0, |at| at.line), found.key)).collect();
    let expected = [
        (4, "node[lb-a].address"),
        (9, "node[lb-b].priority"),
        (12, "pair.key"),
        (16, "vip[web].addresses[#1]"),
        (18, "vip[web].virtual_router_id"),
        (19, "vip[web].advert_interval"),
        (20, "vip[web].prefer"),
        (24, "listener[http].bind[#1]"),
        (29, "route[#1].pool"),
        (35, "pool[app].servers[app2].address"),
        (39, "pool[app].health.timeout"),
        (42, "pool[app].sticky.by"),
    ];
    let expected: Vec<(usize, String)> = expected.map(|(line, key)| (line, key.to_owned())).into();
    assert_eq!(found, expected);
}

#[test]
fn a_password_in_the_url_of_a_store_is_not_shown() {
    let text = format!("sessions = {{ store = \"redis://user:s3cret@10.0.0.5\", store_timeout = 5 }}\n{TRAFFIC}");
    let report = parse(&text, Path::new("baton.toml")).expect_err("it is refused");
    assert_eq!(report.mistakes().len(), 2);
    let shown = report.to_string();
    assert!(!shown.contains("s3cret") && shown.contains("store_password_file"), "{shown}");
}
