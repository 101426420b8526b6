//! Which certificate, version, suite and key exchange a client gets.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::TLS12;
use rustls::{ClientConfig, NamedGroup};

use crate::baton::{Baton, Directory};
use crate::server::Server;
use crate::tls_client::{connect_with, trusting_anybody, trusting_anybody_in};
use crate::tls_files::{Handshake, Kind, handshake, self_signed};

/// A listener whose `tls` has these keys, in front of a server.
pub fn listen(server: &Server, tls: &str) -> Baton {
    let pool = format!(
        "[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n[worker]\nthreads = 1\n",
        server.address()
    );
    Baton::run(&format!("pool = \"app\"\n[listener.tls]\n{tls}"), &pool)
}

fn list(pairs: &[[PathBuf; 2]]) -> String {
    let pairs = pairs.iter().map(|[cert, key]| format!("{{ cert = {cert:?}, key = {key:?} }}"));
    format!("certificates = [{}]", pairs.collect::<Vec<_>>().join(", "))
}

fn served(baton: &Baton, name: &str, arguments: &[&str]) -> Handshake {
    handshake(baton.address(), &[&["-servername", name], arguments].concat())
}

#[test]
fn exact_name_beats_wildcard_beats_default() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let make = |file, names: &[&str]| self_signed(&directory, file, Kind::Ecdsa, names, 30);
    let pairs = [
        make("default", &["default.example"]),
        make("wildcard", &["*.a.example"]),
        make("exact", &["www.a.example", "other.example"]),
    ];
    let baton = listen(&server, &list(&pairs));
    for (name, expected) in [
        ("www.a.example", "exact"),
        ("WWW.A.example", "exact"),
        ("other.example", "exact"),
        ("x.a.example", "wildcard"),
        ("x.y.a.example", "default"),
        ("a.example", "default"),
        ("unknown.example", "default"),
        ("default.example", "default"),
    ] {
        assert_eq!(served(&baton, name, &[]).served(), expected, "{name}");
    }
    assert_eq!(handshake(baton.address(), &["-noservername"]).served(), "default");
}

#[test]
fn ecdsa_and_rsa_for_one_name_are_chosen_by_what_the_client_knows() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let rsa = self_signed(&directory, "rsa", Kind::Rsa, &["a.example"], 30);
    let ecdsa = self_signed(&directory, "ecdsa", Kind::Ecdsa, &["a.example"], 30);
    let baton = listen(&server, &list(&[rsa, ecdsa]));
    for version in ["-tls1_2", "-tls1_3"] {
        assert_eq!(served(&baton, "a.example", &[version]).served(), "ecdsa", "it costs less");
        let rsa_alone = ["-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256", version];
        assert_eq!(served(&baton, "a.example", &rsa_alone).served(), "rsa");
        // So too for the default.
        assert_eq!(served(&baton, "unknown.example", &rsa_alone).served(), "rsa");
    }
    // In TLS 1.2 the suite says it as well.
    let by_suite = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
    assert_eq!(served(&baton, "a.example", &by_suite).served(), "rsa");
}

#[test]
fn directory_holds_pairs_and_files_with_both_and_takes_in_new_ones() {
    let (server, directory, certificates) = (Server::saying("ok"), Directory::new(), Directory::new());
    let make = |file: &str, name: &str| self_signed(&directory, file, Kind::Ecdsa, &[name], 30);
    let both = |[cert, key]: &[PathBuf; 2]| [fs::read(cert).unwrap(), fs::read(key).unwrap()].concat();
    let put = |name: &str, content: Vec<u8>, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let hidden = certificates.path(&format!(".{name}"));
        fs::write(&hidden, content).unwrap();
        fs::set_permissions(&hidden, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&hidden, certificates.path(name)).unwrap();
    };
    let [cert, key] = make("first", "a.example");
    put("a.example.crt", fs::read(cert).unwrap(), 0o644);
    put("a.example.key", fs::read(key).unwrap(), 0o600);
    put("b.pem", both(&make("second", "b.example")), 0o600);
    put("notes.txt", b"nothing".to_vec(), 0o644);
    let baton = listen(&server, &format!("certificate_dir = {:?}", certificates.path("")));
    assert_eq!(served(&baton, "a.example", &[]).served(), "first");
    assert_eq!(served(&baton, "b.example", &[]).served(), "second");
    assert_eq!(served(&baton, "c.example", &[]).served(), "first", "the first by name is the default");
    // A third one comes, the second goes.
    put("c.pem", both(&make("third", "c.example")), 0o600);
    fs::remove_file(certificates.path("b.pem")).unwrap();
    baton.wait_for_status(|status| {
        let files = status["certificates"].as_array().unwrap();
        files.len() == 2 && files[1]["names"][0] == "c.example"
    });
    assert_eq!(served(&baton, "c.example", &[]).served(), "third");
    assert_eq!(served(&baton, "b.example", &[]).served(), "first");
    // One that is bad keeps nobody else from being served, nor taken in.
    put("d.pem", b"no certificate".to_vec(), 0o600);
    put("e.pem", both(&make("fifth", "e.example")), 0o600);
    baton.wait_for_status(|status| {
        status["warnings"].to_string().contains("d.pem holds no certificate")
            && status["certificates"].as_array().unwrap().len() == 3
    });
    assert_eq!(served(&baton, "e.example", &[]).served(), "fifth");
}

#[test]
fn older_versions_than_the_minimum_are_refused() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let pair = [self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30)];
    let usual = listen(&server, &list(&pair));
    let strict = listen(&server, &format!("{}\nmin_version = \"1.3\"", list(&pair)));
    let is_done = |baton: &Baton, version| served(baton, "a.example", &[version]).is_done;
    assert!(is_done(&usual, "-tls1_2") && is_done(&usual, "-tls1_3"));
    assert!(!is_done(&strict, "-tls1_2") && is_done(&strict, "-tls1_3"));
    // openssl itself speaks neither without this.
    for version in ["-tls1_1", "-tls1"] {
        assert!(!served(&usual, "a.example", &[version, "-cipher", "ALL:@SECLEVEL=0"]).is_done, "{version}");
    }
}

#[test]
fn suites_that_are_not_listed_are_refused() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let pair = [self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30)];
    let suites = "cipher_suites = [\"TLS_AES_128_GCM_SHA256\", \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]";
    let baton = listen(&server, &format!("{}\n{suites}", list(&pair)));
    let is_done = |arguments: &[&str]| served(&baton, "a.example", arguments).is_done;
    assert!(is_done(&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]));
    assert!(!is_done(&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"]));
    assert!(is_done(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]));
    assert!(!is_done(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]));
}

#[test]
fn suite_is_the_first_of_ours_that_the_client_knows() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let pair = [self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30)];
    let suites = "cipher_suites = [\"TLS_CHACHA20_POLY1305_SHA256\", \"TLS_AES_128_GCM_SHA256\"]";
    let baton = listen(&server, &format!("{}\n{suites}", list(&pair)));
    let theirs = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
    let text = served(&baton, "a.example", &["-ciphersuites", theirs]).text;
    assert!(text.contains("\nNew, TLSv1.3, Cipher is TLS_CHACHA20_POLY1305_SHA256\n"), "{text}");
}

/// The group of a handshake by a client that offers these, the preferred one first.
fn key_exchange(baton: &Baton, groups: &[&'static dyn SupportedKxGroup]) -> NamedGroup {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    key_exchange_with(baton, &trusting_anybody(provider))
}

fn key_exchange_with(baton: &Baton, config: &Arc<ClientConfig>) -> NamedGroup {
    let mut stream = connect_with(baton, config);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    stream.conn.negotiated_key_exchange_group().unwrap().name()
}

#[test]
fn key_exchange_is_safe_from_quantum_computers_where_the_client_prefers_that() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let pair = [self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30)];
    let baton = listen(&server, &list(&pair));
    assert_eq!(key_exchange(&baton, &[kx_group::X25519MLKEM768, kx_group::X25519]), NamedGroup::X25519MLKEM768);
    assert_eq!(key_exchange(&baton, &[kx_group::X25519, kx_group::X25519MLKEM768]), NamedGroup::X25519);
    assert_eq!(key_exchange(&baton, &[kx_group::SECP256R1]), NamedGroup::secp256r1);
}

#[test]
fn key_exchange_that_is_listed_first_is_taken_by_all_who_offer_it() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let pair = [self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30)];
    let groups = "key_exchange = [\"X25519MLKEM768\", \"X25519\", \"secp256r1\"]";
    let safe = listen(&server, &format!("{}\n{groups}", list(&pair)));
    let offered: [&[&'static dyn SupportedKxGroup]; 3] = [
        &[kx_group::X25519MLKEM768, kx_group::X25519],
        // Not begun with, so that the client is asked again.
        &[kx_group::X25519, kx_group::X25519MLKEM768],
        &[kx_group::SECP256R1, kx_group::X25519, kx_group::X25519MLKEM768],
    ];
    for groups in offered {
        assert_eq!(key_exchange(&safe, groups), NamedGroup::X25519MLKEM768);
    }
    // Who does not offer it has the choice, and in TLS 1.2, which does not know it, everybody has.
    assert_eq!(key_exchange(&safe, &[kx_group::SECP256R1, kx_group::X25519]), NamedGroup::secp256r1);
    let provider = CryptoProvider { kx_groups: offered[2].to_vec(), ..aws_lc_rs::default_provider() };
    let config = trusting_anybody_in(provider, &[&TLS12]);
    assert_eq!(key_exchange_with(&safe, &config), NamedGroup::secp256r1);
    let own = listen(&server, &format!("{}\nkey_exchange = [\"secp384r1\", \"secp256r1\"]", list(&pair)));
    assert_eq!(key_exchange(&own, &[kx_group::X25519, kx_group::SECP384R1]), NamedGroup::secp384r1);
    assert_eq!(key_exchange(&own, &[kx_group::SECP256R1, kx_group::SECP384R1]), NamedGroup::secp384r1);
}

#[test]
fn expiry_is_in_status_and_metrics_and_is_warned_of() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let soon = self_signed(&directory, "soon", Kind::Ecdsa, &["a.example"], 3);
    let late = self_signed(&directory, "late", Kind::Ecdsa, &["b.example", "*.b.example"], 30);
    let admin = crate::server::Port::reserve();
    let pool = format!(
        "[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n[admin]\nbind = \"{}\"\n",
        server.address(),
        admin.address()
    );
    let tls = list(&[soon.clone(), late]);
    let baton = Baton::run(&format!("pool = \"app\"\n[listener.tls]\n{tls}"), &pool);
    let status = baton.wait_for_status(|status| status["certificates"].as_array().is_some_and(|all| all.len() == 2));
    let certificates = status["certificates"].as_array().unwrap();
    let of = |file: &str| certificates.iter().find(|found| found["subject"] == format!("CN={file}")).unwrap();
    assert_eq!(of("late")["names"], serde_json::json!(["b.example", "*.b.example"]));
    let left = of("late")["not_after_s"].as_i64().unwrap() - of("soon")["not_after_s"].as_i64().unwrap();
    assert!((27 * 86_400 - 60..=27 * 86_400 + 60).contains(&left), "{left}");
    let warning = |days| {
        let file = soon[0].display();
        serde_json::json!([format!(
            "the certificate in {file} of listener http expires in {days} days: put a new one there"
        )])
    };
    // Whether the second is over in which it was made.
    assert!([warning(2), warning(3)].contains(&status["warnings"]), "{}", status["warnings"]);
    let text = baton.done(&["status"]);
    assert!(text.contains(&format!("certificate {}: a.example, until 20", soon[0].display())), "{text}");
    let metrics = crate::curl::curl(&[&format!("http://{}/metrics", admin.address())]).text();
    let sample = format!(
        "baton_certificate_not_after_timestamp_seconds{{listener=\"http\",file=\"{}\",subject=\"CN=soon\"}} {}\n",
        soon[0].display(),
        of("soon")["not_after_s"]
    );
    assert!(metrics.contains(&sample), "{metrics}");
}
