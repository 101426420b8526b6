//! Looks at a listener the way a client does: connects, and waits for the worker to react.
//!
//! The guard never reads what clients send, and here it is a client itself: it opens a connection, closes its own
//! direction at once and waits for the worker to do the same. The kernel alone does not answer that: a connection that
//! nobody accepts, or that is accepted and not served, stays open. It costs no request, and no TLS handshake.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Found;
use crate::fitness::listener::{Load, Reaction, judge};
use crate::fitness::{CheckId, Finding};

/// Time between two connections to a listener: seldom enough that its counters stay those of clients.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time for the worker to react, at least.
const PATIENCE_MIN: Duration = Duration::from_millis(500);

/// Time for the worker to react: it gets as long as for the questions of the guard, which take less of it.
pub fn patience(probe_timeout: Duration) -> Duration {
    probe_timeout.max(PATIENCE_MIN)
}

/// What the guard knows that decides whether and how a listener is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// The worker runs and answers.
    pub serves: bool,
    /// For each VIP, whether this node is active.
    pub active: Vec<bool>,
    /// For each listener, what the worker last reported.
    pub load: Vec<Load>,
}

impl Situation {
    fn load_of(&self, listener: usize) -> Load {
        self.load.get(listener).copied().unwrap_or_default()
    }
}

/// An address at which a listener can be reached from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayIn {
    /// The address.
    pub address: SocketAddr,
    /// The VIP that it belongs to, which has to be here: elsewhere the peer would answer.
    pub while_active: Option<usize>,
}

/// Looks once a second until the guard ends; a look takes as long as `patience` at most.
pub async fn watch(
    check: CheckId,
    (listener, patience): (usize, Duration),
    ways_in: Vec<WayIn>,
    situation: watch::Receiver<Situation>,
    found: mpsc::Sender<Found>,
) {
    let mut turns = interval(INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The guard's loop waits to change the situation while it is borrowed: it is copied, and never held over an await.
    let look_around = || situation.borrow().clone();
    loop {
        turns.tick().await;
        let before = look_around();
        // Of a worker that does not serve the guard knows already, and it is no news of the listener.
        if !before.serves {
            continue;
        }
        let finding = match way_in(&ways_in, &before) {
            None => Finding::Untested("it can only be reached where the vip is".to_owned()),
            Some(address) => {
                let reaction = knock(address, patience).await;
                let after = look_around();
                if !after.serves {
                    continue;
                }
                judge(before.load_of(listener), after.load_of(listener), reaction)
            }
        };
        if found.send((check, finding)).await.is_err() {
            return;
        }
    }
}

fn way_in(ways_in: &[WayIn], situation: &Situation) -> Option<SocketAddr> {
    let is_open = |way: &&WayIn| way.while_active.is_none_or(|vip| situation.active.get(vip) == Some(&true));
    ways_in.iter().find(is_open).map(|way| way.address)
}

/// Connects and waits for a reaction.
async fn knock(address: SocketAddr, patience: Duration) -> Reaction {
    let started = Instant::now();
    let reaction = timeout(patience, async {
        let stream = connect(address).await?;
        wait_for_reaction(stream).await
    });
    match reaction.await {
        Ok(Err(error)) if is_reset(&error) => Reaction::Answered { after_ms: millis(started) },
        Ok(Ok(())) => Reaction::Answered { after_ms: millis(started) },
        Ok(Err(error)) if is_ours(&error) => Reaction::NotMade(format!("no connection can be made: {error}")),
        Ok(Err(error)) => Reaction::Failed(error.to_string()),
        Err(_) => Reaction::Failed(format!("no reaction within {} ms", patience.as_millis())),
    }
}

/// From the address itself, which the kernel refuses unless it is on this machine: the connection then never leaves it.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(address.ip(), 0))?;
    socket.connect(address).await
}

async fn wait_for_reaction(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    match stream.read(&mut [0]).await {
        // Its end or a byte: both are the worker's doing.
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the worker has reset the connection, as it does at a limit on clients. That may be noticed as soon as the
/// connection is there. A kernel with nobody behind the port refuses instead.
fn is_reset(error: &io::Error) -> bool {
    let resets = [io::ErrorKind::ConnectionReset, io::ErrorKind::NotConnected, io::ErrorKind::BrokenPipe];
    resets.contains(&error.kind())
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Whether an error says something about this process or about the address, not about the listener.
fn is_ours(error: &io::Error) -> bool {
    let descriptors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::NetworkUnreachable)
        || error.raw_os_error().is_some_and(|code| descriptors.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    fn on_a_runtime<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn connection_that_is_accepted_and_closed_is_answered() {
        on_a_runtime(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end, and nothing before it");
            };
            let (reaction, ()) = tokio::join!(knock(address, Duration::from_secs(5)), server);
            assert!(matches!(reaction, Reaction::Answered { .. }), "{reaction:?}");
        });
    }

    #[test]
    fn connection_that_nobody_accepts_or_serves_is_not_answered() {
        on_a_runtime(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let silent = Reaction::Failed("no reaction within 50 ms".to_owned());
            assert_eq!(knock(address, PATIENCE).await, silent);
            let (_first, second) = (listener.accept().await.unwrap(), listener.accept());
            let (reaction, _held) = tokio::join!(knock(address, PATIENCE), second);
            assert_eq!(reaction, silent);
            drop(listener);
            let refused = knock(address, PATIENCE).await;
            assert!(matches!(refused, Reaction::Failed(_)), "{refused:?}");
        });
    }

    #[test]
    fn connection_that_is_reset_is_answered_however_soon_it_is() {
        on_a_runtime(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            // On a thread of its own, so that the reset comes at any moment.
            let resets = std::thread::spawn(move || {
                on_a_runtime(async {
                    for _ in 0..100 {
                        listener.accept().await.unwrap().0.set_zero_linger().unwrap();
                    }
                });
            });
            for _ in 0..100 {
                let reaction = knock(address, Duration::from_secs(5)).await;
                assert!(matches!(reaction, Reaction::Answered { .. }), "{reaction:?}");
            }
            resets.join().unwrap();
        });
    }

    #[test]
    fn address_that_is_not_on_this_machine_is_not_tried() {
        let reaction = on_a_runtime(knock("192.0.2.1:80".parse().unwrap(), PATIENCE));
        assert!(matches!(reaction, Reaction::NotMade(_)), "{reaction:?}");
    }

    #[test]
    fn listener_gets_as_long_as_the_worker_and_half_a_second_at_least() {
        assert_eq!(patience(Duration::from_millis(200)), Duration::from_millis(500));
        assert_eq!(patience(Duration::from_secs(10)), Duration::from_secs(10));
    }

    #[test]
    fn address_of_a_vip_is_tried_only_while_it_is_here() {
        let vip = WayIn { address: "192.0.2.1:80".parse().unwrap(), while_active: Some(1) };
        let loopback = WayIn { address: "127.0.0.1:80".parse().unwrap(), while_active: None };
        let situation = |active: &[bool]| Situation { serves: true, active: active.to_vec(), load: Vec::new() };
        assert_eq!(way_in(&[vip], &situation(&[true, false])), None);
        assert_eq!(way_in(&[vip], &situation(&[false, true])), Some(vip.address));
        assert_eq!(way_in(&[vip, loopback], &situation(&[false, false])), Some(loopback.address));
        assert_eq!(way_in(&[vip], &situation(&[])), None);
    }
}
