//! The guard's signs of life, in memory that it shares with its janitor: numbers that one writes and the other reads,
//! without a system call and without waiting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// VIPs that there is room for, as many as a configuration may have.
const VIPS_MAX: usize = 64;
/// Links that there is room for: the nodes' addresses and four further ones.
const LINKS_MAX: usize = 5;
/// Numbers for each VIP: whether it is held, when its task last ran, its sequence, and one for each link.
const NUMBERS_PER_VIP: usize = 3 + LINKS_MAX;
const LEN_BYTES: usize = VIPS_MAX * NUMBERS_PER_VIP * size_of::<u64>();

/// The shared memory.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    file: OwnedFd,
    start: NonNull<AtomicU64>,
}

// SAFETY: the mapping stays where it is until it is dropped, and all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Vitals {
    /// New memory, all zero.
    ///
    /// # Errors
    /// What memfd_create(2), ftruncate(2) or mmap(2) says.
    pub fn new() -> io::Result<Self> {
        let file = memfd_create("baton-vitals", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, LEN_BYTES as u64)?;
        Self::map(file)
    }

    /// The other end's.
    ///
    /// # Errors
    /// What mmap(2) says; `InvalidInput` for a file that is too short, access to which would end the process.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        if file.metadata()?.len() < LEN_BYTES as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe { mmap(std::ptr::null_mut(), LEN_BYTES, protection, MapFlags::SHARED, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(Arc::new(Mapping { file: file.into(), start })))
    }

    /// The file behind it, to hand over.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }

    /// Says whether a VIP is held, before it is taken and after it is gone.
    pub fn set_held(&self, vip: usize, is_held: bool) {
        self.store(vip, 0, u64::from(is_held));
    }

    /// Whether a VIP is held, or about to be.
    pub fn is_held(&self, vip: usize) -> bool {
        self.load(vip, 0) != 0
    }

    /// Says that a VIP's task runs, in milliseconds since the system started.
    pub fn ran_at(&self, vip: usize, since_boot_ms: u64) {
        self.store(vip, 1, since_boot_ms);
    }

    /// When a VIP's task last ran; 0 before the first time.
    pub fn last_ran_at(&self, vip: usize) -> u64 {
        self.load(vip, 1)
    }

    /// Says what the last signed advert of a VIP said.
    pub fn set_sequence(&self, vip: usize, sequence: u64) {
        self.store(vip, 2, sequence);
    }

    /// What the last signed advert of a VIP said.
    pub fn sequence(&self, vip: usize) -> u64 {
        self.load(vip, 2)
    }

    /// Says how many hellos of a VIP went over a link.
    pub fn set_hellos(&self, vip: usize, link: usize, count: u64) {
        self.store(vip, 3 + link, count);
    }

    /// How many hellos of a VIP went over a link.
    pub fn hellos(&self, vip: usize, link: usize) -> u64 {
        self.load(vip, 3 + link)
    }

    fn store(&self, vip: usize, number: usize, value: u64) {
        if let Some(place) = self.place(vip, number) {
            place.store(value, Ordering::SeqCst);
        }
    }

    fn load(&self, vip: usize, number: usize) -> u64 {
        self.place(vip, number).map_or(0, |place| place.load(Ordering::SeqCst))
    }

    fn place(&self, vip: usize, number: usize) -> Option<&AtomicU64> {
        if vip >= VIPS_MAX || number >= NUMBERS_PER_VIP {
            return None;
        }
        // SAFETY: the place is within the mapping, aligned as its start is a page, and lives as long as `self`.
        Some(unsafe { self.0.start.add(vip * NUMBERS_PER_VIP + number).as_ref() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more; a mapping that could not be removed would only take up room.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), LEN_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_writes_the_other_reads() {
        let guard = Vitals::new().unwrap();
        let janitor = Vitals::map(guard.file().try_clone_to_owned().unwrap()).unwrap();
        guard.set_held(63, true);
        guard.ran_at(63, 5);
        guard.set_sequence(0, 7);
        guard.set_hellos(63, 4, 9);
        assert!(janitor.is_held(63) && !janitor.is_held(0));
        assert_eq!((janitor.last_ran_at(63), janitor.sequence(0)), (5, 7));
        assert_eq!((janitor.hellos(63, 4), janitor.hellos(0, 0)), (9, 0));
    }

    #[test]
    fn a_place_outside_is_nothing() {
        let vitals = Vitals::new().unwrap();
        vitals.set_held(64, true);
        vitals.set_hellos(0, 5, 1);
        assert!(!vitals.is_held(64));
        assert!(!vitals.is_held(1));
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let file = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(Vitals::map(file).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
