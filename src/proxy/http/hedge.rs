//! A second copy of a request, for another server, when the first takes too long to answer. Off unless a pool has
//! `retries.hedge_after`.
//!
//! `forward` says which requests may have one and which server gets it; here both are waited for. Only one of them is
//! answered with. The other is dropped, which closes its connection of HTTP/1 or resets its stream of HTTP/2.

use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, header};

use super::body::RequestBody;
use super::client::Client;
use super::forward;
use super::trace::Hedge;
use crate::config::PoolIndex;
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
pub struct Second {
    /// Its index in the pool.
    pub server: usize,
    /// The copy's place at it, where those are limited.
    pub slot: Option<Slot>,
}

/// Which copy is answered with.
pub enum Raced {
    /// The first one, or none was good and this is what became of it.
    First(Answer),
    /// The second one.
    Second(Second, Response<Arriving>),
}

/// Waits for `first`, and from `after` on for `spare` as well, which goes where `second` says, if anywhere. The first
/// good answer counts; an error of one server does not keep the client from the answer of the other.
pub async fn race(
    errand: Errand<'_>,
    first: impl Future<Output = Answer>,
    spare: Box<Request<RequestBody>>,
    after: Duration,
    second: impl FnOnce() -> Option<Second>,
) -> Raced {
    let mut first = pin!(first);
    tokio::select! {
        biased;
        answer = &mut first => return Raced::First(answer),
        () = tokio::time::sleep(after) => {}
    }
    let Some(second) = second() else { return Raced::First(first.await) };
    let Errand { client, pool, .. } = errand;
    client.marks.hedge.set(Hedge::Lost);
    // Deadlines of its own, which those of the first copy do not move.
    let registration = client.thread().timers.register();
    let deadlines = registration.deadlines();
    let mut other = pin!(send(errand, deadlines, second.server, spare));
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
        let is_decided = [&of_first, &of_second].into_iter().flatten().any(|answer| is_good(pool, answer));
        // The first copy ends at the deadline of the request, and with that so does all.
        let is_over = of_first.is_some() && (of_second.is_some() || client.deadlines().is_late(Party::Request));
        if is_decided || is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let first_is_better = of_first.as_ref().is_some_and(|answer| is_good(pool, answer) || is_response(answer));
    match of_second {
        Some(answer) if !first_is_better || is_good(pool, &answer) => match answer {
            Some(Ok(response)) => {
                client.marks.hedge.set(Hedge::Won);
                Raced::Second(second, response)
            }
            Some(Err(_)) | None => Raced::First(of_first.flatten()),
        },
        Some(_) | None => Raced::First(of_first.flatten()),
    }
}

fn is_response(answer: &Answer) -> bool {
    matches!(answer, Some(Ok(_)))
}

/// Whether an answer is worth more than what the other copy may still bring.
fn is_good(pool: &Pool, answer: &Answer) -> bool {
    let Some(Ok(response)) = answer else { return false };
    let status = response.status();
    !status.is_server_error() && !pool.config.retries.on_statuses.contains(&status.as_u16())
}

/// Sends the second copy to a server. `None` where that cannot be reached or takes too long.
async fn send(
    errand: Errand<'_>,
    deadlines: &Deadlines,
    server: usize,
    mut request: Box<Request<RequestBody>>,
) -> Answer {
    let Errand { client, index, pool } = errand;
    let (thread, place) = (client.thread(), Place { pool: index, server });
    loop {
        let upstream = connection(errand, deadlines, place).await?;
        if matches!(upstream, Upstream::Http1(_)) {
            request.headers_mut().remove(header::TE);
        }
        let copy = forward::copy_if_repeatable(&request);
        let was_reused = upstream.is_reused();
        thread.count(place);
        match (upstream.exchange(request, deadlines, pool.config.response_timeout).await?, copy) {
            // The server had closed a connection that was idle. There are only so many of them.
            (Err(ExchangeError { kind: Broken::Off, .. }), Some(copy)) if was_reused => request = copy,
            (answer, _) => return Some(answer),
        }
    }
}

async fn connection(errand: Errand<'_>, deadlines: &Deadlines, place: Place) -> Option<Upstream> {
    let Errand { client, pool, .. } = errand;
    let thread = client.thread();
    if let Some(idle) = forward::idle(thread, pool, place) {
        return Some(idle);
    }
    let obtain = Box::pin(forward::obtain(thread, pool, place, client.connection.on_behalf()));
    match deadlines.within(pool.config.connect_timeout, obtain).await? {
        Ok(Obtained::Stream(stream)) => Some(Upstream::Http2(stream)),
        Ok(Obtained::Http1(stream)) => Http1::begin(stream).await.ok().map(Upstream::Http1),
        Err(error) => {
            thread.warn_of_dial(place, &error);
            None
        }
    }
}
