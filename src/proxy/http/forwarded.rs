//! The fields that say whose request it is: X-Forwarded-For, and Forwarded (RFC 7239). Core.
//!
//! Each proxy on the way adds at the end of a list whom it got the request from. Only what trusted proxies added counts, so
//! a list is read from its end: [`client_of`] walks back over trusted addresses to the first one that is none.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use crate::units::networks::NetworkSet;

#[cfg(test)]
mod tests;

/// Proxies that a request may have come through; what lies further back is not looked at.
pub const HOPS_MAX: usize = 32;

/// An element of Forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element<'a> {
    /// Whom the proxy got the request from.
    pub for_node: Option<Cow<'a, str>>,
    /// How: `http` or `https`.
    pub proto: Option<Cow<'a, str>>,
    /// The Host field as it was.
    pub host: Option<Cow<'a, str>>,
}

/// The address of a node: of an IP address with a port or without, IPv6 in brackets or without. `None` for `unknown`, for
/// names that hide the address (RFC 7239 section 6.3), and for what is none.
pub fn node_address(node: &str) -> Option<IpAddr> {
    let address = if let Some(rest) = node.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_node_port);
        IpAddr::V6(address.parse::<Ipv6Addr>().ok().filter(|_| is_port)?)
    } else if let Ok(address) = node.parse::<IpAddr>() {
        address
    } else {
        let (address, port) = node.split_once(':')?;
        IpAddr::V4(address.parse().ok().filter(|_| is_node_port(port))?)
    };
    Some(address.to_canonical())
}

/// A number, or a name that hides it (RFC 7239 section 6).
fn is_node_port(port: &str) -> bool {
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let hidden = port.strip_prefix('_').unwrap_or_default();
    is_number
        || (!hidden.is_empty() && hidden.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)))
}

/// Who the client is: `peer` where that is no trusted proxy, else the last of the nodes that is none, `nodes` being in the
/// order of the list. A node without an address ends the search: whoever is behind it, the proxy that said so answers for it.
pub fn client_of<'a>(peer: IpAddr, trusted: &NetworkSet, nodes: impl Iterator<Item = Option<&'a str>>) -> IpAddr {
    let mut client = peer;
    for node in nodes.take(HOPS_MAX) {
        if !trusted.contains(client) {
            break;
        }
        match node.and_then(node_address) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// The nodes of a list of X-Forwarded-For, the last one first.
pub fn listed_backwards(list: &str) -> impl Iterator<Item = Option<&str>> {
    let nodes = list.rsplit(',').map(|node| node.trim_matches([' ', '\t']));
    nodes.filter(|node| !node.is_empty()).map(Some)
}

/// Reads a list of Forwarded (RFC 7239 section 4). `None` where it is none: it could be understood in more than one way, and
/// what is written behind it could be part of a string that it leaves open.
pub fn parse(list: &str) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    let mut rest = list;
    loop {
        let (element, behind) = parse_element(rest)?;
        elements.extend(element);
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None => return behind.is_empty().then_some(elements),
        }
    }
}

/// An element, up to a comma or the end. Empty ones are passed over (RFC 9110 section 5.6.1).
fn parse_element(text: &str) -> Option<(Option<Element<'_>>, &str)> {
    let mut element = Element::default();
    let mut rest = skip_spaces(text);
    if rest.is_empty() || rest.starts_with(',') {
        return Some((None, rest));
    }
    loop {
        // Empty pairs are allowed by no grammar, and written by some.
        if !rest.starts_with([';', ',']) && !rest.is_empty() {
            let (name, value, behind) = parse_pair(rest)?;
            let field = match name.to_ascii_lowercase().as_str() {
                "for" => Some(&mut element.for_node),
                "proto" => Some(&mut element.proto),
                "host" => Some(&mut element.host),
                _ => None,
            };
            // A parameter may stand once (section 4).
            if field.is_some_and(|field| field.replace(value).is_some()) {
                return None;
            }
            rest = skip_spaces(behind);
        }
        match rest.strip_prefix(';') {
            Some(next) => rest = skip_spaces(next),
            None => return Some((Some(element), rest)),
        }
    }
}

fn parse_pair(text: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (name, rest) = split_token(text)?;
    let rest = rest.strip_prefix('=')?;
    match rest.strip_prefix('"') {
        Some(quoted) => {
            let (value, rest) = parse_quoted(quoted)?;
            Some((name, value, rest))
        }
        None => {
            let (value, rest) = split_token(rest)?;
            Some((name, Cow::Borrowed(value), rest))
        }
    }
}

/// What stands behind the opening quote (RFC 9110 section 5.6.4).
fn parse_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = Cow::Borrowed("");
    let mut rest = text;
    loop {
        let end = rest.find(['"', '\\'])?;
        let (plain, behind) = rest.split_at_checked(end)?;
        if value.is_empty() {
            value = Cow::Borrowed(plain);
        } else {
            value.to_mut().push_str(plain);
        }
        if let Some(behind) = behind.strip_prefix('"') {
            return Some((value, behind));
        }
        let mut characters = behind.strip_prefix('\\')?.chars();
        value.to_mut().push(characters.next()?);
        rest = characters.as_str();
    }
}

fn split_token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// An element that says whom we got a request from.
pub fn element(address: IpAddr, proto: &str, host: Option<&str>) -> String {
    let mut text = match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    if let Some(host) = host {
        text.push_str(";host=");
        push_value(&mut text, host);
    }
    // Writing to a String cannot fail.
    let _ = write!(text, ";proto={proto}");
    text
}

/// A value as it stands in a list, in quotes where it has to.
fn push_value(text: &mut String, value: &str) {
    if !value.is_empty() && value.bytes().all(is_token) {
        return text.push_str(value);
    }
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}
