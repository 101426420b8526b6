//! What must hold for any bytes, one file an input that strangers send. `tests/fuzz_seeded.rs` tries seeded mutations of the
//! samples in every run of the tests, the targets in `fuzz_targets` whatever cargo-fuzz finds:
//! `cd tests/fuzz && cargo +nightly fuzz run route`.

pub mod cookie;
pub mod forwarded;
pub mod proxy_protocol;
pub mod route;
pub mod session_frame;
pub mod vrrp_packet;
