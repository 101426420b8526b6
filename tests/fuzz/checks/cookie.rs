//! Cookies: what is found in a Cookie or Set-Cookie header, and what of it counts as ours.
//!
//! The bytes are the value of a header.

use std::cell::RefCell;
use std::time::Duration;

use baton::session::cookie::{Life, ServerCookies, SetCookie, cookie_values, set_cookie};

/// Bytes to begin with.
pub const SAMPLES: &[&[u8]] = &[
    b"BATON=f77724814e9d4c5b",
    b"a=b; BATON=f77724814e9d4c5b; BATON=\"1\"",
    b"BATON=; =BATON; BATON",
    b"BATON=f77724814e9d4c5b6553f1006553f13c0123456789abcdef; Path=/; Max-Age=0",
    b"BATON=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure",
    b"  BATON = 1 ;\tBATON=\"a\";BATON=\"",
    b"BATON=\xff\x00;;;=;",
];

const NAME: &str = "BATON";

/// A date after all that a cookie can say, so that none is ahead.
const NOW: u64 = u32::MAX as u64;

thread_local! {
    static COOKIES: RefCell<Option<[ServerCookies; 2]>> = const { RefCell::new(None) };
}

fn with_cookies(check: impl FnOnce(&[ServerCookies; 2])) {
    let derive = |idle| {
        let life = Life { idle, absolute: None };
        ServerCookies::derive(b"key", "app", ["app1", "app2"].into_iter(), life)
    };
    COOKIES.with(|cookies| {
        let mut cookies = cookies.borrow_mut();
        check(cookies.get_or_insert_with(|| [derive(None), derive(Some(Duration::from_secs(NOW)))]));
    });
}

/// Panics when something does not hold.
pub fn check(data: &[u8]) {
    let values: Vec<&[u8]> = cookie_values(data, NAME).collect();
    let plain: Vec<&[u8]> = data.split(|byte| *byte == b';').filter_map(plain_value).collect();
    assert_eq!(values, plain);
    for value in &values {
        assert!(!value.contains(&b';'));
        let (start, range) = (value.as_ptr() as usize, data.as_ptr_range());
        assert!(value.is_empty() || (range.start as usize..range.end as usize).contains(&start));
    }
    match set_cookie(data, NAME) {
        Some(SetCookie::Value(value)) => assert!(!value.is_empty() && values.first() == Some(&value)),
        Some(SetCookie::Removed) => assert!(!values.is_empty()),
        None => assert!(plain_value(data.split(|byte| *byte == b';').next().unwrap_or_default()).is_none()),
    }
    with_cookies(|[plain, dated]| {
        for value in values.into_iter().chain([data]) {
            // What counts as ours is what we would have written, to the byte.
            if let Some(named) = plain.read(value, NOW) {
                assert_eq!(plain.write(named.server, 0, 0).as_deref().map(str::as_bytes), Some(value));
            }
            if let Some(named) = dated.read(value, NOW) {
                let date =
                    |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).unwrap_or_default(), 16).ok();
                let used = date(&value[24..32]).unwrap_or_default();
                let issued = named.issued.unwrap_or_default();
                assert_eq!(dated.write(named.server, issued, used).as_deref().map(str::as_bytes), Some(value));
            }
        }
    });
}

/// The value of the cookie in a part of a header, found the plain way.
fn plain_value(part: &[u8]) -> Option<&[u8]> {
    let part = part.trim_ascii();
    let equals = part.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&part[..equals], &part[equals + 1..]);
    if name != NAME.as_bytes() {
        return None;
    }
    match value {
        [b'"', inner @ .., b'"'] => Some(inner),
        value => Some(value),
    }
}
