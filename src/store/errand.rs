//! What is asked of the store, and what one question comes to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::Connection;
use super::entry::{Directory, Entry, Placed, REMOVED, name_of};
use super::owed::Debt;
use super::{Found, Seen, Shared};
use crate::config::duration_text;
use crate::session::ServerRef;
use crate::session::key::Key;

/// How long the mark of a removal stays: until every load balancer that uses the session has compared its own entry, and
/// some more.
const REMOVED_LIFE: Duration = Duration::from_secs(30);

/// What a request waits for.
pub(super) struct Request {
    pub(super) key: Key,
    pub(super) pool: u16,
    /// What the numbers mean.
    pub(super) directory: Arc<Directory>,
    pub(super) question: Question,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Found>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    Lookup,
    Claim(ServerRef),
    Put(ServerRef),
}

/// What nobody waits for.
#[derive(Debug, Clone)]
pub(super) enum Background {
    Claim { key: Key, server: Placed },
    Put { key: Key, server: Placed },
    Remove { key: Key },
    Recheck { key: Key, server: Placed },
}

/// What came of a task. An error means that the store is away, and why.
#[derive(Debug)]
pub(super) enum Done {
    Answered,
    /// Everything that was sent of what is owed.
    Written,
    Compared(Key, Option<Seen>),
}

/// One task's way to the store.
#[derive(Clone)]
pub(super) struct Errand {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
}

impl Errand {
    /// Answers a request by its deadline.
    pub(super) async fn answer(mut self, request: Request) -> Result<Done, String> {
        let Request { key, pool, directory, question, deadline, reply } = request;
        let name = name_of(&self.shared.settings.prefix, &key);
        let question = async {
            match question {
                Question::Lookup => self.lookup(&name, pool, &directory).await,
                Question::Claim(server) => self.claim(&name, &Placed { server, directory }).await,
                Question::Put(server) => {
                    let debt = Debt::Put(Placed { server, directory });
                    self.write_one(&name, debt).await.map(|()| (Found::At(server), None))
                }
            }
        };
        let Ok(answered) = timeout_at(deadline, question).await else {
            self.shared.counters.timeouts.fetch_add(1, Ordering::Relaxed);
            return Err(format!("no answer within {}", duration_text(self.shared.settings.timeout)));
        };
        let (found, time_left) = answered?;
        // Only what was there before lives on.
        self.shared.counters.hits.fetch_add(u64::from(time_left.is_some()), Ordering::Relaxed);
        // Whoever asked may have gone.
        let _gone = reply.send(found);
        if let Some(time_left) = time_left {
            self.in_time(self.connection.clone().touch(&name, time_left)).await?;
        }
        Ok(Done::Answered)
    }

    /// Where a session is, and how long its entry lives from now on when it has one.
    async fn lookup(
        &mut self,
        name: &str,
        pool: u16,
        directory: &Directory,
    ) -> Result<(Found, Option<Duration>), String> {
        let Some(text) = self.connection.get(name).await? else { return Ok((Found::Nothing, None)) };
        let Entry::At { server, until } = directory.read(pool, &text) else { return Ok((Found::Nothing, None)) };
        match directory.time_left(pool, until, SystemTime::now()) {
            Some(time_left) => Ok((Found::At(server), Some(time_left))),
            None => {
                self.connection.delete(name).await?;
                Ok((Found::Nothing, None))
            }
        }
    }

    /// As [`Errand::lookup`], for a session that takes `server` unless it has one.
    async fn claim(&mut self, name: &str, placed: &Placed) -> Result<(Found, Option<Duration>), String> {
        let Placed { server, directory } = placed;
        let (server, now) = (*server, SystemTime::now());
        let Some((text, life)) = directory.write(server, now) else { return Ok((Found::Nothing, None)) };
        let Some(old) = self.connection.claim(name, &text, life).await? else { return Ok((Found::At(server), None)) };
        if let Entry::At { server: stands, until } = directory.read(server.pool, &old)
            && let Some(time_left) = directory.time_left(server.pool, until, now)
        {
            return Ok((Found::At(stands), Some(time_left)));
        }
        // Nobody here can use what stands there.
        self.connection.put(name, &text, life).await?;
        Ok((Found::At(server), None))
    }

    /// Compares an entry of the table with the store.
    pub(super) async fn compare(mut self, key: Key, server: Placed) -> Result<Done, String> {
        self.shared.counters.rechecks.fetch_add(1, Ordering::Relaxed);
        let name = name_of(&self.shared.settings.prefix, &key);
        let time = self.shared.settings.background_timeout();
        let seen = timeout(time, self.seen(&name, &server)).await.map_err(|_| too_slow(time))??;
        Ok(Done::Compared(key, seen))
    }

    async fn seen(&mut self, name: &str, placed: &Placed) -> Result<Option<Seen>, String> {
        let Placed { server, directory } = placed;
        let Some(text) = self.connection.get(name).await? else {
            // Its time may be over, or the store may have lost it, as it does at a restart. With an absolute end nobody can
            // tell which, and otherwise it is in use.
            let has_end = directory.pools.get(usize::from(server.pool)).is_none_or(|pool| pool.absolute.is_some());
            return if has_end { Ok(Some(Seen::Gone)) } else { self.claim_again(name, placed).await };
        };
        match directory.read(server.pool, &text) {
            Entry::Removed => Ok(Some(Seen::Gone)),
            Entry::Stranger => self.claim_again(name, placed).await,
            Entry::At { server: stands, until } => {
                let time_left = directory.time_left(server.pool, until, SystemTime::now());
                let Some(time_left) = time_left else { return Ok(Some(Seen::Gone)) };
                self.connection.touch(name, time_left).await?;
                Ok(moved(stands, placed))
            }
        }
    }

    async fn claim_again(&mut self, name: &str, placed: &Placed) -> Result<Option<Seen>, String> {
        match self.claim(name, placed).await? {
            (Found::At(stands), _) => Ok(moved(stands, placed)),
            (Found::Nothing | Found::Away, _) => Ok(None),
        }
    }

    /// Writes what is owed.
    pub(super) async fn write(self, debts: Vec<(Key, Debt)>) -> Result<Done, String> {
        let prefix = &self.shared.settings.prefix;
        let writes = debts.into_iter().map(|(key, debt)| {
            let mut errand = self.clone();
            async move { errand.write_one(&name_of(prefix, &key), debt).await }
        });
        let all = futures_util::future::try_join_all(writes);
        self.in_time(all).await?;
        Ok(Done::Written)
    }

    async fn write_one(&mut self, name: &str, debt: Debt) -> Result<(), String> {
        match debt {
            Debt::Claim(placed) => self.claim(name, &placed).await.map(drop),
            Debt::Put(Placed { server, directory }) => match directory.write(server, SystemTime::now()) {
                Some((text, life)) => self.connection.put(name, &text, life).await,
                None => Ok(()),
            },
            Debt::Remove => self.connection.put(name, REMOVED, REMOVED_LIFE).await,
        }
    }

    /// Finds out whether the store answers.
    pub(super) async fn ping(mut self) -> Result<Done, String> {
        let time = self.shared.settings.background_timeout();
        let answered = timeout(time, self.connection.ping(&self.shared.settings.prefix)).await;
        answered.map_err(|_| too_slow(time))??;
        Ok(Done::Answered)
    }

    async fn in_time<T>(&self, question: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let time = self.shared.settings.background_timeout();
        timeout(time, question).await.map_err(|_| too_slow(time))?
    }
}

/// Where a session stands now, if that is another server than it was.
fn moved(stands: ServerRef, was: &Placed) -> Option<Seen> {
    let (pool, server) = was.directory.names(stands).filter(|_| stands != was.server)?;
    Some(Seen::Moved { pool: pool.to_owned(), server: server.to_owned() })
}

fn too_slow(time: Duration) -> String {
    format!("no answer within {}", duration_text(time))
}
