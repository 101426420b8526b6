//! The process of the witness: a socket around the table in [`crate::vrrp::witness`].
//!
//! `baton witness` starts it, on a machine that is neither of the two nodes. It reads its keys, opens its one socket,
//! gives up every privilege, and from then on touches neither a file nor another process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::config::PairKey;
use crate::net::clock::Clock;
use crate::net::privileges;
use crate::telemetry;
use crate::vrrp::witness::{Change, DATAGRAM_LEN_BYTES, Key, QUIET, Rejection, Server};

/// Time between two lines about datagrams that were worth no answer: anybody can send those.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The pause after a socket error, which keeps a lasting one from turning in circles.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Runs the witness until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub fn run(listen: SocketAddr, keys: &[PairKey]) -> anyhow::Result<()> {
    let socket = StdUdpSocket::bind(listen).with_context(|| format!("failed to listen on UDP {listen}"))?;
    let warnings = privileges::give_up(None).context("failed to give up privileges")?;
    let _logging = telemetry::start();
    warnings.iter().for_each(|warning| warn!("the witness {warning}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        socket.set_nonblocking(true)?;
        Witness::new(UdpSocket::from_std(socket)?, keys)?.serve().await
    })
}

struct Witness {
    socket: UdpSocket,
    server: Server,
    clock: Clock,
    complaints: Complaints,
}

impl Witness {
    /// Called with the socket open: so a witness before us on this port has ended, and every lease it gave is older than
    /// our start.
    fn new(socket: UdpSocket, keys: &[PairKey]) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let keys: Vec<Key> = keys.iter().map(|key| Key::derived(key.as_bytes())).collect();
        let pairs: Vec<String> = keys.iter().map(|key| hex(key.pair())).collect();
        let addr = socket.local_addr()?;
        info!(
            %addr,
            pairs = pairs.join(","),
            quiet_ms = QUIET.as_millis(),
            version = env!("CARGO_PKG_VERSION"),
            "witness listens; at first it lends only to nodes that hold a lease"
        );
        let server = Server::new(keys, random_boot()?, clock.now());
        Ok(Self { socket, server, clock, complaints: Complaints::default() })
    }

    async fn serve(mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // A byte more than any good one has shows one that is longer.
        let mut buffer = [0; DATAGRAM_LEN_BYTES + 1];
        loop {
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.answer(buffer.get(..length).unwrap_or_default(), from),
                    Err(error) => {
                        warn!(%error, "the socket cannot be read");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                },
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        info!("witness stops");
        Ok(())
    }

    fn answer(&mut self, datagram: &[u8], from: SocketAddr) {
        let now = self.clock.now();
        match self.server.handle(now, datagram) {
            Ok(reply) => {
                if let Some(change) = reply.change {
                    log_change(&change, from);
                }
                // Where the socket's buffer is full the answer is lost, as any datagram may be; the node asks again.
                drop(self.socket.try_send_to(&reply.datagram, from));
            }
            Err(rejection) => self.complaints.add(now, rejection, from),
        }
    }
}

fn log_change(change: &Change, from: SocketAddr) {
    match change {
        Change::Granted { pair, vip, node, before: None } => {
            info!(pair = hex(*pair), %vip, %node, %from, "lease granted");
        }
        Change::Granted { pair, vip, node, before: Some(before) } => {
            info!(pair = hex(*pair), %vip, %node, %before, %from, "lease went to the other node");
        }
        Change::GivenBack { pair, vip, node } => info!(pair = hex(*pair), %vip, %node, %from, "lease given back"),
    }
}

/// Datagrams that were worth no answer: counted, and told of now and then.
#[derive(Default)]
struct Complaints {
    counts: BTreeMap<String, u64>,
    last_told: Option<Instant>,
}

impl Complaints {
    fn add(&mut self, now: Instant, rejection: Rejection, from: SocketAddr) {
        *self.counts.entry(rejection.to_string()).or_default() += 1;
        if self.last_told.is_some_and(|told| now < told + COMPLAINT_INTERVAL) {
            return;
        }
        self.last_told = Some(now);
        let counts: Vec<String> = self.counts.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        warn!(%from, reason = %rejection, since_start = counts.join(", "), "datagrams were dropped");
    }
}

/// A number that no other run of a witness has, and that is never 0.
fn random_boot() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(u64::from_be_bytes(bytes).max(1))
}

fn hex(pair: [u8; 8]) -> String {
    pair.iter().map(|byte| format!("{byte:02x}")).collect()
}
