//! One literal a rule of what the heartbeat is configured by, as in `rules`: addresses, versions, keys, paths,
//! announcements, fitness and events.

use std::path::Path;

use baton::config::parse;

use super::rules::{PAIR, TRAFFIC, check_one, mistakes, refused, vip};

/// A pair of nodes with the keys in between; they begin on lines 4 and 8.
fn nodes(first: &str, second: &str) -> String {
    format!(
        "[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n{first}\n[[node]]\nname = \"b\"\naddress = \
         \"192.0.2.12\"\n{second}\n{TRAFFIC}"
    )
}

/// A pair of nodes; `pair` begins on line 2, and more may follow.
fn pair(pair: &str) -> String {
    format!("[pair]\n{pair}\n{PAIR}{TRAFFIC}")
}

const KEY: &str = "[pair]\nkey_file = \"pair.key\"\n";

refused! {
    further_addresses_five: [nodes("further_addresses = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\"]", "further_addresses = [\"10.1.0.1\", \"10.1.0.2\", \"10.1.0.3\", \"10.1.0.4\"]")],
        4, "node[a].further_addresses", "must have 0 to 4 entries, has 5";
    further_address_is_a_name: [nodes("further_addresses = [\"lb-a\"]", "further_addresses = [\"10.9.0.12\"]")],
        4, "node[a].further_addresses[#1]", "must be an IP address";
    further_address_of_one_node_alone: [nodes("further_addresses = [\"10.9.0.11\"]", "")], 5, "node[b]", "has 0 further_addresses, and the other node 1";
    further_addresses_of_two_families: [nodes("further_addresses = [\"10.9.0.11\"]", "further_addresses = [\"2001:db8::12\"]")],
        8, "node[b].further_addresses[#1]", "node[a].further_addresses[#1] is IPv4";
    further_address_is_the_first: [nodes("further_addresses = [\"192.0.2.11\"]", "further_addresses = [\"10.9.0.12\"]")],
        4, "node[a].further_addresses[#1]", "node[a].address is the same";
    further_address_of_both_nodes: [nodes("further_addresses = [\"10.9.0.11\"]", "further_addresses = [\"10.9.0.11\"]")],
        8, "node[b].further_addresses[#1]", "node[a].further_addresses[#1] is the same";
    further_address_loopback: [nodes("further_addresses = [\"127.0.0.2\"]", "further_addresses = [\"10.9.0.12\"]")],
        4, "node[a].further_addresses[#1]", "cannot reach a loopback";
    further_address_is_a_vip: [vip("[\"10.9.0.12/24\"]", "virtual_router_id = 1"), nodes("further_addresses = [\"10.9.0.11\"]", "further_addresses = [\"10.9.0.12\"]")],
        3, "vip[v].addresses[#1]", "node[b].further_addresses[#1] is that address";
    node_addresses_of_two_families: ["[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[node]]\nname = \"b\"\naddress = \"2001:db8::2\"\n", TRAFFIC],
        6, "node[b].address", "node[a].address is IPv4";
    node_address_link_local: ["[[node]]\nname = \"a\"\naddress = \"fe80::1\"\n", TRAFFIC], 3, "node[a].address", "not a link-local";
    node_address_mapped: ["[[node]]\nname = \"a\"\naddress = \"::ffff:192.0.2.1\"\n", TRAFFIC], 3, "node[a].address", "IPv4 address in IPv6 form";
}

refused! {
    advert_keys_none: [pair("advert_keys = []")], 2, "pair.advert_keys", "must have 1 to 8 entries";
    advert_keys_nine: [pair(&format!("advert_keys = [{}]", (1..10).map(|id| format!("{{ id = {id}, file = \"k\" }}")).collect::<Vec<_>>().join(",")))],
        2, "pair.advert_keys", "has 9";
    advert_keys_is_one_table: [pair("advert_keys = { id = 1, file = \"k\" }")], 2, "pair.advert_keys", "must be a list of tables";
    advert_key_without_id: [pair("advert_keys = [{ file = \"k\" }]")], 2, "pair.advert_keys[#1].id", "missing";
    advert_key_without_file: [pair("advert_keys = [{ id = 1 }]")], 2, "pair.advert_keys[#1].file", "missing";
    advert_key_id_zero: [pair("advert_keys = [{ id = 0, file = \"k\" }]")], 2, "pair.advert_keys[#1].id", "must be 1 to 255";
    advert_key_id_too_large: [pair("advert_keys = [{ id = 256, file = \"k\" }]")], 2, "pair.advert_keys[#1].id", "must be 1 to 255";
    advert_key_ids_equal: [pair("advert_keys = [{ id = 7, file = \"k\" }, { id = 7, file = \"l\" }]")], 2, "pair.advert_keys[#2].id", "pair.advert_keys[#1].id is the same";
    advert_key_file_empty: [pair("advert_keys = [{ id = 7, file = \"\" }]")], 2, "pair.advert_keys[#1].file", "must be the path of a file";
    witness_without_port: [pair("key_file = \"k\"\nwitness = \"198.51.100.1\"")], 3, "pair.witness", "an IP address and a port";
    witness_on_a_node: [pair("key_file = \"k\"\nwitness = \"192.0.2.12:7948\"")], 3, "pair.witness", "node[lb-b].address is that address";
    witness_on_a_vip: [pair("key_file = \"k\"\nwitness = \"192.0.2.9:7948\""), vip("[\"192.0.2.9/24\"]", "virtual_router_id = 1")],
        3, "pair.witness", "vip[v].addresses[#1] is that address";
    witness_loopback: [pair("key_file = \"k\"\nwitness = \"127.0.0.1:7948\"")], 3, "pair.witness", "of a third machine, not a loopback";
    witness_without_a_key: [pair("witness = \"198.51.100.1:7948\"")], 2, "pair.witness", "there is no key_file";
    witness_without_a_pair: ["[pair]\nkey_file = \"k\"\nwitness = \"198.51.100.1:7948\"\n", TRAFFIC], 3, "pair.witness", "between two nodes";
}

/// A vip with an IPv4 address; `rest` begins on line 6.
fn v4(rest: &str) -> String {
    vip("[\"192.0.2.9/24\"]", &format!("virtual_router_id = 1\n{rest}"))
}

/// A vip with addresses of both families; `rest` begins on line 6.
fn dual(rest: &str) -> String {
    vip("[\"192.0.2.9/24\", \"2001:db8::9/64\"]", &format!("virtual_router_id = 1\n{rest}"))
}

/// A vip with an IPv6 address; `rest` begins on line 6.
fn v6(rest: &str) -> String {
    vip("[\"2001:db8::9/64\"]", &format!("virtual_router_id = 1\n{rest}"))
}

refused! {
    vip_ipv6_without_prefix: [vip("[\"2001:db8::9\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "must have a prefix length";
    vip_ipv6_prefix_zero: [vip("[\"2001:db8::9/0\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "1 to 128";
    vip_ipv6_prefix_too_long: [vip("[\"2001:db8::9/129\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "1 to 128";
    vip_ipv6_loopback: [vip("[\"::1/128\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "not a loopback";
    vip_ipv6_multicast: [vip("[\"ff02::12/64\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "not a multicast";
    vip_ipv6_unspecified: [vip("[\"::/64\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "not the unspecified";
    vip_ipv6_anycast: [vip("[\"2001:db8::/64\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "the anycast address of the network's routers";
    vip_mapped: [vip("[\"::ffff:192.0.2.9/120\"]", "virtual_router_id = 1"), KEY.to_owned(), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "IPv4 address in IPv6 form";
    vip_address_is_a_number: [vip("[5]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1]", "must be a string, not an integer";
    vip_address_table_without_address: [vip("[{ interface = \"eth1\" }]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1].address", "missing";
    vip_address_table_interface: [vip("[{ address = \"192.0.2.9/24\", interface = \"\" }]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1].interface", "name of a network interface";
    vip_address_table_unknown_key: [vip("[{ address = \"192.0.2.9/24\", label = \"x\" }]", "virtual_router_id = 1"), PAIR.to_owned()], 3, "vip[v].addresses[#1].label", "unknown key";
    vip_address_twice_on_two_interfaces: [vip("[\"192.0.2.9/24\", { address = \"192.0.2.9/24\", interface = \"eth1\" }]", "virtual_router_id = 1"), PAIR.to_owned()],
        3, "vip[v].addresses[#2].address", "vip[v].addresses[#1] is the same address";
    vip_link_local_twice_on_a_link: [vip("[\"fe80::9/64\"]", "virtual_router_id = 1\ntransport = \"multicast\""), vip("[\"fe80::9/64\"]", "virtual_router_id = 2\ntransport = \"multicast\"").replace("\"v\"", "\"w\""), PAIR.to_owned()],
        9, "vip[w].addresses[#1]", "vip[v].addresses[#1] is the same address";
    advert_interface_name: [v4("advert_interface = \"a/b\""), PAIR.to_owned()], 6, "vip[v].advert_interface", "name of a network interface";
    router_id_twice_on_an_advert_interface: [v4("advert_interface = \"eth9\""), vip("[\"192.0.2.10/24\"]", "virtual_router_id = 1").replace("\"v\"", "\"w\"").replace("eth0", "eth9"), PAIR.to_owned()],
        11, "vip[w].virtual_router_id", "vip[v].virtual_router_id is the same on eth9";
    virtual_mac_twice: [v4("advert_interface = \"eth8\"\nvirtual_mac = true"), vip("[\"192.0.2.10/24\"]", "virtual_router_id = 1\nvirtual_mac = true").replace("\"v\"", "\"w\""), PAIR.to_owned()],
        12, "vip[w].virtual_router_id", "both would have one virtual MAC on eth0";
    virtual_mac_is_a_string: [v4("virtual_mac = \"yes\""), PAIR.to_owned()], 6, "vip[v].virtual_mac", "must be true or false";
    probe_first_is_a_number: [v4("probe_first = 1"), PAIR.to_owned()], 6, "vip[v].probe_first", "must be true or false";
}

refused! {
    version_unknown: [v4("version = \"4\""), PAIR.to_owned()], 6, "vip[v].version", "must be \"3\", \"2\" or \"2+3\"";
    version_is_another_number: [v4("version = 4"), PAIR.to_owned()], 6, "vip[v].version", "must be \"3\", \"2\" or \"2+3\"";
    version_2_with_ipv6: [dual("version = \"2\""), PAIR.to_owned()], 6, "vip[v].version", "for IPv4 alone";
    version_2_interval_of_a_fraction: [v4("version = \"2\"\nadvert_interval = \"1.5s\""), PAIR.to_owned()], 7, "vip[v].advert_interval", "1s to 40s in whole seconds";
    version_2_interval_below_a_second: [v4("version = \"2\"\nadvert_interval = \"100ms\""), PAIR.to_owned()], 7, "vip[v].advert_interval", "1s to 40s in whole seconds";
    checksum_unknown: [v4("checksum = \"crc\""), PAIR.to_owned()], 6, "vip[v].checksum", "must be \"rfc9568\" or \"without_pseudo_header\"";
    checksum_of_version_2: [v4("version = \"2\"\nchecksum = \"without_pseudo_header\""), PAIR.to_owned()], 7, "vip[v].checksum", "no meaning with version = \"2\"";
    checksum_of_ipv6: [v6("checksum = \"without_pseudo_header\""), KEY.to_owned(), PAIR.to_owned()], 6, "vip[v].checksum", "no meaning without an IPv4 address";
    authentication_unknown: [v4("authentication = \"strict\""), KEY.to_owned(), PAIR.to_owned()], 6, "vip[v].authentication", "must be \"enforce\"";
    authentication_enforced_without_a_key: [v4("authentication = \"enforce\""), PAIR.to_owned()], 6, "vip[v].authentication", "no key to authenticate with";
    authentication_permissive_without_a_key: [v4("authentication = \"permissive\""), PAIR.to_owned()], 6, "vip[v].authentication", "no key to authenticate with";
    authentication_received_without_a_key: [v4("authentication = \"receive_only\""), PAIR.to_owned()], 6, "vip[v].authentication", "no key to authenticate with";
    password_of_version_3: [v4("password_file = \"p\""), PAIR.to_owned()], 6, "vip[v].password_file", "which has no passwords";
    password_file_empty: [v4("version = \"2\"\npassword_file = \"\""), PAIR.to_owned()], 7, "vip[v].password_file", "must be the path of a file";
    udp_without_a_key: [v4("transport = \"udp\""), PAIR.to_owned()], 6, "vip[v].transport", "needs two nodes and a pair key";
    udp_with_an_advert_key_alone: [v4("transport = \"udp\""), "[pair]\nadvert_keys = [{ id = 1, file = \"k\" }]\n".to_owned(), PAIR.to_owned()], 6, "vip[v].transport", "needs two nodes and a pair key";
    udp_with_one_node: [v4("transport = \"udp\""), KEY.to_owned(), "[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n".to_owned()], 6, "vip[v].transport", "needs two nodes";
    udp_with_a_version: [v4("transport = \"udp\"\nversion = \"3\""), KEY.to_owned(), PAIR.to_owned()], 7, "vip[v].version", "no meaning with transport = \"udp\"";
    udp_with_authentication: [v4("transport = \"udp\"\nauthentication = \"off\""), KEY.to_owned(), PAIR.to_owned()], 7, "vip[v].authentication", "no meaning with transport = \"udp\"";
    udp_with_a_checksum: [v4("transport = \"udp\"\nchecksum = \"rfc9568\""), KEY.to_owned(), PAIR.to_owned()], 7, "vip[v].checksum", "no meaning with transport = \"udp\"";
    udp_with_a_password: [v4("transport = \"udp\"\npassword_file = \"p\""), KEY.to_owned(), PAIR.to_owned()], 7, "vip[v].password_file", "no meaning with transport = \"udp\"";
    no_path_between_ipv4_nodes: [v6(""), PAIR.to_owned()], 1, "vip[v]", "it has IPv6 addresses, and the nodes have none";
    no_path_between_ipv6_nodes: [v4(""), PAIR.replace("192.0.2.1", "2001:db8::1")], 1, "vip[v]", "it has IPv4 addresses, and the nodes have none";
}

refused! {
    prefer_hold_without_prefer: [v4("prefer_hold = \"1s\""), PAIR.to_owned()], 6, "vip[v].prefer_hold", "no meaning without prefer";
    prefer_hold_too_long: [v4("prefer = \"lb-a\"\nprefer_hold = \"25h\""), PAIR.to_owned()], 7, "vip[v].prefer_hold", "must be 0ms to 24h";
    announce_is_a_list: [v4("announce = []"), PAIR.to_owned()], 6, "vip[v].announce", "must stand once";
    announce_unknown_key: [v4("announce = { every = \"1s\" }"), PAIR.to_owned()], 6, "vip[v].announce.every", "unknown key";
    announce_burst_zero: [v4("announce = { burst = 0 }"), PAIR.to_owned()], 6, "vip[v].announce.burst", "must be 1 to 10";
    announce_burst_eleven: [v4("announce = { burst = 11 }"), PAIR.to_owned()], 6, "vip[v].announce.burst", "must be 1 to 10";
    announce_repeat_zero: [v4("announce = { repeat = [\"0s\"] }"), PAIR.to_owned()], 6, "vip[v].announce.repeat[#1]", "must be 1ms to 5m";
    announce_repeat_too_late: [v4("announce = { repeat = [\"301s\"] }"), PAIR.to_owned()], 6, "vip[v].announce.repeat[#1]", "must be 1ms to 5m";
    announce_repeat_descending: [v4("announce = { repeat = [\"2s\", \"1s\"] }"), PAIR.to_owned()], 6, "vip[v].announce.repeat[#2]", "later than the one before, which is 2s";
    announce_repeat_twice: [v4("announce = { repeat = [\"2s\", \"2s\"] }"), PAIR.to_owned()], 6, "vip[v].announce.repeat[#2]", "later than the one before, which is 2s";
    announce_repeat_seventeen: [v4(&format!("announce = {{ repeat = [{}] }}", (1..18).map(|i| format!("\"{i}s\"")).collect::<Vec<_>>().join(","))), PAIR.to_owned()],
        6, "vip[v].announce.repeat", "must have 0 to 16 entries, has 17";
    announce_refresh_below_a_second: [v4("announce = { refresh = \"999ms\" }"), PAIR.to_owned()], 6, "vip[v].announce.refresh", "1s to 24h, or 0s for never";
    announce_refresh_too_long: [v4("announce = { refresh = \"25h\" }"), PAIR.to_owned()], 6, "vip[v].announce.refresh", "must be 0ms to 24h";
}

/// A fitness check; `rest` begins on line 3.
fn fitness(rest: &str) -> String {
    format!("[[fitness]]\nname = \"f\"\n{rest}\n{}{PAIR}", v4(""))
}

refused! {
    fitness_without_a_type: [fitness("path = \"/x\"")], 1, "fitness[f].type", "missing";
    fitness_type_unknown: [fitness("type = \"script\"")], 3, "fitness[f].type", "must be \"gateway\", \"command\", \"file\" or \"process\"";
    fitness_names_equal: [fitness("type = \"file\"\npath = \"/x\""), "[[fitness]]\nname = \"f\"\ntype = \"file\"\npath = \"/y\"\n".to_owned()],
        19, "fitness[f].name", "another fitness check has that name";
    fitness_without_a_vip: ["[[fitness]]\nname = \"f\"\ntype = \"file\"\npath = \"/x\"\n", TRAFFIC], 1, "fitness[f]", "no vip that a node would have to be fit for";
    fitness_of_no_vip: [fitness("type = \"file\"\npath = \"/x\"\nvips = []")], 5, "fitness[f].vips", "must have 1 to 64 entries";
    fitness_of_a_vip_that_is_not_there: [fitness("type = \"file\"\npath = \"/x\"\nvips = [\"v\", \"w\"]")], 5, "fitness[f].vips[#2]", "no vip of that name";
    fitness_of_a_vip_twice: [fitness("type = \"file\"\npath = \"/x\"\nvips = [\"v\", \"v\"]")], 5, "fitness[f].vips[#2]", "fitness[f].vips[#1] is the same vip";
    fitness_interval_too_short: [fitness("type = \"file\"\npath = \"/x\"\ninterval = \"9ms\"")], 5, "fitness[f].interval", "must be 10ms to 1h";
    fitness_timeout_too_short: [fitness("type = \"file\"\npath = \"/x\"\ntimeout = \"9ms\"")], 5, "fitness[f].timeout", "must be 10ms to 1h";
    fitness_timeout_above_interval: [fitness("type = \"file\"\npath = \"/x\"\ntimeout = \"1001ms\"")], 5, "fitness[f].timeout", "must not be above interval, which is 1s";
    fitness_fall_zero: [fitness("type = \"file\"\npath = \"/x\"\nfall = 0")], 5, "fitness[f].fall", "must be 1 to 100";
    fitness_rise_too_large: [fitness("type = \"file\"\npath = \"/x\"\nrise = 101")], 5, "fitness[f].rise", "must be 1 to 100";
    fitness_gateway_without_an_address: [fitness("type = \"gateway\"")], 1, "fitness[f].address", "missing";
    fitness_gateway_multicast: [fitness("type = \"gateway\"\naddress = \"ff02::1\"")], 4, "fitness[f].address", "not a multicast";
    fitness_gateway_loopback: [fitness("type = \"gateway\"\naddress = \"127.0.0.1\"")], 4, "fitness[f].address", "of another machine, not a loopback";
    fitness_gateway_is_a_name: [fitness("type = \"gateway\"\naddress = \"router\"")], 4, "fitness[f].address", "must be an IP address";
    fitness_gateway_is_the_other_node: [fitness("type = \"gateway\"\naddress = \"192.0.2.12\"")], 4, "fitness[f].address", "node[lb-b].address is that address";
    fitness_gateway_is_a_vip: [fitness("type = \"gateway\"\naddress = \"192.0.2.9\"")], 4, "fitness[f].address", "vip[v].addresses[#1] is that address";
    fitness_gateway_interface: [fitness("type = \"gateway\"\naddress = \"192.0.2.1\"\ninterface = \"\"")], 5, "fitness[f].interface", "name of a network interface";
    fitness_command_missing: [fitness("type = \"command\"")], 1, "fitness[f].command", "missing";
    fitness_command_relative: [fitness("type = \"command\"\ncommand = [\"check.sh\"]")], 4, "fitness[f].command[#1]", "must be the absolute path of a program";
    fitness_command_is_a_string: [fitness("type = \"command\"\ncommand = \"/bin/true\"")], 4, "fitness[f].command", "must be a list, not a string";
    fitness_command_with_a_zero_byte: [fitness("type = \"command\"\ncommand = [\"/bin/true\", \"a\\u0000b\"]")], 4, "fitness[f].command[#2]", "without a zero byte";
    fitness_command_of_65_words: [fitness(&format!("type = \"command\"\ncommand = [\"/bin/true\"{}]", ", \"x\"".repeat(64)))], 4, "fitness[f].command", "has 65";
    fitness_file_without_a_path: [fitness("type = \"file\"")], 1, "fitness[f].path", "missing";
    fitness_file_must_what: [fitness("type = \"file\"\npath = \"/x\"\nmust = \"vanish\"")], 5, "fitness[f].must", "must be \"exist\" or \"be_absent\"";
    fitness_process_missing: [fitness("type = \"process\"")], 1, "fitness[f].process", "missing";
    fitness_process_of_16_bytes: [fitness("type = \"process\"\nprocess = \"sixteen-bytes-lo\"")], 4, "fitness[f].process", "1 to 15 bytes";
    fitness_key_of_another_type: [fitness("type = \"process\"\nprocess = \"sshd\"\nmust = \"exist\"")], 5, "fitness[f].must", "has a meaning with type = \"file\" alone";
    fitness_interface_of_a_file: [fitness("type = \"file\"\npath = \"/x\"\ninterface = \"eth0\"")], 5, "fitness[f].interface", "has a meaning with type = \"gateway\" alone";
    fitness_unknown_key: [fitness("type = \"file\"\npath = \"/x\"\nweight = 5")], 5, "fitness[f].weight", "unknown key";
    sixty_five_fitness_checks: [(0..65).map(|i| format!("[[fitness]]\nname = \"f{i}\"\ntype = \"file\"\npath = \"/x\"\n")).collect::<String>(), v4(""), PAIR.to_owned()],
        1, "fitness", "must have 1 to 64 entries, has 65";
}

refused! {
    events_command_relative: ["[events]\ncommand = [\"move-route\"]\n", TRAFFIC], 2, "events.command[#1]", "must be the absolute path of a program";
    events_command_empty: ["[events]\ncommand = []\n", TRAFFIC], 2, "events.command", "must have 1 to 64 entries";
    events_webhook_of_another_scheme: ["[events]\nwebhook = \"ftp://h/x\"\n", TRAFFIC], 2, "events.webhook", "must begin with http:// or https://";
    events_webhook_without_a_scheme: ["[events]\nwebhook = \"h/x\"\n", TRAFFIC], 2, "events.webhook", "must be a URL";
    events_webhook_with_a_password: ["[events]\nwebhook = \"https://u:p@h/x\"\n", TRAFFIC], 2, "events.webhook", "user or a password";
    events_webhook_with_a_fragment: ["[events]\nwebhook = \"https://h/x#y\"\n", TRAFFIC], 2, "events.webhook", "must not have a fragment";
    events_webhook_port: ["[events]\nwebhook = \"https://h:70000/x\"\n", TRAFFIC], 2, "events.webhook", "the port must be 1 to 65535";
    events_webhook_with_a_space: ["[events]\nwebhook = \"https://h/x y\"\n", TRAFFIC], 2, "events.webhook", "printable ASCII";
    events_timeout_too_short: ["[events]\nwebhook = \"http://h/\"\ntimeout = \"99ms\"\n", TRAFFIC], 3, "events.timeout", "must be 100ms to 10m";
    events_kept_max_zero: ["[events]\nwebhook = \"http://h/\"\nkept_max = 0\n", TRAFFIC], 3, "events.kept_max", "must be 1 to 100000";
    events_kept_max_too_large: ["[events]\nwebhook = \"http://h/\"\nkept_max = 100001\n", TRAFFIC], 3, "events.kept_max", "must be 1 to 100000";
    events_user: ["[events]\nwebhook = \"http://h/\"\nuser = \"a:b\"\n", TRAFFIC], 3, "events.user", "must be the name of a user";
    events_told_to_nobody: ["[events]\ntimeout = \"1s\"\n", TRAFFIC], 2, "events.timeout", "no meaning without a command or a webhook";
    events_twice: ["[[events]]\nwebhook = \"http://h/\"\n", TRAFFIC], 1, "events", "must stand once";
}

#[test]
fn both_sides_of_every_boundary_are_as_documented() {
    let words = ", \"x\"".repeat(63);
    let good = [
        nodes("further_addresses = []", ""),
        nodes(
            "further_addresses = [\"10.9.0.11\", \"2001:db8::11\", \"10.8.0.11\", \"fd00::11\"]",
            "further_addresses = [\"10.9.0.12\", \"2001:db8::12\", \"10.8.0.12\", \"fd00::12\"]",
        ),
        pair("advert_keys = [{ id = 1, file = \"k\" }, { id = 255, file = \"l\" }]"),
        pair("key_file = \"k\"\nwitness = \"[2001:db8::50]:7948\""),
        v4("version = 3") + PAIR,
        v4("version = 2\nadvert_interval = \"1s\"\npassword_file = \"p\"") + PAIR,
        v4("version = \"2\"\nadvert_interval = \"40s\"") + PAIR,
        v4("version = \"2\"\nauthentication = \"enforce\"") + KEY + PAIR,
        dual(
            "version = \"2+3\"\nadvert_interval = \"10ms\"\nchecksum = \"without_pseudo_header\"\npassword_file = \"p\"",
        ) + PAIR,
        v4("checksum = \"without_pseudo_header\"\nauthentication = \"off\"") + PAIR,
        v4("authentication = \"permissive\"") + "[pair]\nadvert_keys = [{ id = 1, file = \"k\" }]\n" + PAIR,
        v4("transport = \"udp\"") + KEY + PAIR,
        v6("transport = \"udp\"") + KEY + PAIR,
        v6("") + KEY + PAIR,
        v6("transport = \"multicast\"") + PAIR,
        v6("") + "[[node]]\nname = \"a\"\naddress = \"192.0.2.11\"\n",
        v6("") + &nodes("further_addresses = [\"2001:db8::11\"]", "further_addresses = [\"2001:db8::12\"]"),
        vip("[\"2001:db8::1/1\", \"2001:db8::2/128\"]", "virtual_router_id = 1") + KEY + PAIR,
        vip("[\"fe80::9/64\", { address = \"fe80::9/64\", interface = \"eth1\" }]", "virtual_router_id = 1")
            + KEY
            + PAIR,
        v4("prefer = \"lb-b\"\nprefer_hold = \"0s\"") + PAIR,
        v4("prefer = \"lb-b\"\nprefer_hold = \"24h\"") + PAIR,
        v4("announce = { burst = 10, repeat = [\"1ms\", \"5m\"], refresh = \"24h\" }") + PAIR,
        v4("announce = { burst = 1, repeat = [], refresh = \"1s\" }") + PAIR,
        fitness(
            "type = \"gateway\"\naddress = \"fe80::1\"\ninterval = \"10ms\"\ntimeout = \"10ms\"\nfall = 1\nrise = 100",
        ),
        fitness(&format!("type = \"command\"\ncommand = [\"/bin/true\"{words}]\ninterval = \"1h\"\ntimeout = \"1h\"")),
        fitness("type = \"process\"\nprocess = \"fifteen-bytes-l\"\nvips = [\"v\"]"),
        format!("[events]\n{TRAFFIC}"),
        format!("[events]\nwebhook = \"http://h/\"\ntimeout = \"100ms\"\nkept_max = 1\nuser = \"baton\"\n{TRAFFIC}"),
        format!("[events]\ncommand = [\"/bin/true\"]\ntimeout = \"10m\"\nkept_max = 100000\n{TRAFFIC}"),
    ];
    for text in good {
        assert_eq!(mistakes(&text), [], "{text}");
    }
}

#[test]
fn what_is_broken_is_reported_once_and_not_what_depends_on_it() {
    let alone = [
        (v4("transport = \"udp\"") + "[pair]\nkey_file = 5\n" + PAIR, "pair.key_file"),
        (
            v4("authentication = \"enforce\"") + "[pair]\nadvert_keys = [{ id = 0, file = \"k\" }]\n" + PAIR,
            "pair.advert_keys[#1].id",
        ),
        (v4("version = \"4\"\npassword_file = \"p\"") + PAIR, "vip[v].version"),
        (v4("version = \"2\"\nadvert_interval = \"1\"") + PAIR, "vip[v].advert_interval"),
        (vip("[\"192.0.2.9\", \"2001:db8::9/64\"]", "virtual_router_id = 1") + PAIR, "vip[v].addresses[#1]"),
        (v6("transport = \"radio\"") + PAIR, "vip[v].transport"),
        (v6("") + &PAIR.replace("192.0.2.12", "192.0.2"), "node[lb-b].address"),
        (v4("prefer = 5\nprefer_hold = \"1s\"") + PAIR, "vip[v].prefer"),
        (fitness("type = \"fil\"\npath = \"/x\""), "fitness[f].type"),
        (fitness("type = \"file\"\npath = \"/x\"\ninterval = \"0s\"\ntimeout = \"2s\""), "fitness[f].interval"),
    ];
    for (text, key) in alone {
        assert_eq!(mistakes(&text).iter().map(|found| found.key.as_str()).collect::<Vec<_>>(), [key], "{text}");
    }
}

#[test]
fn a_typing_error_is_answered_with_what_was_meant() {
    let remedy = |text: &str| mistakes(text).pop().map(|found| found.remedy).unwrap_or_default();
    assert_eq!(remedy(&fitness("type = \"gatway\"")), "did you mean \"gateway\"?");
    assert_eq!(remedy(&fitness("type = \"file\"\npath = \"/x\"\nvips = [\"vv\"]")), "did you mean \"v\"?");
    assert_eq!(remedy(&(v4("authentification = \"off\"") + PAIR)), "did you mean authentication?");
    assert_eq!(remedy(&(v4("announce = { bursts = 1 }") + PAIR)), "did you mean burst?");
    assert_eq!(remedy(&(v4("authentication = \"recieve_only\"") + KEY + PAIR)), "did you mean \"receive_only\"?");
    assert_eq!(
        remedy(&(vip("[\"::ffff:192.0.2.9/120\"]", "virtual_router_id = 1") + KEY + PAIR)),
        "write \"192.0.2.9\""
    );
}

/// The warnings of a pair with `vip` and `rest`.
fn warnings(text: &str) -> Vec<String> {
    parse(text, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}")).warnings()
}

#[test]
fn warnings_say_what_adverts_are_worth() {
    let none: [&str; 0] = [];
    assert_eq!(warnings(&(v4("") + KEY + PAIR)), none);
    assert_eq!(warnings(&(v4("") + PAIR)), ["pair.key_file is not set, so that adverts are not authenticated"]);
    assert_eq!(
        warnings(&(v4("authentication = \"off\"") + KEY + PAIR)),
        ["vip v has authentication = \"off\" although there is a key, so that anybody on its network can take it"]
    );
    for authentication in ["permissive", "receive_only"] {
        assert_eq!(
            warnings(&(v4(&format!("authentication = \"{authentication}\"")) + KEY + PAIR)),
            ["vip v also hears adverts without authentication; write \"enforce\" once every router sends it"]
        );
    }
    assert_eq!(
        warnings(&(v4("version = \"2\"\nadvert_interval = \"2s\"") + KEY + PAIR)),
        ["vip v speaks VRRPv2, which says whole seconds: a dead node is noticed after more than 6s"]
    );
    assert_eq!(
        warnings(&(v4("version = \"2+3\"\npassword_file = \"p\"") + KEY + PAIR)),
        [
            "vip v has advert_interval 100ms, and its VRRPv2 adverts say whole seconds, at least 1s",
            "the password of vip v travels in clear: it stops mistakes and nobody else"
        ]
    );
    assert_eq!(warnings(&(v4("version = \"2+3\"\nadvert_interval = \"2s\"") + KEY + PAIR)), none);
    let two_networks = nodes("further_addresses = [\"10.9.0.11\"]", "further_addresses = [\"10.9.0.12\"]");
    assert!(
        warnings(&(v4("") + &two_networks)).contains(
            &"pair.key_file is not set, so that no heartbeat runs between further_addresses of the family of address"
                .to_owned()
        )
    );
}

#[test]
fn warnings_name_probes_that_are_hasty_or_slow() {
    let with = |worker: &str| warnings(&format!("[worker]\n{worker}\n{}{KEY}{PAIR}", v4("")));
    assert_eq!(
        with("probe_timeout = \"99ms\""),
        ["worker.probe_timeout is 99ms, less than two of probe_interval, so that one lost probe counts as a hang"]
    );
    assert_eq!(with("probe_timeout = \"100ms\""), [""; 0]);
    assert_eq!(with("probe_timeout = \"1s\""), [""; 0]);
    assert_eq!(
        with("probe_timeout = \"1001ms\""),
        ["worker.probe_timeout is 1.001s, and a node whose worker hangs keeps its vips for so long"]
    );
}

#[test]
fn warnings_name_the_family_that_nobody_serves() {
    let with = |bind: &str| {
        let listener = format!(
            "[[listener]]\nname = \"l\"\nbind = {bind}\npool = \"p\"\n[[pool]]\nname = \"p\"\nservers = [{{ name = \"s\", address = \"10.0.0.1:1\" }}]\n"
        );
        let addresses = "[\"192.0.2.9/24\", \"fe80::9/64\", \"2001:db8::9/64\"]";
        warnings(&(vip(addresses, "virtual_router_id = 1") + &listener + KEY + PAIR))
    };
    assert_eq!(with("[\"[::]:80\"]"), [""; 0]);
    assert_eq!(with("[\"192.0.2.9:80\", \"[2001:db8::9]:80\"]"), [""; 0]);
    assert_eq!(with("[\"0.0.0.0:80\"]"), ["no listener is bound to an IPv6 address of vip v"]);
    assert_eq!(with("[\"[2001:db8::9]:80\"]"), ["no listener is bound to an IPv4 address of vip v"]);
    assert_eq!(with("[\"198.51.100.1:80\"]"), ["no listener is bound to an address of vip v"]);
}
