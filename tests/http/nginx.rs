//! The real nginx as a server behind the program.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::Directory;
use crate::server::Port;

/// A running nginx, killed at its drop.
pub struct Nginx {
    child: Child,
    port: Port,
    directory: Directory,
}

impl Nginx {
    /// With a server block of these directives that listens with these options besides.
    pub fn start(options: &str, directives: &str) -> Self {
        let (directory, port) = (Directory::new(), Port::reserve());
        let at = |name: &str| directory.path(name).display().to_string();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};", at(name)))
            .join(" ");
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; master_process off; {user} pid {}; error_log {};\nevents {{}}\n\
             http {{ access_log off; {temporary}\n server {{ listen {} reuseport {options};\n{directives}\n }} }}\n",
            at("pid"),
            at("error.log"),
            port.address(),
        );
        let file = directory.path("nginx.conf");
        fs::write(&file, config).expect("the directory is writable");
        let mut command = Command::new("nginx");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-p").arg(directory.path(""));
        command.arg("-e").arg(at("error.log")).arg("-c").arg(file);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("nginx cannot be run ({error}): install package nginx"));
        let mut nginx = Self { child, port, directory };
        nginx.wait_until_it_listens();
        nginx
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.port.address()).is_err() {
            let ended = self.child.try_wait().expect("it is our child");
            let log = fs::read_to_string(self.directory.path("error.log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "nginx does not listen: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A certificate authority, and what it vouches for.
pub struct Authority {
    directory: Directory,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self { directory: Directory::new() };
        let (cert, key) = (authority.path("ca.crt"), authority.path("ca.key"));
        let arguments = ["-subj", "/CN=Test CA", "-addext", "basicConstraints=critical,CA:TRUE"];
        openssl(&arguments, &cert, &key);
        authority
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path(name)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A certificate for these names, such as `DNS:a.example`, and its key.
    pub fn certificate(&self, name: &str, names: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let (ca, ca_key) = (self.ca_file().display().to_string(), self.path("ca.key").display().to_string());
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName={names}"));
        let arguments = ["-CA", &ca, "-CAkey", &ca_key, "-subj", &subject, "-addext", &names];
        openssl(&[&arguments[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat(), &cert, &key);
        (cert, key)
    }
}

fn openssl(arguments: &[&str], cert: &std::path::Path, key: &std::path::Path) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    let output = command.args(arguments).arg("-keyout").arg(key).arg("-out").arg(cert).output();
    let output = output.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): install package openssl"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
