//! Has one group of the key exchange be taken, whatever a client prefers.
//!
//! rustls takes the first group of a client that a server knows, and has no setting for the server's order. So a client that
//! offers the wanted one is served with a provider that knows no other for TLS 1.3; TLS 1.2, where it may be of no use, goes
//! by the client's order as ever.

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, ProtocolVersion};

/// The cryptography for clients that offer this group.
pub fn preferring(first: NamedGroup, all: &CryptoProvider) -> CryptoProvider {
    let others = all.kx_groups.iter().filter(|group| group.name() != first);
    let others = others.filter_map(|group| ONLY_TLS12.iter().find(|only| only.name() == group.name()));
    let wanted = all.kx_groups.iter().copied().find(|group| group.name() == first);
    let kx_groups = wanted.into_iter().chain(others.map(|only| only as &dyn SupportedKxGroup)).collect();
    CryptoProvider { kx_groups, ..all.clone() }
}

/// Those of TLS 1.2.
static ONLY_TLS12: [OnlyTls12; 3] =
    [OnlyTls12(&kx_group::X25519), OnlyTls12(&kx_group::SECP256R1), OnlyTls12(&kx_group::SECP384R1)];

/// A group as it is, for TLS 1.2 alone.
#[derive(Debug)]
struct OnlyTls12(&'static &'static dyn SupportedKxGroup);

impl SupportedKxGroup for OnlyTls12 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        self.0.start()
    }

    fn start_and_complete(&self, peer_pub_key: &[u8]) -> Result<CompletedKeyExchange, Error> {
        self.0.start_and_complete(peer_pub_key)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        self.0.ffdhe_group()
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2 && self.0.usable_for_version(version)
    }
}
