//! The store of `[sessions]`: a Redis or Valkey that more than two load balancers share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blocks::file;
use super::model::{Store, StoreUrl};
use super::reader::{Table, Value, Written};
use super::report::{Located, Mistakes, Wrong};
use super::values;

/// URLs of a cluster; any of its nodes names the others.
const URLS_MAX: usize = 16;
const PORT_DEFAULT: u16 = 6379;
/// More than any server is set up with; the usual number is 16.
const DATABASE_MAX: u32 = 65_535;
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(50);
const PREFIX_DEFAULT: &str = "baton:";
const PREFIX_MAX: usize = 64;
const USERNAME_MAX: usize = 128;

/// The keys that say something about a store.
const KEYS: [&str; 6] =
    ["store_cluster", "store_username", "store_password_file", "store_ca_file", "store_timeout", "store_prefix"];

/// The files of a store.
#[derive(Default)]
pub(super) struct StoreBlock {
    pub(super) password_file: Option<Located<PathBuf>>,
    pub(super) ca_file: Option<Located<PathBuf>>,
}

/// Reads the `store` keys of `[sessions]`; `None` without a store.
pub(super) fn store(table: &mut Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> (Option<Store>, StoreBlock) {
    let Some(value) = table.optional("store") else {
        table.without_meaning(&KEYS, "has no meaning without a store", "leave it out, or add store = \"redis://…\"");
        return (None, StoreBlock::default());
    };
    let place = value.place().clone();
    let is_several = value.is_list();
    let urls: Vec<Option<Located<StoreUrl>>> =
        value.one_or_list(URLS_MAX).into_iter().map(|value| url(value, mistakes)).collect();
    let is_cluster = table.boolean("store_cluster", is_several);
    let username = table.written("store_username", |value| value.parsed(username));
    let password_file = table.written("store_password_file", |value| file(value, directory));
    let ca_file = table.written("store_ca_file", |value| file(value, directory));
    let timeout = table.duration("store_timeout", TIMEOUT_MIN..=TIMEOUT_MAX, TIMEOUT_DEFAULT);
    let prefix = table.optional("store_prefix").and_then(|value| value.parsed(prefix));
    if let (Written::As(username), Written::No) = (&username, &password_file) {
        mistakes.block(
            &username.place,
            "a user needs a password",
            "name the file that holds it: store_password_file = \"/etc/baton/store.password\"",
        );
    }
    if is_several && !is_cluster {
        let remedy = "leave store_cluster out, or name one server";
        mistakes.block(&place, "several URLs are those of one cluster", remedy);
    }
    let whole: Option<Vec<_>> = urls.into_iter().collect();
    if let Some(urls) = &whole {
        check_urls(urls, is_cluster, ca_file.known(), mistakes);
    }
    let (password_file, ca_file) = (password_file.into_known(), ca_file.into_known());
    let store = Store {
        // Empty only where a URL is broken, which is reported.
        urls: whole.unwrap_or_default().into_iter().map(|url| url.value).collect(),
        is_cluster,
        username: username.into_known().map(|found| found.value),
        password_file: password_file.as_ref().map(|found| found.value.clone()),
        ca_file: ca_file.as_ref().map(|found| found.value.clone()),
        timeout,
        prefix: prefix.map_or_else(|| PREFIX_DEFAULT.to_owned(), |found| found.value),
    };
    (Some(store), StoreBlock { password_file, ca_file })
}

fn check_urls(
    urls: &[Located<StoreUrl>],
    is_cluster: bool,
    ca_file: Option<&Located<PathBuf>>,
    mistakes: &Mistakes<'_>,
) {
    let Some(first) = urls.first() else { return };
    for url in urls {
        if is_cluster && url.value.database != 0 {
            let remedy = "leave the number out";
            mistakes.value(&url.place, "a cluster has no databases but number 0", remedy);
        }
        if url.value.is_tls != first.value.is_tls {
            let remedy = "write rediss:// for all of them, or redis:// for all";
            mistakes.value(&url.place, "all servers of a cluster are reached with TLS, or none", remedy);
        }
    }
    if let Some(ca_file) = ca_file.filter(|_| !first.value.is_tls) {
        let remedy = "write rediss:// in store, or leave store_ca_file out";
        mistakes.value(&ca_file.place, "has no meaning without TLS", remedy);
    }
}

/// A URL with a user or a password in it is refused without showing it.
fn url(value: Value<'_>, mistakes: &Mistakes<'_>) -> Option<Located<StoreUrl>> {
    let place = value.place().clone();
    if value.text().is_some_and(|text| text.contains('@')) {
        mistakes.secret(
            &place,
            "must not hold a user or a password, as this file is no secret",
            "write the password into a file of its own with mode 0600 and name it: store_password_file = \
             \"/etc/baton/store.password\", with store_username = \"…\" where there is a user; then change the password",
        );
        return None;
    }
    value.parsed(parse_url)
}

/// `redis://host:port/database`; `rediss` is with TLS.
fn parse_url(text: &str) -> Result<StoreUrl, Wrong> {
    let wrong = |rule: &str| Wrong::new(rule, "write a URL such as \"redis://10.0.0.5:6379/0\"");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("must be a URL"))?;
    let is_tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(wrong("must begin with redis://, or with rediss:// for TLS")),
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = authority.rsplit_once(':').filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
    let (host, port) = match has_port {
        Some((host, port)) => (host, digits(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)),
        None => (authority, Some(PORT_DEFAULT)),
    };
    let port = port.ok_or_else(|| wrong("the port must be 1 to 65535"))?;
    let database = if database.is_empty() { Some(0) } else { digits(database) };
    let database = database.filter(|number| *number <= DATABASE_MAX);
    let database =
        database.ok_or_else(|| wrong("what follows the host must be the number of a database, 0 to 65535"))?;
    Ok(StoreUrl { host: host_of(host)?, port, is_tls, database })
}

fn digits(text: &str) -> Option<u32> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok())
}

/// A host name or an address; IPv6 stands in brackets in a URL, and without them afterwards.
fn host_of(text: &str) -> Result<String, Wrong> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<std::net::Ipv6Addr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => {
                Err(Wrong::new("must have an IPv6 address in the brackets", "write \"redis://[2001:db8::5]:6379\""))
            }
        };
    }
    values::host(text)
}

fn username(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= USERNAME_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("must be the name of a user of the store, 1 to {USERNAME_MAX} printable characters without spaces"),
        "write the name that its ACL has, such as \"baton\"",
    ))
}

fn prefix(text: &str) -> Result<String, Wrong> {
    // Braces would say which part of a key picks its node of a cluster, and put every session on one.
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
    if text.len() <= PREFIX_MAX && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("must be at most {PREFIX_MAX} printable characters without spaces and braces"),
        "write a prefix such as \"baton:\"",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_scheme_a_host_a_port_and_a_database() {
        let read = |text| parse_url(text).map(|url| (url.host, url.port, url.is_tls, url.database)).ok();
        assert_eq!(read("redis://h"), Some(("h".to_owned(), 6379, false, 0)));
        assert_eq!(read("redis://h:7000/"), Some(("h".to_owned(), 7000, false, 0)));
        assert_eq!(read("rediss://Cache.example.com/3"), Some(("cache.example.com".to_owned(), 6379, true, 3)));
        assert_eq!(read("valkey://10.0.0.5:1/15"), Some(("10.0.0.5".to_owned(), 1, false, 15)));
        assert_eq!(read("valkeys://[2001:db8::5]:7000"), Some(("2001:db8::5".to_owned(), 7000, true, 0)));
        assert_eq!(read("redis://[2001:db8::5]"), Some(("2001:db8::5".to_owned(), 6379, false, 0)));
    }

    #[test]
    fn what_is_no_url_of_a_store_is_refused() {
        for text in [
            "",
            "h:6379",
            "http://h",
            "redis:/h",
            "redis://",
            "redis://h:0",
            "redis://h:65536",
            "redis://h:",
            "redis://h:+1",
            "redis://h/x",
            "redis://h/65536",
            "redis://h/0/1",
            "redis://h/0?x=1",
            "redis://h#x",
            "redis://[h]",
            "redis://2001:db8::5",
            "redis://a b",
        ] {
            assert!(parse_url(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_url_is_shown_as_it_is_written() {
        let shown = |text| parse_url(text).map(|url| url.to_string()).unwrap_or_default();
        assert_eq!(shown("redis://h"), "redis://h:6379/0");
        assert_eq!(shown("valkeys://[2001:db8::5]:7000/2"), "rediss://[2001:db8::5]:7000/2");
    }

    #[test]
    fn a_prefix_does_not_pick_the_node_of_a_cluster() {
        assert!(prefix("").is_ok());
        assert!(prefix("lb/eu:").is_ok());
        assert!(prefix("{lb}:").is_err());
        assert!(prefix("a b").is_err());
        assert!(prefix(&"a".repeat(65)).is_err());
    }
}
