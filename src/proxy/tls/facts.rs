//! What is known of a connection after its handshake.

use rustls::{CipherSuite, ProtocolVersion, ServerConnection};

use super::client::ClientCertificate;

/// What client and listener have agreed on, and who the client is.
#[derive(Debug)]
pub struct TlsFacts {
    version: Option<ProtocolVersion>,
    suite: Option<CipherSuite>,
    server_name: Option<Box<str>>,
    protocol: Option<Box<[u8]>>,
    is_resumed: bool,
    client: Option<Box<ClientCertificate>>,
}

impl TlsFacts {
    /// Those of a connection whose handshake is done.
    pub fn of(connection: &ServerConnection) -> Self {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        Self {
            version: connection.protocol_version(),
            suite: connection.negotiated_cipher_suite().map(|suite| suite.suite()),
            server_name: connection.server_name().map(Box::from),
            protocol: connection.alpn_protocol().map(Box::from),
            is_resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            client: certificate.map(|certificate| Box::new(ClientCertificate::of(certificate))),
        }
    }

    /// As OpenSSL and nginx call it: `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        match self.version {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        }
    }

    /// The suite by the name that IANA gives it, such as `TLS_AES_256_GCM_SHA384`.
    pub fn cipher(&self) -> &'static str {
        match self.suite {
            Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
            Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
            Some(other) => other.as_str().unwrap_or("unknown"),
            None => "unknown",
        }
    }

    /// The host that the client asked for in the handshake (RFC 6066 section 3), in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocol that was negotiated (RFC 7301), such as `h2`.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.protocol.as_deref()
    }

    /// Whether it goes on with a session that was made before.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The client's own certificate, verified. Only where the listener asks for one.
    pub fn client(&self) -> Option<&ClientCertificate> {
        self.client.as_deref()
    }
}
