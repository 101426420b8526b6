//! OCSP responses beside certificates, which are stapled to them (RFC 6960, RFC 6066 section 8): where they are, and whether
//! one is about its certificate. Whoever verifies the certificate verifies the response's signature; nobody does here.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::certificates::Unusable;

/// id-sha1, whose hashes of issuers most responders use.
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// id-sha256.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// id-pkix-ocsp-basic
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// The file of a certificate's response: its own name with `.ocsp` behind it, as HAProxy has it.
pub fn beside(cert: &Path) -> PathBuf {
    let mut name = cert.as_os_str().to_owned();
    name.push(".ocsp");
    name.into()
}

/// Until when a response in DER says that a certificate is good, in seconds since 1970. That may be over.
///
/// # Errors
/// When it is no response, is about another certificate, or says anything but good.
pub fn good_until_s(response: &[u8], leaf: &CertificateDer<'_>) -> Result<i64, Unusable> {
    let (_, leaf) = X509Certificate::from_der(leaf)
        .map_err(|error| unusable(format!("the certificate cannot be read: {error}"), "name an X.509 certificate"))?;
    let mut answers = answers(response)?;
    while let Some(mut answer) = answers.within() {
        let about = answer.within().ok_or_else(malformed)?;
        if !is_about(about, &leaf) {
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

/// The answers of a response, RFC 6960 section 4.2.1.
fn answers(response: &[u8]) -> Result<Elements<'_>, Unusable> {
    let mut whole = Elements(response).within().ok_or_else(malformed)?;
    let status = whole.next().ok_or_else(malformed)?;
    if status.data != [0] {
        let rule = format!("is the responder's refusal, number {}", status.data.last().copied().unwrap_or_default());
        return Err(unusable(rule, "fetch it again"));
    }
    let mut basic = || {
        let mut bytes = whole.within_tag(0)?.within()?;
        let is_basic = bytes.next()?.data == BASIC;
        let mut basic = Elements(bytes.next()?.data).within().filter(|_| is_basic)?;
        let mut said = basic.within()?;
        // The version, which may be left out, and who says it when.
        let first = said.next()?;
        let is_version = first.class() == Class::ContextSpecific && first.tag().0 == 0;
        (0..if is_version { 2 } else { 1 }).try_for_each(|_| said.next().map(|_| ()))?;
        said.within()
    };
    basic().ok_or_else(malformed)
}

/// Whether an answer's CertID is that of a certificate.
fn is_about(mut about: Elements<'_>, leaf: &X509Certificate<'_>) -> bool {
    let mut read = || {
        let algorithm = about.within()?.next()?.data;
        let (issuer_name, _issuer_key, serial) = (about.next()?.data, about.next()?, about.next()?.data);
        Some((algorithm, issuer_name, serial))
    };
    let Some((algorithm, issuer_name, serial)) = read() else { return false };
    let algorithm = match algorithm {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        _ => return false,
    };
    serial == leaf.raw_serial() && digest::digest(algorithm, leaf.issuer().as_raw()).as_ref() == issuer_name
}

/// What follows one another in DER.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Option<Any<'a>> {
        let (rest, element) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(element)
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

fn malformed() -> Unusable {
    unusable("is no OCSP response in DER", "fetch it again, for example with openssl ocsp -respout")
}

fn unusable(rule: impl Into<String>, remedy: &str) -> Unusable {
    Unusable { rule: rule.into(), remedy: remedy.to_owned() }
}
