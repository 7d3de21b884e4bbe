//! Rules about whose the pages are: shared, protected, locked, pinned, of a fork, of the pool of huge pages.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use userfaultfd_sys as raw;

use super::NotTried;
use super::ground::{Ground, Memory, PAGES, said};
use crate::geometry::{PAGE_BYTES, REGION_BYTES};

type Seen = Result<String, NotTried>;

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

pub(super) fn move_shared() -> Seen {
    let g = Ground::for_move()?;
    let shared = Memory::mapped(PAGES * PAGE_BYTES, READ_WRITE, libc::MAP_SHARED)?;
    shared.fill(0..PAGES);
    Ok(said(g.move_by(&g.fd, g.to.page(0), shared.page(0), PAGE_BYTES, 0)))
}

pub(super) fn move_read_only() -> Seen {
    let g = Ground::for_move()?;
    g.from.protect(0, PAGES, libc::PROT_READ)?;
    Ok(said(g.move_pages(0, 0, 1)))
}

pub(super) fn copy_unreadable() -> Seen {
    let g = Ground::new()?;
    g.from.protect(0, PAGES, libc::PROT_NONE)?;
    Ok(said(g.copy(0, 0, 1)))
}

pub(super) fn copy_to_read_only() -> Seen {
    let g = Ground::new()?;
    g.to.protect(0, PAGES, libc::PROT_READ)?;
    let answer = g.copy(0, 0, 1);
    let copied = answer.is_done() && g.to.word(0).load(Ordering::Relaxed) == 1;
    Ok(if copied { "done".to_owned() } else { said(answer) })
}

pub(super) fn move_locked() -> Seen {
    let g = Ground::for_move()?;
    g.from.lock()?;
    Ok(said(g.move_pages(0, 0, 1)))
}

/// Forks; the child ends at once.
fn fork_and_wait() -> Result<(), NotTried> {
    // SAFETY: the child only exits, by a call that is async-signal-safe.
    let child = unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            child => child,
        }
    };
    // SAFETY: waits for the child; no status is asked for.
    if child < 0 || unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } != child {
        return Err(NotTried::because("fork", io::Error::last_os_error()));
    }
    Ok(())
}

pub(super) fn move_forked() -> Seen {
    let g = Ground::for_move()?;
    fork_and_wait()?;
    let shared = said(g.move_pages(0, 0, 1));
    g.from.fill(0..1);
    Ok(format!("{shared}, {} once it is written to", said(g.move_pages(0, 0, 1))))
}

pub(super) fn copy_forked() -> Seen {
    let g = Ground::new()?;
    fork_and_wait()?;
    Ok(said(g.copy(0, 0, 1)))
}

/// An io_uring with one page of memory registered as its buffer, which pins it.
struct Pin(OwnedFd);

impl Pin {
    fn new(memory: &Memory) -> Result<Self, NotTried> {
        // Zeros are valid parameters; the kernel writes offsets that are of no interest here (120 bytes).
        let mut parameters = [0_u64; 32];
        // SAFETY: the kernel reads and writes 120 bytes of the 256.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
        let ring = i32::try_from(ring).unwrap_or(-1);
        if ring < 0 {
            return Err(NotTried::because("io_uring", io::Error::last_os_error()));
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
        let pin = Self(unsafe { OwnedFd::from_raw_fd(ring) });
        let start = std::ptr::with_exposed_provenance_mut(memory.page(0));
        let buffer = libc::iovec { iov_base: start, iov_len: PAGE_BYTES };
        pin.register(IORING_REGISTER_BUFFERS, &raw const buffer, 1)?;
        Ok(pin)
    }

    fn register(&self, what: i32, argument: *const libc::iovec, count: i32) -> Result<(), NotTried> {
        let ring = self.0.as_raw_fd();
        // SAFETY: the argument is as many buffers as are said, alive during the call.
        let answer = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, what, argument, count) };
        if answer == 0 {
            Ok(())
        } else {
            Err(NotTried::because("io_uring buffer", io::Error::last_os_error()))
        }
    }

    fn end(self) -> Result<(), NotTried> {
        self.register(IORING_UNREGISTER_BUFFERS, std::ptr::null(), 0)
    }
}

const IORING_REGISTER_BUFFERS: i32 = 0;
const IORING_UNREGISTER_BUFFERS: i32 = 1;

pub(super) fn move_pinned() -> Seen {
    let g = Ground::for_move()?;
    let pin = Pin::new(&g.from)?;
    let pinned = said(g.move_pages(0, 0, 1));
    pin.end()?;
    Ok(format!("{pinned}, {} once it is not", said(g.move_pages(0, 0, 1))))
}

/// Huge pages from the pool. None is ever touched, so the pool may be empty.
fn hugetlb() -> Result<Memory, NotTried> {
    Memory::mapped(REGION_BYTES, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_HUGETLB)
}

pub(super) fn move_hugetlb() -> Seen {
    let g = Ground::for_move()?;
    let memory = hugetlb()?;
    Ok(said(g.move_by(&g.fd, g.to.page(0), memory.page(0), PAGE_BYTES, 0)))
}

/// A descriptor that serves missing huge pages, registered with one.
fn hugetlb_registered() -> Result<(Ground, Memory), NotTried> {
    let (g, memory) = (Ground::with_features(raw::UFFD_FEATURE_MISSING_HUGETLBFS)?, hugetlb()?);
    g.register(&memory)?;
    Ok((g, memory))
}

pub(super) fn copy_hugetlb() -> Seen {
    let (g, memory) = hugetlb_registered()?;
    Ok(said(g.fd.copy(memory.page(0), g.from.page(0), PAGE_BYTES, 0)))
}

pub(super) fn zero_hugetlb() -> Seen {
    let (g, memory) = hugetlb_registered()?;
    Ok(said(g.fd.zeropage(memory.page(0), REGION_BYTES)))
}
