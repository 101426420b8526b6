#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    init: checks::begin_with(checks::proxy_protocol::SAMPLES),
    |data: &[u8]| checks::proxy_protocol::check(data)
);
