//! The courier: a process without privileges that hands events to the operator's command and webhook.
//!
//! The guard starts it as `baton courier` with one descriptor, the socket pair between them, and tells it what to deliver:
//! one event at a time for each of the two, once. What failed is tried again when the guard says so. The courier reads no
//! file but the system's certificate authorities, keeps nothing, and ends with its guard.

mod command;
mod webhook;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use self::webhook::Webhook;
use crate::event::{Event, FromCourier, Lane, Settings, ToCourier};
use crate::link;
use crate::net::child;
use crate::net::privileges;
use crate::telemetry;

/// Events of one lane that may wait: the guard sends one and then waits for the answer.
const EVENTS_MAX: usize = 2;

/// Threads that look names up; a lane needs one, and one that timed out may still be waiting.
const LOOKUP_THREADS_MAX: usize = 4;

/// Runs the courier until the guard goes away.
///
/// # Errors
/// When it cannot start, or the guard talks nonsense.
pub fn run(descriptor: i32) -> anyhow::Result<()> {
    let socket = child::socket_to_parent(descriptor)?;
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUP_THREADS_MAX)
        .build_local(Default::default())?;
    runtime.block_on(async {
        let (sender, mut receiver) = link::halves(UnixStream::from_std(socket)?);
        let Some(ToCourier::Start(settings)) = receiver.receive().await? else {
            bail!("the guard said nothing to begin with");
        };
        // There is one thread still: nothing has been looked up.
        let warnings = privileges::give_up(settings.user.as_deref()).context("the courier keeps its privileges")?;
        privileges::die_with_parent(settings.guard_pid).context("the guard is gone")?;
        let _logging = telemetry::start();
        warnings.iter().for_each(|warning| warn!("the courier {warning}"));
        serve(settings, sender, receiver).await
    })
}

/// Hands each event to its lane, and the lanes' answers to the guard.
async fn serve(settings: Settings, mut sender: link::Sender, mut receiver: link::Receiver) -> anyhow::Result<()> {
    let (answer_sender, mut answers) = mpsc::channel(EVENTS_MAX);
    let [commands, webhooks] = Lane::ALL.map(|lane| {
        let (events, due) = mpsc::channel(EVENTS_MAX);
        tokio::task::spawn_local(deliver(lane, settings.clone(), due, answer_sender.clone()));
        events
    });
    loop {
        tokio::select! {
            biased;
            Some(answer) = answers.recv() => sender.send::<FromCourier>(&answer).await?,
            message = receiver.receive() => match message? {
                Some(ToCourier::Deliver { lane, event }) => {
                    let events = match lane {
                        Lane::Command => &commands,
                        Lane::Webhook => &webhooks,
                    };
                    events.try_send(event).map_err(|_| anyhow!("the guard does not wait for answers"))?;
                }
                Some(ToCourier::Start(_)) => bail!("the guard began twice"),
                None => bail!("the guard is gone"),
            },
        }
    }
}

/// One lane: an event at a time.
async fn deliver(lane: Lane, settings: Settings, mut due: mpsc::Receiver<Event>, answers: mpsc::Sender<FromCourier>) {
    let patience = Duration::from_millis(settings.timeout_ms);
    let webhook = settings.webhook.as_deref().filter(|_| lane == Lane::Webhook).map(Webhook::new);
    while let Some(event) = due.recv().await {
        let outcome = match (lane, &settings.command, &webhook) {
            (Lane::Command, Some(words), _) => command::run(words, &event, patience).await,
            (Lane::Webhook, _, Some(webhook)) => match timeout(patience, webhook.post(&event)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("{} did not answer within {} ms", webhook.host(), settings.timeout_ms)),
            },
            (Lane::Command, None, _) | (Lane::Webhook, _, None) => Err("nothing is configured".to_owned()),
        };
        let answer = FromCourier { lane, sequence: event.sequence, failure: outcome.err() };
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}
