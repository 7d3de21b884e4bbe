//! The trials of a probe: real faults and real moves, on a few pages of their own.
//!
//! All run on one thread of the probe's. Each trial has a way out that does not depend on what it
//! tries: a fault that cannot be served is answered by mapping fresh memory in its place.

use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::Finding;
use crate::address::{FromAddress, ToAddress};
use crate::geometry::{PAGE_BYTES, REGION_BYTES, WORD_BYTES};
use crate::options::Delivery;
use crate::sys::mapping::{self, advise, huge_page_bytes, map, unmap};
use crate::sys::uffd::{FaultBatch, FaultReader, Userfault, Waited};
use crate::sys::{Install, PageService, sigbus};

/// How long an event may take before it is taken to be lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Times that a MOVE is tried again where the kernel finds a page busy for a moment.
const TRIES: usize = 8;

/// What the trials found.
pub(super) struct Trials {
    pub features: Option<u64>,
    pub in_place_fault: Finding,
    pub event_fault: Finding,
    pub move_pages: Finding,
    pub move_huge: Finding,
    pub take: Finding,
}

impl Trials {
    pub(super) fn impossible(reason: &str) -> Self {
        let no = || Err(reason.to_owned());
        Self {
            features: None,
            in_place_fault: no(),
            event_fault: no(),
            move_pages: no(),
            move_huge: no(),
            take: no(),
        }
    }
}

/// Runs all trials.
pub(super) fn all() -> Trials {
    sigbus::unblock_current_thread();
    let pool = Userfault::open(Delivery::Pool);
    Trials {
        features: pool.as_ref().ok().map(Userfault::features),
        in_place_fault: in_place_fault(),
        event_fault: event_fault(),
        move_pages: pool.as_ref().map_err(ToString::to_string).and_then(move_pages),
        move_huge: pool.as_ref().map_err(ToString::to_string).and_then(move_huge),
        take: take(),
    }
}

/// Memory of a trial; unmapped when dropped.
struct Memory {
    base: usize,
    bytes: usize,
}

impl Memory {
    fn new(bytes: usize) -> Result<Self, String> {
        // SAFETY: the kernel chooses a free address.
        let base = unsafe { map(0, bytes, libc::PROT_READ | libc::PROT_WRITE) };
        Ok(Self { base: base.map_err(|error| format!("mmap: {error}"))?, bytes })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(WORD_BYTES) && offset < self.bytes);
        // SAFETY: an aligned word of this mapping, which lives as long as `self` and is only accessed
        // as atomic words. If its page is missing, the access is the trial.
        unsafe { AtomicU64::from_ptr(ptr::with_exposed_provenance_mut(self.base + offset)) }
    }

    /// Fills a range with words that tell where they were written.
    fn fill(&self, offset: usize, bytes: usize) {
        (0..bytes)
            .step_by(WORD_BYTES)
            .for_each(|at| self.word(offset + at).store(pattern(at), Ordering::Relaxed));
    }

    /// Whether a range has the words that `fill` wrote.
    fn is_filled(&self, offset: usize, bytes: usize) -> bool {
        (0..bytes).step_by(WORD_BYTES).all(|at| self.word(offset + at).load(Ordering::Relaxed) == pattern(at))
    }

    fn to(&self, offset: usize) -> ToAddress {
        ToAddress::new(self.base + offset)
    }

    fn from(&self, offset: usize) -> FromAddress {
        FromAddress::new(self.base + offset)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and no reference into it outlives `self`.
        unsafe { unmap(self.base, self.bytes) }
    }
}

const fn pattern(at: usize) -> u64 {
    (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn register(userfault: &Userfault, memory: &Memory, offset: usize, bytes: usize) -> Result<(), String> {
    userfault.register(memory.to(offset), bytes).map_err(|error| format!("register: {error}"))
}

/// What the SIGBUS handler of the trial works with.
struct InPlace {
    userfault: Userfault,
    memory: Memory,
    faults: AtomicUsize,
    /// 0, or why the page could not be installed: 1 + position in `REASONS`.
    failure: AtomicU32,
}

const REASONS: [&str; 2] = ["COPY failed in the handler", "the handler was called for another address"];

impl InPlace {
    /// # Safety
    /// `context` is an `InPlace`; page 0 of its memory is registered, and page 1 the contents.
    unsafe fn serve(context: *const (), address: usize) -> bool {
        // SAFETY: as the caller promises.
        let trial = unsafe { &*context.cast::<Self>() };
        trial.faults.fetch_add(1, Ordering::Relaxed);
        let (page, memory) = (address & !(PAGE_BYTES - 1), &trial.memory);
        let failure = if page != memory.base {
            2
        } else if trial.userfault.copy(memory.to(0), memory.from(PAGE_BYTES), PAGE_BYTES) != Install::Done {
            1
        } else {
            return true;
        };
        trial.failure.store(failure, Ordering::Relaxed);
        // Whatever is wrong, the access has to get on: with memory that no userfaultfd knows.
        // SAFETY: a page of the trial's, whose contents nobody needs.
        unsafe { map(page, PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE).is_ok() }
    }
}

fn in_place_fault() -> Finding {
    let userfault = Userfault::open(Delivery::InPlace).map_err(|error| error.to_string())?;
    let door = userfault.door();
    let memory = Memory::new(2 * PAGE_BYTES)?;
    memory.fill(PAGE_BYTES, PAGE_BYTES);
    let trial = InPlace { userfault, memory, faults: AtomicUsize::new(0), failure: AtomicU32::new(0) };
    let context = ptr::from_ref(&trial).cast();
    // SAFETY: `serve` is async-signal-safe, and the registration is dropped before the trial.
    let registration =
        unsafe { sigbus::install_range(trial.memory.base, PAGE_BYTES, InPlace::serve, context) };
    let registration = registration.map_err(|error| error.to_string())?;
    if !sigbus::is_installed() {
        return Err("another SIGBUS handler was put over ours".to_owned());
    }
    register(&trial.userfault, &trial.memory, 0, PAGE_BYTES)?;
    let filled = trial.memory.is_filled(0, PAGE_BYTES);
    drop(registration);
    match (trial.failure.load(Ordering::Relaxed), trial.faults.load(Ordering::Relaxed)) {
        (0, 1) if filled => Ok(format!("through {door}")),
        (0, 0) => Err("an access to a missing page was no fault".to_owned()),
        (0, faults) => Err(format!("wrong contents after {faults} faults")),
        (failure, _) => Err(REASONS[failure as usize - 1].to_owned()),
    }
}

fn event_fault() -> Finding {
    let userfault = Arc::new(Userfault::open(Delivery::Pool).map_err(|error| error.to_string())?);
    let reader = FaultReader::new(Arc::clone(&userfault)).map_err(|error| format!("eventfd: {error}"))?;
    let memory = Memory::new(2 * PAGE_BYTES)?;
    memory.fill(PAGE_BYTES, PAGE_BYTES);
    register(&userfault, &memory, 0, PAGE_BYTES)?;
    let served = thread::scope(|scope| {
        let toucher = thread::Builder::new().name("probe-touch".into());
        let toucher = toucher.spawn_scoped(scope, || memory.is_filled(0, PAGE_BYTES));
        let toucher = toucher.map_err(|error| format!("no thread to take a fault: {error}"))?;
        let served = serve_event(&userfault, &reader, &memory);
        // Lets the other thread go on, whether it was served or not. Closing the descriptor
        // would as well, but it lives until that thread ends.
        let released = userfault.unregister(memory.to(0), PAGE_BYTES);
        if let Err(error) = released {
            // SAFETY: a page of the trial's, whose contents nobody needs.
            let _ = unsafe { map(memory.base, PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE) };
            return Err(format!("unregister: {error}"));
        }
        let filled = toucher.join().unwrap_or(false);
        served.and_then(|()| if filled { Ok(()) } else { Err("wrong contents after the fault".to_owned()) })
    });
    served.map(|()| format!("through {}", userfault.door()))
}

fn serve_event(userfault: &Userfault, reader: &FaultReader, memory: &Memory) -> Result<(), String> {
    let mut batch = FaultBatch::new();
    match reader.wait_at_most(&mut batch, Some(PATIENCE)) {
        Ok(Waited::Faults) => {}
        Ok(_) => return Err(format!("no event within {PATIENCE:?}")),
        Err(error) => return Err(format!("read: {error}")),
    }
    if batch.addresses() != [memory.to(0)] {
        return Err(format!("event for another address: {:?}", batch.addresses()));
    }
    match userfault.copy(memory.to(0), memory.from(PAGE_BYTES), PAGE_BYTES) {
        Install::Done => Ok(()),
        other => Err(format!("COPY: {other:?}")),
    }
}

/// MOVE of a range, tried again where pages are busy for a moment. How often it was tried.
fn move_all(userfault: &Userfault, to: ToAddress, from: FromAddress, bytes: usize) -> Result<usize, String> {
    let mut done = 0;
    for tried in 1..=TRIES {
        match userfault.move_pages(to.offset(done), from.offset(done), bytes - done) {
            Install::Done => return Ok(tried),
            Install::Partial { bytes } => done += bytes,
            Install::Busy | Install::Again => thread::yield_now(),
            other => return Err(format!("MOVE: {other:?} at {done} of {bytes} bytes")),
        }
    }
    Err(format!("MOVE: not done after {TRIES} tries"))
}

fn move_pages(userfault: &Userfault) -> Finding {
    const BYTES: usize = 4 * PAGE_BYTES;
    if !userfault.offers_move() {
        return Err("the kernel does not offer UFFDIO_MOVE (Linux 6.8)".to_owned());
    }
    let memory = Memory::new(2 * BYTES)?;
    memory.fill(BYTES, BYTES);
    register(userfault, &memory, 0, BYTES)?;
    let tried = move_all(userfault, memory.to(0), memory.from(BYTES), BYTES)?;
    compare(&memory, 0, BYTES, BYTES)?;
    Ok(format!("{} pages, tried {tried}x", BYTES / PAGE_BYTES))
}

fn move_huge(userfault: &Userfault) -> Finding {
    if !userfault.offers_move() {
        return Err("the kernel does not offer UFFDIO_MOVE (Linux 6.8)".to_owned());
    }
    let memory = Memory::new(3 * REGION_BYTES)?;
    let to = memory.base.next_multiple_of(REGION_BYTES) - memory.base;
    let from = to + REGION_BYTES;
    // A kernel without huge pages refuses the advice; then small pages are moved.
    // SAFETY: the advice does not change contents.
    let _ = unsafe { advise(memory.base, memory.bytes, libc::MADV_HUGEPAGE) };
    memory.fill(from, REGION_BYTES);
    register(userfault, &memory, to, REGION_BYTES)?;
    let was_huge = huge_page_bytes(memory.base + from) >= REGION_BYTES;
    let tried = move_all(userfault, memory.to(to), memory.from(from), REGION_BYTES)?;
    let is_huge = huge_page_bytes(memory.base + to) >= REGION_BYTES;
    compare(&memory, to, from, REGION_BYTES)?;
    let kept = match (was_huge, is_huge) {
        (true, true) => "a huge page, kept whole",
        (true, false) => "a huge page, split",
        _ => "small pages",
    };
    Ok(format!("{kept}, tried {tried}x"))
}

/// Checks that contents have moved, and are gone where they were.
fn compare(memory: &Memory, to: usize, from: usize, bytes: usize) -> Result<(), String> {
    if !memory.is_filled(to, bytes) {
        return Err("MOVE: wrong contents".to_owned());
    }
    let left = (0..bytes).step_by(WORD_BYTES).any(|at| memory.word(from + at).load(Ordering::Relaxed) != 0);
    if left { Err("MOVE: the source still has contents".to_owned()) } else { Ok(()) }
}

fn take() -> Finding {
    const BYTES: usize = 4 * PAGE_BYTES;
    let memory = Memory::new(2 * BYTES)?;
    memory.fill(0, BYTES);
    let result = {
        // SAFETY: both ranges are the trial's, and nobody needs what is in the second.
        unsafe { mapping::move_mapping(memory.base, memory.base + BYTES, BYTES) }
    };
    result.map_err(|error: io::Error| format!("mremap(MREMAP_DONTUNMAP): {error}"))?;
    let emptied = (0..BYTES).step_by(WORD_BYTES).all(|at| memory.word(at).load(Ordering::Relaxed) == 0);
    if memory.is_filled(BYTES, BYTES) && emptied {
        Ok("mremap(MREMAP_DONTUNMAP)".to_owned())
    } else {
        Err("mremap(MREMAP_DONTUNMAP): wrong contents".to_owned())
    }
}
