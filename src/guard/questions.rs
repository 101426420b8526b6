//! Questions that only the worker can answer: passed on, and its answer passed back.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::control::{Answer, Reply};
use super::supervisor::Command;
use crate::inquiry::{self, Question};

/// Time for the worker's answer. Whoever asks gives up a second later.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the worker, and answers `reply` when it has answered, or cannot. Does not wait.
pub fn start(worker: &mpsc::Sender<Command>, question: Question, reply: oneshot::Sender<Reply>) {
    let (sender, answer) = oneshot::channel();
    if worker.try_send(Command::Ask { question, reply: sender }).is_err() {
        // Whoever asked may have gone away, here and below.
        return drop(reply.send(Reply::Error("too many questions wait for the worker: try again".to_owned())));
    }
    tokio::task::spawn_local(async move {
        let result = match timeout(PATIENCE, answer).await {
            Ok(Ok(Ok(inquiry::Answer::Refused(refusal)))) => Reply::Error(refusal.reason),
            Ok(Ok(Ok(answer))) => Reply::Ok(Answer::Worker(answer)),
            Ok(Ok(Err(reason))) => Reply::Error(reason),
            Ok(Err(_)) => Reply::Error("the worker ended before it answered".to_owned()),
            Err(_) => Reply::Error(format!("the worker did not answer within {} s", PATIENCE.as_secs())),
        };
        drop(reply.send(result));
    });
}
