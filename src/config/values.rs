//! How each kind of value is written: text in, a valid value or a [`Wrong`] out. No file, no place, no key.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::units::IpNetwork;

use super::report::Wrong;

/// Characters of a name, as a label of a host name has.
const NAME_MAX: usize = 63;
/// Bytes of an interface's name (IFNAMSIZ less its terminator).
const INTERFACE_MAX: usize = 15;
/// Characters of a host name (RFC 1035 section 2.3.4).
const HOST_MAX: usize = 253;
/// Characters of a path; more than any route or health check needs.
const PATH_MAX: usize = 1024;

/// `"100ms"`, `"2s"`, `"1m"`, `"1h"`, and fractions such as `"40.95s"`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || Wrong::new("must be a duration", "write a number and a unit: \"100ms\", \"2s\", \"1.5m\" or \"1h\"");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| {
        let known = !text.is_empty();
        let remedy = format!("say which unit: \"{text}ms\" or \"{text}s\"");
        if known { Wrong::new("a duration needs a unit", remedy) } else { wrong() }
    })?;
    let (number, unit) = text.split_at_checked(unit_at).ok_or_else(wrong)?;
    let unit_ns: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return Err(wrong()),
    };
    nanoseconds(number, unit_ns).map(Duration::from_nanos).ok_or_else(wrong)
}

/// `number` times `unit_ns`, in integers: a binary fraction could not say 40.95.
fn nanoseconds(number: &str, unit_ns: u64) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    if fraction.len() > 9 {
        return None;
    }
    let mut scale = unit_ns;
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    for digit in fraction.bytes() {
        // What the unit cannot hold is below a nanosecond.
        scale /= 10;
        total = total.checked_add(scale.checked_mul(u64::from(digit.checked_sub(b'0')?))?)?;
    }
    Some(total)
}

/// A duration as the configuration has it, in the largest unit that keeps it whole.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    if !duration.as_nanos().is_multiple_of(1_000_000) {
        let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
        return format!("{}s", text.trim_end_matches('0'));
    }
    match units.iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None if millis > 1000 => {
            format!("{}.{:03}", millis / 1000, millis % 1000).trim_end_matches('0').to_owned() + "s"
        }
        None => format!("{millis}ms"),
    }
}

/// Units of bytes, the largest first.
const BYTE_UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

/// `"64KiB"`, `"10MiB"`, `"2GiB"`, `"1TiB"`, or a number alone.
pub(super) fn bytes(text: &str) -> Result<u64, Wrong> {
    let wrong =
        || Wrong::new("must be a number of bytes", "write a whole number and a unit: \"64KiB\", \"10MiB\" or \"2GiB\"");
    let unit = BYTE_UNITS.iter().find_map(|(unit, name)| Some((*unit, text.strip_suffix(name)?)));
    let (unit, number) = unit.unwrap_or((1, text));
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|_| is_number);
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

/// A number of bytes as the configuration has it, in the largest unit that keeps it whole.
pub fn bytes_text(bytes: u64) -> String {
    match BYTE_UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// A name that can stand in a path of the command line, a metric, a log line and a URL as it is.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && text.len() <= NAME_MAX && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("must be 1 to {NAME_MAX} letters, digits, '-', '_' or '.', the first a letter or digit"),
        "choose a name such as \"web-1\"",
    ))
}

/// A name that refers to a block; whether there is such a block is checked later.
pub(super) fn reference(text: &str) -> Result<String, Wrong> {
    Ok(text.to_owned())
}

/// The name of a network interface, as the kernel allows it.
pub(super) fn interface(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
    let good =
        !text.is_empty() && text.len() <= INTERFACE_MAX && text.chars().all(allowed) && text != "." && text != "..";
    if good {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("must be the name of a network interface, 1 to {INTERFACE_MAX} characters"),
        "`ip -brief link` lists the interfaces of a machine",
    ))
}

/// An address of a machine.
pub(super) fn node_address(text: &str) -> Result<IpAddr, Wrong> {
    let address: IpAddr = text.parse().map_err(|_| {
        let remedy = match text.split_once('/') {
            Some((address, _)) if address.parse::<IpAddr>().is_ok() => format!("leave the prefix out: \"{address}\""),
            _ if text.parse::<SocketAddr>().is_ok() => "leave the port out".to_owned(),
            _ => "write an address such as \"192.0.2.11\"; host names are not looked up".to_owned(),
        };
        Wrong::new("must be an IP address", remedy)
    })?;
    not_mapped(address)?;
    if is_link_local_v6(address) {
        return Err(Wrong::new(
            "must be an address that means one machine on every link, not a link-local one",
            "write a global or a unique local address of the node",
        ));
    }
    match kind_of(address) {
        Kind::Unicast | Kind::Loopback => Ok(address),
        kind => Err(Wrong::new(
            format!("must be an address of one machine, not {}", kind.text()),
            "write the address that the other node reaches this one at",
        )),
    }
}

/// Whether the address is of fe80::/10, which every link has for itself.
pub(super) fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The address of a gateway; a link-local one is usual for IPv6.
pub(super) fn gateway(text: &str) -> Result<IpAddr, Wrong> {
    let wrong = |rule: &str| Wrong::new(rule, "write the gateway's address, such as \"192.0.2.1\" or \"fe80::1\"");
    let address: IpAddr = text.parse().map_err(|_| wrong("must be an IP address"))?;
    not_mapped(address)?;
    match kind_of(address) {
        Kind::Unicast => Ok(address),
        kind => Err(wrong(&format!("must be an address of another machine, not {}", kind.text()))),
    }
}

/// An address and a port to listen on.
pub(super) fn bind(text: &str) -> Result<SocketAddr, Wrong> {
    let address = socket(text)?;
    match kind_of(address.ip()) {
        Kind::Multicast | Kind::Broadcast => {
            Err(Wrong::new("must be an address that TCP can listen on", "write an address of this machine or of a vip"))
        }
        Kind::Unicast | Kind::Loopback | Kind::Unspecified => Ok(address),
    }
}

/// An address and a port to connect to.
pub(super) fn server_address(text: &str) -> Result<SocketAddr, Wrong> {
    let address = socket(text)?;
    match kind_of(address.ip()) {
        Kind::Unicast | Kind::Loopback => Ok(address),
        kind => Err(Wrong::new(
            format!("must be an address of one machine, not {}", kind.text()),
            "write the address that the server listens on",
        )),
    }
}

/// Where the witness listens.
pub(super) fn witness(text: &str) -> Result<SocketAddr, Wrong> {
    let address = socket(text)?;
    match kind_of(address.ip()) {
        Kind::Unicast => Ok(address),
        kind => Err(Wrong::new(
            format!("must be an address of a third machine, not {}", kind.text()),
            "write where `baton witness` listens, such as \"192.0.2.50:7948\"",
        )),
    }
}

fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let host_and_port = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let remedy = match (text.parse::<IpAddr>(), host_and_port) {
            (Ok(ip), _) => format!("add a port: \"{}\"", SocketAddr::new(ip, 80)),
            (_, Some(("" | "*", port))) => format!("for every IPv4 address of the machine write \"0.0.0.0:{port}\""),
            (_, Some(_)) => "write the IP address; host names are not looked up".to_owned(),
            _ => "write an address and a port, such as \"10.0.0.1:8080\" or \"[2001:db8::1]:8080\"".to_owned(),
        };
        Wrong::new("must be an IP address and a port", remedy)
    })?;
    if address.port() == 0 {
        return Err(Wrong::new("the port must be 1 to 65535", "write the port that clients or checks connect to"));
    }
    Ok(address)
}

/// A virtual address with the length of its network's prefix.
pub(super) fn vip_address(text: &str) -> Result<IpNetwork, Wrong> {
    let example = "write an address with its prefix length, such as \"192.0.2.100/24\" or \"2001:db8::100/64\"";
    let malformed = || Wrong::new("must be an IP address with a prefix length", example);
    let (address, prefix) = text.split_once('/').ok_or_else(|| match text.parse::<IpAddr>() {
        Ok(address) => without_prefix(address),
        Err(_) => malformed(),
    })?;
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    not_mapped(address)?;
    let prefix_len_max = if address.is_ipv4() { 32 } else { 128 };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let network = prefix.parse().ok().filter(|len| digits && (1..=prefix_len_max).contains(len));
    let network = network
        .and_then(|prefix_len| IpNetwork::new(address, prefix_len))
        .ok_or_else(|| Wrong::new(format!("the prefix length must be 1 to {prefix_len_max}"), example))?;
    match kind_of(address) {
        Kind::Unicast => not_the_network_itself(network),
        kind => Err(Wrong::new(
            format!("must be an address of one machine, not {}", kind.text()),
            "write the address that clients connect to",
        )),
    }
}

fn without_prefix(address: IpAddr) -> Wrong {
    let (usual, alone) = if address.is_ipv4() { (24, 32) } else { (64, 128) };
    Wrong::new(
        "must have a prefix length",
        format!(
            "write \"{address}/{usual}\" where the network's prefix is {usual} bits, or \"{address}/{alone}\" for the \
             address alone"
        ),
    )
}

/// Refuses `::ffff:192.0.2.1`, which means an IPv4 address and is none of an interface.
fn not_mapped(address: IpAddr) -> Result<(), Wrong> {
    match address.to_canonical() {
        canonical if canonical == address => Ok(()),
        canonical => Err(Wrong::new("must not be an IPv4 address in IPv6 form", format!("write \"{canonical}\""))),
    }
}

/// Refuses 192.0.2.0/24 and 192.0.2.255/24, which no client can connect to, and 2001:db8::/64, which every router of the
/// network answers to (RFC 4291 section 2.6.1).
fn not_the_network_itself(network: IpNetwork) -> Result<IpNetwork, Wrong> {
    let prefix_len = u32::from(network.prefix_len());
    let what = match network.address() {
        // A /31 has two usable addresses (RFC 3021), a /32 one.
        IpAddr::V4(address) if prefix_len < 31 => {
            let host_bits = u32::MAX.checked_shr(prefix_len).unwrap_or(0);
            match address.to_bits() & host_bits {
                0 => Some("the network's own address"),
                host if host == host_bits => Some("the network's broadcast address"),
                _ => None,
            }
        }
        // So has a /127 (RFC 6164).
        IpAddr::V6(address) if prefix_len < 127 => {
            let host_bits = u128::MAX.checked_shr(prefix_len).unwrap_or(0);
            (address.to_bits() & host_bits == 0).then_some("the anycast address of the network's routers")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    match what {
        None => Ok(network),
        Some(what) => Err(Wrong::new(
            format!("must be an address of one machine, not {what}"),
            "choose a free address of the network",
        )),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unicast,
    Loopback,
    Unspecified,
    Multicast,
    Broadcast,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Kind::Unicast => "a unicast address",
            Kind::Loopback => "a loopback address",
            Kind::Unspecified => "the unspecified address",
            Kind::Multicast => "a multicast address",
            Kind::Broadcast => "the broadcast address",
        }
    }
}

fn kind_of(address: IpAddr) -> Kind {
    let address = address.to_canonical();
    match address {
        _ if address.is_unspecified() => Kind::Unspecified,
        _ if address.is_loopback() => Kind::Loopback,
        _ if address.is_multicast() => Kind::Multicast,
        IpAddr::V4(v4) if v4.is_broadcast() => Kind::Broadcast,
        _ => Kind::Unicast,
    }
}

/// A host to match requests by, in lower case.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    if text.contains(':') {
        return Err(Wrong::new(
            "must be a host name without a port or scheme",
            "write the name alone, such as \"shop.example.com\"; the port is the listener's",
        ));
    }
    if !text.is_ascii() {
        return Err(Wrong::new(
            "must be a host name in ASCII",
            "write it as browsers send it, with xn-- in front of each such label",
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let good_label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(allowed);
    if text.len() <= HOST_MAX && text.split('.').all(good_label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Wrong::new("must be a host name", "write a name such as \"shop.example.com\""))
}

/// The Host header that a health check sends: a host, with a port where the server wants one.
pub(super) fn host_header(text: &str) -> Result<String, Wrong> {
    let bare = match text.rsplit_once(':') {
        Some((bare, port)) if port.parse::<u16>().is_ok() => bare,
        _ => text,
    };
    let is_ipv6 = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']'));
    if is_ipv6.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok()) {
        return Ok(text.to_ascii_lowercase());
    }
    host(bare)
        .map(|_| text.to_ascii_lowercase())
        .map_err(|_| Wrong::new("must be a host name, with a port or without", "write a name such as \"app.internal\""))
}

/// What a health check asks for: a path, with a query where the server wants one.
pub(super) fn path(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        return Err(Wrong::new("must begin with '/'", format!("write \"/{}\"", super::report::shortened(text, 40))));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Wrong::new(
            "must be printable ASCII without spaces",
            "write other characters as clients send them, such as %20 for a space",
        ));
    }
    if text.contains('#') {
        return Err(Wrong::new("must not have a fragment", "leave out everything from the '#' on"));
    }
    if text.len() > PATH_MAX {
        return Err(Wrong::new(format!("must be at most {PATH_MAX} characters"), "choose a shorter path"));
    }
    Ok(text.to_owned())
}

/// The name of a cookie: a token (RFC 6265 section 4.1.1, RFC 9110 section 5.6.2).
pub(super) fn cookie_name(text: &str) -> Result<String, Wrong> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(token) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        "must be a cookie name: 1 to 64 characters, no spaces, quotes, commas, semicolons or equals signs",
        "write a name such as \"BATON\"",
    ))
}

/// The path that a cookie is for: it ends at a semicolon (RFC 6265 section 5.2.4).
pub(super) fn cookie_path(text: &str) -> Result<String, Wrong> {
    let path = path(text)?;
    if path.contains([';', '?']) {
        return Err(Wrong::new("must be a path without ';' and without a query", "write a path such as \"/shop\""));
    }
    Ok(path)
}

/// The domain that a cookie is for. Browsers drop a dot in front of it (RFC 6265 section 5.2.3), so nobody needs one.
pub(super) fn cookie_domain(text: &str) -> Result<String, Wrong> {
    host(text).map_err(|_| {
        Wrong::new(
            "must be a domain, without a dot in front and without a port",
            "write a domain such as \"example.com\"",
        )
    })
}

/// The name of a field of a request's head, in lower case (RFC 9110 section 5.1).
pub(super) fn header_name(text: &str) -> Result<String, Wrong> {
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if text.len() <= 64 => Ok(name.as_str().to_owned()),
        _ => Err(Wrong::new(
            "must be the name of a header: 1 to 64 characters, no spaces, colons, quotes or commas",
            "write a name such as \"X-User\"",
        )),
    }
}

/// Fields that frame a message or are for one connection alone: who copied them would change what a request is.
const FIELDS_OF_FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// The name of a field that can be set and copied, in lower case.
pub(super) fn free_header_name(text: &str) -> Result<String, Wrong> {
    let name = header_name(text)?;
    if FIELDS_OF_FRAMING.contains(&name.as_str()) {
        return Err(Wrong::new("must not be a header that HTTP itself needs", "name another header"));
    }
    Ok(name)
}

/// The name of a parameter of a query, as clients write it.
pub(super) fn query_name(text: &str) -> Result<String, Wrong> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"&=#?;".contains(&byte);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        "must be the name of a query parameter: 1 to 64 characters, no spaces, '&', '=', '#', '?' or ';'",
        "write a name such as \"user\", spelt as clients send it",
    ))
}

/// A path of this machine, as it is written.
pub(super) fn file(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(Wrong::new("must be the path of a file", "write a path such as \"/etc/baton/pair.key\""));
    }
    Ok(text.to_owned())
}

/// Bytes of a program's path (the kernel's PATH_MAX) and of one of its arguments.
const ARGUMENT_MAX: usize = 4096;

/// A program to run: an absolute path, because there is no shell that would search for it.
pub(super) fn program(text: &str) -> Result<String, Wrong> {
    if text.starts_with('/') && text.len() < ARGUMENT_MAX && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        "must be the absolute path of a program",
        "write a path such as \"/usr/local/bin/check\"; a shell is run only where one is named: [\"/bin/sh\", \"-c\", \"…\"]",
    ))
}

/// An argument of a program, handed over as it is.
pub(super) fn argument(text: &str) -> Result<String, Wrong> {
    if text.len() < ARGUMENT_MAX && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("must be an argument of at most 4095 bytes, without a zero byte", "put long input into a file"))
}

/// The name of a process as the kernel keeps it (TASK_COMM_LEN less its terminator).
pub(super) fn process(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= 15 && !text.starts_with('/') && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        "must be the name of a process as the kernel keeps it, 1 to 15 bytes",
        "write what `ps -o comm` shows for it; the kernel cuts longer names after 15 bytes",
    ))
}

/// Characters of a URL; as much as servers commonly take.
const URL_MAX: usize = 2048;

/// A URL to post to.
pub(super) fn webhook(text: &str) -> Result<String, Wrong> {
    let wrong = |rule: &str| Wrong::new(rule, "write a URL such as \"https://hooks.example.com/baton\"");
    if text.len() > URL_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("must be at most 2048 characters of printable ASCII without spaces"));
    }
    let url: http::Uri = text.parse().map_err(|_| wrong("must be a URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("must begin with http:// or https://"));
    }
    if text.contains('#') {
        return Err(wrong("must not have a fragment"));
    }
    let Some(authority) = url.authority().filter(|authority| !authority.host().is_empty()) else {
        return Err(wrong("must name a host"));
    };
    if authority.as_str().contains('@') {
        return Err(wrong("must not hold a user or a password"));
    }
    let has_port = authority.as_str().len() > authority.host().len();
    if has_port && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong("the port must be 1 to 65535"));
    }
    Ok(text.to_owned())
}

/// The name of a user of the system.
pub(super) fn user(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, ':' | '/');
    if !text.is_empty() && text.len() <= 32 && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("must be the name of a user, 1 to 32 characters", "write a name such as \"baton\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_to_the_nanosecond() {
        let read = |text| duration(text).ok().map(|duration| duration.as_nanos());
        assert_eq!(read("100ms"), Some(100_000_000));
        assert_eq!(read("2s"), Some(2_000_000_000));
        assert_eq!(read("1m"), Some(60_000_000_000));
        assert_eq!(read("1h"), Some(3_600_000_000_000));
        assert_eq!(read("40.95s"), Some(40_950_000_000));
        assert_eq!(read("0.5ms"), Some(500_000));
        assert_eq!(read("0s"), Some(0));
        assert_eq!(read("1.123456789s"), Some(1_123_456_789));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "5", "s", ".5s", "5.s", "1.2.3s", "-1s", "1 s", "1d", "1h30m", "1S", "99999999999999999999s", "1e3s"]
        {
            assert!(duration(text).is_err(), "{text:?} was accepted");
        }
        assert!(duration("5124096h").is_err(), "more nanoseconds than 64 bits hold");
    }

    #[test]
    fn durations_are_written_in_the_largest_whole_unit() {
        let text = |ms| duration_text(Duration::from_millis(ms));
        assert_eq!(text(0), "0ms");
        assert_eq!(text(100), "100ms");
        assert_eq!(text(2000), "2s");
        assert_eq!(text(40_950), "40.95s");
        assert_eq!(text(60_000), "1m");
        assert_eq!(text(90_000), "90s");
        assert_eq!(text(3_600_000), "1h");
        assert_eq!(duration_text(Duration::from_micros(1500)), "0.0015s");
    }

    #[test]
    fn names_begin_with_a_letter_or_digit() {
        assert!(name("app-1.web_2").is_ok());
        assert!(name(&"a".repeat(63)).is_ok());
        for text in ["", "-a", ".a", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(name(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn virtual_addresses_are_usable_ipv4_addresses() {
        let read = |text| vip_address(text).map(|network| network.to_string()).map_err(|wrong| wrong.rule);
        assert_eq!(read("192.0.2.100/24"), Ok("192.0.2.100/24".to_owned()));
        assert_eq!(read("192.0.2.0/31"), Ok("192.0.2.0/31".to_owned()));
        assert_eq!(read("192.0.2.0/32"), Ok("192.0.2.0/32".to_owned()));
        assert!(read("192.0.2.0/24").is_err_and(|rule| rule.contains("own address")));
        assert!(read("192.0.2.255/24").is_err_and(|rule| rule.contains("broadcast")));
        assert!(read("192.0.2.100/0").is_err_and(|rule| rule.contains("1 to 32")));
        assert!(read("192.0.2.100/33").is_err_and(|rule| rule.contains("1 to 32")));
        assert!(read("192.0.2.100/+24").is_err_and(|rule| rule.contains("1 to 32")));
        assert!(read("192.0.2.100").is_err_and(|rule| rule.contains("prefix length")));
    }

    #[test]
    fn virtual_addresses_are_usable_ipv6_addresses() {
        let read = |text| vip_address(text).map(|network| network.to_string()).map_err(|wrong| wrong.rule);
        assert_eq!(read("2001:db8::100/64"), Ok("2001:db8::100/64".to_owned()));
        assert_eq!(read("2001:DB8:0::1/1"), Ok("2001:db8::1/1".to_owned()));
        assert_eq!(read("2001:db8::/127"), Ok("2001:db8::/127".to_owned()));
        assert_eq!(read("2001:db8::/128"), Ok("2001:db8::/128".to_owned()));
        assert_eq!(read("fe80::51/64"), Ok("fe80::51/64".to_owned()));
        assert!(read("2001:db8::/64").is_err_and(|rule| rule.contains("anycast")));
        assert!(read("2001:db8::2/126").is_ok());
        assert!(read("2001:db8::4/126").is_err_and(|rule| rule.contains("anycast")));
        assert!(read("2001:db8::1/0").is_err_and(|rule| rule.contains("1 to 128")));
        assert!(read("2001:db8::1/129").is_err_and(|rule| rule.contains("1 to 128")));
        assert!(read("2001:db8::1").is_err_and(|rule| rule.contains("prefix length")));
        assert!(read("::1/128").is_err_and(|rule| rule.contains("not a loopback")));
        assert!(read("::/64").is_err_and(|rule| rule.contains("not the unspecified")));
        assert!(read("ff02::12/64").is_err_and(|rule| rule.contains("not a multicast")));
        assert!(read("::ffff:192.0.2.1/128").is_err_and(|rule| rule.contains("IPv4 address in IPv6 form")));
        assert!(read("fe80::51%eth0/64").is_err_and(|rule| rule.contains("must be an IP address")));
    }

    #[test]
    fn node_addresses_mean_one_machine_on_every_link() {
        let read = |text| node_address(text).map(|address| address.to_string()).map_err(|wrong| wrong.rule);
        assert_eq!(read("192.0.2.11"), Ok("192.0.2.11".to_owned()));
        assert_eq!(read("2001:db8::11"), Ok("2001:db8::11".to_owned()));
        assert_eq!(read("fd00::11"), Ok("fd00::11".to_owned()));
        assert!(read("fe80::11").is_err_and(|rule| rule.contains("not a link-local")));
        assert!(read("::ffff:192.0.2.11").is_err_and(|rule| rule.contains("IPv4 address in IPv6 form")));
    }

    #[test]
    fn webhooks_are_urls_with_a_host() {
        for text in ["http://h/", "https://hooks.example.com/a?b=c", "http://[2001:db8::1]:8080/x", "http://192.0.2.1"]
        {
            assert!(webhook(text).is_ok(), "{text:?} was refused");
        }
        let long = format!("http://h/{}", "a".repeat(2048 - 9));
        assert!(webhook(&long).is_ok());
        for text in [
            "",
            "/x",
            "hooks.example.com",
            "ftp://h/",
            "http://",
            "http:///x",
            "http://a b/",
            "http://h:0/",
            "http://h:65536/",
            "http://u:p@h/",
            "http://h/#x",
            &format!("{long}a"),
        ] {
            assert!(webhook(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn programs_are_absolute_and_process_names_short() {
        assert!(program("/bin/true").is_ok());
        assert!(program("true").is_err());
        assert!(program("/bin/\0").is_err());
        assert!(argument("").is_ok());
        assert!(argument(&"x".repeat(4095)).is_ok());
        assert!(argument(&"x".repeat(4096)).is_err());
        assert!(process("fifteen-bytes-l").is_ok());
        assert!(process("sixteen-bytes-lo").is_err());
        assert!(process("").is_err());
        assert!(process("/sbin/init").is_err());
    }

    #[test]
    fn host_headers_may_have_a_port() {
        assert_eq!(host_header("App.Internal:8080"), Ok("app.internal:8080".to_owned()));
        assert_eq!(host_header("[2001:db8::1]:80"), Ok("[2001:db8::1]:80".to_owned()));
        assert!(host_header("app internal").is_err());
        assert!(host_header("a:b").is_err());
    }
}
