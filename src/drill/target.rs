//! Where clients ask, from what a scenario says: names are looked up, certificates read.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use crate::config::FileKind;
use crate::config::certificates;
use crate::config::read_file;
use crate::config::scenario::{ScenarioLoad, ServerFrom, Url};
use crate::lab::client::{self, Target, Tls};
use crate::lab::load::LoadSpec;

use super::Halt;

/// The load of a scenario.
///
/// # Errors
/// When a host has no address, or the certificates cannot be read.
pub fn load_spec(load: &ScenarioLoad) -> Result<LoadSpec, Halt> {
    let server_from = match &load.server_from {
        ServerFrom::Cookie => client::ServerFrom::Cookie,
        ServerFrom::Body => client::ServerFrom::Body,
        ServerFrom::Header(name) => client::ServerFrom::Header(name.to_ascii_lowercase()),
    };
    let is_tls = load.url.is_tls || load.websocket.as_ref().is_some_and(|url| url.is_tls);
    let config = is_tls.then(|| tls_config(load.ca.as_deref())).transpose()?;
    let target = |url: &Url| target(url, config.as_ref(), server_from.clone());
    Ok(LoadSpec {
        target: target(&load.url)?,
        servers: Vec::new(),
        probe_interval: Duration::from_secs(1) / load.new_connections.max(1),
        probe_timeout: load.timeout,
        busy_connections: load.kept_connections,
        busy_pause: load.kept_pause,
        users: load.users,
        user_pause: load.user_pause,
        cookie: load.cookie.clone(),
        websockets: load.websocket.as_ref().map(|url| Ok::<_, Halt>((target(url)?, load.websockets))).transpose()?,
        tcp_connections: match &load.tcp {
            Some((host, port)) => Some((resolve(host, *port)?, load.tcp_connections)),
            None => None,
        },
        message_pause: load.message_pause,
        connect_timeout: load.timeout,
        answer_timeout: load.timeout,
    })
}

/// What clients do, in words.
pub fn described(spec: &LoadSpec) -> String {
    let rate = Duration::from_secs(1).as_nanos() / spec.probe_interval.as_nanos().max(1);
    let mut kinds = vec![format!("{rate} new connections a second")];
    let mut add = |count: u16, what: &str| {
        if count > 0 {
            kinds.push(format!("{count} {what}"));
        }
    };
    add(spec.busy_connections, "busy connections");
    add(spec.users, "users with a cookie");
    add(spec.websockets.as_ref().map_or(0, |(_, count)| *count), "WebSockets");
    add(spec.tcp_connections.map_or(0, |(_, count)| count), "TCP connections");
    match kinds.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => kinds.concat(),
    }
}

fn target(url: &Url, config: Option<&Arc<ClientConfig>>, server_from: client::ServerFrom) -> Result<Target, Halt> {
    let tls = match config.filter(|_| url.is_tls) {
        Some(config) => {
            let name = ServerName::try_from(url.host.clone());
            let name =
                name.map_err(|_| Halt::Failed(format!("{} is no name that a certificate can have", url.host)))?;
            Some(Tls { config: Arc::clone(config), name })
        }
        None => None,
    };
    let address = resolve(&url.host, url.port)?;
    Ok(Target { address, host: url.authority.clone(), path: url.path.clone(), tls, server_from })
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Halt> {
    let failed = |why: String| Halt::Failed(format!("failed to look up {host}: {why}"));
    let mut found = (host, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("it has no address".to_owned()))
}

/// Trusts what this system trusts, and the certificates of a file.
fn tls_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, Halt> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let text = read_file(path, FileKind::Public).map_err(|error| Halt::Failed(error.to_string()))?;
        let chain = certificates::chain(&text, path).map_err(|unusable| Halt::Failed(unusable.to_string()))?;
        roots.add_parsable_certificates(chain);
    }
    if roots.is_empty() {
        let remedy = "name a file with `ca`, or install ca-certificates";
        return Err(Halt::Failed(format!("no certificate authority is trusted here: {remedy}")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Halt::Failed(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
