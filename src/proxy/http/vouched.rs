//! Fields that servers believe because we write them, and those of a client's that could be taken for one of them. Core.
//!
//! CGI, WSGI and PHP read `-` and `_` in a name as the same, so that what a client sends as `X_User` stands beside or in
//! place of our `X-User`. Of such names only those are removed: applications that have underscores of their own keep them.

use http::header::{self, HeaderMap, HeaderName};

/// What the fields begin with that say whose certificate a client has. All of them are ours, also those that we do not write.
const OF_CERTIFICATES: &str = "x-ssl-client-";

/// What says where a request ends. No server may read that out of anything else.
pub const OF_FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Names that are ours to write.
#[derive(Debug, Default)]
pub struct Names {
    /// As they are written.
    written: Vec<HeaderName>,
    /// Whether one of them has an underscore: then one without may be taken for it.
    has_underscore: bool,
}

impl Names {
    /// Of these.
    pub fn new(names: impl Iterator<Item = HeaderName>) -> Self {
        // What has nothing to confuse is nothing to look for.
        let is_confusing = |name: &HeaderName| name.as_str().bytes().any(is_confused);
        let written: Vec<HeaderName> = names.filter(is_confusing).collect();
        let has_underscore = written.iter().any(has_underscore);
        Self { written, has_underscore }
    }

    fn has_alike(&self, name: &HeaderName) -> bool {
        let is_alike = |written: &HeaderName| {
            written.as_str().len() == name.as_str().len() && begins_alike(name.as_str(), written.as_str())
        };
        self.written.iter().any(is_alike)
    }
}

fn has_underscore(name: &HeaderName) -> bool {
    name.as_str().as_bytes().contains(&b'_')
}

fn is_confused(byte: u8) -> bool {
    matches!(byte, b'-' | b'_')
}

/// Whether `name` begins with `front` to a reader to whom `-` and `_` are the same.
fn begins_alike(name: &str, front: &str) -> bool {
    let is_alike = |(one, other): (u8, u8)| one == other || (is_confused(one) && is_confused(other));
    name.len() >= front.len() && name.bytes().zip(front.bytes()).all(is_alike)
}

/// Removes what could be taken for a field of ours and is none. Fields of these very names stay: whoever writes them deals
/// with those that come. With `certificates` nothing that clients say of their certificates stays.
///
/// Most requests have no such name, and cost one look at each.
pub fn remove_forged(headers: &mut HeaderMap, certificates: bool, ours: &[&Names]) {
    let any_underscore = ours.iter().any(|names| names.has_underscore);
    let is_of_certificate = |name: &HeaderName| certificates && begins_alike(name.as_str(), OF_CERTIFICATES);
    if !headers.keys().any(|name| any_underscore || has_underscore(name) || is_of_certificate(name)) {
        return;
    }
    let is_forged = |name: &&HeaderName| {
        let is_alike = ours.iter().any(|names| names.has_alike(name));
        is_of_certificate(name) || (is_alike && !ours.iter().any(|names| names.written.contains(name)))
    };
    let forged: Vec<HeaderName> = headers.keys().filter(is_forged).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// What is left of fields of these names.
    fn left(names: &[&str], certificates: bool, ours: &[&[&str]]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("a"));
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("again"));
        }
        let ours: Vec<Names> =
            ours.iter().map(|names| Names::new(names.iter().map(|name| name.parse().unwrap()))).collect();
        remove_forged(&mut headers, certificates, &ours.iter().collect::<Vec<_>>());
        let mut left: Vec<String> = headers.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn what_could_be_taken_for_ours_is_removed_and_nothing_else() {
        let sent = ["X_User", "x-user", "x_user_agent", "session_token", "X_Forwarded-For", "x-forwarded_for", "host"];
        let ours: &[&[&str]] = &[&["x-user", "host"], &["x-forwarded-for"]];
        assert_eq!(left(&sent, false, ours), ["host", "session_token", "x-user", "x_user_agent"]);
        assert_eq!(left(&sent, false, &[]).len(), sent.len());
    }

    #[test]
    fn ours_may_have_underscores_themselves() {
        let sent = ["x-user", "x_user", "x-a_b", "x_a_b", "x-a-b"];
        assert_eq!(left(&sent, false, &[&["x_user"], &["x-a_b"]]), ["x-a_b", "x_user"]);
        assert_eq!(left(&sent, false, &[&["x_user"], &["x-user"]]), ["x-a-b", "x-a_b", "x-user", "x_a_b", "x_user"]);
    }

    #[test]
    fn what_a_client_says_of_its_certificate_is_removed_however_it_is_written() {
        let sent = ["x-ssl-client-verify", "X_SSL_Client_Subject", "x-ssl_client-dn", "x-ssl-clients", "x-other"];
        assert_eq!(left(&sent, true, &[]), ["x-other", "x-ssl-clients"]);
        assert_eq!(left(&sent, false, &[]).len(), sent.len());
    }
}
