//! A planned move of VIPs, as an operator asked for it: each VIP's machine is told, and what came of it is answered.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::control::{Answer, Reply};
use super::heartbeat::Command;
use super::state::Node;
use crate::status::{Role, SwitchoverStatus};
use crate::vrrp::machine::State;

/// Time for everything; the machines give up before.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// Begins, and answers `reply` when all of it is done or refused. Does not wait.
pub fn start(node: &Node, vip: Option<&str>, force: bool, reply: oneshot::Sender<Reply>) {
    let named = |name: &str| vip.is_none_or(|wanted| wanted == name);
    let mut moves = Vec::new();
    for (vip, config) in node.vips.iter().zip(&node.config.vips).filter(|(_, config)| named(&config.name)) {
        let (done, outcome) = oneshot::channel();
        let is_asked = vip.commands.try_send(Command::HandOver { force, reply: done }).is_ok();
        let roles = match vip.state {
            State::Active => (Role::Active, Role::Standby),
            State::Backup => (Role::Standby, Role::Active),
            State::Init => (Role::Unfit, Role::Unfit),
        };
        moves.push((config.name.clone(), roles, is_asked.then_some(outcome)));
    }
    if moves.is_empty() {
        let known: Vec<&str> = node.config.vips.iter().map(|vip| vip.name.as_str()).collect();
        let error = match vip {
            Some(name) if !known.is_empty() => format!("there is no vip {name}; this node has {}", known.join(", ")),
            _ => "this node has no vip".to_owned(),
        };
        // Whoever asked may have gone away, here and below.
        return drop(reply.send(Reply::Error(error)));
    }
    tokio::task::spawn_local(async move {
        let mut results = Vec::new();
        for (vip, (before, after), outcome) in moves {
            let refused = match outcome {
                None => Some("the heartbeat takes no commands".to_owned()),
                Some(outcome) => match timeout(PATIENCE, outcome).await {
                    Ok(Ok(result)) => result.err(),
                    Ok(Err(_)) | Err(_) => Some("the heartbeat does not answer".to_owned()),
                },
            };
            results.push(SwitchoverStatus { vip, role: if refused.is_none() { after } else { before }, refused });
        }
        drop(reply.send(Reply::Ok(Answer::Switchover(results))));
    });
}
