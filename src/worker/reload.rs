//! Another configuration, taken while requests are under way. What is wrong with it leaves everything as it was.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Worker;
use crate::config::{self, Config};
use crate::link;
use crate::net::descriptors;
use crate::peer::Renewed;
use crate::proxy::files::Files;
use crate::proxy::limits::replicated_limits;
use crate::proxy::reload::{InUse, Makings};
use crate::proxy::sessions::replicated_pools;
use crate::proxy::thread::{Command, ListeningSocket, Next};

/// Time for all threads to take another configuration, after which it is not waited for them: the guard's probes say what
/// is wrong with them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What comes with a configuration that the guard has read.
pub struct Fresh {
    /// Its files.
    pub files: Files,
    /// The sockets of addresses that the worker does not have yet, one a thread of each.
    pub sockets: Vec<(SocketAddr, Vec<OwnedFd>)>,
    /// The files of access logs that are not open yet, each with its index in `Config::log_targets`.
    pub logs: Vec<(usize, OwnedFd)>,
}

impl Worker {
    /// Takes the configuration that the guard has read, whose descriptors are in the socket already.
    pub(super) async fn reload(&mut self, reload: link::Reload) -> Result<(), String> {
        let link::Reload { config_text, files, addresses, logs } = reload;
        let threads = self.commands.len();
        let count = addresses.len() * threads + logs.len();
        let socket = self.reload_descriptors.as_ref().ok_or("this worker takes no other configuration")?;
        let received = descriptors::receive(socket, count);
        let mut received = received.map_err(|error| format!("its sockets did not come: {error}"))?.into_iter();
        let sockets =
            addresses.into_iter().map(|address| (address, received.by_ref().take(threads).collect())).collect();
        let logs = logs.into_iter().map(usize::from).zip(received).collect();
        let config = config::parse(&config_text, &self.config_path).map_err(|report| report.to_string())?;
        let files = Files::new(files);
        self.discovery.reconfigured(&config, &files, &[]);
        let with_found = self.discovery.applied_to(&config, &self.changes());
        let applied = self.apply(with_found, Some(Fresh { files, sockets, logs })).await;
        match &applied {
            Ok(()) => self.base = config,
            // The sources of the configuration that stays.
            Err(_) => self.discovery.reconfigured(&self.base, &self.files, &[]),
        }
        applied
    }

    /// Has every thread go on under another configuration, which is in use when this returns. Whatever has not changed stays
    /// as it is, so that this may be called some times a second. `fresh` is what the guard brings; without it files and
    /// addresses have to be those in use.
    ///
    /// # Errors
    /// In words: why it cannot be used. Nothing has changed then.
    pub async fn apply(&mut self, config: Config, fresh: Option<Fresh>) -> Result<(), String> {
        let former = self.current.load_full();
        let has_files = fresh.is_some();
        let (files, mut sockets, logs) = match fresh {
            Some(Fresh { files, sockets, logs }) => (files, sockets, logs),
            None => (self.files.clone(), Vec::new(), Vec::new()),
        };
        let makings = Makings { files: &files, tickets: &self.ticket_keys, cookie_key: &self.cookie_key };
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
        if has_files {
            // At once: most of it is as the site was just built with.
            let warnings = self.site().files_changed(&files);
            self.files = files;
            self.files_taken(warnings);
        }
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
