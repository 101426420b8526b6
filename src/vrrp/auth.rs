//! Authenticated adverts: a trailer of 28 bytes with an HMAC-SHA256, byte for byte that of keepalived 2.4's `auth_hmac`.
//!
//! | bytes | |
//! |---|---|
//! | 0 | type, 1 for HMAC-SHA256 |
//! | 1 | number of the key |
//! | 2..4 | zero |
//! | 4..12 | sequence: seconds of Unix time in 32 bits, a binary fraction of 16, a counter of 16 |
//! | 12..28 | the first 16 bytes of the HMAC |
//!
//! The HMAC covers what the IP header and the virtual router are (20 bytes: address family 4 or 6, VRRP version, router
//! id, 0, the source address padded with zeros to 16), the advert with its checksum taken as zero, and the trailer with
//! its HMAC taken as zero. So an advert of one router, path or version cannot be passed off as another's.
//!
//! A [`Signer`]'s sequence is the wall clock as long as that goes forward, and otherwise still grows. A [`Verifier`]
//! refuses what is not above the last one it accepted: no clock of ours has part in it, and a recording is worth nothing.
//! Both start above a floor, which the shell keeps over restarts.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::packet::{DropReason, Received, TRAILER_LEN, Version};
use crate::units::VirtualRouterId;

#[cfg(test)]
mod tests;

/// The most keys of a ring.
pub const KEY_COUNT_MAX: usize = 8;

/// HMAC-SHA256 cut to 128 bits. The only type that there is.
const TYPE_HMAC_SHA256: u8 = 1;

/// Bytes of the trailer before the HMAC.
const HEAD_LEN: usize = TRAILER_LEN - MAC_LEN;
/// Bytes of the HMAC that are sent.
const MAC_LEN: usize = 16;
/// Where an advert's checksum stands.
const CHECKSUM: std::ops::Range<usize> = 6..8;

/// What the key that two batons share for their adverts is derived with.
const DERIVED_LABEL: &[u8] = b"baton advert key 1";
const DERIVED_ID: u8 = 1;

/// The keys of a pair: the first signs, all of them verify. To change a key, both nodes first learn the new one, then
/// put it first, then forget the old one.
#[derive(Clone)]
pub struct KeyRing {
    signing: Key,
    others: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: u8,
    secret: hmac::Key,
}

impl KeyRing {
    /// Keys as pairs of number and secret. `None` without any, with more than [`KEY_COUNT_MAX`], with two of one number,
    /// with the number 0 or with an empty secret.
    pub fn new(keys: Vec<(u8, Vec<u8>)>) -> Option<Self> {
        let ids: std::collections::BTreeSet<u8> = keys.iter().map(|(id, _)| *id).collect();
        let is_valid = keys.len() <= KEY_COUNT_MAX
            && ids.len() == keys.len()
            && keys.iter().all(|(id, secret)| *id != 0 && !secret.is_empty());
        let mut keys = keys.into_iter().filter(|_| is_valid).map(|(id, secret)| Key::new(id, &secret));
        Some(Self { signing: keys.next()?, others: keys.collect() })
    }

    /// The one key of a pair that configures none: number 1, derived from the pair key.
    pub fn derived(pair_key: &[u8]) -> Self {
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pair_key), DERIVED_LABEL);
        Self { signing: Key::new(DERIVED_ID, secret.as_ref()), others: Vec::new() }
    }

    fn key(&self, id: u8) -> Option<&Key> {
        std::iter::once(&self.signing).chain(&self.others).find(|key| key.id == id)
    }
}

impl fmt::Debug for KeyRing {
    /// Numbers alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = std::iter::once(&self.signing).chain(&self.others).map(|key| key.id).collect();
        f.debug_struct("KeyRing").field("ids", &ids).finish_non_exhaustive()
    }
}

impl Key {
    fn new(id: u8, secret: &[u8]) -> Self {
        Self { id, secret: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    fn mac(&self, context: &Context, pdu: &[u8], head: &[u8; HEAD_LEN]) -> [u8; MAC_LEN] {
        let (before, checksum_and_rest) = pdu.split_at_checked(CHECKSUM.start).unwrap_or((pdu, &[]));
        let mut mac = hmac::Context::with_key(&self.secret);
        mac.update(&context.bytes());
        mac.update(before);
        mac.update(&[0; 2]);
        mac.update(checksum_and_rest.get(2..).unwrap_or_default());
        mac.update(head);
        mac.update(&[0; MAC_LEN]);
        // An HMAC-SHA256 has 32 bytes.
        mac.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// What a trailer covers besides the advert itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The advert's version.
    pub version: Version,
    /// The advert's virtual router.
    pub virtual_router_id: VirtualRouterId,
    /// The source address in the IP header, which tells the family.
    pub source: IpAddr,
}

impl Context {
    /// That of an advert that came.
    pub fn of(received: &Received<'_>) -> Self {
        let Received { envelope, advert, .. } = received;
        Self { version: advert.version, virtual_router_id: advert.virtual_router_id, source: envelope.source }
    }

    fn bytes(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let family = if self.source.is_ipv4() { 4 } else { 6 };
        let head = [family, self.version.number(), self.virtual_router_id.get(), 0];
        match self.source {
            IpAddr::V4(source) => fill(&mut bytes, &[&head, &source.octets()]),
            IpAddr::V6(source) => fill(&mut bytes, &[&head, &source.octets()]),
        }
        bytes
    }
}

/// Writes the parts one after the other; what is left over stays as it was.
fn fill(bytes: &mut [u8], parts: &[&[u8]]) {
    for (byte, value) in bytes.iter_mut().zip(parts.iter().copied().flatten()) {
        *byte = *value;
    }
}

/// Signs adverts. One for each VIP, for all of its paths: a path's adverts then have ascending sequences, with gaps.
#[derive(Debug, Clone)]
pub struct Signer {
    keys: KeyRing,
    last: u64,
}

impl Signer {
    /// Signs with sequences above `floor`, which is what [`Signer::last`] said when the program last ran, or more.
    pub fn new(keys: KeyRing, floor: u64) -> Self {
        Self { keys, last: floor }
    }

    /// The trailer for an advert: `pdu` as it was encoded, without one. `unix_time` is what the wall clock says.
    ///
    /// When the clock stands still or went back, the sequence grows by one instead: a receiver that counts, as
    /// [`Verifier`], hears us all the same, one that compares with its own clock only while they are close.
    pub fn sign(&mut self, unix_time: Duration, context: &Context, pdu: &[u8]) -> [u8; TRAILER_LEN] {
        self.last = sequence_at(unix_time).max(self.last.saturating_add(1));
        let mut head = [0; HEAD_LEN];
        let key = &self.keys.signing;
        fill(&mut head, &[&[TYPE_HMAC_SHA256, key.id, 0, 0], &self.last.to_be_bytes()]);
        let mut trailer = [0; TRAILER_LEN];
        fill(&mut trailer, &[&head, &key.mac(context, pdu, &head)]);
        trailer
    }

    /// Has the next trailer say more than `floor`.
    pub fn skip_to(&mut self, floor: u64) {
        self.last = self.last.max(floor);
    }

    /// The sequence of the last trailer, or the floor: to be kept, and told to a peer that starts.
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// The sequence of a point in time. From 2106 on, when 32 bits no longer hold the seconds, it stands still.
fn sequence_at(unix_time: Duration) -> u64 {
    let seconds = u64::from(u32::try_from(unix_time.as_secs()).unwrap_or(u32::MAX));
    let fraction = (u64::from(unix_time.subsec_nanos()) << 16) / 1_000_000_000;
    seconds << 32 | fraction << 16
}

/// The point in time of a sequence, without its counter.
fn time_of(sequence: u64) -> Duration {
    let fraction = (sequence >> 16 & 0xffff) * 1_000_000_000 / (1 << 16);
    Duration::from_secs(sequence >> 32) + Duration::from_nanos(fraction)
}

/// What is made of a trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An advert that has one is refused.
    Off,
    /// One that is there is verified; adverts without one are heard. We send none.
    ReceiveOnly,
    /// As with `ReceiveOnly`, and we send them.
    Permissive,
    /// An advert without a valid one is refused.
    Enforce,
}

impl Mode {
    /// Whether our own adverts are signed.
    pub const fn signs(self) -> bool {
        match self {
            Self::Off | Self::ReceiveOnly => false,
            Self::Permissive | Self::Enforce => true,
        }
    }
}

/// What is known of where an advert comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authenticity {
    /// Whoever has the key sent it, and it was not heard before.
    Verified,
    /// Nothing.
    None,
}

/// Verifies the adverts of one peer on one path of a VIP.
///
/// One for each path: adverts that overtake one another on two ways would be taken for replayed. None can be replayed
/// on the other path, as the HMAC covers the source address.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// None only where no trailer is verified.
    keys: Option<KeyRing>,
    mode: Mode,
    floor: u64,
    window: Option<Duration>,
}

impl Verifier {
    /// Accepts sequences above `floor`: what [`Verifier::floor`] said when the program last ran, or 0.
    pub fn new(keys: KeyRing, mode: Mode, floor: u64) -> Self {
        Self { keys: Some(keys), mode, floor, window: None }
    }

    /// With [`Mode::Off`], for which no key is needed.
    pub fn off() -> Self {
        Self { keys: None, mode: Mode::Off, floor: 0, window: None }
    }

    /// Also refuses adverts that were signed longer than `window` before or after our own time. It needs clocks that
    /// agree, and ends the harm of an advert that was held back; without it no clock is needed.
    pub fn with_window(self, window: Duration) -> Self {
        Self { window: Some(window), ..self }
    }

    /// Says whether a valid advert, judged to be for us, may be heard. Call it last: it counts what it lets pass.
    ///
    /// # Errors
    /// [`DropReason::MissingTrailer`], [`DropReason::UnexpectedTrailer`], [`DropReason::WrongTrailerType`],
    /// [`DropReason::UnknownKey`], [`DropReason::WrongHmac`], [`DropReason::Replayed`] or [`DropReason::Stale`].
    pub fn verify(&mut self, unix_time: Duration, received: &Received<'_>) -> Result<Authenticity, DropReason> {
        let trailer = match (received.trailer, self.mode) {
            (None, Mode::Off | Mode::ReceiveOnly | Mode::Permissive) => return Ok(Authenticity::None),
            (None, Mode::Enforce) => return Err(DropReason::MissingTrailer),
            (Some(_), Mode::Off) => return Err(DropReason::UnexpectedTrailer),
            (Some(trailer), Mode::ReceiveOnly | Mode::Permissive | Mode::Enforce) => trailer,
        };
        let sequence = self.check(trailer, received)?;
        // Only here, where the sequence is known to be the peer's.
        if sequence <= self.floor {
            return Err(DropReason::Replayed);
        }
        if self.window.is_some_and(|window| time_of(sequence).abs_diff(unix_time) > window) {
            return Err(DropReason::Stale);
        }
        self.floor = sequence;
        Ok(Authenticity::Verified)
    }

    /// The last sequence that was accepted, or the floor: to be kept.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Accepts sequences above this one from now on. For a peer that told its own sequence in a way that proves when it
    /// did so, a fresh hello: then it may be lowered, for a peer that lost its memory and whose clock is behind.
    pub fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    /// The sequence of a genuine trailer.
    fn check(&self, trailer: &[u8; TRAILER_LEN], received: &Received<'_>) -> Result<u64, DropReason> {
        let head: &[u8; HEAD_LEN] = trailer.first_chunk().ok_or(DropReason::Short)?;
        let mac: &[u8; MAC_LEN] = trailer.last_chunk().ok_or(DropReason::Short)?;
        let [kind, id, ..] = *head;
        if kind != TYPE_HMAC_SHA256 {
            return Err(DropReason::WrongTrailerType);
        }
        let key = self.keys.as_ref().and_then(|keys| keys.key(id)).ok_or(DropReason::UnknownKey)?;
        let expected = key.mac(&Context::of(received), received.pdu, head);
        verify_slices_are_equal(&expected, mac).map_err(|_| DropReason::WrongHmac)?;
        head.last_chunk().map(|sequence| u64::from_be_bytes(*sequence)).ok_or(DropReason::Short)
    }
}
