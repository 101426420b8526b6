//! A server of HTTP/2 behind the program, in clear text and without asking first.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::sync::Notify;

use crate::PATIENCE;
use crate::server::Port;

/// A request as it came, and the way to answer it.
pub struct Asked {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// Sends a GOAWAY on the connection, which then ends once its streams have.
    pub goaway: Rc<Notify>,
    pub server: Arc<Shared>,
}

/// What such a server has seen.
#[derive(Default)]
pub struct Record {
    pub connections: usize,
    pub ended: usize,
    /// Heads and whole bodies, in the order in which they were complete.
    pub requests: Vec<Recorded>,
    /// Streams at once, the most of any connection.
    pub streams_max: usize,
    pub signals: usize,
}

#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

#[derive(Default)]
pub struct Shared {
    record: Mutex<Record>,
    changed: Condvar,
    wake: Notify,
}

/// A server, stopped at its drop.
pub struct H2Server {
    port: Port,
    shared: Arc<Shared>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl H2Server {
    /// Answers each request as `handle` does.
    pub fn start<F>(builder: Builder, handle: impl Fn(Asked) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), h2::Error>> + 'static,
    {
        let (port, shared, stop) = (Port::reserve(), Arc::<Shared>::default(), Arc::<Notify>::default());
        let listener = port.listen(128);
        let (record, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let handle = Rc::new(handle);
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        () = stopped.notified() => return,
                    };
                    let Ok((stream, _)) = accepted else { return };
                    record.update(|record| record.connections += 1);
                    let (builder, record, handle) = (builder.clone(), Arc::clone(&record), Rc::clone(&handle));
                    tokio::task::spawn_local(serve(builder, stream, record, move |asked| {
                        Box::pin(handle(asked)) as Pin<Box<dyn Future<Output = _>>>
                    }));
                }
            });
        });
        Self { port, shared, stop, thread: Some(thread) }
    }

    /// Says `text` to each request, once it has all of it.
    pub fn saying(text: &'static str) -> Self {
        Self::start(Builder::new(), move |mut asked| async move {
            asked.read().await?;
            asked.say(200, text)
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.update(|record| record.requests.clone())
    }

    pub fn connections(&self) -> usize {
        self.shared.update(|record| record.connections)
    }

    /// Waits until the record is as described.
    pub fn wait_until(&self, description: &str, is_so: impl Fn(&Record) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut record = self.shared.record.lock().unwrap();
        while !is_so(&record) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for this: {description}");
            record = self.shared.changed.wait_timeout(record, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets one handler go on that waits for it, now or later.
    pub fn signal(&self) {
        self.shared.signal();
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.stop.notify_one();
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(
    builder: Builder,
    stream: tokio::net::TcpStream,
    server: Arc<Shared>,
    handle: impl Fn(Asked) -> Pin<Box<dyn Future<Output = Result<(), h2::Error>>>> + 'static,
) {
    let goaway = Rc::new(Notify::new());
    let open = Rc::new(std::cell::Cell::new(0));
    if let Ok(mut served) = builder.handshake::<_, Bytes>(stream).await {
        loop {
            let accepted = tokio::select! {
                accepted = served.accept() => accepted,
                () = goaway.notified() => {
                    served.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else { break };
            let shared = Arc::clone(&server);
            let asked = Asked { request, respond, goaway: Rc::clone(&goaway), server: shared };
            open.set(open.get() + 1);
            server.update(|record| record.streams_max = record.streams_max.max(open.get()));
            let (handled, open) = (handle(asked), Rc::clone(&open));
            tokio::task::spawn_local(async move {
                // An error is the stream's end.
                let _ended = handled.await;
                open.set(open.get() - 1);
            });
        }
    }
    server.update(|record| record.ended += 1);
}

impl Shared {
    pub fn update<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let changed = change(&mut self.record.lock().unwrap());
        self.changed.notify_all();
        changed
    }

    pub fn signal(&self) {
        self.update(|record| record.signals += 1);
        self.wake.notify_one();
    }

    pub async fn wait_for_signal(&self) {
        loop {
            let is_signalled = self.update(|record| {
                let is_signalled = record.signals > 0;
                record.signals -= usize::from(is_signalled);
                is_signalled
            });
            if is_signalled {
                // There may be one for another.
                self.wake.notify_one();
                return;
            }
            self.wake.notified().await;
        }
    }
}

impl Asked {
    /// Reads what is left of the request, and records it.
    pub async fn read(&mut self) -> Result<Recorded, h2::Error> {
        let mut body = Vec::new();
        let stream = self.request.body_mut();
        while let Some(data) = stream.data().await {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await?;
        let recorded = Recorded {
            method: self.request.method().to_string(),
            uri: self.request.uri().to_string(),
            headers: self.request.headers().clone(),
            body,
            trailers,
        };
        self.server.update(|record| record.requests.push(recorded.clone()));
        Ok(recorded)
    }

    /// Answers with this text.
    pub fn say(&mut self, status: u16, text: &'static str) -> Result<(), h2::Error> {
        let response = Response::builder().status(status).header("content-length", text.len()).body(()).unwrap();
        let mut stream = self.respond.send_response(response, text.is_empty())?;
        if text.is_empty() { Ok(()) } else { stream.send_data(Bytes::from_static(text.as_bytes()), true) }
    }
}
