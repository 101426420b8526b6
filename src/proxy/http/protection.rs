//! Whether a request is taken on: before it is known where it goes, and then by the limits of its route.

use std::rc::Rc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
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

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The limits that a request was counted for, as lists of structured fields (RFC 9651), for RateLimit-Policy and RateLimit
/// (draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4).
#[derive(Debug, Default)]
pub struct Quotas {
    policies: String,
    standings: String,
}

impl Quotas {
    fn add(&mut self, policy: &str, standing: &str) {
        for (list, item) in [(&mut self.policies, policy), (&mut self.standings, standing)] {
            if !list.is_empty() {
                list.push_str(", ");
            }
            list.push_str(item);
        }
    }
}

/// Takes a request on, or answers it at once. The cheapest look comes first.
pub fn admit<B>(transaction: &mut Transaction, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let client = &transaction.client;
    let site = &client.thread().site;
    match site.begin_request().and_then(|under_way| Ok((under_way, site.await_response()?))) {
        Ok((under_way, awaited)) => (transaction.under_way, transaction.awaited) = (under_way, awaited),
        Err(reason) => {
            client.refused(reason);
            return Some(respond::shed(client, reason, SHED_RETRY_AFTER));
        }
    }
    let listener = client.listener()?;
    let mut quotas = None;
    let over = over(transaction, &listener.limits.requests, request.headers(), &mut quotas);
    let body_bytes_max = listener.config.protection.body_bytes_max;
    transaction.quotas = quotas;
    let client = &transaction.client;
    if let Some(retry_after) = over {
        return Some(respond::limited(client, retry_after));
    }
    let body_bytes_max = body_bytes_max?;
    if content_length(request.headers()).is_none_or(|len| len <= body_bytes_max) {
        return None;
    }
    Some(too_large(client))
}

/// Takes a request on whose route is known, or answers it at once.
pub fn admit_to_route<B>(transaction: &mut Transaction, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let client = Rc::clone(&transaction.client);
    let limits = client.listener()?.limits.routes.get(transaction.route?)?;
    let mut quotas = transaction.quotas.take();
    let over = over(transaction, limits, request.headers(), &mut quotas);
    transaction.quotas = quotas;
    Some(respond::limited(&transaction.client, over?))
}

/// Tells the client of its limits, beside what a server says of its own.
pub fn tell(transaction: &Transaction, headers: &mut HeaderMap) {
    let Some(quotas) = &transaction.quotas else { return };
    for (name, value) in [(RATE_LIMIT_POLICY, &quotas.policies), (RATE_LIMIT, &quotas.standings)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }
}

/// Answers a request whose body is too large. What has not come of it is not read.
fn too_large(client: &Client) -> Response<ResponseBody> {
    client.refuse(Refusal::TooLarge);
    respond::refused(client, client.refusal.get())
}

/// The time after which the client may ask again, where it has asked too often for one of the limits. Those before that one
/// have counted the request, those behind it have not.
/// What the client is told of each goes to `quotas`.
fn over(
    transaction: &Transaction,
    limits: &[RateLimit],
    headers: &HeaderMap,
    quotas: &mut Option<Box<Quotas>>,
) -> Option<Duration> {
    let client = &transaction.client;
    let sessions = &client.site().sessions;
    for limit in limits {
        let now = sessions.now();
        let verdict = sessions.limits.check(limit, transaction.ip, headers, now);
        if let Some(told) = &limit.told {
            let retry_after = match verdict {
                Verdict::Allowed => None,
                Verdict::Limited { retry_after } => Some(retry_after),
            };
            let counts = sessions.limits.counts(limit, transaction.ip, headers, now);
            quotas.get_or_insert_default().add(&told.policy, &told.standing(counts, retry_after));
        }
        match verdict {
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
