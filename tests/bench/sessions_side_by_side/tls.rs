//! Whether clients resume their TLS sessions on the node that took over.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton::lab::namespace::Namespace;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme, StreamOwned,
};

use crate::failover::end;
use crate::report::Round;
use crate::rival::TlsFiles;
use crate::stage::{Running, Stage, System};
use crate::{TLS, Wishes};

/// Time for a connection and for what is said over it.
const TIMEOUT: Duration = Duration::from_secs(5);

const NAME: &str = "bench.example";

/// A certificate for both systems, and ticket keys for HAProxy.
pub fn prepare(directory: &Path) -> Result<TlsFiles> {
    let at = |name: &str| -> PathBuf { directory.join(name) };
    let files = TlsFiles {
        certificate: at("site.crt"),
        key: at("site.key"),
        both: at("site.pem"),
        ticket_keys: at("ticket.keys"),
    };
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", &format!("/CN={NAME}"), "-addext", &format!("subjectAltName=DNS:{NAME}")])
        .arg("-keyout")
        .arg(&files.key)
        .arg("-out")
        .arg(&files.certificate)
        .output()
        .context("needs the program openssl: install the package openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(&files.both, fs::read_to_string(&files.certificate)? + &fs::read_to_string(&files.key)?)?;
    let mut keys = String::new();
    for _ in 0..3 {
        let output = Command::new("openssl").args(["rand", "-base64", "48"]).output()?;
        ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        keys += &format!("{}\n", String::from_utf8(output.stdout)?.trim());
    }
    fs::write(&files.ticket_keys, keys)?;
    Ok(files)
}

/// Makes sessions on the active node, kills it, and counts those that are resumed on the other one.
pub fn resumption(stage: &mut Stage, system: System, with_ticket_keys: bool, wishes: &Wishes) -> Result<Round> {
    let mut running = stage.start(system, with_ticket_keys)?;
    let played = play(stage, &mut running, wishes);
    let (before, after) = end(stage, running, played)?;
    let variant = if with_ticket_keys { "HAProxy with copied ticket keys" } else { "as it comes" };
    Ok(Round::new("tls", variant, system)
        .with("clients", f64::from(wishes.tls_clients))
        .with("resumed_on_same_node_percent", before)
        .with("resumed_after_kill_percent", after))
}

fn play(stage: &mut Stage, running: &mut Running, wishes: &Wishes) -> Result<(f64, f64)> {
    let (active, standby) = stage.active_and_standby()?;
    let clients: Vec<Arc<ClientConfig>> = (0..wishes.tls_clients).map(|_| client()).collect::<Result<_>>()?;
    let resumed = |namespace: &Namespace| -> Result<f64> {
        let mut resumed = 0;
        for client in &clients {
            resumed += u32::from(namespace.run(|| handshake(client))??);
        }
        Ok(f64::from(resumed) / f64::from(wishes.tls_clients) * 100.0)
    };
    let first = resumed(stage.client()?)?;
    ensure!(first == 0.0, "a first handshake was a resumption");
    let before = resumed(stage.client()?)?;
    stage.kill(running, active)?;
    stage.wait_until_active(standby)?;
    let after = resumed(stage.client()?)?;
    Ok((before, after))
}

/// A client with a memory for sessions of its own.
fn client() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Asks once on a connection of its own, and says whether a session was resumed.
fn handshake(client: &Arc<ClientConfig>) -> Result<bool> {
    let socket = TcpStream::connect_timeout(&TLS, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let connection = ClientConnection::new(Arc::clone(client), ServerName::try_from(NAME)?)?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // Tickets come after the handshake. An end without a farewell is none of our concern.
    let _ended = stream.read_to_end(&mut answer);
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "no good answer: {}", String::from_utf8_lossy(&answer));
    Ok(stream.conn.handshake_kind() == Some(HandshakeKind::Resumed))
}

/// Takes any certificate: it is the handshake that counts.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
