//! The process's SIGBUS handler, which serves faults in place and chains everything else.
//!
//! Heaps install address ranges with the function that serves them; the faulting mutator runs it.
//! The handler is installed with the first range and removed with the last one.
//!
//! Invariants: the handler allocates nothing and takes no lock. An entry's function is
//! called only by a handler that `inside` counted and that then saw the entry open; an entry is
//! changed only after it was closed and all that were inside have left. Only a fault on a
//! missing page (`BUS_ADRERR`) in an installed range is ours; all else belongs to who was there before.
//!
//! *No `SA_ONSTACK`.* The handler runs on the stack of the mutator that touched the heap. That is
//! where the room is: the alternate stacks that Rust gives its threads are there to report a stack
//! overflow, and hold little more than the signal frame itself (about 3 KiB with AVX-512, 11 KiB
//! with AMX), while serving a fault builds pages. `SA_NODEFER` with an empty mask: the
//! kernel then changes no signal mask on the way in and out, which would take the process's
//! signal lock twice a fault.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{ErrnoGuard, check};

/// Serves a fault at `address`, and tells whether it did. It runs in a signal handler on the
/// faulting thread; `context` is what was given with it.
pub type ServeFault = unsafe fn(context: *const (), address: usize) -> bool;

/// Most ranges at one time.
const ENTRIES: usize = 64;

const FREE: u32 = 0;
const CLOSED: u32 = 1;
const OPEN: u32 = 2;

/// A range of addresses and who serves it.
struct Entry {
    state: AtomicU32,
    /// Handlers that are reading the entry or running its function.
    inside: AtomicU32,
    start: AtomicUsize,
    bytes: AtomicUsize,
    serve: AtomicPtr<()>,
    context: AtomicPtr<()>,
}

impl Entry {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            inside: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            serve: AtomicPtr::new(ptr::null_mut()),
            context: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn covers(&self, address: usize) -> bool {
        address.wrapping_sub(self.start.load(Ordering::Relaxed)) < self.bytes.load(Ordering::Relaxed)
    }

    /// Runs the entry's function if it covers `address`. Whether it served the fault.
    fn serve(&self, address: usize) -> bool {
        // A look without being inside: most entries do not match, and are not disturbed.
        if !self.covers(address) {
            return false;
        }
        // SeqCst pairs with the SeqCst in `Registration::drop`: either it sees this handler inside,
        // or this handler sees the entry closed.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let open = self.state.load(Ordering::SeqCst) == OPEN;
        let served = open && self.covers(address) && {
            let serve = self.serve.load(Ordering::Relaxed);
            let context = self.context.load(Ordering::Relaxed);
            // SAFETY: an open entry holds a `ServeFault`; reading OPEN made it visible (pairs with
            // the SeqCst store in `install_range`).
            let serve = unsafe { std::mem::transmute::<*mut (), ServeFault>(serve) };
            // SAFETY: who installed the range promised that the function may be called like this
            // until the registration is dropped, and that waits until nobody is inside.
            unsafe { serve(context, address) }
        };
        // Pairs with the SeqCst load in `Registration::drop`: what the function did is done.
        self.inside.fetch_sub(1, Ordering::SeqCst);
        served
    }
}

static TABLE: [Entry; ENTRIES] = [const { Entry::new() }; ENTRIES];

/// What was there before our handler. Boxes are never freed: a handler may be reading one.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// The previous handler asked to be called once only (`SA_RESETHAND`), and was.
static PREVIOUS_SPENT: AtomicBool = AtomicBool::new(false);

/// How many ranges there are, and whether our handler was installed and not removed since.
static INSTALLED: Mutex<(usize, bool)> = Mutex::new((0, false));

/// Why a range could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// All entries of the table are taken: too many heaps with in-place delivery in this process.
    #[error("all {ENTRIES} address ranges for SIGBUS are taken")]
    Full,
    /// The system refused the handler.
    #[error("cannot install a handler for SIGBUS: {0}")]
    Refused(#[from] io::Error),
}

/// A range that is served in place, until this is dropped.
///
/// Dropping waits until no handler is inside the range's function, so it is never done there.
#[derive(Debug)]
#[must_use = "the range is served until this is dropped"]
pub struct Registration {
    entry: usize,
}

/// Has `serve` called, with `context`, for each SIGBUS on an address of the range.
///
/// # Errors
/// [`InstallError`]: too many ranges, or the system refused the handler.
///
/// # Safety
/// Until the registration is dropped, `serve` may be called with `context` on any thread, at any
/// access to the range, and by several threads at once. It is async-signal-safe, needs little
/// stack, and never unwinds.
pub unsafe fn install_range(
    start: usize,
    bytes: usize,
    serve: ServeFault,
    context: *const (),
) -> Result<Registration, InstallError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(index) = TABLE.iter().position(|entry| entry.state.load(Ordering::Relaxed) == FREE) else {
        return Err(InstallError::Full);
    };
    if !installed.1 {
        install_handler()?;
        installed.1 = true;
    }
    installed.0 += 1;
    let entry = &TABLE[index];
    entry.start.store(start, Ordering::Relaxed);
    entry.bytes.store(bytes, Ordering::Relaxed);
    entry.serve.store(serve as *mut (), Ordering::Relaxed);
    entry.context.store(context.cast_mut(), Ordering::Relaxed);
    // Publishes the fields; pairs with the SeqCst load in `Entry::serve`.
    entry.state.store(OPEN, Ordering::SeqCst);
    Ok(Registration { entry: index })
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = &TABLE[self.entry];
        // SeqCst, both: pair with the SeqCst in `Entry::serve` (see there).
        entry.state.store(CLOSED, Ordering::SeqCst);
        while entry.inside.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        entry.bytes.store(0, Ordering::Relaxed);
        entry.state.store(FREE, Ordering::Relaxed);
        installed.0 -= 1;
        // Where another handler was put over ours, it may call ours: then ours stays, and chains.
        if installed.0 == 0 && is_installed() {
            let previous = PREVIOUS.load(Ordering::Relaxed);
            // SAFETY: the box is never freed, and holds what `sigaction` gave us.
            installed.1 = unsafe { libc::sigaction(libc::SIGBUS, previous, ptr::null_mut()) } != 0;
        }
    }
}

/// Whether our handler is the process's SIGBUS handler now: not before a range is installed, and not
/// after another library replaced it (that one may still chain to ours; nobody can tell).
#[must_use]
pub fn is_installed() -> bool {
    current().is_ok_and(|action| action.sa_sigaction == our_handler())
}

/// Makes sure that this thread does not block SIGBUS; a blocked one kills the process at the first
/// fault. Returns whether the thread did block it.
pub fn unblock_current_thread() -> bool {
    // SAFETY: both sets are initialised by the calls that get them before they are read, and
    // changing this thread's own mask is the purpose.
    unsafe {
        let (mut bus, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut bus);
        libc::sigaddset(&raw mut bus, libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const bus, &raw mut before);
        libc::sigismember(&raw const before, libc::SIGBUS) == 1
    }
}

fn our_handler() -> usize {
    handle as extern "C" fn(_, _, _) as usize
}

/// The present disposition of SIGBUS.
fn current() -> io::Result<libc::sigaction> {
    // SAFETY: all zero is a valid `sigaction` structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only reads the disposition, into a structure of ours.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut action) })?;
    Ok(action)
}

fn install_handler() -> io::Result<()> {
    // The previous handler is known before ours can run.
    remember(current()?);
    // SAFETY: all zero is a valid `sigaction` structure: an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = our_handler();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: all zero is a valid `sigaction` structure.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and is async-signal-safe.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) })?;
    // Another thread may have changed the disposition between the two calls.
    remember(before);
    Ok(())
}

fn remember(action: libc::sigaction) {
    let known = PREVIOUS.load(Ordering::Relaxed);
    // SAFETY: never freed once stored.
    if known.is_null() || !same(unsafe { &*known }, &action) {
        // Pairs with the Acquire in `chain`.
        PREVIOUS.store(Box::into_raw(Box::new(action)), Ordering::Release);
    }
    PREVIOUS_SPENT.store(false, Ordering::Relaxed);
}

fn same(one: &libc::sigaction, other: &libc::sigaction) -> bool {
    // SAFETY: both sets came from `sigaction`.
    let blocks =
        |action: &libc::sigaction, signal| unsafe { libc::sigismember(&raw const action.sa_mask, signal) };
    one.sa_sigaction == other.sa_sigaction
        && one.sa_flags == other.sa_flags
        && (1..=libc::SIGRTMAX()).all(|signal| blocks(one, signal) == blocks(other, signal))
}

/// The handler.
extern "C" fn handle(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let _errno = ErrnoGuard::new();
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler with SA_SIGINFO; for BUS_ADRERR it
    // holds an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code == libc::BUS_ADRERR && TABLE.iter().any(|entry| entry.serve(address)) {
        return;
    }
    chain(signal, info, context);
}

/// Does what would have happened without our handler.
fn chain(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // Pairs with the Release in `remember`.
    let previous = PREVIOUS.load(Ordering::Acquire);
    // SAFETY: `remember` ran before the handler was installed, and boxes are never freed.
    let previous = unsafe { &*previous };
    // SAFETY: as in `handle`.
    let sent = unsafe { (*info).si_code } <= 0;
    let once = previous.sa_flags & libc::SA_RESETHAND != 0;
    let spent = once && PREVIOUS_SPENT.swap(true, Ordering::Relaxed);
    match previous.sa_sigaction {
        // Ignored: that holds for signals that somebody sent. The kernel lets nobody ignore its own.
        libc::SIG_IGN if sent => {}
        libc::SIG_IGN | libc::SIG_DFL => die(signal, sent),
        _ if spent => die(signal, sent),
        handler => call_previous(previous, handler, signal, info, context),
    }
}

/// Lets the signal's default action end the process.
fn die(signal: i32, sent: bool) {
    // SAFETY: all zero is a valid `sigaction` structure: SIG_DFL, an empty mask, no flags.
    let action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: installs a default disposition.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    // A fault comes again when the access is executed again. A signal that was sent does not.
    if sent {
        // SAFETY: SIGBUS is not blocked here (SA_NODEFER), so this does not return.
        unsafe { libc::raise(signal) };
    }
}

/// Calls the previous handler with the mask and the arguments that it asked for.
fn call_previous(
    previous: &libc::sigaction,
    handler: usize,
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let mut mask = previous.sa_mask;
    // SAFETY: the sets are valid; this thread's mask is put back below, as the kernel would do.
    let before = unsafe {
        if previous.sa_flags & libc::SA_NODEFER == 0 {
            libc::sigaddset(&raw mut mask, signal);
        }
        let mut before = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, &raw mut before);
        before
    };
    if previous.sa_flags & libc::SA_SIGINFO == 0 {
        // SAFETY: without SA_SIGINFO this is the handler's type.
        let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(i32)>(handler) };
        handler(signal);
    } else {
        type Full = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: with SA_SIGINFO this is the handler's type.
        let handler = unsafe { std::mem::transmute::<usize, Full>(handler) };
        handler(signal, info, context);
    }
    // SAFETY: `before` is a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
}
