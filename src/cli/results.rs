//! What a drill or the demo leaves behind: reports in files, each of them whole, or as it was before.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::staged::Staged;

/// A report that was asked for.
pub(super) struct Report<'a> {
    /// Where to.
    pub(super) path: &'a Option<PathBuf>,
    /// All of it.
    pub(super) text: String,
}

/// Writes every one of them, whatever becomes of the others, and gives in sentences which could not be written.
pub(super) fn write_all(reports: &[Report<'_>]) -> Vec<String> {
    let asked = reports.iter().filter_map(|report| Some((report.path.as_deref()?, &report.text)));
    asked.filter_map(|(path, text)| write(path, text).err().map(|error| failed(path, &error))).collect()
}

/// Finds those that could not be written, without touching what is there.
pub(super) fn check(paths: &[&Option<PathBuf>]) -> Vec<String> {
    let asked = paths.iter().filter_map(|path| path.as_deref());
    asked.filter_map(|path| try_to_write(path).err().map(|error| failed(path, &error))).collect()
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("failed to write the report {}: {error}", path.display())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let Some(place) = replaceable(path)? else { return fs::write(path, text) };
    match Staged::beside(&place, text).and_then(Staged::replace) {
        Err(error) if stays_where_it_is(&error) && place.exists() => fs::write(&place, text),
        written => written,
    }
}

fn try_to_write(path: &Path) -> io::Result<()> {
    let Some(place) = replaceable(path)? else { return Ok(()) };
    match Staged::beside(&place, "") {
        Err(error) if stays_where_it_is(&error) && place.exists() => {
            OpenOptions::new().append(true).open(&place).map(drop)
        }
        staged => staged.map(drop),
    }
}

/// The file that another one takes the place of; `None` for what is none, such as /dev/stdout, which is written to.
fn replaceable(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(rustix::io::Errno::ISDIR.into()),
        // Not the link that leads to it.
        Ok(found) if found.is_file() => fs::canonicalize(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(path.to_owned())),
        Err(error) => Err(error),
    }
}

/// A file may be ours to write in a directory that is not, or be mounted by itself into a container.
fn stays_where_it_is(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of a test, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("baton-results-{:016x}", fastrand::u64(..)));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn report_that_cannot_be_written_does_not_stop_the_others() {
        let directory = Directory::new();
        let [full, good] = ["full", "good"].map(|name| Some(directory.0.join(name)));
        fs::create_dir(full.as_ref().unwrap()).unwrap();
        let report = |path| Report { path, text: "all of it\n".to_owned() };
        let complaints = write_all(&[report(&full), report(&None), report(&good)]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].ends_with("/full: Is a directory (os error 21)"), "{complaints:?}");
        assert_eq!(fs::read_to_string(good.unwrap()).unwrap(), "all of it\n");
    }

    #[test]
    fn what_is_there_stays_until_the_report_is_whole() {
        let directory = Directory::new();
        let (file, link) = (directory.0.join("file"), directory.0.join("link"));
        fs::write(&file, "of an earlier drill").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(check(&[&Some(file.clone()), &Some(directory.0.join("new")), &None]), [""; 0]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "of an earlier drill");
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 2, "the check leaves nothing behind");
        let complaints = write_all(&[Report { path: &Some(link.clone()), text: "new".to_owned() }]);
        assert_eq!(complaints, [""; 0]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(link.is_symlink(), "a link still leads to it");
    }

    #[test]
    fn what_is_no_file_is_written_to() {
        let (full, nothing) = (Some(PathBuf::from("/dev/full")), Some(PathBuf::from("/dev/null")));
        assert_eq!(check(&[&full, &nothing]), [""; 0]);
        let report = |path| Report { path, text: "x".to_owned() };
        let complaints = write_all(&[report(&full), report(&nothing)]);
        assert_eq!(complaints, ["failed to write the report /dev/full: No space left on device (os error 28)"]);
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn directory_that_is_not_there_is_found_before() {
        let directory = Directory::new();
        let lost = Some(directory.0.join("lost/report.json"));
        assert!(check(&[&lost])[0].contains("No such file"), "{:?}", check(&[&lost]));
    }
}
