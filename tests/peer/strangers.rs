//! Who is not the peer gets nothing, and learns nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use baton::peer::endpoint::HANDSHAKES_MAX;
use baton::peer::identity::Identity;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use tokio_rustls::TlsConnector;

use crate::rig::{KEY, Node, OTHER_KEY, PATIENCE, assert_in_service, loopback, pair};

/// Waits until the other side has closed.
fn wait_until_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    // Closed with something unread, which is as good.
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn plain_text_is_refused() {
    let (first, second) = pair();
    let mut stream = TcpStream::connect(first.at).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: baton\r\n\r\n").unwrap();
    wait_until_closed(&mut stream);
    let told = first.wait_until_refused("not_tls", 1);
    assert!(told.contains("127.0.0.1:") && told.contains("it does not speak TLS"), "{told}");
    assert_in_service(&first, &second, "after plain text");
}

#[test]
fn who_says_nothing_is_closed_after_two_seconds() {
    let (first, second) = pair();
    let mut stream = TcpStream::connect(first.at).unwrap();
    wait_until_closed(&mut stream);
    let told = first.wait_until_refused("handshake_timeout", 1);
    assert!(told.contains("it did not show within 2 s who it is"), "{told}");
    assert_in_service(&first, &second, "after silence");
}

#[test]
fn who_goes_away_is_counted() {
    let (first, second) = pair();
    drop(TcpStream::connect(first.at).unwrap());
    first.wait_until_refused("closed", 1);
    assert_in_service(&first, &second, "after a scan of the port");
}

#[test]
fn another_address_than_the_peers_is_closed_at_once() {
    let (first, second) = pair();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).unwrap();
    socket.connect(&first.at.into()).unwrap();
    wait_until_closed(&mut socket.into());
    assert!(first.wait_until_refused("stranger", 1).contains("127.0.0.2:"));
    assert_in_service(&first, &second, "after a stranger");
}

/// Silent ones cannot keep the peer out, however many there are.
#[test]
fn a_crowd_at_the_port_does_not_keep_the_peer_out() {
    let first = Node::first(KEY);
    let crowd: Vec<_> = (0..HANDSHAKES_MAX + 3).map(|_| TcpStream::connect(first.at).unwrap()).collect();
    first.wait_until_refused("crowded_out", 3);
    let second = Node::second(KEY, first.at);
    second.wait_until_synced();
    assert_in_service(&first, &second, "in a crowd");
    first.wait_until_refused("crowded_out", 4);
    drop(crowd);
}

/// A handshake of a stranger: why it failed, if it did.
fn shake(first: &Node, connector: TlsConnector) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(first.at).await?;
        let name = ServerName::IpAddress(loopback().into());
        let mut stream = connector.connect(name, stream).await?;
        // In TLS 1.3 a client has shown its key only after its own handshake is over.
        let mut answer = [0];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.map(|_| ())
    })
}

#[test]
fn tls_with_another_key_is_refused() {
    let (first, second) = pair();
    // Derived as the peer's, from another pair key.
    let stranger = Identity::derive(OTHER_KEY, "lb-b", "lb-a").unwrap();
    assert!(shake(&first, stranger.connector().unwrap()).is_err());
    first.wait_until_refused("our_key_refused", 1);
    assert_in_service(&first, &second, "after another key");
}

#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A client that trusts whatever it is shown, with its own key or none.
fn trusting(key: Option<[u8; 32]>, protocol: &[u8]) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting));
    let mut config = match key {
        None => builder.with_no_client_auth(),
        Some(seed) => {
            use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
            let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
            let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            let key = rustls::pki_types::PrivatePkcs8KeyDer::from(der.as_ref().to_vec());
            let key = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&key).unwrap();
            let public = rustls::pki_types::CertificateDer::from(key.public_key().unwrap().to_vec());
            let key = Arc::new(rustls::sign::CertifiedKey::new(vec![public], key));
            builder.with_client_cert_resolver(Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(key)))
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[test]
fn who_trusts_everybody_is_not_trusted_for_it() {
    let (first, second) = pair();
    assert!(shake(&first, trusting(Some([7; 32]), b"baton-sync")).is_err());
    let told = first.wait_until_refused("wrong_key", 1);
    assert!(told.contains("it does not have the key of the peer"), "{told}");
    assert!(shake(&first, trusting(None, b"baton-sync")).is_err());
    first.wait_until_refused("tls", 1);
    assert!(shake(&first, trusting(Some([7; 32]), b"h2")).is_err());
    first.wait_until_refused("tls", 2);
    assert_in_service(&first, &second, "after strange TLS");
}

/// All at once, for a while, with the peer at work.
#[test]
fn the_peer_is_served_while_strangers_come_and_go() {
    let (first, second) = pair();
    let (at, until) = (first.at, std::time::Instant::now() + Duration::from_secs(1));
    let crowd: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(move || {
                let mut held = std::collections::VecDeque::new();
                while std::time::Instant::now() < until {
                    let Ok(mut stream) = TcpStream::connect(at) else { continue };
                    let _closed = stream.write_all(b"\x16\x03\x01");
                    held.push_back(stream);
                    if held.len() > 8 {
                        held.pop_front();
                    }
                }
            })
        })
        .collect();
    let mut words = 0;
    while std::time::Instant::now() < until {
        words += 1;
        assert_in_service(&first, &second, &format!("word {words}"));
    }
    crowd.into_iter().for_each(|stranger| stranger.join().unwrap());
    assert!(words >= 20, "the peer was told {words} words in a second");
    assert_eq!(first.status().disconnects, 0);
    assert!(first.refused("crowded_out") > 0);
}
