//! Reads what `[[listener]]` says of TLS: `tls`, `hsts` and `redirect_to_https`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup};

use super::blocks::file;
use super::model::{Certificate, ClientAuth, ClientAuthMode, Hsts, RedirectToHttps, Tls, TlsVersion};
use super::reader::{Table, Value};
use super::report::{Located, Mistakes, Place};

const CERTIFICATES_MAX: usize = 256;

/// What a listener speaks by name (IANA), the suites of TLS 1.3 first.
const CIPHER_SUITES: [(&str, CipherSuite); 9] = [
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];
/// How many of them are of TLS 1.3.
const OF_TLS_13: usize = 3;

/// The default. Clients that know X25519MLKEM768 prefer it: what is recorded today is of no use to the quantum computer of
/// tomorrow.
const KEY_EXCHANGES: [(&str, NamedGroup); 4] = [
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
    ("X25519", NamedGroup::X25519),
    ("secp256r1", NamedGroup::secp256r1),
    ("secp384r1", NamedGroup::secp384r1),
];

const HSTS_MAX_AGE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// `tls` of a listener.
pub(super) struct TlsBlock {
    pub(super) certificates: Vec<CertificateBlock>,
    pub(super) directory: Option<Located<PathBuf>>,
    min_version: TlsVersion,
    cipher_suites: Vec<CipherSuite>,
    key_exchange: Vec<NamedGroup>,
    lists_key_exchange: bool,
    /// `None` inside where it could not be read.
    pub(super) client_auth: Option<Option<ClientAuthBlock>>,
}

/// An entry of `tls.certificates`.
pub(super) struct CertificateBlock {
    pub(super) cert: Option<Located<PathBuf>>,
    pub(super) key: Option<Located<PathBuf>>,
}

/// `tls.client_auth`
pub(super) struct ClientAuthBlock {
    mode: Option<ClientAuthMode>,
    pub(super) ca_file: Option<Located<PathBuf>>,
    pub(super) crl_file: Option<Located<PathBuf>>,
}

impl TlsBlock {
    /// `None` where something is missing, which is reported then.
    pub(super) fn resolve(self) -> Option<Tls> {
        let certificate =
            |block: CertificateBlock| Some(Certificate { cert: block.cert?.value, key: block.key?.value });
        Some(Tls {
            certificates: self.certificates.into_iter().map(certificate).collect::<Option<_>>()?,
            certificate_dir: self.directory.map(|found| found.value),
            min_version: self.min_version,
            cipher_suites: self.cipher_suites,
            key_exchange_first: self.key_exchange.first().copied().filter(|_| self.lists_key_exchange),
            key_exchange: self.key_exchange,
            client_auth: match self.client_auth {
                None => None,
                Some(block) => Some(block?.resolve()?),
            },
        })
    }
}

impl ClientAuthBlock {
    fn resolve(self) -> Option<ClientAuth> {
        let (ca_file, crl_file) = (self.ca_file?.value, self.crl_file.map(|found| found.value));
        Some(ClientAuth { mode: self.mode?, ca_file, crl_file })
    }
}

/// Reads `tls`.
pub(super) fn tls(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> TlsBlock {
    let certificate_dir = table.optional("certificate_dir");
    let list = match &certificate_dir {
        Some(_) => table.optional("certificates"),
        None => table.required(
            "certificates",
            "list at least one: certificates = [{ cert = \"site.crt\", key = \"site.key\" }]",
        ),
    };
    let list = list.map(|value| value.blocks(CERTIFICATES_MAX)).unwrap_or_default();
    let min_version = table
        .optional("min_version")
        .and_then(|value| value.choice(&[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)], &[]))
        .map_or(TlsVersion::V12, |found| found.value);
    let suites = table.optional("cipher_suites");
    let place_of_suites = suites.as_ref().map(|value| value.place().clone());
    let cipher_suites = chosen(suites, &CIPHER_SUITES);
    if let Some(place) = place_of_suites {
        check_suites(&cipher_suites, min_version, &place, mistakes);
    }
    let groups = table.optional("key_exchange");
    let lists_key_exchange = groups.is_some();
    let block = TlsBlock {
        certificates: list.into_iter().map(|table| certificate(table, directory)).collect(),
        directory: certificate_dir.and_then(|value| file(value, directory)),
        min_version,
        cipher_suites,
        key_exchange: chosen(groups, &KEY_EXCHANGES),
        lists_key_exchange,
        client_auth: table
            .optional("client_auth")
            .map(|value| value.block().map(|table| client_auth(table, directory))),
    };
    table.finish();
    block
}

/// What a list says, or all there is.
fn chosen<T: Copy>(value: Option<Value<'_>>, known: &[(&str, T)]) -> Vec<T> {
    let all = || known.iter().map(|(_, value)| *value).collect();
    let Some(value) = value else { return all() };
    let values = value.list(known.len()).into_iter();
    values.filter_map(|value| value.choice(known, &[])).map(|found| found.value).collect()
}

/// Each version that is spoken needs a suite, or no client of it could connect.
fn check_suites(suites: &[CipherSuite], min_version: TlsVersion, place: &Place, mistakes: &Mistakes<'_>) {
    let of_tls_13 = |suite: &CipherSuite| CIPHER_SUITES.iter().take(OF_TLS_13).any(|(_, known)| known == suite);
    let has_none = !suites.is_empty() && !suites.iter().any(of_tls_13);
    if has_none && min_version == TlsVersion::V13 {
        mistakes.block(
            place,
            "has no suite of TLS 1.3, which min_version asks for",
            "add \"TLS_AES_256_GCM_SHA384\" and \"TLS_AES_128_GCM_SHA256\"",
        );
    }
}

pub(super) fn certificate(mut table: Table<'_>, directory: &Path) -> CertificateBlock {
    let cert = table.required("cert", "name the PEM file of the certificate chain, leaf first");
    let key = table.required("key", "name the PEM file of the certificate's private key");
    let block = CertificateBlock {
        cert: cert.and_then(|value| file(value, directory)),
        key: key.and_then(|value| file(value, directory)),
    };
    table.finish();
    block
}

fn client_auth(mut table: Table<'_>, directory: &Path) -> ClientAuthBlock {
    let modes = [("require", ClientAuthMode::Require), ("optional", ClientAuthMode::Optional)];
    let block = ClientAuthBlock {
        mode: table
            .required("mode", "write mode = \"require\", or \"optional\" to serve clients without a certificate too")
            .and_then(|value| value.choice(&modes, &[]))
            .map(|found| found.value),
        ca_file: table
            .required("ca_file", "name the PEM file of the authorities that vouch for clients")
            .and_then(|value| file(value, directory)),
        crl_file: table.optional("crl_file").and_then(|value| file(value, directory)),
    };
    table.finish();
    block
}

/// Reads `hsts`.
pub(super) fn hsts(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> Hsts {
    let place = table.place().clone();
    let max_age = table.duration("max_age", Duration::ZERO..=HSTS_MAX_AGE_MAX, YEAR);
    let hsts = Hsts {
        max_age: Duration::from_secs(max_age.as_secs()),
        include_subdomains: table.boolean("include_subdomains", false),
        preload: table.boolean("preload", false),
    };
    if hsts.preload && (!hsts.include_subdomains || hsts.max_age < YEAR) {
        mistakes.block(
            &place,
            "preload needs include_subdomains = true and a max_age of a year at least",
            "write max_age = \"8760h\" and include_subdomains = true, or leave preload out (https://hstspreload.org)",
        );
    }
    table.finish();
    hsts
}

/// Reads `redirect_to_https`: `true`, or a table that says how.
pub(super) fn redirect_to_https(value: Value<'_>) -> Option<RedirectToHttps> {
    const PERMANENT: RedirectToHttps = RedirectToHttps { status: 308, port: 443 };
    if !value.is_table() {
        return value.boolean()?.then_some(PERMANENT);
    }
    let mut table = value.block()?;
    let status = table.optional("status").and_then(|value| value.choice(&[("301", 301), ("308", 308)], &[]));
    let redirect = RedirectToHttps {
        status: status.map_or(PERMANENT.status, |found| found.value),
        port: u16::try_from(table.integer("port", 1..=65_535, PERMANENT.port.into())).unwrap_or(PERMANENT.port),
    };
    table.finish();
    Some(redirect)
}
