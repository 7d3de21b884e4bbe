//! The floor: what evacuating the same runs of bytes costs if nothing has to be found out.
//!
//! Each worker gathers its share of the surviving runs, one after another, into a region's length of
//! memory, and installs that by one MOVE of 2 MiB. The memory to gather into is what was gathered
//! before: a source region that is done with becomes the next buffer, so no page is allocated, zeroed
//! or given back. This is the cheapest way that was found to compact beside running mutators.
//!
//! No liveness, no forwarding, no references, no races: no collector can be faster by this means.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use strikeslip::Delivery;
use strikeslip::gc::address::{FromAddress, HeapRange, RegionIndex, ToAddress, WindowIndex, WordIndex};
use strikeslip::gc::geometry::{REGION_BYTES, WINDOW_BYTES, WINDOW_REGIONS};
use strikeslip::gc::sys::mapping::Reservation;
use strikeslip::gc::sys::uffd::Userfault;
use strikeslip::gc::sys::{Install, PageService as _};

use crate::error::Error;
use crate::fragmented::Pattern;

/// Surviving runs of bytes.
#[derive(Debug)]
pub struct Runs {
    /// Bytes of garbage before each run, and its own, in words.
    runs: Vec<(u16, u16)>,
    /// Bytes that survive.
    pub bytes: u64,
    /// Bytes in all.
    total: u64,
}

const WORD: u64 = 8;

impl Runs {
    /// The runs of a pattern: neighbours that survive are one run.
    #[must_use]
    pub fn of(pattern: Pattern) -> Self {
        let mut runs: Vec<(u16, u16)> = vec![];
        let (mut gap, mut run, mut bytes, mut total) = (0_u16, 0_u16, 0, 0);
        for object in pattern.objects() {
            let words = (object.bytes / WORD) as u16;
            total += object.bytes;
            // A run or gap that has become too long for its field is divided.
            let is_full = gap.max(run) > u16::MAX - 1024;
            if run > 0 && (!object.survives || is_full) || gap > 0 && is_full {
                runs.push((gap, run));
                (gap, run) = (0, 0);
            }
            if object.survives {
                run += words;
                bytes += object.bytes;
            } else {
                gap += words;
            }
        }
        runs.push((gap, run));
        Self { runs, bytes, total }
    }

    /// Divides the runs into `count` parts of about equally many, each with the byte it begins at.
    fn parts(&self, count: usize) -> Vec<(u64, &[(u16, u16)])> {
        let mut begin = 0;
        self.runs
            .chunks(self.runs.len().div_ceil(count))
            .map(|part| {
                let here = begin;
                begin += part.iter().map(|&(gap, run)| (u64::from(gap) + u64::from(run)) * WORD).sum::<u64>();
                (here, part)
            })
            .collect()
    }
}

/// Windows to gather from, then as many to install in, then one with buffers to begin with.
#[derive(Debug)]
struct Arena {
    reservation: Reservation,
    userfault: Userfault,
    windows: u32,
}

impl Arena {
    fn new(bytes: u64, huge: bool) -> Result<Self, Error> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Error::Floor(format!("{what}: {error}"));
        let windows = bytes.div_ceil(WINDOW_BYTES as u64) as u32;
        let reservation =
            Reservation::new(2 * windows + 1).map_err(|error| failed("address space", &error))?;
        let userfault = Userfault::open(Delivery::InPlace).map_err(|error| failed("userfaultfd", &error))?;
        let arena = Self { reservation, userfault, windows };
        for window in 0..=2 * windows {
            let opened = arena.reservation.open_window(WindowIndex(window), huge);
            opened.map_err(|error| failed("a window", &error))?;
        }
        let range = arena.range();
        let populate = |region, bytes| arena.reservation.populate(range.region_address(region), bytes);
        for window in 0..windows {
            populate(RegionIndex(window * WINDOW_REGIONS as u32), WINDOW_BYTES)
                .map_err(|error| failed("memory", &error))?;
        }
        populate(arena.first_buffer(), 2 * MOST_WORKERS * BUFFERS * REGION_BYTES)
            .map_err(|error| failed("memory", &error))?;
        for window in windows..2 * windows {
            let address = range.window_address(WindowIndex(window));
            let registered = arena.userfault.register(address, WINDOW_BYTES);
            registered.map_err(|error| failed("registration", &error))?;
        }
        Ok(arena)
    }

    const fn range(&self) -> HeapRange {
        self.reservation.range()
    }

    const fn first_buffer(&self) -> RegionIndex {
        RegionIndex(2 * self.windows * WINDOW_REGIONS as u32)
    }
}

const MOST_WORKERS: usize = 64;
/// Regions that a worker gathers into before one of its sources is done with.
const BUFFERS: usize = 2;

/// Gathers and installs `runs` with `workers` threads, beside a running thread if `busy`. Returns the
/// time that the slowest of them took.
///
/// # Errors
/// [`Error::Floor`] says what the kernel refused, [`Error::Wrong`] if the bytes did not arrive.
pub fn measure(runs: &Runs, workers: usize, busy: bool, huge: bool) -> Result<Duration, Error> {
    if workers == 0 || workers > MOST_WORKERS {
        return Err(Error::Option(format!("--workers must be 1 to {MOST_WORKERS}")));
    }
    let arena = Arena::new(runs.total, huge)?;
    fill(&arena, runs);
    let parts = runs.parts(workers);
    let stop = Arc::new(AtomicBool::new(false));
    let barrier = Barrier::new(parts.len());
    let (mut destination, mut tasks) = (arena.windows * WINDOW_REGIONS as u32, vec![]);
    for (nth, &(begin, runs)) in parts.iter().enumerate() {
        let bytes: u64 = runs.iter().map(|&(_, run)| u64::from(run) * WORD).sum();
        let buffer = arena.first_buffer().0 + (nth * BUFFERS) as u32;
        let buffers = (buffer..buffer + BUFFERS as u32).map(RegionIndex).collect();
        let first_whole = begin.div_ceil(REGION_BYTES as u64) as u32;
        let first = RegionIndex(destination);
        tasks.push(Task {
            arena: &arena,
            runs,
            begin,
            destination: first,
            buffers,
            recycle_from: first_whole,
        });
        destination += bytes.div_ceil(REGION_BYTES as u64) as u32;
    }
    let firsts: Vec<_> = tasks.iter().map(|task| (task.destination, task.runs, task.begin)).collect();
    let time = thread::scope(|scope| {
        let spinner = busy.then(|| {
            let stop = Arc::clone(&stop);
            scope.spawn(move || while !stop.load(Ordering::Relaxed) {})
        });
        let barrier = &barrier;
        let workers: Vec<_> = tasks.into_iter().map(|task| scope.spawn(move || task.run(barrier))).collect();
        let times: Result<Vec<_>, _> =
            workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect();
        stop.store(true, Ordering::Relaxed);
        drop(spinner);
        Ok::<_, Error>(times?.into_iter().max().unwrap_or_default())
    })?;
    firsts.into_iter().try_for_each(|(first, runs, begin)| check(&arena, first, runs, begin))?;
    Ok(time)
}

/// A word that tells where it was written.
const fn tag(place: u64) -> u64 {
    place | 1 << 63
}

fn word_at(range: HeapRange, byte: u64) -> *mut u64 {
    range.address(WordIndex((byte / WORD) as u32)).as_ptr()
}

/// Writes each survivor's first word; the rest is there (and zero) because it was populated.
fn fill(arena: &Arena, runs: &Runs) {
    let mut place = 0;
    for &(gap, run) in &runs.runs {
        place += u64::from(gap) * WORD;
        if run > 0 {
            // SAFETY: `place` lies in the populated source windows, which only this thread knows yet.
            unsafe { word_at(arena.range(), place).write(tag(place)) };
        }
        place += u64::from(run) * WORD;
    }
}

/// Checks the first word of each run where it was installed.
fn check(arena: &Arena, first: RegionIndex, runs: &[(u16, u16)], begin: u64) -> Result<(), Error> {
    let (mut from, mut to) = (begin, u64::from(first.0) * REGION_BYTES as u64);
    for &(gap, run) in runs {
        from += u64::from(gap) * WORD;
        if run > 0 {
            // SAFETY: the word was installed in a destination window, and the workers have ended.
            let found = unsafe { word_at(arena.range(), to).read() };
            if found != tag(from) {
                return Err(Error::Wrong(format!("floor: byte {from} did not arrive ({found:#x})")));
            }
        }
        from += u64::from(run) * WORD;
        to += u64::from(run) * WORD;
    }
    Ok(())
}

/// A worker's share.
struct Task<'a> {
    arena: &'a Arena,
    runs: &'a [(u16, u16)],
    begin: u64,
    /// Region to install in next.
    destination: RegionIndex,
    /// Regions to gather into.
    buffers: Vec<RegionIndex>,
    /// First source region that is not yet a buffer and lies wholly in this share.
    recycle_from: u32,
}

impl Task<'_> {
    fn run(mut self, barrier: &Barrier) -> Result<Duration, Error> {
        barrier.wait();
        let start = Instant::now();
        let range = self.arena.range();
        let (mut from, mut filled) = (self.begin, 0);
        let mut buffer = self.next_buffer()?;
        for &(gap, run) in self.runs {
            from += u64::from(gap) * WORD;
            let mut left = usize::from(run) * WORD as usize;
            while left > 0 {
                // No run crosses the end of a window: they are far apart in the address space.
                let in_window = WINDOW_BYTES - from as usize % WINDOW_BYTES;
                let bytes = left.min(REGION_BYTES - filled).min(in_window);
                let source = word_at(range, from).cast::<u8>();
                let target = range.region_address(buffer).as_ptr::<u8>();
                // SAFETY: the source lies in this share and is no buffer yet; the buffer is this
                // worker's alone and has room for `bytes` behind what was filled.
                unsafe { std::ptr::copy_nonoverlapping(source, target.add(filled), bytes) };
                filled += bytes;
                from += bytes as u64;
                left -= bytes;
                if filled == REGION_BYTES {
                    self.install(buffer)?;
                    self.recycle(from);
                    buffer = self.next_buffer()?;
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            self.install(buffer)?;
        }
        Ok(start.elapsed())
    }

    fn next_buffer(&mut self) -> Result<RegionIndex, Error> {
        self.buffers.pop().ok_or_else(|| Error::Floor("more is written than was read".to_owned()))
    }

    /// What lies before byte `from` is gathered: these regions can be gathered into.
    fn recycle(&mut self, from: u64) {
        let done = (from / REGION_BYTES as u64) as u32;
        self.buffers.extend((self.recycle_from..done).map(RegionIndex));
        self.recycle_from = self.recycle_from.max(done);
    }

    fn install(&mut self, buffer: RegionIndex) -> Result<(), Error> {
        let range = self.arena.range();
        let to = range.region_address(self.destination);
        let from = FromAddress::new(range.region_address(buffer).get());
        self.destination = self.destination.next();
        move_region(&self.arena.userfault, to, from)
    }
}

/// Moves 2 MiB, whatever the kernel has against it for a moment.
fn move_region(userfault: &Userfault, to: ToAddress, from: FromAddress) -> Result<(), Error> {
    let (mut done, mut tries) = (0, 0);
    while done < REGION_BYTES {
        match userfault.move_pages(to.offset(done), from.offset(done), REGION_BYTES - done) {
            Install::Done => return Ok(()),
            Install::Partial { bytes } => done += bytes,
            Install::Again | Install::Busy | Install::Exists if tries < 1000 => tries += 1,
            other => return Err(Error::Floor(format!("MOVE answers {other:?}"))),
        }
    }
    Ok(())
}
