//! The rows of the matrix: every way in which the two programs may speak VRRP to each other, and what each is configured
//! with for it.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use super::keepalived::{Instance, Preempt};

/// Time that a preferred node stands by before it takes a VIP back: longer than it takes to lose the other node meanwhile.
pub const HOLD: Duration = Duration::from_secs(8);

/// The interface of VIPs that are not where the adverts are.
pub const SERVICE_INTERFACE: &str = "svc0";

/// The first virtual router id, and the first address, of the matrix.
const FIRST: u8 = 101;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How adverts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// To the group.
    Multicast,
    /// To the other node.
    Unicast,
}

/// Which node takes a VIP back when it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preferred {
    /// The one with Baton.
    Baton,
    /// The one with keepalived.
    Keepalived,
    /// Neither.
    Nobody,
}

impl Preferred {
    /// In the order of the table.
    pub const ALL: [Self; 3] = [Self::Baton, Self::Keepalived, Self::Nobody];
}

impl fmt::Display for Preferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Baton => "baton preferred",
            Self::Keepalived => "keepalived preferred",
            Self::Nobody => "nobody preferred",
        })
    }
}

/// What is special about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Nothing.
    None,
    /// This many addresses more.
    Addresses(u8),
    /// The simple password of VRRPv2.
    Password,
    /// Baton sends half as often as keepalived.
    SlowBaton,
    /// keepalived has the higher priority, and yet leaves a VIP where it is.
    LowBaton,
    /// Baton speaks both versions.
    BothVersions,
    /// The addresses are on another interface than the adverts.
    OtherInterface,
}

/// A row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The version that keepalived speaks.
    pub version: u8,
    /// The family.
    pub family: Family,
    /// The transport.
    pub transport: Transport,
    /// What is special about it.
    pub special: Special,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
        let transport = if self.transport == Transport::Multicast { "multicast" } else { "unicast" };
        let special = match self.special {
            Special::None => String::new(),
            Special::Addresses(more) => format!(", {} addresses more", more),
            Special::Password => ", password".to_owned(),
            Special::SlowBaton => ", baton 200 ms".to_owned(),
            Special::LowBaton => ", keepalived higher".to_owned(),
            Special::BothVersions => ", baton 2+3".to_owned(),
            Special::OtherInterface => ", VIP on other interface".to_owned(),
        };
        f.pad(&format!("v{} {family} {transport}{special}", self.version))
    }
}

impl Row {
    const fn plain(version: u8, family: Family, transport: Transport) -> Self {
        Self { version, family, transport, special: Special::None }
    }

    const fn special(version: u8, family: Family, transport: Transport, special: Special) -> Self {
        Self { version, family, transport, special }
    }

    /// All rows.
    pub const ALL: [Self; 14] = [
        Self::plain(2, Family::V4, Transport::Multicast),
        Self::plain(2, Family::V4, Transport::Unicast),
        Self::plain(3, Family::V4, Transport::Multicast),
        Self::plain(3, Family::V4, Transport::Unicast),
        Self::plain(3, Family::V6, Transport::Multicast),
        Self::plain(3, Family::V6, Transport::Unicast),
        Self::special(3, Family::V4, Transport::Multicast, Special::Addresses(2)),
        Self::special(3, Family::V6, Transport::Multicast, Special::Addresses(3)),
        Self::special(2, Family::V4, Transport::Multicast, Special::Password),
        Self::special(3, Family::V4, Transport::Unicast, Special::SlowBaton),
        Self::special(3, Family::V4, Transport::Unicast, Special::LowBaton),
        Self::special(2, Family::V4, Transport::Multicast, Special::BothVersions),
        Self::special(3, Family::V4, Transport::Multicast, Special::BothVersions),
        Self::special(3, Family::V4, Transport::Multicast, Special::OtherInterface),
    ];

    /// Who is preferred in it: everybody in turn in the plain ones, nobody in those that are special.
    pub fn preferences(self) -> &'static [Preferred] {
        if self.special == Special::None { &Preferred::ALL } else { &[Preferred::Nobody] }
    }

    fn is_slow(self) -> bool {
        self.version == 2 || self.special == Special::BothVersions
    }
}

/// One VIP of the matrix, held by either program.
#[derive(Debug, Clone)]
pub struct Vip {
    /// Its name on both.
    pub name: String,
    /// Its row.
    pub row: Row,
    /// Who is preferred.
    pub preferred: Preferred,
    /// Its virtual router id.
    pub id: u8,
    /// Its addresses without prefix lengths.
    pub addresses: Vec<String>,
}

impl Vip {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let cells =
            Row::ALL.into_iter().flat_map(|row| row.preferences().iter().map(move |preferred| (row, *preferred)));
        cells.zip(FIRST..).map(|((row, preferred), id)| Self::new(row, preferred, id)).collect()
    }

    fn new(row: Row, preferred: Preferred, id: u8) -> Self {
        let more = if let Special::Addresses(more) = row.special { more } else { 0 };
        let network = if row.special == Special::OtherInterface { "10.79.0" } else { "10.77.0" };
        let addresses = match row.family {
            Family::V4 => std::iter::once(format!("{network}.{id}"))
                .chain((1..=more).map(|more| format!("10.78.{more}.{id}")))
                .collect(),
            // RFC 9568 section 5.2.9 wants a link-local one first.
            Family::V6 => std::iter::once(format!("fe80::77:{id}"))
                .chain((0..=more).map(|more| format!("fd77::{more}:{id}")))
                .collect(),
        };
        Self { name: format!("vip{id}"), row, preferred, id, addresses }
    }

    /// Time between the adverts of keepalived.
    pub fn keepalived_interval(&self) -> Duration {
        Duration::from_millis(if self.row.is_slow() { 1000 } else { 100 })
    }

    /// Time between the adverts of Baton.
    pub fn baton_interval(&self) -> Duration {
        self.keepalived_interval() * if self.row.special == Special::SlowBaton { 2 } else { 1 }
    }

    /// The interface that carries its addresses.
    pub fn interface(&self) -> &'static str {
        if self.row.special == Special::OtherInterface { SERVICE_INTERFACE } else { "eth0" }
    }

    fn networks(&self) -> impl Iterator<Item = String> {
        let prefix_len = if self.row.family == Family::V4 { 24 } else { 64 };
        self.addresses.iter().map(move |address| format!("{address}/{prefix_len}"))
    }

    /// keepalived's part.
    pub fn instance(&self) -> Instance {
        let (priority, preempt) = match (self.preferred, self.row.special) {
            (Preferred::Keepalived, _) => (254, Preempt::After(HOLD)),
            (Preferred::Nobody, Special::LowBaton) => (252, Preempt::Never),
            (Preferred::Baton | Preferred::Nobody, _) => (100, Preempt::Never),
        };
        let unicast = match (self.row.transport, self.row.family) {
            (Transport::Multicast, _) => None,
            (Transport::Unicast, Family::V4) => Some(("10.77.0.12", "10.77.0.11")),
            (Transport::Unicast, Family::V6) => Some(("fd77::12", "fd77::11")),
        };
        let extra = match self.row.special {
            Special::Password => "authentication {\n    auth_type PASS\n    auth_pass open-ses\n  }",
            _ => "",
        };
        Instance {
            name: self.name.clone(),
            id: self.id,
            version: self.row.version,
            priority,
            interval: self.keepalived_interval(),
            preempt,
            unicast,
            addresses: self.networks().map(|network| format!("{network} dev {}", self.interface())).collect(),
            extra: extra.to_owned(),
        }
    }

    /// Baton's part.
    pub fn table(&self) -> String {
        let addresses: Vec<String> = self.networks().map(|network| format!("\"{network}\"")).collect();
        let version = match (self.row.special, self.row.version) {
            (Special::BothVersions, _) => "2+3",
            (_, 2) => "2",
            _ => "3",
        };
        let mut text = format!(
            "\n[[vip]]\nname = \"{name}\"\naddresses = [{addresses}]\ninterface = \"{interface}\"\nadvert_interface = \"eth0\"
virtual_router_id = {id}\nadvert_interval = \"{interval}ms\"\nversion = \"{version}\"\ntransport = \"{transport}\"\n",
            name = self.name,
            addresses = addresses.join(", "),
            interface = self.interface(),
            id = self.id,
            interval = self.baton_interval().as_millis(),
            transport = if self.row.transport == Transport::Multicast { "multicast" } else { "unicast" },
        );
        let node = match self.preferred {
            Preferred::Baton => Some("lb-a"),
            Preferred::Keepalived => Some("lb-b"),
            Preferred::Nobody => None,
        };
        if let Some(node) = node {
            let _ = writeln!(text, "prefer = \"{node}\"\nprefer_hold = \"{}s\"", HOLD.as_secs());
        }
        if self.row.special == Special::Password {
            text.push_str("password_file = \"vrrp-password\"\n");
        }
        text
    }
}

/// Baton's configuration.
pub fn configuration(vips: &[Vip]) -> String {
    let tables: Vec<String> = vips.iter().map(Vip::table).collect();
    format!(
        "[[node]]\nname = \"lb-a\"\naddress = \"10.77.0.11\"\nfurther_addresses = [\"fd77::11\"]\n
[[node]]\nname = \"lb-b\"\naddress = \"10.77.0.12\"\nfurther_addresses = [\"fd77::12\"]\n
[worker]\nprobe_timeout = \"5s\"\n{}",
        tables.concat()
    )
}
