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

/// What all of these begin with.
const PREFIX: &[u8] = b"x-ssl-client-";

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

/// Tells a server who the client is, and nothing that the client says itself about that. `facts` is `None` on a listener
/// that asks for no certificates; then nothing is told.
pub fn to_server(headers: &mut HeaderMap, facts: Option<&TlsFacts>) {
    remove(headers);
    let Some(facts) = facts else { return };
    let Some(client) = facts.client() else {
        headers.insert(VERIFY, HeaderValue::from_static("NONE"));
        return;
    };
    let [subject, fingerprint] = client.headers.clone();
    headers.insert(VERIFY, HeaderValue::from_static("SUCCESS"));
    headers.insert(SUBJECT, subject);
    headers.insert(FINGERPRINT, fingerprint);
}

/// Removes all such fields, with underscores too: to many applications both are the same.
fn remove(headers: &mut HeaderMap) {
    let is_alike = |name: &HeaderName| {
        let front = name.as_str().as_bytes().get(..PREFIX.len()).unwrap_or_default();
        !front.is_empty()
            && front.iter().zip(PREFIX).all(|(byte, wanted)| byte == wanted || (*wanted == b'-' && *byte == b'_'))
    };
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_alike(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_of_its_certificate_is_removed_however_it_is_written() {
        let mut headers = HeaderMap::new();
        for name in ["x-ssl-client-verify", "X_SSL_Client_Subject", "x-ssl_client-dn", "x-ssl-clients", "x-other"] {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("SUCCESS"));
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("again"));
        }
        to_server(&mut headers, None);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-other", "x-ssl-clients"]);
    }
}
