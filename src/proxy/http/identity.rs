//! Who asks: what the request says about those it came through, as far as they are trusted, and which request it is.
//!
//! [`establish`] is the first step of a request. Behind it the fields of the request are those that servers see: whatever a
//! client has said about itself, and may not, is gone.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};

use super::client::Connection;
use super::transaction::Transaction;
use super::{forwarded, headers, ids};
use crate::config::{self, AcceptId, ClientFrom, ForwardedRule};
use crate::proxy::chance::Chance;
use crate::units::networks::NetworkSet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED: [HeaderName; 4] = [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT];
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const HTTP: HeaderValue = HeaderValue::from_static("http");

/// What a listener makes of who asks, prepared.
pub struct Identity {
    trusted: NetworkSet,
    forwarded: config::Forwarded,
    request_id: Option<RequestId>,
    has_trace_context: bool,
}

struct RequestId {
    header: HeaderName,
    accept: AcceptId,
    is_in_response: bool,
}

/// Which of the fields are there that somebody has to look at. Most requests have none.
#[derive(Default)]
struct Present {
    connection: bool,
    x_forwarded: bool,
    forwarded: bool,
    real_ip: bool,
}

impl Present {
    fn among(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => present.connection = true,
                "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" => {
                    present.x_forwarded = true;
                }
                "forwarded" => present.forwarded = true,
                "x-real-ip" => present.real_ip = true,
                _ => {}
            }
        }
        present
    }
}

/// Finds out who asks, and says so to servers.
pub fn establish<B>(transaction: &mut Transaction, request: &mut Request<B>) {
    let client = std::rc::Rc::clone(&transaction.client);
    let Some(listener) = client.listener() else { return };
    let (identity, connection) = (&listener.identity, &*client.connection);
    let host = host(request);
    let fields = request.headers_mut();
    let present = Present::among(fields);
    if present.connection {
        headers::remove_named_by_connection(fields);
    }
    for name in &listener.access.word.at_once {
        fields.remove(name);
    }
    let is_trusted = !identity.trusted.is_empty() && identity.trusted.contains(connection.ip);
    if is_trusted {
        transaction.ip = identity.client_of(connection.ip, fields);
    }
    let witness = Witness { connection, ip: transaction.ip, is_trusted, host };
    // Before the fields that it may look at change.
    let list = identity.forwarded_list(&witness, &present, fields);
    identity.tell_x_forwarded(&witness, &present, fields);
    match list {
        Some(list) => drop(fields.insert(header::FORWARDED, list)),
        None if present.forwarded && identity.forwarded.forwarded != ForwardedRule::Pass => {
            fields.remove(header::FORWARDED);
        }
        None => {}
    }
    let chance = &client.thread().chance;
    if let Some(request_id) = &identity.request_id {
        transaction.request_id = Some(request_id.of(is_trusted, chance, fields));
    }
    if identity.has_trace_context {
        transaction.traceparent = Some(trace(chance, fields));
    }
}

/// Tells the client which request that was.
pub fn sign<B>(transaction: &Transaction, response: &mut Response<B>) {
    let Some(id) = &transaction.request_id else { return };
    let request_id = transaction.client.listener().and_then(|listener| listener.identity.request_id.as_ref());
    if let Some(request_id) = request_id.filter(|request_id| request_id.is_in_response) {
        response.headers_mut().insert(request_id.header.clone(), id.clone());
    }
}

/// What is known of whom a request came from.
struct Witness<'a> {
    connection: &'a Connection,
    /// The address that counts.
    ip: IpAddr,
    /// A trusted proxy sent it.
    is_trusted: bool,
    /// The host that it asks for, as the client wrote it.
    host: Option<HeaderValue>,
}

impl Witness<'_> {
    fn proto(&self) -> HeaderValue {
        if self.connection.is_tls { HTTPS } else { HTTP }
    }

    /// The address that counts, as a field has it.
    fn address(&self) -> HeaderValue {
        if self.ip == self.connection.ip {
            return self.connection.address.clone();
        }
        HeaderValue::try_from(self.ip.to_string()).unwrap_or_else(|_| self.connection.address.clone())
    }
}

/// The host that a request is for, with its port. An absolute target counts more than Host (RFC 9112 section 3.2.2).
fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    match request.uri().authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    }
}

impl Identity {
    /// As configured.
    pub fn new(config: &config::Identity) -> Self {
        let request_id = config.request_id.as_ref().and_then(|request_id| {
            // The name was checked, so this cannot fail.
            let header = HeaderName::from_bytes(request_id.header.as_bytes()).ok()?;
            Some(RequestId { header, accept: request_id.accept, is_in_response: request_id.response })
        });
        Self {
            trusted: NetworkSet::new(config.forwarded.trusted.iter().copied()),
            forwarded: config.forwarded.clone(),
            request_id,
            has_trace_context: config.trace_context,
        }
    }

    /// Names of the fields that servers have from us, and of those that we remove.
    pub fn written(&self) -> impl Iterator<Item = HeaderName> {
        let is_ours = self.forwarded.x_forwarded != ForwardedRule::Pass;
        let x_forwarded = X_FORWARDED.into_iter().filter(move |_| is_ours);
        let real_ip = Some(X_REAL_IP).filter(|_| is_ours || self.forwarded.real_ip);
        let request_id = self.request_id.as_ref().map(|request_id| request_id.header.clone());
        x_forwarded.chain(real_ip).chain(request_id)
    }

    /// Whether servers are told the port that clients connected to.
    pub fn tells_port(&self) -> bool {
        self.forwarded.port
    }

    /// Whether X-Forwarded-Proto is what we or trusted proxies say.
    pub fn tells_proto(&self) -> bool {
        matches!(self.forwarded.x_forwarded, ForwardedRule::Append | ForwardedRule::Replace)
    }

    /// Who the client of a trusted proxy is.
    fn client_of(&self, peer: IpAddr, fields: &HeaderMap) -> IpAddr {
        match self.forwarded.client_from {
            ClientFrom::XForwardedFor => {
                let lines = fields.get_all(X_FORWARDED_FOR).iter().rev();
                // A line that is no text names nobody.
                let nodes = lines.flat_map(|line| {
                    let text = line.to_str().ok();
                    let nameless = text.is_none().then_some(None);
                    nameless.into_iter().chain(forwarded::listed_backwards(text.unwrap_or_default()))
                });
                forwarded::client_of(peer, &self.trusted, nodes)
            }
            ClientFrom::Forwarded => {
                let list = joined(fields, &header::FORWARDED);
                let elements = list.as_deref().and_then(forwarded::parse).unwrap_or_default();
                let nodes = elements.iter().rev().map(|element| element.for_node.as_deref());
                forwarded::client_of(peer, &self.trusted, nodes)
            }
        }
    }

    fn tell_x_forwarded(&self, witness: &Witness<'_>, present: &Present, fields: &mut HeaderMap) {
        match self.forwarded.x_forwarded {
            ForwardedRule::Pass => return self.tell_real_ip(witness, false, fields),
            ForwardedRule::Drop if present.x_forwarded => {
                for name in X_FORWARDED {
                    fields.remove(name);
                }
            }
            ForwardedRule::Drop => {}
            ForwardedRule::Append => headers::add_to_list(fields, X_FORWARDED_FOR, &witness.connection.address),
            ForwardedRule::Replace => drop(fields.insert(X_FORWARDED_FOR, witness.address())),
        }
        if self.forwarded.x_forwarded != ForwardedRule::Drop {
            self.tell_x_forwarded_facts(witness, present, fields);
        }
        self.tell_real_ip(witness, present.real_ip, fields);
    }

    /// How, for which host and on which port the client came: a trusted proxy knows better than we do.
    fn tell_x_forwarded_facts(&self, witness: &Witness<'_>, present: &Present, fields: &mut HeaderMap) {
        let is_said = |name: &HeaderName, fields: &HeaderMap| {
            present.x_forwarded && witness.is_trusted && fields.contains_key(name)
        };
        if !is_said(&X_FORWARDED_PROTO, fields) {
            fields.insert(X_FORWARDED_PROTO, witness.proto());
        }
        if !is_said(&X_FORWARDED_HOST, fields) {
            match &witness.host {
                Some(host) => drop(fields.insert(X_FORWARDED_HOST, host.clone())),
                None if present.x_forwarded => drop(fields.remove(X_FORWARDED_HOST)),
                None => {}
            }
        }
        if !is_said(&X_FORWARDED_PORT, fields) {
            match witness.connection.destination_port.filter(|_| self.forwarded.port) {
                Some(port) => drop(fields.insert(X_FORWARDED_PORT, HeaderValue::from(port))),
                None if present.x_forwarded => drop(fields.remove(X_FORWARDED_PORT)),
                None => {}
            }
        }
    }

    fn tell_real_ip(&self, witness: &Witness<'_>, is_there: bool, fields: &mut HeaderMap) {
        if self.forwarded.real_ip {
            fields.insert(X_REAL_IP, witness.address());
        } else if is_there && !witness.is_trusted {
            fields.remove(X_REAL_IP);
        }
    }

    /// What servers are told in Forwarded; `None` where nothing is added.
    fn forwarded_list(&self, witness: &Witness<'_>, present: &Present, fields: &HeaderMap) -> Option<HeaderValue> {
        let came = match self.forwarded.forwarded {
            ForwardedRule::Pass | ForwardedRule::Drop => return None,
            // What is no list could swallow what is written behind it.
            ForwardedRule::Append if present.forwarded => {
                joined(fields, &header::FORWARDED).filter(|list| forwarded::parse(list).is_some())
            }
            ForwardedRule::Append | ForwardedRule::Replace => None,
        };
        let is_told = |proto: &&HeaderValue| witness.is_trusted && (**proto == HTTPS || **proto == HTTP);
        let (ip, proto) = match self.forwarded.forwarded {
            ForwardedRule::Replace => (witness.ip, fields.get(X_FORWARDED_PROTO).filter(is_told).cloned()),
            ForwardedRule::Append | ForwardedRule::Drop | ForwardedRule::Pass => (witness.connection.ip, None),
        };
        let proto = proto.unwrap_or_else(|| witness.proto());
        let host = witness.host.as_ref().and_then(|host| host.to_str().ok());
        let element = forwarded::element(ip, proto.to_str().unwrap_or("http"), host);
        let list = match came {
            Some(came) if !came.is_empty() => format!("{came}, {element}"),
            Some(_) | None => element,
        };
        HeaderValue::try_from(list).ok()
    }
}

/// The lines of a field as one list (RFC 9110 section 5.3); `None` where one of them is no text.
fn joined(fields: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines = fields.get_all(name).iter().map(HeaderValue::to_str).collect::<Result<Vec<_>, _>>();
    lines.ok().map(|lines| lines.join(", "))
}

impl RequestId {
    /// The id of a request, which its fields have from now on.
    fn of(&self, is_trusted: bool, chance: &Chance, fields: &mut HeaderMap) -> HeaderValue {
        let is_accepted = match self.accept {
            AcceptId::Always => true,
            AcceptId::Trusted => is_trusted,
            AcceptId::Never => false,
        };
        if is_accepted && let Some(id) = only(fields, &self.header).filter(|id| ids::is_id(id.as_bytes())) {
            return id;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = ids::uuid_v7(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), chance.bytes());
        // It consists of digits, letters and hyphens, so this cannot fail.
        let id = HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"));
        fields.insert(self.header.clone(), id.clone());
        id
    }
}

/// The traceparent of a request, which its fields have from now on. A tracestate belongs to the one that it came with (W3C
/// Trace Context section 3.3).
fn trace(chance: &Chance, fields: &mut HeaderMap) -> HeaderValue {
    if let Some(came) = only(fields, &TRACEPARENT).filter(|came| ids::is_traceparent(came.as_bytes())) {
        return came;
    }
    let made = ids::traceparent(chance.bytes(), chance.bytes());
    // It consists of digits, letters and hyphens, so this cannot fail.
    let made = HeaderValue::try_from(made).unwrap_or(HeaderValue::from_static("unknown"));
    fields.remove(TRACESTATE);
    fields.insert(TRACEPARENT, made.clone());
    made
}

/// The value of a field that is there once.
fn only(fields: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = fields.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).cloned()
}
