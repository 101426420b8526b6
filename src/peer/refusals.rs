//! What was refused on the sync link, and why: counted, logged, and told in the status.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Time between two log lines for one reason.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why a connection was refused or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It came from another address than the peer's.
    Stranger,
    /// So many others came that it was closed before it had shown who it is.
    CrowdedOut,
    /// It did not show in time who it is.
    HandshakeTimeout,
    /// What it said is no TLS.
    NotTls,
    /// It speaks TLS, but not as the sync link has it.
    Tls,
    /// It showed another key than the peer's.
    WrongKey,
    /// It did not accept the key of this node.
    OurKeyRefused,
    /// It closed the connection before it had shown who it is.
    Closed,
    /// It is the peer, and does not read, or not nearly as fast as it has to.
    TooSlow,
    /// It is the peer, and breaks the protocol: how, as the protocol itself calls it.
    Protocol(&'static str),
}

impl Reason {
    /// Its name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::CrowdedOut => "crowded_out",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NotTls => "not_tls",
            Self::Tls => "tls",
            Self::WrongKey => "wrong_key",
            Self::OurKeyRefused => "our_key_refused",
            Self::Closed => "closed",
            Self::TooSlow => "too_slow",
            Self::Protocol(how) => how,
        }
    }
}

/// A connection that was refused or cut off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The kind.
    pub reason: Reason,
    /// In words, with what an operator can do about it where that is known.
    pub detail: String,
}

impl Refusal {
    /// One with words for it.
    pub fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        Self { reason, detail: detail.to_string() }
    }

    /// Of a handshake that failed.
    pub fn of_handshake(error: &io::Error) -> Self {
        let fault = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let Some(fault) = fault else {
            return Self::new(Reason::Closed, format!("closed during the handshake: {error}"));
        };
        match fault {
            rustls::Error::InvalidCertificate(_) => Self::new(
                Reason::WrongKey,
                "it does not have the key of the peer: are the pair keys and the node names the same on both nodes?",
            ),
            rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied) => Self::new(
                Reason::OurKeyRefused,
                "it refuses this node's key: are the pair keys and the node names the same on both nodes?",
            ),
            rustls::Error::InvalidMessage(_) => Self::new(Reason::NotTls, format!("it does not speak TLS: {fault}")),
            _ => Self::new(Reason::Tls, format!("the handshake failed: {fault}")),
        }
    }

    /// Of a connection that broke after the handshake. `None` for one that only ended, as any does some time.
    pub fn of_stream(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let refusal = Self::of_handshake(error);
        // After the handshake the peer is known, whatever it sends.
        let reason = if refusal.reason == Reason::NotTls { Reason::Tls } else { refusal.reason };
        Some(Self { reason, ..refusal })
    }
}

/// All refusals since the start.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: BTreeMap<Reason, Count>,
    /// Why the peer could not be reached, while it cannot.
    unreachable: Option<String>,
    /// What is waited for, until it has come.
    waiting: Option<String>,
    last: Option<String>,
    is_last: bool,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    unlogged: u64,
    logged_at: Option<Instant>,
}

impl Refusals {
    /// Counts one, and logs it unless one of its kind was logged a moment ago.
    pub fn note(&mut self, remote: Option<SocketAddr>, refusal: &Refusal) {
        let Refusal { reason, detail } = refusal;
        let remote = remote.map_or_else(|| "unknown".to_owned(), |remote| remote.to_string());
        let count = self.counts.entry(*reason).or_default();
        count.total += 1;
        count.unlogged += 1;
        if count.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            count.logged_at = Some(Instant::now());
            let count = std::mem::take(&mut count.unlogged);
            warn!(remote, reason = reason.as_str(), detail, count, "refused on the sync link");
        }
        (self.last, self.is_last) = (Some(printable(&format!("{remote}: {detail}"))), true);
    }

    /// Notes that the peer cannot be reached. Logged once for each cause: it is tried again and again.
    pub fn unreachable(&mut self, detail: String) {
        if self.unreachable.as_ref() != Some(&detail) {
            info!(detail, "the peer cannot be reached on the sync link");
            (self.last, self.is_last) = (Some(detail.clone()), false);
            self.unreachable = Some(detail);
        }
    }

    /// Notes what is waited for, while nothing else has happened.
    pub fn waiting(&mut self, detail: String) {
        self.waiting = Some(detail);
    }

    /// Notes why a connection ended that broke no rule.
    pub fn ended(&mut self, reason: String) {
        (self.last, self.is_last) = (Some(printable(&reason)), false);
    }

    /// Notes that it can be again.
    pub fn reached(&mut self) {
        (self.unreachable, self.waiting) = (None, None);
    }

    /// How many, by the name of the reason; reasons never seen are left out.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.iter().map(|(reason, count)| (reason.as_str().to_owned(), count.total)).collect()
    }

    /// Whether a refusal is what went wrong last.
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// What went wrong last, in words: a refusal, the end of a connection, why the peer could not be reached, or that it has
    /// not come.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref().or(self.waiting.as_deref())
    }
}

/// What a terminal may be shown: some of it are the peer's own words.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_and_the_last_one_is_told() {
        let mut refusals = Refusals::default();
        assert!(refusals.counts().is_empty());
        assert_eq!(refusals.last(), None);
        let remote = Some("192.0.2.7:4711".parse().unwrap());
        refusals.note(remote, &Refusal::new(Reason::WrongKey, "another key"));
        refusals.note(remote, &Refusal::new(Reason::WrongKey, "another key"));
        refusals.note(None, &Refusal::new(Reason::NotTls, "no TLS"));
        let expected = [("not_tls".to_owned(), 1), ("wrong_key".to_owned(), 2)];
        assert_eq!(refusals.counts(), BTreeMap::from(expected));
        assert_eq!(refusals.last(), Some("unknown: no TLS"));
        refusals.ended("it said \x1b[2J\nnothing".to_owned());
        assert_eq!((refusals.last(), refusals.is_last()), (Some("it said [2Jnothing"), false));
    }

    #[test]
    fn what_is_waited_for_is_told_until_it_comes() {
        let mut refusals = Refusals::default();
        refusals.waiting("the peer".to_owned());
        assert_eq!((refusals.last(), refusals.is_last()), (Some("the peer"), false));
        refusals.reached();
        assert_eq!(refusals.last(), None);
    }

    #[test]
    fn failures_of_a_handshake_are_told_apart() {
        let of =
            |error: rustls::Error| Refusal::of_handshake(&io::Error::new(io::ErrorKind::InvalidData, error)).reason;
        let verification = rustls::CertificateError::ApplicationVerificationFailure;
        assert_eq!(of(rustls::Error::InvalidCertificate(verification)), Reason::WrongKey);
        assert_eq!(of(rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied)), Reason::OurKeyRefused);
        assert_eq!(of(rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)), Reason::Tls);
        assert_eq!(of(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), Reason::NotTls);
        assert_eq!(Refusal::of_handshake(&io::ErrorKind::UnexpectedEof.into()).reason, Reason::Closed);
        assert_eq!(Refusal::of_stream(&io::ErrorKind::ConnectionReset.into()), None);
    }
}
