//! Sets of addresses, written as networks: who is trusted, who may come in. Core.
//!
//! Networks become ranges that are sorted and do not overlap, so that a look-up takes 20 steps among a million of them.

use std::net::IpAddr;

use super::IpNetwork;

/// Networks that one set is made of; more are refused where a list is read.
pub const NETWORKS_MAX: usize = 1_000_000;

/// The addresses of some networks. An IPv4 address in IPv6 form is an IPv4 address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Vec<Range<u32>>,
    v6: Vec<Range<u128>>,
}

/// Both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range<T> {
    first: T,
    last: T,
}

/// Why something is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor an address with a length.
    #[error("is no address and no network")]
    Malformed,
    /// The length of the prefix is too long for the address.
    #[error("has a prefix length over {max}")]
    PrefixLen {
        /// The longest that there is: 32 or 128.
        max: u8,
    },
    /// Bits behind the prefix are set, so that one of both is wrong.
    #[error("has bits set behind its prefix; the network is {0}")]
    HostBits(IpNetwork),
    /// An IPv4 address in IPv6 form, which no client has.
    #[error("is an IPv4 network in IPv6 form; write it as IPv4")]
    Mapped,
}

/// What is wrong with a list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A line of it.
    #[error("line {line}: \"{text}\" {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// What stands there, at most 60 characters of it.
        text: String,
        /// What is wrong with it.
        reason: NetworkError,
    },
    /// It is no text.
    #[error("line {line} is not UTF-8")]
    NotText {
        /// From 1.
        line: usize,
    },
    /// Over [`NETWORKS_MAX`].
    #[error("has more than {NETWORKS_MAX} networks")]
    TooLong,
}

/// Reads `192.0.2.0/24`, or an address that stands for itself.
///
/// # Errors
/// When it is none, or more is said than a network is.
pub fn parse_network(text: &str) -> Result<IpNetwork, NetworkError> {
    let (address, prefix_len) = match text.split_once('/') {
        Some((address, prefix_len)) => (address, Some(prefix_len)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
    if address.to_canonical() != address {
        return Err(NetworkError::Mapped);
    }
    let max = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = match prefix_len {
        None => max,
        Some(digits) if !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| NetworkError::PrefixLen { max })?
        }
        Some(_) => return Err(NetworkError::Malformed),
    };
    let network = IpNetwork::new(address, prefix_len).ok_or(NetworkError::PrefixLen { max })?;
    let whole = network.first_address();
    match IpNetwork::new(whole, prefix_len) {
        Some(meant) if whole != address => Err(NetworkError::HostBits(meant)),
        _ => Ok(network),
    }
}

/// Reads a list: one network a line, comments from `#` or `;` to the end of a line, empty lines.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse_list(bytes: &[u8]) -> Result<Vec<IpNetwork>, ListError> {
    let mut networks = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.split(|byte| matches!(byte, b'#' | b';')).next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_| ListError::NotText { line: index + 1 })?;
        let wrong = |reason| ListError::Line { line: index + 1, text: text.chars().take(60).collect(), reason };
        networks.push(parse_network(text).map_err(wrong)?);
        if networks.len() > NETWORKS_MAX {
            return Err(ListError::TooLong);
        }
    }
    Ok(networks)
}

impl NetworkSet {
    /// The addresses of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNetwork>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match (network.first_address(), network.last_address()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    v4.push(Range { first: first.to_bits(), last: last.to_bits() })
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    v6.push(Range { first: first.to_bits(), last: last.to_bits() })
                }
                // The ends of a network are of one family.
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
            }
        }
        Self { v4: joined(v4), v6: joined(v6) }
    }

    /// Whether an address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_in(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_in(&self.v6, address.to_bits()),
        }
    }

    /// Whether no address belongs to it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Sorts ranges and joins those that overlap: as networks they are nested or apart.
fn joined<T: Copy + Ord>(mut ranges: Vec<Range<T>>) -> Vec<Range<T>> {
    ranges.sort_unstable_by_key(|range| range.first);
    ranges.dedup_by(|next, kept| {
        let overlaps = next.first <= kept.last;
        if overlaps {
            kept.last = kept.last.max(next.last);
        }
        overlaps
    });
    ranges.shrink_to_fit();
    ranges
}

fn is_in<T: Copy + Ord>(ranges: &[Range<T>], address: T) -> bool {
    let before = ranges.partition_point(|range| range.first <= address);
    let candidate = before.checked_sub(1).and_then(|index| ranges.get(index));
    candidate.is_some_and(|range| address <= range.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(networks: &[&str]) -> NetworkSet {
        NetworkSet::new(networks.iter().map(|text| parse_network(text).unwrap()))
    }

    fn has(set: &NetworkSet, address: &str) -> bool {
        set.contains(address.parse().unwrap())
    }

    #[test]
    fn both_ends_of_a_network_belong_to_it_and_their_neighbours_do_not() {
        let set = set(&["192.0.2.0/25", "2001:db8::/33", "198.51.100.7"]);
        for inside in ["192.0.2.0", "192.0.2.127", "2001:db8::", "2001:db8:7fff:ffff::1", "198.51.100.7"] {
            assert!(has(&set, inside), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.2.128", "2001:db7:ffff::", "2001:db8:8000::", "198.51.100.6"] {
            assert!(!has(&set, outside), "{outside}");
        }
    }

    #[test]
    fn families_are_apart_but_for_mapped_addresses() {
        let v4 = set(&["0.0.0.0/0"]);
        assert!(has(&v4, "255.255.255.255") && has(&v4, "::ffff:192.0.2.1"));
        assert!(!has(&v4, "::1"));
        let v6 = set(&["::/0"]);
        assert!(has(&v6, "ffff::") && !has(&v6, "192.0.2.1") && !has(&v6, "::ffff:192.0.2.1"));
        assert!(NetworkSet::default().is_empty() && !v6.is_empty());
    }

    #[test]
    fn nested_networks_are_one() {
        let set = set(&["10.1.0.0/16", "10.0.0.0/8", "10.0.0.1", "11.0.0.0/8", "10.255.255.255/32"]);
        assert_eq!(set.v4.len(), 2);
        assert!(has(&set, "10.200.0.1") && has(&set, "11.0.0.0") && !has(&set, "12.0.0.0"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        let parse = |text: &str| parse_network(text).map(|network| network.to_string());
        assert_eq!(parse("2001:db8::/32"), Ok("2001:db8::/32".to_owned()));
        assert_eq!(parse("192.0.2.1"), Ok("192.0.2.1/32".to_owned()));
        for text in
            ["", "/", "192.0.2.0/", "192.0.2/24", "192.0.2.0/+24", "192.0.2.0/ 24", "192.0.2.0/2400", "a", "::g"]
        {
            assert_eq!(parse(text), Err(NetworkError::Malformed), "{text:?}");
        }
        assert_eq!(parse("192.0.2.0/33"), Err(NetworkError::PrefixLen { max: 32 }));
        assert_eq!(parse("2001:db8::/129"), Err(NetworkError::PrefixLen { max: 128 }));
        assert_eq!(parse("2001:db8::/999"), Err(NetworkError::PrefixLen { max: 128 }));
        assert_eq!(parse("::ffff:192.0.2.0/120"), Err(NetworkError::Mapped));
        let error = parse("192.0.2.1/24").unwrap_err();
        assert_eq!(error.to_string(), "has bits set behind its prefix; the network is 192.0.2.0/24");
    }

    #[test]
    fn lists_have_one_network_a_line_and_comments() {
        let list = b"# who\r\n\n10.0.0.0/8 ; SBL1\n  2001:db8::/32# two\r\n192.0.2.1";
        let networks: Vec<_> = parse_list(list).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]);
        assert_eq!(parse_list(b""), Ok(Vec::new()));
        let error = parse_list(b"10.0.0.0/8\n10.0.0.0 10.0.0.1\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2: \"10.0.0.0 10.0.0.1\" is no address and no network");
        assert_eq!(parse_list(b"\n\xff\n").unwrap_err(), ListError::NotText { line: 2 });
        let long = "10.0.0.1\n".repeat(NETWORKS_MAX);
        assert_eq!(parse_list(long.as_bytes()).map(|list| list.len()), Ok(NETWORKS_MAX));
        assert_eq!(parse_list(format!("{long}10.0.0.1").as_bytes()), Err(ListError::TooLong));
    }

    #[test]
    fn sorted_ranges_say_the_same_as_each_network_by_itself() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
        eprintln!("SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let address = |rng: &mut fastrand::Rng| std::net::Ipv4Addr::from_bits(rng.u32(..) & 0x0f00_ff03);
            let networks: Vec<IpNetwork> =
                (0..rng.usize(..60)).filter_map(|_| IpNetwork::new(address(&mut rng), rng.u8(..=32))).collect();
            let set = NetworkSet::new(networks.iter().copied());
            for _ in 0..100 {
                let address = address(&mut rng);
                let is_in = |network: &IpNetwork| {
                    let shift = 32 - u32::from(network.prefix_len());
                    let IpAddr::V4(base) = network.address() else { return false };
                    u64::from(base.to_bits()) >> shift == u64::from(address.to_bits()) >> shift
                };
                assert_eq!(set.contains(address.into()), networks.iter().any(is_in), "{address} in {networks:?}");
            }
        }
    }
}
