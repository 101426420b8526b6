//! Lists of servers: read, judged, and put together with those of the configuration. Core.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

use crate::config::{FOUND_WEIGHT_MAX, FoundServer, POOL_SERVERS_MAX, Server, ServerOrigin};
use crate::units::networks::NetworkSet;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON: a list of servers, `{ "servers": [ … ] }`, or one server alone.
    Json,
    /// TOML: `servers = [ … ]`, or the keys of one server.
    Toml,
}

/// A server as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    address: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    backup: bool,
}

fn one() -> u32 {
    1
}

/// Reads a list.
///
/// # Errors
/// Why it cannot be used, in words. A list with one bad entry is bad.
pub fn parse(bytes: &[u8], format: Format) -> Result<Vec<FoundServer>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the list is not UTF-8".to_owned())?;
    let value: Value = match format {
        Format::Json => serde_json::from_str(text).map_err(|error| format!("the list is no JSON: {error}"))?,
        Format::Toml => {
            let first = |error: toml::de::Error| error.message().lines().next().unwrap_or_default().to_owned();
            toml::from_str(text).map_err(|error| format!("the list is no TOML: {}", first(error)))?
        }
    };
    let entries = match value {
        Value::Array(entries) => entries,
        Value::Object(mut table) => match table.remove("servers") {
            Some(Value::Array(entries)) if table.is_empty() => entries,
            Some(_) => return Err("what stands under \"servers\" is no list, or something stands beside it".to_owned()),
            None => vec![Value::Object(table)],
        },
        _ => return Err("it is no list of servers".to_owned()),
    };
    if entries.len() > POOL_SERVERS_MAX {
        return Err(too_many(entries.len()));
    }
    let entry = |(index, value)| {
        let number = index + 1;
        let written: Written = serde_json::from_value(value).map_err(|error| format!("entry {number}: {error}"))?;
        let Written { name, address, weight, backup } = written;
        FoundServer::parse(name.as_deref(), &address, weight, backup)
            .map_err(|wrong| format!("entry {number}: {wrong}"))
    };
    entries.into_iter().enumerate().map(entry).collect()
}

fn too_many(count: usize) -> String {
    format!("it has {count} servers, and a pool has at most {POOL_SERVERS_MAX}")
}

/// Judges a list and puts it into its order, that of names: the same servers make the same list, however the source has
/// them.
///
/// `networks` is where servers may be; `None` leaves out this machine and its link, unless the list is an operator's
/// (`is_trusted`).
///
/// # Errors
/// Why it is refused, in words.
pub fn judged(
    mut servers: Vec<FoundServer>,
    networks: Option<&NetworkSet>,
    is_trusted: bool,
) -> Result<Vec<FoundServer>, String> {
    if servers.len() > POOL_SERVERS_MAX {
        return Err(too_many(servers.len()));
    }
    servers.sort_by(|one, other| one.name.cmp(&other.name).then(one.address.cmp(&other.address)));
    // The same server may be listed twice, as by two records that say the same.
    servers.dedup();
    let mut names = HashSet::new();
    let mut addresses = HashSet::new();
    for server in &servers {
        let FoundServer { name, address, .. } = server;
        let ip = address.ip().to_canonical();
        if !is_usable(ip) {
            return Err(format!("server {name} has the address {ip}, which no server can have"));
        }
        match networks {
            Some(networks) if !networks.contains(ip) => {
                return Err(format!(
                    "server {name} has the address {ip}, which is in none of the networks that are set"
                ));
            }
            None if !is_trusted && is_of_this_machine(ip) => {
                return Err(format!(
                    "server {name} has the address {ip}, which is on this machine or its link: set networks to allow it"
                ));
            }
            _ => {}
        }
        if !names.insert(name) {
            return Err(format!("two servers are named {name}"));
        }
        if !addresses.insert(*address) {
            return Err(format!("two servers have the address {address}"));
        }
    }
    Ok(servers)
}

fn is_usable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback()
        || match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}

/// A name that servers can have, of what a source says: other characters become `-`, and what is too long is cut with a
/// checksum behind it, so that it stays unique.
pub fn name_of(said: &str) -> String {
    const LEN_MAX: usize = 63;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut name: String = said.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        name.insert(0, 's');
    }
    if name.len() > LEN_MAX || name != said {
        // FNV-1a: the same on both nodes and in every release.
        let hash = said.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        name.truncate(LEN_MAX - 9);
        name = format!("{name}-{hash:08x}");
    }
    name
}

/// Brings weights of a list into the range that there is, with their proportions. Never 0: the source has listed the server.
pub fn scaled(weights: &[u32]) -> Vec<u32> {
    let largest = weights.iter().copied().max().unwrap_or(0).max(1);
    let scale = |weight: &u32| {
        let within = u64::from(*weight) * u64::from(FOUND_WEIGHT_MAX) / u64::from(largest);
        if largest > FOUND_WEIGHT_MAX { u32::try_from(within).unwrap_or(FOUND_WEIGHT_MAX) } else { *weight }.max(1)
    };
    weights.iter().map(scale).collect()
}

/// What operators have changed of a pool while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Servers that they have added.
    pub added: Vec<FoundServer>,
    /// Names of servers that they have removed.
    pub removed: HashSet<String>,
}

/// The servers of a pool: those of the file (an operator's one of the same name takes its place), then those that operators have added, then those that were found. Of two with
/// one name or one address the first stands, and what is over the limit is left out; the number of both is given.
pub fn merged(fixed: &[Server], changes: &Changes, found: &[FoundServer]) -> (Vec<Server>, usize) {
    let is_same = |one: &FoundServer, server: &Server| one.name == server.name && one.address == server.address;
    let is_in_place = |server: &Server| {
        let is_replaced = changes.added.iter().any(|added| added.name == server.name && !is_same(added, server));
        !changes.removed.contains(&server.name) && !is_replaced
    };
    let in_place: Vec<Server> = fixed.iter().filter(|server| is_in_place(server)).cloned().collect();
    // What an operator has added and the file has now as well is that of the file.
    let added = changes.added.iter().filter(|added| !in_place.iter().any(|server| is_same(added, server)));
    let added = added.map(|added| added.to_server(ServerOrigin::Operator));
    let found = found.iter().filter(|found| !changes.removed.contains(&found.name));
    let found = found.map(|found| found.to_server(ServerOrigin::Found));
    let mut names: HashSet<String> = HashSet::new();
    let mut addresses: HashSet<SocketAddr> = HashSet::new();
    let (mut servers, mut left_out) = (Vec::new(), 0);
    for server in in_place.iter().cloned().chain(added).chain(found) {
        let is_new = !names.contains(&server.name) && !addresses.contains(&server.address);
        if !is_new || servers.len() == POOL_SERVERS_MAX {
            left_out += 1;
            continue;
        }
        names.insert(server.name.clone());
        addresses.insert(server.address);
        servers.push(server);
    }
    (servers, left_out)
}

#[cfg(test)]
mod tests;
