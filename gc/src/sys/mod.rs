//! The only place with system calls: userfaultfd, mappings, signals, scheduling.
//!
//! Everything above speaks in outcomes ([`Install`]) and `io::Result`, never in error numbers. The
//! kernel's page operations are behind [`PageService`], which [`uffd::Userfault`] implements on a
//! real descriptor, [`simulated::SimulatedPages`] without one, and [`forced::Forcing`] and
//! [`observed::Observed`] around either.
//!
//! Invariants: whatever a signal handler may call (the installing methods of `PageService`, the
//! futex calls of [`sched`]) allocates nothing, takes no lock and leaves `errno` as it was. Nothing
//! here reads or writes an object.

use std::io;

use crate::address::{FromAddress, ToAddress};

pub(crate) mod call_site;
#[doc(hidden)]
pub mod conformance;
pub mod forced;
#[doc(hidden)]
pub mod ioctls;
#[doc(hidden)]
pub mod jitter;
pub mod mapping;
pub mod observed;
pub mod probe;
pub mod sched;
#[doc(hidden)]
pub mod schedule;
pub(crate) mod side_table;
pub mod sigbus;
#[doc(hidden)]
pub mod simulated;
pub(crate) mod storm;
pub mod uffd;

/// How the kernel answered a request to install pages (COPY, MOVE, ZEROPAGE).
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Install {
    /// All of it was done.
    Done,
    /// The first `bytes` were done (never 0), then something stopped it. The true reason is the
    /// answer to a request for the rest.
    Partial {
        /// Bytes done, whole pages.
        bytes: usize,
    },
    /// Nothing was done because the mapping was changing. Try again after a moment.
    Again,
    /// The first page is already there: somebody else installed it. After a MOVE the source page
    /// is still the caller's.
    Exists,
    /// The destination is not (or no longer) registered, or not one mapping.
    Missing,
    /// MOVE only: the page is pinned or shared with another process (a fork), or seemed so for a
    /// moment. Try again, then COPY this one page.
    Busy,
    /// The request breaks a rule of the operation, or the source cannot be read: a bug, or a
    /// mapping this operation does not support.
    Invalid,
    /// The system has no memory for pages or page tables.
    NoMemory,
    /// The address space is going away with its process.
    Gone,
}

/// The kernel's operations on registered ranges of the heap.
///
/// Ranges are whole pages. `copy`, `zero`, `move_pages` and `wake` are called in signal handlers,
/// so they allocate nothing, take no lock, and leave `errno` as it was.
pub trait PageService: Send + Sync + std::fmt::Debug {
    /// From now on, a missing page of the range is a fault that this service reports.
    ///
    /// # Errors
    /// The range is not mapped as anonymous memory, or belongs to another service.
    fn register(&self, start: ToAddress, bytes: usize) -> io::Result<()>;

    /// As [`Self::register`], while the caller can still do without: before a flip.
    ///
    /// # Errors
    /// As [`Self::register`], or the system refuses memory.
    fn try_register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.register(start, bytes)
    }

    /// Ends the registration. Threads that wait for a page of the range are woken and get zeros.
    ///
    /// # Errors
    /// The range is not mapped as anonymous memory.
    fn unregister(&self, start: ToAddress, bytes: usize) -> io::Result<()>;

    /// Installs copies of the pages at `from`, and wakes who waits for them.
    fn copy(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install;

    /// Installs pages of zeros, and wakes who waits for them.
    fn zero(&self, to: ToAddress, bytes: usize) -> Install;

    /// Installs the pages at `from` themselves, and wakes who waits for them. `from` is empty
    /// afterwards. Pages missing at `from` stay missing at `to`, and count as done.
    fn move_pages(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install;

    /// Wakes the threads that wait for a page of the range; they look again.
    fn wake(&self, start: ToAddress, bytes: usize);

    /// In a simulation: which thread goes on. `None`: the system decides.
    #[doc(hidden)]
    fn schedule(&self) -> Option<&dyn schedule::Schedule> {
        None
    }
}

/// Restores `errno` when dropped: a signal handler must not change what the interrupted code sees.
#[derive(Debug)]
struct ErrnoGuard(i32);

impl ErrnoGuard {
    fn new() -> Self {
        Self(errno())
    }
}

impl Drop for ErrnoGuard {
    fn drop(&mut self) {
        // SAFETY: the function returns this thread's own errno, which is always writable.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

/// This thread's `errno`.
fn errno() -> i32 {
    // SAFETY: the function returns this thread's own errno, which is always readable.
    unsafe { *libc::__errno_location() }
}

/// The result of a call that answers 0, or -1 and an error number.
fn check(answer: i32) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the place of `value` brought into the cache. It need not be mapped.
#[inline]
pub fn prefetch<T>(value: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the cache, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(value.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Ends the process with a line on standard error. Safe in a signal handler: a broken invariant found
/// while serving a fault is reported without allocating or locking.
#[cold]
pub fn die(message: std::fmt::Arguments<'_>) -> ! {
    struct Line {
        bytes: [u8; 512],
        length: usize,
    }
    impl std::fmt::Write for Line {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let room = self.bytes.len() - 1 - self.length;
            let take = text.len().min(room);
            self.bytes[self.length..self.length + take].copy_from_slice(&text.as_bytes()[..take]);
            self.length += take;
            Ok(())
        }
    }
    let mut line = Line { bytes: [0; 512], length: 0 };
    let _ = std::fmt::Write::write_fmt(&mut line, message);
    line.bytes[line.length] = b'\n';
    // SAFETY: the buffer is as long as is said; a failed write changes nothing about what follows.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length + 1) };
    std::process::abort()
}
