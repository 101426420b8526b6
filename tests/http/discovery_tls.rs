//! Sources of servers over TLS, with the real nginx in their place: who they have to be, and who asks.

use std::path::{Path, PathBuf};

use crate::baton::Directory;
use crate::discovery::{finding, list, wait_for_problem, wait_for_servers};
use crate::nginx::Nginx;
use crate::server::Server;
use crate::tls_files::{Authority, Kind, openssl};

/// An nginx that gives this answer to whoever shows a certificate of the authority.
fn source(authority: &Authority, [cert, key]: &[PathBuf; 2], body: &str) -> Nginx {
    let (cert, key, ca) = (cert.display(), key.display(), authority.cert.display());
    Nginx::start(
        "ssl",
        &format!(
            "ssl_certificate {cert};\nssl_certificate_key {key};\nssl_client_certificate {ca};\nssl_verify_client on;\n\
             add_header X-Consul-Index 1;\nreturn 200 '{body}';"
        ),
    )
}

/// A certificate for localhost whose time is over.
fn expired(authority: &Authority, directory: &Directory) -> [PathBuf; 2] {
    let at = |name: &str| directory.path(name);
    let text = |path: &Path| path.display().to_string();
    let (cert, key, request) = (at("old.crt"), at("old.key"), at("old.csr"));
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let files = ["-keyout", &text(&key), "-out", &text(&request)];
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    openssl(&[&["req", "-nodes"], &kind[..], &subject, &files].concat());
    let signer = ["-CA", &text(&authority.cert), "-CAkey", &text(authority.key()), "-CAcreateserial"];
    let files = ["-in", &text(&request), "-out", &text(&cert), "-days", "-1"];
    openssl(&[&["x509", "-req", "-copy_extensions", "copyall"], &files[..], &signer].concat());
    [cert, key]
}

#[test]
fn sources_over_tls_have_to_be_who_they_are_and_see_who_asks() {
    let directory = Directory::new();
    let authority = Authority::new(&directory, "ca");
    let stranger = Authority::new(&directory, "stranger");
    let server = authority.server(&directory, "server", Kind::Ecdsa);
    let old = expired(&authority, &directory);
    let [cert, key] = authority.client(&directory, "client", "/CN=baton");
    let one = Server::saying("one");
    let port = one.address().port();
    let consul = format!(
        r#"[{{"Node":{{"Node":"one","Address":"127.0.0.1"}},"Service":{{"ID":"web","Address":"","Port":{port}}},"Checks":[]}}]"#
    );
    let http = list(&[("one.web", &one)]);
    for (body, kind) in [
        (http, "type = \"http\"\ninterval = \"100ms\"\nurl"),
        (consul, "type = \"consul\"\nservice = \"web\"\naddress"),
    ] {
        let (good, late) = (source(&authority, &server, &body), source(&authority, &old, &body));
        let found_at = |nginx: &Nginx, host: &str, tls: &str| {
            finding(&format!("{kind} = \"https://{host}:{}\"\ntls = {{ {tls} }}\n", nginx.address().port()))
        };
        let (ca, other) = (format!("ca_file = {:?}", authority.cert), format!("ca_file = {:?}", stranger.cert));
        let shown = format!("certificate = {{ cert = {cert:?}, key = {key:?} }}");
        let baton = found_at(&good, "localhost", &format!("{ca}, {shown}"));
        wait_for_servers(&baton, &["one.web"]);
        assert_eq!(baton.client().get("/").text(), "one");
        for (nginx, host, tls, problem) in [
            (&good, "localhost", format!("{other}, {shown}"), "BadSignature"),
            (&good, "localhost", shown.clone(), "UnknownIssuer"),
            (&late, "localhost", format!("{ca}, {shown}"), "Expired"),
            (&good, "127.0.0.1", format!("{ca}, {shown}"), "not valid for name"),
            (&good, "localhost", ca.clone(), "status 400"),
        ] {
            let baton = found_at(nginx, host, &tls);
            let status = wait_for_problem(&baton, problem);
            assert_eq!(status["pools"][0]["servers"].as_array().map(Vec::len), Some(0), "{problem}");
        }
        let anybody = found_at(&late, "127.0.0.1", &format!("verify = false, {shown}"));
        wait_for_servers(&anybody, &["one.web"]);
    }
}
