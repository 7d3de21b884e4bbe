//! Reader against pool: each fault is served once, by a worker between two units or by the job that the
//! reader spawns.

use std::sync::Arc;

use loom::thread;

use crate::address::ToAddress;
use crate::delivery::FaultQueue;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::model::{assert_finds, check};

#[derive(Default)]
struct Faults {
    queue: FaultQueue,
    served: [AtomicU32; 2],
}

impl Faults {
    fn drain(&self) {
        self.queue.drain_with(|address| {
            self.served[address.get() / 8 - 1].fetch_add(1, Ordering::Relaxed);
        });
    }
}

fn reader_and_pool(spawns_first: bool) {
    let faults = Arc::new(Faults::default());
    let job = |faults: &Arc<Faults>| {
        let faults = faults.clone();
        thread::spawn(move || faults.drain())
    };
    let worker = job(&faults);
    let mut jobs = vec![];
    for address in [8, 16].map(ToAddress::new) {
        if spawns_first {
            jobs.push(job(&faults));
            faults.queue.deliver([address].into_iter(), |_| false, || ());
        } else {
            faults.queue.deliver([address].into_iter(), |_| false, || jobs.push(job(&faults)));
        }
    }
    worker.join().unwrap();
    jobs.into_iter().for_each(|job| job.join().unwrap());
    for served in &faults.served {
        assert_eq!(served.load(Ordering::Relaxed), 1, "each fault is served, once");
    }
}

#[test]
fn each_fault_is_served() {
    check(3, || reader_and_pool(false));
}

#[test]
fn a_job_that_is_spawned_before_its_fault_is_queued_is_found() {
    assert_finds("each fault is served, once", 3, || reader_and_pool(true));
}
