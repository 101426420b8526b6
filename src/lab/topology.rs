//! The network of the lab: a switch and the machines plugged into it, each in a network namespace of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::namespace::Namespace;
use super::netlink::{self, Admin, Readiness};
use super::{LabError, wait_for};
use crate::units::IpNetwork;

/// The interface of every machine.
pub const INTERFACE: &str = "eth0";

/// The bridge inside the switch.
const BRIDGE: &str = "br0";

/// Time for a cable to carry packets after it was plugged in. The kernel takes one second at most.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologySpec {
    /// Name and address of each machine. Names are interface names in the switch too: 1 to 15 bytes, and not `br0`.
    pub hosts: Vec<(String, IpNetwork)>,
    /// When given, each namespace is shown as /run/netns/PREFIX followed by its name. A process that builds several
    /// topologies gives each a prefix of its own.
    pub netns_prefix: Option<String>,
}

impl TopologySpec {
    /// Two nodes, a client, three servers: 10.77.0.11, .12, .50 and .21 to .23, in a /24.
    pub fn pair() -> Self {
        let hosts = [("lb-a", 11), ("lb-b", 12), ("client", 50), ("web1", 21), ("web2", 22), ("web3", 23)];
        let network = |last| IpNetwork::new(Ipv4Addr::new(10, 77, 0, last), 24);
        let hosts = hosts.into_iter().filter_map(|(name, last)| Some((name.to_owned(), network(last)?))).collect();
        Self { hosts, netns_prefix: None }
    }
}

/// A switch and the machines plugged into it. It goes when it is dropped and no process is left in it.
#[derive(Debug)]
pub struct Topology {
    switch: Namespace,
    hosts: Vec<Namespace>,
}

impl Topology {
    /// Builds it. No setting that bears on ARP is touched: what a client here needs to follow a VIP, every client has.
    ///
    /// # Errors
    /// What the kernel refused, and for what.
    pub fn build(spec: &TopologySpec) -> Result<Self, LabError> {
        let prefix = spec.netns_prefix.as_deref();
        let switch = create_namespace("switch", prefix)?;
        switch.run(|| netlink::create_bridge(BRIDGE))??;
        let mut hosts = Vec::with_capacity(spec.hosts.len());
        for (name, address) in &spec.hosts {
            let host = create_namespace(name, prefix)?;
            plug_in(&host, *address, &switch)?;
            hosts.push(host);
        }
        let topology = Self { switch, hosts };
        for (name, _) in &spec.hosts {
            topology.wait_until_linked(name)?;
        }
        Ok(topology)
    }

    /// The namespace of a machine.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`].
    pub fn host(&self, name: &str) -> Result<&Namespace, LabError> {
        let found = self.hosts.iter().find(|host| host.name() == name);
        found.ok_or_else(|| LabError::NoSuchHost(name.to_owned()))
    }

    /// The namespace of the switch, where packets between machines can be dropped or looked at; its ports are named
    /// after the machines.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Pulls a machine's cable at the switch: the machine sees its link without carrier, like a switch that lost power.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`], or what the kernel refused.
    pub fn cut_cable(&self, host: &str) -> Result<(), LabError> {
        self.set_port(host, Admin::Down)
    }

    /// Plugs it in again. The kernel needs up to a second to use the link; see [`Topology::wait_until_linked`].
    ///
    /// # Errors
    /// As [`Topology::cut_cable`].
    pub fn restore_cable(&self, host: &str) -> Result<(), LabError> {
        self.set_port(host, Admin::Up)
    }

    /// Takes the machine's own end of the cable down, as `ip link set eth0 down` on it does. Its addresses stay.
    ///
    /// # Errors
    /// As [`Topology::cut_cable`].
    pub fn take_interface_down(&self, host: &str) -> Result<(), LabError> {
        self.host(host)?.run(|| netlink::set_link(INTERFACE, Admin::Down))?
    }

    /// Takes it up again. As with [`Topology::restore_cable`] it takes a while.
    ///
    /// # Errors
    /// As [`Topology::cut_cable`].
    pub fn take_interface_up(&self, host: &str) -> Result<(), LabError> {
        self.host(host)?.run(|| netlink::set_link(INTERFACE, Admin::Up))?
    }

    /// Has the switch swallow all that goes to and from a machine, which keeps its carrier: a black hole.
    ///
    /// # Errors
    /// As [`Topology::cut_cable`].
    pub fn isolate(&self, host: &str) -> Result<(), LabError> {
        let port = self.host(host)?.name();
        self.switch.run(|| netlink::leave_bridge(port))?
    }

    /// Ends what [`Topology::isolate`] began.
    ///
    /// # Errors
    /// As [`Topology::cut_cable`].
    pub fn rejoin(&self, host: &str) -> Result<(), LabError> {
        let port = self.host(host)?.name();
        self.switch.run(|| netlink::join_bridge(BRIDGE, port))?
    }

    /// Takes an address off a machine's interface, as whatever left it there should have, and says whether it was there.
    ///
    /// # Errors
    /// As [`Topology::carries`].
    pub fn remove_address(&self, host: &str, address: Ipv4Addr) -> Result<bool, LabError> {
        self.host(host)?.run(|| netlink::remove_address(INTERFACE, address))?
    }

    /// Waits until packets pass a machine's cable in both directions. A node started before that is alone for up to a
    /// second, and rightly believes so.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`], [`LabError::TimedOut`], or what the kernel refused.
    pub fn wait_until_linked(&self, host: &str) -> Result<(), LabError> {
        let host = self.host(host)?;
        let linked = || -> Result<bool, LabError> {
            let near = host.run(|| netlink::is_operational(INTERFACE))??;
            Ok(near && self.switch.run(|| netlink::is_operational(host.name()))??)
        };
        let what = format!("the cable of {} to carry packets", host.name());
        wait_for(&what, LINK_TIMEOUT, || match linked() {
            Ok(linked) => linked.then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })?
    }

    fn set_port(&self, host: &str, admin: Admin) -> Result<(), LabError> {
        let port = self.host(host)?.name();
        self.switch.run(|| netlink::set_link(port, admin))?
    }

    /// Gives a machine a further address.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`], or what the kernel refused.
    pub fn add_address(&self, host: &str, address: IpNetwork) -> Result<(), LabError> {
        self.host(host)?.run(|| netlink::add_address(INTERFACE, address))?
    }

    /// Waits until the kernel is sure of every address of a machine: of the link-local one that it makes itself it asks
    /// the link for a second or two whether somebody else has it (RFC 4862 section 5.4).
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`], [`LabError::TimedOut`], or what the kernel refused.
    pub fn wait_until_addressed(&self, host: &str) -> Result<(), LabError> {
        let host = self.host(host)?;
        let is_addressed = || -> Result<bool, LabError> {
            let carried = host.run(|| netlink::addresses(INTERFACE))??;
            Ok(carried.iter().all(|(_, readiness)| *readiness == Readiness::Usable))
        };
        let what = format!("the addresses of {} to be usable", host.name());
        wait_for(&what, LINK_TIMEOUT, || match is_addressed() {
            Ok(addressed) => addressed.then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })?
    }

    /// The machines whose interface carries `address`, by what the kernel says and not by what a node claims.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn holders(&self, address: impl Into<IpAddr>) -> Result<Vec<String>, LabError> {
        let address = address.into();
        let mut holders = Vec::new();
        for host in &self.hosts {
            if self.carries(host.name(), address)? {
                holders.push(host.name().to_owned());
            }
        }
        Ok(holders)
    }

    /// Whether a machine's interface carries `address`.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`], or what the kernel refused.
    pub fn carries(&self, host: &str, address: impl Into<IpAddr>) -> Result<bool, LabError> {
        let address = address.into();
        let carried = self.host(host)?.run(|| netlink::addresses(INTERFACE))??;
        Ok(carried.iter().any(|(carried, _)| *carried == address))
    }

    /// Every address that a machine's interface carries.
    ///
    /// # Errors
    /// As [`Topology::carries`].
    pub fn carried(&self, host: &str) -> Result<Vec<IpAddr>, LabError> {
        self.carried_on(host, INTERFACE)
    }

    /// Every address that another interface of a machine carries.
    ///
    /// # Errors
    /// As [`Topology::carries`].
    pub fn carried_on(&self, host: &str, interface: &str) -> Result<Vec<IpAddr>, LabError> {
        let carried = self.host(host)?.run(|| netlink::addresses(interface))??;
        Ok(carried.into_iter().map(|(address, _)| address).collect())
    }
}

fn create_namespace(name: &str, prefix: Option<&str>) -> Result<Namespace, LabError> {
    match prefix {
        Some(prefix) => Namespace::create_exposed(name, &format!("{prefix}{name}")),
        None => Namespace::create(name),
    }
}

/// Lays the cable from the machine's side, so that its interface is called the same in each machine from the start.
fn plug_in(host: &Namespace, address: IpNetwork, switch: &Namespace) -> Result<(), LabError> {
    let port = host.name();
    host.run(|| {
        netlink::set_link("lo", Admin::Up)?;
        netlink::create_cable(INTERFACE, port, switch.fd())?;
        netlink::add_address(INTERFACE, address)?;
        netlink::set_link(INTERFACE, Admin::Up)
    })??;
    switch.run(|| netlink::join_bridge(BRIDGE, port))?
}
