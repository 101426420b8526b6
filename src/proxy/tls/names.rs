//! Which certificate a client gets: the one for the name that it asks for, exact before wildcard before the default one, and
//! of several for one name the first whose signatures the client knows, ECDSA before RSA, which costs ten times as much.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::config::certificates::CertificateFacts;

/// Certificates by the names that they are for.
#[derive(Debug, Default)]
pub struct ByName {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that ask for no name, or one that no certificate is for.
    default: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    /// The first certificate is the default one, together with those of other algorithms for its first name.
    pub fn new<'f>(certificates: impl Iterator<Item = (Arc<CertifiedKey>, &'f CertificateFacts)>) -> Self {
        let mut by_name = Self::default();
        let mut default = None;
        for (key, facts) in certificates {
            for name in &facts.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_name.wildcard, parent),
                    None => (&mut by_name.exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_default().push(Arc::clone(&key));
            }
            default.get_or_insert((key, facts.names.first()));
        }
        let in_order = |keys: &mut Vec<Arc<CertifiedKey>>| keys.sort_by_key(|key| is_costly(key));
        by_name.exact.values_mut().for_each(in_order);
        by_name.wildcard.values_mut().for_each(in_order);
        if let Some((key, name)) = default {
            let named = name.and_then(|name| match name.strip_prefix("*.") {
                Some(parent) => by_name.wildcard.get(parent),
                None => by_name.exact.get(name),
            });
            by_name.default = named.cloned().unwrap_or_else(|| vec![key]);
        }
        by_name
    }

    /// Whether there is no certificate at all.
    pub fn is_empty(&self) -> bool {
        self.default.is_empty()
    }

    fn pick(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // rustls gives names in lower case, and without a dot at the end.
        let exact = name.and_then(|name| self.exact.get(name));
        let wildcard = || self.wildcard.get(name?.split_once('.')?.1);
        let usable =
            |keys: &&Vec<Arc<CertifiedKey>>| keys.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned();
        let named = exact.as_ref().and_then(usable).or_else(|| wildcard().as_ref().and_then(usable));
        named.or_else(|| usable(&&self.default)).or_else(|| self.default.first().cloned())
    }
}

/// Whether signing with it costs much more than with others.
fn is_costly(key: &CertifiedKey) -> bool {
    key.key.algorithm() == SignatureAlgorithm::RSA
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pick(hello.server_name(), hello.signature_schemes())
    }
}
