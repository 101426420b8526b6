//! Connections and streams that change to another protocol: upgrades such as WebSocket (RFC 9110 section 7.8, RFC 8441)
//! and CONNECT. HTTP ends where the server grants it; from there on bytes are passed on as they come.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Version, request, response};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::client::Client;
use super::h2_request;
use super::transaction::Transaction;
use crate::proxy::server_io::ServerIo;
use crate::proxy::tcp;
use crate::proxy::timers::Party;
use crate::proxy::upstream::http2;

/// Another protocol that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// One of those that Upgrade names.
    Upgrade(HeaderValue),
    /// A tunnel (RFC 9110 section 9.3.6).
    Connect,
}

impl Wanted {
    /// What a request asks for, as far as it may. It has been judged; a connection is only changed where the gate holds
    /// back what follows, so the two have to agree: `has_body` is what the gate goes by.
    pub fn by(parts: &request::Parts, has_body: bool) -> Option<Self> {
        if parts.method == Method::CONNECT {
            return Some(Self::Connect);
        }
        // `h2c` would be HTTP behind our back: nothing that is asked in it would be judged or routed.
        let is_told = names(&parts.headers, header::CONNECTION, |name| name.eq_ignore_ascii_case("upgrade"));
        let is_http = names(&parts.headers, header::UPGRADE, is_http);
        let may_ask = parts.version != Version::HTTP_10 && !has_body && is_told && !is_http;
        let mut protocols = parts.headers.get_all(header::UPGRADE).iter();
        match (protocols.next(), protocols.next()) {
            (Some(only), None) if may_ask => Some(Self::Upgrade(only.clone())),
            _ => None,
        }
    }

    /// Has a request for a server, from which hop-by-hop fields have been removed, ask for it.
    pub fn ask(&self, headers: &mut HeaderMap) {
        if let Self::Upgrade(protocols) = self {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocols.clone());
        }
    }

    /// Has a request for a server of HTTP/2, which [`Wanted::ask`] has prepared for HTTP/1, ask for it as RFC 8441 has it.
    /// False for what has no such form.
    pub fn ask_by_connect<B>(&self, request: &mut Request<B>) -> bool {
        let Self::Upgrade(protocols) = self else { return false };
        if *request.method() != Method::GET {
            return false;
        }
        // Extended CONNECT names one protocol, and there is no saying which of several a server would choose.
        let Some(protocol) = protocols.to_str().ok().filter(|names| !names.contains(',')) else { return false };
        request.extensions_mut().insert(Protocol::from(protocol.trim()));
        *request.method_mut() = Method::CONNECT;
        true
    }

    /// Takes back what [`Wanted::ask_by_connect`] did.
    pub fn ask_by_upgrade<B>(request: &mut Request<B>) {
        if request.extensions_mut().remove::<Protocol>().is_some() {
            *request.method_mut() = Method::GET;
        }
    }

    /// What a response grants of it: the protocol that Upgrade has to name for the client. `None`: nothing.
    pub fn granted(&self, response: &response::Parts) -> Option<Granted> {
        match self {
            Self::Connect => response.status.is_success().then_some(Granted(None)),
            Self::Upgrade(protocols) => {
                let mut chosen = response.headers.get_all(header::UPGRADE).iter();
                let (chosen, second) = (chosen.next()?, chosen.next());
                let asked = protocols.to_str().ok()?.split(',').map(str::trim);
                let is_asked =
                    chosen.to_str().is_ok_and(|chosen| asked.clone().any(|one| one.eq_ignore_ascii_case(chosen)));
                let is_switched = response.status == StatusCode::SWITCHING_PROTOCOLS && second.is_none();
                (is_switched && is_asked).then(|| Granted(Some(chosen.clone())))
            }
        }
    }
}

/// What a server has granted.
#[derive(Debug)]
pub struct Granted(Option<HeaderValue>);

impl Granted {
    /// Tells the client of it, in a response from which hop-by-hop fields have been removed.
    pub fn tell(self, headers: &mut HeaderMap) {
        match self.0 {
            Some(protocol) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, protocol);
            }
            // A tunnel has no length (RFC 9110 section 9.3.6).
            None => drop(headers.remove(header::CONTENT_LENGTH)),
        }
    }
}

/// Whether a list of names has one of which this is true.
fn names(headers: &HeaderMap, list: header::HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(list);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| is_it(name.trim()))
}

/// HTTP in one of its versions, which is no other protocol.
fn is_http(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    ["h2c", "h2", "http", "h3"].iter().any(|http| name.eq_ignore_ascii_case(http))
}

/// Makes of a server's answer to an extended CONNECT the answer to the upgrade that it stands for.
pub fn as_switch(parts: &mut response::Parts, protocol: &Protocol, key: Option<&HeaderValue>) {
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    parts.headers.remove(header::CONTENT_LENGTH);
    if let Ok(name) = HeaderValue::try_from(protocol.as_str()) {
        parts.headers.insert(header::UPGRADE, name);
    }
    if let Some(accept) = key.and_then(|key| HeaderValue::try_from(h2_request::digest_of_key(key)).ok()) {
        parts.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
}

/// The server's end of a tunnel.
pub enum ServerEnd {
    /// A connection that was one of HTTP/1.
    Connection(Box<ServerIo>),
    /// A stream of HTTP/2, with its place on the connection.
    Stream(StreamIo<Bytes>, Box<http2::Stream>),
}

impl AsyncRead for ServerEnd {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(server) => Pin::new(&mut **server).poll_read(context, buffer),
            Self::Stream(stream, _) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(server) => Pin::new(&mut **server).poll_write(context, bytes),
            Self::Stream(stream, _) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(server) => Pin::new(&mut **server).poll_flush(context),
            Self::Stream(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(server) => Pin::new(&mut **server).poll_shutdown(context),
            Self::Stream(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// The server's end of a tunnel, which waits for the client's.
pub struct Tunnel {
    server: ServerEnd,
    /// Read behind the server's response.
    read_ahead: Bytes,
    /// The request that has become the tunnel, and ends with it.
    transaction: Option<Box<Transaction>>,
}

impl Tunnel {
    /// Behind the head with which a server grants it.
    pub fn new((server, read_ahead): (ServerEnd, Bytes)) -> Self {
        Self { server, read_ahead, transaction: None }
    }

    /// Has the request that it was granted to last as long as it does: its place at the server, and its line of the log.
    pub fn carry(&mut self, mut transaction: Box<Transaction>) {
        transaction.switched();
        self.transaction = Some(transaction);
    }

    /// Passes bytes on until both sides have ended, or none has moved for `tunnel_timeout`. However it ends, both
    /// connections end with it. `read_ahead` has been read of the client's behind its request.
    pub async fn relay<C: AsyncRead + AsyncWrite + Unpin>(self, client: &Client, stream: C, read_ahead: Bytes) {
        let Some(timeout) = client.listener().map(|listener| listener.config.tunnel_timeout) else { return };
        let Self { server, read_ahead: first, transaction } = self;
        let Some(moved) = transaction.as_ref().and_then(|transaction| transaction.tunnelled.as_ref()) else { return };
        let end = pass((stream, first), (server, read_ahead), client, timeout, moved).await;
        tcp::note_end(&client.marks, end);
    }
}

/// Passes bytes on between the two ends of a tunnel, first to each what the other has said already.
async fn pass<C: AsyncRead + AsyncWrite + Unpin>(
    (mut stream, to_client): (C, Bytes),
    (mut server, to_server): (ServerEnd, Bytes),
    client: &Client,
    timeout: Duration,
    moved: &tcp::Moved,
) -> tcp::End {
    let deadlines = client.deadlines();
    deadlines.attach_here().await;
    // Its time is over with the response.
    deadlines.clear(Party::Request);
    match deadlines.within(timeout, server.write_all(&to_server)).await {
        Some(Ok(())) => moved.up.set(to_server.len() as u64),
        Some(Err(_)) => return tcp::End::ServerBroke,
        None => return tcp::End::Idle,
    }
    match deadlines.within(timeout, stream.write_all(&to_client)).await {
        Some(Ok(())) => moved.down.set(to_client.len() as u64),
        Some(Err(_)) => return tcp::End::ClientBroke,
        None => return tcp::End::Idle,
    }
    drop((to_client, to_server));
    tcp::relay(&mut stream, &mut server, &client.thread().buffers, deadlines, timeout, None, moved).await
}

/// What becomes of an HTTP/1 connection whose last request asks for another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It has not asked, or was told no.
    Http,
    /// The answer is not known; what the client sends waits.
    Asked,
    /// The answer is no: what waits is HTTP.
    Declined,
}

/// Whether the gate holds back what follows this request, until [`answered`] is called.
pub fn is_waited_for<B: http_body::Body>(request: &Request<B>) -> bool {
    let may_switch = request.headers().contains_key(header::UPGRADE) && request.version() != Version::HTTP_10;
    request.method() == Method::CONNECT || may_switch && request.body().is_end_stream()
}

/// The response to such a request is known.
pub fn answered(client: &Client) {
    if client.tunnel.borrow().is_none() {
        client.switch.set(Switch::Declined);
        client.deadlines().wake();
    }
}

/// The initial value of [`Client::switch`].
pub fn unasked() -> Cell<Switch> {
    Cell::new(Switch::Http)
}

/// A stream of HTTP/2 as the two directions of a tunnel.
pub struct StreamIo<B: Buf> {
    sender: h2::SendStream<B>,
    receiver: h2::RecvStream,
    /// Received and not read yet.
    waiting: Bytes,
}

impl<B: Buf> StreamIo<B> {
    /// Behind the heads of both sides.
    pub fn new(sender: h2::SendStream<B>, receiver: h2::RecvStream) -> Self {
        Self { sender, receiver, waiting: Bytes::new() }
    }
}

impl<B: Buf> AsyncRead for StreamIo<B> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.waiting.is_empty() {
            match std::task::ready!(this.receiver.poll_data(context)) {
                Some(Ok(data)) => {
                    // The client may send as much again: no more than one such part waits here.
                    this.receiver.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
                    this.waiting = data;
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = this.waiting.len().min(buffer.remaining());
        buffer.put_slice(&this.waiting.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl<B: Buf + From<Bytes>> AsyncWrite for StreamIo<B> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.sender.reserve_capacity(bytes.len());
        while this.sender.capacity() == 0 {
            match std::task::ready!(this.sender.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let part = bytes.get(..this.sender.capacity()).unwrap_or(bytes);
        this.sender.send_data(Bytes::copy_from_slice(part).into(), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Fails where the stream is reset already.
        let _ended = self.get_mut().sender.send_data(Bytes::new().into(), true);
        Poll::Ready(Ok(()))
    }
}

/// The client of an HTTP/1 connection, with what was read of it before.
pub type Rest = (super::ClientStream, Bytes);

/// A tunnel that was granted to a client, until its connection or stream has been taken over.
pub type Slot = std::cell::RefCell<Option<Tunnel>>;

/// Opens the tunnel that a response grants. False when the server's connection is not to be had.
pub fn open(client: &Rc<Client>, server: Option<(ServerEnd, Bytes)>) -> bool {
    let is_open = server.is_some();
    *client.tunnel.borrow_mut() = server.map(Tunnel::new);
    is_open
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn wanted(fields: &[(&str, &str)], has_body: bool) -> Option<Wanted> {
        let mut builder = Request::builder().uri("/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        Wanted::by(&builder.body(()).unwrap().into_parts().0, has_body)
    }

    fn granted(wanted: &Wanted, status: u16, upgrade: &[&str]) -> bool {
        let mut builder = Response::builder().status(status);
        for protocol in upgrade {
            builder = builder.header("upgrade", *protocol);
        }
        wanted.granted(&builder.body(()).unwrap().into_parts().0).is_some()
    }

    #[test]
    fn an_upgrade_is_wanted_where_connection_names_it_and_nothing_else_could_be_meant() {
        let websocket = Some(Wanted::Upgrade(HeaderValue::from_static("websocket")));
        let fields = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert_eq!(wanted(&fields, false), websocket);
        assert_eq!(wanted(&fields, true), None);
        assert_eq!(wanted(&fields[1..], false), None);
        assert_eq!(wanted(&fields[..1], false), None);
        assert_eq!(wanted(&[fields[0], fields[1], fields[1]], false), None);
        for http in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0"] {
            assert_eq!(wanted(&[("connection", "upgrade"), ("upgrade", http)], false), None, "{http}");
        }
    }

    #[test]
    fn an_upgrade_is_granted_by_101_with_a_protocol_that_was_asked_for() {
        let wanted = Wanted::Upgrade(HeaderValue::from_static("irc/6.9, websocket"));
        assert!(granted(&wanted, 101, &["WebSocket"]));
        assert!(granted(&wanted, 101, &["irc/6.9"]));
        assert!(!granted(&wanted, 101, &["other"]));
        assert!(!granted(&wanted, 101, &[]));
        assert!(!granted(&wanted, 101, &["websocket", "websocket"]));
        assert!(!granted(&wanted, 200, &["websocket"]));
        assert!(granted(&Wanted::Connect, 200, &[]));
        assert!(!granted(&Wanted::Connect, 101, &[]));
        assert!(!granted(&Wanted::Connect, 407, &[]));
    }
}
