//! Reads how a pool picks its servers: `algorithm`, `[pool.hash]`, `[pool.resource]`.

use std::time::Duration;

use super::model::{Algorithm, ConsistentHash, HashKey, ResourceReports};
use super::reader::Table;
use super::report::Located;
use super::values;

const FACTOR_MIN: u32 = 100;
const FACTOR_MAX: u32 = 10_000;
const MAX_AGE_MIN: Duration = Duration::from_millis(100);
const MAX_AGE_MAX: Duration = Duration::from_secs(3600);
const MAX_AGE_DEFAULT: Duration = Duration::from_secs(10);
/// As servers that speak ORCA have it.
const HEADER_DEFAULT: &str = "endpoint-load-metrics";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    RoundRobin,
    WeightedRoundRobin,
    LeastConnections,
    LeastResponseTime,
    IpHash,
    ConsistentHash,
    Random,
    PowerOfTwo,
    Resource,
}

const WORDS: [(&str, Word); 9] = [
    ("round_robin", Word::RoundRobin),
    ("weighted_round_robin", Word::WeightedRoundRobin),
    ("least_connections", Word::LeastConnections),
    ("least_response_time", Word::LeastResponseTime),
    ("ip_hash", Word::IpHash),
    ("consistent_hash", Word::ConsistentHash),
    ("random", Word::Random),
    ("power_of_two", Word::PowerOfTwo),
    ("resource", Word::Resource),
];

/// What is hashed, as the file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashOn {
    Address,
    Header,
    Cookie,
    Query,
    Path,
}

const HASH_ON: [(&str, HashOn); 5] = [
    ("address", HashOn::Address),
    ("header", HashOn::Header),
    ("cookie", HashOn::Cookie),
    ("query", HashOn::Query),
    ("path", HashOn::Path),
];

impl HashOn {
    /// As the file has it.
    pub(super) fn word(self) -> &'static str {
        HASH_ON.iter().find(|(_, on)| *on == self).map_or("", |(word, _)| word)
    }
}

/// Reads the algorithm of a `[[pool]]`; with what it hashes, where that is written.
pub(super) fn algorithm(table: &mut Table<'_>) -> (Algorithm, Option<Located<HashOn>>) {
    let word = table.written("algorithm", |value| value.choice(&WORDS, &[])).or_default(Word::RoundRobin);
    let Some(word) = word else {
        table.skip(&["hash", "resource"]);
        return (Algorithm::RoundRobin, None);
    };
    if word != Word::ConsistentHash {
        let remedy = "leave it out, or write algorithm = \"consistent_hash\"";
        table.without_meaning(&["hash"], "has no meaning without algorithm = \"consistent_hash\"", remedy);
    }
    if word != Word::Resource {
        let remedy = "leave it out, or write algorithm = \"resource\"";
        table.without_meaning(&["resource"], "has no meaning without algorithm = \"resource\"", remedy);
    }
    let algorithm = match word {
        Word::RoundRobin => Algorithm::RoundRobin,
        Word::WeightedRoundRobin => Algorithm::WeightedRoundRobin,
        Word::LeastConnections => Algorithm::LeastConnections,
        Word::LeastResponseTime => Algorithm::LeastResponseTime,
        Word::IpHash => Algorithm::IpHash,
        Word::ConsistentHash => {
            let (hash, on) = table.block("hash").map_or((None, None), hash);
            let hash = hash.unwrap_or(ConsistentHash { key: HashKey::Address, balance_factor: None });
            return (Algorithm::ConsistentHash(hash), on);
        }
        Word::Random => Algorithm::Random,
        Word::PowerOfTwo => Algorithm::PowerOfTwo,
        Word::Resource => Algorithm::Resource(resource(table.block("resource"))),
    };
    (algorithm, None)
}

fn hash(mut table: Table<'_>) -> (Option<ConsistentHash>, Option<Located<HashOn>>) {
    let on = table.written("on", |value| value.choice(&HASH_ON, &[]));
    let kind = on.or_default(HashOn::Address);
    let balance_factor = table.optional("balance_factor").and_then(|value| value.integer(FACTOR_MIN..=FACTOR_MAX));
    let key = match kind {
        None => {
            table.skip(&["name"]);
            None
        }
        Some(HashOn::Address | HashOn::Path) => {
            let rule = "has no meaning with on = \"address\" and on = \"path\"";
            table.without_meaning(&["name"], rule, "leave it out, or write on = \"header\", \"cookie\" or \"query\"");
            Some(if kind == Some(HashOn::Path) { HashKey::Path } else { HashKey::Address })
        }
        Some(HashOn::Header) => table
            .required("name", "name the header, such as \"X-User\"")
            .and_then(|value| value.parsed(values::header_name))
            .map(|name| HashKey::Header { name: name.value }),
        Some(HashOn::Cookie) => table
            .required("name", "name the cookie, such as \"SESSION\"")
            .and_then(|value| value.parsed(values::cookie_name))
            .map(|name| HashKey::Cookie { name: name.value }),
        Some(HashOn::Query) => table
            .required("name", "name the query parameter, such as \"user\"")
            .and_then(|value| value.parsed(values::query_name))
            .map(|name| HashKey::Query { name: name.value }),
    };
    table.finish();
    let balance_factor = balance_factor.map(|found| found.value);
    (key.map(|key| ConsistentHash { key, balance_factor }), on.into_known())
}

fn resource(table: Option<Table<'_>>) -> ResourceReports {
    let mut reports = ResourceReports { header: HEADER_DEFAULT.to_owned(), max_age: MAX_AGE_DEFAULT };
    let Some(mut table) = table else { return reports };
    if let Some(header) = table.optional("header").and_then(|value| value.parsed(values::header_name)) {
        reports.header = header.value;
    }
    reports.max_age = table.duration("max_age", MAX_AGE_MIN..=MAX_AGE_MAX, MAX_AGE_DEFAULT);
    table.finish();
    reports
}
