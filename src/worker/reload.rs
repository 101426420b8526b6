//! Another configuration, taken while requests are under way. What is wrong with it leaves everything as it was.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Worker;
use crate::config::{self, Config};
use crate::link;
use crate::net::descriptors;
use crate::peer::Renewed;
use crate::proxy::files::Files;
use crate::proxy::limits::replicated_limits;
use crate::proxy::reload::{InUse, Makings, PreparedAccess};
use crate::proxy::sessions::replicated_pools;
use crate::proxy::thread::{Command, ListeningSocket, Next};

/// Time for all threads to take another configuration, after which it is not waited for them: the guard's probes say what
/// is wrong with them.
const PATIENCE: Duration = Duration::from_secs(2);

type Sockets = Vec<(SocketAddr, Vec<OwnedFd>)>;

/// What comes with a configuration that the guard has read.
pub struct Fresh {
    /// Its files.
    pub files: Files,
    /// The sockets of addresses that the worker does not have yet, one a thread of each.
    pub sockets: Sockets,
    /// The files of access logs that are not open yet, each with its index in `Config::log_targets`.
    pub logs: Vec<(usize, OwnedFd)>,
    /// What was made of its lists already.
    pub access: PreparedAccess,
}

impl Fresh {
    /// Nothing but the files that are in use.
    fn none(files: Files) -> Self {
        Self { files, sockets: Vec::new(), logs: Vec::new(), access: PreparedAccess::new() }
    }
}

/// A configuration on its way into use. What takes long, as a list of a million networks, is done by a thread of its own,
/// and the worker's loop goes on answering the guard. There is one at a time: the guard waits for the answer.
#[derive(Default)]
pub struct Reloading {
    under_way: Option<JoinHandle<Result<Prepared, String>>>,
    /// It is in use but for files that have changed by themselves.
    pub takes_files: bool,
}

/// A configuration that was read, and what was made of it.
pub struct Prepared {
    config: Config,
    fresh: Fresh,
}

/// The descriptors that come with a configuration.
struct Received {
    memory: OwnedFd,
    sockets: Sockets,
    logs: Vec<(usize, OwnedFd)>,
}

impl Reloading {
    /// Begins with a configuration.
    pub fn begin(&mut self, prepare: impl FnOnce() -> Result<Prepared, String> + Send + 'static) {
        self.under_way = Some(tokio::task::spawn_blocking(prepare));
    }

    /// Waits until it is prepared. Never ends while there is none. Cancel safe.
    ///
    /// # Errors
    /// In words: why it cannot be used.
    pub async fn prepared(&mut self) -> Result<Prepared, String> {
        let Some(under_way) = &mut self.under_way else { std::future::pending().await };
        let prepared = under_way.await;
        self.under_way = None;
        prepared.unwrap_or_else(|_| Err("the thread that reads it ended".to_owned()))
    }
}

impl Worker {
    /// Begins with the configuration that the guard has read, whose descriptors are in the socket already.
    pub(super) fn begin_reload(&mut self, reload: link::Reload) {
        let received = self.receive_reload(&reload);
        let (site, path) = (self.site(), self.config_path.clone());
        self.reloading.begin(move || {
            let Received { memory, sockets, logs } = received?;
            let config = config::parse(&reload.config_text, &path).map_err(|report| report.to_string())?;
            let files = link::from_memory(memory).map_err(|error| format!("its files did not come: {error}"))?;
            let files = Files::new(files);
            let access = site.prepare_access(&config, &files)?;
            Ok(Prepared { config, fresh: Fresh { files, sockets, logs, access } })
        });
    }

    fn receive_reload(&self, reload: &link::Reload) -> Result<Received, String> {
        let threads = self.commands.len();
        let count = 1 + reload.addresses.len() * threads + reload.logs.len();
        let socket = self.reload_descriptors.as_ref().ok_or("this worker takes no other configuration")?;
        let received = descriptors::receive(socket, count);
        let mut received = received.map_err(|error| format!("its sockets did not come: {error}"))?.into_iter();
        let memory = received.next().ok_or("its files did not come")?;
        let addresses = reload.addresses.iter();
        let sockets = addresses.map(|address| (*address, received.by_ref().take(threads).collect())).collect();
        Ok(Received { memory, sockets, logs: reload.logs.iter().copied().map(usize::from).zip(received).collect() })
    }

    /// Has the configuration used that was prepared. The guard is told when its files are in use too.
    ///
    /// # Errors
    /// In words: why it cannot be used. Nothing has changed then.
    pub(super) async fn finish_reload(&mut self, prepared: Result<Prepared, String>) -> Result<(), String> {
        let Prepared { config, fresh } = prepared?;
        let files = fresh.files.clone();
        self.discovery.reconfigured(&config, &files, &[]);
        let with_found = self.discovery.applied_to(&config, &self.changes());
        if let Err(reason) = self.apply(with_found, Some(fresh)).await {
            // The sources of the configuration that stays.
            self.discovery.reconfigured(&self.base, &self.files, &[]);
            return Err(reason);
        }
        self.base = config;
        // Most of it is as the site was just built with; what is not has changed since it was read last.
        self.take_files(files);
        self.reloading.takes_files = true;
        Ok(())
    }

    /// Has every thread go on under another configuration, which is in use when this returns. Whatever has not changed stays
    /// as it is, so that this may be called some times a second. `fresh` is what the guard brings; without it files and
    /// addresses have to be those in use.
    ///
    /// # Errors
    /// In words: why it cannot be used. Nothing has changed then.
    pub async fn apply(&mut self, config: Config, fresh: Option<Fresh>) -> Result<(), String> {
        let former = self.current.load_full();
        let Fresh { files, mut sockets, logs, access } = fresh.unwrap_or_else(|| Fresh::none(self.files.clone()));
        let makings =
            Makings { files: &files, tickets: &self.ticket_keys, cookie_key: &self.cookie_key, access: &access };
        let sessions = former.site.sessions.next(&config, &self.cookie_key);
        let site = Arc::new(former.site.next(&config, Arc::clone(&sessions), makings)?);
        let threads = former.counters.len();
        let lines = self.access_logs.next(&config, &self.node, threads, logs);
        let mut lines: VecDeque<_> = lines.map_err(|error| format!("an access log cannot be started: {error}"))?.into();
        // From here on nothing can go wrong.
        let counters = |counters: &Arc<_>| Arc::new(site.next_counters(&former.site, counters));
        let counters: Vec<_> = former.counters.iter().map(counters).collect();
        sessions.take_over_from(&former.site.sessions);
        site.recall(&former.site);
        self.current.store(Arc::new(InUse { site: Arc::clone(&site), counters: counters.clone() }));
        site.recall(&former.site);
        let has_ended_listeners = former.site.end_listeners(&site);
        let (taken, takes) = mpsc::channel(threads.max(1));
        for (commands, counters) in self.commands.iter().zip(counters) {
            let next = Next {
                site: Arc::clone(&site),
                counters,
                sockets: share_of_thread(&mut sockets),
                lines: lines.pop_front().unwrap_or_default(),
                has_ended_listeners,
                taken: taken.clone(),
            };
            // A thread that has ended ends the worker.
            let _ended = commands.send(Command::Reload(Box::new(next))).await;
        }
        drop(taken);
        wait_for_threads(takes, threads).await;
        // Nobody waits for the first checks of servers that are new.
        let _first_round = self.checks.follow();
        self.renew_link(&config, &sessions);
        self.drain_timeout = config.worker.drain_timeout;
        self.files = files;
        self.config = config;
        Ok(())
    }

    fn renew_link(&self, config: &Config, sessions: &Arc<crate::proxy::sessions::Sessions>) {
        self.link.renew(Renewed {
            sessions: Arc::clone(sessions),
            checksum: config.short_checksum(),
            pools: replicated_pools(config),
            limits: replicated_limits(config),
        });
    }
}

/// The next thread's socket of each address.
fn share_of_thread(sockets: &mut [(SocketAddr, Vec<OwnedFd>)]) -> Vec<ListeningSocket> {
    let share = |(address, sockets): &mut (SocketAddr, Vec<OwnedFd>)| {
        sockets.pop().map(|socket| ListeningSocket { address: *address, socket: socket.into() })
    };
    sockets.iter_mut().filter_map(share).collect()
}

async fn wait_for_threads(mut takes: mpsc::Receiver<()>, threads: usize) {
    let all = async {
        for _ in 0..threads {
            takes.recv().await;
        }
    };
    match timeout(PATIENCE, all).await {
        Ok(()) => info!("the configuration is in use"),
        Err(_) => warn!("a thread takes long to go over to the configuration in use"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn the_loop_goes_on_while_a_configuration_is_prepared() {
        on_a_runtime(async {
            let mut reloading = Reloading::default();
            let (go_on, waits) = std::sync::mpsc::channel::<()>();
            reloading.begin(move || {
                waits.recv().unwrap();
                Err("it is wrong".to_owned())
            });
            let mut probes_answered = 0;
            // As the worker's loop: it looks for what is prepared, and for something else.
            let reason = loop {
                tokio::select! {
                    biased;
                    prepared = reloading.prepared() => break prepared.err(),
                    () = tokio::task::yield_now() => probes_answered += 1,
                }
                if probes_answered == 1_000 {
                    go_on.send(()).unwrap();
                }
            };
            assert_eq!(reason.as_deref(), Some("it is wrong"));
            assert!(probes_answered >= 1_000, "{probes_answered}");
            // Nothing more comes.
            tokio::select! {
                biased;
                _ = reloading.prepared() => panic!("something was prepared"),
                () = tokio::task::yield_now() => {}
            }
        });
    }
}
