//! Loads the four policies with the same storms, and prints a table: `mmap-lock-model [SECONDS]` for each row.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mmap_lock_model::policy::{
    AttemptOrMmapLock, LockUnderMmapLock, MmapLock, Policy, SequenceUnderMmapLock,
};
use mmap_lock_model::service::copy;
use mmap_lock_model::space::{Space, Width};

const POLICIES: [&dyn Policy; 4] =
    [&MmapLock, &AttemptOrMmapLock, &SequenceUnderMmapLock, &LockUnderMmapLock];
/// How long the long hold keeps `mmap_lock` for writing.
const HOLD: Duration = Duration::from_millis(2);
/// What a COPY costs under its locks.
const WORK: Duration = Duration::from_micros(1);
/// Where the storm maps, unmaps and protects: away from the pages that are copied.
const ELSEWHERE: usize = 1 << 20;

/// What another thread does meanwhile.
#[derive(Copy, Clone, Debug)]
enum Storm {
    Spinner,
    MapUnmap,
    LongProtect,
}

impl Storm {
    const ALL: [Self; 3] = [Self::Spinner, Self::MapUnmap, Self::LongProtect];

    const fn name(self) -> &'static str {
        match self {
            Self::Spinner => "spinner only",
            Self::MapUnmap => "map/unmap",
            Self::LongProtect => "mprotect, 2 ms",
        }
    }

    fn step(self, space: &Space) {
        let found = match self {
            Self::Spinner => {
                spin(WORK);
                Ok(())
            }
            Self::MapUnmap => {
                space.map(2 * ELSEWHERE, 16, true);
                space.unmap(2 * ELSEWHERE, false)
            }
            Self::LongProtect => {
                let answer = space.protect(ELSEWHERE, true, || thread::sleep(HOLD));
                thread::sleep(HOLD / 4);
                answer
            }
        };
        assert_eq!(found, Ok(()), "only the storm changes what it maps");
    }
}

fn spin(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Copies for `time` beside the storm, and prints a row.
fn row(policy: &dyn Policy, storm: Storm, time: Duration) {
    let space = Space::new(Width::ENDLESS);
    space.map(0, 8, true);
    space.map(ELSEWHERE, 16, true);
    let is_over = AtomicBool::new(false);
    let mut latencies = Histogram::<u64>::new(3).expect("a valid precision");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                storm.step(&space);
            }
        });
        let begin = Instant::now();
        while begin.elapsed() < time {
            let before = Instant::now();
            let answer = copy(&space, policy, 0, || spin(WORK));
            // Not `saturating_record`, which does not let the histogram grow.
            latencies.record(before.elapsed().as_nanos() as u64).expect("a histogram that grows");
            assert_eq!(answer, Ok(()), "nothing touches this VMA");
            assert!(space.take_page(0), "the page was put there");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{:<15} {:<31} {:>9.0} {:>8.1} {:>8.1} {:>9.1} {:>9} {:>8} {:>9} {:>8}",
        storm.name(),
        policy.name(),
        latencies.len() as f64 / time.as_secs_f64(),
        micros(latencies.value_at_quantile(0.5)),
        micros(latencies.value_at_quantile(0.99)),
        micros(latencies.max()),
        count(&space.counts.reads),
        count(&space.counts.writes),
        count(&space.counts.attempts),
        count(&space.counts.failures),
    );
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "1".to_owned());
    let seconds = argument.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    let Some(seconds) = seconds else {
        eprintln!("mmap-lock-model: {argument}: not a number of seconds between 0.01 and 3600");
        return ExitCode::from(2);
    };
    println!(
        "{:<15} {:<31} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8} {:>9} {:>8}",
        "storm",
        "policy",
        "copies/s",
        "p50 µs",
        "p99 µs",
        "max µs",
        "reads",
        "writes",
        "attempts",
        "failures"
    );
    for storm in Storm::ALL {
        for policy in POLICIES {
            row(policy, storm, Duration::from_secs_f64(seconds));
        }
    }
    ExitCode::SUCCESS
}
