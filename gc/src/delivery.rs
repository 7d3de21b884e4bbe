//! Delivery: how a mutator's fault reaches [`serve_fault`].
//!
//! - *In place*: SIGBUS; the faulting mutator serves itself in the signal handler.
//! - *Pool*: a reader thread takes fault events from the userfaultfd and hands them to the worker
//!   pool; workers that are building look for them between two units.
//!
//! Invariants: a delivery is started before anything is registered and stopped after everything is
//! unregistered; it holds the heap's [`Core`] alive.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use rayon::ThreadPool;

use crate::address::ToAddress;
use crate::core::Core;
use crate::geometry::STRIDE_BYTES;
use crate::reclaim::release_drained;
use crate::region::Service;
use crate::serve::serve_fault;
use crate::sync::SegQueue;
use crate::sys::sigbus::{self, Registration};
use crate::sys::uffd::{FaultBatch, FaultReader, Waited};

/// A running delivery. Dropping it stops it.
#[derive(Debug)]
pub enum Running {
    /// The address range is registered with the process's SIGBUS handler.
    InPlace {
        /// Ends it when dropped; after that nobody uses `core`.
        _registration: Registration,
        /// What the handler is given.
        _core: Arc<Core>,
    },
    /// A reader thread runs.
    Pool {
        /// To stop it.
        reader: Arc<FaultReader>,
        /// To join it.
        thread: Option<JoinHandle<()>>,
    },
}

/// Faults on their way from the reader to the pool.
#[derive(Debug, Default)]
pub struct FaultQueue(SegQueue<ToAddress>);

impl FaultQueue {
    /// What the reader does with a fault: it waits here for the pool, or is served at once.
    pub(crate) fn accept(&self, core: &Core, address: ToAddress) {
        self.deliver(std::iter::once(address), serve_if_zero(core), || ());
    }

    /// Serves all faults that wait, and gives back what was drained by it.
    pub fn drain(&self, core: &Core) {
        self.drain_with(|address| {
            serve_fault(core, address);
            release_drained(core);
        });
    }

    pub(crate) fn drain_with(&self, serve: impl Fn(ToAddress)) {
        while let Some(address) = self.0.pop() {
            serve(address);
        }
    }

    /// What the reader does with faults: those that `serve_at_once` does not serve are queued, and `spawn` has
    /// the queue drained by a thread of the pool.
    pub(crate) fn deliver(
        &self,
        faults: impl Iterator<Item = ToAddress>,
        serve_at_once: impl Fn(ToAddress) -> bool,
        spawn: impl FnOnce(),
    ) {
        faults.filter(|&address| !serve_at_once(address)).for_each(|address| self.0.push(address));
        spawn();
    }
}

/// # Safety
/// `context` points to a live [`Core`].
unsafe fn serve_in_place(context: *const (), address: usize) -> bool {
    // SAFETY: the caller's contract; `Running::InPlace` keeps the core alive while registered.
    let core = unsafe { &*context.cast::<Core>() };
    serve_fault(core, ToAddress::new(address));
    true
}

/// Starts delivery in place.
///
/// # Errors
/// The system refuses the handler, or too many heaps have one.
pub fn start_in_place(core: &Arc<Core>) -> Result<Running, sigbus::InstallError> {
    let range = core.space.range;
    let bytes = range.windows() as usize * STRIDE_BYTES;
    // SAFETY: `serve_in_place` is async-signal-safe (see `serve`), and the core lives until the
    // registration was dropped: fields drop in the order they are declared.
    let registration =
        unsafe { sigbus::install_range(range.base(), bytes, serve_in_place, Arc::as_ptr(core).cast())? };
    Ok(Running::InPlace { _registration: registration, _core: core.clone() })
}

/// Starts delivery by the pool.
///
/// # Errors
/// The system refuses the thread.
pub fn start_pool(
    core: &Arc<Core>,
    reader: Arc<FaultReader>,
    queue: &Arc<FaultQueue>,
    pool: &Arc<ThreadPool>,
) -> io::Result<Running> {
    let (core, queue, pool) = (core.clone(), queue.clone(), pool.clone());
    let thread = std::thread::Builder::new().name("strikeslip-reader".into()).spawn({
        let reader = reader.clone();
        move || read_faults(&core, &reader, &queue, &pool)
    })?;
    Ok(Running::Pool { reader, thread: Some(thread) })
}

fn read_faults(core: &Arc<Core>, reader: &FaultReader, queue: &Arc<FaultQueue>, pool: &ThreadPool) {
    let mut batch = FaultBatch::new();
    loop {
        match reader.wait(&mut batch) {
            Ok(Waited::Stopped) => return,
            Ok(Waited::TimedOut) => {}
            Ok(Waited::Faults) => {
                let faults = batch.addresses().iter().copied();
                queue.deliver(faults, serve_if_zero(core), || {
                    let (core, queue) = (core.clone(), queue.clone());
                    pool.spawn(move || queue.drain(&core));
                });
            }
            // Mutators wait for their pages, and nobody would hear of it.
            Err(error) => {
                crate::sys::die(format_args!("strikeslip: fault events cannot be read: {error}"));
            }
        }
    }
}

/// Serves a fault if zeros are all it needs. A worker that reads a page of from-space that nobody ever wrote
/// faults too, if the window is registered; it must not wait for a worker.
fn serve_if_zero(core: &Core) -> impl Fn(ToAddress) -> bool {
    |address| {
        let is_zero = core.space.regions.service(core.space.range.region(address)) == Service::Zero;
        if is_zero {
            serve_fault(core, address);
        }
        is_zero
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Pool { reader, thread } = self {
            reader.stop();
            if let Some(thread) = thread.take() {
                // A panicking reader has ended the process already.
                let _ = thread.join();
            }
        }
    }
}
