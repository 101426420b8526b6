//! Responses of our own: errors and refusals.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::ResponseBody;
use super::client::{Client, Refusal};
use crate::proxy::passive::Stopped;
use crate::proxy::refusals::Reason;
use crate::proxy::state::Pool;

/// Says which proxy answered, and who was at fault (RFC 9209).
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Who failed, in the words of RFC 9209 section 2.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The error type.
    pub error: &'static str,
    /// The server, when one was involved.
    pub server: Option<String>,
}

/// Marks a response as our own. Where it is an error, an operator's page may take its place.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Why, for the log.
    pub reason: &'static str,
}

/// A plain response of our own.
pub fn own(client: &Client, status: StatusCode, message: &str, fault: Option<Fault>) -> Response<ResponseBody> {
    let text = format!("{} {}\n{message}\n", status.as_u16(), status.canonical_reason().unwrap_or(""));
    let mut response = Response::new(ResponseBody::text(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let reason = fault.as_ref().map_or("", |fault| fault.error);
    let reason = if reason.is_empty() && status == StatusCode::NOT_FOUND { "no_route" } else { reason };
    response.extensions_mut().insert(Own { reason });
    let headers = response.headers_mut();
    if let Some(status) = fault.and_then(|fault| proxy_status(&client.site().node, &fault)) {
        headers.insert(PROXY_STATUS, status);
    }
    response
}

/// The answer to a client that is not listened to any more; the connection closes after it.
pub fn refused(client: &Client, refusal: Option<Refusal>) -> Response<ResponseBody> {
    let (status, reason, message) = match refusal {
        Some(Refusal::Malformed(rejection)) => (
            rejection.status(),
            rejection.reason(),
            format!("the request is malformed: {}", rejection.reason().replace('_', " ")),
        ),
        Some(Refusal::TooSlow) | None => {
            (StatusCode::REQUEST_TIMEOUT, "client_too_slow", "the request did not arrive in time".to_owned())
        }
        Some(Refusal::TooLarge) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the request's body is larger than this listener takes".to_owned(),
        ),
    };
    let fault = Fault { error: "http_request_error", server: None };
    let mut response = own(client, status, &message, Some(fault));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.extensions_mut().insert(Own { reason });
    response
}

/// The answer to a request that is well formed and still means nothing, or two things.
pub fn bad_request(client: &Client, reason: &str) -> Response<ResponseBody> {
    let fault = Fault { error: "http_request_error", server: None };
    own(client, StatusCode::BAD_REQUEST, &format!("the request is ambiguous: {reason}"), Some(fault))
}

/// The answer to a request that goes round in a circle. Not the 502 that RFC 9209 suggests: that could be tried again, at each
/// of the rounds.
pub fn goes_round(client: &Client) -> Response<ResponseBody> {
    client.refused(Reason::Loop);
    let message =
        "this request comes round again and again: a server of its pool is a load balancer that sends it back here";
    let fault = Fault { error: "proxy_loop_detected", server: None };
    own(client, StatusCode::LOOP_DETECTED, message, Some(fault))
}

/// The answer to a client that has asked too often (RFC 6585 section 4).
pub fn limited(client: &Client, retry_after: Duration) -> Response<ResponseBody> {
    let seconds = whole_seconds(retry_after);
    let message = format!("too many requests from this client; the next one is let through after {seconds} s");
    let fault = Fault { error: "http_request_denied", server: None };
    let mut response = own(client, StatusCode::TOO_MANY_REQUESTS, &message, Some(fault));
    response.extensions_mut().insert(Own { reason: "rate_limited" });
    retry_after_header(&mut response, seconds);
    response
}

/// The answer to a request that the worker does not take on; the connection closes after it, which takes memory too.
pub fn shed(client: &Client, reason: Reason, retry_after: Duration) -> Response<ResponseBody> {
    let message = match reason {
        Reason::RequestsMax => "as many requests are under way as this load balancer takes",
        _ => "this load balancer has no memory left for more requests",
    };
    let fault = Fault { error: "http_request_denied", server: None };
    let mut response = own(client, StatusCode::SERVICE_UNAVAILABLE, message, Some(fault));
    retry_after_header(&mut response, whole_seconds(retry_after));
    if reason == Reason::Memory {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a request for servers that have as many as they may.
pub fn overloaded(client: &Client, pool: &str, reason: Reason, retry_after: Duration) -> Response<ResponseBody> {
    let message = match reason {
        Reason::QueueTimeout => format!("no server of pool {pool} had room for this request in time"),
        _ => format!("every server of pool {pool} has as many requests as it may, and so has the queue"),
    };
    // RFC 9209 section 2.3.12.
    let fault = Fault { error: "connection_limit_reached", server: None };
    let mut response = own(client, StatusCode::SERVICE_UNAVAILABLE, &message, Some(fault));
    retry_after_header(&mut response, whole_seconds(retry_after));
    response
}

/// The answer to a request that the breaker of its pool stops.
pub fn stopped(client: &Client, pool: &Pool, why: Stopped) -> Response<ResponseBody> {
    let name = &pool.config.name;
    let (retry_after, message) = match why {
        Stopped::Open => {
            let (left, state) = pool.passes_again(Instant::now());
            (left, format!("the circuit breaker of pool {name} is {state}"))
        }
        Stopped::InFlight | Stopped::Retries => {
            (Duration::ZERO, format!("pool {name} has as many requests under way as it may"))
        }
        Stopped::Pending => (Duration::ZERO, format!("as many requests wait for a connection to pool {name} as may")),
    };
    let (error, reason) = match why {
        Stopped::Open => ("destination_unavailable", "breaker_open"),
        // RFC 9209 section 2.3.12.
        Stopped::InFlight | Stopped::Pending | Stopped::Retries => ("connection_limit_reached", "breaker_limit"),
    };
    let fault = Fault { error, server: None };
    let mut response = own(client, StatusCode::SERVICE_UNAVAILABLE, &message, Some(fault));
    response.extensions_mut().insert(Own { reason });
    retry_after_header(&mut response, whole_seconds(retry_after));
    response
}

/// The answer to a request for servers none of which can be used; `retry_after` is the time until one can be again, where
/// that is known.
pub fn unavailable(client: &Client, message: &str, retry_after: Option<Duration>) -> Response<ResponseBody> {
    let fault = Fault { error: "destination_unavailable", server: None };
    let mut response = own(client, StatusCode::SERVICE_UNAVAILABLE, message, Some(fault));
    if let Some(retry_after) = retry_after {
        retry_after_header(&mut response, whole_seconds(retry_after));
    }
    response
}

/// Whole seconds (RFC 9110 section 10.2.3), rounded up so that nobody comes back too early.
fn whole_seconds(time: Duration) -> u128 {
    time.as_nanos().div_ceil(1_000_000_000).max(1)
}

fn retry_after_header(response: &mut Response<ResponseBody>, seconds: u128) {
    if let Ok(seconds) = HeaderValue::try_from(seconds.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
}

fn proxy_status(node: &str, fault: &Fault) -> Option<HeaderValue> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let hop = fault.server.as_ref().map(|server| format!("; next-hop=\"{}\"", quoted(server))).unwrap_or_default();
    HeaderValue::try_from(format!("\"{}\"; error={}{hop}", quoted(node), fault.error)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_status_names_node_error_and_server() {
        let fault = Fault { error: "connection_refused", server: Some("app1".to_owned()) };
        assert_eq!(proxy_status("lb-a", &fault).unwrap(), "\"lb-a\"; error=connection_refused; next-hop=\"app1\"");
        let fault = Fault { error: "destination_unavailable", server: None };
        assert_eq!(proxy_status("lb-a", &fault).unwrap(), "\"lb-a\"; error=destination_unavailable");
    }
}
