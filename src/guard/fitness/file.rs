//! Looks whether a file is there.

use std::fs;
use std::io;
use std::path::Path;

use crate::fitness::Finding;

/// One look. A symbolic link counts as what it points to. A path that cannot be looked at is bad either way: nobody knows
/// whether the file is there.
pub(super) fn look(path: &Path, must_exist: bool) -> Finding {
    let name = path.display();
    let (exists, said) = match fs::metadata(path) {
        Ok(_) => (true, format!("{name} exists")),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            (false, format!("{name} does not exist"))
        }
        Err(error) => return Finding::Bad(format!("{name} cannot be looked at: {error}")),
    };
    if exists == must_exist { Finding::Good(said) } else { Finding::Bad(said) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_there_or_not() {
        let (here, nowhere) = (Path::new("/proc/self/stat"), Path::new("/proc/self/nowhere"));
        assert_eq!(look(here, true), Finding::Good("/proc/self/stat exists".to_owned()));
        assert_eq!(look(here, false), Finding::Bad("/proc/self/stat exists".to_owned()));
        assert_eq!(look(nowhere, true), Finding::Bad("/proc/self/nowhere does not exist".to_owned()));
        assert_eq!(look(nowhere, false), Finding::Good("/proc/self/nowhere does not exist".to_owned()));
        let below_a_file = Path::new("/proc/self/stat/x");
        assert_eq!(look(below_a_file, false), Finding::Good("/proc/self/stat/x does not exist".to_owned()));
    }

    #[test]
    fn path_that_cannot_be_looked_at_is_bad_either_way() {
        let long = "x".repeat(300);
        for must_exist in [true, false] {
            assert!(matches!(look(Path::new(&long), must_exist), Finding::Bad(_)));
        }
    }
}
