//! HTTP/2 with clients (RFC 9113): one connection and its streams, in one task.
//!
//! h2 is the engine: framing, HPACK, flow control, the states of streams. It is used as it is and not through hyper's
//! server, which hides what a proxy needs: interim responses, the windows of clients that read nothing, and the words to
//! end a connection with. What h2 does not check of requests, `h2_request` does; what it does not bound, `h2_frames`.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;

use super::REST_AFTER;
use super::client::{Client, Connection as ClientConnection};
use super::client_io::{self, ClientStream};
use super::h2_frames::Offence;
use super::h2_io::{H2Io, Ledger};
use super::h2_part::Part;
use super::h2_stream;
use super::h2_turns::Turns;
use super::strict::Limits;
use crate::proxy::refusals::Reason as RefusalReason;
use crate::proxy::timers::Party;

/// Streams that a client may have open at once; one more is refused (REFUSED_STREAM), and may be tried again.
const STREAMS_MAX: u32 = 100;

/// What a client may send of a body before a server takes it, for each stream and for a connection.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// What waits in memory for a stream whose client does not take it.
pub(super) const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// What each field counts more than it has, in the size of a list of fields (RFC 9113 section 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// Fields that a list has more than a head of HTTP/1: `:method`, `:scheme`, `:path` and `:protocol`, and their names.
const PSEUDO_FIELDS: usize = 5;

/// Streams that a client may reset before we have looked at them: as many as it may open.
const UNSEEN_RESETS_MAX: usize = STREAMS_MAX as usize;

/// Streams that we may reset because they break a rule, before the connection ends.
const ERROR_RESETS_MAX: usize = 200;

/// How long a client may take to say that it knows of the end, when nothing is under way.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Serves a connection to its end. `read_ahead` is what has been read of it.
pub async fn serve(client: Rc<Client>, stream: ClientStream, read_ahead: Bytes) {
    let Some(head_timeout) = client.listener().map(|listener| listener.config.head_timeout) else { return };
    let ledger = Ledger::new(Rc::clone(&client));
    let handshake = builder(&client_io::limits(&client)).handshake(H2Io::new(stream, Rc::clone(&ledger), read_ahead));
    client.deadlines().clear(Party::ClientRead);
    client.deadlines().attach_here().await;
    let connection = client.thread().before_work(client.deadlines(), head_timeout, handshake).await;
    // It failed or took too long, which is the client's affair.
    let Some(Ok(connection)) = connection else { return };
    let current = Rc::clone(&client.connection);
    let mut turns = Turns::new();
    let waker = turns.connection_waker();
    let mut served = Served {
        connection,
        ledger,
        client,
        current,
        is_told: false,
        is_closing: false,
        has_served: false,
        sent_before: 0,
    };
    std::future::poll_fn(|context| {
        turns.begin(context);
        loop {
            ready!(turns.next(context));
            while let Poll::Ready(accepted) = served.poll_accept(&mut Context::from_waker(&waker)) {
                let Some((request, respond)) = accepted else { return Poll::Ready(()) };
                let client = served.client_of_stream();
                turns.join(h2_stream::serve(client, Rc::clone(&served.ledger), request, respond));
            }
            served.rest(&mut turns);
        }
    })
    .await;
    // The streams that are left learn of the end by this.
    drop(served.connection);
    std::future::poll_fn(|context| outlast(&mut turns, context)).await;
}

/// Goes on with the streams of a connection that has ended, until they have too.
fn outlast<F: Future<Output = ()>>(turns: &mut Turns<F>, context: &Context<'_>) -> Poll<()> {
    turns.begin(context);
    while turns.next(context).is_ready() {}
    if turns.is_empty() { Poll::Ready(()) } else { Poll::Pending }
}

/// How h2 is told to speak with a client. Its limit on lists of fields is no lower than what the listener takes, which
/// `h2_request` looks at; beyond it h2 answers 431 by itself, and ends the connection far beyond. It tells nobody of that: such
/// requests are in no counter and no log, as config/baton.toml says.
fn builder(limits: &Limits) -> Builder {
    let header_list_bytes_max = limits.head_bytes_max + (limits.headers_max + PSEUDO_FIELDS) * FIELD_OVERHEAD_BYTES;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(header_list_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .enable_connect_protocol();
    builder
}

/// A request, and where its response goes.
type Stream = (Request<RecvStream>, SendResponse<Part>);

/// A connection whose preface has come.
struct Served {
    connection: Connection<H2Io, Part>,
    ledger: Rc<Ledger>,
    client: Rc<Client>,
    /// What new streams are on: the connection under the configuration in use.
    current: Rc<ClientConnection>,
    /// The client knows that it may open no more streams.
    is_told: bool,
    /// What is left to do is to end.
    is_closing: bool,
    /// There has been a stream.
    has_served: bool,
    /// Bytes that had been written when this was last asked.
    sent_before: u64,
}

impl Served {
    /// The next stream; `Ready(None)` once the connection is over.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Stream>> {
        self.client.deadlines().attach(context);
        self.go_over();
        loop {
            self.steer();
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok(stream))) => return Poll::Ready(Some(stream)),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending if self.has_to_close() => {}
                Poll::Pending => {
                    self.wait();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Has a connection on which nothing is under way go on under the configuration in use.
    fn go_over(&mut self) {
        let is_idle = self.ledger.open.get() == 0 && !self.is_closing && !self.is_told;
        if is_idle && self.client.thread().is_superseded() {
            self.client = self.client.latest();
            self.current = Rc::clone(&self.client.connection);
            self.ledger.go_over(Rc::clone(&self.client));
        }
    }

    /// Begins the end, where there is a reason for it.
    fn steer(&mut self) {
        if self.is_closing || self.ledger.is_lingering.get() {
            return;
        }
        if self.is_ending() && !std::mem::replace(&mut self.is_told, true) {
            self.connection.graceful_shutdown();
            if !self.ledger.is_in_block() {
                self.client.deadlines().clear(Party::ClientRead);
            }
        }
        if let Some(offence) = self.ledger.offence.get() {
            self.is_closing = true;
            self.connection.abrupt_shutdown(match offence {
                Offence::Flood => Reason::ENHANCE_YOUR_CALM,
                Offence::NoSettings => Reason::PROTOCOL_ERROR,
            });
        } else if self.client.deadlines().is_late(Party::ClientRead) {
            self.client.deadlines().clear(Party::ClientRead);
            // What was written last may still be on its way to a client that is slow, and not idle.
            if !self.connection.has_streams() || self.ledger.is_in_block() || !self.is_taking() {
                self.is_closing = true;
                self.connection.abrupt_shutdown(Reason::NO_ERROR);
            }
        }
    }

    /// Whether enough of what waits for the client has gone since this was last asked, `idle_timeout` ago.
    fn is_taking(&mut self) -> bool {
        let all_bytes = self.ledger.sent_bytes.get();
        let sent_bytes = all_bytes - std::mem::replace(&mut self.sent_before, all_bytes);
        let terms = self.client.listener().map(|listener| &listener.config);
        let rate = terms.and_then(|terms| Some((terms.protection.response_rate?, terms.idle_timeout)));
        let Some((rate, time)) = rate else { return sent_bytes > 0 };
        let is_enough = u128::from(sent_bytes) * 1000 >= u128::from(rate.bytes_per_second) * time.as_millis();
        if !is_enough {
            self.client.refused(RefusalReason::ResponseTooSlow);
        }
        is_enough
    }

    fn is_ending(&self) -> bool {
        let (connection, visit) = (&self.client.connection, &self.client.connection.visit);
        // Who has come to be asked that at once would come again at once.
        let is_asked_to_leave = visit.is_asked_to_leave() && (visit.is_earlier() || self.has_served);
        is_asked_to_leave || connection.thread.is_leaving() || self.current.is_ending() || connection.is_ending()
    }

    fn has_to_close(&self) -> bool {
        let is_late = self.client.deadlines().is_late(Party::ClientRead);
        let is_over = self.is_closing || self.ledger.is_lingering.get();
        !is_over && (self.ledger.offence.get().is_some() || is_late)
    }

    /// Sets the deadline for a client of which nothing is under way.
    fn wait(&self) {
        let Some(listener) = self.client.listener() else { return };
        let is_over = self.is_closing || self.ledger.is_lingering.get();
        if is_over || self.ledger.open.get() > 0 || self.ledger.is_in_block() {
            return;
        }
        let timeout = if self.is_told { FAREWELL_MAX } else { listener.config.idle_timeout };
        self.client.deadlines().set_once(Party::ClientRead, timeout);
    }

    /// Gives back the room of streams where there has been none for a while.
    fn rest<F: Future<Output = ()>>(&self, turns: &mut Turns<F>) {
        let deadlines = self.client.deadlines();
        if !turns.is_vacant() {
            deadlines.clear(Party::Rest);
            return;
        }
        deadlines.set_once(Party::Rest, REST_AFTER);
        if deadlines.is_late(Party::Rest) {
            turns.give_back();
            deadlines.clear(Party::Rest);
        }
    }

    /// Who speaks on a stream that begins.
    fn client_of_stream(&mut self) -> Rc<Client> {
        self.has_served = true;
        if !self.ledger.is_in_block() {
            self.client.deadlines().clear(Party::ClientRead);
        }
        self.current = self.current.latest();
        Client::new(Rc::clone(&self.current))
    }
}
