//! TLS of listeners, and what sends clients to it.

use std::path::PathBuf;
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup};

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At most 256. There is one at least, or a directory.
    pub certificates: Vec<Certificate>,
    /// A directory with more of them: `NAME.crt` and `NAME.key`, or both in `NAME.pem`. At most 4096 files.
    pub certificate_dir: Option<PathBuf>,
    /// The oldest version that is spoken. Default 1.2.
    pub min_version: TlsVersion,
    /// The suites that are spoken, for all versions, the preferred one first. Never empty.
    pub cipher_suites: Vec<CipherSuite>,
    /// The groups of the key exchange: a client's first one is taken. Never empty.
    pub key_exchange: Vec<NamedGroup>,
    /// The group that is taken with every client of TLS 1.3 that offers it: the first one that the operator lists. One that
    /// has not begun with it is asked again, which takes a round trip.
    pub key_exchange_first: Option<NamedGroup>,
    /// Whether clients have certificates of their own.
    pub client_auth: Option<ClientAuth>,
}

/// A certificate chain and its key, both PEM files, or one with both in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether a client must have one.
    pub mode: ClientAuthMode,
    /// The authorities that vouch for clients, in PEM.
    pub ca_file: PathBuf,
    /// What these have revoked, in PEM: a list of each authority of a chain. Without it nothing counts as revoked.
    pub crl_file: Option<PathBuf>,
}

/// Whether a client must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// The handshake fails without one.
    Require,
    /// Servers are told whether there was one. A bad one fails the handshake all the same.
    Optional,
}

/// Where a listener sends clients that no route has something else for: to the same place over HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedirectToHttps {
    /// 301 or 308. Default 308, which keeps method and body.
    pub status: u16,
    /// The port of the HTTPS listener as clients see it, 1 to 65535. Default 443, which no address has to name.
    pub port: u16,
}

/// What tells browsers to come over HTTPS alone (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// How long they keep to it, whole seconds, 0 to 10 years; 0 has them forget it. Default one year.
    pub max_age: Duration,
    /// Whether it is for all hosts below this one too. Default false.
    pub include_subdomains: bool,
    /// Whether the makers of browsers may put it into their lists. Default false.
    pub preload: bool,
}
