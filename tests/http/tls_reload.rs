//! Files that change while the program runs.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::HandshakeKind;

use crate::baton::{Baton, Directory};
use crate::server::Server;
use crate::tls::{Site, certificate};
use crate::tls_choice::listen;
use crate::tls_client::{Stream, connect, connect_with, trusting_anybody};
use crate::tls_files::{Kind, handshake, self_signed};

/// A new certificate for the first name of a site, in place of the one that it has.
fn replace(site: &Site) {
    let new = certificate(site.directory(), "a.example.new");
    let old = &site.certificates[0];
    fs::rename(&new.key, &old.key).expect("the directory is writable");
    fs::rename(&new.cert, &old.cert).expect("the directory is writable");
}

#[test]
fn new_certificate_is_served_to_new_connections() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    assert_eq!(site.curl("a.example", 0, &[]).code, Some(0));
    replace(&site);
    site.baton.wait_for_log("changed files are in use");
    // It is for another name, and curl trusts the new file.
    let port = site.baton.address().port();
    let output = site.curl("a.example.new", 0, &[]);
    assert_eq!((output.code, output.text().as_str()), (Some(0), "ok"), "{} {port}", output.stderr);
}

#[test]
fn bad_certificate_is_refused_and_the_former_one_served() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    let old = fs::read(&site.certificates[0].cert).expect("it was just made");
    let copy = site.directory().path("copy.crt");
    fs::write(&copy, &old).expect("the directory is writable");
    fs::write(&site.certificates[0].cert, "no certificate").expect("the directory is writable");
    site.baton.wait_for_log("holds no certificate");
    let warnings = site.baton.wait_for_status(|status| {
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().any(|warning| warning.as_str().is_some_and(|text| text.contains("holds no certificate")))
    });
    let path = site.certificates[0].cert.display().to_string();
    assert!(warnings["warnings"].to_string().contains(&format!("listener http keeps what it had: {path}")));
    assert_eq!(site.curl_trusting("a.example", &copy, &[]).text(), "ok");
    // Good again: nothing to warn of.
    fs::write(&site.certificates[0].cert, &old).expect("the directory is writable");
    site.baton.wait_for_status(|status| !status["warnings"].to_string().contains("keeps what it had"));
}

#[test]
fn file_that_is_gone_or_exposed_stays_in_use() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    let key = &site.certificates[1].key;
    let text = fs::read(key).expect("it was just made");
    fs::remove_file(key).expect("the directory is writable");
    site.baton.wait_for_status(|status| {
        status["warnings"].to_string().contains("No such file or directory (os error 2); what it held before is in use")
    });
    assert_eq!(site.curl("b.example", 1, &[]).text(), "ok");
    fs::write(key, &text).expect("the directory is writable");
    site.baton.wait_for_status(|status| status["warnings"].to_string().contains("has mode 0644"));
    assert_eq!(site.curl("b.example", 1, &[]).text(), "ok");
}

/// Certificates that take turns, and the turns that they take.
const CERTIFICATES: usize = 4;
const TURNS: usize = 100;

#[test]
fn no_request_fails_while_a_certificate_is_replaced_a_hundred_times() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let made: Vec<_> = (0..CERTIFICATES)
        .map(|number| {
            let [cert, key] = self_signed(&directory, &format!("made-{number}"), Kind::Ecdsa, &["a.example"], 30);
            (fs::read(cert).unwrap(), fs::read(key).unwrap())
        })
        .collect();
    let pair = self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30);
    let [cert, key] = &pair;
    let baton = listen(&server, &format!("certificates = [{{ cert = {cert:?}, key = {key:?} }}]"));
    let is_over = AtomicBool::new(false);
    let (kept, fresh) = std::thread::scope(|scope| {
        let kept = scope.spawn(|| requests_on_one_connection(&baton, &is_over));
        let fresh = scope.spawn(|| requests_on_new_connections(&baton, &is_over));
        for turn in 0..TURNS {
            let (new_cert, new_key) = &made[turn % CERTIFICATES];
            // In place, as a program that knows nothing of us does it: between the two they do not go together.
            fs::write(cert, new_cert).unwrap();
            fs::write(key, new_key).unwrap();
            let expected = format!("CN=made-{}", turn % CERTIFICATES);
            baton.wait_for_status(|status| status["certificates"][0]["subject"] == expected);
        }
        is_over.store(true, Ordering::SeqCst);
        (kept.join().unwrap(), fresh.join().unwrap())
    });
    assert!(kept > TURNS && fresh > TURNS, "{kept} and {fresh} requests");
    assert_eq!(served(&baton), format!("made-{}", (TURNS - 1) % CERTIFICATES));
}

fn served(baton: &Baton) -> String {
    handshake(baton.address(), &["-servername", "a.example"]).served().to_owned()
}

fn requests_on_one_connection(baton: &Baton, is_over: &AtomicBool) -> usize {
    let mut stream = connect(baton);
    let mut count = 0;
    while !is_over.load(Ordering::SeqCst) {
        ask(&mut stream);
        count += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    count
}

fn requests_on_new_connections(baton: &Baton, is_over: &AtomicBool) -> usize {
    let mut count = 0;
    while !is_over.load(Ordering::SeqCst) {
        ask(&mut connect(baton));
        count += 1;
    }
    count
}

/// One request and its response; anything else ends the test.
fn ask(stream: &mut Stream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("the connection is open");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut part = [0; 1024];
        let len = stream.read(&mut part).expect("an answer comes");
        assert!(len > 0, "the answer ends early: {}", answer.escape_ascii());
        answer.extend_from_slice(&part[..len]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
}

#[test]
fn session_is_resumed_after_a_certificate_has_been_replaced() {
    let (server, directory) = (Server::saying("ok"), Directory::new());
    let [cert, key] = self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30);
    let baton = listen(&server, &format!("certificates = [{{ cert = {cert:?}, key = {key:?} }}]"));
    let config = trusting_anybody(rustls::crypto::aws_lc_rs::default_provider());
    let kind = || {
        let mut stream = connect_with(&baton, &config);
        ask(&mut stream);
        stream.conn.handshake_kind().expect("it is done")
    };
    assert_eq!(kind(), HandshakeKind::Full);
    assert_eq!(kind(), HandshakeKind::Resumed);
    let [new_cert, new_key] = self_signed(&directory, "new", Kind::Ecdsa, &["a.example"], 30);
    fs::rename(new_key, &key).unwrap();
    fs::rename(new_cert, &cert).unwrap();
    baton.wait_for_status(|status| status["certificates"][0]["subject"] == "CN=new");
    assert_eq!(kind(), HandshakeKind::Resumed);
}

#[test]
fn worker_that_dies_while_a_file_is_bad_comes_back_with_the_former_one() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    let copy = site.directory().path("copy.crt");
    fs::copy(&site.certificates[0].cert, &copy).unwrap();
    fs::write(&site.certificates[0].cert, "no certificate").unwrap();
    site.baton.wait_for_status(|status| status["warnings"].to_string().contains("holds no certificate"));
    rustix::process::kill_process(site.baton.worker(), rustix::process::Signal::KILL).unwrap();
    site.baton.wait_for_logs(2, "worker serves");
    assert_eq!(site.curl_trusting("a.example", &copy, &[]).text(), "ok");
    site.baton.wait_for_status(|status| status["warnings"].to_string().contains("holds no certificate"));
}
