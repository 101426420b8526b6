//! The health API of Consul: what is asked, what its answers mean, and where a blocking query goes on. Core.
//!
//! <https://developer.hashicorp.com/consul/api-docs/features/blocking> and
//! <https://developer.hashicorp.com/consul/api-docs/health#list-nodes-for-service>

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::list::{name_of, scaled};
use crate::config::{ConsulSource, FoundServer};

/// Where the next blocking query goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Index(u64);

impl Index {
    /// The one after an answer with this field. It goes back to the beginning when the field is missing, no number, or
    /// lower than the last one, as after a restart of Consul or a restored snapshot.
    #[must_use]
    pub fn after(self, field: Option<&str>) -> Self {
        let said: u64 = field.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if said < self.0 { Self(0) } else { Self(said) }
    }

    /// Whether the next query is answered at once.
    pub fn is_start(self) -> bool {
        self.0 == 0
    }
}

/// Path and query of the next question.
pub fn path(source: &ConsulSource, index: Index) -> String {
    let mut path = format!("/v1/health/service/{}", encoded(&source.service));
    let mut separator = '?';
    let mut add = |text: &str| {
        path.push(separator);
        path.push_str(text);
        separator = '&';
    };
    if source.passing {
        add("passing");
    }
    if let Some(datacenter) = &source.datacenter {
        add(&format!("dc={}", encoded(datacenter)));
    }
    source.tags.iter().for_each(|tag| add(&format!("tag={}", encoded(tag))));
    if !index.is_start() {
        add(&format!("index={}&wait={}s", index.0, source.wait.as_secs()));
    }
    path
}

/// Time in which an answer has to come: Consul adds up to a sixteenth of the wait, and then the way takes some.
pub fn patience(source: &ConsulSource, index: Index, timeout: Duration) -> Duration {
    if index.is_start() { timeout } else { source.wait + source.wait / 16 + timeout }
}

/// Everything but letters, digits, `-`, `.`, `_` and `~`, in percent (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    address: String,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Address", default)]
    address: String,
    #[serde(rename = "Port")]
    port: u16,
    #[serde(rename = "Weights", default)]
    weights: Weights,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Weights {
    passing: u32,
    warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default)]
    status: String,
}

/// The servers of an answer. A server is named as its node and the id of its service: that id is unique on one node alone.
///
/// # Errors
/// Why the answer cannot be used, in words.
pub fn servers(body: &[u8]) -> Result<Vec<FoundServer>, String> {
    let entries: Vec<Entry> =
        serde_json::from_slice(body).map_err(|error| format!("Consul's answer is not understood: {error}"))?;
    let weights: Vec<u32> = entries
        .iter()
        .map(|entry| {
            let is_passing = entry.checks.iter().all(|check| check.status == "passing");
            if is_passing { entry.service.weights.passing } else { entry.service.weights.warning }
        })
        .collect();
    let server = |(entry, weight): (Entry, u32)| {
        let Entry { node, service, .. } = entry;
        let said = if service.address.is_empty() { &node.address } else { &service.address };
        let ip: IpAddr = said.parse().map_err(|_| {
            let id = &service.id;
            format!("service {id} on node {} has the address {said:?}, which is no IP address", node.node)
        })?;
        if service.port == 0 {
            return Err(format!("service {} on node {} has no port", service.id, node.node));
        }
        let name = name_of(&format!("{}.{}", node.node, service.id));
        Ok(FoundServer { name, address: SocketAddr::new(ip.to_canonical(), service.port), weight, backup: false })
    };
    entries.into_iter().zip(scaled(&weights)).map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Endpoint;

    fn source() -> ConsulSource {
        let host = "127.0.0.1".to_owned();
        ConsulSource {
            endpoint: Endpoint { is_tls: false, host, port: 8500, path: String::new() },
            service: "web".to_owned(),
            tags: Vec::new(),
            datacenter: None,
            passing: true,
            wait: Duration::from_secs(60),
            token_file: None,
            tls: None,
        }
    }

    #[test]
    fn the_index_only_grows_or_begins_again() {
        let index = Index::default().after(Some("12"));
        assert_eq!(index, Index(12));
        assert_eq!(index.after(Some("13")), Index(13));
        assert_eq!(index.after(Some("12")), Index(12));
        assert_eq!(index.after(Some("11")), Index(0));
        for field in [None, Some("0"), Some("-1"), Some("x"), Some("99999999999999999999999")] {
            assert_eq!(index.after(field), Index(0), "{field:?}");
        }
    }

    #[test]
    fn a_question_has_what_the_configuration_says() {
        assert_eq!(path(&source(), Index(0)), "/v1/health/service/web?passing");
        assert_eq!(path(&source(), Index(7)), "/v1/health/service/web?passing&index=7&wait=60s");
        let tags = vec!["v 2".to_owned(), "eu".to_owned()];
        let all = ConsulSource { passing: false, tags, datacenter: Some("dc/1".to_owned()), ..source() };
        assert_eq!(path(&all, Index(0)), "/v1/health/service/web?dc=dc%2F1&tag=v%202&tag=eu");
        assert_eq!(
            path(&ConsulSource { passing: false, ..source() }, Index(7)),
            "/v1/health/service/web?index=7&wait=60s"
        );
        assert_eq!(patience(&source(), Index(0), Duration::from_secs(5)), Duration::from_secs(5));
        assert_eq!(patience(&source(), Index(7), Duration::from_secs(5)), Duration::from_millis(68_750));
    }

    #[test]
    fn an_answer_becomes_servers_with_names_that_stay() {
        let body = br#"[
            {"Node": {"Node": "n1", "Address": "10.0.0.1"},
             "Service": {"ID": "web", "Address": "", "Port": 80, "Weights": {"Passing": 10, "Warning": 2}},
             "Checks": [{"Status": "passing"}]},
            {"Node": {"Node": "n2", "Address": "10.0.0.2"},
             "Service": {"ID": "web", "Address": "10.1.0.2", "Port": 81, "Weights": {"Passing": 10, "Warning": 2}},
             "Checks": [{"Status": "passing"}, {"Status": "warning"}]}]"#;
        let server = |name: &str, address: &str, weight| FoundServer {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            weight,
            backup: false,
        };
        assert_eq!(servers(body).unwrap(), [server("n1.web", "10.0.0.1:80", 10), server("n2.web", "10.1.0.2:81", 2)]);
        assert_eq!(servers(b"[]").unwrap(), []);
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        assert!(servers(b"Permission denied").unwrap_err().contains("not understood"));
        assert!(servers(b"[{}]").is_err());
        let named = br#"[{"Node":{"Node":"n","Address":"h.example"},"Service":{"ID":"w","Port":80}}]"#;
        assert_eq!(
            servers(named).unwrap_err(),
            "service w on node n has the address \"h.example\", which is no IP address"
        );
        let no_port = br#"[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"w","Port":0}}]"#;
        assert_eq!(servers(no_port).unwrap_err(), "service w on node n has no port");
    }
}
