//! One request and its response, from the request's head to the response's last byte.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;

use super::action::Facts;
use super::client::Client;
use crate::config::PoolIndex;
use crate::proxy::thread::Place;
use crate::proxy::timers::Party;

/// A request under way, and what is known of it by now. It ends when its response has been sent or given up.
pub struct Transaction {
    /// Who asks.
    pub client: Rc<Client>,
    /// The address that counts as the client's: that of its connection, or what trusted proxies say.
    pub ip: IpAddr,
    /// Its id, where the listener gives ids.
    pub request_id: Option<HeaderValue>,
    /// Its traceparent (W3C Trace Context), where the listener sees to it that there is one.
    pub traceparent: Option<HeaderValue>,
    /// The user whose password came with it, where one is asked for.
    pub user: Option<Arc<str>>,
    /// Index of its route among those of the listener, once one was found.
    pub route: Option<usize>,
    /// The pool that it goes to, once that is known.
    pub pool: Option<PoolIndex>,
    /// What was asked for, where a header is to say so.
    pub facts: Option<Facts>,
    /// The server that answers, once there is one.
    pub place: Option<Place>,
    /// Tries after the first, and what the last of them was for.
    pub retries: u32,
    /// In the words of `pool.retries.on`, or `idle_connection_closed`.
    pub retried_for: Option<&'static str>,
}

impl Transaction {
    /// Begins with a request's head.
    pub fn begin(client: &Rc<Client>) -> Self {
        client.in_flight.set(client.in_flight.get() + 1);
        client.deadlines().clear(Party::ClientRead);
        Self {
            client: Rc::clone(client),
            ip: client.connection.ip,
            request_id: None,
            traceparent: None,
            user: None,
            route: None,
            pool: None,
            facts: None,
            place: None,
            retries: 0,
            retried_for: None,
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let client = &self.client;
        client.in_flight.set(client.in_flight.get().saturating_sub(1));
        client.deadlines().clear(Party::Server);
        client.deadlines().clear(Party::Request);
        // From now on it is the client's turn, and nothing may run that would notice.
        if let Some(listener) = client.listener() {
            client.deadlines().set_once(Party::ClientRead, listener.config.idle_timeout);
        }
    }
}
