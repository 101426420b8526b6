//! A cookie of our own that names the server. Both nodes of a pair derive the same value from the pair key and the
//! configuration, so that a client keeps its server over a failover with no table to look in, and the value tells nothing
//! about addresses or names.
use aws_lc_rs::hmac;

/// Length of a cookie's value: 16 hex digits, 64 bits of the hash.
const VALUE_LEN_BYTES: usize = 16;

/// The cookie values of a pool's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCookies {
    values: Vec<String>,
}

impl ServerCookies {
    /// Derives a value for each server, in order. `key` is the pair key; both nodes must use the same.
    pub fn derive<'name>(key: &[u8], pool: &str, servers: impl Iterator<Item = &'name str>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let value = |server: &str| {
            let mut context = hmac::Context::with_key(&key);
            // Length first, so that no two pairs of names give the same bytes.
            context.update(&(pool.len() as u64).to_be_bytes());
            context.update(pool.as_bytes());
            context.update(server.as_bytes());
            let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            hex.chars().take(VALUE_LEN_BYTES).collect()
        };
        Self { values: servers.map(value).collect() }
    }

    /// The value for a server, by its index.
    pub fn value(&self, server: usize) -> Option<&str> {
        self.values.get(server).map(String::as_str)
    }

    /// The server that a value names; `None` for any value that is not ours.
    pub fn server(&self, value: &[u8]) -> Option<usize> {
        self.values.iter().position(|known| known.as_bytes() == value)
    }
}

/// The value of the cookie `name` in a Cookie header (RFC 6265 section 4.2); the first one when it is there twice.
pub fn cookie_value<'header>(header: &'header [u8], name: &str) -> Option<&'header [u8]> {
    header.split(|&byte| byte == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_by_its_value_and_by_no_other() {
        let cookies = ServerCookies::derive(b"key", "app", ["app1", "app2"].into_iter());
        let second = cookies.value(1).unwrap().to_owned();
        assert_eq!(second.len(), 16);
        assert_eq!(cookies.server(second.as_bytes()), Some(1));
        assert_eq!(cookies.server(b"app2"), None);
        assert_eq!(cookies.server(b""), None);
        assert_eq!(cookies.value(2), None);
    }

    #[test]
    fn the_value_is_the_keyed_hash_of_pool_and_server() {
        // printf '\0\0\0\0\0\0\0\3appapp1' | openssl dgst -sha256 -hmac key
        let cookies = ServerCookies::derive(b"key", "app", ["app1"].into_iter());
        assert_eq!(cookies.value(0), Some("f77724814e9d4c5b"));
    }

    #[test]
    fn values_differ_by_key_pool_and_server() {
        let value = |key: &[u8], pool, server| {
            ServerCookies::derive(key, pool, [server].into_iter()).value(0).unwrap().to_owned()
        };
        let base = value(b"key", "app", "one");
        assert_ne!(base, value(b"other", "app", "one"));
        assert_ne!(base, value(b"key", "appo", "ne"));
        assert_ne!(base, value(b"key", "app", "two"));
    }

    #[test]
    fn cookies_are_found_among_others() {
        assert_eq!(cookie_value(b"a=1; BATON=xyz; b=2", "BATON"), Some(&b"xyz"[..]));
        assert_eq!(cookie_value(b"BATON=\"xyz\"", "BATON"), Some(&b"xyz"[..]));
        assert_eq!(cookie_value(b"BATON=", "BATON"), Some(&b""[..]));
        assert_eq!(cookie_value(b"XBATON=1; BATONX=2", "BATON"), None);
        assert_eq!(cookie_value(b"", "BATON"), None);
        assert_eq!(cookie_value(b"BATON=1; BATON=2", "BATON"), Some(&b"1"[..]));
    }
}
