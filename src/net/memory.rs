//! The memory of this process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::mm::{Advice, madvise};

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

/// Gives up what only the beginning needed: what it has freed, and the pages of code, locked ones among them. Code that is
/// used comes back from the kernel's cache of the file as it is used, 64 KiB for a microsecond or so, and is locked again where
/// the memory is; that of reading a configuration or of a library's first steps does not. For a process that has started.
///
/// Before Linux 5.18 code stays where it is.
pub fn shed_start() {
    give_back();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (begin, end) in maps.lines().filter_map(code_of_file) {
        // SAFETY: nobody writes to pages that are executable and mapped from a file, so that what is read again is what was
        // there; the file itself cannot be written to while it runs.
        let _stays = unsafe { madvise(begin as *mut _, end - begin, Advice::LinuxDontneedLocked) };
    }
}

/// Begin and end of a mapping of code, from a line of /proc/self/maps (proc_pid_maps(5)). What was written to is not code:
/// of a file's other pages some have been changed by the loader.
fn code_of_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions, path) = (words.next()?, words.next()?, words.nth(3)?);
    let (begin, end) = range.split_once('-')?;
    let is_code = permissions == "r-xp" && path.starts_with('/');
    is_code.then_some((usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
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

    #[test]
    fn mappings_of_code_are_told_from_others() {
        let code = "55e0b5a00000-55e0b5e00000 r-xp 00200000 fe:00 1311 /usr/bin/baton";
        assert_eq!(code_of_file(code), Some((0x55e0_b5a0_0000, 0x55e0_b5e0_0000)));
        for other in [
            "55e0b5e00000-55e0b5f00000 r--p 00600000 fe:00 1311 /usr/bin/baton",
            "7ffd1b5f2000-7ffd1b5f4000 r-xp 00000000 00:00 0 [vdso]",
            "7f0000000000-7f0000001000 rwxp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code_of_file(other), None, "{other}");
        }
    }

    #[test]
    fn code_of_the_beginning_is_given_up_and_comes_back_when_it_is_used() {
        let resident_kib = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut is_code = false;
            let sizes = smaps.lines().filter_map(|line| {
                if line.contains('-') && !line.contains(" kB") {
                    is_code = code_of_file(line).is_some();
                }
                let size = line.strip_prefix("Rss:").filter(|_| is_code)?;
                size.trim_end_matches(" kB").trim().parse::<u64>().ok()
            });
            sizes.sum::<u64>()
        };
        let before = resident_kib();
        // Other tests use code at the same time.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            shed_start();
            if resident_kib() < before {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{before} KiB and no less");
        }
        assert!(resident_kib() > 0);
    }
}
