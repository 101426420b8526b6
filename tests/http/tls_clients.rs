//! Clients with certificates of their own: who is let in, and what servers are told.

use std::path::PathBuf;

use crate::baton::{Baton, Directory};
use crate::curl::{Curl, curl};
use crate::server::{Port, Server};
use crate::tls_files::{Authority, Kind, fingerprint, self_signed};

/// A listener that asks for certificates, and one in clear text before the same server.
struct Scene {
    server: Server,
    baton: Baton,
    clear: Port,
    directory: Directory,
    authority: Authority,
    site: PathBuf,
}

impl Scene {
    fn new(mode: &str) -> Self {
        Self::with(mode, "")
    }

    fn with(mode: &str, extra: &str) -> Self {
        let (server, directory, clear) = (Server::saying("ok"), Directory::new(), Port::reserve());
        let authority = Authority::new(&directory, "authority");
        let [site, key] = self_signed(&directory, "site", Kind::Ecdsa, &["a.example", "b.example"], 30);
        let listener = format!(
            "pool = \"app\"\n[listener.tls]\ncertificates = [{{ cert = {site:?}, key = {key:?} }}]\n\
             client_auth = {{ mode = \"{mode}\", ca_file = {:?}, crl_file = {:?} }}\n{extra}",
            authority.cert, authority.crl
        );
        let blocks = format!(
            "[[listener]]\nname = \"clear\"\nbind = [\"{}\"]\npool = \"app\"\n[[pool]]\nname = \"app\"\n\
             servers = [{{ name = \"app1\", address = \"{}\" }}]\n",
            clear.address(),
            server.address()
        );
        let baton = Baton::run(&listener, &blocks);
        Self { server, baton, clear, directory, authority, site }
    }

    fn client(&self, file: &str, subject: &str) -> [PathBuf; 2] {
        self.authority.client(&self.directory, file, subject)
    }

    /// A request, as a client with this certificate or none.
    fn ask(&self, client: Option<&[PathBuf; 2]>, arguments: &[&str]) -> Curl {
        let port = self.baton.address().port();
        let resolve = format!("a.example:{port}:127.0.0.1");
        let (url, site) = (format!("https://a.example:{port}/"), self.site.to_str().unwrap());
        let mut all = vec!["--resolve", &resolve, "--cacert", site, &url];
        if let Some([cert, key]) = client {
            all.extend(["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()]);
        }
        all.extend(arguments);
        curl(&all)
    }
}

const VERSIONS: [&[&str]; 2] = [&["--tlsv1.3"], &["--tls-max", "1.2"]];

#[test]
fn client_without_a_certificate_is_refused_where_one_is_required() {
    let scene = Scene::new("require");
    let ann = scene.client("ann", "/O=Test/CN=Ann");
    for version in VERSIONS {
        assert_ne!(scene.ask(None, version).code, Some(0));
        let output = scene.ask(Some(&ann), version);
        assert_eq!((output.code, output.text().as_str()), (Some(0), "ok"), "{}", output.stderr);
    }
    assert_eq!(scene.server.requests().len(), 2, "nobody else came so far");
}

#[test]
fn client_of_another_authority_is_refused_in_both_modes() {
    for mode in ["require", "optional"] {
        let scene = Scene::new(mode);
        let other = Authority::new(&scene.directory, "other").client(&scene.directory, "eve", "/CN=Eve");
        for version in VERSIONS {
            assert_ne!(scene.ask(Some(&other), version).code, Some(0), "{mode} {version:?}");
        }
    }
}

#[test]
fn server_is_told_who_the_client_is() {
    let scene = Scene::new("optional");
    let ann = scene.client("ann", "/C=DE/O=Test, Inc./CN=Ann M\u{fc}ller");
    let told = || {
        let request = scene.server.requests().pop().unwrap();
        ["verify", "subject", "fingerprint"]
            .map(|name| request.value(&format!("x-ssl-client-{name}")).map(str::to_owned))
    };
    for version in VERSIONS {
        assert_eq!(scene.ask(Some(&ann), version).text(), "ok");
        let subject = "CN=Ann M\\C3\\BCller,O=Test\\, Inc.,C=DE";
        assert_eq!(told(), [Some("SUCCESS".to_owned()), Some(subject.to_owned()), Some(fingerprint(&ann[0]))]);
        assert_eq!(scene.ask(None, version).text(), "ok");
        assert_eq!(told(), [Some("NONE".to_owned()), None, None]);
    }
}

#[test]
fn no_client_makes_up_who_it_is_on_any_listener() {
    let scene = Scene::new("optional");
    let forged = ["--header", "X-SSL-Client-Verify: SUCCESS", "--header", "X_SSL_Client_Subject: CN=root"];
    assert_eq!(scene.ask(None, &forged).text(), "ok");
    let clear = format!("http://{}/", scene.clear.address());
    assert_eq!(curl(&[&[clear.as_str()], &forged[..]].concat()).text(), "ok");
    let requests = scene.server.requests();
    for (request, expected) in requests.iter().zip([Some("NONE"), None]) {
        assert_eq!(request.value("x-ssl-client-verify"), expected);
        assert_eq!((request.value("x_ssl_client_subject"), request.value("x-ssl-client-subject")), (None, None));
    }
    assert_eq!(requests.len(), 2);
}

#[test]
fn revoked_client_is_refused_from_when_the_list_says_so() {
    let scene = Scene::new("require");
    let (ann, bob) = (scene.client("ann", "/CN=Ann"), scene.client("bob", "/CN=Bob"));
    for client in [&ann, &bob] {
        assert_eq!(scene.ask(Some(client), &[]).text(), "ok");
    }
    scene.authority.revoke(&bob[0]);
    scene.baton.wait_for_log("changed files are in use");
    for version in VERSIONS {
        assert_eq!(scene.ask(Some(&ann), version).text(), "ok");
        assert_ne!(scene.ask(Some(&bob), version).code, Some(0));
    }
}

#[test]
fn request_for_another_host_than_that_of_its_connection_is_misdirected() {
    let scene = Scene::new("optional");
    let status =
        |host: &str| scene.ask(None, &["--header", host, "--output", "/dev/null", "--write-out", "%{http_code}"]);
    assert_eq!(status("Host: A.EXAMPLE:443").text(), "200");
    assert_eq!(status("Host: b.example").text(), "421");
    assert_eq!(scene.server.requests().len(), 1, "it went to no server");
}
