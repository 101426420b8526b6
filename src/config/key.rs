//! The pair key, advert keys and the password of VRRPv2: secrets that nodes share, each in a file of its own so that the
//! configuration holds none.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files;

/// Bytes of a key that `baton keygen` makes, and the fewest that are accepted.
pub const PAIR_KEY_LEN_BYTES: usize = 32;
/// A key longer than this is not a key but some other file.
const KEY_MAX_BYTES: usize = 512;

/// The secret that both nodes share. Never shown by `Debug`, and it has no `Display`.
#[derive(Clone)]
pub struct PairKey(Vec<u8>);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such file, or it cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others than the owner can read or change it.
    #[error("{} has mode {mode:04o}, so others than its owner can use the key", path.display())]
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
    /// It holds something else than a key.
    #[error("{} must hold 64 to 1024 hex digits in pairs, on one line", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl KeyError {
    /// What an operator does about it.
    pub fn remedy(&self) -> String {
        match self {
            KeyError::Unreadable { path, source } if source.kind() == io::ErrorKind::NotFound => {
                format!("make one with `baton keygen --out {}` on one node, and copy it to the other", path.display())
            }
            KeyError::Unreadable { path, .. } => not_ours(path),
            KeyError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            KeyError::NotAFile { .. } => "name the file that `baton keygen` made".to_owned(),
            KeyError::Malformed { path } => {
                format!("copy it again from the other node, or make one with `baton keygen --out {}`", path.display())
            }
        }
    }
}

impl PairKey {
    /// Reads a key file: at least 64 hex digits and a newline, as `baton keygen` writes it, open to its owner alone.
    ///
    /// # Errors
    /// See [`KeyError`]. The mode is judged as root too, who could read the file whatever its mode: what matters is who
    /// else can.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = read_secret(path, KEY_MAX_BYTES * 2 + 2)?;
        Self::parse(&text).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.trim_ascii_end();
        let (pairs, rest) = digits.as_chunks::<2>();
        let in_range = (PAIR_KEY_LEN_BYTES..=KEY_MAX_BYTES).contains(&pairs.len());
        if !in_range || !rest.is_empty() {
            return None;
        }
        let byte = |[high, low]: &[u8; 2]| Some(hex_digit(*high)? << 4 | hex_digit(*low)?);
        pairs.iter().map(byte).collect::<Option<Vec<u8>>>().map(Self)
    }

    /// A key that was loaded by the process that handed it over.
    pub fn from_bytes(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    /// The secret itself, at least 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairKey(..)")
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The password of VRRPv2 (RFC 2338 section 5.3.6), padded with zeros. It travels in clear, so that it keeps apart what was
/// wired together by mistake, and keeps nobody out. Never shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AdvertPassword([u8; 8]);

/// Why a password file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be used, whatever it holds.
    #[error(transparent)]
    File(#[from] KeyError),
    /// It holds something else than a password.
    #[error("{} must hold a password of 1 to {max} printable characters{kind}, on one line", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The most characters.
        max: usize,
        /// Which characters, where not all will do.
        kind: &'static str,
    },
}

impl PasswordError {
    /// What an operator does about the file of an [`AdvertPassword`].
    pub fn remedy(&self) -> String {
        self.remedy_for("that the other routers have")
    }

    /// What an operator does about the file of a [`StorePassword`].
    pub fn store_remedy(&self) -> String {
        self.remedy_for("of the store")
    }

    /// What an operator does about the file of a password that a health check needs.
    pub fn server_remedy(&self) -> String {
        self.remedy_for("of the server")
    }

    fn remedy_for(&self, whose: &str) -> String {
        match self {
            PasswordError::File(error @ (KeyError::Exposed { .. } | KeyError::Malformed { .. })) => error.remedy(),
            PasswordError::File(KeyError::Unreadable { path, source }) if source.kind() != io::ErrorKind::NotFound => {
                not_ours(path)
            }
            PasswordError::File(_) | PasswordError::Malformed { .. } => {
                format!("write the password {whose} into a file of its own, with mode 0600")
            }
        }
    }
}

impl AdvertPassword {
    /// Reads a password file, open to its owner alone: 1 to 8 printable ASCII characters without spaces, and a newline.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub fn load(path: &Path) -> Result<Self, PasswordError> {
        let text = read_secret(path, 16)?;
        Self::parse(&text).ok_or_else(|| PasswordError::Malformed {
            path: path.to_owned(),
            max: 8,
            kind: " without spaces",
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let password = text.trim_ascii_end();
        let mut padded = [0; 8];
        let room = padded.get_mut(..password.len())?;
        if password.is_empty() || !password.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        room.copy_from_slice(password);
        Some(Self(padded))
    }

    /// As it stands in an advert.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Debug for AdvertPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdvertPassword(..)")
    }
}

/// The password of a session store. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct StorePassword(String);

/// More is not a password but some other file.
const STORE_PASSWORD_MAX: usize = 512;

impl StorePassword {
    /// Reads a password file, open to its owner alone: 1 to 512 bytes of printable characters, and a newline.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub fn load(path: &Path) -> Result<Self, PasswordError> {
        let text = read_secret(path, STORE_PASSWORD_MAX + 3)?;
        Self::from_bytes(&text).ok_or_else(|| PasswordError::Malformed {
            path: path.to_owned(),
            max: STORE_PASSWORD_MAX,
            kind: "",
        })
    }

    /// The password that a file holds; `None` when it is no such file.
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        let password = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
        let good = (1..=STORE_PASSWORD_MAX).contains(&password.len()) && !password.contains(char::is_control);
        good.then(|| Self(password.to_owned()))
    }

    /// The password itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StorePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorePassword(..)")
    }
}

/// What a request over the admin listener has to bring along to change something. Never shown by `Debug`.
#[derive(Clone)]
pub struct AdminToken(Vec<u8>);

/// The shortest token: as much as 16 random bytes in Base64 without padding.
const TOKEN_BYTES_MIN: usize = 22;
const TOKEN_BYTES_MAX: usize = 512;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be used, whatever it holds.
    #[error(transparent)]
    File(#[from] KeyError),
    /// It holds something else than a token.
    #[error("{} must hold a token of 22 to 512 printable characters without spaces, on one line", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl TokenError {
    /// What an operator does about it.
    pub fn remedy(&self) -> String {
        match self {
            TokenError::File(error @ KeyError::Exposed { .. }) => error.remedy(),
            TokenError::File(KeyError::Unreadable { path, source }) if source.kind() != io::ErrorKind::NotFound => {
                not_ours(path)
            }
            TokenError::File(_) | TokenError::Malformed { .. } => {
                "make one with `baton keygen --out FILE`, or write random characters into a file with mode 0600"
                    .to_owned()
            }
        }
    }
}

impl AdminToken {
    /// Reads a token file, open to its owner alone: 22 to 512 printable ASCII characters without spaces, and a newline.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text = read_secret(path, TOKEN_BYTES_MAX + 2)?;
        Self::parse(&text).ok_or_else(|| TokenError::Malformed { path: path.to_owned() })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let token = text.trim_ascii_end();
        let is_token =
            (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        is_token.then(|| Self(token.to_vec()))
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// What an operator does about a file that we may not read.
pub(super) fn not_ours(path: &Path) -> String {
    format!("let the user that baton runs as own it, as with `chown baton {}`, or run as root", path.display())
}

/// The beginning of a file that its owner alone can use. Where it is another user's, what the service manager has handed
/// over under its name.
fn read_secret(path: &Path, max_bytes: usize) -> Result<Vec<u8>, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let (file, metadata) = match files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            refuse_exposed(path, std::fs::metadata(path).map_err(unreadable)?.mode())?;
            return handed_over(path, max_bytes).ok_or_else(|| unreadable(error));
        }
        opened => opened.map_err(unreadable)?,
    };
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: path.to_owned() });
    }
    refuse_exposed(path, metadata.mode())?;
    read_at_most(&file, max_bytes).map_err(unreadable)
}

fn refuse_exposed(path: &Path, mode: u32) -> Result<(), KeyError> {
    let mode = mode & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyError::Exposed { path: path.to_owned(), mode }) }
}

/// What systemd's `LoadCredential=NAME:PATH` has copied for this service alone, where NAME is the file's own name. An empty
/// line stands for a file that was not there.
fn handed_over(path: &Path, max_bytes: usize) -> Option<Vec<u8>> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    let file = File::open(Path::new(&directory).join(path.file_name()?)).ok()?;
    read_at_most(&file, max_bytes).ok().filter(|content| !content.trim_ascii().is_empty())
}

/// The content of a file, cut after `max` bytes.
fn read_at_most(file: &File, max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(max as u64).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_pairs_of_hex_digits() {
        let digits = "0123456789abcdefABCDEF00000000000000000000000000000000000000000f";
        assert_eq!(digits.len(), 64);
        let key = PairKey::parse(format!("{digits}\n").as_bytes()).expect("64 hex digits are a key");
        assert_eq!(key.as_bytes().len(), 32);
        assert_eq!(key.as_bytes()[..4], [0x01, 0x23, 0x45, 0x67]);
        assert_eq!(key.as_bytes()[31], 0x0f);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let parses = |text: &str| PairKey::parse(text.as_bytes()).is_some();
        assert!(!parses(""));
        assert!(!parses(&"a".repeat(62)));
        assert!(!parses(&"a".repeat(65)));
        assert!(!parses(&"g".repeat(64)));
        assert!(!parses(&format!(" {}", "a".repeat(64))));
        assert!(parses(&"a".repeat(64)));
        assert!(parses(&"a".repeat(1024)));
        assert!(!parses(&"a".repeat(1026)));
    }

    #[test]
    fn a_token_is_22_to_512_printable_characters() {
        let parses = |text: &str| AdminToken::parse(text.as_bytes()).is_some();
        assert!(!parses(&"a".repeat(21)));
        assert!(parses(&"a".repeat(22)));
        assert!(parses(&(("Az09+/=-_.~!".repeat(42) + "12345678") + "\n")));
        assert!(!parses(&"a".repeat(513)));
        assert!(!parses(&format!("{} {}", "a".repeat(20), "b".repeat(20))));
        assert!(!parses(&"\u{fc}".repeat(22)));
        let token = AdminToken::parse(&[b'x'; 22]).expect("it is long enough");
        assert_eq!(format!("{token:?}"), "AdminToken(..)");
    }

    #[test]
    fn a_password_is_one_to_eight_characters_padded_with_zeros() {
        let parsed = |text: &str| AdvertPassword::parse(text.as_bytes()).map(|password| *password.as_bytes());
        assert_eq!(parsed("secret\n"), Some(*b"secret\0\0"));
        assert_eq!(parsed("eight888\r\n"), Some(*b"eight888"));
        assert_eq!(parsed("nine99999"), None);
        assert_eq!(parsed("\n"), None);
        assert_eq!(parsed("a b"), None);
        assert_eq!(parsed("pa\u{e9}"), None);
    }

    #[test]
    fn a_store_password_is_a_line_of_any_printable_characters() {
        let parsed =
            |text: &str| StorePassword::from_bytes(text.as_bytes()).map(|password| password.as_str().to_owned());
        assert_eq!(parsed("two words\n").as_deref(), Some("two words"));
        assert_eq!(parsed("p\u{e4}ss\r\n").as_deref(), Some("p\u{e4}ss"));
        assert_eq!(parsed(&"x".repeat(512)).map(|password| password.len()), Some(512));
        assert_eq!(parsed(&"x".repeat(513)), None);
        assert_eq!(parsed("\n"), None);
        assert_eq!(parsed("one\ntwo\n"), None);
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", StorePassword("secret".to_owned())), "StorePassword(..)");
        let key = PairKey::parse("ab".repeat(32).as_bytes()).expect("64 hex digits are a key");
        assert_eq!(format!("{key:?}"), "PairKey(..)");
    }
}
