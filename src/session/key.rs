//! Keys of the session table: a keyed hash of what tells a client from others. The table never holds the value itself.

use std::fmt;

use aws_lc_rs::hmac;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// A key of the session table. Equal on both nodes for the same pool and value; without the pair key nobody can tell the
/// value, nor find two values with one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

impl Key {
    /// A key as it came from the other node or from a file.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As it goes to the other node.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Makes keys, with a secret of its own for each pool, so that one value in two pools gives two keys.
#[derive(Clone)]
pub struct KeyMaker {
    pools: Vec<SipHasher24>,
}

impl KeyMaker {
    /// `secret` is the pair key; both nodes must use the same. A pool is told by its name, for its place in the file may
    /// differ while one node has a newer file.
    pub fn new<'name>(secret: &[u8], pools: impl Iterator<Item = &'name str>) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let hasher = |name: &str| {
            let mut context = hmac::Context::with_key(&secret);
            context.update(b"baton session keys 1\0");
            context.update(name.as_bytes());
            let tag = context.sign();
            let key = tag.as_ref().first_chunk::<16>().copied().unwrap_or_default();
            SipHasher24::new_with_key(&key)
        };
        Self { pools: pools.map(hasher).collect() }
    }

    /// The key of a value in a pool, by the pool's index; `None` for a pool that is not there.
    pub fn key(&self, pool: u16, value: &[u8]) -> Option<Key> {
        let mut hasher = *self.pools.get(usize::from(pool))?;
        hasher.write(value);
        Some(Key(hasher.finish128().as_bytes()))
    }
}

impl fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaker(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &[u8], pools: &[&str], pool: u16, value: &[u8]) -> Option<Key> {
        KeyMaker::new(secret, pools.iter().copied()).key(pool, value)
    }

    #[test]
    fn keys_depend_on_secret_pool_and_value_and_not_on_the_place_in_the_file() {
        let base = key(b"secret", &["app", "api"], 0, b"10.0.0.1").unwrap();
        assert_eq!(key(b"secret", &["api", "app"], 1, b"10.0.0.1"), Some(base));
        assert_ne!(key(b"other", &["app"], 0, b"10.0.0.1"), Some(base));
        assert_ne!(key(b"secret", &["api"], 0, b"10.0.0.1"), Some(base));
        assert_ne!(key(b"secret", &["app"], 0, b"10.0.0.2"), Some(base));
        assert_eq!(key(b"secret", &["app"], 1, b"10.0.0.1"), None);
    }

    #[test]
    fn a_key_is_siphash_of_the_value_under_a_key_derived_from_the_pools_name() {
        // key: printf 'baton session keys 1\0app' | openssl dgst -sha256 -hmac secret, the first 16 bytes
        // value: printf '10.0.0.1' hashed by SipHash-2-4-128 with it, from an implementation in Python
        let made = key(b"secret", &["app"], 0, b"10.0.0.1").unwrap();
        assert_eq!(made.to_string(), "e0a0d73aaa70db42d69b4fbb717bf0b8");
    }
}
