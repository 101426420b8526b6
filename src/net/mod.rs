//! Thin adapters to the operating system: each file wraps one thing the kernel offers, and decides nothing.

pub mod arp;
pub mod clock;
pub mod descriptors;
pub mod listen;
pub mod netlink;
pub mod privileges;
pub mod realtime;
pub mod sysctl;
pub mod vrrp_socket;
