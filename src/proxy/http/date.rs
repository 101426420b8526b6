//! The time in the Date field of responses.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

thread_local! {
    /// The last second that was asked for, and how it is written.
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))) };
}

/// Now, as RFC 9110 section 5.6.7 writes it. It is written anew once a second.
pub fn now() -> HeaderValue {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second
            && let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            (*last, *text) = (second, value);
        }
        text.clone()
    })
}
