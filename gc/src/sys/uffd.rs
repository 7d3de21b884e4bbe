//! [`PageService`] on a real userfaultfd, and the reader of its fault events.
//!
//! Opened when a heap is created; registering happens in a cycle's plan and flip, installing in
//! workers and in mutators' signal handlers, reading on the reader thread of the pool delivery.
//!
//! The descriptor, registration and events go through the `userfaultfd` crate. COPY, ZEROPAGE and
//! MOVE do not: the crate has no MOVE, and its errors lose the byte counts of the others.
//!
//! Invariant: only faults taken in user mode arrive here, unless [`Userfault::open_full`] was asked for.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use userfaultfd::{Event, EventBuffer, Uffd};
use userfaultfd_sys as raw;

use super::ioctls::{ioctl_api, ioctl_copy, ioctl_move, ioctl_wake, ioctl_zeropage};
use super::{ErrnoGuard, Install, PageService};
use crate::address::{FromAddress, ToAddress};
use crate::options::Delivery;
use crate::stats::{KernelAnswer, KernelCall, Statistics};

/// A way to get a userfaultfd.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Door {
    /// `userfaultfd(UFFD_USER_MODE_ONLY)`: needs no privilege (Linux 5.11).
    #[serde(rename = "user-mode-only")]
    UserModeOnly,
    /// `userfaultfd(0)`: needs `CAP_SYS_PTRACE` or `vm.unprivileged_userfaultfd`.
    #[serde(rename = "syscall")]
    Syscall,
    /// `/dev/userfaultfd`: needs access to the device (Linux 6.1).
    #[serde(rename = "device")]
    Device,
}

impl Door {
    /// All doors, in the order they are tried.
    pub const ALL: [Self; 3] = [Self::UserModeOnly, Self::Syscall, Self::Device];

    /// Tries the door.
    ///
    /// # Errors
    /// The system's reason for refusing.
    pub fn open(self) -> io::Result<OwnedFd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let descriptor = match self {
            Self::UserModeOnly => userfaultfd_call(flags | raw::UFFD_USER_MODE_ONLY as i32),
            Self::Syscall => userfaultfd_call(flags),
            Self::Device => {
                let device = OpenOptions::new().read(true).write(true).open("/dev/userfaultfd")?;
                // SAFETY: this request takes flags by value and touches no memory of ours.
                unsafe { libc::ioctl(device.as_raw_fd(), raw::USERFAULTFD_IOC_NEW.into(), flags) }
            }
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::UserModeOnly => "userfaultfd(USER_MODE_ONLY)",
            Self::Syscall => "userfaultfd()",
            Self::Device => "/dev/userfaultfd",
        })
    }
}

fn userfaultfd_call(flags: i32) -> i32 {
    // SAFETY: the system call takes flags by value and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_userfaultfd, flags) as i32 }
}

/// A door that did not open, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refusal {
    /// The door.
    pub door: Door,
    /// The system's reason.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.door, self.reason)
    }
}

/// Why there is no userfaultfd to be had.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No door opened.
    #[error("userfaultfd is denied ({})", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Denied(Vec<Refusal>),
    /// The kernel does not offer what the delivery needs.
    #[error("userfaultfd does not offer {feature}: {source}")]
    Feature {
        /// Name of what is needed.
        feature: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A userfaultfd.
#[derive(Debug)]
pub struct Userfault {
    uffd: Uffd,
    door: Door,
    refusals: Vec<Refusal>,
    features: u64,
    delivery: Delivery,
    statistics: Option<Arc<Statistics>>,
}

impl Userfault {
    /// Opens a userfaultfd for faults taken in user mode.
    ///
    /// # Errors
    /// [`ProbeError`] says which doors were tried, or what the kernel lacks.
    pub fn open(delivery: Delivery) -> Result<Self, ProbeError> {
        Self::open_through(&Door::ALL, delivery)
    }

    /// Opens a userfaultfd that also serves faults taken in system calls, which otherwise answer
    /// `EFAULT`. Needs a privilege, and [`Delivery::Pool`] to be of use: a fault in the kernel is
    /// never delivered as a signal.
    ///
    /// # Errors
    /// [`ProbeError`] says which doors were tried, or what the kernel lacks.
    pub fn open_full(delivery: Delivery) -> Result<Self, ProbeError> {
        Self::open_through(&[Door::Syscall, Door::Device], delivery)
    }

    fn open_through(doors: &[Door], delivery: Delivery) -> Result<Self, ProbeError> {
        let mut refusals = vec![];
        for &door in doors {
            match door.open() {
                Ok(descriptor) => {
                    let features = agree(&descriptor, delivery)?;
                    // SAFETY: ownership of the descriptor passes from `OwnedFd` to `Uffd`.
                    let uffd = unsafe { Uffd::from_raw_fd(descriptor.into_raw_fd()) };
                    return Ok(Self { uffd, door, refusals, features, delivery, statistics: None });
                }
                Err(error) => refusals.push(Refusal { door, reason: error.to_string() }),
            }
        }
        Err(ProbeError::Denied(refusals))
    }

    /// The same, counting each call in `statistics`.
    #[must_use]
    pub fn with_counts(mut self, statistics: Arc<Statistics>) -> Self {
        self.statistics = Some(statistics);
        self
    }

    /// The door that opened.
    #[must_use]
    pub const fn door(&self) -> Door {
        self.door
    }

    /// The doors that were tried before, and why they did not open.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// The features that the kernel offers (`UFFD_FEATURE_*`).
    #[must_use]
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// Whether the kernel says that it offers MOVE. [`super::probe`] tries it.
    #[must_use]
    pub const fn offers_move(&self) -> bool {
        self.features & raw::UFFD_FEATURE_MOVE != 0
    }

    /// How faults are delivered.
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        self.delivery
    }

    #[inline]
    fn count(&self, call: KernelCall, answer: KernelAnswer) {
        if let Some(statistics) = &self.statistics {
            statistics.calls.count(call, answer);
        }
    }

    fn counted(&self, call: KernelCall, result: userfaultfd::Result<()>) -> io::Result<()> {
        let result = result.map_err(|error| match error {
            userfaultfd::Error::SystemError(errno) => io::Error::from(errno),
            other => io::Error::other(other),
        });
        let answer = match &result {
            Ok(()) => KernelAnswer::Done,
            Err(error) => answer_of(install_of(error.raw_os_error().unwrap_or(0), 0)),
        };
        self.count(call, answer);
        result
    }

    /// Runs one installing ioctl; `count` of its argument is what the kernel says it did.
    #[inline]
    fn install<A>(
        &self,
        call: KernelCall,
        mut argument: A,
        ioctl: unsafe fn(i32, *mut A) -> nix::Result<i32>,
        count: fn(&A) -> i64,
    ) -> Install {
        let _errno = ErrnoGuard::new();
        // SAFETY: `argument` is the structure that this request reads and writes. The addresses in
        // it are checked by the kernel: a destination has to be registered with this descriptor,
        // and a page is installed only where there is none.
        let answer = match unsafe { ioctl(self.uffd.as_raw_fd(), &raw mut argument) } {
            Ok(_) => Install::Done,
            Err(errno) => install_of(errno as i32, count(&argument)),
        };
        self.count(call, answer_of(answer));
        answer
    }
}

/// Agrees with the kernel on the interface, and returns the features it offers.
fn agree(descriptor: &OwnedFd, delivery: Delivery) -> Result<u64, ProbeError> {
    let (features, feature) = match delivery {
        Delivery::InPlace => (raw::UFFD_FEATURE_SIGBUS, "faults as SIGBUS (UFFD_FEATURE_SIGBUS)"),
        Delivery::Pool => (0, "its interface (UFFDIO_API)"),
    };
    let mut api = raw::uffdio_api { api: raw::UFFD_API, features, ioctls: 0 };
    // SAFETY: `api` is the structure that this request reads and writes.
    match unsafe { ioctl_api(descriptor.as_raw_fd(), &raw mut api) } {
        Ok(_) => Ok(api.features),
        Err(errno) => Err(ProbeError::Feature { feature, source: errno.into() }),
    }
}

/// The outcome of an ioctl that failed with `errno` after `count` bytes.
const fn install_of(errno: i32, count: i64) -> Install {
    match errno {
        libc::EAGAIN if count > 0 => Install::Partial { bytes: count as usize },
        // EINTR: a fatal signal is pending, and takes effect before the caller can try again.
        libc::EAGAIN | libc::EINTR => Install::Again,
        libc::EEXIST => Install::Exists,
        libc::ENOENT => Install::Missing,
        libc::EBUSY => Install::Busy,
        libc::ENOMEM => Install::NoMemory,
        libc::ESRCH => Install::Gone,
        _ => Install::Invalid,
    }
}

const fn answer_of(install: Install) -> KernelAnswer {
    match install {
        Install::Done => KernelAnswer::Done,
        Install::Partial { .. } => KernelAnswer::Partial,
        Install::Again => KernelAnswer::Again,
        Install::Exists => KernelAnswer::Exists,
        Install::Missing => KernelAnswer::Missing,
        Install::Busy => KernelAnswer::Busy,
        Install::Invalid => KernelAnswer::Invalid,
        Install::NoMemory => KernelAnswer::NoMemory,
        Install::Gone => KernelAnswer::Other,
    }
}

const fn range_of(start: ToAddress, bytes: usize) -> raw::uffdio_range {
    raw::uffdio_range { start: start.get() as u64, len: bytes as u64 }
}

impl PageService for Userfault {
    fn register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        let result = self.uffd.register(start.as_ptr(), bytes).map(drop);
        self.counted(KernelCall::Register, result)
    }

    fn unregister(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        let result = self.uffd.unregister(start.as_ptr(), bytes);
        self.counted(KernelCall::Unregister, result)
    }

    fn copy(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        let (dst, src, len) = (to.get() as u64, from.get() as u64, bytes as u64);
        let argument = raw::uffdio_copy { dst, src, len, mode: 0, copy: 0 };
        self.install(KernelCall::Copy, argument, ioctl_copy, |argument| argument.copy)
    }

    fn zero(&self, to: ToAddress, bytes: usize) -> Install {
        let argument = raw::uffdio_zeropage { range: range_of(to, bytes), mode: 0, zeropage: 0 };
        self.install(KernelCall::Zeropage, argument, ioctl_zeropage, |argument| argument.zeropage)
    }

    fn move_pages(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        let (dst, src, len) = (to.get() as u64, from.get() as u64, bytes as u64);
        let mode = raw::UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES;
        let argument = raw::uffdio_move { dst, src, len, mode, move_: 0 };
        self.install(KernelCall::Move, argument, ioctl_move, |argument| argument.move_)
    }

    fn wake(&self, start: ToAddress, bytes: usize) {
        let _errno = ErrnoGuard::new();
        let mut range = range_of(start, bytes);
        // SAFETY: `range` is the structure that this request reads.
        let answer = match unsafe { ioctl_wake(self.uffd.as_raw_fd(), &raw mut range) } {
            Ok(_) => KernelAnswer::Done,
            Err(errno) => answer_of(install_of(errno as i32, 0)),
        };
        self.count(KernelCall::Wake, answer);
    }
}

/// What a wait for faults ended with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Waited {
    /// The batch holds faults.
    Faults,
    /// Nothing came in the time given.
    TimedOut,
    /// [`FaultReader::stop`] was called.
    Stopped,
}

/// Most faults in a batch.
const BATCH: usize = 64;

/// A batch of faults, and the memory to read them into.
pub struct FaultBatch {
    events: EventBuffer,
    addresses: Vec<ToAddress>,
}

impl FaultBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self { events: EventBuffer::new(BATCH), addresses: Vec::with_capacity(BATCH) }
    }

    /// Where the faults are, rounded down to a page.
    #[must_use]
    pub fn addresses(&self) -> &[ToAddress] {
        &self.addresses
    }
}

impl Default for FaultBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FaultBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultBatch").field(&self.addresses).finish()
    }
}

/// Reads fault events ([`Delivery::Pool`]). One thread waits; any thread may stop it.
#[derive(Debug)]
pub struct FaultReader {
    userfault: Arc<Userfault>,
    stop: OwnedFd,
    stopped: AtomicBool,
}

impl FaultReader {
    /// A reader of the events of `userfault`.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn new(userfault: Arc<Userfault>) -> io::Result<Self> {
        // SAFETY: the call takes flags by value and touches no memory of ours.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
        let stop = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { userfault, stop, stopped: AtomicBool::new(false) })
    }

    /// Waits until there are faults, and reads them into `batch`.
    ///
    /// # Errors
    /// The descriptor cannot be read any more.
    pub fn wait(&self, batch: &mut FaultBatch) -> io::Result<Waited> {
        self.wait_at_most(batch, None)
    }

    /// The same, for `limit` at most (rounded up to milliseconds).
    ///
    /// # Errors
    /// The descriptor cannot be read any more.
    pub fn wait_at_most(&self, batch: &mut FaultBatch, limit: Option<Duration>) -> io::Result<Waited> {
        let limit =
            limit.map_or(-1, |limit| i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        batch.addresses.clear();
        loop {
            // Pairs with the Release in `stop`.
            if self.stopped.load(Ordering::Acquire) {
                return Ok(Waited::Stopped);
            }
            let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut polled = [poll(self.userfault.uffd.as_raw_fd()), poll(self.stop.as_raw_fd())];
            // SAFETY: `polled` is an array of the length given.
            let answer = unsafe { libc::poll(polled.as_mut_ptr(), 2, limit) };
            match answer {
                0 => return Ok(Waited::TimedOut),
                1.. if polled[0].revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => {
                    return Err(io::Error::other("the userfaultfd cannot be polled"));
                }
                1.. => {
                    if self.read(batch)? {
                        return Ok(Waited::Faults);
                    }
                }
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Reads what is there. Whether there was a fault: one that was woken meanwhile is gone.
    fn read(&self, batch: &mut FaultBatch) -> io::Result<bool> {
        let events = match self.userfault.uffd.read_events(&mut batch.events) {
            Ok(events) => events,
            Err(userfaultfd::Error::SystemError(errno)) => {
                let error = io::Error::from(errno);
                let interrupted = error.kind() == io::ErrorKind::Interrupted;
                return if interrupted { Ok(false) } else { Err(error) };
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        for event in events {
            // No other event was asked for, so none comes.
            if let Event::Pagefault { addr, .. } = event.map_err(io::Error::other)? {
                batch.addresses.push(ToAddress::new(addr.addr()));
            }
        }
        Ok(!batch.addresses.is_empty())
    }

    /// Ends the present and every later wait.
    pub fn stop(&self) {
        // Pairs with the Acquire in `wait_at_most`.
        self.stopped.store(true, Ordering::Release);
        let one = 1_u64;
        // SAFETY: an eventfd reads 8 bytes, and `one` is 8 bytes. Its counter cannot overflow: it is
        // written once for each call. Should it fail, the flag ends the wait at the next event.
        let _ = unsafe { libc::write(self.stop.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}
