use super::*;
use crate::link::archive::{send_complete, send_damaged, send_part};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

const CONFIG: &str = r#"
[[listener]]
name = "web"
bind = ["127.0.0.1:80"]
pool = "app"
[[pool]]
name = "app"
servers = [{ name = "app1", address = "10.0.0.1:80" }]
sticky = { by = "source_ip", entries_max = 10 }
"#;

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("baton-archive-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(name)).ok()
    }

    fn open(&self) -> Archive {
        let config = crate::config::parse(CONFIG, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
        Archive::open(&config, &self.0).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The worker's ends.
fn handed(archive: &Archive) -> (UnixStream, Option<File>) {
    let mut handed = archive.for_worker().unwrap();
    let position = handed.iter().position(|(kind, _)| *kind == Further::Archive);
    let file = position.map(|position| File::from(handed.remove(position).1));
    (UnixStream::from(handed.remove(0).1), file)
}

/// Waits until every worker's thread has ended.
fn finish(archive: &Archive) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    runtime.block_on(archive.finish(Duration::from_secs(10)));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_archive_is_there_when_all_of_it_has_come_and_the_next_worker_gets_it() {
    let directory = Directory::new();
    let archive = directory.open();
    let (mut socket, file) = handed(&archive);
    assert!(file.is_none());
    send_part(&mut socket, b"one").unwrap();
    send_part(&mut socket, b" two").unwrap();
    send_complete(&mut socket).unwrap();
    // The worker ends in the middle of another.
    send_part(&mut socket, b"half").unwrap();
    drop(socket);
    finish(&archive);
    assert_eq!(directory.read("sessions").unwrap(), b"one two");
    assert_eq!(directory.read("sessions.new"), None);
    let mode = std::fs::metadata(directory.0.join("sessions")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(archive.warnings().count(), 0);
    let mut status = ArchiveStatus::default();
    archive.complete(&mut status);
    assert_eq!((status.bytes, status.written_ms.is_some(), status.last_error), (7, true, None));
    for archive in [archive, directory.open()] {
        let (_socket, file) = handed(&archive);
        let mut content = Vec::new();
        file.unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, b"one two");
    }
}

#[test]
fn a_damaged_archive_is_set_aside_before_a_new_one_is_written() {
    let directory = Directory::new();
    std::fs::write(directory.0.join("sessions"), "damaged").unwrap();
    let archive = directory.open();
    let (mut socket, file) = handed(&archive);
    assert!(file.is_some());
    send_damaged(&mut socket, "its checksum\n is wrong").unwrap();
    send_part(&mut socket, b"new").unwrap();
    send_complete(&mut socket).unwrap();
    drop(socket);
    finish(&archive);
    assert_eq!(directory.read("sessions.damaged").unwrap(), b"damaged");
    assert_eq!(directory.read("sessions").unwrap(), b"new");
    let path = directory.0.display();
    let expected = format!(
        "the archive of sessions {path}/sessions was not used: its checksum is wrong; it is set aside as \
         {path}/sessions.damaged, 0 min ago"
    );
    assert_eq!(archive.warnings().collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_disk_that_cannot_be_written_is_a_warning_until_it_can() {
    let directory = Directory::new();
    // A directory in its place cannot be removed as a file, whoever tries.
    std::fs::create_dir(directory.0.join("sessions.new")).unwrap();
    let archive = directory.open();
    let (mut socket, _) = handed(&archive);
    let write = |socket: &mut UnixStream, content: &[u8]| {
        send_part(socket, content).unwrap();
        send_part(socket, b" and more").unwrap();
        send_complete(socket).unwrap();
    };
    write(&mut socket, b"first");
    let deadline = Instant::now() + Duration::from_secs(10);
    while archive.warnings().count() == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(archive.warnings().next().unwrap().starts_with("the sessions cannot be kept in "));
    assert_eq!(directory.read("sessions"), None);
    std::fs::remove_dir(directory.0.join("sessions.new")).unwrap();
    write(&mut socket, b"second");
    drop(socket);
    finish(&archive);
    assert_eq!(directory.read("sessions").unwrap(), b"second and more");
    assert_eq!(archive.warnings().count(), 0);
}

#[test]
fn more_than_any_table_holds_is_not_written() {
    let directory = Directory::new();
    let archive = directory.open();
    let (mut socket, _) = handed(&archive);
    let part = vec![0; archive::FRAME_BYTES_MAX];
    for _ in 0..257 {
        send_part(&mut socket, &part).unwrap();
    }
    send_complete(&mut socket).unwrap();
    drop(socket);
    finish(&archive);
    assert_eq!((directory.read("sessions"), directory.read("sessions.new")), (None, None));
    assert!(archive.warnings().next().unwrap().contains("it is longer than any table"));
}

#[test]
fn nothing_is_kept_where_no_pool_has_sessions() {
    let config = CONFIG.replace("sticky = { by = \"source_ip\", entries_max = 10 }", "sticky = {}");
    let config = crate::config::parse(&config, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert!(Archive::open(&config, Path::new("/nowhere")).is_none());
}

#[test]
fn a_pipe_in_place_of_the_archive_is_not_waited_for() {
    let directory = Directory::new();
    let path = directory.0.join(FILE);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let archive = directory.open();
    let (mut socket, file) = handed(&archive);
    assert_eq!(file.unwrap().read(&mut [0]).unwrap(), 0, "as an empty file");
    send_damaged(&mut socket, "it is cut off").unwrap();
    send_part(&mut socket, b"new").unwrap();
    send_complete(&mut socket).unwrap();
    drop(socket);
    finish(&archive);
    assert_eq!(directory.read(FILE).as_deref(), Some(&b"new"[..]));
}
