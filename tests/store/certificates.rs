//! TLS towards a store, with certificates that openssl makes for the test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::server::{Directory, RedisServer, free_port};

/// An authority and a certificate for 127.0.0.1 that it signed.
pub struct Certificates {
    pub authority: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    _directory: Directory,
}

impl Certificates {
    pub fn make() -> Self {
        let directory = Directory::new();
        let path = |name: &str| directory.path().join(name);
        let (authority, authority_key) = (path("ca.crt"), path("ca.key"));
        let (cert, key, request, extension) = (path("tls.crt"), path("tls.key"), path("tls.csr"), path("ext"));
        fs::write(&extension, "subjectAltName=IP:127.0.0.1\n").unwrap();
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let mut command = openssl(&["req", "-x509", "-days", "2", "-subj", "/CN=authority"]);
        run(command.args(new_key).arg("-keyout").arg(&authority_key).arg("-out").arg(&authority));
        let mut command = openssl(&["req", "-subj", "/CN=store"]);
        run(command.args(new_key).arg("-keyout").arg(&key).arg("-out").arg(&request));
        let mut command = openssl(&["x509", "-req", "-days", "2", "-CAcreateserial"]);
        command.arg("-in").arg(&request).arg("-CA").arg(&authority).arg("-CAkey").arg(&authority_key);
        run(command.arg("-extfile").arg(&extension).arg("-out").arg(&cert));
        Self { authority, cert, key, _directory: directory }
    }

    /// A server that speaks TLS alone.
    pub fn server(&self, arguments: &[&str]) -> RedisServer {
        let port = free_port();
        let file = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let of_tls = [
            ["--port", "0"].map(str::to_owned),
            ["--tls-port".to_owned(), port.to_string()],
            ["--tls-auth-clients", "no"].map(str::to_owned),
            ["--tls-cert-file".to_owned(), file(&self.cert)],
            ["--tls-key-file".to_owned(), file(&self.key)],
            ["--tls-ca-cert-file".to_owned(), file(&self.authority)],
        ];
        let further = arguments.iter().map(|&argument| argument.to_owned());
        RedisServer::with(port, of_tls.concat().into_iter().chain(further).collect())
    }
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): install package openssl"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
