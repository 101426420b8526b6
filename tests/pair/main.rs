//! A real pair in network namespaces: what the nodes do to each other, to the wire and to their clients.
//!
//! Each test has a network of its own with two nodes, three servers and a client, built by `baton::lab` without root.
//! They run one after the other. Where namespaces are forbidden all of
//! it fails and says which setting forbids them.
//!
//! `BATON_BIN=PATH` tests another program than the one cargo built, for example a release build for the figures.
//! `BATON_SHARE=1/3` runs every third test, `BATON_SHARE=2/3` and `3/3` the others: most of the time a test waits, so processes
//! that share them are done sooner.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking
#![allow(clippy::print_stdout)] // figures are for people

mod holders;
mod scene;
mod small_disk;
mod wire;

mod administration;
mod adverts;
mod archive;
mod drill;
mod events;
mod failures;
mod figures;
mod fitness;
mod formation;
mod half_set_up;
mod handover;
mod heal;
mod interop;
mod janitor;
mod keeping;
mod leaving;
mod preference;
mod privileges;
mod resumption;
mod rollout;
mod service_manager;
mod set_up;
mod sockets;
mod split;
mod surroundings;
mod sync;
mod takeover;

use std::process::ExitCode;

use baton::lab::namespace;
use libtest_mimic::{Arguments, Conclusion, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        // First of all: a process can enter namespaces only before it has threads.
        if let Err(forbidden) = namespace::enter() {
            eprintln!("the tests of the pair cannot run: {forbidden}");
            return ExitCode::FAILURE;
        }
    }
    // The kernel ends every child with the thread that started it, and one thread is all there is.
    arguments.test_threads = Some(1);
    let trials = [
        formation::trials(),
        failures::trials(),
        fitness::trials(),
        preference::trials(),
        handover::trials(),
        leaving::trials(),
        janitor::trials(),
        administration::trials(),
        adverts::trials(),
        archive::trials(),
        sockets::trials(),
        split::trials(),
        sync::trials(),
        takeover::trials(),
        resumption::trials(),
        heal::trials(),
        surroundings::trials(),
        set_up::trials(),
        half_set_up::trials(),
        keeping::trials(),
        interop::trials(),
        rollout::trials(),
        figures::trials(),
        privileges::trials(),
        service_manager::trials(),
        events::trials(),
        drill::trials(),
    ];
    let trials = share(trials.into_iter().flatten().collect());
    let conclusion: Conclusion = libtest_mimic::run(&arguments, trials);
    figures::print_table();
    heal::print_table();
    conclusion.exit_code()
}

/// The tests that this process runs: all of them, unless `BATON_SHARE` says otherwise.
fn share(trials: Vec<Trial>) -> Vec<Trial> {
    let Ok(share) = std::env::var("BATON_SHARE") else { return trials };
    let parsed = share.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
    let (number, of): (usize, usize) = parsed.expect("BATON_SHARE is written as 1/2");
    assert!((1..=of).contains(&number), "BATON_SHARE={share}: there is no such share");
    trials.into_iter().skip(number - 1).step_by(of).collect()
}
