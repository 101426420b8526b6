//! Copies of requests for a second pool, so that a new release sees what the old one gets. What it answers is thrown away.
//!
//! Nobody waits for a copy: it goes out once the request's own body has passed, from a task of its own with a time limit,
//! and what it needs is bounded: the body that is kept, the copies at once. A request that is over a bound is not copied,
//! and counted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Uri, header};
use http_body::Body as _;

use crate::config::{Mirror, PoolIndex};
use crate::proxy::counters::MirrorOutcome;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::client::{Client, Connection};
use crate::proxy::http::forward;
use crate::proxy::thread::Place;
use crate::proxy::upstream::http1::Http1;
use crate::proxy::upstream::http2::Obtained;
use crate::proxy::upstream::{ExchangeError, Upstream};

/// What is read of a response before its connection is closed instead.
const RESPONSE_BYTES_MAX: u64 = 1024 * 1024;

/// The mirror of a route, on one thread.
pub(super) struct Mirroring {
    config: Mirror,
    running: Rc<Cell<u32>>,
}

impl Mirroring {
    /// Prepares a block.
    pub(super) fn new(config: &Mirror) -> Self {
        Self { config: config.clone(), running: Rc::default() }
    }

    /// Begins the copy of a request that is ready to be sent, if its turn comes.
    pub(super) fn begin(&self, client: &Rc<Client>, request: &mut Request<RequestBody>) {
        let Mirror { pool, percent, body_max_bytes, concurrency_max, timeout } = self.config;
        let is_tunnel = request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE);
        if is_tunnel || fastrand::u32(..100) >= percent {
            return;
        }
        let thread = client.thread();
        if self.running.get() >= concurrency_max {
            return thread.count_mirrored(pool, MirrorOutcome::Busy);
        }
        if request.body().size_hint().lower() > body_max_bytes as u64 {
            return thread.count_mirrored(pool, MirrorOutcome::TooLarge);
        }
        self.running.set(self.running.get() + 1);
        let mut copy = MirrorBody(Some(Pending {
            connection: Rc::clone(&client.connection),
            head: (request.method().clone(), request.uri().clone(), request.headers().clone()),
            body: BytesMut::new(),
            room_bytes: body_max_bytes,
            pool,
            timeout,
            running: Rc::clone(&self.running),
        }));
        match request.body_mut() {
            RequestBody::Client { mirror, .. } => *mirror = Some(Box::new(copy)),
            RequestBody::Empty => copy.ended(),
            RequestBody::Whole { data, .. } => {
                if data.as_ref().is_none_or(|data| copy.passed(data)) {
                    copy.ended();
                }
            }
        }
    }
}

/// The copy of a request whose body is still on its way. Dropped before the body's end, it is not sent.
pub struct MirrorBody(Option<Pending>);

/// All that a copy is made of.
struct Pending {
    connection: Rc<Connection>,
    head: (Method, Uri, HeaderMap),
    body: BytesMut,
    room_bytes: usize,
    pool: PoolIndex,
    timeout: Duration,
    running: Rc<Cell<u32>>,
}

impl MirrorBody {
    /// A part of the body has passed. False when there is no room for it, and the copy is given up.
    pub fn passed(&mut self, part: &Bytes) -> bool {
        let Some(copy) = &mut self.0 else { return false };
        match copy.room_bytes.checked_sub(part.len()) {
            Some(room) => {
                copy.room_bytes = room;
                copy.body.extend_from_slice(part);
                true
            }
            None => {
                copy.count(MirrorOutcome::TooLarge);
                self.0 = None;
                false
            }
        }
    }

    /// The whole body has passed.
    pub fn ended(mut self) {
        if let Some(copy) = self.0.take() {
            tokio::task::spawn_local(copy.send());
        }
    }
}

impl Drop for MirrorBody {
    fn drop(&mut self) {
        if let Some(copy) = &self.0 {
            copy.count(MirrorOutcome::BrokenOff);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.running.set(self.running.get().saturating_sub(1));
    }
}

impl Pending {
    fn count(&self, outcome: MirrorOutcome) {
        self.connection.thread.count_mirrored(self.pool, outcome);
    }

    async fn send(mut self) {
        let thread = Rc::clone(&self.connection.thread);
        let answered = tokio::time::timeout(self.timeout, self.exchange()).await;
        self.count(if matches!(answered, Ok(Some(()))) { MirrorOutcome::Answered } else { MirrorOutcome::Failed });
        drop(self);
        thread.work_ended();
    }

    /// Sends it and reads the answer. `None` when something went wrong.
    async fn exchange(&mut self) -> Option<()> {
        let thread = Rc::clone(&self.connection.thread);
        let server = thread.pick(self.pool, |_| true)?;
        let place = Place { pool: self.pool, server };
        let pool = thread.site.pool(self.pool)?;
        // One of its own: its deadlines wake this task and not that of the request.
        let client = Client::new(Rc::clone(&self.connection));
        client.deadlines().attach_here().await;
        let (mut request, behalf) = (Box::new(self.request()), self.connection.on_behalf());
        thread.count(place);
        let response = loop {
            let upstream = match forward::idle(&thread, pool, place) {
                Some(idle) => idle,
                None => match forward::obtain(&thread, pool, place, behalf).await.ok()? {
                    Obtained::Stream(stream) => Upstream::Http2(stream),
                    Obtained::Http1(stream) => Upstream::Http1(Http1::begin(stream).await.ok()?),
                },
            };
            let was_reused = upstream.is_reused();
            match upstream.exchange(request, client.deadlines(), self.timeout).await? {
                Ok(response) => break response,
                // The server had closed a connection that was idle. There are only so many of them.
                Err(ExchangeError { unsent: Some(unsent), .. }) if was_reused => request = unsent,
                Err(_) => return None,
            }
        };
        let mut body = response.into_body();
        let mut read = 0;
        while let Some(frame) = std::future::poll_fn(|context| body.poll_frame(context)).await {
            read += frame.ok()?.data_ref().map_or(0, |data| data.len() as u64);
            if read > RESPONSE_BYTES_MAX {
                return Some(());
            }
        }
        if let Some(connection) = body.take_connection() {
            thread.give_back(place, connection);
        }
        Some(())
    }

    fn request(&mut self) -> Request<RequestBody> {
        let (method, uri, headers) = &mut self.head;
        let body = match std::mem::take(&mut self.body) {
            empty if empty.is_empty() => RequestBody::Empty,
            body => RequestBody::Whole { data: Some(body.freeze()), trailers: None },
        };
        let mut request = Request::new(body);
        std::mem::swap(request.method_mut(), method);
        std::mem::swap(request.uri_mut(), uri);
        std::mem::swap(request.headers_mut(), headers);
        request
    }
}
