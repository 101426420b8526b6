//! Why a packet was refused.

use std::fmt;

/// Why a packet was not taken for one of the peer: adverts in the order in which [`super::decode_ipv4`],
/// [`super::decode`], [`super::judge`], [`super::super::auth::Verifier`] and [`super::MixedFilter`] check, then what only
/// the datagrams of [`super::super::hello`] can be refused for. Those use reasons of adverts where they fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Fewer bytes than an IPv4 header, than its total length says, than an advert without addresses, or than a hello.
    Short,
    /// Not IPv4 where that was expected, or addresses of two families.
    WrongIpVersion,
    /// The lengths in the IP header contradict each other.
    BadIpHeader,
    /// Not VRRP; VRRPv2 within an authentication header (protocol 51) is one of these.
    WrongProtocol,
    /// Part of a larger packet. An advert fits into one.
    Fragment,
    /// It came through a router, or from somebody who does not speak VRRP.
    WrongTtl,
    /// Neither VRRPv3 nor, over IPv4, VRRPv2, or the one of them that we do not listen to; or a hello of a release that
    /// is too far from ours.
    WrongVersion,
    /// Not an advertisement.
    WrongType,
    /// Virtual router 0, which does not exist.
    ZeroRouterId,
    /// It counts no address.
    NoAddresses,
    /// It counts more addresses than it has, or lacks authentication data of VRRPv2.
    MissingAddresses,
    /// Oversize: more bytes after the addresses than none, and not as many as a trailer has; or a hello that is too long.
    TrailingBytes,
    /// Interval 0: its sender would be dead by the time it is heard.
    ZeroInterval,
    /// Damaged, or the addresses of the IP header are not those it was sent with.
    WrongChecksum,
    /// VRRPv2 with another authentication type than ours.
    WrongAuthType,
    /// VRRPv2 with another password than ours.
    WrongPassword,
    /// Of another virtual router on the same link.
    WrongRouterId,
    /// Ours, come back.
    OwnAdvert,
    /// Neither ours nor the peer's.
    UnknownSource,
    /// The peer's, by the other transport.
    WrongDestination,
    /// VRRPv2 with another interval than ours, which its peers have to agree upon; or one that is too long for us.
    WrongInterval,
    /// It has no trailer, and has to.
    MissingTrailer,
    /// It has a trailer, and authentication is off.
    UnexpectedTrailer,
    /// A trailer of a type that we do not know.
    WrongTrailerType,
    /// Signed with a key that we do not have.
    UnknownKey,
    /// Forged or damaged, signed with another key, or a hello of ours, come back.
    WrongHmac,
    /// Genuine, and not newer than one that was heard before.
    Replayed,
    /// Genuine, and its time is too far from ours.
    Stale,
    /// VRRPv2 from a peer that speaks VRRPv3 too.
    SupersededVersion,
    /// Not a hello.
    NotHello,
    /// A hello for a VIP that we do not have, or not on this channel.
    UnknownVip,
    /// A genuine hello that says what cannot be.
    BadHello,
}

impl DropReason {
    /// Every reason, in the order of [`DropReason::index`].
    pub const ALL: [Self; 32] = [
        Self::Short,
        Self::WrongIpVersion,
        Self::BadIpHeader,
        Self::WrongProtocol,
        Self::Fragment,
        Self::WrongTtl,
        Self::WrongVersion,
        Self::WrongType,
        Self::ZeroRouterId,
        Self::NoAddresses,
        Self::MissingAddresses,
        Self::TrailingBytes,
        Self::ZeroInterval,
        Self::WrongChecksum,
        Self::WrongAuthType,
        Self::WrongPassword,
        Self::WrongRouterId,
        Self::OwnAdvert,
        Self::UnknownSource,
        Self::WrongDestination,
        Self::WrongInterval,
        Self::MissingTrailer,
        Self::UnexpectedTrailer,
        Self::WrongTrailerType,
        Self::UnknownKey,
        Self::WrongHmac,
        Self::Replayed,
        Self::Stale,
        Self::SupersededVersion,
        Self::NotHello,
        Self::UnknownVip,
        Self::BadHello,
    ];

    /// Its place in [`DropReason::ALL`], for an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What an operator does about it, where one of both nodes is set up wrongly more likely than the packet was forged.
    pub const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::UnknownKey | Self::WrongHmac | Self::WrongTrailerType => Some(
                "the nodes have different keys: copy the key_file (or advert_keys) of one to the other, and restart that",
            ),
            Self::MissingTrailer => Some(
                "the other node has no key_file, or `authentication` of its own: make the files on both nodes the same, \
                 and copy the key",
            ),
            Self::UnexpectedTrailer => Some(
                "the other node has a key_file and this one has none, or `authentication` of its own: make the files on \
                 both nodes the same, and copy the key",
            ),
            Self::WrongAuthType | Self::WrongPassword => Some("give both nodes the same version and password_file"),
            Self::WrongInterval => Some("give both nodes the same advert_interval"),
            Self::WrongVersion => Some("give both nodes the same version"),
            Self::UnknownVip => Some("make the files on both nodes the same"),
            Self::UnknownSource => Some(
                "another virtual router has this virtual_router_id: choose another one; or correct the other [[node]]'s \
                 address",
            ),
            Self::Stale => Some("set the clocks of both nodes"),
            Self::Short
            | Self::WrongIpVersion
            | Self::BadIpHeader
            | Self::WrongProtocol
            | Self::Fragment
            | Self::WrongTtl
            | Self::WrongType
            | Self::ZeroRouterId
            | Self::NoAddresses
            | Self::MissingAddresses
            | Self::TrailingBytes
            | Self::ZeroInterval
            | Self::WrongChecksum
            | Self::WrongRouterId
            | Self::OwnAdvert
            | Self::WrongDestination
            | Self::Replayed
            | Self::SupersededVersion
            | Self::NotHello
            | Self::BadHello => None,
        }
    }

    /// Its name in metrics and in `baton status`. Stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::WrongIpVersion => "wrong_ip_version",
            Self::BadIpHeader => "bad_ip_header",
            Self::WrongProtocol => "wrong_protocol",
            Self::Fragment => "fragment",
            Self::WrongTtl => "wrong_ttl",
            Self::WrongVersion => "wrong_version",
            Self::WrongType => "wrong_type",
            Self::ZeroRouterId => "zero_router_id",
            Self::NoAddresses => "no_addresses",
            Self::MissingAddresses => "missing_addresses",
            Self::TrailingBytes => "trailing_bytes",
            Self::ZeroInterval => "zero_interval",
            Self::WrongChecksum => "wrong_checksum",
            Self::WrongAuthType => "wrong_auth_type",
            Self::WrongPassword => "wrong_password",
            Self::WrongRouterId => "wrong_router_id",
            Self::OwnAdvert => "own_advert",
            Self::UnknownSource => "unknown_source",
            Self::WrongDestination => "wrong_destination",
            Self::WrongInterval => "wrong_interval",
            Self::MissingTrailer => "missing_trailer",
            Self::UnexpectedTrailer => "unexpected_trailer",
            Self::WrongTrailerType => "wrong_trailer_type",
            Self::UnknownKey => "unknown_key",
            Self::WrongHmac => "wrong_hmac",
            Self::Replayed => "replayed",
            Self::Stale => "stale",
            Self::SupersededVersion => "superseded_version",
            Self::NotHello => "not_hello",
            Self::UnknownVip => "unknown_vip",
            Self::BadHello => "bad_hello",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
