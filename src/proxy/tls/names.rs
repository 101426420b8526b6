//! Which certificate a client gets: the one for the name that it asks for, exact before wildcard before the default one, and
//! of several for one name the first whose signatures the client knows, ECDSA before RSA, which costs ten times as much.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::config::certificates::CertificateFacts;

/// A certificate with its key, ready for use.
#[derive(Debug, Clone)]
pub struct Served {
    /// Without an OCSP response.
    pub key: Arc<CertifiedKey>,
    /// With one, and until when that is good, in seconds since 1970.
    pub stapled: Option<(Arc<CertifiedKey>, u64)>,
}

impl Served {
    /// With its response for as long as that is good: clients take an expired one for a sign of fraud.
    fn now(&self) -> Arc<CertifiedKey> {
        let is_good = |until_s: u64| UnixTime::now().as_secs() < until_s;
        let stapled = self.stapled.as_ref().filter(|(_, until_s)| is_good(*until_s));
        Arc::clone(stapled.map_or(&self.key, |(stapled, _)| stapled))
    }
}

/// Certificates by the names that they are for.
#[derive(Debug, Default)]
pub struct ByName {
    exact: HashMap<String, Vec<Served>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Served>>,
    /// For clients that ask for no name, or one that no certificate is for.
    default: Vec<Served>,
}

impl ByName {
    /// The first certificate is the default one, together with those of other algorithms for its first name.
    pub fn new<'f>(certificates: impl Iterator<Item = (Served, &'f CertificateFacts)>) -> Self {
        let mut by_name = Self::default();
        let mut default = None;
        for (served, facts) in certificates {
            for name in &facts.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_name.wildcard, parent),
                    None => (&mut by_name.exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_default().push(served.clone());
            }
            default.get_or_insert((served, facts.names.first()));
        }
        let in_order = |all: &mut Vec<Served>| all.sort_by_key(|served| is_costly(&served.key));
        by_name.exact.values_mut().for_each(in_order);
        by_name.wildcard.values_mut().for_each(in_order);
        if let Some((served, name)) = default {
            let named = name.and_then(|name| match name.strip_prefix("*.") {
                Some(parent) => by_name.wildcard.get(parent),
                None => by_name.exact.get(name),
            });
            by_name.default = named.cloned().unwrap_or_else(|| vec![served]);
        }
        by_name
    }

    /// Whether there is no certificate at all.
    pub fn is_empty(&self) -> bool {
        self.default.is_empty()
    }

    fn pick(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Served> {
        // rustls gives names in lower case, and without a dot at the end.
        let exact = name.and_then(|name| self.exact.get(name));
        let wildcard = || self.wildcard.get(name?.split_once('.')?.1);
        let named = exact.and_then(|all| usable(all, schemes)).or_else(|| usable(wildcard()?, schemes));
        named.or_else(|| usable(&self.default, schemes)).or_else(|| self.default.first())
    }
}

/// The first whose signatures the client knows.
fn usable<'a>(all: &'a [Served], schemes: &[SignatureScheme]) -> Option<&'a Served> {
    all.iter().find(|served| served.key.key.choose_scheme(schemes).is_some())
}

/// Whether signing with it costs much more than with others.
fn is_costly(key: &CertifiedKey) -> bool {
    key.key.algorithm() == SignatureAlgorithm::RSA
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pick(hello.server_name(), hello.signature_schemes()).map(Served::now)
    }
}
