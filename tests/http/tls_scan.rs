//! What testssl.sh has to say about a listener. It looks for everything that was ever wrong with TLS, so it takes a minute.

use std::fs;
use std::process::{Command, Stdio};

use crate::baton::Directory;
use crate::server::Server;
use crate::tls_choice::listen;
use crate::tls_files::{Authority, Kind};

/// What is looked at: protocols, suites, forward secrecy, the order of suites, the certificate, headers, vulnerabilities.
const CHECKS: [&str; 7] =
    ["--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--headers", "--vulnerable"];

/// What testssl expects of a site itself.
const SITE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Frame-Options: DENY\r\nX-Content-Type-Options: nosniff\r\n\
                    Content-Security-Policy: default-src 'self'\r\n\r\nok";

#[test]
fn testssl_finds_nothing_above_low() {
    let (server, directory) = (Server::answering(SITE.to_owned()), Directory::new());
    let authority = Authority::new(&directory, "authority");
    let pairs =
        [("ecdsa", Kind::Ecdsa), ("rsa", Kind::Rsa)].map(|(file, kind)| authority.server(&directory, file, kind));
    let pairs = pairs.iter().map(|[cert, key]| format!("{{ cert = {cert:?}, key = {key:?} }}"));
    let certificates = pairs.collect::<Vec<_>>().join(", ");
    let hsts = "[listener.hsts]\nmax_age = \"8760h\"";
    let baton = listen(&server, &format!("certificates = [{certificates}]\n{hsts}"));
    let report = directory.path("report.json");
    let mut command = Command::new("testssl");
    command.args(CHECKS).args(["--quiet", "--warnings", "off", "--color", "0"]);
    command.arg("--add-ca").arg(&authority.cert).arg("--jsonfile").arg(&report);
    command.arg(format!("https://localhost:{}", baton.address().port())).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("testssl cannot be run ({error}): install testssl.sh"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = fs::read_to_string(report).unwrap_or_else(|error| panic!("no report ({error}): {said}"));
    let findings: Vec<serde_json::Value> = serde_json::from_str(&report).expect("it is JSON");
    let of = |severities: &[&str]| -> Vec<&serde_json::Value> {
        let is_of = |finding: &&serde_json::Value| severities.iter().any(|wanted| finding["severity"] == *wanted);
        findings.iter().filter(is_of).collect()
    };
    assert_eq!(of(&["MEDIUM", "HIGH", "CRITICAL", "FATAL"]), [] as [&serde_json::Value; 0], "{said}");
    // It did look: the old versions, the vulnerabilities, both certificates.
    assert!(of(&["OK"]).len() >= 40, "{said}");
    for id in ["SSLv2", "TLS1_1", "heartbleed", "ROBOT", "LUCKY13", "cipher_order", "HSTS_time"] {
        let found = findings.iter().find(|finding| finding["id"] == id);
        assert!(
            found.is_some_and(|finding| finding["severity"] == "OK" || finding["severity"] == "INFO"),
            "{id}: {said}"
        );
    }
}
