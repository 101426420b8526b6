//! What a route asks of a request besides host and path.

use http::{HeaderName, header};
use regex::bytes::Regex;

use super::Asked;
use super::path::hex_value;
use crate::config::{FieldMatch, RouteMatch, ValueMatch, expression, is_in};
use crate::session::cookie::cookie_values;
use crate::units::IpNetwork;

/// The further conditions of a route. None hold by default.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    methods: Vec<String>,
    sources: Vec<IpNetwork>,
    headers: Vec<(HeaderName, Value)>,
    query: Vec<(String, Value)>,
    cookies: Vec<(String, Value)>,
}

#[derive(Debug, Clone)]
enum Value {
    Present,
    Absent,
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Regex(Regex),
    /// An expression that does not compile, which the check refuses: matches nothing.
    Never,
}

impl Rule {
    /// Prepares what the configuration says.
    pub(super) fn new(matches: &RouteMatch) -> Self {
        let by_name = |fields: &[FieldMatch]| {
            fields.iter().map(|field| (field.name.clone(), Value::new(&field.value))).collect::<Vec<_>>()
        };
        let headers = matches.headers.iter().map(|field| {
            // The name was checked; of one that is none, nothing is ever present.
            let name = HeaderName::from_bytes(field.name.as_bytes());
            (name.unwrap_or(HeaderName::from_static("x-baton-no-such-header")), Value::new(&field.value))
        });
        Self {
            methods: matches.methods.clone(),
            sources: matches.sources.clone(),
            headers: headers.collect(),
            query: by_name(&matches.query),
            cookies: by_name(&matches.cookies),
        }
    }

    /// Whether all of it is so.
    pub(super) fn holds(&self, asked: &Asked<'_>, scratch: &mut Vec<u8>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|method| method == asked.method))
            && (self.sources.is_empty() || is_in(&self.sources, asked.ip))
            && self.headers.iter().all(|(name, value)| {
                value.is_any_of(asked.headers.get_all(name).iter().map(|field| field.as_bytes().trim_ascii()))
            })
            && self.cookies.iter().all(|(name, value)| {
                let fields = asked.headers.get_all(header::COOKIE).iter();
                value.is_any_of(fields.flat_map(|field| cookie_values(field.as_bytes(), name)))
            })
            && self.query.iter().all(|(name, value)| value.is_any_parameter(asked.query, name, scratch))
    }
}

impl Value {
    fn new(wanted: &ValueMatch) -> Self {
        match wanted {
            ValueMatch::Present => Value::Present,
            ValueMatch::Absent => Value::Absent,
            ValueMatch::Exact(text) => Value::Exact(text.clone().into_bytes()),
            ValueMatch::Prefix(text) => Value::Prefix(text.clone().into_bytes()),
            ValueMatch::Regex(written) => expression(written).map_or(Value::Never, Value::Regex),
        }
    }

    fn is_any_of<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            Value::Absent => values.next().is_none(),
            wanted => values.any(|value| wanted.is(value)),
        }
    }

    fn is(&self, value: &[u8]) -> bool {
        match self {
            Value::Present => true,
            Value::Absent | Value::Never => false,
            Value::Exact(wanted) => wanted == value,
            Value::Prefix(wanted) => value.starts_with(wanted),
            Value::Regex(regex) => regex.is_match(value),
        }
    }

    /// The same for a parameter of a query, whose name and value are compared with their escapes resolved: whoever writes
    /// `%75ser=` means `user=`.
    fn is_any_parameter(&self, query: &str, name: &str, scratch: &mut Vec<u8>) -> bool {
        let mut is_there = false;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !decoded(key).eq(name.bytes()) {
                continue;
            }
            is_there = true;
            scratch.clear();
            scratch.extend(decoded(value));
            if self.is(scratch) {
                return true;
            }
        }
        matches!(self, Value::Absent) && !is_there
    }
}

/// What a part of a query means: escapes resolved, `+` a space (WHATWG URL, application/x-www-form-urlencoded). What is no
/// escape stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [] => return None,
            [b'%', high, low, after @ ..] => match hex_value(*high).zip(hex_value(*low)) {
                Some((high, low)) => (high << 4 | low, after),
                None => (b'%', rest.get(1..).unwrap_or_default()),
            },
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
        };
        rest = after;
        Some(byte)
    })
}
