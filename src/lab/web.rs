//! Small web servers that say who they are, behind the pair.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::{Semaphore, watch};

use super::LabError;
use super::namespace::Namespace;
use super::websocket::{self, End};
use hyper_util::rt::TokioIo;

/// The header in which a server names itself.
pub const SERVER_HEADER: &str = "x-server";

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;

/// Wait after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// Time for a server to say that it listens.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP/1.1 server on a thread inside a namespace. `GET /health` answers 200 with `ok`, `/echo` opens a WebSocket that
/// sends every message back, everything else is answered 200 with the server's name and a line feed; all answers carry the
/// name in [`SERVER_HEADER`]. It stops when it is dropped.
#[derive(Debug)]
pub struct WebServer {
    name: String,
    address: SocketAddr,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl WebServer {
    /// Starts it, and returns once it listens.
    ///
    /// # Errors
    /// When the thread or the listening socket cannot be had.
    pub fn start(namespace: &Namespace, name: &str, address: SocketAddr) -> Result<Self, LabError> {
        let doing = format!("start the server {name} on {address}");
        let (stop, stopped) = watch::channel(());
        let (ready, listening) = mpsc::sync_channel(1);
        let server_name: Arc<str> = name.into();
        let thread = namespace.spawn(name, move || {
            let listener = TcpListener::bind(address);
            match listener {
                Ok(listener) => {
                    let _ = ready.send(Ok(()));
                    serve_until(listener, &server_name, stopped);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        let listens = listening.recv_timeout(START_TIMEOUT);
        listens.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(LabError::system(doing))?;
        Ok(Self { name: name.to_owned(), address, stop, thread: Some(thread) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts until told to stop; connections end with the runtime.
fn serve_until(listener: TcpListener, name: &Arc<str>, mut stopped: watch::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        tokio::select! {
            _ = stopped.changed() => {}
            _ = accept_all(listener, name) => {}
        }
    });
}

async fn accept_all(listener: TcpListener, name: &Arc<str>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let Ok((socket, _)) = listener.accept().await else {
            // A connection reset before it was accepted must not end the server, nor a lack of descriptors spin it.
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let name = Arc::clone(name);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&name)));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            let _ = connection.with_upgrades().await;
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, name: Arc<str>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| request.uri().path() == "/echo") {
        let accept = websocket::accept(key.as_bytes());
        tokio::spawn(echo(request));
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade");
        let response = response.header(UPGRADE, "websocket").header(SEC_WEBSOCKET_ACCEPT, accept);
        return Ok(response.body(Full::default()).unwrap_or_default());
    }
    let body = if request.uri().path() == "/health" { "ok\n".to_owned() } else { format!("{name}\n") };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Ok(value) = HeaderValue::from_str(&name) {
        response.headers_mut().insert(HeaderName::from_static(SERVER_HEADER), value);
    }
    Ok(response)
}

/// Sends the messages of a WebSocket back until it ends.
async fn echo(request: Request<Incoming>) -> io::Result<()> {
    let upgraded = hyper::upgrade::on(request).await.map_err(io::Error::other)?;
    let mut stream = TokioIo::new(upgraded);
    loop {
        let message = websocket::receive(&mut stream, End::Server).await?;
        websocket::send(&mut stream, End::Server, &message).await?;
    }
}
