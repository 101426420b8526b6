//! Asks an HTTP server for a document: one connection a question, within the caller's deadline, and no more bytes than are
//! allowed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::dns::Resolver;
use super::source::Failure;
use crate::config::{DnsRecord, Endpoint};
use crate::proxy::server_io::ServerStream;
use crate::proxy::socket::Socket;
use crate::proxy::upstream::tls::{Origination, Within};

/// The most that the head of an answer may take.
const HEAD_BYTES_MAX: usize = 64 * 1024;

const USER_AGENT: &str = concat!("baton/", env!("CARGO_PKG_VERSION"));

/// Asks one server.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<Origination>,
    /// Present where the endpoint's host is a name.
    pub(super) resolver: Option<Resolver>,
    /// A field that shows who we are. Its value is a secret.
    pub(super) token: Option<(HeaderName, HeaderValue)>,
    /// Bytes of a body at most.
    pub(super) body_bytes_max: usize,
}

/// What is answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Client {
    /// Asks for a path. Cancel safe: there is nothing left of it.
    ///
    /// # Errors
    /// Why there is no answer. A status that is no success is an answer.
    pub(super) async fn get(&self, path: &str, fields: HeaderMap) -> Result<Answer, Failure> {
        let silent = |what: &str, error: &dyn std::fmt::Display| Failure::Silent(format!("{what}: {error}"));
        let stream = self.connect().await?;
        let mut request = Request::get(if path.is_empty() { "/" } else { path })
            .header(header::HOST, self.endpoint.authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::Wrong(error.to_string()))?;
        request.headers_mut().extend(fields);
        if let Some((name, value)) = &self.token {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let mut builder = http1::Builder::new();
        let handshake = builder.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| silent("no HTTP answer", &error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| silent("no HTTP answer", &error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, self.body_bytes_max).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Failure::Wrong(format!("the answer has more than {} KiB", self.body_bytes_max / 1024))
                } else {
                    silent("the answer broke off", &error)
                }
            })?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let mut exchange = std::pin::pin!(exchange);
        // The connection fills the answer. When it ends first, the answer is there, or has become an error.
        tokio::select! {
            biased;
            answered = &mut exchange => answered,
            _ended = connection => exchange.await,
        }
    }

    async fn connect(&self) -> Result<ServerStream, Failure> {
        let mut last = Failure::Silent(format!("{} has no address", self.endpoint.host));
        for ip in self.addresses().await? {
            let address = SocketAddr::new(ip, self.endpoint.port);
            match TcpStream::connect(address).await {
                Err(error) => last = Failure::Silent(format!("connect to {address} failed: {error}")),
                Ok(stream) => {
                    let Some(tls) = &self.tls else { return Ok(ServerStream::Plain(Socket::new(stream))) };
                    let stream = tls.connect(stream, address, Within::Http).await;
                    return stream
                        .map(|stream| ServerStream::Tls(Box::new(stream)))
                        .map_err(|error| Failure::Silent(error.reason));
                }
            }
        }
        Err(last)
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let host = &self.endpoint.host;
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        match &self.resolver {
            // What localhost is needs nobody to say.
            None => Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)]),
            Some(resolver) => {
                let (found, _) = resolver.addresses(host, DnsRecord::Any).await?;
                Ok(found.into_iter().collect())
            }
        }
    }
}
