//! What the worker needs to speak with the session store, read for it, as it may read no file.

use anyhow::{Context, bail};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::config::{self, Config, FileKind, Store, StorePassword};
use crate::link::StoreSecrets;

/// Reads the password and the authorities; `None` without a store.
///
/// # Errors
/// Which file cannot be used, and why; that the system trusts no authority where the store is reached with TLS.
pub fn secrets(config: &Config) -> anyhow::Result<Option<StoreSecrets>> {
    let Some(store) = &config.sessions.store else { return Ok(None) };
    let password = store.password_file.as_deref().map(StorePassword::load).transpose()?;
    let password = password.map(|password| password.as_str().to_owned());
    let is_tls = store.urls.iter().any(|url| url.is_tls);
    let ca_pem = if is_tls { Some(authorities(store)?) } else { None };
    Ok(Some(StoreSecrets { password, ca_pem }))
}

fn authorities(store: &Store) -> anyhow::Result<String> {
    if let Some(path) = &store.ca_file {
        let text = config::read_file(path, FileKind::Public)?;
        return String::from_utf8(text).with_context(|| format!("{} is not UTF-8", path.display()));
    }
    let found = rustls_native_certs::load_native_certs().certs;
    // One that rustls cannot read would keep all the others from being used.
    let usable: Vec<CertificateDer<'_>> =
        found.into_iter().filter(|authority| RootCertStore::empty().add(authority.clone()).is_ok()).collect();
    if usable.is_empty() {
        bail!("this system trusts no certificate authority: install ca-certificates, or set sessions.store_ca_file");
    }
    Ok(usable.iter().map(|authority| pem(authority)).collect())
}

/// A certificate in PEM (RFC 7468).
fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in der.chunks(48) {
        line.chunks(3).for_each(|group| text.extend(base64(group)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The four digits of one to three bytes (RFC 4648 section 4).
fn base64(group: &[u8]) -> [char; 4] {
    let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    let digit = |place: usize| {
        let value = u8::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
        match value {
            _ if place > group.len() => '=',
            0..=25 => char::from(b'A' + value),
            26..=51 => char::from(b'a' + value - 26),
            52..=61 => char::from(b'0' + value - 52),
            62 => '+',
            _ => '/',
        }
    };
    [digit(0), digit(1), digit(2), digit(3)]
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn digits_are_those_of_rfc_4648() {
        let text = |bytes: &[u8]| bytes.chunks(3).flat_map(base64).collect::<String>();
        assert_eq!(text(b"f"), "Zg==");
        assert_eq!(text(b"fo"), "Zm8=");
        assert_eq!(text(b"foobar"), "Zm9vYmFy");
        assert_eq!(text(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn what_is_written_as_pem_is_read_back() {
        let der: Vec<u8> = (0..=255).chain(0..77).collect();
        let read = CertificateDer::from_pem_slice(pem(&der).as_bytes()).expect("it is PEM");
        assert_eq!(read.as_ref(), der);
    }
}
