//! Errors of our own for clients that speak gRPC: to them an HTTP status is a fault of the transport, and what went wrong
//! belongs into trailers (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};

use super::body::ResponseBody;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The trailers of gRPC.
const TRAILERS: HeaderValue = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");

/// Whether a request is a call of gRPC, whose errors are not for people. Only on HTTP/2 can they be said in its words.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let is_grpc = |kind: &HeaderValue| {
        let rest = kind.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc)
}

/// Announces the trailers of a server's response to a client of HTTP/1.1: hyper sends none that were not (RFC 9110 section
/// 6.6.2), and sends those to no client but one that says `TE: trailers`.
pub fn announce(response: &mut Response<ResponseBody>) {
    let headers = response.headers();
    let may_have_some = response.body().own_text().is_none() && !headers.contains_key(header::CONTENT_LENGTH);
    if may_have_some && !headers.contains_key(header::TRAILER) {
        response.headers_mut().insert(header::TRAILER, TRAILERS);
    }
}

/// Says an error of ours in the way of gRPC: status 200 and the trailers at once ("Trailers-Only"). What a server
/// answered stays as it is.
pub fn translate(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let status = response.status();
    let Some(text) = response.body().own_text() else { return response };
    if status.is_success() || status.is_informational() {
        return response;
    }
    // The first line of our texts repeats the status.
    let text = String::from_utf8_lossy(text);
    let message = escaped(text.split_once('\n').map_or(&*text, |(_, message)| message).trim());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(GRPC_STATUS, HeaderValue::from(code(status)));
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    *response.status_mut() = StatusCode::OK;
    response.map(|_| ResponseBody::empty())
}

/// The code of gRPC that comes closest, among those that clients know how to go on from.
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        // INVALID_ARGUMENT
        400 | 414 | 431 => 3,
        // UNAUTHENTICATED
        401 => 16,
        // PERMISSION_DENIED
        403 => 7,
        // UNIMPLEMENTED
        404 | 405 | 501 => 12,
        // DEADLINE_EXCEEDED
        408 | 504 => 4,
        // RESOURCE_EXHAUSTED
        413 | 429 => 8,
        // UNAVAILABLE
        502 | 503 => 14,
        // INTERNAL
        500 => 13,
        // UNKNOWN
        _ => 2,
    }
}

/// Printable ASCII but `%`, the rest as `%` and two digits.
fn escaped(message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn is_call_with(kind: &str) -> bool {
        is_call(&Request::builder().header("content-type", kind).body(()).unwrap())
    }

    #[test]
    fn calls_are_known_by_their_content_type() {
        assert!(is_call_with("application/grpc"));
        assert!(is_call_with("application/grpc+proto"));
        assert!(!is_call_with("application/grpc-web"));
        assert!(!is_call_with("application/json"));
    }

    #[test]
    fn our_errors_become_trailers() {
        let mut response =
            Response::new(ResponseBody::text(Bytes::from("503 Service Unavailable\nno server: 100 % ü\n")));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let response = translate(response);
        assert_eq!(response.status(), 200);
        let field = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(["content-type", "grpc-status"].map(field), ["application/grpc", "14"]);
        assert_eq!(field("grpc-message"), "no server: 100 %25 %C3%BC");
        assert_eq!(response.body().own_text().map(Bytes::as_ref), None);
    }
}
