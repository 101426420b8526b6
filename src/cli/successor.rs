//! `baton successor`: says whether this program can go on for one that runs; started by `baton run` and by nobody else.

use crate::guard::takeover::check;

/// Reads the question from the standard input.
///
/// # Errors
/// Why it cannot.
pub(super) fn run() -> anyhow::Result<()> {
    let this_machine = super::ThisMachine::new(None);
    let hints = this_machine.hints();
    check::answer(hints.environment, hints.host_name)
}
