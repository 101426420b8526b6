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

/// Gives up what only the beginning needed: what it has freed, and the pages of programs and libraries that nobody writes to,
/// code and constants, locked ones among them. What is used comes back from the kernel's cache of the file as it is used,
/// 64 KiB for a microsecond or so, and is locked again where the memory is; what reads a configuration, links the program or
/// takes a library's first steps does not. For a process that has started.
///
/// Before Linux 5.18 such pages stay where they are.
pub fn shed_start() {
    give_back();
    // SAFETY: the callback is as dl_iterate_phdr(3) wants it, needs no data and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(shed_object), std::ptr::null_mut()) };
}

/// Gives up the segments of one program or library that are mapped without the right to write. What the loader changed once
/// and write-protected then belongs to a segment that may be written to, and stays.
unsafe extern "C" fn shed_object(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: it is valid for the time of this call, and so are the headers that it counts.
    let (base, segments) = unsafe {
        let object = &*object;
        (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    let page = rustix::param::page_size();
    for segment in
        segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_W == 0)
    {
        let begin = base.wrapping_add(segment.p_vaddr as usize);
        // Whole pages alone: the last one may be the next segment's as well.
        let end = begin.wrapping_add(segment.p_memsz as usize) / page * page;
        let begin = begin / page * page;
        // SAFETY: nobody writes to these pages of a file, so that what is read again is what was there; the file itself
        // cannot be written to while it runs.
        let _stays = unsafe { madvise(begin as *mut _, end.saturating_sub(begin), Advice::LinuxDontneedLocked) };
    }
    0
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

    /// Of the mapping that an address is in.
    fn resident_kib(address: usize) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines().skip_while(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.map(|(begin, end)| (usize::from_str_radix(begin, 16), usize::from_str_radix(end, 16)));
            !matches!(ends, Some((Ok(begin), Ok(end))) if (begin..end).contains(&address))
        });
        let size = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        size.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn code_and_constants_of_the_beginning_are_given_up_and_come_back_when_they_are_used() {
        /// Far more than other tests use between giving up and looking.
        static CONSTANTS: [u8; 4 << 20] = [7; 4 << 20];
        let sum = || CONSTANTS.iter().step_by(4096).map(|byte| u64::from(*std::hint::black_box(byte))).sum::<u64>();
        let constants_kib = || resident_kib(CONSTANTS.as_ptr() as usize);
        let code_kib = || resident_kib(shed_start as fn() as usize);
        assert_eq!(sum(), 7 * 1024);
        let (constants, code) = (constants_kib(), code_kib());
        assert!(constants >= 4096, "{constants} KiB");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            shed_start();
            if code_kib() < code && constants_kib() + 3072 < constants {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{constants} and {code} KiB, and no less");
        }
        assert_eq!(sum(), 7 * 1024);
        assert!(code_kib() > 0);
    }
}
