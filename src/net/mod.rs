//! Thin adapters to the operating system: each file wraps one thing the kernel offers, and decides nothing.

pub mod child;
pub mod clock;
pub mod descriptors;
pub mod link_socket;
pub mod listen;
pub mod memory;
pub mod neighbour;
pub mod netlink;
pub mod newcomers;
pub mod open_files;
pub mod outgoing;
pub mod privileges;
pub mod realtime;
pub mod sysctl;
pub mod vrrp_socket;
