//! TLS session tickets whose keys both nodes of a pair hold, so that a client resumes its session after a failover.
//!
//! A ticket is the state of a TLS session, encrypted for nobody but us and kept by the client (RFC 5077, RFC 8446
//! section 4.6.1). Its keys are made by the active node, live in memory alone and reach the peer over the sync link:
//! [`Tickets::export`] on one side, [`Tickets::adopt`] on the other.
//!
//! | bytes of a ticket | |
//! |---|---|
//! | 16 | id of the key, random |
//! | 12 | nonce of AES-256-GCM, random: at most 2^32 tickets a key, which is 149,000 a second for [`ROTATION`] |
//! | rest | what rustls wants back, encrypted, with a tag of 16 bytes |
//!
//! A listener's name is authenticated with each ticket: what one listener with its certificates vouched for resumes on no
//! other listener. So are the authorities and revocation lists by which it verified the client. The name that the client asked for is compared by rustls.

use std::cmp::Reverse;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use rustls::server::ProducesTickets;
use zeroize::Zeroize;

/// How long a key encrypts before the active node makes the next one.
pub const ROTATION: Duration = Duration::from_secs(8 * 3600);

/// How long a key decrypts, from when it was made. The newest one does for as long as it is the newest.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Keys in a set: three of each node, when both made keys while they were apart.
pub const KEYS_MAX: usize = 6;

/// What the first byte of an encoded set says.
const FORMAT: u8 = 1;

const ID_LEN: usize = 16;
const SECRET_LEN: usize = 32;

/// Generation, time, id, secret.
const KEY_LEN: usize = 8 + 8 + ID_LEN + SECRET_LEN;

/// No node makes so many: one each [`ROTATION`] for 3.9 million years. Keeps a number from the peer from running over.
const GENERATION_MAX: u64 = u32::MAX as u64;

/// The keys of a worker, shared by all of its TLS listeners.
#[derive(Debug, Default)]
pub struct Tickets {
    keys: RwLock<KeySet>,
}

/// What came of adopting the peer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// Both nodes have the same keys now.
    Same,
    /// This node has keys that the peer did not send: it should be sent [`Tickets::export`].
    Ahead,
}

/// Why a set of keys cannot be adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Another release wrote it.
    #[error("ticket keys in format {0}, which this release does not know")]
    Format(u8),
    /// Cut off, or followed by something.
    #[error("ticket keys of {len_bytes} bytes, which is no whole number of keys from 1 to {KEYS_MAX}")]
    Length {
        /// What came.
        len_bytes: usize,
    },
    /// A number that no node counts up to.
    #[error("a ticket key of generation {0}")]
    Generation(u64),
}

impl Tickets {
    /// Makes a key when this node is active and the newest one is as old as [`ROTATION`], or when there is none; drops keys
    /// past their [`LIFETIME`]. To be called about once a minute. True when there is a key that the peer should be sent.
    ///
    /// `now` is the time since 1970 by this node's clock. Nodes' clocks may differ: a key from the future counts as made
    /// when it came, and the newest key never expires, so that a wrong clock shifts the rotation and breaks nothing.
    pub fn rotate_if_due(&self, now: Duration, is_active: bool) -> bool {
        let is_due = is_active && self.read().newest().is_none_or(|key| key.age(now) >= ROTATION);
        // Made before the lock is taken: handshakes wait for it.
        let generation = self.read().newest().map_or(1, |key| key.generation + 1).min(GENERATION_MAX);
        let fresh = if is_due { TicketKey::random(generation, now) } else { None };
        let is_made = fresh.is_some();
        let mut keys = self.write();
        keys.merge(fresh);
        keys.expire(now);
        is_made
    }

    /// The keys in bytes, for the peer. A secret. Empty when there are none.
    pub fn export(&self) -> Vec<u8> {
        self.read().encode()
    }

    /// Takes the peer's keys in. The newest key of both sides encrypts from now on, on both sides, and all of them decrypt.
    /// `now` as in [`Tickets::rotate_if_due`].
    ///
    /// # Errors
    /// When it is no set of keys that this release knows; nothing has changed then.
    pub fn adopt(&self, bytes: &[u8], now: Duration) -> Result<Adopted, AdoptError> {
        let theirs = KeySet::decode(bytes, now)?;
        let mut keys = self.write();
        keys.merge(theirs);
        Ok(if keys.encode() == bytes { Adopted::Same } else { Adopted::Ahead })
    }

    /// What rustls uses for a listener. What was made on other `terms` of it is not resumed.
    pub fn of_listener(self: &Arc<Self>, name: &str, terms: &[u8]) -> Arc<dyn ProducesTickets> {
        // No name of a listener has a zero in it.
        let separator: &[u8] = if terms.is_empty() { &[] } else { &[0] };
        let listener = [name.as_bytes(), separator, terms].concat();
        Arc::new(ListenerTickets { tickets: Arc::clone(self), listener })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, KeySet> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, KeySet> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tickets of one listener.
#[derive(Debug)]
struct ListenerTickets {
    tickets: Arc<Tickets>,
    /// Its name, and its terms where it has any.
    listener: Vec<u8>,
}

impl ProducesTickets for ListenerTickets {
    /// Without a key, rustls keeps the sessions themselves, which this worker alone can resume.
    fn enabled(&self) -> bool {
        self.tickets.read().newest().is_some()
    }

    /// A hint to clients: even the last ticket that a key encrypts is good for so long.
    fn lifetime(&self) -> u32 {
        u32::try_from((LIFETIME - ROTATION).as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.read().newest()?.seal(plain, &self.listener)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, sealed) = ticket.split_first_chunk::<ID_LEN>()?;
        let keys = self.tickets.read();
        keys.find(id)?.open(sealed, &self.listener)
    }
}

/// Keys in the order of their age, the newest first. At most [`KEYS_MAX`].
#[derive(Debug, Default)]
struct KeySet(Vec<TicketKey>);

impl KeySet {
    fn newest(&self) -> Option<&TicketKey> {
        self.0.first()
    }

    /// Compares in constant time: an id cannot be guessed byte by byte.
    fn find(&self, id: &[u8; ID_LEN]) -> Option<&TicketKey> {
        self.0.iter().find(|key| verify_slices_are_equal(&key.id, id).is_ok())
    }

    /// The union of both, the same whoever merges with whom: on both nodes the same key is the newest afterwards.
    fn merge(&mut self, others: impl IntoIterator<Item = TicketKey>) {
        for other in others {
            match self.0.iter_mut().find(|key| key.id == other.id) {
                Some(known) => known.made_at_s = known.made_at_s.min(other.made_at_s),
                None => self.0.push(other),
            }
        }
        self.0.sort_by_key(|key| Reverse((key.generation, key.id)));
        self.0.truncate(KEYS_MAX);
    }

    fn expire(&mut self, now: Duration) {
        let mut is_newest = true;
        self.0.retain(|key| std::mem::take(&mut is_newest) || key.age(now) < LIFETIME);
    }

    fn encode(&self) -> Vec<u8> {
        // At its full length at once, so that no copy of a secret is left where it had been before it grew.
        let mut bytes = Vec::with_capacity(1 + self.0.len() * KEY_LEN);
        if !self.0.is_empty() {
            bytes.push(FORMAT);
        }
        for key in &self.0 {
            bytes.extend_from_slice(&key.generation.to_be_bytes());
            bytes.extend_from_slice(&key.made_at_s.to_be_bytes());
            bytes.extend_from_slice(&key.id);
            bytes.extend_from_slice(&*key.secret.0);
        }
        bytes
    }

    fn decode(bytes: &[u8], now: Duration) -> Result<Vec<TicketKey>, AdoptError> {
        let length = AdoptError::Length { len_bytes: bytes.len() };
        let (&format, keys) = bytes.split_first().ok_or(length)?;
        if format != FORMAT {
            return Err(AdoptError::Format(format));
        }
        if keys.is_empty() || keys.len() % KEY_LEN != 0 || keys.len() / KEY_LEN > KEYS_MAX {
            return Err(length);
        }
        keys.chunks_exact(KEY_LEN).map(|key| TicketKey::decode(key, now).ok_or(length)?).collect()
    }
}

/// One key.
struct TicketKey {
    /// Counts up with each rotation; the higher one is newer.
    generation: u64,
    /// Seconds since 1970.
    made_at_s: u64,
    id: [u8; ID_LEN],
    /// For the peer.
    secret: Secret,
    /// The same, ready for use.
    cipher: LessSafeKey,
}

/// Bytes that are overwritten when they are dropped. Boxed, so that a set that is sorted or grows leaves no copy behind.
struct Secret(Box<[u8; SECRET_LEN]>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TicketKey").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl TicketKey {
    /// `None` when the system gives no random numbers; the next turn tries again.
    fn random(generation: u64, now: Duration) -> Option<Self> {
        let (mut id, mut secret) = ([0; ID_LEN], Secret(Box::new([0; SECRET_LEN])));
        aws_lc_rs::rand::fill(&mut id).ok()?;
        aws_lc_rs::rand::fill(&mut *secret.0).ok()?;
        Self::new(generation, now.as_secs(), id, secret)
    }

    /// `None` when AES-256-GCM does not take the key, which it does when it has 32 bytes.
    fn new(generation: u64, made_at_s: u64, id: [u8; ID_LEN], secret: Secret) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*secret.0).ok()?);
        Some(Self { generation, made_at_s, id, secret, cipher })
    }

    /// `None` when it is too short. One from the future counts as made now.
    fn decode(bytes: &[u8], now: Duration) -> Option<Result<Self, AdoptError>> {
        let (generation, rest) = bytes.split_first_chunk::<8>()?;
        let (made_at_s, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<ID_LEN>()?;
        let secret = Secret(Box::new(*rest.first_chunk::<SECRET_LEN>()?));
        let generation = u64::from_be_bytes(*generation);
        if generation > GENERATION_MAX {
            return Some(Err(AdoptError::Generation(generation)));
        }
        let made_at_s = u64::from_be_bytes(*made_at_s).min(now.as_secs());
        Self::new(generation, made_at_s, *id, secret).map(Ok)
    }

    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_secs(self.made_at_s))
    }

    fn seal(&self, plain: &[u8], listener: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(ID_LEN + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&self.id);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let body = ticket.get_mut(ID_LEN + NONCE_LEN..)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.cipher.seal_in_place_separate_tag(nonce, self.authenticated(listener), body).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, sealed: &[u8], listener: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = self.cipher.open_in_place(nonce, self.authenticated(listener), &mut body).ok()?.len();
        body.truncate(len);
        Some(body)
    }

    /// The id has a fixed length, so no two pairs give the same bytes.
    fn authenticated(&self, listener: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([&self.id[..], listener].concat())
    }
}

#[cfg(test)]
mod tests;
