//! What is done with a request: its route is found, and what the route says is done.
//!
//! [`find`] asks the core [`super::route`]; [`perform`] answers what is answered here and names the pool of what is not.
//! [`to_server`] changes a request on its way to a server ([`rewrite`], [`edits`]) and begins its copy for a second pool
//! ([`mirror`]), [`to_client`] changes a response.

mod edits;
mod mirror;
mod rewrite;
mod split;
mod variables;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use self::edits::{Edits, Prepared};
use self::rewrite::Rewriter;
use self::variables::View;
use super::body::{RequestBody, ResponseBody};
use super::client::Client;
use super::client_body::ClientBody;
use super::https;
use super::pages::Page;
use super::respond;
use super::route::{self, Asked};
use super::transaction::Transaction;
use super::vouched::{self, Names};
use crate::config::{self, FixedResponse, PoolIndex, Redirect, Route, RouteAction, is_in};
use crate::proxy::state::{Listener, Pool, Site};

pub use self::mirror::MirrorBody;
pub use self::variables::Facts;

/// The routes of all listeners and the edits of all pools, prepared. Each thread has its own, so that no two of them share
/// the memory that expressions work in.
pub struct Routing {
    listeners: Vec<Rc<ListenerRouting>>,
    pools: Vec<Rc<Both>>,
    /// Whether the edits of some pool need to know what was asked for.
    pools_need_facts: bool,
    scratch: Rc<RefCell<route::Scratch>>,
}

/// The edits of requests and of responses.
struct Both {
    request: Edits,
    response: Edits,
    /// What those of requests write, or see to it that it is not there.
    vouched: Names,
}

struct ListenerRouting {
    table: route::Table,
    routes: Vec<PreparedRoute>,
    edits: Both,
    /// What the listener itself and those whom it asks say to servers.
    vouched: Names,
    /// Whether somebody will want to know later what was asked for.
    needs_facts: bool,
}

struct PreparedRoute {
    edits: Both,
    rewriter: Rewriter,
    mirror: Option<mirror::Mirroring>,
}

impl Both {
    fn new(request: &config::HeaderEdits, response: &config::HeaderEdits) -> Self {
        let set = request.set.iter().map(|(name, _)| name);
        // Whoever removes the one with the underscore alone means to keep the other.
        let removed = request.remove.iter().filter(|name| !name.contains('_'));
        let vouched = Names::new(set.chain(removed).filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()));
        Self { request: Edits::new(request), response: Edits::new(response), vouched }
    }

    fn needs_facts(&self) -> bool {
        self.request.needs_facts() || self.response.needs_facts()
    }
}

impl Routing {
    /// Prepares what a configuration says. What is as it was in a former one is taken over from there.
    pub fn new(site: &Site, former: Option<(&Site, &Self)>) -> Self {
        let pool = |pool: &Arc<Pool>| {
            let kept = former.and_then(|(before, own)| own.pools.get(place_of(pool, &before.pools)?));
            let new = || Rc::new(Both::new(&pool.config.request_headers, &pool.config.response_headers));
            kept.map_or_else(new, Rc::clone)
        };
        let pools: Vec<Rc<Both>> = site.pools.iter().map(pool).collect();
        let pools_need_facts = pools.iter().any(|pool| pool.needs_facts());
        let former_listeners = former.filter(|(_, own)| own.pools_need_facts == pools_need_facts);
        let listener = |listener: &Arc<Listener>| {
            let kept =
                former_listeners.and_then(|(before, own)| own.listeners.get(place_of(listener, &before.listeners)?));
            let new = || Rc::new(ListenerRouting::new(listener, pools_need_facts));
            kept.map_or_else(new, Rc::clone)
        };
        let listeners = site.listeners.iter().map(listener).collect();
        let scratch = former.map(|(_, own)| Rc::clone(&own.scratch)).unwrap_or_default();
        Self { listeners, pools, pools_need_facts, scratch }
    }
}

impl ListenerRouting {
    fn new(listener: &Listener, pools_need_facts: bool) -> Self {
        let routes: Vec<_> = listener.config.routes.iter().map(PreparedRoute::new).collect();
        let edits = Both::new(&listener.config.request_headers, &listener.config.response_headers);
        let of_routes = routes.iter().any(|route| route.edits.needs_facts() || route.rewriter.needs_facts());
        let needs_facts = pools_need_facts || of_routes || edits.needs_facts();
        let by_word = listener.config.authorizers().flat_map(|asked| &asked.response_headers);
        let by_word = by_word.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let vouched = Names::new(vouched::OF_FRAMING.into_iter().chain(listener.identity.written()).chain(by_word));
        Self { table: route::Table::new(&listener.config.routes), routes, edits, vouched, needs_facts }
    }
}

/// Where the very same one was.
fn place_of<T>(one: &Arc<T>, former: &[Arc<T>]) -> Option<usize> {
    former.iter().position(|before| Arc::ptr_eq(before, one))
}

impl PreparedRoute {
    fn new(route: &Route) -> Self {
        Self {
            edits: Both::new(&route.request_headers, &route.response_headers),
            rewriter: Rewriter::new(&route.rewrite),
            mirror: route.mirror.as_ref().map(mirror::Mirroring::new),
        }
    }
}

/// Finds the route of a request, which the transaction then has. `Some` is the answer to a request that has none, or whose
/// path nobody may guess the meaning of.
pub fn find(transaction: &mut Transaction, request: &mut Request<ClientBody>) -> Option<Response<ResponseBody>> {
    let client = std::rc::Rc::clone(&transaction.client);
    let routing = &client.thread().routing;
    let listener = routing.listeners.get(client.connection.listener)?;
    if listener.needs_facts {
        transaction.facts = Some(Facts::of(request));
    }
    let has_pool = client.listener().is_some_and(|listener| listener.config.pool.is_some());
    if listener.table.is_empty() {
        return (!has_pool).then(|| unrouted(&client, request));
    }
    let asked = Asked {
        host: route::host(request),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        method: request.method().as_str(),
        headers: request.headers(),
        ip: transaction.ip,
    };
    let found = listener.table.find(&asked, &mut routing.scratch.borrow_mut());
    match found {
        Ok(found) => {
            transaction.route = found.route;
            if let Some(path) = found.path {
                rewrite::set_path(request.uri_mut(), &path);
            }
            let is_lost = found.route.is_none() && !has_pool;
            is_lost.then(|| unrouted(&client, request))
        }
        Err(refusal) => Some(respond::bad_request(&client, &refusal.to_string())),
    }
}

/// Does what the route of a request says.
///
/// # Errors
/// The response, where no server has to be asked.
pub async fn perform(
    transaction: &mut Transaction,
    request: &Request<ClientBody>,
) -> Result<PoolIndex, Response<ResponseBody>> {
    let client = std::rc::Rc::clone(&transaction.client);
    let listener = client.listener().map(|listener| &listener.config);
    let route = transaction.route.and_then(|index| listener?.routes.get(index));
    let pool = match route {
        Some(route) => answer_or_pool(transaction, route, request).await?,
        None => listener.and_then(|listener| listener.pool).ok_or_else(|| unrouted(&client, request))?,
    };
    transaction.pool = Some(pool);
    Ok(pool)
}

/// The answer to a request that no route matches.
fn unrouted(client: &Client, request: &Request<ClientBody>) -> Response<ResponseBody> {
    let to_https = https::redirect(client, request);
    to_https.unwrap_or_else(|| respond::own(client, StatusCode::NOT_FOUND, "no route matches this request", None))
}

async fn answer_or_pool(
    transaction: &Transaction,
    route: &Route,
    request: &Request<ClientBody>,
) -> Result<PoolIndex, Response<ResponseBody>> {
    if let Some(maintenance) = &route.maintenance
        && !is_in(&maintenance.exempt, transaction.ip)
    {
        let mut response = fixed(transaction, &maintenance.response, request);
        response.headers_mut().insert(header::RETRY_AFTER, seconds(maintenance.retry_after));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Err(response);
    }
    match &route.action {
        RouteAction::Pool(pool) => Ok(*pool),
        RouteAction::Split(shares) => Ok(split::choose(transaction, shares, request).await),
        RouteAction::Redirect(redirect) => Err(redirected(transaction, redirect, request)),
        RouteAction::Respond(response) => Err(fixed(transaction, response, request)),
        // Maintenance that exempts nobody has answered before.
        RouteAction::Unavailable => Err(respond::own(
            &transaction.client,
            StatusCode::SERVICE_UNAVAILABLE,
            "this site is being worked on",
            None,
        )),
    }
}

/// In whole seconds (RFC 9110 section 10.2.3).
fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs().max(1))
}

/// An answer that the configuration has.
fn fixed(transaction: &Transaction, fixed: &FixedResponse, request: &Request<ClientBody>) -> Response<ResponseBody> {
    let listener = transaction.client.listener();
    let page = fixed.body_file.as_ref().and_then(|file| listener?.route_pages.of(file));
    let body = page.map_or_else(|| Bytes::copy_from_slice(fixed.body.as_bytes()), Page::body);
    let has_body = !body.is_empty();
    let mut response = Response::new(if has_body { ResponseBody::text(body) } else { ResponseBody::empty() });
    *response.status_mut() = StatusCode::from_u16(fixed.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let (true, Ok(content_type)) = (has_body, HeaderValue::try_from(&fixed.content_type)) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    let facts = Facts::of(request);
    let view = View { transaction, facts: Some(&facts), pool: None };
    for (name, template) in &fixed.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.insert(name, Prepared::new(template).value(&view));
        }
    }
    response
}

/// What a client is told that leaves out what it is to be led to.
const NAMELESS: &str = "it names no host, and is to be redirected to one";

/// An answer with another place to go to.
fn redirected(transaction: &Transaction, redirect: &Redirect, request: &Request<ClientBody>) -> Response<ResponseBody> {
    let client: &Client = &transaction.client;
    let facts = Facts::of(request);
    if facts.host().is_empty() && redirect.to.variables().any(|variable| variable == config::Variable::Host) {
        return respond::bad_request(client, NAMELESS);
    }
    let view = View { transaction, facts: Some(&facts), pool: None };
    let mut location = Vec::new();
    view.render(&redirect.to, &mut location);
    if let Some(query) = request.uri().query().filter(|_| redirect.keep_query && !location.contains(&b'?')) {
        location.push(b'?');
        location.extend_from_slice(query.as_bytes());
    }
    let Some(location) = variables::location(&location) else { return respond::bad_request(client, NAMELESS) };
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Removes what a server of a pool could take for a field that we write and that is none.
pub fn remove_forged(transaction: &Transaction, pool: PoolIndex, headers: &mut HeaderMap) {
    let client = &transaction.client;
    let routing = &client.thread().routing;
    let Some(listener) = routing.listeners.get(client.connection.listener) else { return };
    let none = Names::default();
    let of_pool = routing.pools.get(pool.0).map_or(&none, |pool| &pool.vouched);
    let route = transaction.route.and_then(|index| listener.routes.get(index));
    let of_route = route.map_or(&none, |route| &route.edits.vouched);
    let ours = [&listener.vouched, &listener.edits.vouched, of_pool, of_route];
    vouched::remove_forged(headers, client.site().asks_for_certificates, &ours);
}

/// Changes a request that is ready for a server of a pool as listener, pool and route say, and begins its copy for a second
/// pool where there is one.
pub fn to_server(transaction: &Transaction, pool: PoolIndex, request: &mut Request<RequestBody>) {
    let client = &transaction.client;
    let routing = &client.thread().routing;
    let Some(listener) = routing.listeners.get(client.connection.listener) else { return };
    let view = View { transaction, facts: transaction.facts.as_ref(), pool: Some(pool) };
    let route = transaction.route.and_then(|index| listener.routes.get(index));
    if let Some(route) = route {
        route.rewriter.apply(&view, request);
    }
    let of_pool = routing.pools.get(pool.0).map(|pool| &pool.request);
    let levels = [Some(&listener.edits.request), of_pool, route.map(|route| &route.edits.request)];
    for edits in levels.into_iter().flatten() {
        edits.apply(&view, request.headers_mut());
    }
    if let Some(mirror) = route.and_then(|route| route.mirror.as_ref()) {
        mirror.begin(client, request);
    }
}

/// Changes a response as listener, pool and route say.
pub fn to_client(transaction: &Transaction, headers: &mut HeaderMap) {
    let client = &transaction.client;
    let routing = &client.thread().routing;
    let Some(listener) = routing.listeners.get(client.connection.listener) else { return };
    let view = View { transaction, facts: transaction.facts.as_ref(), pool: transaction.pool };
    let of_pool = transaction.pool.and_then(|pool| routing.pools.get(pool.0)).map(|pool| &pool.response);
    let route = transaction.route.and_then(|index| listener.routes.get(index));
    let levels = [Some(&listener.edits.response), of_pool, route.map(|route| &route.edits.response)];
    for edits in levels.into_iter().flatten() {
        edits.apply(&view, headers);
    }
}
