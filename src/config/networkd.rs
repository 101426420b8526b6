//! Whether systemd-networkd would take virtual addresses off an interface.
//!
//! It removes addresses that it did not make whenever it configures an interface: when it starts, and when its files change.
//! Baton puts them back within milliseconds, but a connection that is set up just then fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where it keeps what it does with each interface, by the interface's number.
const LINKS: &str = "/run/systemd/netif/links";

/// What is odd about an interface that carries virtual addresses; `None` where nothing is, or there is no networkd.
pub(super) fn warning(interface: &str, index: u32) -> Option<String> {
    let state = fs::read_to_string(Path::new(LINKS).join(index.to_string())).ok()?;
    let files = files_in_charge(&state);
    let network = files.first()?;
    let keeps = files.iter().any(|file| fs::read_to_string(file).is_ok_and(|text| keeps_addresses(&text)));
    let warned = || {
        format!(
            "systemd-networkd configures {interface} by {} and removes virtual addresses from it when it starts; add \
             KeepConfiguration=static to the [Network] section there",
            network.display()
        )
    };
    (!keeps).then(warned)
}

/// The files by which it configures an interface, its .network file first: none where it leaves the interface alone.
fn files_in_charge(state: &str) -> Vec<PathBuf> {
    let values: BTreeMap<&str, &str> = state.lines().filter_map(|line| line.split_once('=')).collect();
    let is_managed = values.get("ADMIN_STATE").is_some_and(|state| *state != "unmanaged");
    let Some(network) = values.get("NETWORK_FILE").filter(|_| is_managed) else { return Vec::new() };
    let further = values.get("NETWORK_FILE_DROPINS").copied().unwrap_or_default().trim_matches('"');
    let further = further.split([':', ' ']).filter(|path| !path.is_empty());
    [*network].into_iter().chain(further).map(PathBuf::from).collect()
}

/// Whether a .network file or a drop-in says to leave addresses that were there.
fn keeps_addresses(text: &str) -> bool {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("KeepConfiguration")?.trim_start().strip_prefix('='))
        .any(|value| matches!(value.trim(), "static" | "yes" | "true" | "1" | "on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_those_of_an_interface_that_it_configures() {
        let state = "ADMIN_STATE=configured\nOPER_STATE=routable\nNETWORK_FILE=/etc/systemd/network/10-front.network\n\
                     NETWORK_FILE_DROPINS=\"/etc/systemd/network/10-front.network.d/a.conf:/run/b.conf\"\n";
        let files =
            ["/etc/systemd/network/10-front.network", "/etc/systemd/network/10-front.network.d/a.conf", "/run/b.conf"];
        assert_eq!(files_in_charge(state), files.map(PathBuf::from));
        assert!(files_in_charge("ADMIN_STATE=unmanaged\nNETWORK_FILE=/etc/systemd/network/x.network\n").is_empty());
        assert!(files_in_charge("ADMIN_STATE=initialized\nOPER_STATE=carrier\n").is_empty());
    }

    #[test]
    fn addresses_are_kept_where_it_is_said() {
        assert!(keeps_addresses("[Network]\nAddress=192.0.2.11/24\nKeepConfiguration=static\n"));
        assert!(keeps_addresses("[Network]\n  KeepConfiguration = yes\n"));
        assert!(!keeps_addresses("[Network]\n#KeepConfiguration=static\n"));
        assert!(!keeps_addresses("[Network]\nKeepConfiguration=dhcp-on-stop\n"));
        assert!(!keeps_addresses("[Network]\nAddress=192.0.2.11/24\n"));
    }
}
