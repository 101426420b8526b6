//! One HTTP/1.1 connection as a client of the lab uses it: a request at a time, each with a deadline.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, HOST, HeaderMap, SET_COOKIE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::web::SERVER_HEADER;
use hyper_util::rt::TokioIo;

/// The longest answer that a client takes; the servers of the lab send a line.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

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
    /// A whole answer with another status than 200.
    Refused,
}

/// A whole answer with status 200.
#[derive(Debug)]
pub(super) struct Answer {
    /// The name in [`SERVER_HEADER`].
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

/// A connection. Dropping it closes the socket.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects within `within`.
    pub(super) async fn open(target: SocketAddr, within: Duration) -> Result<Self, Failure> {
        let socket = timeout(within, TcpStream::connect(target)).await.map_err(|_| Failure::TimedOut)?;
        let socket = socket.map_err(|_| Failure::NotConnected)?;
        let _ = socket.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(socket)).await.map_err(|_| Failure::Broken)?;
        let driver = tokio::spawn(async {
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Sends `GET /` and takes the whole answer within `within`. After an error the connection is of no more use.
    pub(super) async fn get(&mut self, ask: Ask<'_>, host: &str, within: Duration) -> Result<Answer, Failure> {
        timeout(within, self.exchange(ask, host)).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn exchange(&mut self, ask: Ask<'_>, host: &str) -> Result<Answer, Failure> {
        self.sender.ready().await.map_err(|_| Failure::Broken)?;
        let request = request(ask, host).ok_or(Failure::Broken)?;
        let response = self.sender.send_request(request).await.map_err(|_| Failure::Broken)?;
        let (head, body) = response.into_parts();
        Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|_| Failure::Broken)?;
        if head.status != StatusCode::OK {
            return Err(Failure::Refused);
        }
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let cookie = match ask {
            Ask::WithCookie { name, .. } => cookie_set(&head.headers, name),
            Ask::KeepAlive | Ask::Close => None,
        };
        let closes = head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        Ok(Answer { server: head.headers.get(SERVER_HEADER).and_then(text), cookie, closes })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Else the socket would stay open until the other side answers, which a dead node never does.
        self.driver.abort();
    }
}

fn request(ask: Ask<'_>, host: &str) -> Option<Request<Empty<Bytes>>> {
    let request = Request::get("/").header(HOST, host);
    let request = match ask {
        Ask::Close => request.header(CONNECTION, "close"),
        Ask::WithCookie { name, value: Some(value) } => request.header(COOKIE, format!("{name}={value}")),
        Ask::KeepAlive | Ask::WithCookie { value: None, .. } => request,
    };
    request.body(Empty::new()).ok()
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
}
