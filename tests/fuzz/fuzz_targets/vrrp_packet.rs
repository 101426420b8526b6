#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    init: checks::begin_with(checks::vrrp_packet::SAMPLES),
    |data: &[u8]| checks::vrrp_packet::check(data)
);
