//! One source of servers: asks it again and again, each in its own way, and says what it answered.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::Client;
use super::consul::{self, Index};
use super::dns::{self, Resolver};
use super::list::{self, Format};
use super::state::State;
use crate::config::{
    ConsulSource, Discovery, DiscoverySource, DnsSource, Endpoint, FoundServer, HttpSource, RESOLV_CONF,
    SERVERS_FILE_MAX_BYTES, ServerProtocol, ServerTls,
};
use crate::proxy::files::Files;
use crate::proxy::upstream::tls::Origination;

/// Bytes of an answer of Consul, which says much more of each server than is needed.
const CONSUL_BYTES_MAX: usize = 16 << 20;
/// Time before a source that did not answer is asked again: twice as long each time, up to the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Time between two questions to Consul, so that a service that changes all the time costs it little.
const CONSUL_INTERVAL: Duration = Duration::from_secs(1);
/// The same where Consul says no index, and so cannot hold a question.
const CONSUL_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Why there is no new list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no answer.
    Silent(String),
    /// The answer cannot be used.
    Wrong(String),
    /// The answer is good, and has no servers.
    Empty(String),
}

impl Failure {
    /// In words.
    pub(super) fn into_reason(self) -> String {
        match self {
            Failure::Silent(reason) | Failure::Wrong(reason) | Failure::Empty(reason) => reason,
        }
    }

    /// A failure with a part of what was asked for: the whole of it cannot be used then.
    pub(super) fn about(self, part: &str) -> Self {
        match self {
            Failure::Silent(reason) => Failure::Silent(format!("{part}: {reason}")),
            Failure::Wrong(reason) | Failure::Empty(reason) => Failure::Wrong(format!("{part}: {reason}")),
        }
    }
}

/// The files that a source needs, with what they hold; equal when nothing of them has changed.
pub(super) type Material = Vec<(PathBuf, Option<Arc<[u8]>>)>;

/// What a source needs of the files.
pub(super) fn material(discovery: &Discovery, files: &Files) -> Material {
    let source = &discovery.source;
    let mut paths: Vec<PathBuf> = source.token_file().into_iter().cloned().collect();
    if let DiscoverySource::File { path } = source {
        paths.push(path.clone());
        paths.extend(files.below(path).map(Path::to_owned));
    }
    if source.has_name() && discovery.resolvers.is_none() {
        paths.push(RESOLV_CONF.into());
    }
    if let Some(tls) = source.tls() {
        paths.extend(tls.ca_file.clone());
        paths.extend(tls.certificate.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]));
    }
    paths.into_iter().map(|path| (path.clone(), files.get(&path))).collect()
}

/// The servers in a file, or in the files of a directory.
pub(super) fn in_files(path: &Path, files: &Files) -> Result<Vec<FoundServer>, Failure> {
    let mut servers = Vec::new();
    let mut paths: Vec<&Path> = files.below(path).collect();
    if files.get(path).is_some() {
        paths.push(path);
    }
    if paths.is_empty() {
        return Err(Failure::Silent(format!("{} is not there, cannot be read, or is empty", path.display())));
    }
    for path in paths {
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let format = if is_toml { Format::Toml } else { Format::Json };
        let content = files.get(path).unwrap_or_default();
        let found = list::parse(&content, format);
        servers.extend(found.map_err(|reason| Failure::Wrong(format!("{}: {reason}", path.display())))?);
    }
    Ok(servers)
}

/// Asks a source until this is dropped.
///
/// # Errors
/// Why it cannot be asked at all.
pub(super) async fn follow(discovery: &Discovery, files: Files, state: &State) -> Result<(), String> {
    match &discovery.source {
        // Read where the files are taken.
        DiscoverySource::File { .. } => Ok(()),
        DiscoverySource::Dns(source) => {
            let resolver = resolver(discovery, &files)?;
            drop(files);
            follow_dns(source, &resolver, discovery.timeout, state).await
        }
        DiscoverySource::Consul(source) => {
            let ConsulSource { endpoint, tls, token_file, .. } = source;
            let secret = token_file.as_deref().map(|file| secret(file, &files)).transpose()?;
            let token =
                secret.map(|secret| Ok::<_, String>((HeaderName::from_static("x-consul-token"), value(&secret)?)));
            let client = client(discovery, endpoint, tls.as_ref(), token.transpose()?, CONSUL_BYTES_MAX, &files)?;
            drop(files);
            follow_consul(source, &client, discovery.timeout, state).await
        }
        DiscoverySource::Http(source) => {
            let HttpSource { endpoint, tls, token_file, .. } = source;
            let secret = token_file.as_deref().map(|file| secret(file, &files)).transpose()?;
            let token =
                secret.map(|secret| Ok::<_, String>((header::AUTHORIZATION, value(&format!("Bearer {secret}"))?)));
            let bytes_max = usize::try_from(SERVERS_FILE_MAX_BYTES).unwrap_or(usize::MAX);
            let client = client(discovery, endpoint, tls.as_ref(), token.transpose()?, bytes_max, &files)?;
            drop(files);
            follow_http(source, &client, discovery.timeout, state).await
        }
    }
}

fn secret(file: &Path, files: &Files) -> Result<String, String> {
    let content = files.get(file).unwrap_or_default();
    let text = std::str::from_utf8(&content).map(str::trim).unwrap_or_default();
    if text.is_empty() { Err(format!("{} holds no token", file.display())) } else { Ok(text.to_owned()) }
}

fn value(text: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::try_from(text).map_err(|_| "the token has characters that none can have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn resolver(discovery: &Discovery, files: &Files) -> Result<Resolver, String> {
    let servers = match &discovery.resolvers {
        Some(resolvers) => resolvers.clone(),
        None => dns::system_resolvers(&files.get(Path::new(RESOLV_CONF)).unwrap_or_default()),
    };
    if servers.is_empty() {
        return Err(format!("{RESOLV_CONF} names nobody who could be asked: set resolvers"));
    }
    Resolver::new(&servers, discovery.timeout)
}

fn client(
    discovery: &Discovery,
    endpoint: &Endpoint,
    tls: Option<&ServerTls>,
    token: Option<(HeaderName, HeaderValue)>,
    body_bytes_max: usize,
    files: &Files,
) -> Result<Client, String> {
    let named = |tls: &ServerTls| {
        let host = Some(&endpoint.host).filter(|host| host.parse::<std::net::IpAddr>().is_err());
        ServerTls { server_name: tls.server_name.clone().or_else(|| host.cloned()), ..tls.clone() }
    };
    let tls = tls.map(|tls| Origination::new(&named(tls), ServerProtocol::Http1, files)).transpose()?;
    let resolver = endpoint.has_name().then(|| resolver(discovery, files)).transpose()?;
    Ok(Client { endpoint: endpoint.clone(), tls, resolver, token, body_bytes_max })
}

/// Something that has to come within a time.
async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Failure::Silent(format!("no answer within {} ms", time.as_millis()));
    timeout(time, answer).await.unwrap_or_else(|_| Err(late()))
}

/// Up to a tenth longer, so that many do not ask at the same moment.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(1.0 + fastrand::f64() / 10.0)
}

/// How long to wait after failures.
struct Backoff(Duration);

impl Backoff {
    const START: Self = Self(RETRY_MIN);

    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(RETRY_MAX);
        jittered(now)
    }
}

async fn follow_dns(source: &DnsSource, resolver: &Resolver, time: Duration, state: &State) -> Result<(), String> {
    let mut backoff = Backoff::START;
    loop {
        let answered = within(time, resolver.servers(source)).await;
        let (result, good_for) = match answered {
            Ok((servers, ttl)) => (Ok(servers), Some(ttl)),
            Err(failure) => (Err(failure), None),
        };
        let is_good = state.answered(result);
        match good_for.filter(|_| is_good) {
            Some(ttl) => {
                backoff = Backoff::START;
                sleep(jittered(ttl.clamp(source.ttl_min, source.ttl_max))).await;
            }
            // What cannot be used is no reason to ask less often than for what can.
            None => sleep(backoff.next().min(jittered(source.ttl_max))).await,
        }
    }
}

async fn follow_consul(source: &ConsulSource, client: &Client, time: Duration, state: &State) -> Result<(), String> {
    let mut index = Index::default();
    let mut backoff = Backoff::START;
    loop {
        let began = Instant::now();
        let path = consul::path(source, index);
        let question = client.get(&path, HeaderMap::new());
        let answered = within(consul::patience(source, index, time), question).await;
        let result = answered.and_then(|answer| {
            let said = answer.headers.get("x-consul-index").and_then(|value| value.to_str().ok());
            match answer.status {
                StatusCode::OK => Ok((consul::servers(&answer.body).map_err(Failure::Wrong)?, index.after(said))),
                status => Err(refused(status)),
            }
        });
        let (result, next) = match result {
            Ok((servers, next)) => (Ok(servers), Some(next)),
            Err(failure) => (Err(failure), None),
        };
        let is_good = state.answered(result);
        // An answer that is no list, even a whole one, is the answer to its index: the next is waited for.
        match next {
            Some(next) => {
                index = next;
                backoff = Backoff::START;
                let least = if index.is_start() { CONSUL_POLL_INTERVAL } else { CONSUL_INTERVAL };
                sleep_until(began + jittered(least)).await;
            }
            None if is_good => {}
            None => {
                index = Index::default();
                sleep(backoff.next()).await;
            }
        }
    }
}

async fn follow_http(source: &HttpSource, client: &Client, time: Duration, state: &State) -> Result<(), String> {
    let mut tag: Option<HeaderValue> = None;
    let mut backoff = Backoff::START;
    loop {
        let mut fields = HeaderMap::new();
        if let Some(tag) = &tag {
            fields.insert(header::IF_NONE_MATCH, tag.clone());
        }
        let answered = within(time, client.get(&source.endpoint.path, fields)).await;
        let is_good = match answered {
            Ok(answer) if answer.status == StatusCode::NOT_MODIFIED && tag.is_some() => state.confirmed(),
            Ok(answer) if answer.status == StatusCode::OK => {
                let is_good = state.answered(list::parse(&answer.body, Format::Json).map_err(Failure::Wrong));
                // A list that was refused is asked for again, so that why it is refused is said for as long as it is.
                tag = answer.headers.get(header::ETAG).filter(|_| is_good).cloned();
                is_good
            }
            Ok(answer) => state.answered(Err(refused(answer.status))),
            Err(failure) => state.answered(Err(failure)),
        };
        let wait = if is_good {
            backoff = Backoff::START;
            jittered(source.interval)
        } else {
            backoff.next().min(jittered(source.interval))
        };
        sleep(wait).await;
    }
}

fn refused(status: StatusCode) -> Failure {
    let hint = match status.as_u16() {
        401 | 403 => ": see to its token",
        404 => ": see to its address",
        300..=399 => ": where it leads to is not followed",
        _ => "",
    };
    Failure::Wrong(format!("it answered with status {}{hint}", status.as_u16()))
}
