//! Responses of our own: errors and refusals.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::ResponseBody;
use super::client::{Client, Refusal};

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

/// A plain response of our own.
pub fn own(client: &Client, status: StatusCode, message: &str, fault: Option<Fault>) -> Response<ResponseBody> {
    let text = format!("{} {}\n{message}\n", status.as_u16(), status.canonical_reason().unwrap_or(""));
    let mut response = Response::new(ResponseBody::text(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(status) = fault.and_then(|fault| proxy_status(&client.site().node, &fault)) {
        headers.insert(PROXY_STATUS, status);
    }
    response
}

/// The answer to a client that is not listened to any more; the connection closes after it.
pub fn refused(client: &Client, refusal: Option<Refusal>) -> Response<ResponseBody> {
    let (status, message) = match refusal {
        Some(Refusal::Malformed(rejection)) => {
            (rejection.status(), format!("the request is malformed: {}", rejection.reason().replace('_', " ")))
        }
        Some(Refusal::TooSlow) | None => (StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time".to_owned()),
    };
    let fault = Fault { error: "http_request_error", server: None };
    let mut response = own(client, status, &message, Some(fault));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to a request that is well formed and still means nothing, or two things.
pub fn bad_request(client: &Client, reason: &str) -> Response<ResponseBody> {
    let fault = Fault { error: "http_request_error", server: None };
    own(client, StatusCode::BAD_REQUEST, &format!("the request is ambiguous: {reason}"), Some(fault))
}

/// The answer to a client that has asked too often (RFC 6585 section 4).
pub fn limited(client: &Client, retry_after: Duration) -> Response<ResponseBody> {
    // Whole seconds (RFC 9110 section 10.2.3), rounded up so that nobody comes back too early.
    let seconds = retry_after.as_nanos().div_ceil(1_000_000_000).max(1);
    let message = format!("too many requests from this client; the next one is let through after {seconds} s");
    let fault = Fault { error: "http_request_denied", server: None };
    let mut response = own(client, StatusCode::TOO_MANY_REQUESTS, &message, Some(fault));
    if let Ok(seconds) = HeaderValue::try_from(seconds.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
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
