//! Ctrl-C and its kin, as a fact to look at between two steps.

use std::sync::atomic::{AtomicI32, Ordering};

/// The last signal that asked us to end; 0 for none. A static, since a signal handler can reach nothing else.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Signals that ask to end are noted instead of ending the process, so that it can clean up first.
#[derive(Debug)]
pub(super) struct Interrupt(());

impl Interrupt {
    /// From here on they are noted.
    pub(super) fn listen() -> Self {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let handler: extern "C" fn(libc::c_int) = note;
            // SAFETY: the handler does nothing but store to an atomic, which is allowed at any point of the program.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
        Self(())
    }

    /// The number of the signal that came.
    pub(super) fn signal(&self) -> Option<u8> {
        let signal = SIGNAL.load(Ordering::Relaxed);
        u8::try_from(signal).ok().filter(|signal| *signal != 0)
    }
}

extern "C" fn note(signal: libc::c_int) {
    SIGNAL.store(signal, Ordering::Relaxed);
}
