//! Operations one at a time, by a thread that does nothing else: those that take the lock of one mapping, and
//! beside them those that still take `mmap_lock`.
//!
//! The prober is pinned to the first processor and storms are not, so it competes with them for locks only.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;
use strikeslip::gc::stats::LatencyHistogram;
use strikeslip::gc::sys::ioctls::{Answer, RawUserfault};
use strikeslip::gc::sys::sched::thread_id;
use userfaultfd_sys as raw;

use super::figures::{Latency, Probe, Sleep};
use super::memory::{Area, PAGE_BYTES};
use super::queue_lock::QueueLock;
use super::storms::{Place, pin};
use super::threads::Group;
use super::tracefs::Tracer;

/// Pages of each area.
const PAGES: usize = 4096;
/// Operations that are done while trace events are counted.
const TRACED: u64 = 1_000;
/// Looks at the clock's deadline once in so many operations.
const LOOK: usize = 16;

/// What the prober does.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `UFFDIO_COPY` of a page.
    Copy,
    /// `UFFDIO_MOVE` of a page.
    Move,
    /// `UFFDIO_ZEROPAGE` of a page.
    Zeropage,
    /// `UFFDIO_WRITEPROTECT` of a page.
    WriteProtect,
    /// `madvise(MADV_POPULATE_WRITE)` of a page.
    Populate,
}

impl Operation {
    /// All of them: first those under the lock of one mapping.
    pub const ALL: [Self; 5] = [Self::Copy, Self::Move, Self::Zeropage, Self::WriteProtect, Self::Populate];

    /// As people know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "UFFDIO_COPY",
            Self::Move => "UFFDIO_MOVE",
            Self::Zeropage => "UFFDIO_ZEROPAGE",
            Self::WriteProtect => "UFFDIO_WRITEPROTECT",
            Self::Populate => "MADV_POPULATE_WRITE",
        }
    }

    /// Whether it is a control: an operation that takes `mmap_lock` on every kernel. The others do before Linux 6.9.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::WriteProtect | Self::Populate)
    }
}

/// The prober's memory and descriptor.
#[derive(Debug)]
pub(super) struct Prober {
    userfault: RawUserfault,
    /// Registered for missing pages.
    to: Area,
    from: Area,
    /// Populated, and registered for write protection.
    protected: Area,
    plain: Area,
}

impl Prober {
    pub(super) fn new() -> io::Result<Self> {
        let userfault = RawUserfault::open(0)?;
        let area = || Area::of_small_pages(PAGES * PAGE_BYTES);
        let prober = Self { userfault, to: area()?, from: area()?, protected: area()?, plain: area()? };
        for area in [&prober.to, &prober.from, &prober.protected, &prober.plain] {
            area.touch();
        }
        for (area, mode) in [
            (&prober.to, raw::UFFDIO_REGISTER_MODE_MISSING),
            (&prober.protected, raw::UFFDIO_REGISTER_MODE_WP),
        ] {
            let answer = prober.userfault.register(area.page(0), area.bytes(), mode);
            if !answer.is_done() {
                return Err(io::Error::from_raw_os_error(answer.errno));
            }
        }
        Ok(prober)
    }

    /// Whether the kernel has it.
    pub(super) const fn offers(&self, operation: Operation) -> bool {
        !matches!(operation, Operation::Move) || self.userfault.features() & raw::UFFD_FEATURE_MOVE != 0
    }

    /// Does the operation for so long, and counts trace events of some more.
    pub(super) fn probe(
        &self,
        operation: Operation,
        time: Duration,
        model: Option<&QueueLock>,
        tracer: Option<&Tracer>,
    ) -> io::Result<Probe> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("prober".into());
            let thread = thread.spawn_scoped(scope, || {
                pin(Place::First);
                self.probe_here(operation, time, model, tracer)
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn probe_here(
        &self,
        operation: Operation,
        time: Duration,
        model: Option<&QueueLock>,
        tracer: Option<&Tracer>,
    ) -> io::Result<Probe> {
        let this = thread_id();
        let mut run = Run { operation, model, histogram: LatencyHistogram::default(), refused: 0, sleeps: 0 };
        let mut group = Group::new(&[this]);
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.prepare(operation)?;
            group.begin();
            run.batch(self, PAGES, end)?;
            group.end();
        }
        let Sleep { wall_ns, asleep_ns, .. } = group.total();
        let mut probe = Probe {
            latency_ns: Latency::of(&run.histogram),
            sleeps: run.sleeps,
            asleep_ns,
            wall_ns,
            refused: run.refused,
            ..Probe::default()
        };
        if let Some(tracer) = tracer {
            self.prepare(operation)?;
            tracer.watch(std::iter::once(this))?;
            run.histogram = LatencyHistogram::default();
            tracer.turn(true);
            run.batch(self, TRACED as usize, Instant::now() + time)?;
            tracer.turn(false);
            probe.traced_operations = run.histogram.percentiles().count;
            probe.traced = tracer.counts(&[vec![this]])?.pop();
        }
        Ok(probe)
    }

    /// Brings the areas to the state that a batch needs.
    fn prepare(&self, operation: Operation) -> io::Result<()> {
        match operation {
            // A source page that is not there (moved away, say) is a fault in the kernel, which takes `mmap_lock`.
            Operation::Copy | Operation::Move => {
                self.to.discard()?;
                self.from.touch();
                Ok(())
            }
            Operation::Zeropage => self.to.discard(),
            Operation::WriteProtect => Ok(()),
            Operation::Populate => self.plain.discard(),
        }
    }

    fn operate(&self, operation: Operation, page: usize) -> io::Result<bool> {
        let (to, from) = (self.to.page(page), self.from.page(page));
        let done = |answer: Answer| Ok(answer.is_done());
        match operation {
            Operation::Copy => done(self.userfault.copy(to, from, PAGE_BYTES, 0)),
            // SAFETY: nobody refers to what is in the source.
            Operation::Move => done(unsafe { self.userfault.move_pages(to, from, PAGE_BYTES, 0) }),
            Operation::Zeropage => done(self.userfault.zeropage(to, PAGE_BYTES)),
            Operation::WriteProtect => {
                let protect = raw::UFFDIO_WRITEPROTECT_MODE_WP;
                done(self.userfault.write_protect(self.protected.page(page), PAGE_BYTES, protect))
            }
            Operation::Populate => self.plain.populate_page(page).map(|()| true),
        }
    }
}

/// Batches of one operation.
struct Run<'a> {
    operation: Operation,
    model: Option<&'a QueueLock>,
    histogram: LatencyHistogram,
    refused: u64,
    sleeps: u64,
}

impl Run<'_> {
    fn batch(&mut self, prober: &Prober, most: usize, end: Instant) -> io::Result<()> {
        let model = self.model.filter(|_| !self.operation.is_control());
        let before = voluntary_switches()?;
        for page in 0..most.min(PAGES) {
            if page % LOOK == 0 && Instant::now() >= end && page > 0 {
                break;
            }
            let begin = Instant::now();
            model.iter().for_each(|lock| lock.read());
            let done = prober.operate(self.operation, page)?;
            model.iter().for_each(|lock| lock.read_done());
            self.histogram.record_duration(begin.elapsed());
            self.refused += u64::from(!done);
        }
        self.sleeps += voluntary_switches()? - before;
        Ok(())
    }
}

/// Voluntary switches of this thread: exact, and cheap to ask for.
pub(super) fn voluntary_switches() -> io::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    u64::try_from(usage.voluntary_context_switches()).map_err(io::Error::other)
}
