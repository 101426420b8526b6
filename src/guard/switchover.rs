//! A planned move of VIPs: as an operator asks for it here or on the peer, and when the node stops. One at a time.
//!
//! Each VIP's machine is asked whether it may move at all; its clients leave ([`super::leaving`]); the machine is told to
//! hand it over. Until that last step everything can be called off, and is when the peer is lost meanwhile.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::control::{Answer, Reply};
use super::heartbeat::Command;
use super::leaving::{Leaving, time_max};
use super::reload::Listening;
use super::state::Node;
use super::supervisor;
use super::{Guard, notify};
use crate::net::newcomers::Newcomers;
use crate::status::{Role, SwitchoverStatus};
use crate::vrrp::machine::State;

/// Time for the machines, which give up before.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// Time for a machine to say whether it may hand its VIP over.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// Time between two looks at the peer while clients leave.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What a node says that is asked to have the peer hurry.
const NOT_FROM_HERE: &str = "only the active node can move it without waiting for its clients: run it there";

/// Planned moves of this node.
#[derive(Clone, Default)]
pub struct Switchovers(Rc<Shared>);

#[derive(Default)]
struct Shared {
    is_busy: Cell<bool>,
    /// VIPs whose clients leave at the moment.
    leaving: RefCell<Vec<usize>>,
    hurry: Notify,
    over: Notify,
}

/// What is to move.
#[derive(Debug, Clone, Copy, Default)]
pub struct Order<'a> {
    /// The VIP; all of them where none is named.
    pub vip: Option<&'a str>,
    /// Of these, only what this node holds: it stops, and is not to get the others.
    pub away: bool,
    /// Also to a node that is not synced.
    pub force: bool,
    /// Without waiting for clients.
    pub now: bool,
}

/// A VIP that moves.
struct Move {
    index: usize,
    vip: String,
    commands: mpsc::Sender<Command>,
    /// This node's role before and afterwards.
    roles: (Role, Role),
}

type Outcome = oneshot::Receiver<Result<(), String>>;

impl Switchovers {
    /// Whether one is under way.
    pub fn is_busy(&self) -> bool {
        self.0.is_busy.get()
    }

    /// Whether the clients of a VIP leave at the moment.
    pub fn is_leaving(&self, vip: usize) -> bool {
        self.0.leaving.borrow().contains(&vip)
    }

    /// Has the one that is under way wait for clients no longer.
    pub fn hurry(&self) {
        self.0.hurry.notify_waiters();
    }

    /// Waits until none is under way.
    pub async fn over(self) {
        loop {
            let over = self.0.over.notified();
            if !self.is_busy() {
                return;
            }
            over.await;
        }
    }

    /// Begins, and answers `reply` when all of it is done or refused. Does not wait.
    pub fn start(
        &self,
        node: &Node,
        worker: &mpsc::Sender<supervisor::Command>,
        listening: &Listening,
        order: Order<'_>,
        reply: oneshot::Sender<Reply>,
    ) {
        let begun = self.begin(node, worker, listening, order);
        tokio::task::spawn_local(async move {
            let answer = match begun {
                Err(refusal) => Reply::Error(refusal),
                Ok(results) => Reply::Ok(Answer::Switchover(results.await.unwrap_or_default())),
            };
            // Whoever asked may have gone away.
            drop(reply.send(answer));
        });
    }

    /// As [`Switchovers::start`]; gives what comes of it.
    ///
    /// # Errors
    /// Why nothing is begun, in words.
    pub fn begin(
        &self,
        node: &Node,
        worker: &mpsc::Sender<supervisor::Command>,
        listening: &Listening,
        order: Order<'_>,
    ) -> Result<oneshot::Receiver<Vec<SwitchoverStatus>>, String> {
        if self.is_busy() {
            if order.now {
                self.hurry();
            }
            let what =
                if order.now { "it waits for clients no longer" } else { "--now has it wait no longer for clients" };
            return Err(format!("a switchover is under way already; {what}"));
        }
        let mut moves = moves(node, order.vip)?;
        moves.retain(|one| !order.away || one.roles.0 == Role::Active);
        let held = moves.iter().filter(|one| one.roles.0 == Role::Active);
        let addresses = held.filter_map(|one| node.config.vips.get(one.index)).flat_map(|vip| &vip.addresses);
        let addresses: Vec<_> = addresses.map(|at| at.network.address()).collect();
        let drain = node.config.pair.switchover_drain;
        let waits = !order.now && !drain.is_zero() && !addresses.is_empty();
        let leaving = waits.then(|| Leaving::new(worker, listening, addresses, drain));
        let (done, results) = oneshot::channel();
        self.0.is_busy.set(true);
        let (own, Order { force, now, .. }) = (self.clone(), order);
        tokio::task::spawn_local(async move {
            let (here, there): (Vec<_>, Vec<_>) = moves.into_iter().partition(|one| one.roles.0 == Role::Active);
            // Those that the peer holds it moves when its own clients have left.
            let there: Vec<_> = match now {
                true => there.into_iter().map(|one| one.refused(NOT_FROM_HERE.to_owned())).map(Err).collect(),
                false => there.into_iter().map(|one| Ok((one.hand_over(force), one))).collect(),
            };
            let mut results = own.run(here, leaving, force).await;
            for one in there {
                results.push(match one {
                    Ok((outcome, one)) => one.result(settled(outcome, PATIENCE + time_max(drain)).await),
                    Err(refused) => refused,
                });
            }
            own.0.leaving.borrow_mut().clear();
            own.0.is_busy.set(false);
            own.0.over.notify_waiters();
            // Nobody may wait for it.
            drop(done.send(results));
        });
        Ok(results)
    }

    /// Moves VIPs that this node holds.
    async fn run(&self, moves: Vec<Move>, leaving: Option<Leaving>, force: bool) -> Vec<SwitchoverStatus> {
        let (mut results, mut ready) = (Vec::new(), Vec::new());
        for one in moves {
            match one.may_move(force).await {
                Ok(()) => ready.push(one),
                Err(reason) => results.push(one.refused(reason)),
            }
        }
        let mut held = None;
        if let Some(leaving) = leaving.as_ref().filter(|_| !ready.is_empty()) {
            match self.leave(leaving, &ready, force).await {
                Ok(newcomers) => held = newcomers,
                Err(reason) => {
                    warn!(reason, "the switchover is called off");
                    results.extend(ready.drain(..).map(|one| one.refused(reason.clone())));
                }
            }
        }
        let ready: Vec<_> = ready.into_iter().map(|one| (one.hand_over(force), one)).collect();
        let mut has_moved = false;
        for (outcome, one) in ready {
            let result = settled(outcome, PATIENCE).await;
            has_moved |= result.is_ok();
            results.push(one.result(result));
        }
        if let Some(leaving) = leaving {
            leaving.over();
        }
        if let Some(held) = held {
            hand_on(held, has_moved);
        }
        results
    }

    /// Has clients leave, and holds new ones back. `None` where somebody is in a hurry.
    async fn leave(&self, leaving: &Leaving, moves: &[Move], force: bool) -> Result<Option<Newcomers>, String> {
        self.0.leaving.replace(moves.iter().map(|one| one.index).collect());
        info!("clients are asked to leave before the vip moves");
        let left = async {
            leaving.tell().await;
            leaving.hold().await
        };
        let result = tokio::select! {
            held = left => Ok(held),
            () = self.0.hurry.notified() => Ok(None),
            reason = lost(moves, force) => Err(reason),
        };
        self.0.leaving.borrow_mut().clear();
        result
    }
}

/// Waits until one of them may not move any more, and gives the reason.
async fn lost(moves: &[Move], force: bool) -> String {
    loop {
        sleep(CHECK_INTERVAL).await;
        for one in moves {
            if let Err(reason) = one.may_move(force).await {
                return format!("{reason}; clients may stay");
            }
        }
    }
}

/// Sends new connections that were held back to the peer, or has them come again.
fn hand_on(held: Newcomers, has_moved: bool) {
    if !has_moved {
        return;
    }
    match held.hand_on() {
        Ok(count) => info!(count, "new connections that were held back were handed on to the peer"),
        Err(error) => warn!(%error, "new connections that were held back could not be handed on and come again"),
    }
}

async fn settled(outcome: Option<Outcome>, patience: Duration) -> Result<(), String> {
    let Some(outcome) = outcome else { return Err("the heartbeat takes no commands".to_owned()) };
    match timeout(patience, outcome).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err("the heartbeat does not answer".to_owned()),
    }
}

impl Move {
    /// Has the machine begin.
    fn hand_over(&self, force: bool) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.commands.try_send(Command::HandOver { force, reply }).is_ok().then_some(outcome)
    }

    async fn may_move(&self, force: bool) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let is_asked = self.commands.try_send(Command::MayHandOver { force, reply }).is_ok();
        settled(is_asked.then_some(answer), CHECK_TIMEOUT).await
    }

    fn refused(self, reason: String) -> SwitchoverStatus {
        self.result(Err(reason))
    }

    fn result(self, result: Result<(), String>) -> SwitchoverStatus {
        let (before, after) = self.roles;
        let role = if result.is_ok() { after } else { before };
        SwitchoverStatus { vip: self.vip, role, refused: result.err() }
    }
}

/// The end of a planned move.
pub type Moved = Pin<Box<dyn Future<Output = ()>>>;

/// Waits for it; for ever where there is none.
pub async fn once(moved: &mut Option<Moved>) {
    match moved {
        Some(moved) => moved.await,
        None => std::future::pending().await,
    }
}

impl Guard {
    /// The peer asks for a VIP.
    pub(super) fn asked_for(&self, vip: usize, worker: &mpsc::Sender<supervisor::Command>) {
        let Some(vip) = self.node.config.vips.get(vip).map(|vip| vip.name.clone()) else { return };
        let order = Order { vip: Some(&vip), ..Order::default() };
        let (switchovers, bootstrapping) = (&self.node.switchovers, self.bootstrapping.borrow());
        let begun = switchovers.begin(&self.node, worker, &bootstrapping.listening, order);
        tokio::task::spawn_local(async move {
            let results = match begun {
                Ok(results) => results.await.unwrap_or_default(),
                Err(reason) => return warn!(vip, reason, "the peer asks for the vip and does not get it"),
            };
            for reason in results.into_iter().filter_map(|result| result.refused) {
                warn!(vip, reason, "the peer asks for the vip and does not get it");
            }
        });
    }

    /// Has every VIP move to the peer as in a switchover, where that can be. Ended sooner by a second signal.
    pub(super) fn move_away(&self, worker: &mpsc::Sender<supervisor::Command>) -> Moved {
        info!("baton stops");
        notify::stopping();
        let switchovers = &self.node.switchovers;
        // The one that is under way; with it, or without any, what is left goes with the node.
        switchovers.hurry();
        if self.node.vips.iter().any(|vip| vip.state == State::Active)
            && !self.node.config.pair.switchover_drain.is_zero()
        {
            let order = Order { away: true, force: true, ..Order::default() };
            // Refused where one is under way.
            drop(switchovers.begin(&self.node, worker, &self.bootstrapping.borrow().listening, order));
        }
        Box::pin(switchovers.clone().over())
    }
}

fn moves(node: &Node, vip: Option<&str>) -> Result<Vec<Move>, String> {
    let named = |name: &str| vip.is_none_or(|wanted| wanted == name);
    let vips = node.vips.iter().zip(&node.config.vips).enumerate().filter(|(_, (_, config))| named(&config.name));
    let moves: Vec<_> = vips
        .map(|(index, (vip, config))| Move {
            index,
            vip: config.name.clone(),
            commands: vip.commands.clone(),
            roles: match vip.state {
                State::Active => (Role::Active, Role::Standby),
                State::Backup => (Role::Standby, Role::Active),
                State::Init => (Role::Unfit, Role::Unfit),
            },
        })
        .collect();
    if !moves.is_empty() {
        return Ok(moves);
    }
    let known: Vec<&str> = node.config.vips.iter().map(|vip| vip.name.as_str()).collect();
    Err(match vip {
        Some(name) if !known.is_empty() => format!("there is no vip {name}; this node has {}", known.join(", ")),
        _ => "this node has no vip".to_owned(),
    })
}
