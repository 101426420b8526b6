//! Clients with certificates of their own: who they are, and how servers are told.

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

use super::facts::TlsFacts;
use crate::config::certificates;

/// Whether there was a certificate: `SUCCESS` or `NONE`, as nginx says it. A bad one never comes so far.
const VERIFY: HeaderName = HeaderName::from_static("x-ssl-client-verify");
/// Whose it is (RFC 4514).
const SUBJECT: HeaderName = HeaderName::from_static("x-ssl-client-subject");
/// SHA-256 of it in hex.
const FINGERPRINT: HeaderName = HeaderName::from_static("x-ssl-client-fingerprint");

/// A client's certificate, which has been verified.
#[derive(Debug)]
pub struct ClientCertificate {
    subject: String,
    fingerprint: String,
    /// The same for servers.
    headers: [HeaderValue; 2],
}

impl ClientCertificate {
    /// What a certificate says.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        // The verifier has read it already.
        let (subject, fingerprint) =
            certificates::facts(certificate).map(|facts| (facts.subject, facts.fingerprint)).unwrap_or_default();
        let header = |text: &str| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        let headers = [header(&subject), header(&fingerprint)];
        Self { subject, fingerprint, headers }
    }

    /// Whose it is, as RFC 4514 writes it, in printable ASCII.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// SHA-256 of it in lower-case hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Tells a server who the client is. What the client says itself about that has been removed, see
/// [`crate::proxy::http::vouched`].
pub fn to_server(headers: &mut HeaderMap, facts: &TlsFacts) {
    let Some(client) = facts.client() else {
        headers.insert(VERIFY, HeaderValue::from_static("NONE"));
        return;
    };
    let [subject, fingerprint] = client.headers.clone();
    headers.insert(VERIFY, HeaderValue::from_static("SUCCESS"));
    headers.insert(SUBJECT, subject);
    headers.insert(FINGERPRINT, fingerprint);
}
