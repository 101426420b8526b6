//! How health checks reach the servers of a pool where that is another way than that of requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::dial::Dialer;
use crate::config::{Check, CheckTls, Health, Pool, ServerProtocol, StorePassword};
use crate::proxy::files::Files;

/// What the checks of one pool need.
pub struct Checking {
    dialer: Option<Dialer>,
    password: Option<Password>,
}

struct Password {
    path: PathBuf,
    current: ArcSwapOption<StorePassword>,
}

impl Checking {
    /// As the pool has it; `None` where its checks go the way of its requests and log in nowhere.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why.
    pub(super) fn new(pool: &Pool, files: &Files) -> Result<Option<Self>, String> {
        let Some(health) = &pool.health else { return Ok(None) };
        let way = own_way(pool, health);
        let dialer = way.map(|way| Dialer::unchecked(&way, files)).transpose()?;
        let password = match &health.way.password_file {
            Some(path) => {
                let current = ArcSwapOption::from(Some(read(path, files)?));
                Some(Password { path: path.clone(), current })
            }
            None => None,
        };
        Ok((dialer.is_some() || password.is_some()).then_some(Self { dialer, password }))
    }

    /// Takes files that have changed.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why. It is as before then.
    pub(super) fn files_changed(&self, files: &Files) -> Result<(), String> {
        if let Some(password) = &self.password {
            password.current.store(Some(read(&password.path, files)?));
        }
        self.dialer.as_ref().map_or(Ok(()), |dialer| dialer.files_changed(files))
    }

    pub(super) fn dialer(&self) -> Option<&Dialer> {
        self.dialer.as_ref()
    }

    pub(super) fn password(&self) -> Option<Arc<StorePassword>> {
        self.password.as_ref()?.current.load_full()
    }
}

fn read(path: &Path, files: &Files) -> Result<Arc<StorePassword>, String> {
    let content = files.get(path).unwrap_or_default();
    let password = StorePassword::from_bytes(&content).map(Arc::new);
    password.ok_or_else(|| format!("{} must hold a password on one line", path.display()))
}

/// A pool whose requests go the way of the checks of this one; `None` where they do already.
fn own_way(pool: &Pool, health: &Health) -> Option<Pool> {
    let tls = match &health.way.tls {
        CheckTls::AsPool => pool.tls.clone(),
        CheckTls::Off => None,
        CheckTls::Own(tls) => Some(tls.clone()),
    };
    let wants_http2 = match health.check {
        Check::Grpc { .. } => Some(true),
        _ => health.way.http2,
    };
    let protocol = match (wants_http2, pool.protocol, tls.is_some()) {
        (Some(true), _, true) | (None, ServerProtocol::H2 | ServerProtocol::H2c, true) => ServerProtocol::H2,
        (Some(true), _, false) | (None, ServerProtocol::H2 | ServerProtocol::H2c, false) => ServerProtocol::H2c,
        (None, ServerProtocol::Auto, true) => ServerProtocol::Auto,
        (Some(false), _, _) | (None, ServerProtocol::Http1 | ServerProtocol::Auto, _) => ServerProtocol::Http1,
    };
    // At another port listens somebody else, who is told nothing of clients.
    let is_elsewhere = health.way.port.is_some() || health.way.address.is_some();
    let send_proxy = pool.send_proxy.filter(|_| !is_elsewhere);
    let is_own = tls != pool.tls || protocol != pool.protocol || send_proxy != pool.send_proxy;
    is_own.then(|| Pool { tls, protocol, send_proxy, health: None, ..pool.clone() })
}
