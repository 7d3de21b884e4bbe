//! A window of buffers: each push takes the place of the oldest.

use peers_common::options::{Common, Lru};
use peers_common::random::{Checksum, GOLDEN};
use peers_common::report::Outcome;
use peers_common::timing::Timed;

struct Window {
    buffers: Vec<Option<Box<[u8]>>>,
    bytes: usize,
    pushed: u64,
    checksum: Checksum,
}

impl Window {
    fn push(&mut self) {
        let number = self.pushed;
        self.pushed += 1;
        let buffer = vec![(number.wrapping_mul(GOLDEN) >> 56) as u8; self.bytes].into_boxed_slice();
        let at = number as usize % self.buffers.len();
        if let Some(old) = self.buffers[at].replace(buffer) {
            self.checksum.fold(u64::from(old[number as usize % self.bytes]));
        }
    }
}

pub fn run(parameters: Lru, common: &Common) -> Outcome {
    let Lru { window, bytes, pushes } = parameters;
    let mut window = Window {
        buffers: (0..window).map(|_| None).collect(),
        bytes,
        pushed: 0,
        checksum: Checksum::default(),
    };
    for _ in 0..window.buffers.len() {
        window.push();
    }
    let mut timed = Timed::begin(common.interval_ns, pushes, 100);
    for _ in 0..pushes {
        timed.wait(|| ());
        window.push();
        timed.done();
    }
    let timings = timed.end();
    let Window { buffers, mut checksum, .. } = window;
    for buffer in buffers.iter().flatten() {
        checksum.fold(u64::from(buffer[bytes - 1]));
    }
    Outcome { checksum, operations: pushes, timings }
}
