//! What stands in the store: which server a session is on, by name, and until when.
//!
//! Names and not numbers, so that load balancers agree whose files list their servers in another order. A key is the
//! prefix and the hash of what the client sent, never that itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::StorePool;
use crate::session::ServerRef;
use crate::session::key::Key;

/// The form of an entry. A load balancer that finds another form treats it as a server that it does not have.
const FORM: &str = "1";

/// An entry that says that there was one. It keeps other load balancers, which still have the old one in their tables,
/// from putting it back.
pub(super) const REMOVED: &str = "1 0 -";

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The session's server, and the time after which it is forgotten however much it is used.
    At { server: ServerRef, until: Option<SystemTime> },
    /// The session was removed.
    Removed,
    /// A server that this load balancer does not have, or a form that it does not know.
    Stranger,
}

/// The pools of this load balancer, in the order of one configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) pools: Vec<StorePool>,
}

/// A server, and what its number means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) server: ServerRef,
    pub(super) directory: Arc<Directory>,
}

impl Directory {
    /// The text of an entry for a server, and how long it lives unused.
    pub(super) fn write(&self, server: ServerRef, now: SystemTime) -> Option<(String, Duration)> {
        let pool = self.pools.get(usize::from(server.pool))?;
        let (pool_name, name) = self.names(server)?;
        let until = pool.absolute.and_then(|absolute| now.checked_add(absolute));
        let text = format!("{FORM} {} {pool_name}/{name}", until.map_or(0, unix_ms));
        Some((text, pool.idle.min(pool.absolute.unwrap_or(pool.idle))))
    }

    /// The names of a pool and of its server.
    pub(super) fn names(&self, server: ServerRef) -> Option<(&str, &str)> {
        let pool = self.pools.get(usize::from(server.pool))?;
        Some((&pool.name, pool.servers.get(usize::from(server.server))?))
    }

    /// What an entry of a pool says.
    pub(super) fn read(&self, pool: u16, text: &[u8]) -> Entry {
        if text == REMOVED.as_bytes() {
            return Entry::Removed;
        }
        self.server_of(pool, text).unwrap_or(Entry::Stranger)
    }

    fn server_of(&self, pool: u16, text: &[u8]) -> Option<Entry> {
        let rest = std::str::from_utf8(text).ok()?.strip_prefix(FORM)?.strip_prefix(' ')?;
        let (until, place) = rest.split_once(' ')?;
        let until = match until.parse::<u64>().ok()? {
            0 => None,
            ms => Some(UNIX_EPOCH.checked_add(Duration::from_millis(ms))?),
        };
        let (pool_name, server_name) = place.split_once('/')?;
        let known = self.pools.get(usize::from(pool)).filter(|known| known.name == pool_name)?;
        let server = known.servers.iter().position(|name| name == server_name)?;
        let server = ServerRef { pool, server: u16::try_from(server).ok()? };
        Some(Entry::At { server, until })
    }

    /// How long an entry of a pool lives from now on if nobody uses it; `None` when its time is over.
    pub(super) fn time_left(&self, pool: u16, until: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
        let idle = self.pools.get(usize::from(pool))?.idle;
        match until {
            None => Some(idle),
            Some(until) => until.duration_since(now).ok().filter(|left| !left.is_zero()).map(|left| idle.min(left)),
        }
    }
}

/// The name of a session's entry in the store.
pub(super) fn name_of(prefix: &str, key: &Key) -> String {
    format!("{prefix}{key}")
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let pool = |name: &str, servers: &[&str], absolute| StorePool {
            name: name.to_owned(),
            servers: servers.iter().map(|&name| name.to_owned()).collect(),
            idle: Duration::from_secs(60),
            absolute,
        };
        let absolute = Some(Duration::from_secs(90));
        Directory { pools: vec![pool("app", &["app1", "app2"], None), pool("api", &["api1"], absolute)] }
    }

    const NOW: SystemTime = UNIX_EPOCH;

    #[test]
    fn an_entry_names_pool_and_server_and_not_their_numbers() {
        let written = directory().write(ServerRef { pool: 0, server: 1 }, NOW);
        assert_eq!(written, Some(("1 0 app/app2".to_owned(), Duration::from_secs(60))));
        let written = directory().write(ServerRef { pool: 1, server: 0 }, NOW);
        assert_eq!(written, Some(("1 90000 api/api1".to_owned(), Duration::from_secs(60))));
        assert_eq!(directory().write(ServerRef { pool: 0, server: 2 }, NOW), None);
        assert_eq!(directory().write(ServerRef { pool: 2, server: 0 }, NOW), None);
    }

    #[test]
    fn what_was_written_is_read() {
        let read = |pool, text: &str| directory().read(pool, text.as_bytes());
        let at = |pool, server, until| Entry::At { server: ServerRef { pool, server }, until };
        assert_eq!(read(0, "1 0 app/app2"), at(0, 1, None));
        assert_eq!(read(1, "1 90000 api/api1"), at(1, 0, Some(UNIX_EPOCH + Duration::from_secs(90))));
        assert_eq!(read(0, REMOVED), Entry::Removed);
    }

    #[test]
    fn what_this_load_balancer_does_not_know_is_a_stranger() {
        for text in [
            "",
            "1",
            "1 0",
            "1 0 app",
            "1 0 app/app3",
            "1 0 api/api1",
            "2 0 app/app1",
            "1 x app/app1",
            "1 -1 app/app1",
            "app/app1",
            "1 0 app/app1 ",
            "1  app/app1",
            "1 99999999999999999999 app/app1",
        ] {
            assert_eq!(directory().read(0, text.as_bytes()), Entry::Stranger, "{text:?}");
        }
        assert_eq!(directory().read(0, b"1 0 app/\xff"), Entry::Stranger);
        assert_eq!(directory().read(9, b"1 0 app/app1"), Entry::Stranger);
    }

    #[test]
    fn the_absolute_end_cuts_the_idle_time() {
        let left = |until| directory().time_left(0, until, NOW + Duration::from_secs(10));
        let at = |secs| Some(UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(left(None), Some(Duration::from_secs(60)));
        assert_eq!(left(at(100)), Some(Duration::from_secs(60)));
        assert_eq!(left(at(30)), Some(Duration::from_secs(20)));
        assert_eq!(left(at(10)), None);
        assert_eq!(left(at(9)), None);
    }

    #[test]
    fn a_key_is_its_prefix_and_32_hex_digits() {
        let mut key = [0; 16];
        (key[0], key[15]) = (0x0a, 0xff);
        assert_eq!(name_of("baton:", &Key::from_bytes(key)), "baton:0a0000000000000000000000000000ff");
    }
}
