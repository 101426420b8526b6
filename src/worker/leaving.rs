//! Asks the clients of addresses that are about to move to the other node to come back on other connections: each thread
//! asks its own.

use std::net::IpAddr;

use tokio::sync::mpsc;

use super::Worker;
use crate::inquiry::{Answer, LeaveStage};
use crate::proxy::thread::Command;

impl Worker {
    /// Has every thread ask, and answers when all of them are done with it. Does not wait.
    pub(super) fn ask_to_leave(
        &self,
        id: u64,
        addresses: &[IpAddr],
        stage: LeaveStage,
        answers: mpsc::Sender<(u64, Answer)>,
    ) {
        let (left, mut all_left) = mpsc::channel(1);
        for commands in &self.commands {
            let command = Command::AskToLeave(addresses.to_vec(), stage, left.clone());
            // A thread that is so far behind is not waited for: the guard does not wait for long either.
            let _full = commands.try_send(command);
        }
        drop(left);
        tokio::spawn(async move {
            // Nothing is ever sent: it ends when every thread has dropped its end.
            let _all_left = all_left.recv().await;
            // Nobody waits for the answer only when the worker ends.
            let _gone = answers.send((id, Answer::Left)).await;
        });
    }
}
