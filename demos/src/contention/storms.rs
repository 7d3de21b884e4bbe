//! Storms: threads that take `mmap_lock` for writing all the time, and the control that takes none.
//!
//! Run beside mutators and collector. A storm thread is pinned to the processors that are not the first, so that
//! whoever is measured there competes with it for locks and not for the processor; on a machine with one
//! processor that cannot be.

use std::fmt;
use std::hint;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use super::memory::{Area, PAGE_BYTES};
use super::queue_lock::QueueLock;

/// What storm threads do.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storm {
    /// There are none.
    None,
    /// The control: computes, and takes no lock. What is slow beside it is slow for want of a processor, or
    /// because of interrupts that flush TLBs, and not because of a lock.
    Spin,
    /// Maps, touches and unmaps 64 KiB: many short holds.
    Map,
    /// Changes the protection of a large populated area: few long holds.
    #[serde(rename = "mprotect")]
    Protect,
    /// Starts threads and waits for their end.
    Thread,
}

impl Storm {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::None, Self::Spin, Self::Map, Self::Protect, Self::Thread];

    /// Its name on command lines and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Spin => "spin",
            Self::Map => "map",
            Self::Protect => "mprotect",
            Self::Thread => "thread",
        }
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Storm {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|storm| storm.name() == text)
            .ok_or_else(|| format!("'{text}' is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Bytes that [`Storm::Map`] maps.
const MAP_BYTES: usize = 16 * PAGE_BYTES;
/// Turns of the control between two looks at the flag.
const SPINS: u32 = 1_000;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    operations: AtomicU64,
    /// The first error; the storm goes on without that thread.
    failed: AtomicBool,
}

/// Running storm threads. They end when it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts `threads` of them. Each protects its share of `protect_bytes`, which are populated before this
    /// returns. With `model`, each operation holds that lock for writing.
    pub(super) fn start(
        storm: Storm,
        threads: usize,
        protect_bytes: usize,
        model: Option<&Arc<QueueLock>>,
    ) -> io::Result<Self> {
        let mut running = Self { shared: Arc::default(), threads: vec![] };
        if storm == Storm::None {
            return Ok(running);
        }
        for number in 0..threads {
            let bytes = match storm {
                Storm::Protect => (protect_bytes / threads).next_multiple_of(PAGE_BYTES).max(PAGE_BYTES),
                _ => PAGE_BYTES,
            };
            let area = Area::of_small_pages(bytes)?;
            area.touch();
            let (shared, model) = (running.shared.clone(), model.cloned());
            let thread = thread::Builder::new().name(format!("storm-{number}"));
            let thread = thread.spawn(move || rage(storm, &shared, &area, model.as_deref()))?;
            running.threads.push(thread);
        }
        Ok(running)
    }

    /// Operations so far.
    pub(super) fn operations(&self) -> u64 {
        self.shared.operations.load(Ordering::Relaxed)
    }

    /// Whether a thread had to give up, because the system refused what it does.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

fn rage(storm: Storm, shared: &Shared, area: &Area, model: Option<&QueueLock>) {
    pin(Place::NotFirst);
    let mut number = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let operation = || operate(storm, area, number);
        let result = match model {
            Some(lock) if storm != Storm::Spin => lock.write(operation),
            _ => operation(),
        };
        if result.is_err() {
            shared.failed.store(true, Ordering::Relaxed);
            return;
        }
        number += 1;
        shared.operations.fetch_add(1, Ordering::Relaxed);
    }
}

fn operate(storm: Storm, area: &Area, number: u64) -> io::Result<()> {
    match storm {
        Storm::None | Storm::Spin => {
            (0..SPINS).for_each(|_| hint::spin_loop());
            Ok(())
        }
        Storm::Map => {
            let mapped = Area::new(MAP_BYTES)?;
            mapped.touch_page(0);
            Ok(())
        }
        Storm::Protect => area.set_writable(!number.is_multiple_of(2)),
        Storm::Thread => {
            let thread = thread::Builder::new().name("storm-short".into()).spawn(|| ())?;
            thread.join().map_err(|_| io::ErrorKind::Other.into())
        }
    }
}

/// Where a thread may run.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// On the first of the processors that the process may use.
    First,
    /// On the others.
    NotFirst,
}

/// Has the calling thread run there, if there is more than one processor. Whether it does.
pub(super) fn pin(place: Place) -> bool {
    let this = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else { return false };
    let processors: Vec<_> =
        (0..CpuSet::count()).filter(|&processor| allowed.is_set(processor).unwrap_or(false)).collect();
    let [first, others @ ..] = processors.as_slice() else { return false };
    if others.is_empty() {
        return false;
    }
    let chosen = match place {
        Place::First => std::slice::from_ref(first),
        Place::NotFirst => others,
    };
    let mut set = CpuSet::new();
    chosen.iter().all(|&processor| set.set(processor).is_ok()) && sched_setaffinity(this, &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storms_have_names() {
        for storm in Storm::ALL {
            assert_eq!(storm.name().parse(), Ok(storm));
        }
        assert!("hail".parse::<Storm>().unwrap_err().contains("mprotect"));
    }

    #[test]
    fn every_storm_does_something_and_ends() {
        for storm in Storm::ALL.into_iter().skip(1) {
            for model in [None, Some(Arc::new(QueueLock::default()))] {
                let running = Running::start(storm, 2, 64 * PAGE_BYTES, model.as_ref()).unwrap();
                while running.operations() < 10 {
                    assert!(!running.has_failed(), "{storm}");
                    thread::yield_now();
                }
            }
        }
    }
}
