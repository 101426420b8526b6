#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    init: checks::begin_with(checks::route::SAMPLES),
    |data: &[u8]| checks::route::check(data)
);
