//! A worker that has been taken over, in place of a real one: the guard must not be kept from anything by it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use tokio::process::Command as Program;
use tokio::task::JoinHandle;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A supervisor that watches a stand-in, and the ends of what it is connected to.
struct Stage {
    events: mpsc::Receiver<Event>,
    orders: mpsc::Sender<ToWorker>,
    stop: mpsc::Sender<()>,
    commands: mpsc::Sender<Command>,
    socket: StdUnixStream,
    ending: JoinHandle<bool>,
}

impl Stage {
    fn set() -> Self {
        let (event_sender, events) = mpsc::channel(256);
        let (orders, order_receiver) = mpsc::channel(256);
        let (stop, stopped) = mpsc::channel(1);
        let (commands, command_receiver) = mpsc::channel(256);
        let mut supervisor = Supervisor {
            bootstrap: Box::new(|| std::process::abort()),
            sockets: Vec::new(),
            reload_socket: None,
            probe_interval: Duration::from_millis(50),
            probe_timeout: Duration::from_millis(200),
            drain_timeout: Duration::ZERO,
            events: event_sender,
            orders: order_receiver,
            stop: stopped,
            commands: command_receiver,
            good_files: Arc::default(),
            down: None,
            files: watch::channel(Snapshot::default()).1,
            to_leave: None,
            former: None,
            leavers: Leavers::default(),
        };
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let child = Program::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        let ending = tokio::task::spawn_local(async move {
            let ending = supervisor.watch(child, UnixStream::from_std(ours).unwrap(), Arc::default()).await;
            matches!(ending, Ending::Drained)
        });
        Self { events, orders, stop, commands, socket: theirs, ending }
    }

    /// Has the stand-in be ready, and then say this over and over, as fast as the link takes it.
    fn flood(&self, said: &'static str) {
        let mut socket = self.socket.try_clone().unwrap();
        socket.write_all(b"\"ready\"\n").unwrap();
        std::thread::spawn(move || while socket.write_all(said.as_bytes()).is_ok() {});
    }

    /// What the stand-in is told, from here on.
    fn told(&self) -> mpsc::UnboundedReceiver<ToWorker> {
        let (sender, told) = mpsc::unbounded_channel();
        let socket = BufReader::new(self.socket.try_clone().unwrap());
        std::thread::spawn(move || {
            for line in socket.lines().map_while(Result::ok) {
                drop(sender.send(serde_json::from_str(&line).unwrap()));
            }
        });
        told
    }
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("the guard is kept from its work") });
}

async fn until(told: &mut mpsc::UnboundedReceiver<ToWorker>, is_meant: fn(&ToWorker) -> bool) {
    while !is_meant(&told.recv().await.expect("the link is open")) {}
}

/// Every message that the guard does anything for, none of which it asked for.
const NOISE: &str = concat!(
    "\"ask_status\"\n\"ready\"\n",
    "{\"synced\":{\"synced\":true}}\n{\"synced\":{\"synced\":false}}\n",
    "{\"administration\":[]}\n{\"failed\":{\"reason\":\"noise\"}}\n",
    "{\"answer\":{\"id\":1000000,\"answer\":{\"cleared\":{\"count\":1}}}}\n"
);

#[test]
fn flood_keeps_the_guard_from_nothing() {
    on_a_runtime(async {
        let stage = Stage::set();
        stage.flood(NOISE);
        let mut told = stage.told();
        let Stage { mut events, orders, stop, commands, ending, socket: _open } = stage;
        let began = Instant::now();
        let (hung_sender, hung) = oneshot::channel();
        let counting = tokio::task::spawn_local(async move {
            let mut counts = [0_u128; 3];
            let mut hung_sender = Some(hung_sender);
            while let Some(event) = events.recv().await {
                let place = match event {
                    Event::Hung { .. } => {
                        hung_sender.take().expect("it hangs once").send(()).unwrap();
                        continue;
                    }
                    Event::StatusAsked => 0,
                    Event::Synced(_) => 1,
                    Event::Administration(_) => 2,
                    _ => continue,
                };
                counts[place] += 1;
            }
            counts
        });
        until(&mut told, |message| matches!(message, ToWorker::Probe { .. })).await;
        orders.send(ToWorker::TookOver).await.unwrap();
        until(&mut told, |message| matches!(message, ToWorker::TookOver)).await;
        commands.send(Command::Tell(ToWorker::Probe { sequence: 77 })).await.unwrap();
        until(&mut told, |message| matches!(message, ToWorker::Probe { sequence: 77 })).await;
        hung.await.expect("no probe is answered");
        stop.send(()).await.unwrap();
        until(&mut told, |message| matches!(message, ToWorker::Drain)).await;
        assert!(ending.await.unwrap());
        let tenths = began.elapsed().as_millis() / 100 + 1;
        let [status_asked, synced, administration] = counting.await.unwrap();
        assert!(status_asked <= 10 * tenths, "{status_asked} in {tenths} tenths of a second");
        assert!(synced <= tenths, "{synced} in {tenths} tenths of a second");
        assert!(administration <= 200 + 334 * tenths, "{administration} in {tenths} tenths of a second");
    });
}

#[test]
fn answers_that_nobody_asked_for_show_no_life() {
    on_a_runtime(async {
        let mut stage = Stage::set();
        let alive = format!(
            "{}\n",
            serde_json::to_string(&FromWorker::Alive { sequence: 1_000_000, report: Box::default() }).unwrap()
        );
        stage.flood(alive.leak());
        loop {
            match stage.events.recv().await.unwrap() {
                Event::Alive(_) => panic!("it was not asked for"),
                Event::Hung { .. } => break,
                _ => {}
            }
        }
    });
}
