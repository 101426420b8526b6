//! Posts one event to the operator's webhook.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::event::Event;

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Where events are posted to. Its URL is in none of its messages: the host alone is.
pub struct Webhook {
    target: Result<Target, String>,
}

struct Target {
    host: String,
    port: u16,
    /// As the Host header has it.
    authority: String,
    path: String,
    /// For https: how, or why not.
    tls: Option<Result<TlsConnector, String>>,
}

impl Webhook {
    /// Reads the URL, and for https the authorities that this system trusts.
    pub fn new(url: &str) -> Self {
        Self { target: Target::new(url) }
    }

    /// The host, for messages.
    pub fn host(&self) -> &str {
        self.target.as_ref().map_or("the webhook", |target| &target.host)
    }

    /// Posts it once, over a connection of its own.
    ///
    /// # Errors
    /// Any answer but a 2xx, or none, in words that do not hold the URL.
    pub async fn post(&self, event: &Event) -> Result<(), String> {
        let target = self.target.as_ref()?;
        let stream = target.connect().await?;
        let status = match &target.tls {
            None => target.exchange(stream, event).await?,
            Some(tls) => {
                let tls = tls.as_ref()?;
                let bare = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(bare).map_err(|_| format!("{} is no host name", target.host))?;
                let stream = tls.connect(name, stream).await;
                let stream = stream.map_err(|error| format!("no TLS with {}: {error}", target.host))?;
                target.exchange(stream, event).await?
            }
        };
        match status.as_u16() {
            200..=299 => Ok(()),
            status @ 300..=399 => Err(format!("{} answered {status}; redirections are not followed", target.host)),
            status => Err(format!("{} answered {status}", target.host)),
        }
    }
}

impl Target {
    fn new(url: &str) -> Result<Self, String> {
        // What the parser says may quote the URL.
        let uri: Uri = url.parse().map_err(|_| "the webhook is no URL")?;
        let authority = uri.authority().ok_or("the webhook names no host")?;
        let is_tls = uri.scheme_str() == Some("https");
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            tls: is_tls.then(connector),
        })
    }

    /// The first of the host's addresses that takes a connection.
    async fn connect(&self) -> Result<TcpStream, String> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, self.port)).await;
        let found = found.map_err(|error| format!("{} has no address: {error}", self.host))?;
        let mut last = format!("{} has no address", self.host);
        for address in found.take(ADDRESSES_MAX) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("no connection to {} ({address}): {error}", self.host),
            }
        }
        Err(last)
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        event: &Event,
    ) -> Result<http::StatusCode, String> {
        let text = serde_json::to_vec(event).map_err(|error| error.to_string())?;
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("baton/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .header("baton-event-sequence", event.sequence)
            .body(Full::new(Bytes::from(text)))
            .map_err(|_| "the webhook's URL makes no request")?;
        let failed = |error: hyper::Error| format!("no answer from {}: {error}", self.host);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let exchange = sender.send_request(request);
        tokio::pin!(exchange, connection);
        // The head is all that counts; the body is left unread.
        tokio::select! {
            biased;
            response = &mut exchange => response.map(|response| response.status()).map_err(failed),
            ended = &mut connection => {
                // The answer may have come with the end.
                match ended {
                    Ok(()) => exchange.await.map(|response| response.status()).map_err(failed),
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }
}

/// Trusts what this system trusts: webhooks are as often inside an organisation, with its own authority, as outside.
fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let errors = if errors.is_empty() { "none found".to_owned() } else { errors.join("; ") };
        return Err(format!("this system trusts no certificate authority ({errors}): install ca-certificates"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
