//! The servers that were found, for the next worker, and where a pool asks for it (`keep = true`) for the next guard as well:
//! `discovery` in the state directory, in the form of `servers`.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::administration::{WRITE_INTERVAL, read, write};
use crate::config::{Config, POOL_SERVERS_MAX};
use crate::link::KeptList;

const FILE: &str = "discovery";
/// Bytes of a name; those of the configuration are no longer.
const NAME_BYTES_MAX: usize = 63;

/// What is kept, and the task that writes it.
pub struct Found {
    directory: PathBuf,
    /// What the workers said last.
    lists: watch::Sender<Rc<Vec<KeptList>>>,
    problem: RefCell<Option<String>>,
}

impl Found {
    /// Reads what is there for pools of this configuration, and starts to keep what changes. Needs a local tokio runtime.
    /// What another guard has left in this process goes before what is on the disk.
    pub fn open(config: &Config, state_dir: &Path, left: Option<Vec<KeptList>>) -> Rc<Self> {
        let keeps = config.pools.iter().any(|pool| pool.discovery.as_ref().is_some_and(|discovery| discovery.keep));
        let on_disk = || if keeps { read(&state_dir.join(FILE)) } else { Ok(Vec::new()) };
        let lists = left.map_or_else(on_disk, Ok);
        let lists = lists.unwrap_or_else(|error: io::Error| {
            // The next one that is written stands in its place.
            warn!(%error, "the servers that were found before are not used; the sources have to say them");
            Vec::new()
        });
        let lists = Rc::new(known(config, lists));
        let found = Rc::new(Self {
            directory: state_dir.to_owned(),
            lists: watch::Sender::new(lists),
            problem: RefCell::default(),
        });
        tokio::task::spawn_local(keep(Rc::clone(&found), found.lists.subscribe()));
        found
    }

    /// For a new worker.
    pub fn lists(&self) -> Vec<KeptList> {
        self.lists.borrow().to_vec()
    }

    /// Takes what a worker says: one list for each pool that has a source.
    pub fn said(&self, config: &Config, lists: Vec<KeptList>) {
        self.lists.send_replace(Rc::new(known(config, lists)));
    }

    /// What is less than it should be, in a sentence.
    pub fn warning(&self) -> Option<String> {
        self.problem.borrow().clone()
    }
}

/// Of these, one for each pool that has a source.
fn known(config: &Config, lists: Vec<KeptList>) -> Vec<KeptList> {
    let mut lists = lists;
    let of_pool = |pool: &crate::config::Pool| {
        let position = lists.iter().position(|list| list.pool == pool.name)?;
        let list = lists.swap_remove(position);
        let is_good = list.servers.len() <= POOL_SERVERS_MAX
            && list.servers.iter().all(|server| server.name.len() <= NAME_BYTES_MAX);
        let keep = pool.discovery.as_ref()?.keep;
        is_good.then_some(KeptList { is_for_disk: keep, ..list })
    };
    config.pools.iter().filter_map(of_pool).collect()
}

/// Writes what has changed, on a thread that may wait for a disk, one time after the other.
async fn keep(found: Rc<Found>, mut changes: watch::Receiver<Rc<Vec<KeptList>>>) {
    let mut written = for_disk(&found.lists());
    while changes.changed().await.is_ok() {
        let lists = for_disk(&changes.borrow_and_update());
        if lists == written {
            continue;
        }
        let (copy, directory) = (lists.clone(), found.directory.clone());
        let ended = tokio::task::spawn_blocking(move || write(&directory, FILE, &copy)).await;
        let ended = ended.unwrap_or_else(|error| Err(io::Error::other(error)));
        let problem = ended.err().map(|error| {
            let directory = found.directory.display();
            format!("the servers that were found cannot be kept in {directory}: {error}; see to the disk")
        });
        match &problem {
            None => written = lists,
            Some(problem) if found.problem.borrow().as_ref() != Some(problem) => warn!("{problem}"),
            Some(_) => {}
        }
        *found.problem.borrow_mut() = problem;
        sleep(WRITE_INTERVAL).await;
    }
}

fn for_disk(lists: &[KeptList]) -> Vec<KeptList> {
    lists.iter().filter(|list| list.is_for_disk).cloned().collect()
}
