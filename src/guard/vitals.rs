//! The guard's signs of life, in memory that it shares with its janitor: numbers that one writes and the other reads,
//! without a system call and without waiting.
//!
//! And a lifeline, a lock that a thread of the guard takes and never gives back. A process that is killed is gone for its
//! parent, and for a pidfd, only when the kernel has closed all that it had open, which takes tens of milliseconds: each
//! packet socket waits until no core can be using it any more. The lock is robust (pthread_mutexattr_setrobust(3)): the
//! kernel passes it on before it does any of that, as the first thing in the end of the thread that has it.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
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
/// Room for the lifeline, before the numbers.
const LOCK_BYTES: usize = 64;
const LEN_BYTES: usize = LOCK_BYTES + VIPS_MAX * NUMBERS_PER_VIP * size_of::<u64>();

const _: () = assert!(size_of::<libc::pthread_mutex_t>() <= LOCK_BYTES && LOCK_BYTES.is_multiple_of(size_of::<u64>()));

/// The shared memory.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    file: OwnedFd,
    start: NonNull<u8>,
}

// SAFETY: the mapping stays where it is until it is dropped, and all access to it is atomic or of a lock.
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
        let vitals = Self::map(file)?;
        vitals.make_lifeline()?;
        Ok(vitals)
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
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
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
        Some(unsafe { self.0.start.add(LOCK_BYTES).cast::<AtomicU64>().add(vip * NUMBERS_PER_VIP + number).as_ref() })
    }

    /// Ties the lifeline to the calling thread, until that ends.
    ///
    /// # Errors
    /// What pthread_mutex_lock(3) says.
    pub fn hold_lifeline(&self) -> io::Result<()> {
        // The C library keeps a list of the locks that this thread has: the memory must stay for as long as the thread.
        std::mem::forget(Arc::clone(&self.0));
        // SAFETY: the lock was made by `make_lifeline` and stays where it is.
        posix(unsafe { libc::pthread_mutex_lock(self.lock()) })
    }

    /// Waits until the thread that holds the lifeline has ended, in whatever process. To be called once in a process, when
    /// it is held.
    ///
    /// # Errors
    /// What pthread_mutex_lock(3) says; `NotConnected` when nobody held it.
    pub fn wait_for_end(&self) -> io::Result<()> {
        std::mem::forget(Arc::clone(&self.0));
        // SAFETY: as in `hold_lifeline`.
        match unsafe { libc::pthread_mutex_lock(self.lock()) } {
            libc::EOWNERDEAD => Ok(()),
            0 => Err(io::ErrorKind::NotConnected.into()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// In new memory, which nobody else knows of yet.
    fn make_lifeline(&self) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the pointer is to live memory of the right size, which this fills.
        posix(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: as said by the call before, these are attributes now.
        posix(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        posix(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: there is room for the lock at the start of the mapping, which is aligned as a page.
        posix(unsafe { libc::pthread_mutex_init(self.lock(), attributes) })
    }

    fn lock(&self) -> *mut libc::pthread_mutex_t {
        self.0.start.cast().as_ptr()
    }
}

/// What functions of pthreads(7) return.
fn posix(error: i32) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
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
    fn the_end_of_the_thread_that_holds_the_lifeline_is_noticed() {
        let guard = Vitals::new().unwrap();
        let janitor = Vitals::map(guard.file().try_clone_to_owned().unwrap()).unwrap();
        let (held, is_held) = std::sync::mpsc::channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let (noticed, is_noticed) = std::sync::mpsc::channel();
        let holder = std::thread::spawn(move || {
            held.send(guard.hold_lifeline().is_ok()).unwrap();
            // Ends when the other end is dropped.
            let _ended = may_end.recv();
        });
        assert!(is_held.recv().unwrap());
        let waiter = std::thread::spawn(move || noticed.send(janitor.wait_for_end().is_ok()).unwrap());
        assert!(is_noticed.try_recv().is_err());
        drop(end);
        assert!(is_noticed.recv().unwrap());
        holder.join().unwrap();
        waiter.join().unwrap();
    }

    #[test]
    fn a_lifeline_that_nobody_holds_is_no_end() {
        assert_eq!(Vitals::new().unwrap().wait_for_end().unwrap_err().kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let file = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(Vitals::map(file).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
