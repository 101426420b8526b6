//! Copies of requests for a second pool, so that a new release sees what the old one gets. What it answers is thrown away.
//!
//! Nobody waits for a copy: it goes out once the request's own body has passed, from a task of its own with a time limit,
//! and what it needs is bounded: the body that is kept, the copies at once. A request that is over a bound is not copied,
//! and counted.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body::Body as _;

use crate::config::{Mirror, PoolIndex};
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::client::{Client, Connection};
use crate::proxy::state::MirrorOutcome;
use crate::proxy::thread::Place;
use crate::proxy::upstream::Upstream;

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
        let copy = MirrorBody(Some(Copy {
            connection: Rc::clone(&client.connection),
            head: (request.method().clone(), request.uri().clone(), request.headers().clone()),
            body: VecDeque::new(),
            room_bytes: body_max_bytes,
            pool,
            timeout,
            running: Rc::clone(&self.running),
        }));
        match request.body_mut() {
            RequestBody::Client { mirror, .. } => *mirror = Some(Box::new(copy)),
            RequestBody::Empty | RequestBody::Kept(_) => copy.ended(),
        }
    }
}

/// The copy of a request whose body is still on its way. Dropped before the body's end, it is not sent.
pub struct MirrorBody(Option<Copy>);

struct Copy {
    connection: Rc<Connection>,
    head: (Method, Uri, HeaderMap),
    body: VecDeque<Bytes>,
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
                // Shares its memory with the part that is sent.
                copy.body.push_back(part.clone());
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

impl Drop for Copy {
    fn drop(&mut self) {
        self.running.set(self.running.get().saturating_sub(1));
    }
}

impl Copy {
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
        let address = thread.site.pool(self.pool)?.config.servers.get(server)?.address;
        // One of its own: its deadlines wake this task and not that of the request.
        let client = Client::new(Rc::clone(&self.connection));
        client.deadlines().attach_here().await;
        let mut upstream = match thread.idle_connection(place) {
            Some(idle) => idle,
            None => Upstream::connect(address).await.ok()?,
        };
        let request = self.request();
        thread.count(place);
        let response = upstream.exchange(request, client.deadlines(), self.timeout).await?.ok()?;
        let mut body = response.into_body();
        let mut read = 0;
        while let Some(frame) = std::future::poll_fn(|context| upstream.poll_body(context, &mut body)).await {
            read += frame.ok()?.data_ref().map_or(0, |data| data.len() as u64);
            if read > RESPONSE_BYTES_MAX {
                return Some(());
            }
        }
        thread.give_back(place, upstream);
        Some(())
    }

    fn request(&mut self) -> Request<RequestBody> {
        let (method, uri, headers) = &mut self.head;
        let mut request = Request::new(RequestBody::Kept(std::mem::take(&mut self.body)));
        std::mem::swap(request.method_mut(), method);
        std::mem::swap(request.uri_mut(), uri);
        std::mem::swap(request.headers_mut(), headers);
        request
    }
}
