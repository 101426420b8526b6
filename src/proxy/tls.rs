//! TLS termination: what a listener accepts connections with, made anew when its files change.
//!
//! `names` picks a certificate for the name that a client asks for, `client` says who a client with a certificate of its
//! own is, and [`facts::TlsFacts`] is what is known of a connection after its handshake.

pub mod client;
pub mod facts;
mod names;
mod preference;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    Acceptor, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use self::names::{ByName, Served};
use super::files::Files;
use super::tickets::Tickets;
use crate::config::certificates::{self, CertificateFacts};
use crate::config::staple;
use crate::config::{self, Certificate, ClientAuth, Protocol, TlsVersion};
use crate::status::CertificateStatus;
use crate::status::OcspStatus;

/// Sessions that are kept here while there are no ticket keys, for each listener.
const SESSIONS_MAX: usize = 256;

/// TLS of one listener.
pub struct Termination {
    terms: Terms,
    current: ArcSwap<Serving>,
    /// What the current configuration was made of. Changed where files are taken, read where status is told.
    made_of: Mutex<MadeOf>,
}

/// What connections are accepted with.
struct Serving {
    any: Arc<ServerConfig>,
    /// With clients that offer this group of the key exchange.
    first: Option<(NamedGroup, Arc<ServerConfig>)>,
}

/// What stays the same when files change.
struct Terms {
    listener: String,
    config: config::Tls,
    /// The protocols that are negotiated (RFC 7301), the preferred one first.
    protocols: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
    /// For clients that offer the group that the operator lists first.
    first: Option<(NamedGroup, Arc<CryptoProvider>)>,
    tickets: Arc<Tickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// What a configuration was made of.
#[derive(Clone, Default)]
struct MadeOf {
    certificates: BTreeMap<Certificate, Loaded>,
    clients: Option<Clients>,
}

/// A certificate with its key, ready for use.
#[derive(Clone)]
struct Loaded {
    served: Served,
    ocsp: OcspStatus,
    facts: Arc<CertificateFacts>,
}

/// What verifies clients.
#[derive(Clone)]
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// SHA-256 of the files that it was made of: a session that was made on other terms is not resumed.
    terms: [u8; 32],
    /// When the first revocation list expires, in seconds since 1970.
    expires_s: Option<i64>,
}

impl Termination {
    /// Prepares a listener's TLS; `None` for a listener without.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why.
    pub fn new(listener: &config::Listener, files: &Files, tickets: &Arc<Tickets>) -> Result<Option<Self>, String> {
        let Some(config) = listener.tls.clone() else { return Ok(None) };
        let protocols = match listener.protocol {
            Protocol::Http if listener.http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Protocol::Http => vec![b"http/1.1".to_vec()],
            Protocol::Tcp => Vec::new(),
        };
        let provider = provider(&config);
        let first = config.key_exchange_first.map(|group| (group, Arc::new(preference::preferring(group, &provider))));
        let terms = Terms {
            listener: listener.name.clone(),
            provider: Arc::new(provider),
            first,
            config,
            protocols,
            tickets: Arc::clone(tickets),
            sessions: ServerSessionMemoryCache::new(SESSIONS_MAX),
        };
        let (made_of, refused) = terms.load(files, &MadeOf::default());
        if let Some(reason) = refused.into_iter().next() {
            return Err(reason);
        }
        let current = ArcSwap::from_pointee(terms.build(&made_of)?);
        Ok(Some(Self { terms, current, made_of: Mutex::new(made_of) }))
    }

    /// Makes a handshake with what is in use now, which the connection then keeps. Without a deadline of its own.
    ///
    /// # Errors
    /// It fails, or the connection does.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let serving = self.current.load_full();
        let Some((group, first)) = &serving.first else {
            return TlsAcceptor::from(Arc::clone(&serving.any)).accept(stream).await;
        };
        // rustls takes a client's order: where ours counts, it is left no choice.
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let offers_it = begun.client_hello().named_groups().is_some_and(|groups| groups.contains(group));
        begun.into_stream(Arc::clone(if offers_it { first } else { &serving.any })).await
    }

    /// Takes files that have changed, each certificate by itself: where one cannot be used, its former one is served on, and
    /// that is said in words. Tickets and sessions stay good, except where clients are verified by something else now.
    pub fn files_changed(&self, files: &Files) -> Vec<String> {
        let former = self.made_of().clone();
        let (made_of, mut refused) = self.terms.load(files, &former);
        match self.terms.build(&made_of) {
            Ok(serving) => {
                self.current.store(Arc::new(serving));
                *self.made_of() = made_of;
            }
            Err(reason) => refused.push(reason),
        }
        refused
    }

    /// The certificates that are served.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let made_of = self.made_of();
        let status = made_of.certificates.iter().map(|(pair, loaded)| CertificateStatus {
            listener: self.terms.listener.clone(),
            file: pair.cert.display().to_string(),
            names: loaded.facts.names.clone(),
            subject: loaded.facts.subject.clone(),
            fingerprint: loaded.facts.fingerprint.clone(),
            not_after_s: loaded.facts.not_after_s,
            ocsp: loaded.ocsp.clone(),
        });
        status.collect()
    }

    /// When the first of the revocation lists expires, in seconds since 1970, and their file.
    pub fn revocation_expiry(&self) -> Option<(i64, &Path)> {
        let file = self.terms.config.client_auth.as_ref()?.crl_file.as_deref()?;
        let expires_s = self.made_of().clients.as_ref()?.expires_s?;
        Some((expires_s, file))
    }

    fn made_of(&self) -> std::sync::MutexGuard<'_, MadeOf> {
        self.made_of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terms {
    /// Loads every certificate, and what verifies clients; what cannot be used is as it was formerly.
    fn load(&self, files: &Files, former: &MadeOf) -> (MadeOf, Vec<String>) {
        let (mut made_of, mut refused) = (MadeOf::default(), Vec::new());
        let directory = self.config.certificate_dir.as_deref();
        let (pairs, lonely) = directory.map(|path| certificates::pairs(files.below(path))).unwrap_or_default();
        refused.extend(lonely.into_iter().map(|unusable| unusable.rule));
        for pair in self.config.certificates.iter().cloned().chain(pairs) {
            let loaded = load_certificate(&pair, files).map_err(|reason| refused.push(reason)).ok();
            if let Some(loaded) = loaded.or_else(|| former.certificates.get(&pair).cloned()) {
                made_of.certificates.insert(pair, loaded);
            }
        }
        if let Some(auth) = &self.config.client_auth {
            let clients = load_clients(auth, files, &self.provider).map_err(|reason| refused.push(reason)).ok();
            made_of.clients = clients.or_else(|| former.clients.clone());
        }
        (made_of, refused)
    }

    fn build(&self, made_of: &MadeOf) -> Result<Serving, String> {
        let listed = self.config.certificates.iter().filter_map(|pair| made_of.certificates.get(pair));
        let is_listed = |pair: &Certificate| self.config.certificates.contains(pair);
        let of_directory = made_of.certificates.iter().filter(|(pair, _)| !is_listed(pair)).map(|(_, loaded)| loaded);
        let resolver = ByName::new(listed.chain(of_directory).map(|loaded| (loaded.served.clone(), &*loaded.facts)));
        if resolver.is_empty() {
            return Err("there is no certificate left to serve".to_owned());
        }
        let resolver = Arc::new(resolver);
        let with = |provider: &Arc<CryptoProvider>| self.build_with(made_of, provider, &resolver).map(Arc::new);
        let first = self.first.as_ref().map(|(group, provider)| with(provider).map(|config| (*group, config)));
        Ok(Serving { any: with(&self.provider)?, first: first.transpose()? })
    }

    fn build_with(
        &self,
        made_of: &MadeOf,
        provider: &Arc<CryptoProvider>,
        resolver: &Arc<ByName>,
    ) -> Result<ServerConfig, String> {
        let versions = match self.config.min_version {
            TlsVersion::V12 => &[&TLS13, &TLS12][..],
            TlsVersion::V13 => &[&TLS13],
        };
        let verifier = made_of.clients.as_ref().map(|clients| Arc::clone(&clients.verifier));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
            .with_cert_resolver(Arc::clone(resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols.clone_from(&self.protocols);
        config.ignore_client_order = true;
        let terms = made_of.clients.as_ref().map(|clients| clients.terms);
        config.ticketer = self.tickets_on(terms);
        config.session_storage = match terms {
            // They know nothing of the terms that they were made on.
            Some(_) => Arc::new(rustls::server::NoServerSessionStorage {}),
            None => Arc::clone(&self.sessions),
        };
        Ok(config)
    }

    fn tickets_on(&self, terms: Option<[u8; 32]>) -> Arc<dyn ProducesTickets> {
        self.tickets.of_listener(&self.listener, terms.as_ref().map_or(&[], |terms| terms.as_slice()))
    }
}

/// The cryptography of a listener: what the configuration says of suites and key exchange.
fn provider(config: &config::Tls) -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let suites = std::mem::take(&mut provider.cipher_suites);
    let suite = |wanted| suites.iter().copied().find(|suite| suite.suite() == wanted);
    provider.cipher_suites = config.cipher_suites.iter().filter_map(|wanted| suite(*wanted)).collect();
    let groups = provider.kx_groups.clone();
    let group = |wanted| groups.iter().copied().find(|group| group.name() == wanted);
    provider.kx_groups = config.key_exchange.iter().filter_map(|wanted| group(*wanted)).collect();
    provider
}

fn load_certificate(pair: &Certificate, files: &Files) -> Result<Loaded, String> {
    let content = |path: &PathBuf| files.get(path).unwrap_or_default();
    let of_key = |unusable: certificates::Unusable| format!("{}: {unusable}", pair.key.display());
    let chain = certificates::chain(&content(&pair.cert), &pair.cert).map_err(|unusable| unusable.to_string())?;
    let private = certificates::private_key(&content(&pair.key), &pair.key).map_err(|unusable| unusable.to_string())?;
    let of_cert = |unusable| format!("{}: {unusable}", pair.cert.display());
    let facts = chain.first().map(certificates::facts).transpose().map_err(of_cert)?;
    let key = certificates::certified(chain, &private).map_err(of_key)?;
    let facts = facts.ok_or_else(|| format!("{} holds no certificate", pair.cert.display()))?;
    let (stapled, ocsp) = stapled(&key, &pair.cert, files);
    Ok(Loaded { served: Served { key: Arc::new(key), stapled }, ocsp, facts: Arc::new(facts) })
}

/// A certificate with the OCSP response beside it, and until when that is good.
fn stapled(key: &CertifiedKey, cert: &Path, files: &Files) -> (Option<(Arc<CertifiedKey>, u64)>, OcspStatus) {
    let Some(response) = files.get(&staple::beside(cert)) else { return (None, OcspStatus::None) };
    let issuer = files.get(&staple::issuer_beside(cert));
    match staple::good_until_s(&response, &key.cert, issuer.as_deref()) {
        Ok(until_s) => {
            let with_it = CertifiedKey { ocsp: Some(response.to_vec()), ..key.clone() };
            let stapled = (Arc::new(with_it), u64::try_from(until_s).unwrap_or_default());
            (Some(stapled), OcspStatus::Stapled { until_s })
        }
        Err(unusable) => (None, OcspStatus::Refused { reason: format!("{unusable}: {}", unusable.remedy) }),
    }
}

fn load_clients(auth: &ClientAuth, files: &Files, provider: &Arc<CryptoProvider>) -> Result<Clients, String> {
    let authorities = files.get(&auth.ca_file).unwrap_or_default();
    let revoked = auth.crl_file.as_ref().map(|path| (files.get(path).unwrap_or_default(), path.as_path()));
    let lists = revoked.as_ref().map(|(text, path)| (&text[..], *path));
    let verifier = certificates::client_verifier(auth.mode, (&authorities, &auth.ca_file), lists, provider);
    let verifier = verifier.map_err(|(unusable, _)| unusable.to_string())?;
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    digest.update(&(authorities.len() as u64).to_be_bytes());
    digest.update(&authorities);
    digest.update(lists.map_or(&[], |(text, _)| text));
    let terms = digest.finish().as_ref().try_into().unwrap_or([0; 32]);
    Ok(Clients { verifier, terms, expires_s: lists.and_then(|(text, _)| certificates::revocation_expiry_s(text)) })
}
