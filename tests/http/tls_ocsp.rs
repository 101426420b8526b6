//! OCSP responses that are stapled to certificates, made and looked at by openssl.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::baton::{Baton, Directory};
use crate::curl::curl;
use crate::server::{Port, Server};
use crate::tls_files::{Authority, Kind, handshake, openssl};

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
        Self::of(Kind::Rsa, make)
    }

    /// Of an authority with such a key, whose certificate is in the chain.
    fn of(kind: Kind, make: impl FnOnce(&Directory, &Authority, &PathBuf) -> Option<Vec<u8>>) -> Self {
        let (server, directory, admin) = (Server::saying("ok"), Directory::new(), Port::reserve());
        let authority = Authority::of(&directory, "authority", kind);
        let [cert, key] = authority.server(&directory, "site", Kind::Ecdsa);
        let chain = [fs::read(&cert).unwrap(), fs::read(&authority.cert).unwrap()].concat();
        fs::write(&cert, chain).unwrap();
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
        self.put_as(&self.response(), response);
    }

    fn put_as(&self, path: &Path, content: &[u8]) {
        let new = self.directory.path("new.ocsp");
        fs::write(&new, content).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Puts one there that is stapled.
    fn put_good(&self, response: &[u8]) {
        self.put(response);
        self.baton.wait_for_status(|status| {
            ocsp(status)["stapled"]["until_s"].is_i64() && status["warnings"] == serde_json::json!([])
        });
        assert!(self.is_stapled());
    }

    /// Puts one there that is not stapled, for this reason.
    fn put_bad(&self, response: &[u8], reason: &str) {
        self.put(response);
        let status = self.baton.wait_for_status(|status| status["warnings"].to_string().contains(reason));
        assert_eq!(status["warnings"].as_array().unwrap().len(), 1, "{}", status["warnings"]);
        assert!(!self.is_stapled(), "{reason}");
        let said = self.checked();
        assert!(said.contains(reason.strip_prefix("it ").unwrap()), "{said}");
    }

    /// What somebody says of the certificate.
    fn signed_by(&self, by: &[PathBuf; 2], arguments: &[&str]) -> Vec<u8> {
        let response = self.directory.path("signed.ocsp");
        self.authority.ocsp_signed(&self.cert, &response, "V", [&by[0], &by[1]], arguments);
        fs::read(response).unwrap()
    }
}

fn made(directory: &Directory, authority: &Authority, cert: &Path, status: &str) -> Vec<u8> {
    let response = directory.path("made.ocsp");
    authority.ocsp(cert, &response, status);
    fs::read(response).unwrap()
}

/// The same with a nextUpdate that is over: the third time in it, after producedAt and thisUpdate.
fn changed(mut response: Vec<u8>) -> Vec<u8> {
    let times: Vec<usize> = (0..response.len() - 2).filter(|at| response[*at..].starts_with(b"\x18\x0f2")).collect();
    assert!(times.len() >= 3);
    response[times[2] + 2..times[2] + 6].copy_from_slice(b"2001");
    response
}

/// One with a nextUpdate that is over, signed anew. The authority has a key of RSA, whose signatures have one length, and
/// here the last bytes.
fn expired(directory: &Directory, authority: &Authority, cert: &Path) -> Vec<u8> {
    let response = directory.path("expired.ocsp");
    authority.ocsp_signed(cert, &response, "V", [&authority.cert, authority.key()], &["-resp_no_certs"]);
    let mut response = changed(fs::read(response).unwrap());
    // Before it the heads of seven elements, their lengths in two bytes each; behind it the algorithm's name.
    let (signed, signature) = (34..response.len() - 276, response.len() - 256);
    assert_eq!(&response[signed.end..signed.end + 2], b"\x30\x0d");
    let (content, made) = (directory.path("signed.content"), directory.path("signed.signature"));
    fs::write(&content, &response[signed]).unwrap();
    let files = [authority.key(), &made, &content].map(|path| path.to_str().unwrap());
    openssl(&["dgst", "-sha256", "-sign", files[0], "-out", files[1], files[2]]);
    response[signature..].copy_from_slice(&fs::read(made).unwrap());
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
        (expired(&scene.directory, &scene.authority, &scene.cert), "it has expired"),
        (of_other, "it is about another certificate"),
        (revoked, "it says that the certificate is revoked"),
        (b"nothing of the kind".to_vec(), "it is no OCSP response in DER"),
    ] {
        scene.put_good(&good);
        scene.put_bad(&bad, reason);
    }
    fs::remove_file(scene.response()).unwrap();
    scene.baton.wait_for_status(is_none);
    assert!(!scene.is_stapled());
}

#[test]
fn program_starts_with_a_response_that_is_of_no_use() {
    let scene = Scene::new(|directory, authority, cert| Some(expired(directory, authority, cert)));
    assert!(!scene.is_stapled());
    scene.baton.wait_for_status(|status| status["warnings"].to_string().contains("it has expired"));
}

#[test]
fn signatures_of_every_kind_of_issuer_are_believed() {
    for kind in [Kind::Ecdsa, Kind::Ecdsa384, Kind::Ed25519] {
        let scene = Scene::of(kind, |directory, authority, cert| Some(made(directory, authority, cert, "V")));
        assert!(scene.is_stapled(), "{}", scene.checked());
    }
    let scene = Scene::new(|_, _, _| None);
    let own = [scene.authority.cert.clone(), scene.authority.key().to_owned()];
    for digest in ["sha256", "sha384", "sha512"] {
        scene.put_good(&scene.signed_by(&own, &["-rmd", digest]));
        scene.put_bad(b"", "it is no OCSP response in DER");
    }
    scene.put_bad(&scene.signed_by(&own, &["-rmd", "sha1"]), "it is signed with an algorithm that is not believed");
}

#[test]
fn responders_are_believed_that_the_issuer_has_appointed() {
    let scene = Scene::new(|_, _, _| None);
    let responder = scene.authority.responder(&scene.directory, "responder", "OCSPSigning");
    let (by_name, by_key) = (scene.signed_by(&responder, &[]), scene.signed_by(&responder, &["-resp_key_id"]));
    scene.put_good(&by_name);
    let status = scene.baton.status();
    let until_s = ocsp(&status)["stapled"]["until_s"].as_i64().unwrap();
    let not_after_s = status["certificates"][0]["not_after_s"].as_i64().unwrap();
    // The response is good for a week, who signed it for three days, and the certificate for 90.
    assert!((87 * 86_400 - 60..=87 * 86_400 + 60).contains(&(not_after_s - until_s)), "{until_s}");

    let impostor = Authority::of(&scene.directory, "impostor", Kind::Rsa);
    let impostors_own = [impostor.cert.clone(), impostor.key().to_owned()];
    let of_impostor = impostor.responder(&scene.directory, "of_impostor", "OCSPSigning");
    let for_servers = scene.authority.responder(&scene.directory, "for_servers", "serverAuth");
    let unknown = "it is signed neither by the certificate's issuer nor by a responder of it, or was changed";
    let not_appointed = "it is signed by a responder that the issuer has not appointed";
    for (bad, reason) in [
        (scene.signed_by(&impostors_own, &["-resp_no_certs"]), unknown),
        (scene.signed_by(&responder, &["-resp_no_certs"]), unknown),
        (changed(by_name), unknown),
        (scene.signed_by(&impostors_own, &[]), not_appointed),
        (scene.signed_by(&of_impostor, &[]), not_appointed),
        (scene.signed_by(&for_servers, &[]), not_appointed),
    ] {
        scene.put_bad(&bad, reason);
        scene.put_good(&by_key);
    }
}

#[test]
fn issuer_may_be_beside_the_certificate() {
    let scene = Scene::new(|directory, authority, cert| Some(made(directory, authority, cert, "V")));
    assert!(scene.is_stapled());
    let chain = fs::read_to_string(&scene.cert).unwrap();
    let leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let missing = "it cannot be verified: the issuer's certificate is not in the chain";
    scene.put_as(&scene.cert, leaf.as_bytes());
    scene.put_bad(&fs::read(scene.response()).unwrap(), missing);

    let beside = scene.directory.path("site.crt.issuer");
    scene.put_as(&beside, &fs::read(&scene.authority.cert).unwrap());
    scene.put_good(&fs::read(scene.response()).unwrap());
    // Another one of the same name.
    let impostor = Authority::of(&scene.directory, "impostor", Kind::Rsa);
    scene.put_as(&beside, &fs::read(impostor.cert).unwrap());
    scene.put_bad(&fs::read(scene.response()).unwrap(), missing);
    scene.put_as(&beside, b"nothing of the kind");
    scene.put_bad(&fs::read(scene.response()).unwrap(), "it cannot be verified: the .issuer file holds no certificate");
}
