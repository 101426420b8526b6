//! How the servers of a pool are checked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ServerTls;

/// Active checks of a pool's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What a check does.
    pub check: Check,
    /// Where it goes, and how.
    pub way: CheckWay,
    /// Time between two checks of a server, 100 ms to 1 h. Default 2 s.
    pub interval: Duration,
    /// The same while a server is down or on its way up or down, 100 ms to `interval`. Default: `interval`.
    pub interval_when_down: Duration,
    /// Time a check may take, 10 ms to the interval. Default 1 s, or the interval where that is shorter.
    pub timeout: Duration,
    /// Failures in a row that take a server down, 1 to 100. Default 3.
    pub fall: u32,
    /// Successes in a row that bring it back, 1 to 100. Default 2.
    pub rise: u32,
    /// Whether a server counts as up until its first check.
    pub starts_up: bool,
}

impl Health {
    /// TLS that checks alone speak.
    pub fn own_tls(&self) -> Option<&ServerTls> {
        match &self.way.tls {
            CheckTls::Own(tls) => Some(tls),
            CheckTls::AsPool | CheckTls::Off => None,
        }
    }
}

/// Where the checks of a pool go, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckWay {
    /// In place of the server's address.
    pub address: Option<IpAddr>,
    /// In place of the server's port.
    pub port: Option<u16>,
    /// Whether they speak TLS.
    pub tls: CheckTls,
    /// Whether they speak HTTP/2; as the pool does when `None`.
    pub http2: Option<bool>,
    /// Where the password is for what asks for one.
    pub password_file: Option<PathBuf>,
}

/// Whether checks speak TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CheckTls {
    /// As the pool does.
    #[default]
    AsPool,
    /// They do not.
    Off,
    /// They do, in their own way.
    Own(ServerTls),
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A request of HTTP.
    Http(HttpCheck),
    /// A TCP connect, and perhaps a few bytes.
    Tcp {
        /// What is sent; nothing when empty.
        send: Vec<u8>,
        /// What has to come.
        expect: Option<Expected>,
    },
    /// A handshake of TLS.
    Tls {
        /// How long the certificate has to be good for.
        expires_within: Option<Duration>,
        /// Whether a server whose certificate is not is down, or only spoken of.
        fails: bool,
    },
    /// A call of grpc.health.v1.Health/Check.
    Grpc {
        /// The service that is asked for; the whole server when empty.
        service: String,
        /// The authority that is asked for; the server's address when `None`.
        host: Option<String>,
    },
    /// A question to a name server.
    Dns(DnsCheck),
    /// A datagram.
    Udp {
        /// What is sent, 1 to 1024 bytes.
        send: Vec<u8>,
        /// What has to come. Without it, a server is up unless its port is unreachable.
        expect: Option<Expected>,
    },
    /// A login to PostgreSQL and a question of its role.
    Postgres {
        /// The user.
        user: String,
        /// The database.
        database: String,
        /// What the server has to be.
        role: Role,
    },
    /// A login to MySQL or MariaDB, or its greeting alone.
    Mysql {
        /// The user; none logs in when `None`.
        user: Option<String>,
        /// What the server has to be.
        role: Role,
    },
    /// A PING of Redis or Valkey.
    Redis {
        /// The user of its ACL.
        user: Option<String>,
        /// What the server has to be.
        role: Role,
    },
    /// The greeting of a mail server.
    Smtp,
    /// A program that the guard runs: its absolute path and its arguments, 1 to 64 words.
    Command(Vec<String>),
}

/// A request of HTTP and what has to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The method, in capitals. Default GET.
    pub method: String,
    /// Default `/`. Printable ASCII, at most 1024 characters, with a query or without.
    pub path: String,
    /// The Host header, in lower case, with a port or without; the server's address when `None`.
    pub host: Option<String>,
    /// Further headers, at most 32.
    pub headers: Vec<(String, String)>,
    /// Statuses that are a success, from and to. Default 200 to 399.
    pub statuses: Vec<(u16, u16)>,
    /// What the body has to have in it.
    pub body: Option<Expected>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            statuses: vec![(200, 399)],
            body: None,
        }
    }
}

/// What has to be in what comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Something that this regular expression matches.
    Regex(String),
}

/// What a database has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Anything.
    Any,
    /// The one that takes writes.
    Primary,
    /// One that follows it.
    Replica,
}

/// A question to a name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsCheck {
    /// The name that is asked for.
    pub name: String,
    /// The type of record that is asked for: its number in RFC 1035 and its successors.
    pub record: u16,
    /// Whether over TCP; over UDP otherwise.
    pub over_tcp: bool,
    /// The code that has to come back: 0 is NOERROR, 3 NXDOMAIN.
    pub rcode: u8,
    /// An address that has to be in the answer.
    pub answer: Option<IpAddr>,
}

/// A port at which a server says by itself how it is, in the words of HAProxy's agent check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The port, at the server's address.
    pub port: u16,
    /// In place of the server's address.
    pub address: Option<IpAddr>,
    /// What is sent first; nothing when empty.
    pub send: Vec<u8>,
    /// Time between two questions, 100 ms to 1 h. Default 2 s.
    pub interval: Duration,
    /// Time an answer may take, 10 ms to the interval. Default 1 s, or the interval where that is shorter.
    pub timeout: Duration,
    /// Whether what the agent said last is forgotten once it has not answered three times in a row; kept otherwise.
    pub forgets: bool,
}
