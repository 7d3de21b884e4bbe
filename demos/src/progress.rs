//! The live progress line on standard error: redrawn on a terminal, a line every few seconds elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use strikeslip::Heap;

use crate::units::Bytes;
use crate::workload::Meter;

const REDRAW: Duration = Duration::from_millis(250);
const REPEAT: Duration = Duration::from_secs(5);

/// Runs `body`, and shows progress meanwhile unless `quiet`.
pub fn shown<T>(heap: &Heap, meter: &Meter, label: &str, quiet: bool, body: impl FnOnce() -> T) -> T {
    if quiet {
        return body();
    }
    thread::scope(|scope| {
        // Dropped when `body` returns or panics, which ends the thread.
        let (running, ended) = mpsc::channel::<()>();
        scope.spawn(move || show(heap, meter, label, &ended));
        let result = body();
        drop(running);
        result
    })
}

fn show(heap: &Heap, meter: &Meter, label: &str, ended: &mpsc::Receiver<()>) {
    let terminal = io::stderr().is_terminal();
    let period = if terminal { REDRAW } else { REPEAT };
    let start = Instant::now();
    let mut before = (start, 0);
    while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        let now = (Instant::now(), meter.operations());
        let rate = (now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64();
        before = now;
        let line = line(heap, label, start.elapsed(), rate);
        // Whoever closed standard error does not want to see it.
        let _ =
            if terminal { write!(io::stderr(), "\r\x1b[2K{line}") } else { writeln!(io::stderr(), "{line}") };
    }
    if terminal {
        let _ = write!(io::stderr(), "\r\x1b[2K");
    }
}

fn line(heap: &Heap, label: &str, elapsed: Duration, rate: f64) -> String {
    let snapshot = heap.snapshot();
    format!(
        "{label}  {:5.1} s  {rate:9.0} operations/s  heap {} of {}  {} cycles  {} faults",
        elapsed.as_secs_f64(),
        Bytes(snapshot.memory.used_bytes),
        Bytes(snapshot.memory.limit_bytes),
        snapshot.counters.cycles,
        snapshot.counters.mutator_faults,
    )
}
