//! TLS to servers: whom we believe, and how we say who we are.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::DialError;
use crate::config::{SYSTEM_ROOTS, ServerProtocol, ServerTls};
use crate::proxy::files::Files;
use crate::proxy::socket::Socket;

/// TLS of one pool.
pub struct Origination {
    config: ServerTls,
    protocol: ServerProtocol,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
}

/// As the files have it now.
struct Current {
    /// Asks for the protocol that the pool speaks.
    http: Arc<ClientConfig>,
    /// Asks for HTTP/1.1 alone.
    http1: Arc<ClientConfig>,
    /// Asks for none: what is spoken is the client's affair.
    tcp: Arc<ClientConfig>,
}

/// What will be spoken within TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// What the pool says.
    Http,
    /// HTTP/1.1.
    Http1,
    /// Whatever the client does.
    Tcp,
}

impl Origination {
    /// Prepares a pool's TLS.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why.
    pub fn new(config: &ServerTls, protocol: ServerProtocol, files: &Files) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = ArcSwap::from_pointee(build(config, protocol, &provider, files)?);
        Ok(Self { config: config.clone(), protocol, provider, current })
    }

    /// Takes files that have changed. Connections that are open stay.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why. Everything is as before then.
    pub fn files_changed(&self, files: &Files) -> Result<(), String> {
        self.current.store(Arc::new(build(&self.config, self.protocol, &self.provider, files)?));
        Ok(())
    }

    /// Shakes hands on a connection. Cancel safe.
    ///
    /// # Errors
    /// Who was not satisfied with whom, in the words of RFC 9209.
    pub async fn connect(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        within: Within,
    ) -> Result<TlsStream<Socket>, DialError> {
        let current = self.current.load_full();
        let config = match within {
            Within::Http => &current.http,
            Within::Http1 => &current.http1,
            Within::Tcp => &current.tcp,
        };
        let name = self.config.server_name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let name = name.unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
        let connector = TlsConnector::from(Arc::clone(config));
        connector.connect(name, Socket::new(stream)).await.map_err(|error| refusal(&error))
    }
}

fn refusal(error: &io::Error) -> DialError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let kind = match tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => "tls_certificate_error",
        Some(rustls::Error::AlertReceived(_)) => "tls_alert_received",
        Some(_) => "tls_protocol_error",
        None => "connection_terminated",
    };
    DialError {
        error: kind,
        reason: format!("TLS failed: {}", tls.map_or_else(|| error.to_string(), ToString::to_string)),
    }
}

fn build(
    tls: &ServerTls,
    protocol: ServerProtocol,
    provider: &Arc<CryptoProvider>,
    files: &Files,
) -> Result<Current, String> {
    let verifier: Arc<dyn ServerCertVerifier> = if tls.verify {
        let roots = Arc::new(roots(tls.ca_file.as_deref(), files)?);
        let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
        builder.build().map_err(|error| error.to_string())?
    } else {
        Arc::new(Anybody(Arc::clone(provider)))
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut tcp = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = certificates(&pair.cert, files)?;
            let key = PrivateKeyDer::from_pem_slice(&files.get(&pair.key).unwrap_or_default())
                .map_err(|error| format!("{} holds no private key: {error}", pair.key.display()))?;
            let made = builder.with_client_auth_cert(chain, key);
            made.map_err(|error| format!("{} and its key do not go together: {error}", pair.cert.display()))?
        }
    };
    tcp.alpn_protocols.clear();
    let (mut http, mut http1) = (tcp.clone(), tcp.clone());
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let protocols: &[&[u8]] = match protocol {
        ServerProtocol::Http1 | ServerProtocol::H2c => &[b"http/1.1"],
        ServerProtocol::H2 => &[b"h2"],
        ServerProtocol::Auto => &[b"h2", b"http/1.1"],
    };
    http.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Current { http: Arc::new(http), http1: Arc::new(http1), tcp: Arc::new(tcp) })
}

/// The authorities that are believed.
fn roots(ca_file: Option<&Path>, files: &Files) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path, files)? {
                let added = roots.add(certificate);
                added.map_err(|error| format!("{} holds an authority that cannot be used: {error}", path.display()))?;
            }
        }
        None => {
            let path = SYSTEM_ROOTS.iter().map(Path::new).find(|path| files.get(path).is_some());
            let path =
                path.ok_or("this machine has no authorities of its own: install ca-certificates, or set ca_file")?;
            // One that is odd among a hundred and fifty is the system's affair.
            roots.add_parsable_certificates(certificates(path, files)?);
        }
    }
    Ok(roots)
}

fn certificates(path: &Path, files: &Files) -> Result<Vec<CertificateDer<'static>>, String> {
    let content = files.get(path).unwrap_or_default();
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let found = found.map_err(|error| format!("{} is not PEM: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(found)
}

/// Believes anybody, as `verify = false` asks for: what is sent is encrypted, and nobody knows for whom.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
