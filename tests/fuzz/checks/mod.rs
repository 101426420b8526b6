//! What must hold for any bytes, one file an input that strangers send. `tests/fuzz_seeded.rs` tries seeded mutations of the
//! samples in every run of the tests, the targets in `fuzz_targets` whatever libFuzzer makes up: `tests/fuzz/run`.

#![allow(dead_code, reason = "a fuzz target uses one of them, and no samples")]

pub mod cookie;
pub mod forwarded;
pub mod proxy_protocol;
pub mod route;
pub mod session_frame;
pub mod vrrp_packet;

/// Has libFuzzer begin with the samples, by putting them where `tests/fuzz/run` says: by itself it does not find its way into
/// what begins with a long signature.
pub fn begin_with(samples: &[&[u8]]) {
    let Some(directory) = std::env::var_os("BATON_CORPUS") else { return };
    for (number, sample) in samples.iter().enumerate() {
        let written = std::fs::write(std::path::Path::new(&directory).join(format!("sample-{number}")), sample);
        written.unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    }
}
