"""Forged adverts, sent to one node from the machine of the clients: forge.py NODE_MAC NODE PEER PEER_LINK_LOCAL REPLAYED

NODE and PEER are the nodes' IPv4 addresses, REPLAYED an advert of the peer with its Ethernet header in hex, or `-`.
Each list says what a packet is, in the order in which the test counts them.
"""

import struct
import sys

from scapy.all import Ether, IP, IPv6, Raw, get_if_hwaddr, sendp
from scapy.layers.vrrp import VRRP, VRRPv3

node_mac, node, peer, peer_link_local, replayed = sys.argv[1:]
VIP, STRANGER, GROUP = "10.77.0.100", "10.77.0.50", "224.0.0.18"
GROUP6 = "ff02::12"


def v3(change={}, ip={}, trailer=b""):
    """A VRRPv3 advert of the peer to the node, valid but for what is changed."""
    advert = VRRPv3(**{"vrid": 51, "priority": 254, "adv": 10, "addrlist": [VIP], **change})
    header = IP(**{"src": peer, "dst": node, "ttl": 255, "proto": 112, **ip})
    # scapy's VRRP leaves out what follows it.
    return header / Raw(bytes(header / advert)[20:] + trailer)


def v2(change={}, ip={}):
    """A VRRPv2 advert of the peer to the group, valid but for what is changed. Its password is `open-ses`."""
    advert = VRRP(
        **{
            "vrid": 52,
            "priority": 254,
            "adv": 1,
            "authtype": 1,
            "addrlist": ["10.77.0.101"],
            "auth1": 0x6F70656E,
            "auth2": 0x2D736573,
            **change,
        }
    )
    return IP(**{"src": peer, "dst": GROUP, "ttl": 255, "proto": 112, **ip}) / advert


def v6(change={}, ip={}):
    """A VRRPv3 advert over IPv6 to the group, valid but for what is changed."""
    advert = VRRPv3(**{"vrid": 53, "priority": 254, "adv": 10, "addrlist": ["fd77::100"], **change})
    return IPv6(**{"src": peer_link_local, "dst": GROUP6, "hlim": 255, "nh": 112, **ip}) / advert


def trailer(kind=1, key=1):
    """A signature that nobody made, of the year 2100."""
    return struct.pack("!BBHIHH", kind, key, 0, 4102444800, 0, 0) + b"forged by us all"


whole = bytes(v3())[20:]
forged = [
    # To the VIP `web`, whose adverts are signed and go from node to node.
    v3(ip={"ttl": 254}),  # wrong_ttl
    v3(ip={"ttl": 1}),  # wrong_ttl
    v3({"chksum": 0x1234}),  # wrong_checksum
    v3({"vrid": 99}),  # wrong_router_id
    v2({"vrid": 51, "addrlist": [VIP]}, ip={"dst": node}),  # wrong_auth_type, as the VIP has no password
    v3({"version": 4}),  # wrong_version
    v3({"type": 2}),  # wrong_type
    v3(ip={"src": STRANGER}),  # unknown_source
    v3({"priority": 255}, ip={"src": STRANGER}),  # unknown_source
    v3({"priority": 255}),  # missing_trailer
    v3({"priority": 0}),  # missing_trailer
    v3({"addrlist": [VIP, "10.77.0.250"]}),  # missing_trailer
    v3({"ipcount": 3}),  # missing_addresses
    v3(trailer=b"\0" * 5),  # trailing_bytes
    IP(src=peer, dst=node, ttl=255, proto=112) / Raw(whole[:7]),  # short
    IP(src=peer, dst=node, ttl=255, proto=112) / Raw(whole[:10]),  # missing_addresses
    v3({"priority": 255}, trailer=trailer()),  # wrong_hmac
    v3({"priority": 0}, trailer=trailer()),  # wrong_hmac
    v3(trailer=trailer(key=9)),  # unknown_key
    v3(trailer=trailer(kind=2)),  # wrong_trailer_type
    # To the VIP `old`, of version 2 with a password, by multicast.
    v2(ip={"ttl": 254}),  # wrong_ttl
    v2({"chksum": 0x1234}),  # wrong_checksum
    v2({"auth1": 0x6F70656F}),  # wrong_password
    v2({"authtype": 0, "auth1": 0, "auth2": 0}),  # wrong_auth_type
    v2({"adv": 2}),  # wrong_interval
    v2({"priority": 255}, ip={"src": STRANGER}),  # unknown_source
    v3({"vrid": 52, "addrlist": ["10.77.0.101"]}, ip={"dst": GROUP}),  # wrong_version
    # To the VIP `six`, over IPv6.
    v6(ip={"src": "fd77::50"}),  # unknown_source
    v6({"priority": 255}, ip={"src": "fd77::50"}),  # unknown_source
    v6(ip={"hlim": 64}),  # wrong_ttl
    v6({"chksum": 0x1234}),  # wrong_checksum
    v6({"priority": 255}),  # missing_trailer
    v6({"priority": 0}, ip={"src": "fe80::bad"}),  # missing_trailer
    v6({"vrid": 99}),  # wrong_router_id
]
# Even what is for the group goes to the one node alone. scapy finds no own address where there is no route.
own_mac = get_if_hwaddr("eth0")
frames = [Ether(src=own_mac, dst=node_mac) / packet for packet in forged]
if replayed != "-":
    frames.append(Ether(bytes.fromhex(replayed)))
sendp(frames, iface="eth0", verbose=False)
