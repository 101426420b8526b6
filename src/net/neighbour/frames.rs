//! The frames of ARP (RFC 826, RFC 5227) and of neighbour discovery (RFC 4861, RFC 4862), whole and with their headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::icmpv6::ndp::{
    Icmpv6Codes, MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NdpOption, NdpOptionType, NdpOptionTypes,
    NeighborAdvertFlags, NeighborAdvertPacket,
};
use pnet::packet::icmpv6::{Icmpv6Packet, Icmpv6Types, MutableIcmpv6Packet, checksum};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::util::MacAddr;

const ETHERNET_HEADER_BYTES: usize = 14;
/// ARP for IPv4 over Ethernet.
const ARP_BYTES: usize = 28;
const IPV6_HEADER_BYTES: usize = 40;
/// A neighbour solicitation or advertisement without options.
const NEIGHBOUR_BYTES: usize = 24;
/// The option that holds an Ethernet address.
const LINK_ADDRESS_OPTION_BYTES: usize = 8;
/// A router would lower it: neighbour discovery from afar is refused (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;
/// Every node on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Somebody says that an address is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Where they say it is.
    pub hardware: MacAddr,
}

/// The frame that announces `address` at `hardware` to everybody on the link.
///
/// IPv4: a broadcast ARP request whose sender and target are both the address (RFC 9568 section 6.4.2, RFC 5227
/// section 3). IPv6: an unsolicited neighbour advertisement from the address itself, with the Override flag. The Router
/// flag is clear, unlike in RFC 9568: we take connections and route nothing, and hosts would believe it.
pub fn announcement(hardware: MacAddr, address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(address) => arp_request(hardware, address, (MacAddr::broadcast(), address)),
        IpAddr::V6(address) => {
            let mut message = [0_u8; NEIGHBOUR_BYTES + LINK_ADDRESS_OPTION_BYTES];
            let mut advert = MutableNeighborAdvertPacket::new(&mut message)?;
            advert.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
            advert.set_icmpv6_code(Icmpv6Codes::NoCode);
            advert.set_flags(NeighborAdvertFlags::Override);
            advert.set_target_addr(address);
            advert.set_options(&[link_address_option(NdpOptionTypes::TargetLLAddr, hardware)]);
            icmpv6_frame(hardware, (address, ALL_NODES), &mut message)
        }
    }
}

/// The frame that asks everybody on the link for the hardware address of `peer`, and so tells `peer` ours: whoever is
/// asked notes who asks (RFC 826, "Packet Reception"; RFC 4861 section 7.2.3). `None` when the two differ in family.
pub fn question(hardware: MacAddr, own: IpAddr, peer: IpAddr) -> Option<Vec<u8>> {
    match (own, peer) {
        (IpAddr::V4(own), IpAddr::V4(peer)) => arp_request(hardware, own, (MacAddr::zero(), peer)),
        (IpAddr::V6(own), IpAddr::V6(peer)) => solicitation(hardware, own, peer),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The frame that asks whether anybody holds `address`, without saying that we do: nobody's memory of the address
/// changes by it. IPv4: an ARP probe (RFC 5227 section 2.1.1), answered to us alone. IPv6: a neighbour solicitation as
/// in duplicate address detection (RFC 4862 section 5.4.2), answered to every node.
pub fn probe(hardware: MacAddr, address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(address) => arp_request(hardware, Ipv4Addr::UNSPECIFIED, (MacAddr::zero(), address)),
        IpAddr::V6(address) => solicitation(hardware, Ipv6Addr::UNSPECIFIED, address),
    }
}

/// What a frame claims: the sender of an ARP packet says where its address is, and so does a neighbour advertisement.
/// A probe claims nothing. `None` for every other frame, and for one with anything wrong about it.
pub fn claim_in(frame: &[u8]) -> Option<Claim> {
    let ethernet = EthernetPacket::new(frame)?;
    match ethernet.get_ethertype() {
        EtherTypes::Arp => claim_in_arp(ethernet.payload()),
        EtherTypes::Ipv6 => claim_in_ipv6(ethernet.payload(), ethernet.get_source()),
        _ => None,
    }
}

fn arp_request(hardware: MacAddr, sender: Ipv4Addr, target: (MacAddr, Ipv4Addr)) -> Option<Vec<u8>> {
    let mut payload = [0_u8; ARP_BYTES];
    let mut arp = MutableArpPacket::new(&mut payload)?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(hardware);
    arp.set_sender_proto_addr(sender);
    arp.set_target_hw_addr(target.0);
    arp.set_target_proto_addr(target.1);
    frame((hardware, MacAddr::broadcast()), EtherTypes::Arp, &payload)
}

/// A neighbour solicitation. From the unspecified address it must not say where the answer goes (RFC 4861 section 4.3).
fn solicitation(hardware: MacAddr, own: Ipv6Addr, target: Ipv6Addr) -> Option<Vec<u8>> {
    let mut message = [0_u8; NEIGHBOUR_BYTES + LINK_ADDRESS_OPTION_BYTES];
    let mut solicit = MutableNeighborSolicitPacket::new(&mut message)?;
    solicit.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
    solicit.set_icmpv6_code(Icmpv6Codes::NoCode);
    solicit.set_target_addr(target);
    let mut len_bytes = NEIGHBOUR_BYTES;
    if !own.is_unspecified() {
        solicit.set_options(&[link_address_option(NdpOptionTypes::SourceLLAddr, hardware)]);
        len_bytes += LINK_ADDRESS_OPTION_BYTES;
    }
    icmpv6_frame(hardware, (own, solicited_nodes(target)), message.get_mut(..len_bytes)?)
}

/// The group that whoever holds `address` listens to (RFC 4291 section 2.7.1).
fn solicited_nodes(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn link_address_option(option_type: NdpOptionType, hardware: MacAddr) -> NdpOption {
    NdpOption { option_type, length: 1, data: hardware.octets().to_vec() }
}

/// Puts a message to a group into its packet and frame, with its checksum filled in.
fn icmpv6_frame(hardware: MacAddr, (source, group): (Ipv6Addr, Ipv6Addr), message: &mut [u8]) -> Option<Vec<u8>> {
    let mut icmp = MutableIcmpv6Packet::new(message)?;
    icmp.set_checksum(checksum(&icmp.to_immutable(), &source, &group));
    let mut packet = vec![0_u8; IPV6_HEADER_BYTES + message.len()];
    let mut ip = MutableIpv6Packet::new(&mut packet)?;
    ip.set_version(6);
    ip.set_payload_length(u16::try_from(message.len()).ok()?);
    ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ip.set_hop_limit(HOP_LIMIT);
    ip.set_source(source);
    ip.set_destination(group);
    ip.set_payload(message);
    let [.., a, b, c, d] = group.octets();
    frame((hardware, MacAddr::new(0x33, 0x33, a, b, c, d)), EtherTypes::Ipv6, &packet)
}

fn frame((source, destination): (MacAddr, MacAddr), ethertype: EtherType, payload: &[u8]) -> Option<Vec<u8>> {
    let mut frame = vec![0_u8; ETHERNET_HEADER_BYTES + payload.len()];
    let mut ethernet = MutableEthernetPacket::new(&mut frame)?;
    ethernet.set_destination(destination);
    ethernet.set_source(source);
    ethernet.set_ethertype(ethertype);
    ethernet.set_payload(payload);
    Some(frame)
}

fn claim_in_arp(payload: &[u8]) -> Option<Claim> {
    let arp = ArpPacket::new(payload)?;
    let is_of_ipv4_over_ethernet = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && (arp.get_hw_addr_len(), arp.get_proto_addr_len()) == (6, 4);
    let address = arp.get_sender_proto_addr();
    if !is_of_ipv4_over_ethernet || address.is_unspecified() {
        return None;
    }
    Some(Claim { address: address.into(), hardware: arp.get_sender_hw_addr() })
}

/// The checks of RFC 4861 section 7.1.2.
fn claim_in_ipv6(payload: &[u8], sender: MacAddr) -> Option<Claim> {
    let ip = Ipv6Packet::new(payload)?;
    if ip.get_next_header() != IpNextHeaderProtocols::Icmpv6 || ip.get_hop_limit() != HOP_LIMIT {
        return None;
    }
    let len_bytes = usize::from(ip.get_payload_length());
    let message = payload.get(IPV6_HEADER_BYTES..)?.get(..len_bytes)?;
    let icmp = Icmpv6Packet::new(message)?;
    let is_sound = icmp.get_icmpv6_type() == Icmpv6Types::NeighborAdvert
        && icmp.get_icmpv6_code() == Icmpv6Codes::NoCode
        && icmp.get_checksum() == checksum(&icmp, &ip.get_source(), &ip.get_destination());
    if !is_sound {
        return None;
    }
    let address = NeighborAdvertPacket::new(message)?.get_target_addr();
    // An answer to somebody who knows the hardware address already may leave it out (RFC 4861 section 4.4).
    let hardware = target_link_address(message.get(NEIGHBOUR_BYTES..)?)?.unwrap_or(sender);
    Some(Claim { address: address.into(), hardware })
}

/// Looks among options for the one with the target's hardware address. `None` when they are malformed.
fn target_link_address(mut options: &[u8]) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let Some([kind, units, ..]) = options.first_chunk::<LINK_ADDRESS_OPTION_BYTES>().copied() {
        // A length of zero makes the whole message invalid, and would keep us here for ever.
        let len_bytes = usize::from(units).checked_mul(8).filter(|len_bytes| *len_bytes > 0)?;
        let option = options.get(..len_bytes)?;
        if kind == NdpOptionTypes::TargetLLAddr.0 {
            found = option.get(2..)?.first_chunk::<6>().map(|octets| MacAddr::from(*octets));
        }
        options = options.get(len_bytes..)?;
    }
    options.is_empty().then_some(found)
}
