//! What the scheduler says about threads of this process: `/proc/self/task/*/schedstat` and `sched`.
//!
//! Of the wall time, a thread's processor clock tells what it ran (`schedstat` does too, but for a thread that is
//! running it is late by up to a tick), and `schedstat` what it stood in the run queue; the rest it slept, for
//! whatever reason. `sched` counts voluntary switches, and uninterruptible sleep where the kernel has
//! schedstats (which are turned on for the experiment where that is allowed, and off again).

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::figures::Sleep;

/// Where the system turns its statistics of sleep on and off.
const SWITCH: &str = "/proc/sys/kernel/sched_schedstats";

/// Keeps the kernel's statistics of sleep on.
#[derive(Debug)]
pub(super) struct SchedulerStatistics {
    /// Whether they were off before.
    was_off: bool,
}

impl SchedulerStatistics {
    /// Turns them on. `Err`: one line why there are none.
    pub(super) fn on() -> Result<Self, String> {
        let state = fs::read_to_string(SWITCH)
            .map_err(|_| "uninterruptible sleep is not counted: this kernel has no schedstats".to_owned())?;
        let was_off = state.trim() == "0";
        if was_off {
            fs::write(SWITCH, "1")
                .map_err(|error| format!("uninterruptible sleep is not counted: {SWITCH}: {error}"))?;
        }
        Ok(Self { was_off })
    }
}

impl Drop for SchedulerStatistics {
    fn drop(&mut self) {
        if self.was_off {
            // They cost a little; nothing else depends on it.
            let _ = fs::write(SWITCH, "0");
        }
    }
}

/// Threads of this process whose names (the first 15 bytes of them) begin so.
pub(super) fn named(prefix: &str) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return vec![] };
    tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            name.starts_with(prefix).then(|| task.file_name().to_str()?.parse().ok())?
        })
        .collect()
}

/// Threads that are watched together. Their files are opened once: a sample is taken while others wait.
#[derive(Debug)]
pub(super) struct Group {
    threads: Vec<Watched>,
    before: Option<Sample>,
    total: Sleep,
    /// Of `total`, and below 0 as long as clocks that are read one after another say so.
    asleep_ns: i64,
}

/// A thread, and its files.
#[derive(Debug)]
struct Watched {
    id: i32,
    schedstat: Option<File>,
    sched: Option<File>,
}

/// Sums over the threads of a group at one time.
#[derive(Copy, Clone, Debug)]
struct Sample {
    at: Instant,
    /// On a processor or in the run queue.
    busy_ns: Option<u64>,
    blocked_ns: Option<u64>,
    voluntary_switches: Option<u64>,
}

impl Group {
    pub(super) fn new(threads: &[i32]) -> Self {
        let open = |tid, name| File::open(format!("/proc/self/task/{tid}/{name}")).ok();
        let watched = |&id: &i32| Watched { id, schedstat: open(id, "schedstat"), sched: open(id, "sched") };
        let zero = || Some(0);
        let total = Sleep { wall_ns: 0, asleep_ns: zero(), blocked_ns: zero(), voluntary_switches: zero() };
        let group =
            Self { threads: threads.iter().map(watched).collect(), before: None, total, asleep_ns: 0 };
        // Once, so that the pages it needs are there: the first fault in a new thread's stack may sleep.
        let _ = group.sample();
        group
    }

    /// From now on, sleep counts.
    pub(super) fn begin(&mut self) {
        self.before = Some(self.sample());
    }

    /// Until now.
    pub(super) fn end(&mut self) {
        let Some(before) = self.before.take() else { return };
        let now = self.sample();
        let wall_ns =
            u64::try_from((now.at - before.at).as_nanos()).unwrap_or(u64::MAX) * self.threads.len() as u64;
        let grown = |now: Option<u64>, before| Some(now?.saturating_sub(before?));
        self.total.wall_ns += wall_ns;
        let total = &mut self.total;
        if let Some(busy_ns) = grown(now.busy_ns, before.busy_ns) {
            self.asleep_ns += wall_ns.cast_signed() - busy_ns.cast_signed();
        } else {
            total.asleep_ns = None;
        }
        total.blocked_ns = sum(total.blocked_ns, grown(now.blocked_ns, before.blocked_ns));
        let switches = grown(now.voluntary_switches, before.voluntary_switches);
        total.voluntary_switches = sum(total.voluntary_switches, switches);
    }

    /// Sleep between each [`Self::begin`] and [`Self::end`] so far.
    pub(super) fn total(&self) -> Sleep {
        let mut total = self.total.clone();
        total.asleep_ns = total.asleep_ns.map(|_| self.asleep_ns.max(0).cast_unsigned());
        total
    }

    fn sample(&self) -> Sample {
        let mut sample =
            Sample { at: Instant::now(), busy_ns: Some(0), blocked_ns: Some(0), voluntary_switches: Some(0) };
        let mut buffer = [0; 8192];
        for Watched { id, schedstat, sched } in &self.threads {
            let text = read(schedstat.as_ref(), &mut buffer);
            let queue_ns = text.and_then(parse_run_queue);
            sample.busy_ns = sum(sample.busy_ns, sum(queue_ns, processor_ns(*id)));
            let text = read(sched.as_ref(), &mut buffer);
            sample.blocked_ns =
                sum(sample.blocked_ns, text.and_then(|text| parse_milliseconds(text, "sum_block_runtime")));
            sample.voluntary_switches = sum(
                sample.voluntary_switches,
                text.and_then(|text| parse_count(text, "nr_voluntary_switches")),
            );
        }
        sample
    }
}

fn sum(total: Option<u64>, more: Option<u64>) -> Option<u64> {
    Some(total? + more?)
}

fn read<'a>(file: Option<&File>, buffer: &'a mut [u8]) -> Option<&'a str> {
    let length = file?.read_at(buffer, 0).ok()?;
    std::str::from_utf8(&buffer[..length]).ok()
}

/// Time that a thread of this process has run.
fn processor_ns(thread: i32) -> Option<u64> {
    // The kernel's encoding of "the scheduler's clock of this thread" (`CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED`).
    let clock = (!thread << 3) | 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one structure, which is alive.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    Some(u64::try_from(time.tv_sec).ok()? * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?)
}

/// Time in the run queue: the second number.
fn parse_run_queue(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The value of a line `..key : value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim_end().rsplit('.').next()? == key).then(|| value.trim())
    })
}

fn parse_count(text: &str, key: &str) -> Option<u64> {
    value(text, key)?.parse().ok()
}

/// Milliseconds with six decimals, as nanoseconds.
fn parse_milliseconds(text: &str, key: &str) -> Option<u64> {
    let (whole, part) = value(text, key)?.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 1_000_000 + part.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const SCHED: &str = "name (1, #threads: 1)\n----\nse.statistics.sum_block_runtime  :  12.000345\n\
                         nr_voluntary_switches       :          17\nnr_involuntary_switches : 3\n";

    #[test]
    fn files_of_the_scheduler_are_read() {
        assert_eq!(parse_run_queue("100 20 3\n"), Some(20));
        assert_eq!(parse_run_queue(""), None);
        assert_eq!(parse_milliseconds(SCHED, "sum_block_runtime"), Some(12_000_345));
        assert_eq!(
            parse_milliseconds(&SCHED.replace("se.statistics.", ""), "sum_block_runtime"),
            Some(12_000_345)
        );
        assert_eq!(parse_count(SCHED, "nr_voluntary_switches"), Some(17));
        assert_eq!(parse_count(SCHED, "switches"), None);
    }

    #[test]
    fn a_sleeping_thread_is_seen_asleep_and_its_time_awake_is_not_counted() {
        let (wake, woken) = mpsc::channel::<()>();
        let sleeper = thread::Builder::new().name("schedtest-1".into());
        let sleeper = sleeper.spawn(move || woken.recv()).unwrap();
        let mut ids = vec![];
        while ids.is_empty() {
            ids = named("schedtest");
        }
        let mut group = Group::new(&ids);
        for _ in 0..2 {
            group.begin();
            thread::sleep(Duration::from_millis(20));
            group.end();
        }
        drop(wake);
        assert!(sleeper.join().unwrap().is_err());
        let total = group.total();
        assert!(total.wall_ns >= 40_000_000);
        assert!(total.asleep_ns.is_some_and(|asleep| asleep > total.wall_ns / 2), "{total:?}");
    }

    #[test]
    fn a_thread_that_computes_is_not_asleep() {
        let mut group = Group::new(&[strikeslip::gc::sys::sched::thread_id()]);
        for _ in 0..20 {
            group.begin();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(2) {
                std::hint::spin_loop();
            }
            group.end();
        }
        let total = group.total();
        assert!(total.wall_ns >= 40_000_000);
        assert!(total.asleep_ns.is_some_and(|asleep| asleep < total.wall_ns / 2), "{total:?}");
    }
}
