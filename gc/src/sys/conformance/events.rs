//! Rules about events: requests while the address space changes, and threads that wait for pages.
//!
//! Who changes or touches memory is a thread of its own; it is blocked until its event was read. Whatever a trial
//! sees, it lets that thread go on: events are read until the thread is done, and a page that stays missing is
//! installed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use userfaultfd_sys as raw;

use super::NotTried;
use super::ground::{Ground, PAGES, said, said_count};
use crate::geometry::PAGE_BYTES;
use crate::sys::ioctls::{Answer, RawUserfault};
use crate::sys::uffd::Door;

type Seen = Result<String, NotTried>;

/// How long an event may take before it is taken to be lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for an event when its thread may be done already.
const MOMENT_MS: i32 = 10;

/// Bytes of a message.
const MESSAGE_BYTES: usize = size_of::<raw::uffd_msg>();

/// Whether an event is there to be read, now or within the time.
fn has_event(fd: &RawUserfault, limit_ms: i32) -> bool {
    let mut polled = libc::pollfd { fd: fd.descriptor().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, as is said.
    unsafe { libc::poll(&raw mut polled, 1, limit_ms) > 0 }
}

/// Reads an event. Whether there was one.
fn read_event(fd: &RawUserfault) -> bool {
    let mut message = [0_u8; MESSAGE_BYTES];
    let descriptor = fd.descriptor().as_raw_fd();
    // SAFETY: the buffer has room for one message. (The descriptor does not block.)
    let length = unsafe { libc::read(descriptor, message.as_mut_ptr().cast(), MESSAGE_BYTES) };
    if length != MESSAGE_BYTES as isize {
        return false;
    }
    if message[0] == raw::UFFD_EVENT_FORK {
        // The event hands over a descriptor for the child, the first field behind a header of 8 bytes.
        let number = u32::from_ne_bytes([message[8], message[9], message[10], message[11]]);
        // SAFETY: the kernel made it for us with this event, and nobody else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(number as i32) });
    }
    true
}

/// Waits for the first event of a thread.
fn first_event(fd: &RawUserfault) -> Result<(), NotTried> {
    let limit = i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX);
    if has_event(fd, limit) { Ok(()) } else { Err(NotTried(format!("no event within {PATIENCE:?}"))) }
}

/// Reads events until the thread is done.
fn let_go_on<T>(fd: &RawUserfault, thread: &ScopedJoinHandle<'_, T>) {
    let begin = Instant::now();
    while !thread.is_finished() && begin.elapsed() < PATIENCE {
        if has_event(fd, MOMENT_MS) {
            read_event(fd);
        }
    }
}

/// Runs `change` on a thread, and `request` while the change waits for its event to be read and once more
/// afterwards.
fn while_changing<T: Send>(
    g: &Ground,
    change: impl FnOnce() -> io::Result<T> + Send,
    mut request: impl FnMut() -> Answer,
) -> Result<(Answer, Answer), NotTried> {
    thread::scope(|scope| {
        let changer = scope.spawn(change);
        let first = first_event(&g.fd).map(|()| request());
        let_go_on(&g.fd, &changer);
        let changed = changer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        changed.map_err(|error| NotTried::because("the change", error))?;
        Ok((first?, request()))
    })
}

fn said_both((first, second): (Answer, Answer)) -> String {
    format!("{}, {} once the event is read", said(first), said(second))
}

/// A ground whose descriptor is told of memory that is given back.
fn removing() -> Result<Ground, NotTried> {
    let g = Ground::with_features(raw::UFFD_FEATURE_EVENT_REMOVE)?;
    g.register(&g.to)?;
    Ok(g)
}

/// Gives memory back while `request` is asked for.
fn while_removing(g: &Ground, request: impl FnMut() -> Answer) -> Result<(Answer, Answer), NotTried> {
    while_changing(g, || g.to.advise(PAGES / 2, 1, libc::MADV_DONTNEED), request)
}

pub(super) fn copy_while_removing() -> Seen {
    let g = removing()?;
    while_removing(&g, || g.copy(0, 0, 1)).map(said_both)
}

pub(super) fn zero_while_removing() -> Seen {
    let g = removing()?;
    while_removing(&g, || g.zero(0, 1)).map(said_both)
}

pub(super) fn move_while_removing() -> Seen {
    let g = removing()?;
    g.needs_move()?;
    while_removing(&g, || g.move_pages(0, 0, 1)).map(said_both)
}

pub(super) fn count_while_removing() -> Seen {
    let g = removing()?;
    while_removing(&g, || g.copy(0, 0, 1)).map(|(first, _)| said_count(first))
}

pub(super) fn copy_while_unmapping() -> Seen {
    let g = Ground::with_features(raw::UFFD_FEATURE_EVENT_UNMAP)?;
    g.register(&g.to)?;
    let unmap = || {
        g.to.unmap_from(PAGES / 2);
        Ok(())
    };
    while_changing(&g, unmap, || g.copy(0, 0, 1)).map(said_both)
}

pub(super) fn copy_while_forking() -> Seen {
    let mut g = Ground::unregistered()?;
    g.fd = RawUserfault::open_through(&[Door::Syscall, Door::UserModeOnly], raw::UFFD_FEATURE_EVENT_FORK)
        .map_err(|error| NotTried::because("UFFD_FEATURE_EVENT_FORK", error))?;
    g.register(&g.to)?;
    let fork = || {
        // SAFETY: the child only exits, by a call that is async-signal-safe.
        let child = unsafe {
            match libc::fork() {
                0 => libc::_exit(0),
                child => child,
            }
        };
        // SAFETY: waits for the child; no status is asked for.
        match unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    while_changing(&g, fork, || g.copy(0, 0, 1)).map(said_both)
}

/// Touches a missing page on a thread, has `act` do something once its event was read, and returns what the thread
/// saw there, with what `act` did.
fn while_waiting<T>(g: &Ground, act: impl FnOnce() -> T) -> Result<(u64, T), NotTried> {
    thread::scope(|scope| {
        let toucher = scope.spawn(|| g.to.word(0).load(Ordering::Relaxed));
        let result = first_event(&g.fd).map(|()| {
            read_event(&g.fd);
            act()
        });
        // Whatever was done or not: the page is there now, or was all along.
        let begin = Instant::now();
        while !toucher.is_finished() && begin.elapsed() < PATIENCE {
            thread::yield_now();
        }
        if !toucher.is_finished() {
            // Closing a registration lets everybody go on.
            let _ = g.fd.unregister(g.to.page(0), PAGES * PAGE_BYTES);
            let _ = g.fd.wake(g.to.page(0), PAGES * PAGE_BYTES);
        }
        let saw = toucher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.map(|result| (saw, result))
    })
}

pub(super) fn copy_wakes() -> Seen {
    let g = Ground::new()?;
    let (saw, _) = while_waiting(&g, || g.copy(0, 0, 1))?;
    Ok(if saw == 1 { "it goes on with the contents".to_owned() } else { format!("it goes on with {saw}") })
}

pub(super) fn wake_alone() -> Seen {
    let g = Ground::new()?;
    let (_, again) = while_waiting(&g, || {
        let _ = g.fd.wake(g.to.page(0), PAGE_BYTES);
        let again = first_event(&g.fd);
        read_event(&g.fd);
        let _ = g.zero(0, 1);
        again
    })?;
    Ok(if again.is_ok() { "it faults again".to_owned() } else { "it does not fault again".to_owned() })
}

pub(super) fn unregister_wakes() -> Seen {
    let g = Ground::new()?;
    let (saw, answer) = while_waiting(&g, || g.fd.unregister(g.to.page(0), PAGES * PAGE_BYTES))?;
    Ok(match (answer.is_done(), saw) {
        (true, 0) => "it goes on with zeros".to_owned(),
        (_, saw) => format!("{}, it goes on with {saw}", said(answer)),
    })
}
