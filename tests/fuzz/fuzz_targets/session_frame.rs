#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    init: checks::begin_with(checks::session_frame::SAMPLES),
    |data: &[u8]| checks::session_frame::check(data)
);
