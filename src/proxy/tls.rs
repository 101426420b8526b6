//! TLS termination: certificates handed over by the guard, picked by the name that the client asks for.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::link::CertificatePem;

/// Builds what accepts TLS connections. The first certificate is the default. `tickets` are the listener's
/// (`Tickets::of_listener`), `alpn` the protocols that are negotiated (RFC 7301), the preferred one first.
///
/// # Errors
/// In words: which certificate cannot be used, and why.
pub fn acceptor(
    certificates: &[CertificatePem],
    alpn: &[&str],
    tickets: Arc<dyn ProducesTickets>,
) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let keys = certificates.iter().enumerate().map(|(index, pem)| {
        certified_key(pem, &provider).map_err(|reason| format!("certificate {}: {reason}", index + 1))
    });
    let resolver = Arc::new(ByName { keys: keys.collect::<Result<_, _>>()? });
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.ticketer = tickets;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certified_key(pem: &CertificatePem, provider: &rustls::crypto::CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.chain).collect();
    let chain = chain.map_err(|error| format!("the chain is not PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| format!("the key is not PEM: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, provider);
    certified.map(Arc::new).map_err(|error| format!("chain and key do not go together: {error}"))
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
