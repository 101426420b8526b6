//! Reads `[pool.discovery]`: where the servers of a pool are found.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blocks::file;
use super::identity::network;
use super::model::{
    ConsulSource, Discovery, DiscoverySource, DnsRecord, DnsSource, Endpoint, FOUND_WEIGHT_MAX, FoundServer,
    HttpSource, OnEmpty, Server, ServerChange, ServerOrigin, ServerTls,
};
use super::reader::{Table, Value};
use super::report::{Located, Mistakes, Place, Wrong};
use super::upstream::{WayFiles, tls};
use super::values;
use crate::units::networks::NetworkSet;

const RESOLVERS_MAX: usize = 8;
const NETWORKS_MAX: usize = 256;
const TAGS_MAX: usize = 16;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// What Consul allows.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// The files that a source needs.
#[derive(Default)]
pub(super) struct DiscoveryFiles {
    pub(super) way: WayFiles,
    pub(super) token_file: Option<Located<PathBuf>>,
    /// Where the block stands that needs the resolvers of the system.
    pub(super) system_resolvers: Option<Place>,
}

#[derive(Clone, Copy)]
enum Kind {
    Dns,
    Consul,
    File,
    Http,
}

const KINDS: [(&str, Kind); 4] =
    [("dns", Kind::Dns), ("consul", Kind::Consul), ("file", Kind::File), ("http", Kind::Http)];

/// Reads a `[pool.discovery]`; nothing where what it says cannot be used, which is reported.
pub(super) fn discovery(
    mut table: Table<'_>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
) -> (Option<Discovery>, DiscoveryFiles) {
    let mut files = DiscoveryFiles::default();
    let place = table.place().clone();
    let kind = table.required("type", "write \"dns\", \"consul\", \"file\" or \"http\"");
    let Some(kind) = kind.and_then(|value| value.choice(&KINDS, &["etcd", "kubernetes", "docker"])) else {
        // What the other keys mean depends on it.
        table.finish_missing();
        return (None, files);
    };
    let (on_empty, keep) = (on_empty(&mut table), table.boolean("keep", false));
    let networks = networks(&mut table);
    let source = match kind.value {
        Kind::Dns => dns(&mut table, mistakes).map(DiscoverySource::Dns),
        Kind::Consul => consul(&mut table, mistakes, directory, &mut files).map(DiscoverySource::Consul),
        Kind::File => path(&mut table, directory).map(|path| DiscoverySource::File { path }),
        Kind::Http => http(&mut table, mistakes, directory, &mut files).map(DiscoverySource::Http),
    };
    let is_file = matches!(kind.value, Kind::File);
    let resolvers = if is_file { None } else { resolvers(&mut table) };
    let timeout = Duration::from_secs(5);
    let timeout = if is_file { timeout } else { table.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, timeout) };
    table.finish();
    let asks_system = source.as_ref().is_some_and(DiscoverySource::has_name) && resolvers.is_none();
    files.system_resolvers = asks_system.then_some(place);
    (source.map(|source| Discovery { source, resolvers, networks, on_empty, keep, timeout }), files)
}

fn on_empty(table: &mut Table<'_>) -> OnEmpty {
    let words = [("keep", OnEmpty::Keep), ("remove", OnEmpty::Remove)];
    let found = table.optional("on_empty").and_then(|value| value.choice(&words, &[]));
    found.map_or(OnEmpty::Keep, |found| found.value)
}

fn networks(table: &mut Table<'_>) -> Option<NetworkSet> {
    let list = table.optional("networks")?.list(NETWORKS_MAX);
    Some(NetworkSet::new(list.into_iter().filter_map(|value| value.parsed(network)).map(|found| found.value)))
}

fn resolvers(table: &mut Table<'_>) -> Option<Vec<SocketAddr>> {
    let list = table.optional("resolvers")?.list(RESOLVERS_MAX);
    Some(list.into_iter().filter_map(|value| value.parsed(values::server_address)).map(|found| found.value).collect())
}

fn path(table: &mut Table<'_>, directory: &Path) -> Option<PathBuf> {
    let path = table.required("path", "name a file or a directory, such as path = \"/etc/baton/servers.json\"");
    path.and_then(|value| file(value, directory)).map(|found| found.value)
}

fn dns(table: &mut Table<'_>, mistakes: &Mistakes<'_>) -> Option<DnsSource> {
    let name = table.required("name", "write the name to look up, such as name = \"app.example.com\"");
    let name = name.and_then(|value| value.parsed(dns_name));
    let records = [("a", DnsRecord::A), ("aaaa", DnsRecord::Aaaa), ("any", DnsRecord::Any), ("srv", DnsRecord::Srv)];
    let record = table.optional("record").and_then(|value| value.choice(&records, &[]));
    let record = record.map_or(DnsRecord::Any, |found| found.value);
    let port = if record == DnsRecord::Srv {
        let remedy = "leave it out: the records say the ports";
        table.without_meaning(&["port"], "has no meaning with record = \"srv\"", remedy);
        Some(None)
    } else {
        let port = table.required("port", "write the port of the servers, such as port = 8080, or record = \"srv\"");
        port.and_then(|value| value.integer(1..=65_535)).map(|port| u16::try_from(port.value).ok())
    };
    let ttl_min = table.duration("ttl_min", SECOND..=HOUR, SECOND);
    let ttl_max = table.optional("ttl_max").and_then(|value| value.duration(SECOND..=DAY));
    if let Some(ttl_max) = ttl_max.as_ref().filter(|ttl_max| ttl_max.value < ttl_min) {
        let shortest = values::duration_text(ttl_min);
        let rule = format!("must not be below ttl_min, which is {shortest}");
        mistakes.value(&ttl_max.place, rule, format!("write at least \"{shortest}\""));
    }
    let ttl_max = ttl_max.map_or(Duration::from_secs(300).max(ttl_min), |found| found.value);
    Some(DnsSource { name: name?.value, record, port: port?, ttl_min, ttl_max })
}

/// A name of the DNS, which may have underscores as those of SRV records do.
fn dns_name(text: &str) -> Result<String, Wrong> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    if name.len() <= 253 && name.split('.').all(is_label) && name.parse::<std::net::IpAddr>().is_err() {
        return Ok(name);
    }
    Err(Wrong::new(
        "must be a name of the DNS",
        "write a whole name such as \"app.example.com\" or \"_http._tcp.example.com\"",
    ))
}

fn consul(
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
    files: &mut DiscoveryFiles,
) -> Option<ConsulSource> {
    let service = table.required("service", "write the name of the service, such as service = \"web\"");
    let service = service.and_then(|value| value.parsed(consul_word));
    let endpoint = match table.optional("address") {
        Some(value) => value.parsed(|text| {
            let endpoint = endpoint(text)?;
            if endpoint.path.is_empty() || endpoint.path == "/" {
                return Ok(Endpoint { path: String::new(), ..endpoint });
            }
            Err(Wrong::new("must not have a path", "write where Consul answers, such as \"http://127.0.0.1:8500\""))
        }),
        None => {
            let endpoint = endpoint("http://127.0.0.1:8500").ok()?;
            Some(Located { value: Endpoint { path: String::new(), ..endpoint }, place: table.place().clone() })
        }
    };
    let tags = table.optional("tags").map(|value| value.list_of(0, TAGS_MAX)).unwrap_or_default();
    let tags = tags.into_iter().filter_map(|value| value.parsed(consul_word)).map(|found| found.value).collect();
    let datacenter = table.optional("datacenter").and_then(|value| value.parsed(consul_word)).map(|found| found.value);
    let passing = table.boolean("passing", true);
    let wait = table.duration("wait", SECOND..=WAIT_MAX, Duration::from_secs(60));
    let token_file = token_file(table, directory, files);
    let tls = tls_of(table, endpoint.as_ref(), mistakes, directory, files);
    let (endpoint, service) = (endpoint?.value, service?.value);
    Some(ConsulSource { endpoint, service, tags, datacenter, passing, wait, token_file, tls })
}

fn http(
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
    files: &mut DiscoveryFiles,
) -> Option<HttpSource> {
    let url = table.required("url", "write where the list is, such as url = \"https://inventory.internal/app.json\"");
    let url = url.and_then(|value| value.parsed(endpoint));
    let interval = table.duration("interval", TIMEOUT_MIN..=HOUR, Duration::from_secs(10));
    let token_file = token_file(table, directory, files);
    let tls = tls_of(table, url.as_ref(), mistakes, directory, files);
    Some(HttpSource { endpoint: url?.value, interval, token_file, tls })
}

fn token_file(table: &mut Table<'_>, directory: &Path, files: &mut DiscoveryFiles) -> Option<PathBuf> {
    files.token_file = table.optional("token_file").and_then(|value| file(value, directory));
    files.token_file.as_ref().map(|file| file.value.clone())
}

/// TLS to where an URL leads: with https alone, and then always.
fn tls_of(
    table: &mut Table<'_>,
    endpoint: Option<&Located<Endpoint>>,
    mistakes: &Mistakes<'_>,
    directory: &Path,
    files: &mut DiscoveryFiles,
) -> Option<ServerTls> {
    let is_tls = endpoint.is_none_or(|endpoint| endpoint.value.is_tls);
    let block = table.optional("tls");
    if let Some(value) = block.as_ref().filter(|_| !is_tls) {
        mistakes.block(value.place(), "has no meaning with http://", "write https://, or leave it out");
        return None;
    }
    match block.and_then(Value::block) {
        Some(block) => {
            let (tls, way) = tls(block, mistakes, directory);
            files.way = way;
            tls
        }
        None if is_tls => {
            files.way.system_roots = endpoint.map(|endpoint| endpoint.place.clone());
            Some(ServerTls { verify: true, ca_file: None, server_name: None, certificate: None })
        }
        None => None,
    }
}

/// A name, tag or data centre of Consul: it stands in a path or a query.
fn consul_word(text: &str) -> Result<String, Wrong> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("must be 1 to 128 printable characters without spaces", "write it as Consul has it"))
}

/// A URL that is asked.
fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    let text = values::webhook(text)?;
    let wrong = || Wrong::new("must be a URL", "write a URL such as \"https://inventory.internal/app.json\"");
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    let is_tls = url.scheme_str() == Some("https");
    let host = url.host().ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_ascii_lowercase();
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let path = url.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    Ok(Endpoint { is_tls, host, port, path })
}

impl FoundServer {
    /// Takes what somebody has written: a source, or an operator.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(name: Option<&str>, address: &str, weight: u32, backup: bool) -> Result<Self, String> {
        let said = |what: &str, text: &str, wrong: Wrong| {
            format!("{what} {:?} {}: {}", super::report::shortened(text, 60), wrong.rule, wrong.remedy)
        };
        let address = values::server_address(address).map_err(|wrong| said("address", address, wrong))?;
        let name = match name {
            Some(name) => values::name(name).map_err(|wrong| said("name", name, wrong))?,
            None => name_of_address(address.ip()),
        };
        if !(1..=FOUND_WEIGHT_MAX).contains(&weight) {
            return Err(format!("weight {weight} of server {name} must be 1 to {FOUND_WEIGHT_MAX}"));
        }
        Ok(Self { name, address, weight, backup })
    }

    /// As a server of the configuration.
    pub fn to_server(&self, origin: ServerOrigin) -> Server {
        Server { name: self.name.clone(), address: self.address, backup: self.backup, origin }
    }
}

impl ServerChange {
    /// What it is kept under.
    pub fn key(server: &str) -> String {
        format!("+{server}")
    }

    /// The name of the server that a key is about; `None` for the keys of other things.
    pub fn name_in_key(key: &str) -> Option<&str> {
        key.strip_prefix('+').filter(|name| values::name(name).is_ok())
    }

    /// As it is kept.
    pub fn to_value(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What is kept of a server of this name; `None` for what is nothing of the kind.
    pub fn from_value(name: &str, value: &[u8]) -> Option<Self> {
        let change: Self = serde_json::from_slice(value).ok()?;
        let is_good = change.server.as_ref().is_none_or(|server| {
            let again = FoundServer::parse(Some(name), &server.address.to_string(), server.weight, server.backup);
            again.as_ref() == Ok(server)
        });
        is_good.then_some(change)
    }
}

/// What a server at an address is called where nobody has given it a name.
pub fn name_of_address(address: IpAddr) -> String {
    // A name has no colons, and begins with a letter or digit.
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("v6-{}", address.to_string().replace(':', "-")),
    }
}
