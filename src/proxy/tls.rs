//! TLS termination: certificates from files that the guard has read, picked by the name that the client asks for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::files::Files;
use crate::config::{self, Protocol};

/// Sessions that are kept here while there are no ticket keys, for each listener.
const SESSIONS_MAX: usize = 256;

/// TLS of one listener.
pub struct Termination {
    terms: Terms,
    current: ArcSwap<ServerConfig>,
}

/// What stays the same when files change.
struct Terms {
    config: config::Tls,
    /// The protocols that are negotiated (RFC 7301), the preferred one first.
    protocols: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Termination {
    /// Prepares a listener's TLS; `None` for a listener without. `tickets` are the listener's (`Tickets::of_listener`).
    ///
    /// # Errors
    /// In words: which file cannot be used, and why.
    pub fn new(
        listener: &config::Listener,
        files: &Files,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<Option<Self>, String> {
        let Some(config) = listener.tls.clone() else { return Ok(None) };
        let protocols = match listener.protocol {
            Protocol::Http if listener.http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Protocol::Http => vec![b"http/1.1".to_vec()],
            Protocol::Tcp => Vec::new(),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let sessions = ServerSessionMemoryCache::new(SESSIONS_MAX);
        let terms = Terms { config, protocols, provider, tickets, sessions };
        let current = ArcSwap::from_pointee(terms.build(files)?);
        Ok(Some(Self { terms, current }))
    }

    /// What accepts connections now. Those that it has accepted keep what they began with.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Takes files that have changed. Tickets and sessions stay good.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why. Everything is as before then.
    pub fn files_changed(&self, files: &Files) -> Result<(), String> {
        self.current.store(Arc::new(self.terms.build(files)?));
        Ok(())
    }
}

impl Terms {
    fn build(&self, files: &Files) -> Result<ServerConfig, String> {
        let keys = self.config.certificates.iter().map(|pair| certified_key(pair, files, &self.provider));
        let resolver = Arc::new(ByName { keys: keys.collect::<Result<_, _>>()? });
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&self.protocols);
        config.ticketer = Arc::clone(&self.tickets);
        config.session_storage = Arc::clone(&self.sessions);
        Ok(config)
    }
}

fn certified_key(
    pair: &config::Certificate,
    files: &Files,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let content = |path| files.get(path).unwrap_or_default();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content(&pair.cert)).collect();
    let chain = chain.map_err(|error| format!("{cert} is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{cert} holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(&content(&pair.key));
    let private = private.map_err(|error| format!("{key} holds no private key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, private, provider);
    certified.map(Arc::new).map_err(|error| format!("{cert} and {key} do not go together: {error}"))
}

#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.keys.iter().find(|key| is_for(key, name)));
        named.or_else(|| self.keys.first()).cloned()
    }
}

/// Whether a certificate is for a name, exact or by wildcard (RFC 9525 section 6.3).
fn is_for(key: &CertifiedKey, name: &str) -> bool {
    let Ok(leaf) = key.end_entity_cert() else { return false };
    let Ok(leaf) = rustls::server::ParsedCertificate::try_from(leaf) else { return false };
    let Ok(name) = rustls::pki_types::ServerName::try_from(name) else { return false };
    rustls::client::verify_server_name(&leaf, &name).is_ok()
}
