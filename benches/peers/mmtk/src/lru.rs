//! A window of buffers: each push takes the place of the oldest.

use peers_common::options::{Common, Lru};
use peers_common::random::{Checksum, GOLDEN};
use peers_common::report::Outcome;
use peers_common::timing::Timed;

use crate::heap::{Handle, Heap};
use crate::world::WORLD;

struct Window {
    buffers: Handle,
    size: usize,
    bytes: usize,
    pushed: u64,
    checksum: Checksum,
}

impl Window {
    fn push(&mut self, heap: &mut Heap) {
        let number = self.pushed;
        self.pushed += 1;
        let buffer = heap.alloc(0, self.bytes);
        buffer.fill((number.wrapping_mul(GOLDEN) >> 56) as u8);
        let (buffers, at) = (heap.get(self.buffers), number as usize % self.size);
        let old = buffers.load(at);
        heap.store(buffers, at, Some(buffer));
        if let Some(old) = old {
            self.checksum.fold(u64::from(old.byte(number as usize % self.bytes)));
        }
    }
}

pub fn run(heap: &mut Heap, parameters: Lru, common: &Common) -> Outcome {
    let Lru { window: size, bytes, pushes } = parameters;
    let buffers = heap.alloc(size, 0);
    let buffers = heap.push(buffers);
    let mut window = Window { buffers, size, bytes, pushed: 0, checksum: Checksum::default() };
    for _ in 0..size {
        window.push(heap);
    }
    WORLD.count_pauses();
    let mut timed = Timed::begin(common.interval_ns, pushes, 100);
    for _ in 0..pushes {
        timed.wait(|| heap.poll());
        window.push(heap);
        timed.done();
    }
    let timings = timed.end();
    let (buffers, mut checksum) = (heap.pop(), window.checksum);
    for buffer in (0..size).filter_map(|at| buffers.load(at)) {
        checksum.fold(u64::from(buffer.byte(bytes - 1)));
    }
    Outcome { checksum, operations: pushes, timings }
}
