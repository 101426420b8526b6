//! The memory of this process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Says how much memory this process has resident. Opens its file once.
#[derive(Debug)]
pub struct Resident {
    statm: File,
    page_bytes: u64,
}

impl Resident {
    /// Of the calling process.
    ///
    /// # Errors
    /// What open(2) says of /proc/self/statm.
    pub fn open() -> io::Result<Self> {
        Ok(Self { statm: File::open("/proc/self/statm")?, page_bytes: rustix::param::page_size() as u64 })
    }

    /// Bytes that are resident now, those of files among them (proc_pid_statm(5)).
    ///
    /// # Errors
    /// What read(2) says; `InvalidData` where the kernel writes something else.
    pub fn bytes(&self) -> io::Result<u64> {
        let mut text = [0; 128];
        let len = self.statm.read_at(&mut text, 0)?;
        let text = text.get(..len).and_then(|text| std::str::from_utf8(text).ok());
        let pages = text.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
        let pages = pages.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm has no size"))?;
        Ok(pages.saturating_mul(self.page_bytes))
    }
}

/// Gives memory that the process has freed, and the C library keeps for later, back to the kernel (malloc_trim(3)). Takes
/// milliseconds for each gigabyte: for when memory is short, and not on a thread that serves.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer, may be called from any thread, and touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_resident() {
        let resident = Resident::open().unwrap();
        let before = resident.bytes().unwrap();
        assert!(before > 100_000, "{before}");
        // Large enough to get pages of its own.
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let with_block = resident.bytes().unwrap();
        assert!(with_block >= before + (48 << 20), "{before} {with_block}");
        drop(block);
        give_back();
        assert!(resident.bytes().unwrap() < with_block);
    }
}
