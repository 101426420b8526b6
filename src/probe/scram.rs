//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::exchange::no_sense;

/// A server could keep us busy with more: PostgreSQL has 4096.
const ITERATIONS_MAX: u32 = 100_000;

/// One login.
pub(super) struct Scram {
    nonce: String,
    /// What the server has to sign in the end.
    signature: Option<hmac::Tag>,
}

impl Scram {
    pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

    pub(super) fn new() -> Result<Self, String> {
        let mut random = [0; 18];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
        Ok(Self { nonce: STANDARD.encode(random), signature: None })
    }

    fn first_bare(&self) -> String {
        // PostgreSQL takes the user from the beginning of the connection.
        format!("n=,r={}", self.nonce)
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.first_bare())
    }

    /// The answer to what the server says first.
    pub(super) fn answer(&mut self, challenge: &[u8], password: &str) -> Result<String, String> {
        let wrong = || no_sense(challenge);
        let text = std::str::from_utf8(challenge).map_err(|_| wrong())?;
        let field = |name: &str| text.split(',').find_map(|field| field.strip_prefix(name));
        let nonce = field("r=").filter(|nonce| nonce.starts_with(&self.nonce)).ok_or_else(wrong)?;
        let salt = field("s=").and_then(|salt| STANDARD.decode(salt).ok()).ok_or_else(wrong)?;
        let iterations = field("i=").and_then(|count| count.parse::<NonZeroU32>().ok());
        let iterations = iterations.filter(|count| count.get() <= ITERATIONS_MAX).ok_or_else(wrong)?;
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{text},{without_proof}", self.first_bare());
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, stored.as_ref()), signed.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, signature)| key ^ signature).collect();
        let server_key = hmac::sign(&key, b"Server Key");
        let server_key = hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref());
        self.signature = Some(hmac::sign(&server_key, signed.as_bytes()));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server has shown that it knows the password too.
    pub(super) fn is_proven(&self, last: &[u8]) -> bool {
        let shown = last.strip_prefix(b"v=").and_then(|signature| STANDARD.decode(signature).ok());
        let known = self.signature.as_ref().map(AsRef::as_ref);
        shown.is_some() && shown.as_deref() == known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 section 3, whose user is empty here as PostgreSQL has it elsewhere.
    #[test]
    fn a_proof_is_that_of_the_server() {
        let mut scram = Scram { nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(), signature: None };
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answer = scram.answer(challenge.as_bytes(), "pencil").unwrap();
        assert!(answer.starts_with("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="), "{answer}");
        assert!(!scram.is_proven(b"v=AAAA"));
        assert!(scram.answer(b"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "pencil").is_err());
        assert!(scram.answer(challenge.replace("4096", "4000000000").as_bytes(), "pencil").is_err());
    }
}
