//! Whether a request is taken on: before it is known where it goes, and then by the limits of its route.

use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Request, Response};

use super::body::ResponseBody;
use super::client::{Client, Refusal};
use super::respond;
use super::transaction::Transaction;
use crate::limit::Verdict;
use crate::proxy::limits::RateLimit;
use crate::proxy::refusals::Reason;

/// When a client may ask again that was told that there is too much to do: long enough that all of them together do not
/// make it worse, short enough that nobody waits for long after it is over.
const SHED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Takes a request on, or answers it at once. The cheapest look comes first.
pub fn admit<B>(transaction: &mut Transaction, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let client = &transaction.client;
    match client.thread().site.begin_request() {
        Ok(under_way) => transaction.under_way = under_way,
        Err(reason) => {
            client.refused(reason);
            return Some(respond::shed(client, reason, SHED_RETRY_AFTER));
        }
    }
    let listener = client.listener()?;
    if let Some(retry_after) = over(transaction, &listener.limits.requests, request.headers()) {
        return Some(respond::limited(client, retry_after));
    }
    let body_bytes_max = listener.config.protection.body_bytes_max?;
    if content_length(request.headers()).is_none_or(|len| len <= body_bytes_max) {
        return None;
    }
    Some(too_large(client))
}

/// Takes a request on whose route is known, or answers it at once.
pub fn admit_to_route<B>(transaction: &Transaction, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let client = &transaction.client;
    let limits = client.listener()?.limits.routes.get(transaction.route?)?;
    let retry_after = over(transaction, limits, request.headers())?;
    Some(respond::limited(client, retry_after))
}

/// Answers a request whose body is too large. What has not come of it is not read.
fn too_large(client: &Client) -> Response<ResponseBody> {
    client.refuse(Refusal::TooLarge);
    respond::refused(client, client.refusal.get())
}

/// The time after which the client may ask again, where it has asked too often for one of the limits. Those before that one
/// have counted the request, those behind it have not.
fn over(transaction: &Transaction, limits: &[RateLimit], headers: &HeaderMap) -> Option<Duration> {
    let client = &transaction.client;
    let sessions = &client.site().sessions;
    for limit in limits {
        match sessions.limits.check(limit, transaction.ip, headers, sessions.now()) {
            Verdict::Allowed => {}
            Verdict::Limited { .. } if limit.log_only => client.refused(Reason::RateLimitLogOnly),
            Verdict::Limited { retry_after } => {
                client.refused(Reason::RateLimit);
                return Some(retry_after);
            }
        }
    }
    None
}

/// What a request says of its body's length. Of another form than this it does not get here.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
