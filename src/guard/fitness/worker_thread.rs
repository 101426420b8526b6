//! Looks that may block, such as at a file on a network file system: each check has a thread of its own for them.
//!
//! Not the runtime's pool of threads, which is shared and which a runtime waits for at its end: a look that hangs would
//! keep other checks waiting, and the guard from ending. These threads end with the process.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Rhythm;
use crate::fitness::Finding;

/// Enough for a path and a directory; what a thread has is locked in memory.
const STACK_BYTES: usize = 256 * 1024;

/// A thread that looks when it is asked, and the task that asks it at its interval until the guard ends.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn watch(
    look: impl Fn() -> Finding + Send + 'static,
    rhythm: Rhythm,
) -> io::Result<impl Future<Output = ()>> {
    let (orders, taken) = sync_channel(1);
    let run = move || answer_all(look, &taken);
    std::thread::Builder::new().name("fitness".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    Ok(ask_all(orders, rhythm))
}

fn answer_all(look: impl Fn() -> Finding, orders: &Receiver<oneshot::Sender<Finding>>) {
    for answer in orders {
        // Whoever asked may have gone.
        drop(answer.send(look()));
    }
}

async fn ask_all(orders: SyncSender<oneshot::Sender<Finding>>, rhythm: Rhythm) {
    let mut turns = rhythm.turns();
    // A look that took too long goes on; no other one is begun meanwhile.
    let mut open: Option<oneshot::Receiver<Finding>> = None;
    loop {
        turns.tick().await;
        let mut answer = match open.take() {
            Some(late) => late,
            None => {
                let (sender, answer) = oneshot::channel();
                // There is room for one, and none is under way.
                let _begun = orders.try_send(sender);
                answer
            }
        };
        let finding = match timeout(rhythm.timeout, &mut answer).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(_)) => Finding::Bad("its thread has ended".to_owned()),
            Err(_) => {
                open = Some(answer);
                Finding::Bad(rhythm.too_slow())
            }
        };
        if !rhythm.report(finding).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fitness::{Check, Fitness, Severity, Start, Subject};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    #[test]
    fn look_that_hangs_is_bad_and_is_not_begun_again() {
        let check = Check {
            subject: Subject::File("x".to_owned()),
            severity: Severity::Broken,
            start: Start::Closed,
            vips: vec![0],
            fall: 1,
            rise: 1,
        };
        let check = Fitness::new(1).add(check, Instant::now());
        let (found, mut findings) = tokio::sync::mpsc::channel(8);
        let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(10));
        let (release, released) = sync_channel::<()>(0);
        let begun = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&begun);
        let look = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _released = released.recv();
            Finding::Good("at last".to_owned())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let watched = watch(look, Rhythm { check, interval, timeout, found }).unwrap();
            let judge = async {
                let slow = Finding::Bad("no answer within 10 ms".to_owned());
                for _ in 0..3 {
                    assert_eq!(findings.recv().await, Some((check, slow.clone())));
                }
                assert_eq!(begun.load(Ordering::SeqCst), 1);
                release.send(()).unwrap();
                loop {
                    match findings.recv().await {
                        Some((_, Finding::Good(evidence))) => break assert_eq!(evidence, "at last"),
                        finding => assert_eq!(finding, Some((check, slow.clone()))),
                    }
                }
            };
            tokio::select! { () = watched => {}, () = judge => {} }
        });
    }
}
