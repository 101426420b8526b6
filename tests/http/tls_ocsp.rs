//! OCSP responses that are stapled to certificates, made and looked at by openssl.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::baton::{Baton, Directory};
use crate::curl::curl;
use crate::server::{Port, Server};
use crate::tls_files::{Authority, Kind, handshake};

struct Scene {
    baton: Baton,
    admin: Port,
    directory: Directory,
    authority: Authority,
    cert: PathBuf,
    _server: Server,
}

impl Scene {
    /// With this in place of the response, where there is one.
    fn new(make: impl FnOnce(&Directory, &Authority, &PathBuf) -> Option<Vec<u8>>) -> Self {
        let (server, directory, admin) = (Server::saying("ok"), Directory::new(), Port::reserve());
        let authority = Authority::new(&directory, "authority");
        let [cert, key] = authority.server(&directory, "site", Kind::Ecdsa);
        if let Some(response) = make(&directory, &authority, &cert) {
            fs::write(directory.path("site.crt.ocsp"), response).unwrap();
        }
        let blocks = format!(
            "[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]\n[admin]\nbind = \"{}\"\n",
            server.address(),
            admin.address()
        );
        let tls = format!("[listener.tls]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]");
        let baton = Baton::run(&format!("pool = \"app\"\n{tls}"), &blocks);
        Self { baton, admin, directory, authority, cert, _server: server }
    }

    /// What a client that asks for the certificate's status gets.
    fn is_stapled(&self) -> bool {
        let ca = self.authority.cert.to_str().unwrap();
        let handshake = handshake(self.baton.address(), &["-servername", "localhost", "-status", "-CAfile", ca]);
        assert!(handshake.is_done, "{}", handshake.text);
        let is_stapled = handshake.text.contains("OCSP Response Status: successful (0x0)");
        assert_ne!(is_stapled, handshake.text.contains("OCSP response: no response sent"), "{}", handshake.text);
        assert!(!is_stapled || handshake.text.contains("Cert Status: good"), "{}", handshake.text);
        is_stapled
    }

    /// What `baton check` says, for which this is nothing to refuse.
    fn checked(&self) -> String {
        let file = self.baton.state_file("../baton.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_baton")).arg("check").arg("--config").arg(file).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }

    fn response(&self) -> PathBuf {
        self.directory.path("site.crt.ocsp")
    }

    /// Puts it there in one go, as one does with files that are watched.
    fn put(&self, response: &[u8]) {
        let new = self.directory.path("new.ocsp");
        fs::write(&new, response).unwrap();
        fs::rename(new, self.response()).unwrap();
    }
}

fn made(directory: &Directory, authority: &Authority, cert: &Path, status: &str) -> Vec<u8> {
    let response = directory.path("made.ocsp");
    authority.ocsp(cert, &response, status);
    fs::read(response).unwrap()
}

/// The same with a nextUpdate that is over: the third time in it, after producedAt and thisUpdate.
fn expired(mut response: Vec<u8>) -> Vec<u8> {
    let times: Vec<usize> = (0..response.len() - 2).filter(|at| response[*at..].starts_with(b"\x18\x0f2")).collect();
    assert_eq!(times.len(), 3);
    response[times[2] + 2..times[2] + 6].copy_from_slice(b"2001");
    response
}

fn ocsp(status: &serde_json::Value) -> &serde_json::Value {
    &status["certificates"][0]["ocsp"]
}

#[test]
fn response_beside_a_certificate_is_stapled_and_told_of() {
    let scene = Scene::new(|directory, authority, cert| Some(made(directory, authority, cert, "V")));
    assert!(scene.is_stapled());
    let status = scene.baton.wait_for_status(|status| ocsp(status)["stapled"]["until_s"].is_i64());
    let until_s = ocsp(&status)["stapled"]["until_s"].as_i64().unwrap();
    let not_after_s = status["certificates"][0]["not_after_s"].as_i64().unwrap();
    // A week against 90 days, each from the second in which it was made.
    assert!((83 * 86_400 - 60..=83 * 86_400 + 60).contains(&(not_after_s - until_s)), "{until_s}");
    let text = scene.baton.done(&["status"]);
    assert!(text.contains(", OCSP stapled\n"), "{text}");
    let metrics = curl(&[&format!("http://{}/metrics", scene.admin.address())]).text();
    let file = scene.cert.display();
    let sample = format!(
        "baton_certificate_ocsp_next_update_timestamp_seconds{{listener=\"http\",file=\"{file}\"}} {until_s}\n"
    );
    assert!(metrics.contains(&sample), "{metrics}");
    let said = scene.checked();
    assert!(!said.contains(".ocsp"), "{said}");
}

#[test]
fn responses_come_change_and_go_while_the_certificate_is_served() {
    let scene = Scene::new(|_, _, _| None);
    assert!(!scene.is_stapled());
    let good = made(&scene.directory, &scene.authority, &scene.cert, "V");
    let [other, _] = scene.authority.server(&scene.directory, "other", Kind::Ecdsa);
    let of_other = made(&scene.directory, &scene.authority, &other, "V");
    let revoked = made(&scene.directory, &scene.authority, &scene.cert, "R");
    let is_none = |status: &serde_json::Value| *ocsp(status) == "none" && status["warnings"] == serde_json::json!([]);
    scene.baton.wait_for_status(is_none);
    for (bad, reason) in [
        (expired(good.clone()), "it has expired"),
        (of_other, "it is about another certificate"),
        (revoked, "it says that the certificate is revoked"),
        (b"nothing of the kind".to_vec(), "it is no OCSP response in DER"),
    ] {
        scene.put(&good);
        scene.baton.wait_for_status(|status| {
            ocsp(status)["stapled"]["until_s"].is_i64() && status["warnings"] == serde_json::json!([])
        });
        assert!(scene.is_stapled());
        scene.put(&bad);
        let status = scene.baton.wait_for_status(|status| status["warnings"].to_string().contains(reason));
        assert_eq!(status["warnings"].as_array().unwrap().len(), 1, "{}", status["warnings"]);
        assert!(!scene.is_stapled(), "{reason}");
        let said = scene.checked();
        assert!(said.contains(reason.strip_prefix("it ").unwrap()), "{said}");
    }
    fs::remove_file(scene.response()).unwrap();
    scene.baton.wait_for_status(is_none);
    assert!(!scene.is_stapled());
}

#[test]
fn program_starts_with_a_response_that_is_of_no_use() {
    let scene = Scene::new(|directory, authority, cert| Some(expired(made(directory, authority, cert, "V"))));
    assert!(!scene.is_stapled());
    scene.baton.wait_for_status(|status| status["warnings"].to_string().contains("it has expired"));
}
