//! The files besides the configuration that the worker needs: which they are, and how one is read.
//!
//! The worker opens no file. The guard reads these for it ([`read_file`]) and hands over what has
//! changed; `baton check` reads them as the guard would.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::key::not_ours;
use super::model::{Config, DiscoverySource, Health, Listener, RESOLV_CONF, Route};
use super::staple;

/// Bytes of one file: a million lines of a list of networks, or a revocation list of 600,000 certificates.
pub const WORKER_FILE_MAX_BYTES: u64 = 24 << 20;

/// Bytes of one list of servers: the largest that there may be takes a fifth of it.
pub const SERVERS_FILE_MAX_BYTES: u64 = 1 << 20;

/// Files in one directory.
pub const DIRECTORY_FILES_MAX: usize = 4096;

/// Where systems keep the authorities that they believe, in one file: Debian, Red Hat, SUSE, Alpine.
pub const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The one of them that this machine has.
pub(super) fn system_roots() -> Option<&'static str> {
    SYSTEM_ROOTS.into_iter().find(|path| Path::new(path).exists())
}

/// A file, or a directory of files, that the worker needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFile {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
}

/// What a file is, which says how it is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// An OCSP response, or the certificate that one is verified with. It may be missing: then there is none, and nobody is
    /// told.
    Staple,
    /// Anybody may read it.
    Public,
    /// A secret: refused when others than its owner can read or change it, and never logged.
    Secret,
    /// A directory of certificates and keys ([`list_directory`]).
    Certificates,
    /// A list of servers, or a directory of such lists ([`list_servers`]). It may be missing: then the worker says so, and
    /// keeps the servers that it has.
    Servers,
}

/// Why a file that the worker needs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file, or it cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a secret, and others than its owner can read or change it.
    #[error("{} has mode {mode:04o}, so others than its owner can use what it holds", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a directory, a device or a pipe.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It is a directory with more than [`DIRECTORY_FILES_MAX`] files of certificates.
    #[error("{} holds more than {DIRECTORY_FILES_MAX} files", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// It is larger than [`WORKER_FILE_MAX_BYTES`], or [`SERVERS_FILE_MAX_BYTES`].
    #[error("{} is larger than {} MiB", path.display(), max_bytes >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it may have.
        max_bytes: u64,
    },
}

impl FileError {
    /// What an operator does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreadable { path, source } if source.kind() == io::ErrorKind::PermissionDenied => not_ours(path),
            Self::Unreadable { .. } => "put the file there, or change the path".to_owned(),
            Self::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            Self::TooMany { .. } => "spread them over several listeners".to_owned(),
            Self::NotAFile { .. } => "name a file".to_owned(),
            Self::TooLarge { .. } => "name a smaller file; none needs to be that large".to_owned(),
        }
    }
}

impl Config {
    /// The files that the worker needs, each once. The order says nothing.
    pub fn worker_files(&self) -> Vec<WorkerFile> {
        let mut files = Vec::new();
        for tls in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            for certificate in &tls.certificates {
                let optional = [staple::beside(&certificate.cert), staple::issuer_beside(&certificate.cert)];
                files.extend(optional.map(|path| WorkerFile { path, kind: FileKind::Staple }));
                files.push(WorkerFile { path: certificate.cert.clone(), kind: FileKind::Public });
                files.push(WorkerFile { path: certificate.key.clone(), kind: FileKind::Secret });
            }
            let directory = tls.certificate_dir.iter();
            files.extend(directory.map(|path| WorkerFile { path: path.clone(), kind: FileKind::Certificates }));
            if let Some(auth) = &tls.client_auth {
                let public = auth.crl_file.iter().chain([&auth.ca_file]);
                files.extend(public.map(|path| WorkerFile { path: path.clone(), kind: FileKind::Public }));
            }
        }
        for page in self.listeners.iter().flat_map(|listener| &listener.error_pages) {
            files.push(WorkerFile { path: page.file.clone(), kind: FileKind::Public });
        }
        for page in self.listeners.iter().flat_map(|listener| &listener.routes).flat_map(Route::body_files) {
            files.push(WorkerFile { path: page.to_owned(), kind: FileKind::Public });
        }
        for listener in &self.listeners {
            let of_routes = listener.routes.iter().flat_map(|route| route.access.files());
            let public = |path: &PathBuf| WorkerFile { path: path.clone(), kind: FileKind::Public };
            files.extend(listener.access.files().chain(of_routes).map(public));
        }
        let health = || self.pools.iter().filter_map(|pool| pool.health.as_ref());
        let passwords = health().filter_map(|health| health.way.password_file.clone());
        files.extend(passwords.map(|path| WorkerFile { path, kind: FileKind::Secret }));
        let of_checks = || health().filter_map(Health::own_tls);
        let of_sources = || self.pools.iter().filter_map(|pool| pool.discovery.as_ref()?.source.tls());
        let of_authorizers =
            || self.listeners.iter().flat_map(Listener::authorizers).filter_map(|asked| asked.tls.as_ref());
        let of_pools = || self.pools.iter().filter_map(|pool| pool.tls.as_ref());
        let tls = || of_pools().chain(of_sources()).chain(of_authorizers()).chain(of_checks());
        for certificate in tls().filter_map(|tls| tls.certificate.as_ref()) {
            files.push(WorkerFile { path: certificate.cert.clone(), kind: FileKind::Public });
            files.push(WorkerFile { path: certificate.key.clone(), kind: FileKind::Secret });
        }
        for tls in tls().filter(|tls| tls.verify) {
            let roots = || system_roots().unwrap_or_default().into();
            files.push(WorkerFile { path: tls.ca_file.clone().unwrap_or_else(roots), kind: FileKind::Public });
        }
        for discovery in self.pools.iter().filter_map(|pool| pool.discovery.as_ref()) {
            if let DiscoverySource::File { path } = &discovery.source {
                files.push(WorkerFile { path: path.clone(), kind: FileKind::Servers });
            }
            if discovery.source.has_name() && discovery.resolvers.is_none() {
                files.push(WorkerFile { path: RESOLV_CONF.into(), kind: FileKind::Public });
            }
            let token_file = discovery.source.token_file().into_iter();
            files.extend(token_file.map(|path| WorkerFile { path: path.clone(), kind: FileKind::Secret }));
        }
        // What is a secret to one of those who name it is a secret.
        files.sort_by(|one, other| one.path.cmp(&other.path).then(other.kind.cmp(&one.kind)));
        files.dedup_by(|later, earlier| later.path == earlier.path);
        files
    }
}

/// The files of a directory of certificates, in the order of their names: those that end in `.crt`, `.ocsp` or
/// `.issuer`, and as secrets those that end in `.key` or `.pem`. Hidden ones do not count.
///
/// # Errors
/// When it is no directory that can be read, or holds too many of them.
pub fn list_directory(path: &Path) -> Result<Vec<WorkerFile>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let kind = match name.rsplit_once('.') {
            Some((_, "crt")) => FileKind::Public,
            Some((_, "ocsp" | "issuer")) => FileKind::Staple,
            Some((_, "key" | "pem")) => FileKind::Secret,
            _ => continue,
        };
        files.push(WorkerFile { path: path.join(name), kind });
    }
    if files.len() > DIRECTORY_FILES_MAX {
        return Err(FileError::TooMany { path: path.to_owned() });
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// The files of a list of servers, in the order of their names: the file itself, or those of a directory that end in
/// `.json` or `.toml`. Hidden ones do not count.
///
/// # Errors
/// When it is a directory that cannot be read, or holds too many of them.
pub fn list_servers(path: &Path) -> Result<Vec<WorkerFile>, FileError> {
    if !path.is_dir() {
        return Ok(vec![WorkerFile { path: path.to_owned(), kind: FileKind::Servers }]);
    }
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        if matches!(name.rsplit_once('.'), Some((_, "json" | "toml"))) {
            files.push(WorkerFile { path: path.join(name), kind: FileKind::Servers });
        }
    }
    if files.len() > DIRECTORY_FILES_MAX {
        return Err(FileError::TooMany { path: path.to_owned() });
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// Opens a file that the configuration names, or the configuration itself, with what is known of it: the caller refuses what
/// is not a regular file. Nothing is waited for, such as somebody who writes to a named pipe.
///
/// # Errors
/// What open(2) or stat(2) says.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = rustix::fs::OFlags::NONBLOCK.union(rustix::fs::OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// Reads a file whole.
///
/// # Errors
/// See [`FileError`]. The mode is judged as root too, who could read the file whatever its mode: what matters is who else
/// can.
pub fn read_file(path: &Path, kind: FileKind) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let (file, metadata) = open(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if kind == FileKind::Secret && mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    let max_bytes = if kind == FileKind::Servers { SERVERS_FILE_MAX_BYTES } else { WORKER_FILE_MAX_BYTES };
    let content = read_at_most(&file, max_bytes + 1).map_err(unreadable)?;
    if content.len() as u64 > max_bytes {
        return Err(FileError::TooLarge { path: path.to_owned(), max_bytes });
    }
    Ok(content)
}

fn read_at_most(file: &File, max: u64) -> io::Result<Vec<u8>> {
    // At its full length at once, so that no copy of a secret is left where it had been before it grew.
    let len = file.metadata()?.len().min(max) as usize;
    let mut content = Vec::with_capacity(len + 1);
    file.take(max).read_to_end(&mut content)?;
    Ok(content)
}
