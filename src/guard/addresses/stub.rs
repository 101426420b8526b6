//! TODO: goes once net::neighbour has IPv6 and ClaimWatcher (branch sockets).
use std::io;
use std::net::IpAddr;

use pnet::util::MacAddr;

use crate::net::arp;
pub use crate::net::arp::Announcer;

#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub address: IpAddr,
    pub hardware: MacAddr,
}

pub struct ClaimWatcher;

impl ClaimWatcher {
    pub fn open(_: u32, _: Vec<IpAddr>) -> io::Result<Self> {
        Ok(Self)
    }
    pub async fn next(&mut self) -> io::Result<Claim> {
        std::future::pending().await
    }
}

pub fn announcement(hardware: MacAddr, address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(address) => arp::announcement(hardware, address),
        IpAddr::V6(_) => None,
    }
}

pub fn question(hardware: MacAddr, address: IpAddr, peer: IpAddr) -> Option<Vec<u8>> {
    match (address, peer) {
        (IpAddr::V4(address), IpAddr::V4(peer)) => arp::question(hardware, address, peer),
        _ => None,
    }
}

pub fn probe(_: MacAddr, _: IpAddr) -> Option<Vec<u8>> {
    None
}
