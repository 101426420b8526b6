//! A request on its way to a server, and the response on its way back.

use std::cell::{Cell, RefMut};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;

use super::action;
use super::body::{BodyError, RequestBody, ResponseBody};
use super::client::Client;
use super::client_body::ClientBody;
use super::headers;
use super::hedge::{self, Lost, Raced, Second};
use super::respond::{self, Fault};
use super::trace::ChosenBy;
use super::transaction::Transaction;
use super::tunnel::{self, Wanted};
use crate::config::PoolIndex;
use crate::proxy::outcomes::Outcome;
use crate::proxy::passive::{Held, Stopped};
use crate::proxy::queue::{self, Entrance, Slot};
use crate::proxy::refusals::Reason;
use crate::proxy::state::Pool;
use crate::proxy::sticky::{Visit, Way};
use crate::proxy::thread::{Place, Thread};
use crate::proxy::timers::Party;
use crate::proxy::upstream::dial::{DialError, OnBehalf};
use crate::proxy::upstream::http1::Http1;
use crate::proxy::upstream::http2::Obtained;
use crate::proxy::upstream::retry::{self, Budget, Failure};
use crate::proxy::upstream::{Arriving, Broken, ExchangeError, Upstream};
use crate::session::key::Key;

/// Connections that had been idle and are closed by now, before the server counts as failed: a server that has restarted
/// leaves a thread with no more than these.
const REPEATS_MAX: u32 = 1000;

/// A request being forwarded.
struct Errand<'a> {
    client: &'a Rc<Client>,
    index: PoolIndex,
    pool: &'a Pool,
    /// `None` while it is on its way.
    request: Option<Box<Request<RequestBody>>>,
    /// The hash that it goes by, where the pool picks by one.
    key: Option<u64>,
    /// What other protocol it asks for.
    wanted_protocol: Option<Wanted>,
    /// What is known of the client, where the pool is sticky.
    visit: Visit,
    /// The server to try next: the one that the client belongs to, or the same one over another connection.
    wanted: Option<usize>,
    /// Servers that failed this request.
    failed: Vec<usize>,
    /// The client belongs to a server, which no status of that server's changes.
    is_at_home: bool,
    /// Tries so far.
    attempts: u32,
    /// Tries beside these, on connections that had been idle.
    repeats: u32,
    /// What the last failure was.
    fault: Option<(StatusCode, Fault)>,
    /// Its place at the server that is tried, where those are limited.
    slot: Option<Slot>,
    /// Why no server had room for it.
    refused: Option<Reason>,
    /// Why the pool's breaker does not let it try.
    stopped: Option<Stopped>,
    /// Its place among the requests that are tried again, where these are limited.
    retrying: Option<Held>,
}

/// What came of one attempt.
enum Attempt {
    /// By this server, which need not be the one that was tried.
    Answered(usize, Response<Arriving>),
    /// It may be tried again, for this reason.
    Again(&'static str),
    /// It may have been executed, or there is nothing left to send.
    GivenUp,
}

/// Brings a request to a server of a pool, and its response back.
pub async fn forward(
    transaction: &mut Transaction,
    index: PoolIndex,
    mut request: Box<Request<ClientBody>>,
) -> Response<ResponseBody> {
    let client = &Rc::clone(&transaction.client);
    let Some(pool) = client.site().pool(index) else {
        return respond::own(client, StatusCode::INTERNAL_SERVER_ERROR, "the route leads nowhere", None);
    };
    transaction.pool = Some(index);
    if headers::goes_round(request.headers()) {
        return respond::goes_round(client);
    }
    match pool.admit() {
        Ok(passage) => transaction.passage = passage,
        Err(why) => return respond::stopped(client, pool, why),
    }
    let mut visit = visit(transaction, pool, &request);
    let key = pool.hash_of_request(transaction.ip, request.uri(), request.headers());
    if let Some(sticky) = &pool.sticky {
        sticky.recall(&client.site().sessions, &mut visit).await;
    }
    let wanted = match pool.sticky.as_ref().map_or(Way::Any, |sticky| sticky.way(&visit, &pool.servers)) {
        Way::Any => None,
        Way::Home(server) => {
            client.marks.chosen_by.set(ChosenBy::Session);
            Some(server)
        }
        Way::Closed(server) => return closed(client, pool, server),
    };
    if let Some(timeout) = pool.config.request_timeout {
        client.deadlines().set(Party::Request, timeout);
    }
    action::remove_forged(transaction, index, request.headers_mut());
    let (request, wanted_protocol) = match prepare(client, pool, request).await {
        Ok((mut request, wanted)) => {
            action::to_server(transaction, index, &mut request);
            (Some(request), wanted)
        }
        Err(_malformed) => return respond::refused(client, client.refusal.get()),
    };
    if let Some(mut budget) = client.thread().retry_budget(index) {
        budget.asked(client.thread().timers.coarse_now());
    }
    let is_at_home = wanted.is_some();
    let mut errand = Errand {
        client,
        index,
        pool,
        request,
        key,
        wanted_protocol,
        visit,
        wanted,
        failed: Vec::new(),
        is_at_home,
        attempts: 0,
        repeats: 0,
        fault: None,
        slot: None,
        refused: None,
        stopped: None,
        retrying: None,
    };
    let mut server = errand.pick().await;
    while let Some(tried) = server {
        match errand.attempt(tried).await {
            Attempt::Answered(server, response) => {
                client.marks.answered();
                let outcome = pool.outcome(response.status().as_u16());
                client.site().settled(index, client.thread().index(), outcome);
                transaction.place = Some(Place { pool: index, server });
                transaction.slot = errand.slot.take();
                return errand.finish(server, response).await;
            }
            Attempt::Again(reason) => {
                transaction.retries += 1;
                transaction.retried_for = Some(reason);
            }
            Attempt::GivenUp => break,
        }
        server = errand.pick().await;
    }
    errand.give_up()
}

/// What is known of the client that asks.
fn visit<B>(transaction: &Transaction, pool: &Pool, request: &Request<B>) -> Visit {
    let Some(sticky) = &pool.sticky else { return Visit::default() };
    sticky.visit(&transaction.client.site().sessions, transaction.ip, request)
}

/// The client belongs to a server that cannot serve it, and no other may.
fn closed(client: &Client, pool: &Pool, server: usize) -> Response<ResponseBody> {
    let server = pool.config.servers.get(server).map(|server| server.name.clone());
    let fault = Fault { error: "destination_unavailable", server };
    respond::own(client, StatusCode::SERVICE_UNAVAILABLE, "the server that has your session is down", Some(fault))
}

/// Makes the client's request one for a server, and finds out what other protocol it asks for. One that may have to be
/// sent again is read to its end first.
async fn prepare(
    client: &Rc<Client>,
    pool: &Pool,
    request: Box<Request<ClientBody>>,
) -> Result<(Box<Request<RequestBody>>, Option<Wanted>), BodyError> {
    let (mut parts, body) = (*request).into_parts();
    let wanted = Wanted::by(&parts, !body.is_end_stream());
    let version = parts.version;
    let expects_100 = parts.headers.contains_key(header::EXPECT);
    let replay_body_max = u64::from(pool.config.retries.replay_body_max);
    // That of a transfer coding is not known.
    let len = body.size_hint().exact().filter(|len| *len > 0 && *len <= replay_body_max && !expects_100);
    let mut body = RequestBody::begin(client, body, expects_100, pool.config.response_timeout)?;
    if let Some(len) = len.and_then(|len| usize::try_from(len).ok()) {
        body = Box::pin(body.read_whole(len)).await?;
        client.deadlines().clear(Party::Server);
    }
    headers::to_server(&mut parts, client, pool.dialer.may_be_http2());
    if let Some(wanted) = &wanted {
        wanted.ask(&mut parts.headers);
    }
    let mut request = Box::new(Request::from_parts(parts, body));
    client.interim.listen(version, pool.dialer.may_be_http2(), &mut request);
    Ok((request, wanted))
}

impl<'a> Errand<'a> {
    /// The server to try: the one that the client belongs to, else the next in turn, where the client then belongs.
    async fn pick(&mut self) -> Option<usize> {
        if let Some(wanted) = self.wanted.take() {
            return self.enter(Some(wanted)).await;
        }
        let Some(sticky) = &self.pool.sticky else { return self.enter(None).await };
        if sticky.is_bound(&self.visit) {
            return None;
        }
        let picked = self.enter(None).await?;
        let (servers, failed) = (&self.pool.servers, &self.failed);
        let may_take =
            |server: usize| !failed.contains(&server) && servers.get(server).is_some_and(|server| server.keeps_users());
        let sessions = &self.client.site().sessions;
        let picked = if failed.is_empty() {
            let by_hash = |key: &Key| self.client.thread().pick_by_hash(self.index, key);
            sticky.agree(sessions, &self.visit, picked, by_hash, may_take).await
        } else {
            picked
        };
        let settled = sticky.settle(sessions, &mut self.visit, picked, failed.is_empty(), may_take);
        self.enter(Some(settled)).await
    }

    /// A server that has room: `wanted`, or else the next in turn. Waits for it where the pool has it so.
    async fn enter(&mut self, wanted: Option<usize>) -> Option<usize> {
        if wanted.is_some() && self.slot.as_ref().map(|slot| slot.place.server) == wanted {
            return wanted;
        }
        let is_first = self.failed.is_empty();
        let chosen_by = if is_first { ChosenBy::Algorithm } else { ChosenBy::Retry };
        if wanted.is_none() {
            self.client.marks.chosen_by.set(chosen_by);
        }
        // First given up, or two requests could wait for what the other one has.
        self.slot = None;
        let (thread, deadlines) = (self.client.thread(), self.client.deadlines());
        let may_wait = self.pool.config.connections.is_some();
        if may_wait {
            self.client.marks.wait();
        }
        let entrance =
            queue::enter(thread, deadlines, self.index, wanted, self.key, |server| !self.failed.contains(&server))
                .await;
        if may_wait {
            self.client.marks.queued();
        }
        match entrance {
            Entrance::Server(server, slot) => {
                self.slot = slot;
                Some(server)
            }
            Entrance::Nowhere => None,
            Entrance::Refused(reason) => {
                self.client.refused(reason);
                self.refused = Some(reason);
                None
            }
        }
    }

    async fn attempt(&mut self, server: usize) -> Attempt {
        self.attempts += 1;
        let place = Place { pool: self.index, server };
        let Some(Some(_trial)) = self.pool.servers.get(server).map(|server| server.begin()) else {
            // Others have taken the last place on trial since it was picked.
            self.attempts -= 1;
            self.failed.push(server);
            return Attempt::Again("circuit_breaker");
        };
        let Some(upstream) = self.connection(place).await else {
            return if self.stopped.is_some() { Attempt::GivenUp } else { self.again_elsewhere(Failure::Connect) };
        };
        let Some(mut request) = self.request.take() else { return Attempt::GivenUp };
        let upstream = match &self.wanted_protocol {
            None => upstream,
            // Boxed, as it is rare.
            Some(wanted) => match Box::pin(self.for_switch(place, upstream, wanted, &mut request)).await {
                Some(upstream) => upstream,
                None => {
                    self.failed(server, StatusCode::NOT_IMPLEMENTED, "http_upgrade_failed");
                    return Attempt::GivenUp;
                }
            },
        };
        if matches!(upstream, Upstream::Http1(_)) && self.pool.dialer.may_be_http2() {
            // Kept for a server of HTTP/2; here it would have to stand in Connection too.
            request.headers_mut().remove(header::TE);
        }
        let copy = copy_if_repeatable(&request);
        let was_reused = upstream.is_reused();
        self.client.thread().count(place);
        let (deadlines, timeout) = (self.client.deadlines(), self.pool.config.response_timeout);
        let is_timed = self.pool.measures || self.client.site().times_servers(self.index);
        let began = is_timed.then(Instant::now);
        let took = || began.map(|began| began.elapsed());
        let spare = self.pool.config.retries.hedge_after.and_then(|after| Some((after, self.spare(copy.as_ref()?)?)));
        let answer = match spare {
            None => upstream.exchange(request, deadlines, timeout).await,
            // Boxed, as it is rare: each request would carry the room for a second one about.
            Some((after, spare)) => {
                let first = upstream.exchange(request, deadlines, timeout);
                let errand = hedge::Errand { client: self.client, index: self.index, pool: self.pool };
                match Box::pin(hedge::race(errand, first, spare, after, || self.second(server, is_timed))).await {
                    Raced::First(answer, lost) => {
                        self.failed.extend(lost.and_then(|lost| lost.note(errand)));
                        answer
                    }
                    Raced::Second(second, response, first) => {
                        self.client.marks.chosen_by.set(ChosenBy::Hedge);
                        let lost = Lost { server, answer: first, time: took(), was_reused };
                        self.failed.extend(lost.note(errand));
                        self.answered(second.server, &response, second.began.get());
                        self.slot = second.slot;
                        return self.after_response(second.server, response, copy).await;
                    }
                }
            }
        };
        match answer {
            Some(Ok(response)) => {
                self.answered(server, &response, began);
                self.after_response(server, response, copy).await
            }
            Some(Err(error)) => self.after_error(server, error, copy, was_reused),
            None => {
                self.request = copy;
                self.came_of(server, Outcome::Failure, None);
                self.failed(server, StatusCode::GATEWAY_TIMEOUT, "http_response_timeout");
                self.again_elsewhere(Failure::Timeout)
            }
        }
    }

    /// What carries a request for another protocol: a stream of HTTP/2 for a tunnel (RFC 9113 section 8.5), and for an
    /// upgrade where the server takes extended CONNECT (RFC 8441); else a connection of HTTP/1, which a pool of
    /// `protocol = "auto"` makes for it. `None` where there is neither.
    async fn for_switch(
        &self,
        place: Place,
        upstream: Upstream,
        wanted: &Wanted,
        request: &mut Request<RequestBody>,
    ) -> Option<Upstream> {
        // Another server may have been asked before.
        Wanted::ask_by_upgrade(request);
        let Upstream::Http2(stream) = upstream else { return Some(upstream) };
        if *wanted == Wanted::Connect {
            return Some(Upstream::Http2(stream));
        }
        let (pool, deadlines) = (self.pool, self.client.deadlines());
        let is_taken = deadlines.within(pool.config.connect_timeout, stream.takes_extended_connect()).await;
        if is_taken == Some(true) && wanted.ask_by_connect(request) {
            return Some(Upstream::Http2(stream));
        }
        drop(stream);
        if !pool.dialer.may_be_http1() {
            return None;
        }
        let address = pool.config.servers.get(place.server)?.address;
        let dial = pool.dialer.dial_http1(address, self.client.connection.on_behalf());
        match deadlines.within(pool.config.connect_timeout, dial).await? {
            Ok(stream) => Http1::begin(stream).await.ok().map(Upstream::Http1),
            Err(error) => {
                self.client.thread().warn_of_dial(place, &error);
                None
            }
        }
    }

    /// A copy to send to another server if this one takes too long.
    fn spare(&self, copy: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
        let may_hedge = self.wanted_protocol.is_none() && self.attempts < self.pool.config.retries.attempts;
        may_hedge.then(|| copy_if_repeatable(copy)).flatten()
    }

    /// The server for a second copy, where there is one that has room, and budget for it.
    fn second(&mut self, first: usize, is_timed: bool) -> Option<Second<'a>> {
        let (thread, retries) = (self.client.thread(), &self.pool.config.retries);
        let may_try = |server: usize| server != first && !self.failed.contains(&server);
        let (server, slot) = queue::enter_now(thread, self.index, self.key, may_try)?;
        let now = thread.timers.coarse_now();
        let has_budget = thread.retry_budget(self.index).is_some_and(|mut budget| budget.take(retries, now));
        let pool = self.pool;
        let trial = pool.servers.get(server).filter(|_| has_budget)?.begin()?;
        self.attempts += 1;
        Some(Second { server, slot, _trial: trial, is_timed, began: Cell::default() })
    }

    /// Tries again on another server, where that is safe, wanted, and within all bounds.
    fn again_elsewhere(&mut self, failure: Failure) -> Attempt {
        if self.may_retry(failure) { Attempt::Again(failure.word()) } else { Attempt::GivenUp }
    }

    /// What is left of the request is in `request`, where it may be sent again.
    fn may_retry(&mut self, failure: Failure) -> bool {
        let retries = &self.pool.config.retries;
        let is_open = self.request.is_some() && !self.client.deadlines().is_late(Party::Request);
        if !is_open || self.attempts >= retries.attempts || !retry::is_wanted(retries, failure) {
            return false;
        }
        let now = self.client.thread().timers.coarse_now();
        let has_budget = |mut budget: RefMut<'_, Budget>| budget.take(retries, now);
        let is_let =
            failure == Failure::Connect || self.client.thread().retry_budget(self.index).is_some_and(has_budget);
        is_let && self.has_room_to_retry()
    }

    fn has_room_to_retry(&mut self) -> bool {
        if self.retrying.is_none() {
            let Ok(held) = self.pool.begin_retry() else { return false };
            self.retrying = held;
        }
        true
    }

    /// A server has answered; `began` is when it was asked, where that is timed.
    fn answered(&self, server: usize, response: &Response<Arriving>, began: Option<Instant>) {
        self.came_of(server, self.pool.outcome(response.status().as_u16()), began.map(|began| began.elapsed()));
        // An error that comes soon is no good answer.
        if response.status().is_server_error() {
            self.pool.failed(server);
        } else {
            self.pool.answered(server, began);
        }
    }

    fn came_of(&self, server: usize, outcome: Outcome, time: Option<Duration>) {
        let place = Place { pool: self.index, server };
        self.client.site().came_of(place, self.client.thread().index(), outcome, time);
    }

    /// Passes a response on, unless it is one to try again after and there is another server.
    async fn after_response(
        &mut self,
        server: usize,
        response: Response<Arriving>,
        copy: Option<Box<Request<RequestBody>>>,
    ) -> Attempt {
        self.pool.reported(server, response.headers());
        let failure = Failure::Status(response.status().as_u16());
        if copy.is_none() || self.is_at_home || !retry::is_wanted(&self.pool.config.retries, failure) {
            return Attempt::Answered(server, response);
        }
        self.request = copy;
        if !self.may_retry(failure) {
            return Attempt::Answered(server, response);
        }
        self.failed.push(server);
        let Some(other) = Box::pin(self.pick()).await else { return Attempt::Answered(server, response) };
        self.wanted = Some(other);
        Attempt::Again(failure.word())
    }

    /// What carries the request to a server: a connection that is idle, a stream of one that is shared, or a new one.
    async fn connection(&mut self, place: Place) -> Option<Upstream> {
        let (thread, pool) = (self.client.thread(), self.pool);
        if let Some(idle) = idle(thread, pool, place) {
            return Some(idle);
        }
        // Boxed, as nearly all requests find an idle one: each would carry the room for a TLS handshake about.
        let obtain = Box::pin(obtain(thread, pool, place, self.client.connection.on_behalf()));
        let _pending = match pool.begin_pending() {
            Ok(held) => held,
            Err(why) => {
                self.stopped = Some(why);
                return None;
            }
        };
        self.client.marks.wait();
        let obtained = self.client.deadlines().within(pool.config.connect_timeout, obtain).await;
        self.client.marks.connected();
        match obtained {
            Some(Ok(Obtained::Stream(stream))) => Some(Upstream::Http2(stream)),
            Some(Ok(Obtained::Http1(stream))) => Http1::begin(stream).await.ok().map(Upstream::Http1),
            Some(Err(error)) => {
                thread.warn_of_dial(place, &error);
                self.came_of(place.server, Outcome::Failure, None);
                self.failed(place.server, StatusCode::BAD_GATEWAY, error.error);
                None
            }
            None => {
                let is_full = thread.shared_connections(place).is_some_and(|shared| shared.is_full());
                if is_full && pool.dialer.may_be_http2() {
                    // RFC 9209 section 2.3.12.
                    self.failed(place.server, StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached");
                } else {
                    self.came_of(place.server, Outcome::Failure, None);
                    self.failed(place.server, StatusCode::GATEWAY_TIMEOUT, "connection_timeout");
                }
                None
            }
        }
    }

    /// Whether a request that broke may be sent again: always when nothing of it was sent; when it was, only if doing
    /// it twice is the same as doing it once, and nothing of its body is gone.
    fn after_error(
        &mut self,
        server: usize,
        error: ExchangeError,
        copy: Option<Box<Request<RequestBody>>>,
        was_reused: bool,
    ) -> Attempt {
        if self.client.refusal.get().is_some() {
            return Attempt::GivenUp;
        }
        let (failure, word) = match error.kind {
            Broken::Garbage => (None, "http_protocol_error"),
            Broken::Off => (Some(Failure::Broken), "connection_terminated"),
            Broken::Refused => (Some(Failure::Refused), "http_request_denied"),
        };
        self.request = error.unsent.or(copy.filter(|_| failure.is_some()));
        let is_about_idleness = was_reused && failure == Some(Failure::Broken) && self.request.is_some();
        if is_about_idleness && self.repeats < REPEATS_MAX {
            self.repeats += 1;
            self.attempts = self.attempts.saturating_sub(1);
            // A connection that had been idle may just have been closed: that says nothing about the server.
            self.wanted = Some(server);
            return Attempt::Again("idle_connection_closed");
        }
        if error.kind != Broken::Refused {
            self.came_of(server, Outcome::Failure, None);
        }
        self.failed(server, StatusCode::BAD_GATEWAY, word);
        failure.map_or(Attempt::GivenUp, |failure| self.again_elsewhere(failure))
    }

    fn failed(&mut self, server: usize, status: StatusCode, error: &'static str) {
        self.pool.failed(server);
        self.failed.push(server);
        self.fault = Some((status, Fault { error, server: self.name(server) }));
    }

    fn name(&self, server: usize) -> Option<String> {
        self.pool.config.servers.get(server).map(|server| server.name.clone())
    }

    async fn finish(&self, server: usize, response: Response<Arriving>) -> Response<ResponseBody> {
        let (mut parts, mut body) = response.into_parts();
        let granted = self.wanted_protocol.as_ref().and_then(|wanted| wanted.granted(&parts));
        let is_switch = granted.is_some() && tunnel::open(self.client, body.take_tunnel());
        if is_ambiguous(&parts) && !is_switch {
            let fault = Fault { error: "http_protocol_error", server: self.name(server) };
            return respond::own(
                self.client,
                StatusCode::BAD_GATEWAY,
                "the server's response is malformed",
                Some(fault),
            );
        }
        headers::to_client(&mut parts.headers);
        if let Some(granted) = granted {
            granted.tell(&mut parts.headers);
        }
        if let Some(sticky) = &self.pool.sticky {
            let sessions = &self.client.site().sessions;
            let learned =
                sticky.answered(sessions, &self.visit, server, self.client.connection.is_tls, &mut parts.headers);
            sticky.share(sessions, learned).await;
        }
        parts.version = http::Version::HTTP_11;
        if is_switch {
            return Response::from_parts(parts, ResponseBody::empty());
        }
        let place = Place { pool: self.index, server };
        let timeout = self.pool.config.body_timeout;
        Response::from_parts(parts, ResponseBody::from_server(body, place, self.client, timeout))
    }

    /// There was no server to try.
    fn unavailable(&self) -> Response<ResponseBody> {
        let retry_after = self.pool.trusted_again(Instant::now());
        let is_any_up = self.pool.servers.iter().any(|server| server.is_up());
        let state = match retry_after {
            Some(_) => "that is up may be used: each is ejected, or its circuit breaker is open",
            None if is_any_up => "takes new clients",
            None => "is up",
        };
        let message = format!("no server of pool {} {state}", self.pool.config.name);
        respond::unavailable(self.client, &message, retry_after)
    }

    /// No server could answer.
    fn give_up(self) -> Response<ResponseBody> {
        if self.client.refusal.get().is_some() {
            return respond::refused(self.client, self.client.refusal.get());
        }
        if let Some(why) = self.stopped {
            return respond::stopped(self.client, self.pool, why);
        }
        if let (Some(reason), Some(limits)) = (self.refused, &self.pool.config.connections) {
            return respond::overloaded(self.client, &self.pool.config.name, reason, limits.queue_timeout);
        }
        let Some((status, fault)) = self.fault else {
            return self.unavailable();
        };
        self.client.site().settled(self.index, self.client.thread().index(), Outcome::Failure);
        let message = match status {
            StatusCode::GATEWAY_TIMEOUT => "the server did not answer in time",
            StatusCode::SERVICE_UNAVAILABLE => "the server had no HTTP/2 stream left for this request in time",
            StatusCode::NOT_IMPLEMENTED => "the server speaks HTTP/2 and takes no other protocol there (RFC 8441)",
            _ => "the server could not be reached or broke off",
        };
        respond::own(self.client, status, message, Some(fault))
    }
}

/// A connection to a server that waits for a request.
pub(super) fn idle(thread: &Thread, pool: &Pool, place: Place) -> Option<Upstream> {
    // A connection that says whose it is is nobody else's.
    let may_be_idle = pool.dialer.may_be_http1() && !pool.dialer.tells_client();
    may_be_idle.then(|| thread.idle_connection(place)).flatten().map(Upstream::Http1)
}

/// A new connection to a server, or a stream of one that is shared. Without a deadline of its own.
pub(super) async fn obtain(
    thread: &Thread,
    pool: &Pool,
    place: Place,
    behalf: OnBehalf,
) -> Result<Obtained, DialError> {
    let (dialer, server) = (&pool.dialer, pool.config.servers.get(place.server));
    let address = server.ok_or_else(DialError::nowhere)?.address;
    if !dialer.may_be_http2() {
        return Ok(Obtained::Http1(dialer.dial(address, behalf).await?.0));
    }
    match thread.shared_connections(place) {
        Some(shared) => shared.obtain(|| dialer.dial(address, behalf)).await,
        None => Err(DialError::nowhere()),
    }
}

/// A second copy of a request that may be sent twice (RFC 9110 section 9.2.2) and whose body is not lost.
pub(super) fn copy_if_repeatable(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    let is_idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    if !is_idempotent {
        return None;
    }
    let mut copy = Box::new(Request::new(request.body().copy()?));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

/// Another reader could see another end of the response, or it has a coding that we would strip of its name, or it is a
/// protocol switch that nobody asked for. What is no length or no coding at all, hyper has refused before.
fn is_ambiguous(parts: &http::response::Parts) -> bool {
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let is_framed_once = match (codings.next(), codings.next()) {
        // `2, 2` is one number to some and none to others.
        (None, _) => length.is_none_or(|length| length.as_bytes().iter().all(u8::is_ascii_digit)),
        (Some(only), None) => only.as_bytes().eq_ignore_ascii_case(b"chunked") && length.is_none(),
        (Some(_), Some(_)) => false,
    };
    !is_framed_once || parts.status == StatusCode::SWITCHING_PROTOCOLS
}
