//! Certificates, authorities and revocation lists that openssl makes for a test, and openssl as a client.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::baton::Directory;

/// Runs openssl, and gives what it printed.
pub fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): install package openssl"));
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a key is made for.
#[derive(Clone, Copy)]
pub enum Kind {
    Ecdsa,
    Ecdsa384,
    Rsa,
    Ed25519,
}

impl Kind {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ecdsa => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
            Self::Ecdsa384 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
            Self::Rsa => &["-newkey", "rsa:2048"],
            Self::Ed25519 => &["-newkey", "ed25519"],
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test directories are UTF-8")
}

/// Makes `FILE.crt` and `FILE.key`, self-signed, for these names.
pub fn self_signed(directory: &Directory, file: &str, kind: Kind, names: &[&str], days: u32) -> [PathBuf; 2] {
    let files = [directory.path(&format!("{file}.crt")), directory.path(&format!("{file}.key"))];
    let alternatives = names.iter().map(|name| format!("DNS:{name}")).collect::<Vec<_>>().join(",");
    let (subject, alternatives) = (format!("/CN={file}"), format!("subjectAltName={alternatives}"));
    let days = days.to_string();
    let fixed = ["req", "-x509", "-nodes", "-days", &days, "-subj", &subject, "-addext", &alternatives];
    let [cert, key] = &files;
    openssl(&[&fixed, kind.arguments(), &["-keyout", text(key), "-out", text(cert)]].concat());
    files
}

/// An authority with clients, and a list of those that it has revoked.
pub struct Authority {
    pub cert: PathBuf,
    key: PathBuf,
    pub crl: PathBuf,
    database: PathBuf,
    config: PathBuf,
}

impl Authority {
    pub fn new(directory: &Directory, name: &str) -> Self {
        Self::of(directory, name, Kind::Ecdsa)
    }

    /// One that signs with a key of this kind. All of them have one name.
    pub fn of(directory: &Directory, name: &str, kind: Kind) -> Self {
        let at = |extension: &str| directory.path(&format!("{name}.{extension}"));
        let authority = Self { cert: at("crt"), key: at("key"), crl: at("crl"), database: at("db"), config: at("cnf") };
        let fixed = ["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=Test Authority"];
        let usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        let files = ["-keyout", text(&authority.key), "-out", text(&authority.cert)];
        openssl(&[&fixed, kind.arguments(), &usage, &files].concat());
        fs::write(&authority.database, "").expect("the directory is writable");
        let config = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {}\ndefault_md = sha256\ndefault_crl_days = 30\ncrl_extensions = crl\n\
             [crl]\nauthorityKeyIdentifier = keyid\n",
            authority.database.display()
        );
        fs::write(&authority.config, config).expect("the directory is writable");
        authority.write_list();
        authority
    }

    /// What it signs with.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// A client's certificate and key.
    pub fn client(&self, directory: &Directory, file: &str, subject: &str) -> [PathBuf; 2] {
        self.signed(directory, file, Kind::Ecdsa, subject, &["-addext", "extendedKeyUsage=clientAuth"], "90")
    }

    fn signed(
        &self,
        directory: &Directory,
        file: &str,
        kind: Kind,
        subject: &str,
        extensions: &[&str],
        days: &str,
    ) -> [PathBuf; 2] {
        let at = |extension: &str| directory.path(&format!("{file}.{extension}"));
        let (cert, key, request) = (at("crt"), at("key"), at("csr"));
        let fixed = ["req", "-nodes", "-utf8", "-subj", subject, "-keyout", text(&key), "-out", text(&request)];
        openssl(&[&fixed, kind.arguments(), extensions].concat());
        let fixed = ["x509", "-req", "-in", text(&request), "-out", text(&cert), "-days", days];
        let signer = ["-CA", text(&self.cert), "-CAkey", text(&self.key), "-CAcreateserial"];
        openssl(&[&fixed[..], &signer, &["-copy_extensions", "copyall"]].concat());
        [cert, key]
    }

    /// A server's certificate for localhost, and its key.
    pub fn server(&self, directory: &Directory, file: &str, kind: Kind) -> [PathBuf; 2] {
        let extensions = [
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "extendedKeyUsage=serverAuth",
            "-addext",
            "crlDistributionPoints=URI:http://localhost/list",
        ];
        self.signed(directory, file, kind, "/CN=localhost", &extensions, "90")
    }

    /// A certificate of a responder, good for three days, and its key; with this as its extendedKeyUsage.
    pub fn responder(&self, directory: &Directory, file: &str, usage: &str) -> [PathBuf; 2] {
        let usage = format!("extendedKeyUsage={usage}");
        self.signed(directory, file, Kind::Ecdsa, "/CN=Test Responder", &["-addext", &usage], "3")
    }

    /// Answers what a responder would be asked about a certificate of its own, good for a week.
    pub fn ocsp(&self, cert: &Path, response: &Path, status: &str) {
        self.ocsp_signed(cert, response, status, [&self.cert, &self.key], &[]);
    }

    /// The same, signed by somebody else.
    pub fn ocsp_signed(&self, cert: &Path, response: &Path, status: &str, by: [&Path; 2], arguments: &[&str]) {
        let printed = openssl(&["x509", "-in", text(cert), "-noout", "-serial"]);
        let serial = printed.split_once('=').expect("it prints NAME=DIGITS").1.trim();
        let revoked = if status == "R" { "260101000000Z" } else { "" };
        let index = response.with_extension("index");
        fs::write(&index, format!("{status}\t491231235959Z\t{revoked}\t{serial}\tunknown\t/CN=localhost\n")).unwrap();
        let fixed = ["ocsp", "-index", text(&index), "-CA", text(&self.cert), "-issuer", text(&self.cert), "-noverify"];
        let signer = ["-rsigner", text(by[0]), "-rkey", text(by[1]), "-ndays", "7"];
        let rest = ["-cert", text(cert), "-respout", text(response)];
        openssl(&[&fixed[..], &signer, arguments, &rest].concat());
    }

    /// Revokes a certificate, and writes the list anew.
    pub fn revoke(&self, cert: &Path) {
        self.ca(&["-revoke", text(cert)]);
        self.write_list();
    }

    fn write_list(&self) {
        self.ca(&["-gencrl", "-out", text(&self.crl)]);
    }

    fn ca(&self, arguments: &[&str]) {
        let fixed =
            ["ca", "-batch", "-config", text(&self.config), "-cert", text(&self.cert), "-keyfile", text(&self.key)];
        openssl(&[&fixed[..], arguments].concat());
    }
}

/// SHA-256 of a certificate in hex.
pub fn fingerprint(cert: &Path) -> String {
    let printed = openssl(&["x509", "-in", text(cert), "-noout", "-fingerprint", "-sha256"]);
    let digits = printed.split_once('=').expect("it prints NAME=DIGITS").1;
    digits.trim().replace(':', "").to_ascii_lowercase()
}

/// What `openssl s_client` says of a handshake.
pub struct Handshake {
    pub is_done: bool,
    pub text: String,
}

/// Makes a handshake and nothing more.
pub fn handshake(address: SocketAddr, arguments: &[&str]) -> Handshake {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string()]).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("openssl cannot be run ({error}): install openssl"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Handshake { is_done: output.status.success() && text.contains("\nNew, TLSv1."), text }
}

impl Handshake {
    /// The common name of the certificate that was served.
    pub fn served(&self) -> &str {
        let line = self.text.lines().find_map(|line| line.trim().strip_prefix("0 s:CN = "));
        line.unwrap_or_else(|| panic!("no certificate was served: {}", self.text))
    }
}
