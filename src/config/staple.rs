//! OCSP responses beside certificates, which are stapled to them (RFC 6960, RFC 6066 section 8): where they are, and whether
//! one is about its certificate and says so in the name of its issuer.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::certificates::{self, Unusable};

/// id-sha1, whose hashes of issuers most responders use.
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// id-sha256.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// id-pkix-ocsp-basic
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// Certificates in a response that are looked at: its responder's is there, and seldom another.
const RESPONDERS_MAX: usize = 8;

/// The file of a certificate's response: its own name with `.ocsp` behind it, as HAProxy has it.
pub fn beside(cert: &Path) -> PathBuf {
    with(cert, ".ocsp")
}

/// The file of the issuer's certificate, where that is not in the chain: with `.issuer` behind it, as HAProxy has it.
pub fn issuer_beside(cert: &Path) -> PathBuf {
    with(cert, ".issuer")
}

fn with(cert: &Path, ending: &str) -> PathBuf {
    let mut name = cert.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Until when a response in DER may be stapled to the first certificate of a chain, in seconds since 1970. That may be over.
/// The issuer's certificate is in the chain, or in the file beside it, in PEM.
///
/// # Errors
/// When it is no response, is about another certificate, says anything but good, or is signed neither by the issuer nor by
/// a responder that the issuer has appointed. Without the issuer's certificate, that cannot be said.
pub fn good_until_s(response: &[u8], chain: &[CertificateDer<'_>], beside: Option<&[u8]>) -> Result<i64, Unusable> {
    let beside = beside.map(|text| certificates::chain(text, Path::new("it"))).transpose().map_err(|_| {
        unusable("cannot be verified: the .issuer file holds no certificate", "put the issuer's there, in PEM")
    })?;
    let beside = beside.unwrap_or_default();
    let leaf_der = chain.first().ok_or_else(no_certificate)?;
    let leaf = parsed(leaf_der).ok_or_else(no_certificate)?;
    let issuer = issuer_of(leaf_der, &leaf, chain.iter().chain(&beside)).ok_or_else(no_issuer)?;
    let issuer = Issuer::of(&issuer).ok_or_else(no_issuer)?;
    let basic = Basic::read(response)?;
    let until_s = basic.good_until_s(&leaf, &issuer)?;
    Ok(until_s.min(basic.signed_until_s(&issuer)?))
}

/// Whose name the certificate bears as its issuer's, and whose signature.
fn issuer_of<'a>(
    leaf_der: &CertificateDer<'_>,
    leaf: &X509Certificate<'_>,
    mut candidates: impl Iterator<Item = &'a CertificateDer<'a>>,
) -> Option<X509Certificate<'a>> {
    let signed = Signed::read(&mut Elements(leaf_der).within()?)?;
    candidates.find_map(|der| {
        let is_it = |by: &Issuer<'_>| by.name == leaf.issuer().as_raw() && signed.is_by(&by.key);
        parsed(der).filter(|by| Issuer::of(by).as_ref().is_some_and(is_it))
    })
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// Who issued the certificate.
struct Issuer<'a> {
    name: &'a [u8],
    key: Key<'a>,
}

impl<'a> Issuer<'a> {
    fn of(certificate: &'a X509Certificate<'_>) -> Option<Self> {
        Some(Self { name: certificate.subject().as_raw(), key: Key::of(certificate.public_key().raw)? })
    }
}

/// A public key, as certificates have it (RFC 5280 section 4.1.2.7).
struct Key<'a> {
    algorithm: &'a [u8],
    bits: &'a [u8],
}

impl<'a> Key<'a> {
    fn of(info: &'a [u8]) -> Option<Self> {
        let mut info = Elements(info).within()?;
        Some(Self { algorithm: info.within()?.0, bits: info.bits()? })
    }
}

/// What certificates and responses begin with: what is signed, by which algorithm, and the signature.
struct Signed<'a> {
    content: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(elements: &mut Elements<'a>) -> Option<Self> {
        Some(Self { content: elements.whole()?, algorithm: elements.within()?.0, signature: elements.bits()? })
    }

    fn is_by(&self, key: &Key<'_>) -> bool {
        let known = default_provider().signature_verification_algorithms.all;
        known.iter().any(|algorithm| {
            *algorithm.signature_alg_id() == *self.algorithm
                && *algorithm.public_key_alg_id() == *key.algorithm
                && algorithm.verify_signature(key.bits, self.content, self.signature).is_ok()
        })
    }

    fn is_of_known_algorithm(&self) -> bool {
        let known = default_provider().signature_verification_algorithms.all;
        known.iter().any(|algorithm| *algorithm.signature_alg_id() == *self.algorithm)
    }
}

/// A response with its answers, RFC 6960 section 4.2.1.
struct Basic<'a> {
    signed: Signed<'a>,
    responder: Any<'a>,
    answers: Elements<'a>,
    /// What the responder shows that it may answer.
    certificates: Elements<'a>,
}

impl<'a> Basic<'a> {
    fn read(response: &'a [u8]) -> Result<Self, Unusable> {
        let mut whole = Elements(response).within().ok_or_else(malformed)?;
        let status = whole.next().ok_or_else(malformed)?;
        if status.data != [0] {
            let number = status.data.last().copied().unwrap_or_default();
            return Err(unusable(format!("is the responder's refusal, number {number}"), "fetch it again"));
        }
        let mut basic = || {
            let mut bytes = whole.within_tag(0)?.within()?;
            let is_basic = bytes.next()?.data == BASIC;
            let mut basic = Elements(bytes.next()?.data).within().filter(|_| is_basic)?;
            let signed = Signed::read(&mut basic)?;
            let certificates = basic.within_tag(0).and_then(|mut all| all.within()).unwrap_or(Elements(&[]));
            let mut said = Elements(signed.content).within()?;
            // The version, which may be left out, and who says it when.
            let mut responder = said.next()?;
            if responder.class() == Class::ContextSpecific && responder.tag().0 == 0 {
                responder = said.next()?;
            }
            let _produced_at = said.next()?;
            Some(Self { signed, responder, answers: said.within()?, certificates })
        };
        basic().ok_or_else(malformed)
    }

    /// Until when it says that a certificate is good.
    fn good_until_s(&self, leaf: &X509Certificate<'_>, issuer: &Issuer<'_>) -> Result<i64, Unusable> {
        let mut answers = Elements(self.answers.0);
        while let Some(mut answer) = answers.within() {
            let about = answer.within().ok_or_else(malformed)?;
            if !is_about(about, leaf, issuer) {
                continue;
            }
            // good [0], revoked [1], unknown [2]
            match answer.next().map(|status| (status.class(), status.tag().0)) {
                Some((Class::ContextSpecific, 0)) => {}
                Some((Class::ContextSpecific, 1)) => {
                    return Err(unusable("says that the certificate is revoked", "have a new certificate issued"));
                }
                _ => return Err(unusable("does not say that the certificate is good", "ask the certificate's issuer")),
            }
            let _this_update = answer.next().ok_or_else(malformed)?;
            let next_update = answer.within_tag(0).ok_or_else(|| {
                unusable("does not say until when it is good", "fetch one with nextUpdate from the issuer's responder")
            })?;
            let (_, time) = ASN1Time::from_der(next_update.0).map_err(|_| malformed())?;
            return Ok(time.timestamp());
        }
        Err(unusable("is about another certificate", "fetch the one of this certificate from its issuer's responder"))
    }

    /// Until when its signature counts: for ever where it is the issuer's own, otherwise for as long as the responder is
    /// appointed (RFC 6960 section 4.2.2.2).
    fn signed_until_s(&self, issuer: &Issuer<'_>) -> Result<i64, Unusable> {
        if !self.signed.is_of_known_algorithm() {
            let remedy = "have the issuer sign with SHA-256 or better: RSA, ECDSA or Ed25519";
            return Err(unusable("is signed with an algorithm that is not believed", remedy));
        }
        if self.signed.is_by(&issuer.key) {
            return Ok(i64::MAX);
        }
        let mut certificates = Elements(self.certificates.0);
        for _ in 0..RESPONDERS_MAX {
            let Some(der) = certificates.whole() else { break };
            if let Some(until_s) = self.signed_by_until_s(der, issuer) {
                return until_s;
            }
        }
        let rule = "is signed neither by the certificate's issuer nor by a responder of it, or was changed";
        Err(unusable(rule, "fetch it again from the issuer's responder"))
    }

    /// Until when a responder is appointed; `None` where this is not who has signed.
    fn signed_by_until_s(&self, der: &[u8], issuer: &Issuer<'_>) -> Option<Result<i64, Unusable>> {
        let (_, responder) = X509Certificate::from_der(der).ok()?;
        let key = Key::of(responder.public_key().raw)?;
        if !self.names(&responder, &key) || !self.signed.is_by(&key) {
            return None;
        }
        let is_of_issuer = responder.issuer().as_raw() == issuer.name
            && Signed::read(&mut Elements(der).within()?)?.is_by(&issuer.key);
        let usage = responder.extended_key_usage().ok().flatten();
        let may_answer = usage.is_some_and(|usage| usage.value.ocsp_signing);
        Some(if is_of_issuer && may_answer {
            Ok(responder.validity().not_after.timestamp())
        } else {
            let rule =
                "is signed by a responder that the issuer has not appointed, with OCSPSigning in its certificate";
            Err(unusable(rule, "fetch it from the issuer's own responder"))
        })
    }

    /// Whether it says that this is its responder.
    fn names(&self, responder: &X509Certificate<'_>, key: &Key<'_>) -> bool {
        match (self.responder.class(), self.responder.tag().0) {
            (Class::ContextSpecific, 1) => self.responder.data == responder.subject().as_raw(),
            (Class::ContextSpecific, 2) => {
                let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.bits);
                Elements(self.responder.data).next().is_some_and(|said| said.data == hash.as_ref())
            }
            _ => false,
        }
    }
}

/// Whether an answer's CertID is that of a certificate.
fn is_about(mut about: Elements<'_>, leaf: &X509Certificate<'_>, issuer: &Issuer<'_>) -> bool {
    let mut read = || {
        let algorithm = about.within()?.next()?.data;
        let (issuer_name, issuer_key, serial) = (about.next()?.data, about.next()?.data, about.next()?.data);
        Some((algorithm, issuer_name, issuer_key, serial))
    };
    let Some((algorithm, issuer_name, issuer_key, serial)) = read() else { return false };
    let algorithm = match algorithm {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        _ => return false,
    };
    let is_hash_of = |hash: &[u8], of: &[u8]| digest::digest(algorithm, of).as_ref() == hash;
    serial == leaf.raw_serial() && is_hash_of(issuer_name, issuer.name) && is_hash_of(issuer_key, issuer.key.bits)
}

/// What follows one another in DER.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Option<Any<'a>> {
        let (rest, element) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(element)
    }

    /// The next one with its head.
    fn whole(&mut self) -> Option<&'a [u8]> {
        let before = self.0;
        self.next()?;
        before.get(..before.len() - self.0.len())
    }

    /// The bytes of a BIT STRING, none of whose last bits is unused.
    fn bits(&mut self) -> Option<&'a [u8]> {
        self.next().filter(|element| element.tag().0 == 3)?.data.strip_prefix(&[0])
    }

    /// What the next one is made of.
    fn within(&mut self) -> Option<Self> {
        self.next().filter(|element| element.header.is_constructed()).map(|element| Self(element.data))
    }

    /// The same where it has this tag.
    fn within_tag(&mut self, tag: u32) -> Option<Self> {
        let element = self.next()?;
        let is_it = element.class() == Class::ContextSpecific && element.tag().0 == tag;
        is_it.then_some(Self(element.data))
    }
}

fn no_certificate() -> Unusable {
    unusable("is beside a file without a certificate", "name an X.509 certificate")
}

fn no_issuer() -> Unusable {
    unusable(
        "cannot be verified: the issuer's certificate is not in the chain",
        "put it behind the certificate, or into a file of its own with .issuer behind the certificate's name",
    )
}

fn malformed() -> Unusable {
    unusable("is no OCSP response in DER", "fetch it again, for example with openssl ocsp -respout")
}

fn unusable(rule: impl Into<String>, remedy: &str) -> Unusable {
    Unusable { rule: rule.into(), remedy: remedy.to_owned() }
}
