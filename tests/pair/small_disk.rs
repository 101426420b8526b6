//! A disk that is soon full.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

/// A file system of 64 KiB, taken away at its end.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, making the directory if it is not there.
    pub fn mount(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path)?;
        rustix::mount::mount("baton", path, "tmpfs", MountFlags::NOSUID, c"size=64k,mode=0755")?;
        Ok(Self(path.to_owned()))
    }

    /// Fills it with a file, whose path is given.
    pub fn fill(&self) -> anyhow::Result<PathBuf> {
        let filler = self.0.join("filler");
        let mut file = fs::File::create(&filler)?;
        while file.write_all(&[0; 4096]).is_ok() {}
        Ok(filler)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}
