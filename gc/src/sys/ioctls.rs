//! The ioctls of a userfaultfd as the kernel has them: a request in, an error number and a byte count out.
//!
//! [`super::uffd`] makes outcomes of them. [`RawUserfault`] has them as they are, for those who examine the kernel
//! itself: the conformance table, and experiments.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use userfaultfd_sys as raw;

use super::uffd::Door;

nix::ioctl_readwrite!(
    /// Agrees on the interface.
    ioctl_api,
    raw::UFFDIO,
    raw::_UFFDIO_API,
    raw::uffdio_api
);
nix::ioctl_readwrite!(
    /// Registers a range.
    ioctl_register,
    raw::UFFDIO,
    raw::_UFFDIO_REGISTER,
    raw::uffdio_register
);
nix::ioctl_read!(
    /// Ends a registration.
    ioctl_unregister,
    raw::UFFDIO,
    raw::_UFFDIO_UNREGISTER,
    raw::uffdio_range
);
nix::ioctl_readwrite!(
    /// Installs copies of pages.
    ioctl_copy,
    raw::UFFDIO,
    raw::_UFFDIO_COPY,
    raw::uffdio_copy
);
nix::ioctl_readwrite!(
    /// Installs zero pages.
    ioctl_zeropage,
    raw::UFFDIO,
    raw::_UFFDIO_ZEROPAGE,
    raw::uffdio_zeropage
);
nix::ioctl_readwrite!(
    /// Installs pages by moving them.
    ioctl_move,
    raw::UFFDIO,
    raw::_UFFDIO_MOVE,
    raw::uffdio_move
);
nix::ioctl_read!(
    /// Wakes waiting threads.
    ioctl_wake,
    raw::UFFDIO,
    raw::_UFFDIO_WAKE,
    raw::uffdio_range
);
nix::ioctl_readwrite!(
    /// Changes write protection.
    ioctl_writeprotect,
    raw::UFFDIO,
    raw::_UFFDIO_WRITEPROTECT,
    raw::uffdio_writeprotect
);

/// The kernel's answer to a request.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Error number; 0 if all was done.
    pub errno: i32,
    /// What the kernel says about how far it came: bytes, or a negative error number; 0 where it says nothing.
    pub count: i64,
}

impl Answer {
    fn new(result: nix::Result<i32>, count: i64) -> Self {
        Self { errno: result.map_or_else(|errno| errno as i32, |_| 0), count }
    }

    /// Whether all of it was done.
    #[must_use]
    pub const fn is_done(self) -> bool {
        self.errno == 0
    }
}

/// A userfaultfd for faults taken in user mode, with the requests as they are. Ranges are given by address and
/// bytes; the kernel checks them.
#[derive(Debug)]
pub struct RawUserfault {
    descriptor: OwnedFd,
    features: u64,
}

impl RawUserfault {
    /// Opens one, through the first door that opens, and asks for `features` (`UFFD_FEATURE_*`).
    ///
    /// # Errors
    /// The last door's reason, or that the kernel does not offer the features.
    pub fn open(features: u64) -> io::Result<Self> {
        Self::open_through(&Door::ALL, features)
    }

    /// As [`Self::open`], through these doors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_through(doors: &[Door], features: u64) -> io::Result<Self> {
        let mut descriptor = Err(io::Error::from(io::ErrorKind::NotFound));
        for door in doors {
            descriptor = door.open();
            if descriptor.is_ok() {
                break;
            }
        }
        let descriptor = descriptor?;
        let mut api = raw::uffdio_api { api: raw::UFFD_API, features, ioctls: 0 };
        // SAFETY: `api` is the structure that this request reads and writes.
        unsafe { ioctl_api(descriptor.as_raw_fd(), &raw mut api) }?;
        Ok(Self { descriptor, features: api.features })
    }

    /// A userfaultfd that was received in an event.
    #[must_use]
    pub const fn from_event(descriptor: OwnedFd) -> Self {
        Self { descriptor, features: 0 }
    }

    /// The features that the kernel offers.
    #[must_use]
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// The descriptor, to poll it and to read events.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.descriptor)
    }

    fn fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// `UFFDIO_REGISTER` with `UFFDIO_REGISTER_MODE_*`.
    pub fn register(&self, start: usize, bytes: usize, mode: u64) -> Answer {
        let mut argument = raw::uffdio_register { range: range(start, bytes), mode, ioctls: 0 };
        // SAFETY: `argument` is the structure that this request reads and writes. A registered page is missed by
        // its first user, whom this descriptor's owner promises to serve.
        let result = unsafe { ioctl_register(self.fd(), &raw mut argument) };
        Answer::new(result, 0)
    }

    /// `UFFDIO_UNREGISTER`.
    pub fn unregister(&self, start: usize, bytes: usize) -> Answer {
        let mut argument = range(start, bytes);
        // SAFETY: `argument` is the structure that this request reads.
        Answer::new(unsafe { ioctl_unregister(self.fd(), &raw mut argument) }, 0)
    }

    /// `UFFDIO_COPY` with `UFFDIO_COPY_MODE_*`.
    pub fn copy(&self, to: usize, from: usize, bytes: usize, mode: u64) -> Answer {
        let mut argument =
            raw::uffdio_copy { dst: to as u64, src: from as u64, len: bytes as u64, mode, copy: 0 };
        // SAFETY: `argument` is the structure that this request reads and writes. Pages are installed only where
        // there are none, in ranges that are registered.
        let result = unsafe { ioctl_copy(self.fd(), &raw mut argument) };
        Answer::new(result, argument.copy)
    }

    /// `UFFDIO_ZEROPAGE`.
    pub fn zeropage(&self, start: usize, bytes: usize) -> Answer {
        let mut argument = raw::uffdio_zeropage { range: range(start, bytes), mode: 0, zeropage: 0 };
        // SAFETY: as in `copy`.
        let result = unsafe { ioctl_zeropage(self.fd(), &raw mut argument) };
        Answer::new(result, argument.zeropage)
    }

    /// `UFFDIO_MOVE` with `UFFDIO_MOVE_MODE_*`.
    ///
    /// # Safety
    /// Nobody holds a reference to what is in the source's pages, which are empty afterwards.
    pub unsafe fn move_pages(&self, to: usize, from: usize, bytes: usize, mode: u64) -> Answer {
        let mut argument =
            raw::uffdio_move { dst: to as u64, src: from as u64, len: bytes as u64, mode, move_: 0 };
        // SAFETY: `argument` is the structure that this request reads and writes; the caller answers for the source.
        let result = unsafe { ioctl_move(self.fd(), &raw mut argument) };
        Answer::new(result, argument.move_)
    }

    /// `UFFDIO_WRITEPROTECT` with `UFFDIO_WRITEPROTECT_MODE_*`.
    pub fn write_protect(&self, start: usize, bytes: usize, mode: u64) -> Answer {
        let mut argument = raw::uffdio_writeprotect { range: range(start, bytes), mode };
        // SAFETY: `argument` is the structure that this request reads. A protected page is missed by its first
        // writer, whom this descriptor's owner promises to serve.
        let result = unsafe { ioctl_writeprotect(self.fd(), &raw mut argument) };
        Answer::new(result, 0)
    }

    /// `UFFDIO_WAKE`.
    pub fn wake(&self, start: usize, bytes: usize) -> Answer {
        let mut argument = range(start, bytes);
        // SAFETY: `argument` is the structure that this request reads.
        Answer::new(unsafe { ioctl_wake(self.fd(), &raw mut argument) }, 0)
    }
}

const fn range(start: usize, bytes: usize) -> raw::uffdio_range {
    raw::uffdio_range { start: start as u64, len: bytes as u64 }
}
