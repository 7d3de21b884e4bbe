//! Warm memory. In a virtual machine the first touch of a page that the host has not backed yet costs
//! ten times what the kernel needs for it, and the host takes back what lies free for a while. So
//! whatever is about to be used is touched, as ordinary memory, right before the heap gets it.

use std::hint::black_box;

/// Bytes touched at a time: it need not be one allocation, only the same pages of the system's.
const PIECE: usize = 256 << 20;
const PAGE: usize = 4096;

/// Touches `bytes` of memory, all of them at the same time, and gives them back to the system.
pub fn warm(bytes: u64) {
    let mut pieces: Vec<Vec<u8>> = (0..bytes.div_ceil(PIECE as u64)).map(|_| vec![0; PIECE]).collect();
    for piece in &mut pieces {
        piece.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    }
    black_box(&pieces);
}
