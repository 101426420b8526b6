//! Rules of `[pool.discovery]`.

use std::time::Duration;

use baton::config::{DiscoverySource, DnsRecord, OnEmpty, parse};

use super::rules::{check_one, refused};

const POOL: &str = "[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:80\"]\npool = \"app\"\n[[pool]]\nname = \"app\"\n[pool.discovery]\n";
const DNS: &str = "type = \"dns\"\nname = \"app.example.com\"\nport = 80\n";
const SRV: &str = "type = \"dns\"\nname = \"_http._tcp.app.example.com\"\nrecord = \"srv\"\n";
const CONSUL: &str = "type = \"consul\"\nservice = \"web\"\n";
const HTTP: &str = "type = \"http\"\nurl = \"https://inventory.example.com/app.json\"\n";

// The first line of the block itself is line 8.
refused! {
    no_type: [POOL, "name = \"x\"\n"], 7, "pool[app].discovery.type", "missing";
    unknown_type: [POOL, "type = \"etcd\"\n"], 8, "pool[app].discovery.type", "not in this release";
    misspelt_type: [POOL, "type = \"konsul\"\n"], 8, "pool[app].discovery.type", "must be \"dns\", \"consul\", \"file\" or \"http\"";
    no_name: [POOL, "type = \"dns\"\nport = 80\n"], 7, "pool[app].discovery.name", "missing";
    name_with_a_space: [POOL, "type = \"dns\"\nname = \"a b\"\nport = 80\n"], 9, "pool[app].discovery.name", "must be a name of the DNS";
    name_is_an_address: [POOL, "type = \"dns\"\nname = \"10.0.0.1\"\nport = 80\n"], 9, "pool[app].discovery.name", "must be a name of the DNS";
    no_port: [POOL, "type = \"dns\"\nname = \"app.example.com\"\n"], 7, "pool[app].discovery.port", "missing";
    port_of_services: [POOL, SRV, "port = 80\n"], 11, "pool[app].discovery.port", "has no meaning with record = \"srv\"";
    unknown_record: [POOL, DNS, "record = \"mx\"\n"], 11, "pool[app].discovery.record", "must be \"a\", \"aaaa\", \"any\" or \"srv\"";
    ttl_max_below_min: [POOL, DNS, "ttl_min = \"10s\"\nttl_max = \"5s\"\n"], 12, "pool[app].discovery.ttl_max", "must not be below ttl_min";
    resolver_without_port: [POOL, DNS, "resolvers = [\"192.0.2.53\"]\n"], 11, "pool[app].discovery.resolvers[#1]", "must be an IP address and a port";
    networks_of_nothing: [POOL, DNS, "networks = [\"10.0.0.1/8\"]\n"], 11, "pool[app].discovery.networks[#1]", "bits set behind its prefix";
    on_empty: [POOL, DNS, "on_empty = \"drop\"\n"], 11, "pool[app].discovery.on_empty", "must be \"keep\" or \"remove\"";
    key_of_another_source: [POOL, DNS, "service = \"web\"\n"], 11, "pool[app].discovery.service", "unknown key";
    no_service: [POOL, "type = \"consul\"\n"], 7, "pool[app].discovery.service", "missing";
    consul_with_a_path: [POOL, CONSUL, "address = \"http://127.0.0.1:8500/v1\"\n"], 10, "pool[app].discovery.address", "must not have a path";
    tls_in_clear_text: [POOL, CONSUL, "tls = {}\n"], 10, "pool[app].discovery.tls", "has no meaning with http://";
    wait_too_long: [POOL, CONSUL, "wait = \"11m\"\n"], 10, "pool[app].discovery.wait", "must be 1s to 10m";
    no_path: [POOL, "type = \"file\"\n"], 7, "pool[app].discovery.path", "missing";
    timeout_of_a_file: [POOL, "type = \"file\"\npath = \"/x\"\ntimeout = \"1s\"\n"], 10, "pool[app].discovery.timeout", "unknown key";
    no_url: [POOL, "type = \"http\"\n"], 7, "pool[app].discovery.url", "missing";
    url_with_a_password: [POOL, "type = \"http\"\nurl = \"http://a:b@h/\"\n"], 9, "pool[app].discovery.url", "must not hold a user or a password";
    interval_too_short: [POOL, HTTP, "interval = \"10ms\"\n"], 10, "pool[app].discovery.interval", "must be 100ms to 1h";
}

#[test]
fn servers_may_be_left_out_where_they_are_found() {
    let config =
        parse(&[POOL, SRV].concat(), std::path::Path::new("/x.toml")).unwrap_or_else(|report| panic!("{report}"));
    let pool = &config.pools[0];
    assert!(pool.servers.is_empty() && config.warnings().is_empty(), "{:?}", config.warnings());
    let discovery = pool.discovery.as_ref().expect("it is there");
    assert_eq!((discovery.on_empty, discovery.keep, discovery.timeout), (OnEmpty::Keep, false, Duration::from_secs(5)));
    let DiscoverySource::Dns(dns) = &discovery.source else { panic!("{discovery:?}") };
    assert_eq!((dns.record, dns.port, dns.ttl_max), (DnsRecord::Srv, None, Duration::from_secs(300)));
    assert_eq!(discovery.source.to_string(), "dns srv _http._tcp.app.example.com");
}
