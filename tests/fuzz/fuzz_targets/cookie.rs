#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    init: checks::begin_with(checks::cookie::SAMPLES),
    |data: &[u8]| checks::cookie::check(data)
);
