//! Who is who on the sync link: a key for each node, derived from the pair key and the node's name, and a TLS that lets
//! in the holder of the peer's key and nobody else.
//!
//! Both sides show a raw public key (RFC 7250): a certificate would say nothing that the pair does not know already, and
//! would expire. Whoever has the pair key has both keys, as with the heartbeat. TLS 1.3 alone, without session tickets:
//! each connection proves both identities anew.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::hkdf;
use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What both sides have to agree on (RFC 7301). Another version of the protocol inside it is told there.
pub const ALPN: &[u8] = b"baton-sync";

const SALT: &[u8] = b"baton pair key";
const INFO: &[u8] = b"baton sync identity v1";
const SEED_LEN: usize = 32;

/// The identity of this node, and the one that it accepts.
#[derive(Debug, Clone)]
pub struct Identity {
    own: Arc<CertifiedKey>,
    peer: Accepts,
}

impl Identity {
    /// Derives both keys. `own` and `peer` are the names of the nodes.
    ///
    /// # Errors
    /// In words, when the library of algorithms fails.
    pub fn derive(pair_key: &[u8], own: &str, peer: &str) -> Result<Self, String> {
        let provider = Arc::new(provider::default_provider());
        let key = derive_key(pair_key, own)?;
        let own = CertifiedKey::new(vec![CertificateDer::from(public_key(key.as_ref())?.to_vec())], key);
        let peer = public_key(derive_key(pair_key, peer)?.as_ref())?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { own: Arc::new(own), peer: Accepts { key: Arc::new(peer), algorithms } })
    }

    /// For the node that listens.
    ///
    /// # Errors
    /// In words, when the library of algorithms lacks TLS 1.3.
    pub fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let mut config = rustls::ServerConfig::builder_with_provider(algorithms())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(Arc::new(self.peer.clone()))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.own))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// For the node that connects.
    ///
    /// # Errors
    /// As [`Identity::acceptor`].
    pub fn connector(&self) -> Result<TlsConnector, String> {
        let mut config = rustls::ClientConfig::builder_with_provider(algorithms())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.peer.clone()))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.own))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// What a connector calls the other side. It is known by its key; the name goes nowhere.
    pub fn server_name(peer: IpAddr) -> ServerName<'static> {
        ServerName::IpAddress(peer.into())
    }
}

fn algorithms() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

/// The Ed25519 key of a node: HKDF with SHA-256 (RFC 5869) of the pair key, told apart by the node's name.
fn derive_key(pair_key: &[u8], node: &str) -> Result<Arc<dyn SigningKey>, String> {
    let failed = |what: &str| format!("the identity of {node} cannot be derived: {what}");
    let mut seed = [0_u8; SEED_LEN];
    // The name comes last, so that no two names give the same bytes.
    let info = [INFO, node.as_bytes()];
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
        .extract(pair_key)
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|material| material.fill(&mut seed))
        .map_err(|_| failed("HKDF failed"))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| failed(&error.to_string()))?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| failed("it cannot be encoded"))?;
    provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_ref())).map_err(|error| failed(&error.to_string()))
}

fn public_key(key: &dyn SigningKey) -> Result<SubjectPublicKeyInfoDer<'static>, String> {
    key.public_key().map(SubjectPublicKeyInfoDer::into_owned).ok_or_else(|| "a key without a public half".to_owned())
}

/// Accepts one public key.
#[derive(Debug, Clone)]
struct Accepts {
    key: Arc<SubjectPublicKeyInfoDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Accepts {
    fn verify_key(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        verify_slices_are_equal(shown, &self.key)
            .map_err(|_| Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// What the verifiers of both sides have in common: TLS 1.3, and a key in place of a certificate.
macro_rules! verifies_raw_keys {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls12NotOffered.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.verify_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Accepts {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_key(end_entity).map(|()| ServerCertVerified::assertion())
    }

    verifies_raw_keys!();
}

impl ClientCertVerifier for Accepts {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_key(end_entity).map(|()| ClientCertVerified::assertion())
    }

    verifies_raw_keys!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn each_node_has_the_key_that_the_other_one_expects() {
        let first = Identity::derive(KEY, "lb-a", "lb-b").unwrap();
        let second = Identity::derive(KEY, "lb-b", "lb-a").unwrap();
        assert_eq!(first.own.cert[0].as_ref(), second.peer.key.as_ref().as_ref());
        assert_eq!(second.own.cert[0].as_ref(), first.peer.key.as_ref().as_ref());
        assert_ne!(first.own.cert, second.own.cert);
        let other = Identity::derive(b"another key of the same length!!", "lb-a", "lb-b").unwrap();
        assert_ne!(first.own.cert, other.own.cert);
    }

    #[test]
    fn the_key_is_hkdf_of_the_pair_key_and_the_name() {
        // Worked out with the Python package cryptography: HKDF(SHA256, 32, salt=b"baton pair key",
        // info=b"baton sync identity v1lb-a").derive(KEY), then Ed25519PrivateKey.from_private_bytes().public_key() as DER.
        let identity = Identity::derive(KEY, "lb-a", "lb-b").unwrap();
        let hex: String = identity.own.cert[0].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "302a300506032b65700321007631ba475ee79f020fb28726e9a51ac02b893e07ce9aacc2854e9ffb4030b70c");
    }

    /// Both ends of a handshake, as far as each got.
    async fn shake(server: &Identity, client: &Identity) -> (Result<Vec<u8>, String>, Result<(), String>) {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let accepted = async {
            let mut stream = server.acceptor().unwrap().accept(near).await.map_err(|error| error.to_string())?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN));
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.map_err(|error| error.to_string())?;
            Ok(read)
        };
        let connected = async {
            let name = Identity::server_name("192.0.2.11".parse().unwrap());
            let mut stream = client.connector().unwrap().connect(name, far).await.map_err(|error| error.to_string())?;
            stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
            stream.shutdown().await.map_err(|error| error.to_string())
        };
        tokio::join!(accepted, connected)
    }

    #[tokio::test]
    async fn two_nodes_of_a_pair_let_each_other_in() {
        let first = Identity::derive(KEY, "lb-a", "lb-b").unwrap();
        let second = Identity::derive(KEY, "lb-b", "lb-a").unwrap();
        let (read, written) = shake(&first, &second).await;
        assert_eq!(read, Ok(b"hello".to_vec()));
        assert_eq!(written, Ok(()));
    }

    #[tokio::test]
    async fn the_listener_refuses_another_key_and_so_does_the_connector() {
        let first = Identity::derive(KEY, "lb-a", "lb-b").unwrap();
        let stranger = Identity::derive(b"another key of the same length!!", "lb-b", "lb-a").unwrap();
        let (read, written) = shake(&first, &stranger).await;
        assert_eq!(written, Err("invalid peer certificate: ApplicationVerificationFailure".to_owned()));
        assert_eq!(read, Err("received fatal alert: AccessDenied".to_owned()));
        // One that looks the other way when it is shown the wrong key does not get in either.
        let blind = Identity { own: stranger.own, peer: Identity::derive(KEY, "lb-b", "lb-a").unwrap().peer };
        let (read, _) = shake(&first, &blind).await;
        assert_eq!(read, Err("invalid peer certificate: ApplicationVerificationFailure".to_owned()));
    }

    #[tokio::test]
    async fn a_node_does_not_let_itself_in() {
        let first = Identity::derive(KEY, "lb-a", "lb-b").unwrap();
        let (read, written) = shake(&first, &first).await;
        assert!(read.is_err() && written.is_err());
    }
}
