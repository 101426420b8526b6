//! Rules of a listener's TLS: what the file may say, and what the files that it names have to hold.

use std::path::{Path, PathBuf};

use baton::config::{ClientAuthMode, Config, Tls, TlsVersion, parse};
use rustls::{CipherSuite, NamedGroup};

use super::Directory;
use super::machine::{self, OTHER_KEY, SITE_CERT, SITE_KEY, mistakes};
use super::rules::{TRAFFIC, check_one, refused};

/// A listener whose `tls` is on line 5.
fn tls(keys: &str) -> String {
    listener(&format!("tls = {{ {keys} }}"))
}

/// The same with a certificate.
fn with(keys: &str) -> String {
    tls(&format!("certificates = [{{ cert = \"a.crt\", key = \"a.key\" }}], {keys}"))
}

/// The same with `client_auth`.
fn auth(keys: &str) -> String {
    with(&format!("client_auth = {{ {keys} }}"))
}

/// A listener whose keys begin on line 5.
fn listener(keys: &str) -> String {
    format!("[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\npool = \"app\"\n{keys}\n{TRAFFIC}")
}

refused! {
    without_certificates: [tls("")], 5, "listener[x].tls.certificates", "missing";
    no_certificate: [tls("certificates = []")], 5, "listener[x].tls.certificates", "must have 1 to 256";
    too_many_certificates: [tls(&format!("certificates = [{}]", ["{ cert = \"a\", key = \"b\" }"; 257].join(", ")))],
        5, "listener[x].tls.certificates", "must have 1 to 256 entries, has 257";
    certificates_that_are_no_list: [tls("certificates = { cert = \"a\", key = \"b\" }")], 5, "listener[x].tls.certificates", "must be a list of tables";
    certificate_that_is_no_table: [tls("certificates = [\"a.pem\"]")], 5, "listener[x].tls.certificates[#1]", "must be a table";
    certificate_without_key: [tls("certificates = [{ cert = \"a\" }]")], 5, "listener[x].tls.certificates[#1].key", "missing";
    certificate_without_cert: [tls("certificates = [{ key = \"a\" }]")], 5, "listener[x].tls.certificates[#1].cert", "missing";
    certificate_without_a_path: [tls("certificates = [{ cert = \"\", key = \"a\" }]")], 5, "listener[x].tls.certificates[#1].cert", "must be the path of a file";
    certificate_with_another_key: [tls("certificates = [{ cert = \"a\", key = \"b\", chain = \"c\" }]")], 5, "listener[x].tls.certificates[#1].chain", "unknown key";
    certificate_dir_that_is_no_path: [tls("certificate_dir = 1")], 5, "listener[x].tls.certificate_dir", "must be a string, not an integer";
    certificate_dir_that_is_empty: [tls("certificate_dir = \"\"")], 5, "listener[x].tls.certificate_dir", "must be the path of a file";
    certificate_dir_beside_no_certificate: [tls("certificate_dir = \"d\", certificates = []")], 5, "listener[x].tls.certificates", "must have 1 to 256";
    min_version_too_old: [with("min_version = \"1.1\"")], 5, "listener[x].tls.min_version", "must be \"1.2\" or \"1.3\"";
    min_version_of_ssl: [with("min_version = \"TLSv1.2\"")], 5, "listener[x].tls.min_version", "must be \"1.2\" or \"1.3\"";
    min_version_without_quotes: [with("min_version = 1.3")], 5, "listener[x].tls.min_version", "must be a string, not a float";
    cipher_suites_without_any: [with("cipher_suites = []")], 5, "listener[x].tls.cipher_suites", "must have 1 to 9 entries";
    cipher_suites_that_are_no_list: [with("cipher_suites = \"TLS_AES_256_GCM_SHA384\"")], 5, "listener[x].tls.cipher_suites", "must be a list, not a string";
    cipher_suite_by_the_name_of_openssl: [with("cipher_suites = [\"ECDHE-RSA-AES256-GCM-SHA384\"]")], 5, "listener[x].tls.cipher_suites[#1]", "must be \"TLS_AES_256_GCM_SHA384\", \"TLS_AES_128_GCM_SHA256\", ";
    cipher_suite_without_forward_secrecy: [with("cipher_suites = [\"TLS_AES_256_GCM_SHA384\", \"TLS_RSA_WITH_AES_256_GCM_SHA384\"]")], 5, "listener[x].tls.cipher_suites[#2]", "must be ";
    cipher_suites_of_a_version_that_is_not_spoken: [with("min_version = \"1.3\", cipher_suites = [\"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\"]")],
        5, "listener[x].tls.cipher_suites", "has no suite of TLS 1.3, which min_version asks for";
    key_exchange_without_any: [with("key_exchange = []")], 5, "listener[x].tls.key_exchange", "must have 1 to 4 entries";
    key_exchange_by_another_name: [with("key_exchange = [\"P-256\"]")], 5, "listener[x].tls.key_exchange[#1]", "must be \"X25519MLKEM768\", \"X25519\", \"secp256r1\" or \"secp384r1\"";
    key_exchange_in_small_letters: [with("key_exchange = [\"X25519\", \"x25519mlkem768\"]")], 5, "listener[x].tls.key_exchange[#2]", "must be ";
    client_auth_true: [with("client_auth = true")], 5, "listener[x].tls.client_auth", "must be a table";
    client_auth_without_mode: [auth("ca_file = \"ca.crt\"")], 5, "listener[x].tls.client_auth.mode", "missing";
    client_auth_of_another_mode: [auth("mode = \"required\", ca_file = \"ca.crt\"")], 5, "listener[x].tls.client_auth.mode", "must be \"require\" or \"optional\"";
    client_auth_without_authorities: [auth("mode = \"require\"")], 5, "listener[x].tls.client_auth.ca_file", "missing";
    client_auth_revocation_without_a_path: [auth("mode = \"require\", ca_file = \"ca.crt\", crl_file = \"\"")], 5, "listener[x].tls.client_auth.crl_file", "must be the path of a file";
    client_auth_with_another_key: [auth("mode = \"require\", ca_file = \"ca.crt\", depth = 2")], 5, "listener[x].tls.client_auth.depth", "unknown key";
    tls_true: [listener("tls = true")], 5, "listener[x].tls", "must be a table";
    tls_with_another_key: [with("alpn = [\"h2\"]")], 5, "listener[x].tls.alpn", "unknown key";
    hsts_too_long: [listener("tls = { certificate_dir = \"d\" }\nhsts = { max_age = \"87601h\" }")], 6, "listener[x].hsts.max_age", "must be 0ms to 87600h";
    hsts_preload_of_a_month: [listener("tls = { certificate_dir = \"d\" }\nhsts = { preload = true, include_subdomains = true, max_age = \"720h\" }")],
        6, "listener[x].hsts", "preload needs include_subdomains = true and a max_age of a year";
    hsts_preload_of_one_host: [listener("tls = { certificate_dir = \"d\" }\nhsts = { preload = true }")], 6, "listener[x].hsts", "preload needs include_subdomains";
}

fn good(text: &str) -> Tls {
    let config: Config = parse(text, Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    config.listeners.first().and_then(|listener| listener.tls.clone()).expect("it has TLS")
}

#[test]
fn defaults() {
    let tls = good(&with(""));
    assert_eq!(tls.certificates[0].cert, PathBuf::from("/etc/baton/a.crt"));
    assert_eq!((tls.min_version, tls.certificate_dir, tls.client_auth), (TlsVersion::V12, None, None));
    assert_eq!(tls.cipher_suites.len(), 9);
    assert_eq!(tls.cipher_suites[0], CipherSuite::TLS13_AES_256_GCM_SHA384);
    let groups = [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];
    assert_eq!(tls.key_exchange, groups);
}

#[test]
fn what_may_be_written() {
    let directory = good(&tls("certificate_dir = \"tls\""));
    assert_eq!((directory.certificates.len(), directory.certificate_dir), (0, Some("/etc/baton/tls".into())));
    assert_eq!(good(&with("min_version = \"1.3\"")).min_version, TlsVersion::V13);
    assert_eq!(good(&with("min_version = \"1.2\"")).min_version, TlsVersion::V12);
    let suites = "\"TLS_CHACHA20_POLY1305_SHA256\", \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"";
    let expected = [CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    assert_eq!(good(&with(&format!("cipher_suites = [{suites}]"))).cipher_suites, expected);
    assert_eq!(good(&with(&format!("min_version = \"1.3\", cipher_suites = [{suites}]"))).cipher_suites, expected);
    assert_eq!(good(&with("key_exchange = [\"secp384r1\"]")).key_exchange, [NamedGroup::secp384r1]);
    for (word, mode) in [("require", ClientAuthMode::Require), ("optional", ClientAuthMode::Optional)] {
        let found = good(&auth(&format!("mode = \"{word}\", ca_file = \"ca.crt\", crl_file = \"/crl\""))).client_auth;
        let found = found.expect("it was written");
        assert_eq!(
            (found.mode, found.ca_file, found.crl_file),
            (mode, "/etc/baton/ca.crt".into(), Some("/crl".into()))
        );
    }
}

/// `tls` with these keys, before an empty directory.
fn file(directory: &Directory, keys: &str) -> PathBuf {
    let listener = "[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:443\"]\npool = \"app\"\n";
    let pool = "[[pool]]\nname = \"app\"\nservers = [{ name = \"app1\", address = \"10.0.0.1:8080\" }]\n";
    directory.write("baton.toml", format!("{listener}tls = {{ {keys} }}\n{pool}"), 0o644)
}

#[test]
fn a_directory_of_certificates_has_to_be_one() {
    let directory = Directory::new("tls-dir");
    let path = file(&directory, "certificate_dir = \"all\"");
    let key = "listener[web].tls.certificate_dir";
    machine::check_one(&path, key, "failed to read");
    std::fs::create_dir(directory.path("all")).expect("the directory is writable");
    machine::check_one(&path, key, "holds no certificate");
    directory.write("all/site.crt", SITE_CERT, 0o644);
    let rules: Vec<_> = mistakes(&path).into_iter().map(|(_, rule, _)| rule).collect();
    assert!(rules[0].contains("site.crt has no key beside it"), "{rules:?}");
    directory.write("all/site.key", OTHER_KEY, 0o600);
    machine::check_one(&path, key, "site.key: does not belong to the first certificate");
    directory.write("all/site.key", SITE_KEY, 0o640);
    machine::check_one(&path, key, "has mode 0640");
    directory.write("all/site.key", SITE_KEY, 0o600);
    assert_eq!(mistakes(&path), []);
    directory.write("all/both.pem", [SITE_KEY, SITE_CERT].concat(), 0o600);
    assert_eq!(mistakes(&path), []);
    directory.write("all/both.pem", SITE_KEY, 0o600);
    machine::check_one(&path, key, "both.pem holds no certificate");
}

#[test]
fn authorities_and_revocation_lists_of_clients_have_to_be_such() {
    let directory = Directory::new("tls-clients");
    directory.write("site.crt", SITE_CERT, 0o644);
    directory.write("site.key", SITE_KEY, 0o600);
    let certificates = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]";
    let path =
        file(&directory, &format!("{certificates}, client_auth = {{ mode = \"require\", ca_file = \"ca.crt\" }}"));
    let key = "listener[web].tls.client_auth.ca_file";
    machine::check_one(&path, key, "failed to read");
    directory.write("ca.crt", "none\n", 0o644);
    machine::check_one(&path, key, "ca.crt holds no certificate");
    directory.write("ca.crt", SITE_CERT, 0o644);
    assert_eq!(mistakes(&path), []);
    let auth = "client_auth = { mode = \"optional\", ca_file = \"ca.crt\", crl_file = \"crl\" }";
    let path = file(&directory, &format!("{certificates}, {auth}"));
    let key = "listener[web].tls.client_auth.crl_file";
    machine::check_one(&path, key, "failed to read");
    directory.write("crl", SITE_CERT, 0o644);
    machine::check_one(&path, key, "crl holds no revocation list");
    directory.write("crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", 0o644);
    machine::check_one(&path, key, "crl cannot be used");
}
