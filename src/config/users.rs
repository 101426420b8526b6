//! A file of users, as `htpasswd` makes it: a name, a colon and the hash of a password on each line.
//!
//! Only hashes that are slow to guess are taken: bcrypt (`htpasswd -B`), and the SHA-2 ones of crypt(5) (`htpasswd -5`,
//! `openssl passwd -6`). Reading and verifying is all there is here; who asks for a password is the proxy's affair.

use std::collections::HashMap;

use sha_crypt::password_hash::PasswordVerifier;
use sha_crypt::{PasswordHashRef, ShaCrypt};

/// Users of a file; more are refused.
pub const USERS_MAX: usize = 100_000;

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 128;

/// Bytes of a password that are looked at all. The work of crypt's SHA-2 grows with their square.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// The costliest hashes that are taken: about a second of a core each.
const BCRYPT_COST_MAX: u32 = 14;
const SHA_ROUNDS: std::ops::RangeInclusive<u32> = 1000..=1_000_000;

const REMEDY: &str = "set the password anew with `htpasswd -B`";

/// Users, and the hashes of their passwords.
#[derive(Clone, Default)]
pub struct Users {
    hashes: HashMap<String, Hash>,
    /// What is computed for users that there are none of, so that time does not tell them apart.
    decoy: Option<Hash>,
}

/// Shows nothing of the hashes.
impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.hashes.len())
    }
}

#[derive(Clone)]
enum Hash {
    Bcrypt(String),
    Sha(String),
}

/// What is wrong with a file of users. No hash stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct UsersError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub rule: String,
    /// What to do.
    pub remedy: &'static str,
}

impl Users {
    /// Reads a file: a user a line, comments from `#` at its beginning, empty lines.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, UsersError> {
        let mut users = Self::default();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            users.add(line).map_err(|(rule, remedy)| UsersError { line: index + 1, rule, remedy })?;
        }
        users.decoy = users.hashes.values().next().cloned();
        Ok(users)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), (String, &'static str)> {
        let line = std::str::from_utf8(line).map_err(|_| ("is not UTF-8".to_owned(), "save the file as UTF-8"))?;
        let (name, hash) = line
            .split_once(':')
            .filter(|(name, _)| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
            .ok_or(("is no user:hash".to_owned(), "write lines as `htpasswd -B` makes them"))?;
        let hash = Hash::read(hash).map_err(|(rule, remedy)| (format!("user {name}: {rule}"), remedy))?;
        if self.hashes.insert(name.to_owned(), hash).is_some() {
            return Err((format!("user {name} is there twice"), "leave one of the two out"));
        }
        if self.hashes.len() > USERS_MAX {
            return Err((
                format!("there are more than {USERS_MAX} users"),
                "authorize so many by a server of their own",
            ));
        }
        Ok(())
    }

    /// Whether that is the password of that user. Takes tenths of a second of a core, as long for users that there are
    /// none of.
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        match (self.hashes.get(name), &self.decoy) {
            (Some(hash), _) => hash.verify(password),
            (None, Some(decoy)) => {
                std::hint::black_box(decoy.verify(password));
                false
            }
            (None, None) => false,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none, so that nobody can come in.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

impl Hash {
    fn read(text: &str) -> Result<Self, (String, &'static str)> {
        let weak = |kind: &str| Err((format!("the password is {kind}, which is guessed too fast"), REMEDY));
        let broken = |kind: &str| Err((format!("the {kind} hash is malformed"), REMEDY));
        let mut fields = text.split('$').skip(1);
        match fields.next() {
            Some("2a" | "2b" | "2x" | "2y") => {
                let Ok(parts) = text.parse::<bcrypt::HashParts>() else { return broken("bcrypt") };
                if !(4..=BCRYPT_COST_MAX).contains(&parts.get_cost()) {
                    return Err((format!("the cost must be 4 to {BCRYPT_COST_MAX}"), "use `htpasswd -B -C 12`"));
                }
                Ok(Self::Bcrypt(text.to_owned()))
            }
            Some(id @ ("5" | "6")) => {
                let rounds = fields.next().and_then(|field| field.strip_prefix("rounds="));
                let rounds =
                    rounds.map(|rounds| rounds.parse::<u32>().ok().filter(|rounds| SHA_ROUNDS.contains(rounds)));
                if rounds == Some(None) {
                    return Err(("the rounds must be 1000 to 1000000".to_owned(), "use `htpasswd -5 -r 100000`"));
                }
                let (salt, hash) = text.rsplit_once('$').unwrap_or_default();
                let hash_chars = if id == "5" { 43 } else { 86 };
                let fields_wanted = if rounds.is_some() { 4 } else { 3 };
                let is_whole = salt.split('$').count() == fields_wanted && hash.len() == hash_chars;
                let is_known = is_whole && PasswordHashRef::new(text).is_ok();
                if is_known { Ok(Self::Sha(text.to_owned())) } else { broken("SHA-2") }
            }
            Some("apr1" | "1") => weak("hashed with MD5"),
            _ if text.starts_with("{SHA}") => weak("hashed with SHA-1"),
            Some(_) => Err(("the password is hashed in a way that is not known here".to_owned(), REMEDY)),
            None => weak("in clear or hashed with DES"),
        }
    }

    fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Sha(hash) => ShaCrypt::default().verify_password(password, hash.as_str()).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `htpasswd` 2.4 made it: `-B -C 4`, `-5`, `-2`; the last as `openssl passwd -6` did.
    const FILE: &str = "# staff\n\
        ann:$2y$04$uFev.dW4A8NsoKgBLgm6BuN8jFf54OwRxZEuA3Yj3TI3jdQk.ruE6\r\n\n\
        bob:$6$njQsDN8AUnSxpj5j$WNECQaS7nuz9nv4SAmWuLSdfyYdFI28WBMdDy0v0H25F21QMW/PLKOyVRwkeH0ExRL55wBFoB26KAdrDR8zoM0\n\
        eve:$5$tcQhatP2HcG8DzBc$2nl4qGcoH9BX3NsEBa3LDReSSlqMR/9gjrX4NB0.S02\n\
        urs:$6$abcdefgh$Oy3078TWpAsMvE7uEsidL9yBTa6kkece7KQAQ.4HH/UeUovVscFX3tOHfwLnJNyPIfeMvN/Gn2zbYrdFUQeA00";

    #[test]
    fn passwords_are_those_that_htpasswd_and_openssl_hashed() {
        let users = Users::parse(FILE.as_bytes()).unwrap();
        assert_eq!(users.len(), 4);
        for (name, password) in [("ann", "secret"), ("bob", "s3cret"), ("eve", "pw"), ("urs", "Grüße")] {
            assert!(users.verify(name, password.as_bytes()), "{name}");
            for wrong in ["", "Secret", "secret ", &format!("{password}\0"), &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
                assert!(!users.verify(name, wrong.as_bytes()), "{name} with {wrong:?}");
            }
        }
        for name in ["", "Ann", "ann ", "nobody"] {
            assert!(!users.verify(name, b"secret"), "{name}");
        }
        assert!(!Users::parse(b"").unwrap().verify("ann", b"secret"));
        assert_eq!(format!("{users:?}"), "Users(4)");
    }

    #[test]
    fn hashes_that_are_guessed_too_fast_are_refused_with_the_line_and_a_remedy() {
        let refused = |line: &str| {
            let error = Users::parse(format!("# one\n{line}\n").as_bytes()).unwrap_err();
            assert!(!error.remedy.is_empty());
            error.to_string()
        };
        let weak = "which is guessed too fast";
        for (line, rule) in [
            (
                "a:$apr1$VymqovTw$G.laO56kXe4PL.gIzUQyZ1",
                &format!("user a: the password is hashed with MD5, {weak}")[..],
            ),
            ("a:$1$VymqovTw$G.laO56kXe4PL.gIzUQyZ1", &format!("user a: the password is hashed with MD5, {weak}")),
            ("a:{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=", &format!("user a: the password is hashed with SHA-1, {weak}")),
            ("a:2NRAf.bGMvbpI", &format!("user a: the password is in clear or hashed with DES, {weak}")),
            ("a:", &format!("user a: the password is in clear or hashed with DES, {weak}")),
            ("a:$y$j9T$x$y", "user a: the password is hashed in a way that is not known here"),
            ("a:$2y$04$short", "user a: the bcrypt hash is malformed"),
            ("a:$2y$15$uFev.dW4A8NsoKgBLgm6BuN8jFf54OwRxZEuA3Yj3TI3jdQk.ruE6", "user a: the cost must be 4 to 14"),
            ("a:$6$abcdefgh$short", "user a: the SHA-2 hash is malformed"),
            ("a:$6$rounds=999$a$b", "user a: the rounds must be 1000 to 1000000"),
            ("a:$6$rounds=1000001$a$b", "user a: the rounds must be 1000 to 1000000"),
            ("nobody", "is no user:hash"),
            (":x", "is no user:hash"),
        ] {
            assert_eq!(refused(line), format!("line 2: {rule}"), "{line}");
        }
        let twice = "a:$5$tcQhatP2HcG8DzBc$2nl4qGcoH9BX3NsEBa3LDReSSlqMR/9gjrX4NB0.S02";
        assert_eq!(refused(&format!("{twice}\n{twice}")), "line 3: user a is there twice");
    }
}
