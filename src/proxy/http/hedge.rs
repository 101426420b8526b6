//! A second copy of a request, for another server, when the first takes too long to answer. Off unless a pool has
//! `retries.hedge_after`.
//!
//! `forward` says which requests may have one and which server gets it; here both are waited for. Only one of them is
//! answered with. The other is dropped, which closes its connection of HTTP/1 or resets its stream of HTTP/2.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response, header};

use super::body::RequestBody;
use super::client::Client;
use super::forward;
use super::trace::Hedge;
use crate::config::PoolIndex;
use crate::proxy::outcomes::Outcome;
use crate::proxy::passive::Trial;
use crate::proxy::queue::Slot;
use crate::proxy::state::Pool;
use crate::proxy::thread::Place;
use crate::proxy::timers::{Deadlines, Party};
use crate::proxy::upstream::http1::Http1;
use crate::proxy::upstream::http2::Obtained;
use crate::proxy::upstream::{Arriving, Broken, ExchangeError, Upstream};

/// What an exchange comes to; `None` when the server took too long.
pub type Answer = Option<Result<Response<Arriving>, ExchangeError>>;

/// Whose request it is and where it goes.
#[derive(Clone, Copy)]
pub struct Errand<'a> {
    /// Who asks.
    pub client: &'a Rc<Client>,
    /// Which pool is asked.
    pub index: PoolIndex,
    /// The same.
    pub pool: &'a Pool,
}

/// The server that the second copy goes to.
pub struct Second<'a> {
    /// Its index in the pool.
    pub server: usize,
    /// The copy's place at it, where those are limited.
    pub slot: Option<Slot>,
    /// Its passage through the server's breaker.
    pub _trial: Trial<'a>,
    /// Whether it is to be timed.
    pub is_timed: bool,
    /// When it was sent, where that is timed.
    pub began: Cell<Option<Instant>>,
}

/// Which copy is answered with.
pub enum Raced<'a> {
    /// The first one, or none was good and this is what became of it; and the second, where there was one.
    First(Answer, Option<Lost>),
    /// The second one, and what became of the first; `None` where that was broken off.
    Second(Second<'a>, Response<Arriving>, Option<Answer>),
}

/// A copy that the client is not answered with.
pub struct Lost {
    /// The server that it went to.
    pub server: usize,
    /// What became of it; `None` where it was broken off.
    pub answer: Option<Answer>,
    /// Time since it was sent, where that is taken.
    pub time: Option<Duration>,
    /// It was sent on a connection that had been idle.
    pub was_reused: bool,
}

impl Lost {
    /// Has its server be known by it, as by any request. Gives the server where that has failed the request, so that it is
    /// not asked again.
    pub fn note(self, errand: Errand<'_>) -> Option<usize> {
        let Errand { client, index, pool } = errand;
        let (server, thread) = (self.server, client.thread().index());
        let outcome = match self.answer {
            None => {
                // Broken off for being late, which is no failure: all that is known is that it takes longer than this.
                self.time.inspect(|time| pool.takes_longer(server, thread, *time));
                return None;
            }
            // These say nothing about the server: it was too busy, or a connection that had been idle was just closed.
            Some(Some(Err(ExchangeError { kind: Broken::Refused, .. }))) => return Some(server),
            Some(Some(Err(ExchangeError { kind: Broken::Off, .. }))) if self.was_reused => return Some(server),
            Some(Some(Err(_)) | None) => Outcome::Failure,
            Some(Some(Ok(response))) => {
                pool.reported(server, response.headers());
                pool.outcome(response.status().as_u16())
            }
        };
        pool.failed(server);
        client.site().came_of(Place { pool: index, server }, thread, outcome, None);
        Some(server)
    }
}

/// Waits for `first`, and from `after` on for `spare` as well, which goes where `second` says, if anywhere. The first
/// good answer counts; an error of one server does not keep the client from the answer of the other.
pub async fn race<'a>(
    errand: Errand<'_>,
    first: impl Future<Output = Answer>,
    spare: Box<Request<RequestBody>>,
    after: Duration,
    second: impl FnOnce() -> Option<Second<'a>>,
) -> Raced<'a> {
    let mut first = pin!(first);
    tokio::select! {
        biased;
        answer = &mut first => return Raced::First(answer, None),
        () = tokio::time::sleep(after) => {}
    }
    let Some(second) = second() else { return Raced::First(first.await, None) };
    let Errand { client, pool, .. } = errand;
    client.marks.hedge.set(Hedge::Lost);
    // Deadlines of its own, which those of the first copy do not move.
    let registration = client.thread().timers.register();
    let deadlines = registration.deadlines();
    let mut other = Box::pin(send(errand, deadlines, &second, spare));
    let (mut of_first, mut of_second) = (None, None);
    std::future::poll_fn(|context| {
        deadlines.attach(context);
        if of_first.is_none()
            && let Poll::Ready(answer) = first.as_mut().poll(context)
        {
            of_first = Some(answer);
        }
        if of_second.is_none()
            && let Poll::Ready(answer) = other.as_mut().poll(context)
        {
            of_second = Some(answer);
        }
        let responses = [&of_first, &of_second].into_iter().flatten().flatten().flatten();
        let is_decided = responses.into_iter().any(|response| is_good(pool, response));
        // The first copy ends at the deadline of the request, and with that so does all.
        let is_over = of_first.is_some() && (of_second.is_some() || client.deadlines().is_late(Party::Request));
        if is_decided || is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    drop(other);
    // An answer of either is better than none; of two, that of the first, unless only the other is good.
    let is_second_better = |second: &Response<Arriving>| match &of_first {
        Some(Some(Ok(first))) => !is_good(pool, first) && is_good(pool, second),
        Some(Some(Err(_)) | None) | None => true,
    };
    match of_second {
        Some(Some(Ok(response))) if is_second_better(&response) => {
            client.marks.hedge.set(Hedge::Won);
            Raced::Second(second, response, of_first)
        }
        of_second => {
            let time = second.began.get().map(|began| began.elapsed());
            let lost = Lost { server: second.server, answer: of_second, time, was_reused: false };
            Raced::First(of_first.flatten(), Some(lost))
        }
    }
}

/// Whether a response is worth more than what the other copy may still bring.
fn is_good(pool: &Pool, response: &Response<Arriving>) -> bool {
    let status = response.status();
    !status.is_server_error() && !pool.config.retries.on_statuses.contains(&status.as_u16())
}

/// Sends the second copy to a server. `None` where that cannot be reached or takes too long.
async fn send(
    errand: Errand<'_>,
    deadlines: &Deadlines,
    second: &Second<'_>,
    mut request: Box<Request<RequestBody>>,
) -> Answer {
    let Errand { client, index, pool } = errand;
    let (thread, place) = (client.thread(), Place { pool: index, server: second.server });
    loop {
        let upstream = match connection(errand, deadlines, place).await? {
            Ok(upstream) => upstream,
            Err(error) => return Some(Err(error)),
        };
        if matches!(upstream, Upstream::Http1(_)) {
            request.headers_mut().remove(header::TE);
        }
        let copy = forward::copy_if_repeatable(&request);
        let was_reused = upstream.is_reused();
        thread.count(place);
        second.began.set(second.is_timed.then(Instant::now));
        match (upstream.exchange(request, deadlines, pool.config.response_timeout).await?, copy) {
            // The server had closed a connection that was idle. There are only so many of them.
            (Err(ExchangeError { kind: Broken::Off, .. }), Some(copy)) if was_reused => request = copy,
            (answer, _) => return Some(answer),
        }
    }
}

/// As [`forward::obtain`], in time. A server that has no stream left has refused.
async fn connection(
    errand: Errand<'_>,
    deadlines: &Deadlines,
    place: Place,
) -> Option<Result<Upstream, ExchangeError>> {
    let Errand { client, pool, .. } = errand;
    let thread = client.thread();
    if let Some(idle) = forward::idle(thread, pool, place) {
        return Some(Ok(idle));
    }
    let obtain = Box::pin(forward::obtain(thread, pool, place, client.connection.on_behalf()));
    match deadlines.within(pool.config.connect_timeout, obtain).await {
        Some(Ok(Obtained::Stream(stream))) => Some(Ok(Upstream::Http2(stream))),
        Some(Ok(Obtained::Http1(stream))) => Http1::begin(stream).await.ok().map(|http1| Ok(Upstream::Http1(http1))),
        Some(Err(error)) => {
            thread.warn_of_dial(place, &error);
            None
        }
        None => {
            let is_full = thread.shared_connections(place).is_some_and(|shared| shared.is_full());
            is_full.then_some(Err(ExchangeError { kind: Broken::Refused, unsent: None }))
        }
    }
}
