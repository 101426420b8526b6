//! The witness: a third place that says which of two nodes may hold a VIP while they cannot hear each other.
//!
//! It lends each VIP of a pair to one node at a time, for a short time. [`Server`] is the table of the witness, [`Client`]
//! what a node knows of its lease; this file is the datagram that both speak. `crate::witness` and `guard::leases` are
//! the shells.
//!
//! # Why no two nodes hold a lease at once
//! * The witness lends a VIP to nobody else before the time it gave has passed on its own clock, and a little more in
//!   case the clocks run at different speeds. The node counts that time from the moment at which it *asked*, which was
//!   earlier. So the node always believes in its lease for a shorter time than the witness does.
//! * A witness that has just started does not know what the one before it gave. For [`QUIET`], longer than anything is
//!   lent, it lends only to a node that says that it holds the lease: the old witness lent to one node, so
//!   one node at most can say so. It says so to the new witness, by whose start the old one had ended.
//! * Nobody without the key can make the witness lend, refuse or forget: every datagram ends in a MAC. An answer repeats
//!   number and boot of its request, so that an old one answers nothing. A request repeats the last `stamp` that the
//!   witness told, which must be of this run of the witness and younger than [`FRESH`]; of one node's requests the witness takes none that is
//!   older than the last one taken. So a recorded request does nothing, and neither does one that comes out of order.
//!
//! Three things it takes on trust: that one witness runs at a time, that who has the key is no enemy, and that no node's
//! clock stands still while the others' run, as that of a virtual machine can that is paused from outside.
//!
//! # The datagram
//! Always 196 bytes, so that an answer is never longer than what asked for it. Numbers are big-endian.
//!
//! | offset | bytes | in a request | in an answer |
//! |---|---|---|---|
//! | 0 | 4 | `BTNW` | same |
//! | 4 | 1 | version, 1 | same |
//! | 5 | 1 | kind: ask 1, give back 2, look 3 | granted 129, refused 130, free 131, stale 132, starting 133, full 134 |
//! | 6 | 1 | 1: the node holds the lease, by its own count | 0 |
//! | 7 | 1 | 0 | 0 |
//! | 8 | 8 | the pair: a hash of its key | same |
//! | 16 | 8 | boot of the node: random at each start | same |
//! | 24 | 8 | number of the request, from 1 in each boot | same |
//! | 32 | 8 | boot of the witness, 0 while unknown | of the witness |
//! | 40 | 8 | the latest stamp known of it | its stamp: µs since its start, never the same twice |
//! | 48 | 4 | time asked for, in ms | time granted, or left to the holder or of the start, in ms |
//! | 52 | 64 | the VIP, padded with zeros | same |
//! | 116 | 64 | the node that asks | the holder, all zeros for none |
//! | 180 | 16 | HMAC-SHA256 of all before it, its first half | same |

mod client;
mod server;

pub use self::client::{Answer, Client, Datagram, Legacy, Refusal};
pub use self::server::{Change, Reply, Server};

use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

#[cfg(test)]
mod tests;

/// The port of a witness, unless told otherwise.
pub const PORT: u16 = 7948;

/// Length of every datagram.
pub const DATAGRAM_LEN_BYTES: usize = 196;

/// Nothing is lent for a shorter time: a lease that is over before the next renewal can come only does harm.
pub const LEASE_MIN: Duration = Duration::from_millis(100);

/// Nothing is lent for longer. It is also how long a new witness keeps [quiet](QUIET), so it is short; whoever wants a
/// lease for longer renews it.
pub const LEASE_MAX: Duration = Duration::from_secs(5);

/// How long a witness that has started lends only to who holds the lease already: longer than any lease of the witness
/// before it can last, by as much as clocks may differ.
pub const QUIET: Duration = Duration::from_millis(5_100);

/// For how long a stamp of the witness may be used in requests.
pub const FRESH: Duration = Duration::from_secs(10);

/// The longest name of a VIP or a node.
const NAME_MAX_BYTES: usize = 63;

const MAGIC: [u8; 4] = *b"BTNW";
const VERSION: u8 = 1;
const VIP_OFFSET: usize = 52;
const MAC_LEN_BYTES: usize = 16;
/// What the lease key is derived under, so that no MAC of another protocol with the same pair key counts here.
const KEY_LABEL: &[u8] = b"baton witness 1: key";
const PAIR_LABEL: &[u8] = b"baton witness 1: pair";

/// The secret of one pair's leases.
#[derive(Clone)]
pub struct Key {
    mac: hmac::Key,
    /// Tells pairs apart without telling anything about the key.
    pair: [u8; 8],
}

impl Key {
    /// Derives it from the pair key.
    pub fn derived(pair_key: &[u8]) -> Self {
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pair_key), KEY_LABEL);
        let mac = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
        let pair = hmac::sign(&mac, PAIR_LABEL);
        let pair = pair.as_ref().first_chunk::<8>().copied().unwrap_or_default();
        Self { mac, pair }
    }

    /// The pair, as it stands on the wire.
    pub fn pair(&self) -> [u8; 8] {
        self.pair
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC_LEN_BYTES] {
        let tag = hmac::sign(&self.mac, bytes);
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The name of a VIP or a node: 1 to 63 letters, digits, `-`, `_` or `.`, as the configuration has them. So whatever comes
/// from the wire can be logged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// `None` for what is no name.
    pub fn new(name: &str) -> Option<Self> {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(is_known);
        is_name.then(|| Self(name.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn field(name: Option<&Self>) -> [u8; 64] {
        let mut field = [0; 64];
        let bytes = name.map_or(&[][..], |name| name.0.as_bytes());
        field.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        field
    }

    /// The name in a field; `Ok(None)` for a field of zeros.
    fn of_field(field: &[u8; 64]) -> Result<Option<Self>, Rejection> {
        let length = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        let (name, padding) = field.split_at(length);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Rejection::Name);
        }
        if name.is_empty() {
            return Ok(None);
        }
        let name = std::str::from_utf8(name).ok().and_then(Self::new);
        name.map(Some).ok_or(Rejection::Name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a datagram is worth no answer. Displays as a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// It does not have the length that all have.
    #[error("wrong length")]
    Length,
    /// It is something else.
    #[error("not of a witness or a node")]
    Foreign,
    /// Another version.
    #[error("unknown version")]
    Version,
    /// A kind that has no meaning here.
    #[error("unknown kind")]
    Kind,
    /// It is of a pair whose key we do not have.
    #[error("unknown pair: it has another key")]
    Pair,
    /// Whoever made it does not have the key.
    #[error("wrong authentication")]
    Mac,
    /// A name that is none.
    #[error("malformed name")]
    Name,
    /// An answer to nothing that was asked.
    #[error("answer to no question")]
    Unasked,
}

/// What a datagram is for. The numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// Lend me the VIP.
    Ask = 1,
    /// I hold it no longer.
    GiveBack = 2,
    /// Who has it?
    Look = 3,
    /// It is yours.
    Granted = 129,
    /// It is another's.
    Refused = 130,
    /// It is nobody's.
    Free = 131,
    /// Ask again with this stamp.
    Stale = 132,
    /// Wait: the witness is new.
    Starting = 133,
    /// The table is full.
    Full = 134,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Ask,
        Self::GiveBack,
        Self::Look,
        Self::Granted,
        Self::Refused,
        Self::Free,
        Self::Stale,
        Self::Starting,
        Self::Full,
    ];

    fn of_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A datagram's content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    kind: Kind,
    /// The node holds the lease, by its own count.
    holds: bool,
    node_boot: u64,
    number: u64,
    witness_boot: u64,
    stamp: u64,
    time_ms: u32,
    vip: Name,
    /// Who asks, or who holds.
    node: Option<Name>,
}

impl Message {
    fn encode(&self, key: &Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(DATAGRAM_LEN_BYTES);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.kind as u8, u8::from(self.holds), 0]);
        bytes.extend(key.pair);
        for number in [self.node_boot, self.number, self.witness_boot, self.stamp] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.time_ms.to_be_bytes());
        bytes.extend(Name::field(Some(&self.vip)));
        bytes.extend(Name::field(self.node.as_ref()));
        bytes.extend(key.mac(&bytes));
        bytes
    }

    /// Checks the MAC before anything that it covers is believed, besides the pair, which picks the key.
    fn decode<'keys>(bytes: &[u8], keys: &'keys [Key]) -> Result<(&'keys Key, Self), Rejection> {
        let bytes: &[u8; DATAGRAM_LEN_BYTES] = bytes.try_into().map_err(|_| Rejection::Length)?;
        let mut fields = Fields(bytes);
        if fields.take()? != MAGIC {
            return Err(Rejection::Foreign);
        }
        let [version, kind, flags, _reserved] = fields.take()?;
        if version != VERSION {
            return Err(Rejection::Version);
        }
        let pair: [u8; 8] = fields.take()?;
        let key = keys.iter().find(|key| key.pair == pair).ok_or(Rejection::Pair)?;
        let (covered, mac) = bytes.split_last_chunk::<MAC_LEN_BYTES>().ok_or(Rejection::Length)?;
        verify_slices_are_equal(mac, &key.mac(covered)).map_err(|_| Rejection::Mac)?;
        let message = Self {
            kind: Kind::of_wire(kind).ok_or(Rejection::Kind)?,
            holds: flags & 1 != 0,
            node_boot: u64::from_be_bytes(fields.take()?),
            number: u64::from_be_bytes(fields.take()?),
            witness_boot: u64::from_be_bytes(fields.take()?),
            stamp: u64::from_be_bytes(fields.take()?),
            time_ms: u32::from_be_bytes(fields.take()?),
            vip: Name::of_field(&fields.take()?)?.ok_or(Rejection::Name)?,
            node: Name::of_field(&fields.take()?)?,
        };
        Ok((key, message))
    }
}

/// The VIP that a datagram is about, to find out who may judge it: nothing of it is believed yet.
pub fn vip_of(datagram: &[u8]) -> Option<Name> {
    let (field, _) = datagram.get(VIP_OFFSET..)?.split_first_chunk::<64>()?;
    Name::of_field(field).ok().flatten()
}

/// Takes fixed fields off the front.
struct Fields<'bytes>(&'bytes [u8]);

impl Fields<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Rejection> {
        let (field, rest) = self.0.split_first_chunk::<LENGTH>().ok_or(Rejection::Length)?;
        self.0 = rest;
        Ok(*field)
    }
}

/// A duration in whole milliseconds, as it goes over the wire: rounded down, so that no lease gets longer.
fn wire_ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
