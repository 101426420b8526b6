//! Files that change while the program runs.

use std::fs;

use crate::server::Server;
use crate::tls::{Site, certificate};

/// A new certificate for the first name of a site, in place of the one that it has.
fn replace(site: &Site) {
    let new = certificate(site.directory(), "a.example.new");
    let old = &site.certificates[0];
    fs::rename(&new.key, &old.key).expect("the directory is writable");
    fs::rename(&new.cert, &old.cert).expect("the directory is writable");
}

#[test]
fn new_certificate_is_served_to_new_connections() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    assert_eq!(site.curl("a.example", 0, &[]).code, Some(0));
    replace(&site);
    site.baton.wait_for_log("changed files are in use");
    // It is for another name, and curl trusts the new file.
    let port = site.baton.address().port();
    let output = site.curl("a.example.new", 0, &[]);
    assert_eq!((output.code, output.text().as_str()), (Some(0), "ok"), "{} {port}", output.stderr);
}

#[test]
fn bad_certificate_is_refused_and_the_former_one_served() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    let old = fs::read(&site.certificates[0].cert).expect("it was just made");
    let copy = site.directory().path("copy.crt");
    fs::write(&copy, &old).expect("the directory is writable");
    fs::write(&site.certificates[0].cert, "no certificate").expect("the directory is writable");
    site.baton.wait_for_log("holds no certificate");
    let warnings = site.baton.wait_for_status(|status| {
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().any(|warning| warning.as_str().is_some_and(|text| text.contains("holds no certificate")))
    });
    let path = site.certificates[0].cert.display().to_string();
    assert!(warnings["warnings"].to_string().contains(&format!("listener http keeps what it had: {path}")));
    assert_eq!(site.curl_trusting("a.example", &copy, &[]).text(), "ok");
    // Good again: nothing to warn of.
    fs::write(&site.certificates[0].cert, &old).expect("the directory is writable");
    site.baton.wait_for_status(|status| !status["warnings"].to_string().contains("keeps what it had"));
}

#[test]
fn file_that_is_gone_or_exposed_stays_in_use() {
    let server = Server::saying("ok");
    let site = Site::before(&server, "", "");
    let key = &site.certificates[1].key;
    let text = fs::read(key).expect("it was just made");
    fs::remove_file(key).expect("the directory is writable");
    site.baton.wait_for_status(|status| {
        status["warnings"].to_string().contains("No such file or directory (os error 2); what it held before is in use")
    });
    assert_eq!(site.curl("b.example", 1, &[]).text(), "ok");
    fs::write(key, &text).expect("the directory is writable");
    site.baton.wait_for_status(|status| status["warnings"].to_string().contains("has mode 0644"));
    assert_eq!(site.curl("b.example", 1, &[]).text(), "ok");
}
