//! Interim responses of servers, such as 103 Early Hints (RFC 8297), on their way to the client.
//!
//! hyper calls back with them while it reads from the server, which may be from any thread as far as it knows; what it
//! says waits here until the task of the client has a turn to write.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName, Request, StatusCode, Version, header};

/// Interim responses to one request that are passed on; a server that sends more has them dropped.
const WAITING_MAX: usize = 16;

/// One interim response.
#[derive(Debug, Clone)]
pub struct Interim {
    /// Its status, 102 to 199.
    pub status: StatusCode,
    /// Its fields, none of them hop-by-hop.
    pub headers: HeaderMap,
}

/// Interim responses that wait to be sent to a client; its clones are one.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Mutex<Vec<Interim>>>);

impl Mailbox {
    /// Has the interim responses to a request come here, where its client can take them. Over HTTP/2, whoever reads them
    /// finds the mailbox among the request's extensions and calls [`Mailbox::put`].
    pub fn listen<B>(&self, client_version: Version, may_be_http2: bool, request: &mut Request<B>) {
        if client_version == Version::HTTP_10 {
            return;
        }
        if may_be_http2 {
            request.extensions_mut().insert(self.clone());
        }
        let mailbox = self.clone();
        hyper::ext::on_informational(request, move |response| mailbox.put(response.status(), response.headers()));
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Those that wait.
    pub fn take(&self) -> Vec<Interim> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One has come.
    pub fn put(&self, status: StatusCode, headers: &HeaderMap) {
        // 100 is between us and the server: the client was told by us, or has not asked.
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            let mut headers = headers.clone();
            for name in OF_THE_HOP {
                headers.remove(name);
            }
            waiting.push(Interim { status, headers });
        }
    }
}

/// An interim response has no body, and nothing in it is about the connection.
const OF_THE_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// As HTTP/1.1 writes it.
pub fn write(interim: &Interim, bytes: &mut Vec<u8>) {
    let reason = interim.status.canonical_reason().unwrap_or("");
    bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", interim.status.as_str()).as_bytes());
    for (name, value) in &interim.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn hints() -> HeaderMap {
        let link = (header::LINK, HeaderValue::from_static("</a.css>; rel=preload"));
        HeaderMap::from_iter([link, (header::CONNECTION, HeaderValue::from_static("keep-alive"))])
    }

    #[test]
    fn early_hints_are_written_without_what_is_of_the_hop() {
        let mailbox = Mailbox::default();
        mailbox.put(StatusCode::EARLY_HINTS, &hints());
        let mut bytes = Vec::new();
        mailbox.take().iter().for_each(|interim| write(interim, &mut bytes));
        assert_eq!(bytes, b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        assert!(mailbox.is_empty());
    }

    #[test]
    fn sixteen_wait_and_100_does_not() {
        let mailbox = Mailbox::default();
        mailbox.put(StatusCode::CONTINUE, &hints());
        assert!(mailbox.is_empty());
        (0..20).for_each(|_| mailbox.put(StatusCode::EARLY_HINTS, &hints()));
        assert_eq!(mailbox.take().len(), 16);
    }
}
