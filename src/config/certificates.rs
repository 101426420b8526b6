//! What the files of TLS hold: certificates, keys, authorities, revocation lists. PEM in, something usable out, or why not.
//!
//! `baton check` and the guard's start look here whether files are good, and the worker makes what it serves with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OidRegistry;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Name;

use super::model::{Certificate, ClientAuthMode};
use super::report::Wrong;

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Unusable {
    /// What is wrong.
    pub rule: String,
    /// What an operator does about it.
    pub remedy: String,
}

impl Unusable {
    fn new(rule: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { rule: rule.into(), remedy: remedy.into() }
    }
}

impl From<Unusable> for Wrong {
    fn from(unusable: Unusable) -> Self {
        Self::new(unusable.rule, unusable.remedy)
    }
}

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whose it is, as RFC 4514 writes it, in ASCII.
    pub subject: String,
    /// The host names that it is for, in lower case; wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// Seconds since 1970 until which it is good.
    pub not_after_s: i64,
    /// SHA-256 of it in hex.
    pub fingerprint: String,
}

/// The certificates of a chain.
///
/// # Errors
/// When there is none, or what there is is no PEM. `path` is what messages call the file, here and below.
pub fn chain(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let unusable = |error| not_pem(path, &error, "a certificate");
    let chain = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    if chain.is_empty() {
        return Err(unusable(pem::Error::NoItemsFound));
    }
    Ok(chain)
}

/// A private key.
///
/// # Errors
/// When there is none without a passphrase, or what there is is no PEM.
pub fn private_key(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| not_pem(path, &error, "a private key without a passphrase"))
}

/// A chain and its key together. A key that belongs to another certificate would fail every handshake.
///
/// # Errors
/// When they do not belong together, or cannot be used at all.
pub fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<CertifiedKey, Unusable> {
    let key = any_supported_type(key)
        .map_err(|error| Unusable::new(format!("cannot be used: {error}"), "use an RSA, ECDSA or Ed25519 key"))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown: a key type that cannot be compared is not a proven mistake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(Unusable::new(
            "does not belong to the first certificate of the chain",
            "name the key of that certificate, and put the leaf first in the chain",
        )),
        Err(error) => Err(Unusable::new(
            format!("the certificate cannot be used: {error}"),
            "put the leaf first in the chain, in PEM",
        )),
    }
}

/// What a certificate says of itself.
///
/// # Errors
/// When it is no X.509 certificate.
pub fn facts(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, Unusable> {
    let unusable = |error: &dyn std::fmt::Display| {
        Unusable::new(format!("the certificate cannot be read: {error}"), "name an X.509 certificate in PEM")
    };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unusable(&error))?;
    Ok(CertificateFacts {
        subject: distinguished_name(parsed.subject()),
        names: host_names(&parsed),
        not_after_s: parsed.validity().not_after.timestamp(),
        fingerprint: fingerprint(certificate),
    })
}

/// The names of the extension that is for them, or the common name where there is no such extension.
fn host_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        let names = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        });
        return names.collect();
    }
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.map(str::to_ascii_lowercase).collect()
}

/// SHA-256 in lower-case hex.
fn fingerprint(bytes: &[u8]) -> String {
    super::checksum(bytes)
}

/// A name as RFC 4514 writes it: the most specific part first, in printable ASCII alone, as it goes into headers and logs.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let registry = OidRegistry::default().with_x509();
    let mut parts: Vec<String> = Vec::new();
    for part in name.iter_rdn() {
        let attributes = part.iter().map(|attribute| {
            let oid = attribute.attr_type();
            let key = match registry.get(oid).map(|entry| entry.sn()) {
                Some("commonName") => "CN".to_owned(),
                Some("countryName") => "C".to_owned(),
                Some("localityName") => "L".to_owned(),
                Some("stateOrProvinceName") => "ST".to_owned(),
                Some("organizationName") => "O".to_owned(),
                Some("organizationalUnit" | "organizationalUnitName") => "OU".to_owned(),
                _ if oid.to_id_string() == "0.9.2342.19200300.100.1.25" => "DC".to_owned(),
                _ if oid.to_id_string() == "0.9.2342.19200300.100.1.1" => "UID".to_owned(),
                _ => oid.to_id_string(),
            };
            match attribute.as_str() {
                Ok(value) => format!("{key}={}", escaped(value)),
                Err(_) => format!("{key}=#{}", hex(attribute.as_slice())),
            }
        });
        parts.push(attributes.collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// RFC 4514 section 2.4, and what is not printable ASCII byte by byte.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'#' | b' ' if index == 0 => text.extend(['\\', char::from(byte)]),
            b' ' if index == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
    text
}

/// What verifies the certificates of clients. An expired revocation list vouches for nobody, as with OpenSSL.
///
/// # Errors
/// When a file holds nothing that can be used for it; `true` with it when that is `revoked`.
pub fn client_verifier(
    mode: ClientAuthMode,
    (authorities, ca_path): (&[u8], &Path),
    revoked: Option<(&[u8], &Path)>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, (Unusable, bool)> {
    let mut roots = RootCertStore::empty();
    for authority in chain(authorities, ca_path).map_err(|unusable| (unusable, false))? {
        let rule = |error| format!("{} holds a certificate that is of no authority: {error}", ca_path.display());
        roots
            .add(authority)
            .map_err(|error| (Unusable::new(rule(error), "leave it out, or name a file of authorities"), false))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some((text, path)) = revoked {
        builder = builder.with_crls(revocation_lists(text, path).map_err(|unusable| (unusable, true))?);
        builder = builder.enforce_revocation_expiration();
    }
    if mode == ClientAuthMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| {
        let what = revoked.map_or(ca_path, |(_, path)| path).display();
        let remedy = "name PEM files of authorities, and of their revocation lists";
        (Unusable::new(format!("{what} cannot be used: {error}"), remedy), revoked.is_some())
    })
}

fn revocation_lists(text: &[u8], path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Unusable> {
    let unusable = |error| not_pem(path, &error, "a revocation list");
    let lists = CertificateRevocationListDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    if lists.is_empty() {
        return Err(unusable(pem::Error::NoItemsFound));
    }
    Ok(lists)
}

/// When the first of some revocation lists expires, in seconds since 1970; `None` when none of them ever does.
pub fn revocation_expiry_s(text: &[u8]) -> Option<i64> {
    let lists = CertificateRevocationListDer::pem_slice_iter(text).filter_map(Result::ok);
    let next_updates = lists.filter_map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(&list).ok()?;
        parsed.next_update().map(|time| time.timestamp())
    });
    next_updates.min()
}

/// The certificates of a directory by the names of its files: `NAME.crt` and `NAME.key`, or `NAME.pem` with both in it, or
/// with the chain where there is a `NAME.key` too. In the order of their names. Also those that have no key.
pub fn pairs<'a>(files: impl Iterator<Item = &'a Path>) -> (Vec<Certificate>, Vec<Unusable>) {
    let mut by_stem: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
    for path in files {
        if let Some(extension) = path.extension().and_then(|extension| extension.to_str()) {
            by_stem.entry(path.with_extension("")).or_default().push(extension);
        }
    }
    let (mut pairs, mut lonely) = (Vec::new(), Vec::new());
    for (stem, extensions) in &by_stem {
        let (has_key, at) = (extensions.contains(&"key"), |extension| with_extension(stem, extension));
        if extensions.contains(&"crt") && has_key {
            pairs.push(Certificate { cert: at("crt"), key: at("key") });
        } else if extensions.contains(&"crt") {
            let rule = format!("{} has no key beside it", at("crt").display());
            lonely.push(Unusable::new(rule, format!("put its key into {}", at("key").display())));
        }
        if extensions.contains(&"pem") {
            pairs.push(Certificate { cert: at("pem"), key: at(if has_key { "key" } else { "pem" }) });
        }
    }
    (pairs, lonely)
}

/// Not `Path::with_extension`, to which `a.example` ends in an extension.
fn with_extension(stem: &Path, extension: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn not_pem(path: &Path, error: &pem::Error, wanted: &str) -> Unusable {
    let path = path.display();
    match error {
        pem::Error::NoItemsFound => Unusable::new(
            format!("{path} holds no {}", wanted.trim_start_matches("a ")),
            format!("name a PEM file with {wanted} in it"),
        ),
        error => Unusable::new(format!("{path} is not PEM: {error}"), format!("name a PEM file with {wanted} in it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_pairs_and_files_with_both() {
        let files =
            ["/d/a.example.crt", "/d/a.example.key", "/d/b.pem", "/d/c.key", "/d/c.pem", "/d/d.crt", "/d/e.key"];
        let (found, lonely) = pairs(files.iter().map(Path::new));
        let found: Vec<_> =
            found.iter().map(|pair| (pair.cert.to_str().unwrap(), pair.key.to_str().unwrap())).collect();
        let expected = [("/d/a.example.crt", "/d/a.example.key"), ("/d/b.pem", "/d/b.pem"), ("/d/c.pem", "/d/c.key")];
        assert_eq!(found, expected);
        assert_eq!(
            lonely.iter().map(|found| found.rule.as_str()).collect::<Vec<_>>(),
            ["/d/d.crt has no key beside it"]
        );
    }

    #[test]
    fn values_of_names_are_printable_ascii() {
        assert_eq!(escaped("plain value"), "plain value");
        assert_eq!(escaped(" a,b+c\"\\<>;"), "\\ a\\,b\\+c\\\"\\\\\\<\\>\\;");
        assert_eq!(escaped("#x "), "\\#x\\ ");
        assert_eq!(escaped("M\u{fc}ller\r\n"), "M\\C3\\BCller\\0D\\0A");
    }
}
