//! Servers found by their names. The worker opens no file, so that nothing is read from /etc/hosts; nothing is cached here
//! either, as an answer is asked for when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::list::{name_of, scaled};
use super::source::Failure;
use crate::config::{DnsRecord, DnsSource, FoundServer, POOL_SERVERS_MAX, name_of_address};

/// Resolvers of the system that are used.
const SYSTEM_RESOLVERS_MAX: usize = 8;
const PORT: u16 = 53;
/// Targets of SRV records that are looked up at once.
const LOOKUPS_MAX: usize = 16;
/// How often somebody is asked before the answer is given up, in one time-out.
const TRIES: u32 = 2;

/// Looks names up.
pub(super) struct Resolver(TokioResolver);

/// What a name has, and for how long that is good.
type Answer<T> = Result<(T, Duration), Failure>;

impl Resolver {
    /// One that asks these, within a time-out for each try that leaves room for a second one.
    ///
    /// # Errors
    /// In words.
    pub(super) fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Self, String> {
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            NameServerConfig::new(address.ip(), true, connections.to_vec())
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = timeout / TRIES;
        options.attempts = 1;
        options.cache_size = 0;
        options.edns0 = true;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.try_tcp_on_error = true;
        builder.build().map(Self).map_err(|error| format!("names cannot be looked up: {error}"))
    }

    /// The servers that a name leads to.
    pub(super) async fn servers(&self, source: &DnsSource) -> Answer<Vec<FoundServer>> {
        match (source.record, source.port) {
            (DnsRecord::Srv, _) => self.services(&source.name).await,
            (record, Some(port)) => {
                let (addresses, ttl) = self.addresses(&source.name, record).await?;
                let server = |ip: IpAddr| FoundServer {
                    name: name_of_address(ip),
                    address: SocketAddr::new(ip, port),
                    weight: 1,
                    backup: false,
                };
                Ok((addresses.into_iter().map(server).collect(), ttl))
            }
            (_, None) => Err(Failure::Wrong("there is no port for its servers".to_owned())),
        }
    }

    /// The addresses of a name, in their order.
    pub(super) async fn addresses(&self, name: &str, record: DnsRecord) -> Answer<BTreeSet<IpAddr>> {
        let types: &[RecordType] = match record {
            DnsRecord::A => &[RecordType::A],
            DnsRecord::Aaaa => &[RecordType::AAAA],
            DnsRecord::Any | DnsRecord::Srv => &[RecordType::A, RecordType::AAAA],
        };
        let lookups = types.iter().map(|record| self.records(name, *record));
        let mut addresses = BTreeSet::new();
        let (mut good_for, mut is_empty) = (Duration::MAX, None);
        for found in futures_util::future::join_all(lookups).await {
            match found {
                // Of one kind there may well be none.
                Err(Failure::Empty(reason)) => is_empty = Some(reason),
                Err(failure) => return Err(failure),
                Ok((records, ttl)) => {
                    good_for = good_for.min(ttl);
                    addresses.extend(records.iter().filter_map(address));
                }
            }
        }
        match is_empty {
            Some(reason) if addresses.is_empty() => Err(Failure::Empty(reason)),
            _ => Ok((addresses, good_for)),
        }
    }

    /// The servers of SRV records: those of the lowest priority, with the others as backups (RFC 2782).
    async fn services(&self, name: &str) -> Answer<Vec<FoundServer>> {
        let (records, ttl) = self.records(name, RecordType::SRV).await?;
        let services: Vec<Service> = records.iter().filter_map(Service::of).collect();
        if services.len() > POOL_SERVERS_MAX {
            return Err(Failure::Wrong(format!(
                "{name} has {} records, and no pool has so many servers",
                services.len()
            )));
        }
        // A target that is the root says that there is no such service.
        let targets: BTreeSet<String> = services.iter().map(|service| service.target.clone()).collect();
        let targets: Vec<String> = targets.into_iter().filter(|target| !target.is_empty()).collect();
        let lookup = |target: String| async move {
            let found = self.addresses(&target, DnsRecord::Any).await;
            found.map_err(|failure| failure.about(&target)).map(|found| (target, found))
        };
        let found: BTreeMap<String, (BTreeSet<IpAddr>, Duration)> =
            stream::iter(targets).map(lookup).buffer_unordered(LOOKUPS_MAX).try_collect().await?;
        let good_for = found.values().map(|(_, ttl)| *ttl).chain([ttl]).min().unwrap_or(ttl);
        let addresses = found.into_iter().map(|(target, (addresses, _))| (target, addresses)).collect();
        Ok((servers_of(&services, &addresses), good_for))
    }

    /// The records of a name, and for how long the least of them is good.
    async fn records(&self, name: &str, record: RecordType) -> Answer<Vec<RData>> {
        // With the dot at its end no domain is put behind it.
        let whole = Name::from_ascii(format!("{name}.")).map_err(|error| Failure::Wrong(error.to_string()))?;
        let lookup = self.0.lookup(whole, record).await.map_err(|error| failure(name, record, &error))?;
        let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        let records: Vec<RData> = lookup.answers().iter().map(|record| record.data.clone()).collect();
        if !records.iter().any(|data| data.record_type() == record) {
            return Err(Failure::Empty(format!("{name} has no {record} records")));
        }
        Ok((records, Duration::from_secs(u64::from(ttl))))
    }
}

/// Why there are no records.
fn failure(name: &str, record: RecordType, error: &NetError) -> Failure {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            Failure::Empty(format!("there is no name {name}"))
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            Failure::Empty(format!("{name} has no {record} records"))
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            Failure::Silent(format!("no {record} records of {name}: {}", none.response_code))
        }
        error => Failure::Silent(format!("no {record} records of {name}: {error}")),
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0).to_canonical()),
        _ => None,
    }
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    priority: u16,
    weight: u16,
    port: u16,
    /// Without the dot at its end, in lower case.
    target: String,
}

impl Service {
    fn of(data: &RData) -> Option<Self> {
        let RData::SRV(record) = data else { return None };
        let target = record.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        Some(Self { priority: record.priority, weight: record.weight, port: record.port, target })
    }
}

/// A server is named as its target and port, so that it is the same one when its address changes; only a target that has
/// several addresses has them in the names as well.
fn servers_of(services: &[Service], addresses: &BTreeMap<String, BTreeSet<IpAddr>>) -> Vec<FoundServer> {
    let first = services.iter().map(|service| service.priority).min();
    let weights = scaled(&services.iter().map(|service| u32::from(service.weight)).collect::<Vec<_>>());
    let mut servers = Vec::new();
    for (service, weight) in services.iter().zip(weights) {
        let Service { priority, port, target, .. } = service;
        let Some(addresses) = addresses.get(target) else { continue };
        for ip in addresses {
            let name = match addresses.len() {
                1 => name_of(&format!("{target}-{port}")),
                _ => name_of(&format!("{target}-{port}-{}", name_of_address(*ip))),
            };
            let backup = Some(*priority) != first;
            servers.push(FoundServer { name, address: SocketAddr::new(*ip, *port), weight, backup });
        }
    }
    servers
}

/// The resolvers that a resolv.conf(5) names.
pub(super) fn system_resolvers(text: &[u8]) -> Vec<SocketAddr> {
    let text = String::from_utf8_lossy(text);
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    // One of the link goes with its interface behind a percent sign, which is of no use here.
    let addresses = named.filter_map(|word| word.parse::<IpAddr>().ok());
    addresses.take(SYSTEM_RESOLVERS_MAX).map(|ip| SocketAddr::new(ip, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, target: &str) -> Service {
        Service { priority, weight, port: 8080, target: target.to_owned() }
    }

    fn addresses(of: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let parsed = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect();
        of.iter().map(|(target, list)| ((*target).to_owned(), parsed(list))).collect()
    }

    #[test]
    fn priorities_become_backups_and_weights_stay() {
        let services = [service(20, 0, "c.example"), service(10, 5, "a.example"), service(10, 1, "b.example")];
        let addresses = addresses(&[
            ("a.example", &["10.0.0.1"]),
            ("b.example", &["10.0.0.2"]),
            ("c.example", &["10.0.0.3", "10.0.0.4"]),
        ]);
        let found: Vec<_> = servers_of(&services, &addresses)
            .into_iter()
            .map(|server| (server.name, server.address.to_string(), server.weight, server.backup))
            .collect();
        let expected = [
            ("c.example-8080-10.0.0.3", "10.0.0.3:8080", 1, true),
            ("c.example-8080-10.0.0.4", "10.0.0.4:8080", 1, true),
            ("a.example-8080", "10.0.0.1:8080", 5, false),
            ("b.example-8080", "10.0.0.2:8080", 1, false),
        ];
        let expected = expected.map(|(name, at, weight, backup)| (name.to_owned(), at.to_owned(), weight, backup));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_system_says_whom_to_ask() {
        let text = b"# nameserver 1.1.1.1\nsearch example.com\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::53\n";
        let expected = ["192.0.2.53:53", "[2001:db8::53]:53"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(system_resolvers(text), expected);
        assert_eq!(system_resolvers(b"\xff\n"), []);
    }
}
