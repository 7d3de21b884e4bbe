//! Thread churn: under stress, threads that attach to the heap, allocate a little, and detach, one after the other.
//!
//! For [`StressMode::ThreadChurn`]. Each attachment is a thread of its own, which lives for some hundred allocations:
//! long enough to be in a handshake, a pause or a fault now and then.

use std::io;
use std::sync::Weak;
use std::thread;

use strikeslip_gc::options::StressMode;

use crate::handle::Local;
use crate::heap::{Heap, Inner};
use crate::mutator::Mutator;
use crate::object;
use crate::object::{Field, Slot};

object! {
    /// What the threads allocate.
    struct Link {
        next: Slot<Link>,
        number: Field<u64>,
    }
}

/// Objects that a thread allocates.
const LINKS: u64 = 300;

/// Starts the thread that starts the others, until the heap is gone.
///
/// # Errors
/// The system refuses the thread.
pub(crate) fn start(heap: Weak<Inner>) -> io::Result<()> {
    let name = || thread::Builder::new().name("strikeslip-churn".into());
    name().spawn(move || {
        while let Some(heap) = heap.upgrade().map(Heap::from_inner) {
            let stress = heap.clone();
            let Ok(thread) = name().spawn(move || live(&heap)) else { return };
            // A panic of the thread has been printed, and is the process's end.
            if thread.join().is_err() {
                std::process::abort();
            }
            stress.collector().statistics().stress.add(StressMode::ThreadChurn, 1);
        }
    })?;
    Ok(())
}

/// One thread's life: a list, checked.
fn live(heap: &Heap) {
    // Without memory for its roots, or for all of its list, a life is shorter.
    let _ = heap.attach(|m| {
        m.scope(|m, s| {
            let Ok(list) = m.alloc::<Link>(s) else { return };
            let length = (1..LINKS).find(|&number| !add(m, &list, number)).unwrap_or(LINKS);
            let mut next = Some(list.get(m));
            for number in (0..length).rev() {
                let link = next.expect("the list is not shorter");
                assert_eq!(link.number.get(), number, "a list of a thread that comes and goes");
                next = link.as_ref().next.load();
            }
        });
    });
}

/// Adds a link before the others. False: there is no memory.
fn add(m: &mut Mutator, list: &Local<'_, Link>, number: u64) -> bool {
    m.scope(|m, inner| {
        let Ok(link) = m.alloc::<Link>(inner) else { return false };
        let link = link.get(m);
        link.number.set(number);
        link.next.store(m, Some(list.get(m)));
        list.set(m, link);
        true
    })
}
