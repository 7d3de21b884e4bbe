//! Loads the four policies with the same storms, and prints a table.
//!
//! One thread copies a page and moves it on, over and over; storm threads take `mmap_lock` for writing, away from
//! its VMAs, as threads of another part of the program would.

use std::hint::spin_loop;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use mmap_lock_model::policy::{
    AttemptOrMmapLock, LockUnderMmapLock, MmapLock, Policy, SequenceUnderMmapLock,
};
use mmap_lock_model::rule::Options;
use mmap_lock_model::service::{copy, move_pages};
use mmap_lock_model::space::Space;

const POLICIES: [&dyn Policy; 4] =
    [&MmapLock, &AttemptOrMmapLock, &SequenceUnderMmapLock, &LockUnderMmapLock];
/// How long the long hold keeps `mmap_lock` for writing.
const HOLD: Duration = Duration::from_millis(2);
/// What a page costs under the locks of its operation.
const WORK: Duration = Duration::from_micros(1);
/// Pages of a VMA.
const PAGES: usize = 16;
/// Where pages are copied to.
const COPIED: usize = 0;
/// Where they are moved to: another VMA.
const MOVED: usize = 4 * PAGES;
/// Where storm threads map, unmap and protect, each in a part of its own.
const ELSEWHERE: usize = 1 << 20;
/// Longest time for a row.
const MOST_SECONDS: f64 = 3_600.0;
/// Most storm threads.
const MOST_STORMS: u64 = 64;

/// Four ways to lock the VMAs of userfaultfd operations, beside threads that take `mmap_lock` for writing.
#[derive(Debug, Parser)]
#[command(name = "mmap-lock-model", version)]
struct Arguments {
    /// Length of each of the 16 rows
    #[arg(default_value = "1", value_parser = parse_seconds, allow_negative_numbers = true)]
    seconds: Duration,
    /// Storm threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=MOST_STORMS))]
    storms: u64,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.01..=MOST_SECONDS).contains(&seconds) {
        return Err(format!("not between 0.01 and {MOST_SECONDS} seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// What other threads do meanwhile.
#[derive(Copy, Clone, Debug)]
enum Storm {
    /// The control: competes for processors only.
    Spinner,
    MapUnmap,
    /// A stack is mapped, its guard page split off and protected, and both are unmapped.
    ThreadStartExit,
    LongProtect,
}

impl Storm {
    const ALL: [Self; 4] = [Self::Spinner, Self::MapUnmap, Self::ThreadStartExit, Self::LongProtect];

    const fn name(self) -> &'static str {
        match self {
            Self::Spinner => "spinner only",
            Self::MapUnmap => "map/unmap",
            Self::ThreadStartExit => "thread start/exit",
            Self::LongProtect => "mprotect, 2 ms",
        }
    }

    /// Once, in the part of the space that begins at `part` with a VMA.
    fn step(self, space: &Space, part: usize) {
        let own = part + 2 * PAGES;
        let found = match self {
            Self::Spinner => {
                spin(WORK);
                Ok(())
            }
            Self::MapUnmap => {
                space.map(own..own + PAGES, true);
                space.unmap(own, false)
            }
            Self::ThreadStartExit => {
                space.map(own..own + PAGES, true);
                space
                    .split(own + 1)
                    .and_then(|()| space.protect(own, false, || ()))
                    .and_then(|()| space.unmap(own, false))
                    .and_then(|()| space.unmap(own + 1, false))
            }
            Self::LongProtect => {
                let answer = space.protect(part, true, || thread::sleep(HOLD));
                thread::sleep(HOLD / 4);
                answer
            }
        };
        assert_eq!(found, Ok(()), "only this thread changes what is in its part");
    }
}

fn spin(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        spin_loop();
    }
}

/// Latencies of one kind of operation.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        Self(Histogram::new(3).expect("a valid precision"))
    }

    fn time<R>(&mut self, operation: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = operation();
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Not `saturating_record`, which does not let the histogram grow.
        self.0.record(nanoseconds).expect("a histogram that grows");
        result
    }

    /// Median, 99th percentile and maximum, in microseconds.
    fn columns(&self) -> String {
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let at = |quantile| micros(self.0.value_at_quantile(quantile));
        format!("{:>7.1} {:>8.1} {:>9.1}", at(0.5), at(0.99), micros(self.0.max()))
    }
}

/// Copies and moves for a while beside the storm, and prints a row.
fn row(policy: &dyn Policy, storm: Storm, arguments: &Arguments) {
    let space = Space::new(Options::SOUND);
    let part = |storm: u64| ELSEWHERE * (1 + usize::try_from(storm).expect("a small number"));
    for start in [COPIED, MOVED].into_iter().chain((0..arguments.storms).map(part)) {
        space.map(start..start + PAGES, true);
    }
    let before = space.counts.writes.load(Ordering::Relaxed);
    let is_over = AtomicBool::new(false);
    let (mut copies, mut moves) = (Latencies::new(), Latencies::new());
    thread::scope(|scope| {
        for own in 0..arguments.storms {
            let (space, is_over) = (&space, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    storm.step(space, part(own));
                }
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < arguments.seconds {
            let copied = copies.time(|| copy(&space, policy, COPIED..COPIED + 1, || spin(WORK)));
            let moved = moves.time(|| move_pages(&space, policy, MOVED, COPIED, 1, || spin(WORK)));
            assert_eq!((copied, moved), (Ok(1), Ok(1)), "no storm touches these VMAs");
            space.zap(&(MOVED..MOVED + 1));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counts = &space.counts;
    println!(
        "{:<18} {:<31} {:>8.0} {} {} {:>8} {:>8} {:>9} {:>8}",
        storm.name(),
        policy.name(),
        (copies.0.len() + moves.0.len()) as f64 / arguments.seconds.as_secs_f64(),
        copies.columns(),
        moves.columns(),
        count(&counts.reads),
        count(&counts.writes) - before,
        count(&counts.attempts),
        count(&counts.failures),
    );
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            // The first line names the value and what is wrong with it; the rest is hints.
            let line = text.lines().next().unwrap_or_default();
            eprintln!("mmap-lock-model: {}", line.trim_start_matches("error: "));
            return ExitCode::from(2);
        }
        Err(help) => {
            // Help or version. If standard output is closed, nobody wants it.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    println!(
        "{:<18} {:<31} {:>8} {:^26} {:^26} {:>17} {:>18}",
        "", "", "", "COPY, µs", "MOVE, µs", "mmap_lock", "per VMA"
    );
    println!(
        "{:<18} {:<31} {:>8} {:>7} {:>8} {:>9} {:>7} {:>8} {:>9} {:>8} {:>8} {:>9} {:>8}",
        "storm",
        "policy",
        "pages/s",
        "p50",
        "p99",
        "max",
        "p50",
        "p99",
        "max",
        "reads",
        "writes",
        "attempts",
        "failures"
    );
    for storm in Storm::ALL {
        for policy in POLICIES {
            row(policy, storm, &arguments);
        }
    }
    ExitCode::SUCCESS
}
