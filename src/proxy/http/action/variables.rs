//! What variables stand for.

use std::io::Write as _;

use http::header;
use http::{HeaderValue, Method, Request, Uri};

use crate::config::{PoolIndex, Template, TemplatePart, Variable};
use crate::proxy::http::route;
use crate::proxy::http::transaction::Transaction;
use crate::proxy::tls::client::ClientCertificate;
use crate::proxy::tls::facts::TlsFacts;

/// What a request asked for, kept beyond its way to a server. Copies of it share their memory.
pub struct Facts {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Facts {
    /// Of a request as the client sent it.
    pub fn of<B>(request: &Request<B>) -> Self {
        let host = request.headers().get(header::HOST).cloned();
        Self { method: request.method().clone(), uri: request.uri().clone(), host }
    }

    /// The host without port; empty when none was named.
    pub fn host(&self) -> &str {
        route::host_of(&self.uri, self.host.as_ref())
    }
}

/// Whether a variable says something about what was asked for, which [`Facts`] has.
pub(super) fn is_of_request(variable: Variable) -> bool {
    matches!(variable, Variable::Host | Variable::Path | Variable::Query | Variable::Method)
}

/// All that is known of a request.
pub(super) struct View<'a> {
    pub(super) transaction: &'a Transaction,
    pub(super) facts: Option<&'a Facts>,
    pub(super) pool: Option<PoolIndex>,
}

impl View<'_> {
    /// Writes a text with variables.
    pub(super) fn render(&self, template: &Template, out: &mut Vec<u8>) {
        for part in &template.parts {
            match part {
                TemplatePart::Text(text) => out.extend_from_slice(text.as_bytes()),
                TemplatePart::Variable(variable) => self.write(*variable, out),
            }
        }
    }

    fn write(&self, variable: Variable, out: &mut Vec<u8>) {
        let Transaction { client, ip, place, .. } = self.transaction;
        let connection = &client.connection;
        let mut text = |text: &str| out.extend_from_slice(text.as_bytes());
        match variable {
            // Writing to a vector cannot fail.
            Variable::ClientIp => drop(write!(out, "{ip}")),
            Variable::ClientPort => drop(write!(out, "{}", connection.port)),
            Variable::Host => text(self.facts.map_or("", Facts::host)),
            Variable::Path => text(self.facts.map_or("", |facts| facts.uri.path())),
            Variable::Query => text(self.facts.and_then(|facts| facts.uri.query()).unwrap_or("")),
            Variable::Method => text(self.facts.map_or("", |facts| facts.method.as_str())),
            Variable::Server => {
                let pool = place.and_then(|place| Some((place, client.site().pool(place.pool)?)));
                let server = pool.and_then(|(place, pool)| pool.config.servers.get(place.server));
                text(server.map_or("", |server| &server.name));
            }
            Variable::Pool => {
                let pool = self.pool.and_then(|pool| client.site().pool(pool));
                text(pool.map_or("", |pool| &pool.config.name));
            }
            Variable::Listener => text(client.listener().map_or("", |listener| &listener.config.name)),
            Variable::Node => text(&client.site().node),
            Variable::TlsVersion => text(connection.tls().map_or("", TlsFacts::version)),
            Variable::TlsCipher => text(connection.tls().map_or("", TlsFacts::cipher)),
            Variable::TlsSni => text(connection.tls().and_then(TlsFacts::server_name).unwrap_or("")),
            Variable::TlsClientSubject => {
                text(connection.tls().and_then(TlsFacts::client).map_or("", ClientCertificate::subject))
            }
            Variable::RequestId => {
                let id = self.transaction.request_id.as_ref().map_or(&[][..], |id| id.as_bytes());
                out.extend_from_slice(id);
            }
        }
    }
}

/// What a header says. What no header may hold becomes a question mark: a header that is to be in place of the client's own
/// must not be left out because of what the client has sent.
pub(super) fn field_value(mut text: Vec<u8>) -> HeaderValue {
    for byte in &mut text {
        if (*byte < b' ' && *byte != b'\t') || *byte == 0x7f {
            *byte = b'?';
        }
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static("?"))
}

/// A URL in which what may not stand there is escaped (RFC 3986 section 2).
pub(super) fn url(text: &[u8]) -> String {
    let mut url = String::with_capacity(text.len());
    for byte in text {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

/// Where a redirect leads, as a URL. Never to a host that what is made of the request says: a path begins with one slash, and
/// it is `None` when an absolute URL names no host, for which browsers take what follows.
pub(super) fn location(text: &[u8]) -> Option<String> {
    let url = url(text);
    let Some(host) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        let path = url.trim_start_matches('/');
        return Some(format!("/{path}"));
    };
    (!host.is_empty() && !host.starts_with(['/', '?', '#', ':'])).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_of(target: &str, field: &str) -> String {
        let request = Request::builder().uri(target).header("host", field).body(()).unwrap();
        Facts::of(&request).host().to_owned()
    }

    #[test]
    fn host_is_taken_without_port_from_wherever_it_stands() {
        assert_eq!(host_of("/", "shop.example"), "shop.example");
        assert_eq!(host_of("/", "shop.example:8080"), "shop.example");
        assert_eq!(host_of("/", "[2001:db8::1]:80"), "[2001:db8::1]");
        assert_eq!(host_of("/", "[2001:db8::1]"), "[2001:db8::1]");
        assert_eq!(host_of("http://other.example/", "other.example"), "other.example");
    }

    #[test]
    fn no_value_ends_its_line() {
        assert_eq!(field_value(b"a\r\nSet-Cookie: b\0\x7f".to_vec()), "a??Set-Cookie: b??");
        assert_eq!(field_value("gr\u{fc}n\t1".as_bytes().to_vec()).as_bytes(), "gr\u{fc}n\t1".as_bytes());
    }

    #[test]
    fn locations_are_of_a_host_that_is_named_or_the_same() {
        let led = |text: &str| location(text.as_bytes());
        for text in ["/a//b?c=//d", "https://a.example//b", "http://a", "/"] {
            assert_eq!(led(text).as_deref(), Some(text));
        }
        assert_eq!(led("//evil.example/a").as_deref(), Some("/evil.example/a"));
        assert_eq!(led("////").as_deref(), Some("/"));
        assert_eq!(led("/\\evil.example").as_deref(), Some("/%5Cevil.example"));
        assert_eq!(led("/\t/evil.example").as_deref(), Some("/%09/evil.example"));
        for text in ["https:///evil.example", "https://", "http://?a", "https://:8443/evil.example"] {
            assert_eq!(led(text), None, "{text}");
        }
    }

    #[test]
    fn urls_have_nothing_that_ends_them() {
        assert_eq!(url(b"https://a.example/a%20b?c=d&e"), "https://a.example/a%20b?c=d&e");
        assert_eq!(url(b"/a\r\nb \"<>\xff"), "/a%0D%0Ab%20%22%3C%3E%FF");
    }
}
