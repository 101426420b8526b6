//! From clear text to HTTPS, and staying there.

use crate::baton::{Baton, Directory};
use crate::curl::curl;
use crate::server::Server;
use crate::tls::Site;
use crate::tls_files::{Kind, self_signed};

#[test]
fn requests_that_no_route_matches_are_sent_to_https() {
    let server = Server::saying("ok");
    let blocks = format!(
        "[[route]]\nlistener = \"http\"\npath_prefix = \"/.well-known\"\npool = \"app\"\n[[pool]]\nname = \"app\"\n\
         servers = [{{ name = \"app1\", address = \"{}\" }}]\n",
        server.address()
    );
    let baton = Baton::run("redirect_to_https = true", &blocks);
    let ask = |baton: &Baton, request: &str| baton.client().ask(request);
    let response = ask(&baton, "GET /a?b=c HTTP/1.1\r\nHost: a.example:8080\r\n\r\n");
    assert_eq!((response.status(), response.value("location")), (308, Some("https://a.example/a?b=c")));
    assert_eq!(ask(&baton, "GET /.well-known/x HTTP/1.1\r\nHost: a.example\r\n\r\n").text(), "ok");
    assert_eq!(ask(&baton, "GET / HTTP/1.0\r\n\r\n").status(), 400);
    let baton = Baton::run("redirect_to_https = { status = 301, port = 8443 }", "");
    let response = ask(&baton, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!((response.status(), response.value("location")), (301, Some("https://a.example:8443/")));
}

#[test]
fn browsers_are_told_to_come_over_https_alone() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nStrict-Transport-Security: max-age=5\r\n\r\nok".to_owned(),
    );
    let hsts = "hsts = { max_age = \"8760h\", include_subdomains = true }";
    let site = Site::before(&server, hsts, "");
    let text = site.curl("a.example", 0, &["--include", "--http1.1"]).text();
    let fields: Vec<_> =
        text.lines().filter(|line| line.to_ascii_lowercase().starts_with("strict-transport")).collect();
    assert_eq!(fields, ["strict-transport-security: max-age=31536000; includeSubDomains"]);
    // Of our own answers, too.
    let directory = Directory::new();
    let [cert, key] = self_signed(&directory, "site", Kind::Ecdsa, &["a.example"], 30);
    let tls = format!("tls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}");
    let blocks = "[[route]]\nlistener = \"http\"\npath_prefix = \"/none\"\npool = \"app\"\n[[pool]]\nname = \"app\"\n\
                  servers = [{ name = \"app1\", address = \"127.0.0.1:1\" }]\n";
    let baton = Baton::run(&format!("{tls}\nhsts = {{ max_age = \"0s\" }}"), blocks);
    let text = curl(&["--insecure", "--include", "--http1.1", &format!("https://{}/", baton.address())]).text();
    assert!(text.starts_with("HTTP/1.1 404 ") && text.contains("strict-transport-security: max-age=0\r\n"), "{text}");
}
