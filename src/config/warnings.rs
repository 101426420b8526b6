//! What a valid configuration says that is probably not meant.

use std::net::IpAddr;

use super::machine;
use super::model::{Config, Node, PoolIndex};

impl Config {
    /// What is probably not meant, in sentences; nothing here keeps the configuration from working.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let used = |index: PoolIndex| {
            self.listeners
                .iter()
                .any(|listener| listener.pool == Some(index) || listener.routes.iter().any(|route| route.pool == index))
        };
        for (index, pool) in self.pools.iter().enumerate() {
            if !used(PoolIndex(index)) {
                warnings.push(format!("pool {} is used by no listener and no route", pool.name));
            }
            if pool.servers.iter().all(|server| server.backup) {
                warnings.push(format!("pool {} has backup servers alone", pool.name));
            }
        }
        if !self.vips.is_empty() && self.nodes.len() == 1 {
            warnings.push("there is one node, so that nobody takes its vips over".to_owned());
        }
        if !self.vips.is_empty() && self.nodes.len() > 1 && self.pair.key_file.is_none() {
            warnings.push("pair.key_file is not set, so that adverts are not authenticated".to_owned());
        }
        self.warn_of_unserved_vips(&mut warnings);
        warnings
    }

    /// As [`Config::warnings`], with those that depend on this machine and the node that it is.
    pub fn machine_warnings(&self, node: Option<&Node>) -> Vec<String> {
        let mut warnings = self.warnings();
        warnings.extend(machine::warnings(self, node));
        warnings
    }

    fn warn_of_unserved_vips(&self, warnings: &mut Vec<String>) {
        if self.listeners.is_empty() {
            return;
        }
        let binds: Vec<IpAddr> =
            self.listeners.iter().flat_map(|listener| &listener.bind).map(|bind| bind.ip()).collect();
        let serves = |address: IpAddr| binds.iter().any(|bind| bind.is_unspecified() || *bind == address);
        for vip in &self.vips {
            if !vip.addresses.iter().any(|address| serves(address.network.address())) {
                warnings.push(format!("no listener is bound to an address of vip {}", vip.name));
            }
        }
    }
}
