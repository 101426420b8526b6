//! A client of the lab: one HTTP/1.1 connection, a request at a time, each with a deadline.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, HOST, HeaderMap, SEC_WEBSOCKET_ACCEPT, SET_COOKIE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::web::SERVER_HEADER;
use super::websocket;

/// The longest answer that a client takes; the servers of the lab send a line.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// Bytes of a body's first line that can name a server.
const SERVER_NAME_MAX_BYTES: usize = 64;

/// Why a request got no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The connection was refused or could not be made.
    NotConnected,
    /// Nothing came in time.
    TimedOut,
    /// The connection broke before the answer was whole.
    Broken,
    /// A whole answer that says no (neither 2xx nor 3xx), or other content than was to come.
    Refused,
}

/// Why somebody who asked once got no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoGoodAnswer {
    /// Of which kind.
    pub failure: Failure,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
}

impl fmt::Display for NoGoodAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.failure, self.status) {
            (Failure::NotConnected, _) => f.write_str("no connection can be made"),
            (Failure::TimedOut, _) => f.write_str("nothing came in time"),
            (Failure::Broken, _) => f.write_str("the connection broke before the answer was whole"),
            (Failure::Refused, Some(status)) => write!(f, "the answer has status {status}, not 2xx or 3xx"),
            (Failure::Refused, None) => f.write_str("the answer is not the one that was to come"),
        }
    }
}

/// Where clients ask, and how they tell who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where they connect.
    pub address: SocketAddr,
    /// What they send as Host.
    pub host: String,
    /// What they ask for.
    pub path: String,
    /// How they speak TLS, if they do.
    pub tls: Option<Tls>,
    /// What names the server that answered.
    pub server_from: ServerFrom,
}

/// What names the server that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrom {
    /// The cookie that a client carries.
    Cookie,
    /// The first line of the body.
    Body,
    /// A header, in lower case.
    Header(String),
}

/// How to speak TLS.
#[derive(Clone)]
pub struct Tls {
    /// Whom to trust.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the certificate must have.
    pub name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.name).finish()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Tls {}

impl Target {
    /// In clear text, for servers of the lab: `GET /`, and their own header.
    pub fn of_lab(address: SocketAddr) -> Self {
        let server_from = ServerFrom::Header(SERVER_HEADER.to_owned());
        Self { address, host: address.to_string(), path: "/".to_owned(), tls: None, server_from }
    }
}

/// A whole answer that says yes (2xx) or leads elsewhere (3xx).
#[derive(Debug)]
pub(super) struct Answer {
    /// Who gave it, where anything but the cookie says so.
    pub(super) server: Option<String>,
    /// The new value of the cookie that was asked about.
    pub(super) cookie: Option<String>,
    /// The other side closes the connection after this answer.
    pub(super) closes: bool,
}

/// What a request carries besides its target.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// Keep the connection.
    KeepAlive,
    /// Close it after the answer.
    Close,
    /// Keep the connection, and send and take the cookie of this name.
    WithCookie { name: &'a str, value: Option<&'a str> },
}

/// Bytes to and from a target, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects, TLS included, within `within`.
pub(super) async fn connect(
    address: SocketAddr,
    tls: Option<&Tls>,
    within: Duration,
) -> Result<Box<dyn Stream>, Failure> {
    let connecting = async {
        let socket = TcpStream::connect(address).await.map_err(|_| Failure::NotConnected)?;
        let _ = socket.set_nodelay(true);
        Ok(match tls {
            None => Box::new(socket) as Box<dyn Stream>,
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector.connect(tls.name.clone(), socket).await;
                Box::new(stream.map_err(|_| Failure::NotConnected)?)
            }
        })
    };
    timeout(within, connecting).await.unwrap_or(Err(Failure::TimedOut))
}

/// A connection. Dropping it closes the socket.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// Of the last answer.
    status: Option<StatusCode>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects within `within`.
    pub(super) async fn open(target: &Target, within: Duration) -> Result<Self, Failure> {
        let stream = connect(target.address, target.tls.as_ref(), within).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Broken)?;
        let driver = tokio::spawn(async {
            let _ = connection.with_upgrades().await;
        });
        Ok(Self { sender, status: None, driver })
    }

    /// Sends a request and takes the whole answer within `within`. After an error the connection is of no more use.
    pub(super) async fn get(&mut self, ask: Ask<'_>, target: &Target, within: Duration) -> Result<Answer, Failure> {
        timeout(within, self.exchange(ask, target)).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// The status of the last answer, whatever it was.
    pub(super) fn status(&self) -> Option<u16> {
        self.status.map(|status| status.as_u16())
    }

    /// Turns the connection into a WebSocket's within `within` (RFC 6455 section 4.1).
    pub(super) async fn upgrade(mut self, target: &Target, within: Duration) -> Result<TokioIo<Upgraded>, Failure> {
        let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
        let request = Request::get(&target.path).header(HOST, &target.host).header(CONNECTION, "Upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        let request = request.header("sec-websocket-key", &key).body(Empty::new()).map_err(|_| Failure::Broken)?;
        let upgrading = async {
            let response = self.sender.send_request(request).await.map_err(|_| Failure::Broken)?;
            let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
            let is_good = accepted == Some(websocket::accept(key.as_bytes()).as_bytes());
            if response.status() != StatusCode::SWITCHING_PROTOCOLS || !is_good {
                return Err(Failure::Refused);
            }
            hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|_| Failure::Broken)
        };
        timeout(within, upgrading).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn exchange(&mut self, ask: Ask<'_>, target: &Target) -> Result<Answer, Failure> {
        self.sender.ready().await.map_err(|_| Failure::Broken)?;
        let request = request(ask, target).ok_or(Failure::Broken)?;
        let response = self.sender.send_request(request).await.map_err(|_| Failure::Broken)?;
        let (head, body) = response.into_parts();
        self.status = Some(head.status);
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|_| Failure::Broken)?.to_bytes();
        if !head.status.is_success() && !head.status.is_redirection() {
            return Err(Failure::Refused);
        }
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let cookie = match ask {
            Ask::WithCookie { name, .. } => cookie_set(&head.headers, name),
            Ask::KeepAlive | Ask::Close => None,
        };
        let server = match &target.server_from {
            ServerFrom::Cookie => None,
            ServerFrom::Body => first_line(&body),
            ServerFrom::Header(name) => head.headers.get(name).and_then(text),
        };
        let closes = head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        Ok(Answer { server, cookie, closes })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Else the socket would stay open until the other side answers, which a dead node never does.
        self.driver.abort();
    }
}

fn request(ask: Ask<'_>, target: &Target) -> Option<Request<Empty<Bytes>>> {
    let request = Request::get(&target.path).header(HOST, &target.host);
    let request = match ask {
        Ask::Close => request.header(CONNECTION, "close"),
        Ask::WithCookie { name, value: Some(value) } => request.header(COOKIE, format!("{name}={value}")),
        Ask::KeepAlive | Ask::WithCookie { value: None, .. } => request,
    };
    request.body(Empty::new()).ok()
}

fn first_line(body: &Bytes) -> Option<String> {
    let line = body.split(|byte| *byte == b'\n').next()?;
    let line = line.get(..SERVER_NAME_MAX_BYTES).unwrap_or(line);
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

/// The value that the answer gives the cookie `name`.
fn cookie_set(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()).find_map(|text| {
        let pair = text.split(';').next()?;
        let (set_name, value) = pair.split_once('=')?;
        (set_name.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_found_among_others_and_without_its_attributes() {
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("SESSION=x; Path=/"));
        headers.append(SET_COOKIE, HeaderValue::from_static("BATON=web2.a9; Path=/; HttpOnly"));
        assert_eq!(cookie_set(&headers, "BATON"), Some("web2.a9".to_owned()));
        assert_eq!(cookie_set(&headers, "BATO"), None);
    }

    #[test]
    fn first_line_of_a_body_names_its_server() {
        assert_eq!(first_line(&Bytes::from_static(b"web1 \nmore")), Some("web1".to_owned()));
        assert_eq!(first_line(&Bytes::from(vec![b'x'; 99])).map(|name| name.len()), Some(64));
    }
}
