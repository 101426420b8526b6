//! Users with passwords (RFC 7617).
//!
//! To verify a password takes a core for a part of a second. That happens on threads of their own, a bounded number at a
//! time, and its result is kept for a while: by a keyed hash of the field, so that no password is in memory for longer than
//! its request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use tokio::sync::Semaphore;

use super::handed;
use crate::config::{self, PASSWORD_BYTES_MAX, Users};
use crate::proxy::files::Files;
use crate::proxy::thread::Thread;
use crate::proxy::timers::Deadlines;

/// Verified credentials that are kept by each thread, and by all of them together for each rule. At the limit all are
/// forgotten: then each is verified once more.
const KEPT_BY_THREAD_MAX: usize = 4096;
const KEPT_MAX: usize = 65_536;

/// Requests that wait for a verification at once; more are told to come back.
const WAITING_MAX: usize = 256;

/// The longest that a request waits for its verification.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a name and a password with a colon between them, and of how they are written.
const CREDENTIALS_BYTES_MAX: usize = 128 + 1 + PASSWORD_BYTES_MAX;
const ENCODED_BYTES_MAX: usize = CREDENTIALS_BYTES_MAX.div_ceil(3) * 4;

/// A rule that asks for a password.
pub struct BasicAuth {
    config: config::BasicAuth,
    challenge: HeaderValue,
    users: ArcSwap<Loaded>,
    kept: Mutex<HashMap<u128, Verified>>,
}

/// A file of users as it was once.
#[derive(Default)]
struct Loaded {
    users: Users,
    /// No other file, and no other state of this one, has the same: what was verified with another does not count.
    generation: u64,
}

/// Credentials that were right.
#[derive(Clone)]
struct Verified {
    user: Arc<str>,
    until: Instant,
}

/// Why nobody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No user's credentials came.
    Unknown,
    /// Too many wait to be verified.
    Busy,
}

/// Verifies for all threads of a process.
pub struct Verifier {
    key: [u8; 16],
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Verifier {
    fn default() -> Self {
        let mut key = [0; 16];
        if aws_lc_rs::rand::fill(&mut key).is_err() {
            key.fill_with(|| fastrand::u8(..));
        }
        // Half of the cores at most: those who are known already are served meanwhile.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { key, permits: Arc::new(Semaphore::new((cores / 2).max(1))), waiting: AtomicUsize::new(0) }
    }
}

/// What a thread keeps.
#[derive(Default)]
pub struct KeptByThread(RefCell<HashMap<u128, Verified>>);

/// Somebody who waits, counted as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BasicAuth {
    /// As configured.
    ///
    /// # Errors
    /// What is wrong with the file of users.
    pub fn new(config: &config::BasicAuth, files: &Files) -> Result<Self, String> {
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm);
        let basic = Self {
            config: config.clone(),
            // The realm is ASCII without quotes, so this cannot fail.
            challenge: HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Basic")),
            users: ArcSwap::default(),
            kept: Mutex::default(),
        };
        basic.take(files)?;
        Ok(basic)
    }

    /// Takes the file of users when it has changed.
    ///
    /// # Errors
    /// What is wrong with it; the users as they were stay.
    pub fn files_changed(&self, files: &Files) -> Result<(), String> {
        self.take(files).map_err(|reason| format!("{reason}; the users as they were before are in use"))
    }

    fn take(&self, files: &Files) -> Result<(), String> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let path = &self.config.users_file;
        let users = handed(files, path)?;
        let users = Users::parse(&users).map_err(|error| format!("{} {error}: {}", path.display(), error.remedy))?;
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        self.users.store(Arc::new(Loaded { users, generation }));
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// What a client without good credentials is told.
    pub fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// Whether servers see the credentials.
    pub fn is_passed_on(&self) -> bool {
        self.config.pass_on
    }

    /// The user whose credentials these are.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn user(
        &self,
        thread: &Thread,
        deadlines: &Deadlines,
        authorization: &HeaderValue,
    ) -> Result<Arc<str>, Refused> {
        let loaded = self.users.load();
        let (verifier, now) = (&thread.site.verifier, thread.timers.coarse_now());
        let key = verifier.key_of(loaded.generation, authorization.as_bytes());
        if let Some(user) = thread.verified.get(key, now) {
            return Ok(user);
        }
        let Some((name, password)) = decode(authorization.as_bytes()) else { return Err(Refused::Unknown) };
        if verifier.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            drop(Waiting(&verifier.waiting));
            return Err(Refused::Busy);
        }
        let _waiting = Waiting(&verifier.waiting);
        let verify = self.verify(verifier, Arc::clone(&loaded), key, name, password);
        drop(loaded);
        let verified = deadlines.within(PATIENCE, verify).await.unwrap_or(Err(Refused::Busy))?;
        let user = Arc::clone(&verified.user);
        if !self.config.cache_ttl.is_zero() {
            thread.verified.keep(key, verified, now);
        }
        Ok(user)
    }

    /// Verifies in turn. Who waits for others with the same credentials finds them verified.
    async fn verify(
        &self,
        verifier: &Verifier,
        loaded: Arc<Loaded>,
        key: u128,
        name: String,
        password: Vec<u8>,
    ) -> Result<Verified, Refused> {
        if let Some(known) = self.known(key) {
            return Ok(known);
        }
        // Nobody closes it.
        let permit = Arc::clone(&verifier.permits).acquire_owned().await.map_err(|_| Refused::Busy)?;
        if let Some(known) = self.known(key) {
            return Ok(known);
        }
        let user = Arc::from(name.as_str());
        let verification = tokio::task::spawn_blocking(move || {
            let is_right = loaded.users.verify(&name, &password);
            // Held until here, however short the patience of those who wait.
            drop(permit);
            is_right
        });
        match verification.await {
            Ok(true) => {
                let verified = Verified { user, until: Instant::now() + self.config.cache_ttl };
                self.keep(key, verified.clone());
                Ok(verified)
            }
            Ok(false) => Err(Refused::Unknown),
            Err(_ended) => Err(Refused::Busy),
        }
    }

    fn known(&self, key: u128) -> Option<Verified> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&key).filter(|verified| verified.until > Instant::now()).cloned()
    }

    fn keep(&self, key: u128, verified: Verified) {
        if self.config.cache_ttl.is_zero() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut kept, KEPT_MAX, Instant::now());
        kept.insert(key, verified);
    }
}

impl Verifier {
    fn key_of(&self, generation: u64, authorization: &[u8]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(&generation.to_be_bytes());
        hasher.write(authorization);
        hasher.finish128().as_u128()
    }
}

impl KeptByThread {
    fn get(&self, key: u128, now: Instant) -> Option<Arc<str>> {
        let kept = self.0.borrow();
        kept.get(&key).filter(|verified| verified.until > now).map(|verified| Arc::clone(&verified.user))
    }

    fn keep(&self, key: u128, verified: Verified, now: Instant) {
        let mut kept = self.0.borrow_mut();
        make_room(&mut kept, KEPT_BY_THREAD_MAX, now);
        kept.insert(key, verified);
    }
}

fn make_room(kept: &mut HashMap<u128, Verified>, max: usize, now: Instant) {
    if kept.len() >= max {
        kept.retain(|_, verified| verified.until > now);
    }
    if kept.len() >= max {
        kept.clear();
    }
}

/// Name and password (RFC 7617 section 2). The name ends at the first colon.
fn decode(authorization: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = authorization.split_at_checked(6)?;
    let encoded = encoded.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"basic ") || encoded.len() > ENCODED_BYTES_MAX {
        return None;
    }
    let mut space = [0; ENCODED_BYTES_MAX];
    let len = STANDARD.decode_slice(encoded, &mut space).ok()?;
    let credentials = space.get(..len)?;
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    let (name, password) = credentials.split_at_checked(colon)?;
    Some((String::from_utf8(name.to_vec()).ok()?, password.get(1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_the_rfc_has_them() {
        let read =
            |text: &str| decode(text.as_bytes()).map(|(name, password)| (name, String::from_utf8(password).unwrap()));
        let some = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        // The examples of RFC 7617 sections 2 and 2.1.
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), some("Aladdin", "open sesame"));
        assert_eq!(read("basic dGVzdDoxMjPCow=="), some("test", "123£"));
        assert_eq!(read("BASIC  YTpiOmM="), some("a", "b:c"));
        assert_eq!(read("Basic Og=="), some("", ""));
        for none in
            ["", "Basic", "Basic ", "Basic YQ==", "Bearer QWxhZGRpbjpvcGVu", "Basic QWxh ZGRp", "Basic YTpi=", "Basicx"]
        {
            assert_eq!(read(none), None, "{none:?}");
        }
        assert_eq!(read(&format!("Basic {}", "YTph".repeat(1000))), None);
    }

    #[test]
    fn what_a_thread_keeps_is_bounded_and_ends() {
        let (kept, now) = (KeptByThread::default(), Instant::now());
        let verified = |seconds| Verified { user: "a".into(), until: now + Duration::from_secs(seconds) };
        kept.keep(1, verified(10), now);
        assert_eq!(kept.get(1, now).as_deref(), Some("a"));
        assert_eq!(kept.get(2, now), None);
        assert_eq!(kept.get(1, now + Duration::from_secs(10)), None);
        for key in 0..3 * KEPT_BY_THREAD_MAX as u128 {
            kept.keep(key, verified(10), now);
            assert!(kept.0.borrow().len() <= KEPT_BY_THREAD_MAX);
            assert!(kept.get(key, now).is_some());
        }
    }

    #[test]
    fn keys_differ_with_the_file_and_the_process() {
        let (one, other) = (Verifier::default(), Verifier::default());
        assert_eq!(one.key_of(1, b"a"), one.key_of(1, b"a"));
        assert_ne!(one.key_of(1, b"a"), one.key_of(2, b"a"));
        assert_ne!(one.key_of(1, b"a"), one.key_of(1, b"b"));
        assert_ne!(one.key_of(1, b"a"), other.key_of(1, b"a"));
    }
}
