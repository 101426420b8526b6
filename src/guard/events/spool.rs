//! Events on disk, one file each, so that none is lost when the guard ends.
//!
//! A file `00000000000000000042.json` is an event that somebody has still to be told of. The file of the last one that
//! everybody has been told of is kept as `delivered.json`: its number says where to go on counting. A thread of its own
//! does all of this, because a disk may take its time or hang.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::mpsc;

use crate::event::Event;

/// Orders that may wait for the disk; who gives them keeps more.
const ORDERS_MAX: usize = 1024;

/// The last event that everybody has.
const DELIVERED: &str = "delivered.json";

/// A file that is longer than any event.
const EVENT_BYTES_MAX: u64 = 1024 * 1024;

/// What the thread is to do.
#[derive(Debug)]
pub enum Order {
    /// Write an event.
    Write(Event),
    /// Everybody has it.
    Delivered(u64),
    /// It has to go undelivered.
    Drop(u64),
}

/// What came of writing an event.
#[derive(Debug)]
pub struct Written {
    /// Which.
    pub sequence: u64,
    /// What the kernel said.
    pub outcome: io::Result<()>,
}

/// What an earlier guard left.
#[derive(Debug, Default)]
pub struct Found {
    /// In order, with the time at which each was written.
    pub events: Vec<(Event, SystemTime)>,
    /// The number of the next event.
    pub next: u64,
    /// What could not be read, in words.
    pub warnings: Vec<String>,
    /// Events that were too many and are gone.
    pub dropped: u64,
}

/// The directory, ours alone for as long as this lives.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    directory: File,
}

impl Spool {
    /// Opens the directory, makes it if need be, and makes sure that it can be written.
    ///
    /// # Errors
    /// `WouldBlock` when another guard uses it; otherwise what the kernel says.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let directory = File::open(path)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
        let trial = path.join(".trial.tmp");
        new_file(&trial)?;
        fs::remove_file(&trial)?;
        Ok(Self { path: path.to_owned(), directory })
    }

    /// Reads what an earlier guard left. Of more than `kept_max` events the oldest are removed.
    ///
    /// # Errors
    /// When the directory cannot be read. A file that cannot is set aside.
    pub fn read(&self, kept_max: usize) -> io::Result<Found> {
        let mut found = Found::default();
        let mut sequences = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(".tmp") {
                // Left by a guard that ended while it wrote: nobody counted on it.
                drop(fs::remove_file(self.path.join(name)));
            }
            sequences.extend(sequence_of(name));
        }
        sequences.sort_unstable();
        let delivered = read_event(&self.path.join(DELIVERED)).map_or(0, |event| event.sequence);
        found.next = sequences.last().map_or(0, |last| *last).max(delivered).saturating_add(1);
        let excess = sequences.len().saturating_sub(kept_max);
        for sequence in sequences.drain(..excess) {
            drop(fs::remove_file(self.file(sequence)));
            found.dropped += 1;
        }
        for sequence in sequences {
            let file = self.file(sequence);
            match read_event(&file).and_then(|event| Ok((event, fs::metadata(&file)?.modified()?))) {
                Ok((event, time)) if event.sequence == sequence => found.events.push((event, time)),
                Ok(_) => self.set_aside(&file, "it holds another event than its name says", &mut found),
                Err(error) => self.set_aside(&file, &error.to_string(), &mut found),
            }
        }
        Ok(found)
    }

    fn set_aside(&self, file: &Path, reason: &str, found: &mut Found) {
        let aside = file.with_extension("bad");
        // Where even that fails it is met again at the next start.
        drop(fs::rename(file, &aside));
        found.warnings.push(format!("{} is no event ({reason}) and is now {}", file.display(), aside.display()));
    }

    /// Starts the thread that writes. It ends when the sender is gone.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start(self, written: mpsc::Sender<Written>) -> io::Result<SyncSender<Order>> {
        let (sender, orders) = sync_channel(ORDERS_MAX);
        std::thread::Builder::new().name("spool".to_owned()).spawn(move || self.run(&orders, &written))?;
        Ok(sender)
    }

    fn run(self, orders: &Receiver<Order>, written: &mpsc::Sender<Written>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Write(event) => {
                    let answer = Written { sequence: event.sequence, outcome: self.write(&event) };
                    if written.blocking_send(answer).is_err() {
                        return;
                    }
                }
                // A file that stays is an event that is delivered once more after a restart.
                Order::Delivered(sequence) => drop(fs::rename(self.file(sequence), self.path.join(DELIVERED))),
                Order::Drop(sequence) => drop(fs::remove_file(self.file(sequence))),
            }
        }
    }

    /// Complete and under its name, or not there at all, whenever the power fails.
    fn write(&self, event: &Event) -> io::Result<()> {
        let temporary = self.path.join(format!(".{:020}.tmp", event.sequence));
        let mut text = serde_json::to_vec(event)?;
        text.push(b'\n');
        let written = new_file(&temporary).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, self.file(event.sequence))?;
            self.directory.sync_all()
        });
        if written.is_err() {
            // What is left of it takes room that may be missing.
            drop(fs::remove_file(&temporary));
        }
        written
    }

    fn file(&self, sequence: u64) -> PathBuf {
        self.path.join(format!("{sequence:020}.json"))
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The number in the name of an event's file.
fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn read_event(path: &Path) -> io::Result<Event> {
    let file = File::open(path)?;
    if file.metadata()?.len() > EVENT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    serde_json::from_reader(io::BufReader::new(file)).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Role;

    /// A directory of a test, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("baton-spool-{}-{name}", std::process::id()));
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn event(sequence: u64) -> Event {
        Event {
            sequence,
            time: "2026-01-02T03:04:05.678Z".to_owned(),
            node: "lb-a".to_owned(),
            vip: "web".to_owned(),
            from: Role::Standby,
            to: Role::Active,
            reason: "peer resigned".to_owned(),
            epoch: 7,
            addresses: vec!["192.0.2.100/24".to_owned()],
            peer: None,
        }
    }

    fn sequences(found: &Found) -> Vec<u64> {
        found.events.iter().map(|(event, _)| event.sequence).collect()
    }

    #[test]
    fn events_come_back_in_order_and_numbers_go_on() {
        let directory = Directory::new("order");
        let spool = Spool::open(&directory.0).unwrap();
        let found = spool.read(10).unwrap();
        assert_eq!((found.next, found.events.len()), (1, 0));
        for sequence in [10, 9, 11] {
            spool.write(&event(sequence)).unwrap();
        }
        let found = spool.read(10).unwrap();
        assert_eq!((sequences(&found), found.next), (vec![9, 10, 11], 12));
        assert_eq!(found.events[0].0, event(9));
        let text = fs::read_to_string(directory.0.join("00000000000000000009.json")).unwrap();
        assert_eq!(
            text,
            "{\"sequence\":9,\"time\":\"2026-01-02T03:04:05.678Z\",\"node\":\"lb-a\",\"vip\":\"web\",\"from\":\"standby\",\
             \"to\":\"active\",\"reason\":\"peer resigned\",\"epoch\":7,\"addresses\":[\"192.0.2.100/24\"],\"peer\":null}\n"
        );
    }

    #[test]
    fn numbers_go_on_when_everything_was_delivered() {
        let directory = Directory::new("delivered");
        let spool = Spool::open(&directory.0).unwrap();
        spool.write(&event(41)).unwrap();
        spool.write(&event(42)).unwrap();
        let (written, _answers) = mpsc::channel(1);
        let (sender, orders) = sync_channel(8);
        for order in [Order::Delivered(41), Order::Delivered(42)] {
            sender.send(order).unwrap();
        }
        drop(sender);
        spool.run(&orders, &written);
        let spool = Spool::open(&directory.0).unwrap();
        let found = spool.read(10).unwrap();
        assert_eq!((sequences(&found), found.next), (vec![], 43));
    }

    #[test]
    fn too_many_events_and_files_that_are_none_are_told_of() {
        let directory = Directory::new("bad");
        let spool = Spool::open(&directory.0).unwrap();
        for sequence in 1..=5 {
            spool.write(&event(sequence)).unwrap();
        }
        fs::write(directory.0.join("00000000000000000004.json"), "{").unwrap();
        fs::write(directory.0.join(".00000000000000000006.tmp"), "{").unwrap();
        fs::write(directory.0.join("notes.json"), "mine").unwrap();
        let found = spool.read(3).unwrap();
        assert_eq!((sequences(&found), found.next, found.dropped), (vec![3, 5], 6, 2));
        assert_eq!(found.warnings.len(), 1);
        let mut names: Vec<_> = fs::read_dir(&directory.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected =
            ["00000000000000000003.json", "00000000000000000004.bad", "00000000000000000005.json", "notes.json"];
        assert_eq!(names, expected);
    }

    #[test]
    fn one_directory_is_for_one_guard() {
        let directory = Directory::new("lock");
        let _first = Spool::open(&directory.0).unwrap();
        assert_eq!(Spool::open(&directory.0).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let directory = Directory::new("full");
        let spool = Spool::open(&directory.0).unwrap();
        // A directory in the place of the event's file: the rename fails, as it would on a broken disk.
        fs::create_dir_all(directory.0.join("00000000000000000001.json/x")).unwrap();
        assert!(spool.write(&event(1)).is_err());
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
    }
}
