//! Settings of interfaces under /proc/sys/net. They stay as they are when this program ends: another may rely on them by
//! then.

use std::io;
use std::path::Path;

/// Keeps an interface's other addresses of the same network when its first one is removed
/// (`net.ipv4.conf.IFACE.promote_secondaries`). Without it the kernel removes them too: a VIP that has become the first,
/// because the node's own address was away for a moment, would take that along when it is released.
///
/// # Errors
/// What open(2) or write(2) says, when it is off and cannot be set.
pub fn promote_secondaries(interface: &str) -> io::Result<()> {
    let is_on = |name| read("ipv4", name, "promote_secondaries").is_ok_and(|value| value != "0");
    if is_on("all") || is_on(interface) { Ok(()) } else { write("ipv4", interface, "promote_secondaries", "1") }
}

/// Whether an interface can have no IPv6 address: it is switched off there, or the kernel has none of it.
pub fn is_without_ipv6(interface: &str) -> bool {
    !Path::new("/proc/self/net/if_inet6").exists()
        || read("ipv6", interface, "disable_ipv6").is_ok_and(|value| value == "1")
}

/// Prepares a macvlan that is down for the addresses of a virtual router and for nothing else.
///
/// # Errors
/// Which setting could not be made, and what the kernel says.
pub fn prepare_macvlan(name: &str) -> io::Result<()> {
    for (key, value) in [
        // No address of its own, no router solicitation and nothing that a router advertisement brings: only the virtual
        // addresses may be heard from the virtual router's hardware address.
        ("addr_gen_mode", "1"),
        ("router_solicitations", "0"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        // MLDv2 says milliseconds after an address was removed that its group was left, and once more within a second.
        // The next holder has announced itself by then, and these frames of its own hardware address would have the
        // switches send its traffic here. MLDv1 says it at once or not at all.
        ("force_mld_version", "1"),
    ] {
        match set("ipv6", name, key, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    leave_arp_to_macvlans(name)?;
    // What comes in here is mostly answered through the interface below, which a strict filter takes for a forgery. Where
    // `all` asks for one, the larger value counts: 2, that there be any way back.
    set("ipv4", name, "rp_filter", "2")
}

/// Keeps an interface from speaking for addresses of others with a hardware address that is not theirs: from answering
/// questions for them, and from asking in their name, by which neighbours learn as well. The macvlan gets this, and the
/// interface below it. (IPv6 has it so without being told.)
///
/// # Errors
/// Which setting could not be made, and what the kernel says.
pub fn leave_arp_to_macvlans(interface: &str) -> io::Result<()> {
    for (key, value) in [("arp_ignore", 1), ("arp_announce", 2)] {
        // Higher ones are stricter.
        let is_strict = |found: String| found.parse::<u8>().is_ok_and(|found| found >= value);
        if !read("ipv4", interface, key).is_ok_and(is_strict) {
            set("ipv4", interface, key, &value.to_string())?;
        }
    }
    Ok(())
}

fn set(family: &str, interface: &str, key: &str, value: &str) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("net.{family}.conf.{interface}.{key} cannot be set to {value}: {error}"))
    };
    write(family, interface, key, value).map_err(named)
}

fn path(family: &str, interface: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{interface}/{key}")
}

fn read(family: &str, interface: &str, key: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path(family, interface, key))?.trim().to_owned())
}

fn write(family: &str, interface: &str, key: &str, value: &str) -> io::Result<()> {
    std::fs::write(path(family, interface, key), value)
}
