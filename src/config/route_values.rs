//! How the values of routes are written: text in, a valid value or a [`Wrong`] out.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Look;
use regex_syntax::hir::literal::Extractor;

use super::model::{HostMatch, Template, TemplatePart, Variable};
use super::report::{Wrong, shortened};
use super::values;

/// Bytes that a compiled expression may take. Most take a few KiB.
const EXPRESSION_BYTES_MAX: usize = 256 * 1024;
/// Characters of an expression.
const EXPRESSION_MAX: usize = 1024;
/// Characters of a text that a header, a cookie or a parameter is compared with.
const COMPARED_MAX: usize = 1024;

/// Compiles an expression; `None` for one that the check refuses. It runs in a time that is linear in what it is applied to.
/// Bytes are bytes to it and not text, so that classes such as `\d` and `.` are of ASCII and of bytes.
pub fn expression(text: &str) -> Option<Regex> {
    compiled(text).ok()
}

/// What everything begins with that an expression matches; empty where that is nothing, or not known.
pub fn expression_prefix(text: &str) -> Vec<u8> {
    let parsed = ParserBuilder::new().unicode(false).utf8(false).build().parse(text).ok();
    let anchored = parsed.filter(|parsed| parsed.properties().look_set_prefix().contains(Look::Start));
    let literals = anchored.map(|anchored| Extractor::new().extract(&anchored));
    literals.as_ref().and_then(|literals| literals.longest_common_prefix()).unwrap_or_default().to_vec()
}

fn compiled(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).unicode(false).size_limit(EXPRESSION_BYTES_MAX).build()
}

/// An expression that can be compiled.
pub(super) fn regex(text: &str) -> Result<String, Wrong> {
    if text.len() > EXPRESSION_MAX {
        return Err(Wrong::new(format!("must be at most {EXPRESSION_MAX} characters"), "write a shorter expression"));
    }
    match compiled(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => {
            Err(Wrong::new("takes more than 256 KiB when it is compiled", "write smaller numbers of repetitions"))
        }
        Err(error) => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(Wrong::new(
                format!("must be a regular expression: {reason}"),
                "see https://docs.rs/regex for what there is",
            ))
        }
    }
}

/// `shop.example.com`, or `*.example.com` for every host below example.com.
pub(super) fn host(text: &str) -> Result<HostMatch, Wrong> {
    match text.strip_prefix("*.") {
        Some(parent) if !parent.contains('*') => Ok(HostMatch::Below(values::host(parent)?)),
        None if !text.contains('*') => Ok(HostMatch::Exact(values::host(text)?)),
        _ => Err(Wrong::new(
            "may have '*' in front alone, for everything before the first dot",
            "write \"*.example.com\", or leave host out for every host",
        )),
    }
}

/// A path to compare with: escapes of ordinary characters are resolved, other escapes stay, with capital digits.
pub(super) fn path(text: &str) -> Result<String, Wrong> {
    values::path(text)?;
    if text.contains('?') {
        return Err(Wrong::new("must be a path without a query", "leave out everything from the '?' on"));
    }
    if text.contains([';', '\\']) {
        return Err(Wrong::new(
            "must have no ';' and no '\\': parameters of a segment are not compared",
            "leave out what follows the ';'",
        ));
    }
    let written = unescaped(text)?;
    let inner = written.strip_suffix('/').unwrap_or(&written);
    let segments: Vec<&str> = inner.split('/').skip(1).collect();
    if segments.iter().any(|segment| segment.is_empty() || matches!(*segment, "." | "..")) {
        return Err(Wrong::new(
            "must have no empty segment, no \".\" and no \"..\": no request has them once it is read",
            "write the path that they lead to",
        ));
    }
    Ok(written)
}

/// As [`path`], of whole segments. `None` for `/`.
pub(super) fn path_prefix(text: &str) -> Result<Option<String>, Wrong> {
    let written = path(text)?;
    let trimmed = written.trim_end_matches('/');
    Ok(if trimmed.is_empty() { None } else { Some(trimmed.to_owned()) })
}

fn unescaped(text: &str) -> Result<String, Wrong> {
    let mut written = String::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('%') {
        written.push_str(before);
        let digits = escape.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match value {
            Some(b'%' | b'/' | b'\\' | b';' | b'?' | b'#' | 0..0x20 | 0x7f) => {
                return Err(Wrong::new(
                    format!("must not escape a character that divides paths: %{}", digits.unwrap_or_default()),
                    "leave it out, or write path_regex",
                ));
            }
            Some(value) if value.is_ascii_graphic() => written.push(char::from(value)),
            Some(value) => written.push_str(&format!("%{value:02X}")),
            None => {
                return Err(Wrong::new(
                    "has a '%' without two hexadecimal digits",
                    "write \"%25\" for a '%', in path_regex",
                ));
            }
        }
        rest = escape.get(2..).unwrap_or_default();
    }
    written.push_str(rest);
    Ok(written)
}

/// A method, spelt as clients send it (RFC 9110 section 9.1).
pub(super) fn method(text: &str) -> Result<String, Wrong> {
    match http::Method::from_bytes(text.as_bytes()) {
        Ok(_) if text == "CONNECT" => Err(Wrong::new("is no method that routes are for", "leave it out")),
        Ok(_) if text.len() <= 32 && !text.bytes().any(|byte| byte.is_ascii_lowercase()) => Ok(text.to_owned()),
        _ => Err(Wrong::new("must be a method in capitals, at most 32 letters", "write a method such as \"GET\"")),
    }
}

/// A text that a value is compared with.
pub(super) fn compared(text: &str) -> Result<String, Wrong> {
    if text.len() > COMPARED_MAX || text.contains(char::is_control) {
        return Err(Wrong::new(
            format!("must be at most {COMPARED_MAX} characters, none of them a control character"),
            "write a shorter text",
        ));
    }
    Ok(text.to_owned())
}

/// What a header says, without variables.
pub(super) fn field_text(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > COMPARED_MAX || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Wrong::new(
            "must be a line of printable ASCII",
            "write a text such as \"text/html; charset=utf-8\"",
        ));
    }
    Ok(text.to_owned())
}

/// A text of at most so many bytes.
pub(super) fn at_most(text: &str, max: usize) -> Result<String, Wrong> {
    if text.len() <= max {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("must be at most {} KiB", max / 1024), "serve a larger page from a pool"))
}

/// Where a redirect leads: an absolute URL, or a path of the same host.
pub(super) fn redirect_target(template: Template) -> Result<Template, Wrong> {
    leads_nowhere_else(&template, true)?;
    printable(&template)?;
    Ok(template)
}

/// What a Location says that is made of what clients send.
pub(super) fn location(template: Template) -> Result<Template, Wrong> {
    if template.as_fixed().is_none() {
        leads_nowhere_else(&template, false)?;
    }
    Ok(template)
}

/// What clients send must not become the host that they are led to: with a path in front of the first slash it would, and
/// with `//` in front of everything (RFC 3986 section 4.2). `is_checked`: what names no host once it is made is not sent.
fn leads_nowhere_else(template: &Template, is_checked: bool) -> Result<(), Wrong> {
    let remedy = "write an address such as \"https://{host}{path}\", or a path such as \"/new{path}\", with a word between \
                  its '/' and the first variable";
    let wrong = |rule: &str| Err(Wrong::new(rule, remedy));
    let (first, rest) = match template.parts.split_first() {
        Some((TemplatePart::Text(text), rest)) => (text.as_str(), rest),
        Some((TemplatePart::Variable(_), _)) | None => ("", &[][..]),
    };
    if let Some(path) = first.strip_prefix('/') {
        if path.starts_with(['/', '\\']) {
            return wrong("must begin with http:// or https:// and a host, or with a single '/'");
        }
        let is_another_host = path.is_empty() && may_begin_with_slash(rest);
        return if is_another_host { wrong("may begin with \"//\", which leads to another host") } else { Ok(()) };
    }
    let Some(host) = first.strip_prefix("https://").or_else(|| first.strip_prefix("http://")) else {
        return wrong("must begin with http:// or https:// and a host, or with a single '/'");
    };
    match names_host(host, rest, is_checked) {
        Some(true) => Ok(()),
        Some(false) => wrong("must begin with http:// or https:// and a host, or with a single '/'"),
        None => wrong("must not let a variable other than {host}, {tls_sni} and {node} say the host"),
    }
}

/// Whether what these parts say may begin with a `/`.
fn may_begin_with_slash(parts: &[TemplatePart]) -> bool {
    for part in parts {
        match part {
            TemplatePart::Text(text) => return text.starts_with(['/', '\\']),
            TemplatePart::Variable(variable) => match variable {
                Variable::Path | Variable::Query | Variable::RequestId | Variable::TlsClientSubject => return true,
                // Empty where there is none, so that what follows comes first.
                Variable::Server | Variable::Pool => {}
                Variable::TlsVersion | Variable::TlsCipher | Variable::TlsSni => {}
                // No browser leaves the host out.
                Variable::ClientIp | Variable::ClientPort | Variable::Host | Variable::Method => return false,
                Variable::Listener | Variable::Node => return false,
            },
        }
    }
    false
}

/// Whether a host stands between `https://` and the end or the first slash; `None` when something else than a host may.
fn names_host(first: &str, rest: &[TemplatePart], is_checked: bool) -> Option<bool> {
    let first = Some(first).filter(|text| !text.is_empty());
    let rest = rest.iter().map(|part| match part {
        TemplatePart::Text(text) => Ok(text.as_str()),
        TemplatePart::Variable(variable) => Err(*variable),
    });
    let mut is_named = false;
    for part in first.map(Ok).into_iter().chain(rest) {
        match part {
            Ok(text) => {
                let host = text.split(['/', '?', '#', '\\']).next().unwrap_or_default();
                // A port alone is no host.
                let name = host.split(':').next().unwrap_or_default();
                is_named |= name.contains(|letter: char| letter.is_ascii_alphanumeric() || letter == '[');
                if host.len() < text.len() {
                    return Some(is_named);
                }
            }
            Err(Variable::Host | Variable::Node) => is_named = true,
            Err(Variable::TlsSni) => is_named |= is_checked,
            // It begins with the slash that ends the host.
            Err(Variable::Path) if is_named => return Some(true),
            Err(_) => return None,
        }
    }
    Some(is_named)
}

/// The path that servers are to see.
pub(super) fn path_template(text: &str, template: Template) -> Result<Template, Wrong> {
    if !text.starts_with('/') && !text.starts_with("{path}") {
        return Err(Wrong::new("must begin with '/' or {path}", format!("write \"/{}\"", shortened(text, 40))));
    }
    if text.contains(['?', '#']) {
        return Err(Wrong::new("must be a path without query and fragment", "leave it out; the request's query stays"));
    }
    printable(&template)?;
    Ok(template)
}

/// The host that servers are to see, with a port or without.
pub(super) fn host_template(text: &str, template: Template) -> Result<Template, Wrong> {
    let allowed = [Variable::Host, Variable::Pool, Variable::TlsSni, Variable::Listener, Variable::Node];
    if template.variables().any(|variable| !allowed.contains(&variable)) {
        return Err(Wrong::new(
            "must not be made of what is no host",
            "use {host}, {pool}, {tls_sni}, {listener} or {node}",
        ));
    }
    if template.as_fixed().is_some() {
        values::host_header(text)?;
        return Ok(template);
    }
    let literal = |part: &TemplatePart| match part {
        TemplatePart::Text(text) => text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte)),
        TemplatePart::Variable(_) => true,
    };
    if template.parts.iter().all(literal) {
        Ok(template)
    } else {
        Err(Wrong::new("must be a host, with a port or without", "write a name such as \"app.internal\""))
    }
}

fn printable(template: &Template) -> Result<(), Wrong> {
    let is_printable = |part: &TemplatePart| match part {
        TemplatePart::Text(text) => text.bytes().all(|byte| byte.is_ascii_graphic()),
        TemplatePart::Variable(_) => true,
    };
    if template.parts.iter().all(is_printable) {
        return Ok(());
    }
    Err(Wrong::new("must be printable ASCII without spaces", "escape other characters, such as %20 for a space"))
}

/// What comes in place of what an expression finds.
pub(super) fn replacement(text: &str) -> Result<String, Wrong> {
    let is_good =
        text.len() <= COMPARED_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['?', '#']);
    if is_good {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        "must be a piece of a path: printable ASCII without spaces, '?' and '#'",
        "write a text such as \"/v2/$1\"; the request's query stays",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::templates::Moment;
    use super::*;

    #[test]
    fn hosts_are_exact_or_everything_below_one() {
        assert_eq!(host("Shop.Example").unwrap(), HostMatch::Exact("shop.example".to_owned()));
        assert_eq!(host("*.Example.com").unwrap(), HostMatch::Below("example.com".to_owned()));
        for text in ["*", "*example.com", "a.*.example", "*.*.example", "*.", "", "a:80"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_written_as_requests_are_read() {
        assert_eq!(path("/%61dmin").unwrap(), "/admin");
        assert_eq!(path("/caf%c3%a9").unwrap(), "/caf%C3%A9");
        assert_eq!(path("/a%20b").unwrap(), "/a%20b");
        assert_eq!(path("/").unwrap(), "/");
        assert_eq!(path("/a/").unwrap(), "/a/");
        for text in
            ["a", "/a//b", "//", "/./a", "/a/..", "/a/%2e%2e/b", "/a%2Fb", "/a%", "/a%zz", "/a;b", "/a?b", "/a%00"]
        {
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(path_prefix("/api/"), Ok(Some("/api".to_owned())));
        assert_eq!(path_prefix("/"), Ok(None));
    }

    #[test]
    fn redirects_lead_to_a_host_that_the_client_does_not_say() {
        let made = |text: &str| super::super::templates::template(text, Moment::Answered).unwrap();
        let good = |text: &str| redirect_target(made(text)).is_ok();
        for text in [
            "/",
            "/new",
            "/new{path}",
            "/?next={path}",
            "/{host}{path}",
            "/{tls_version}",
            "/{tls_version}-{path}",
            "/{client_ip}{path}",
            "https://{host}",
            "https://{host}{path}?a={query}",
            "https://{host}:8443{path}",
            "https://{node}.example{path}",
            "https://{tls_sni}{path}",
            "http://[2001:db8::1]{path}",
            "https://a.example?next={query}",
        ] {
            assert!(good(text), "{text}");
        }
        for text in [
            "",
            "{path}",
            "//a",
            "/\\a",
            "/{path}",
            "/{query}",
            "/{request_id}",
            "/{tls_client_subject}",
            "/{tls_sni}{path}",
            "/{tls_version}{tls_cipher}/a",
            "/{server}{pool}{query}",
            "https://",
            "https:///a",
            "https://{path}",
            "https://:8443{path}",
            "https://?a",
            "https://{query}",
            "https://a{query}",
            "https://{tls_sni}{request_id}",
            "https://{tls_version}.example/",
        ] {
            assert!(!good(text), "{text}");
        }
        assert!(location(made("anything")).is_ok() && location(made("//cdn.example/a")).is_ok());
        assert!(location(made("{path}")).is_err() && location(made("/{query}")).is_err());
        // Nobody looks at it once it is made.
        assert!(location(made("https://{tls_sni}{path}")).is_err());
        assert!(location(made("https://{host}{path}")).is_ok());
    }

    #[test]
    fn expressions_are_bounded() {
        assert!(regex("^/v[0-9]+/").is_ok());
        assert!(regex("(").is_err());
        assert!(regex("(?i)a{1000}{1000}").is_err_and(|wrong| wrong.rule.contains("256 KiB")));
        assert!(regex(&"a".repeat(1025)).is_err());
        assert!(regex("(a)\\1").is_err_and(|wrong| wrong.rule.contains("backreferences")));
    }
}
