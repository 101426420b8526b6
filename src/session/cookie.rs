//! Cookies that say which server a client belongs to: those of ours, and what has to be known of an application's.
//!
//! Ours names the server by a keyed hash of its pool and name. Both nodes of a pair derive the same value from the pair
//! key and the configuration, so that a client keeps its server over a failover with no table to look in, and the value
//! tells nothing about addresses or names. Where its life is limited, the dates stand in it too, and a code that
//! authenticates all of it: a browser's clock and goodwill have no say.

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

/// Hex digits of 64 bits of a hash.
const TAG_DIGITS: usize = 16;
/// Hex digits of a date: seconds since 1970 in 32 bits, enough until 2106.
const DATE_DIGITS: usize = 8;
/// Length of a value with dates: server, date of issue, date of use, code.
const DATED_DIGITS: usize = TAG_DIGITS + 2 * DATE_DIGITS + TAG_DIGITS;
/// What the code is computed over begins with this. Read as the length of a pool's name, which a server's hash is computed
/// over first, it is longer than any.
const DATES_LABEL: &[u8] = b"baton sticky cookie with dates";
/// Share of the idle time after which a cookie is sent again. Until then its date of use is that much too old.
const RENEWAL_SHARE: u32 = 16;

/// How long a cookie of ours counts. In whole seconds; what is below a second is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// Without a request.
    pub idle: Option<Duration>,
    /// However much it is used.
    pub absolute: Option<Duration>,
}

impl Life {
    fn is_limited(&self) -> bool {
        self.idle.is_some() || self.absolute.is_some()
    }

    /// Whether a cookie still counts in its last second is left to chance, as its dates are whole seconds.
    fn is_over(&self, issued: u64, used: u64, now: u64) -> bool {
        let is_past = |limit: Option<Duration>, since: u64| {
            limit.is_some_and(|limit| now.saturating_sub(since) > limit.as_secs())
        };
        is_past(self.idle, used) || is_past(self.absolute, issued)
    }

    fn is_due(&self, used: u64, now: u64) -> bool {
        let step = |idle: Duration| (idle / RENEWAL_SHARE).as_secs().max(1);
        self.idle.is_some_and(|idle| now.abs_diff(used) >= step(idle))
    }
}

/// What a cookie of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The server's index.
    pub server: usize,
    /// When it was issued, in seconds since 1970; `None` without dates.
    pub issued: Option<u64>,
    /// Whether it has to be sent again with a new date of use.
    pub is_due: bool,
}

/// The cookies of a pool.
#[derive(Debug, Clone)]
pub struct ServerCookies {
    key: hmac::Key,
    /// A hash for each server.
    tags: Vec<u64>,
    life: Life,
}

impl ServerCookies {
    /// Derives a hash for each server, in order. `key` is the pair key; both nodes must use the same.
    pub fn derive<'name>(key: &[u8], pool: &str, servers: impl Iterator<Item = &'name str>, life: Life) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let tag = |server: &str| {
            // Length first, so that no two pairs of names give the same bytes.
            let len = (pool.len() as u64).to_be_bytes();
            first_64_bits(&sign(&key, &[&len, pool.as_bytes(), server.as_bytes()]))
        };
        Self { tags: servers.map(tag).collect(), key, life }
    }

    /// Whether values have dates, so that each of them is another.
    pub fn have_dates(&self) -> bool {
        self.life.is_limited()
    }

    /// The value for a server, by its index. Dates are seconds since 1970; `now` becomes the date of use.
    pub fn write(&self, server: usize, issued: u64, now: u64) -> Option<String> {
        let tag = self.tags.get(server)?;
        let mut value = format!("{tag:016x}");
        if self.life.is_limited() {
            let (issued, used) = (date(issued), date(now));
            // Writing to a String cannot fail.
            let _ = write!(value, "{issued:08x}{used:08x}{:016x}", self.code(*tag, issued, used));
        }
        Some(value)
    }

    /// What a value says; `None` for one that is not ours, was tampered with or is too old.
    pub fn read(&self, value: &[u8], now: u64) -> Option<Named> {
        let len = if self.life.is_limited() { DATED_DIGITS } else { TAG_DIGITS };
        if value.len() != len {
            return None;
        }
        let (tag, rest) = value.split_at_checked(TAG_DIGITS)?;
        // Numbers are compared in one step, so that the time it takes tells nothing of how much is right.
        let tag = number(tag)?;
        let server = self.tags.iter().position(|known| *known == tag)?;
        if rest.is_empty() {
            return Some(Named { server, issued: None, is_due: false });
        }
        let (issued, rest) = rest.split_at_checked(DATE_DIGITS)?;
        let (used, code) = rest.split_at_checked(DATE_DIGITS)?;
        let (issued, used) = (number(issued)?, number(used)?);
        let expected = self.code(tag, date(issued), date(used));
        verify_slices_are_equal(&expected.to_be_bytes(), &number(code)?.to_be_bytes()).ok()?;
        // A date that is still to come is from a clock that is ahead, of the other node or of this one before it was set:
        // it counts as now, and is written anew.
        let is_ahead = issued > now;
        let is_due = is_ahead || self.life.is_due(used, now);
        let issued = issued.min(now);
        if self.life.is_over(issued, used.min(now), now) {
            return None;
        }
        Some(Named { server, issued: Some(issued), is_due })
    }

    /// Seconds for which a browser has to keep a cookie that is sent now; `None`: until it is closed.
    pub fn max_age(&self, issued: u64, now: u64) -> Option<u64> {
        let left =
            self.life.absolute.map(|absolute| absolute.as_secs().saturating_sub(now.saturating_sub(issued)).max(1));
        let idle = self.life.idle.map(|idle| idle.as_secs());
        idle.into_iter().chain(left).min()
    }

    fn code(&self, tag: u64, issued: u32, used: u32) -> u64 {
        let parts = [DATES_LABEL, &tag.to_be_bytes(), &issued.to_be_bytes(), &used.to_be_bytes()];
        first_64_bits(&sign(&self.key, &parts))
    }
}

fn sign(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

fn first_64_bits(tag: &hmac::Tag) -> u64 {
    tag.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn date(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// A number in lower-case hex digits, at most 16 of them. One number has one spelling.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// The values of the cookie `name` in a Cookie header (RFC 6265 section 4.2). Browsers send several where they have
/// several, for one path or domain each.
pub fn cookie_values<'header>(header: &'header [u8], name: &str) -> impl Iterator<Item = &'header [u8]> {
    header.split(|&byte| byte == b';').filter_map(move |pair| value_of(pair, name))
}

/// What a Set-Cookie header does to a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie<'header> {
    /// Gives it a value.
    Value(&'header [u8]),
    /// Takes it away.
    Removed,
}

/// What a Set-Cookie header (RFC 6265 section 4.1) does to the cookie `name`; `None` when it is about another.
pub fn set_cookie<'header>(header: &'header [u8], name: &str) -> Option<SetCookie<'header>> {
    let mut parts = header.split(|&byte| byte == b';');
    let value = value_of(parts.next()?, name)?;
    let is_removed = value.is_empty() || parts.any(is_expired);
    Some(if is_removed { SetCookie::Removed } else { SetCookie::Value(value) })
}

/// Whether an attribute says that the cookie has no life left: a Max-Age of nothing, or an Expires in 1970, which is how
/// applications write it. Another date in the past is a cookie that is learned in vain, and forgotten in its time.
fn is_expired(attribute: &[u8]) -> bool {
    let mut halves = attribute.splitn(2, |&byte| byte == b'=');
    let (name, value) =
        (halves.next().unwrap_or_default().trim_ascii(), halves.next().unwrap_or_default().trim_ascii());
    if name.eq_ignore_ascii_case(b"max-age") {
        return value.starts_with(b"-") || (!value.is_empty() && value.iter().all(|&digit| digit == b'0'));
    }
    name.eq_ignore_ascii_case(b"expires") && value.windows(6).any(|part| matches!(part, b" 1970 " | b"-1970 "))
}

fn value_of<'pair>(pair: &'pair [u8], name: &str) -> Option<&'pair [u8]> {
    let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn cookies(key: &[u8], pool: &str, servers: &[&str]) -> ServerCookies {
        ServerCookies::derive(key, pool, servers.iter().copied(), Life::default())
    }

    fn dated(idle: Option<u64>, absolute: Option<u64>) -> ServerCookies {
        let life = Life { idle: idle.map(Duration::from_secs), absolute: absolute.map(Duration::from_secs) };
        ServerCookies::derive(b"key", "app", ["app1", "app2"].into_iter(), life)
    }

    #[test]
    fn a_server_is_found_by_its_value_and_by_no_other() {
        let cookies = cookies(b"key", "app", &["app1", "app2"]);
        let second = cookies.write(1, NOW, NOW).unwrap();
        assert_eq!(second.len(), 16);
        assert_eq!(cookies.read(second.as_bytes(), NOW), Some(Named { server: 1, issued: None, is_due: false }));
        assert_eq!(cookies.read(second.to_uppercase().as_bytes(), NOW), None);
        for value in [&b"app2"[..], b"", b"0000000000000000", b"+f77724814e9d4c5"] {
            assert_eq!(cookies.read(value, NOW), None);
        }
        assert_eq!(cookies.write(2, NOW, NOW), None);
    }

    #[test]
    fn the_value_is_the_keyed_hash_of_pool_and_server() {
        // printf '\0\0\0\0\0\0\0\3appapp1' | openssl dgst -sha256 -hmac key
        let cookies = cookies(b"key", "app", &["app1"]);
        assert_eq!(cookies.write(0, NOW, NOW).as_deref(), Some("f77724814e9d4c5b"));
    }

    #[test]
    fn values_differ_by_key_pool_and_server() {
        let value = |key: &[u8], pool, server| cookies(key, pool, &[server]).write(0, NOW, NOW).unwrap();
        let base = value(b"key", "app", "one");
        assert_ne!(base, value(b"other", "app", "one"));
        assert_ne!(base, value(b"key", "appo", "ne"));
        assert_ne!(base, value(b"key", "app", "two"));
    }

    #[test]
    fn a_value_with_dates_is_server_dates_and_a_code_over_both() {
        // printf 'baton sticky cookie with dates\xf7\x77\x24\x81\x4e\x9d\x4c\x5b\x65\x53\xf1\x00\x65\x53\xf1\x3c' |
        // openssl dgst -sha256 -hmac key
        let value = dated(Some(3600), None).write(0, NOW, NOW + 60).unwrap();
        assert_eq!(value, "f77724814e9d4c5b6553f1006553f13cc2010c3ba5a0be8e");
    }

    #[test]
    fn a_cookie_counts_until_it_was_not_used_for_too_long() {
        let cookies = dated(Some(160), None);
        let value = cookies.write(1, NOW, NOW).unwrap();
        let read = |at: u64| cookies.read(value.as_bytes(), NOW + at);
        let named = |is_due| Some(Named { server: 1, issued: Some(NOW), is_due });
        assert_eq!(read(0), named(false));
        assert_eq!(read(9), named(false));
        assert_eq!(read(10), named(true), "a sixteenth of the time has passed");
        assert_eq!(read(160), named(true));
        assert_eq!(read(161), None);
        let renewed = cookies.write(1, NOW, NOW + 160).unwrap();
        assert_eq!(cookies.read(renewed.as_bytes(), NOW + 320), named(true));
    }

    #[test]
    fn a_cookie_counts_no_longer_than_its_absolute_time_however_much_it_is_used() {
        let cookies = dated(Some(10), Some(100));
        let value = cookies.write(0, NOW, NOW + 95).unwrap();
        assert!(cookies.read(value.as_bytes(), NOW + 100).is_some());
        assert_eq!(cookies.read(value.as_bytes(), NOW + 101), None);
        let absolute_alone = dated(None, Some(100));
        let value = absolute_alone.write(0, NOW, NOW).unwrap();
        let named = Named { server: 0, issued: Some(NOW), is_due: false };
        assert_eq!(absolute_alone.read(value.as_bytes(), NOW + 100), Some(named));
        assert_eq!(absolute_alone.read(value.as_bytes(), NOW + 101), None);
    }

    #[test]
    fn dates_from_a_clock_that_is_ahead_count_as_now_and_are_written_anew() {
        let cookies = dated(Some(10), Some(100));
        let value = cookies.write(0, NOW + 1000, NOW + 1000).unwrap();
        assert_eq!(cookies.read(value.as_bytes(), NOW), Some(Named { server: 0, issued: Some(NOW), is_due: true }));
    }

    #[test]
    fn a_value_with_any_digit_changed_counts_for_nothing() {
        let cookies = dated(Some(3600), Some(7200));
        let value = cookies.write(0, NOW, NOW).unwrap();
        assert_eq!(value.len(), 48);
        for at in 0..value.len() {
            let mut tampered = value.clone();
            let digit = if value.as_bytes()[at] == b'0' { "1" } else { "0" };
            tampered.replace_range(at..=at, digit);
            assert_eq!(cookies.read(tampered.as_bytes(), NOW), None, "digit {at}");
        }
        assert_eq!(cookies.read(&value.as_bytes()[..16], NOW), None, "dates cannot be left out");
        assert_eq!(cookies.read(format!("{value}0").as_bytes(), NOW), None);
    }

    #[test]
    fn browsers_keep_a_cookie_for_as_long_as_it_may_count() {
        assert_eq!(dated(None, None).max_age(NOW, NOW), None);
        assert_eq!(dated(Some(60), None).max_age(NOW, NOW + 1000), Some(60));
        assert_eq!(dated(None, Some(100)).max_age(NOW, NOW + 30), Some(70));
        assert_eq!(dated(Some(60), Some(100)).max_age(NOW, NOW + 30), Some(60));
        assert_eq!(dated(Some(60), Some(100)).max_age(NOW, NOW + 50), Some(50));
        assert_eq!(dated(Some(60), Some(100)).max_age(NOW, NOW + 100), Some(1));
    }

    #[test]
    fn cookies_are_found_among_others() {
        let values = |header: &'static [u8]| cookie_values(header, "BATON").collect::<Vec<_>>();
        assert_eq!(values(b"a=1; BATON=xyz; b=2"), [b"xyz"]);
        assert_eq!(values(b"BATON=\"xyz\""), [b"xyz"]);
        assert_eq!(values(b"BATON="), [b""]);
        assert_eq!(values(b"XBATON=1; BATONX=2"), [b""; 0]);
        assert_eq!(values(b""), [b""; 0]);
        assert_eq!(values(b"BATON=1; BATON=2"), [b"1", b"2"]);
    }

    #[test]
    fn set_cookie_gives_a_value_or_takes_the_cookie_away() {
        let read = |header: &'static str| set_cookie(header.as_bytes(), "SID");
        for header in [
            "SID=abc",
            "SID=\"abc\"; Path=/; HttpOnly",
            "SID=abc; Max-Age=10",
            "SID=abc; Max-Age=",
            "SID=abc; Expires=Thu, 01 Jan 2970 00:00:00 GMT",
        ] {
            assert_eq!(read(header), Some(SetCookie::Value(b"abc")), "{header}");
        }
        for header in [
            "SID=",
            "SID=; Path=/",
            "SID=x; max-age=0",
            "SID=x;Path=/; MAX-AGE = -1",
            "SID=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "SID=x; expires=Thu, 01-Jan-1970 00:00:10 GMT",
        ] {
            assert_eq!(read(header), Some(SetCookie::Removed), "{header}");
        }
        for header in ["", "XSID=abc", "SIDX=abc", "a=b; SID=abc", "SID"] {
            assert_eq!(read(header), None, "{header}");
        }
    }
}
