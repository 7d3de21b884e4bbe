//! Exact counts from trace events: acquisitions of `mmap_lock`, and switches to uninterruptible sleep.
//!
//! tracefs is mounted privately: as a file system that is attached nowhere and gone when its descriptor is closed
//! (`fsopen`, `fsmount`; Linux 5.2, needs `CAP_SYS_ADMIN`). Events go to a trace instance of this program's own, so
//! nothing that others trace is changed.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::figures::Traced;

/// The events that are counted.
const EVENTS: [&str; 3] =
    ["mmap_lock/mmap_lock_acquire_returned", "sched/sched_switch", "sched/sched_wakeup"];
/// Names of instances begin so; behind it is the process.
const INSTANCE: &str = "strikeslip-";
/// Buffer of each processor.
const BUFFER_KIB: &str = "8192";

/// A trace instance, off until it is turned on.
#[derive(Debug)]
pub(super) struct Tracer {
    instance: PathBuf,
    switch: Option<File>,
    /// Keeps the file system alive; dropped last.
    _tracefs: OwnedFd,
}

impl Tracer {
    /// Mounts tracefs and makes an instance. `Err`: one line why there are no exact counts.
    pub(super) fn open() -> Result<Self, String> {
        let failed = |what: &str, error: io::Error| format!("no exact counts: {what}: {error}");
        let tracefs = mount().map_err(|error| failed("tracefs cannot be mounted", error))?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", tracefs.as_raw_fd()));
        remove_stale(&root.join("instances"));
        let instance = root.join("instances").join(format!("{INSTANCE}{}", std::process::id()));
        fs::create_dir(&instance).map_err(|error| failed("no trace instance can be made", error))?;
        let mut tracer = Self { instance, switch: None, _tracefs: tracefs };
        tracer.prepare().map_err(|error| failed("trace events cannot be had", error))?;
        Ok(tracer)
    }

    fn prepare(&mut self) -> io::Result<()> {
        self.write("tracing_on", "0")?;
        // One clock for all processors: a thread is woken on another one than it slept on.
        self.write("trace_clock", "mono")?;
        self.write("buffer_size_kb", BUFFER_KIB)?;
        for event in EVENTS {
            self.write(&format!("events/{event}/enable"), "1")?;
        }
        self.switch = Some(OpenOptions::new().write(true).open(self.instance.join("tracing_on"))?);
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        // Opened for truncation: that is what empties `trace` and `set_event_pid`.
        fs::write(self.instance.join(name), text)
    }

    /// Forgets what was traced. From now on only these threads are.
    pub(super) fn watch(&self, threads: impl Iterator<Item = i32>) -> io::Result<()> {
        self.turn(false);
        let list: Vec<_> = threads.map(|thread| thread.to_string()).collect();
        self.write("set_event_pid", &list.join(" "))?;
        self.write("trace", "")
    }

    /// Turns tracing on or off. If the kernel refuses, nothing is counted; it was asked before.
    pub(super) fn turn(&self, on: bool) {
        if let Some(switch) = &self.switch {
            let _ = switch.write_at(if on { b"1" } else { b"0" }, 0);
        }
    }

    /// What was traced of each group of threads.
    pub(super) fn counts(&self, groups: &[Vec<i32>]) -> io::Result<Vec<Traced>> {
        let trace = BufReader::new(File::open(self.instance.join("trace"))?);
        let mut counter = Counter::new(groups);
        for line in trace.split(b'\n') {
            counter.count(&String::from_utf8_lossy(&line?));
        }
        let lost = self.lost_events()?;
        Ok(counter.finish(lost))
    }

    fn lost_events(&self) -> io::Result<u64> {
        let mut lost = 0;
        for processor in fs::read_dir(self.instance.join("per_cpu"))? {
            let stats = fs::read_to_string(processor?.path().join("stats"))?;
            for key in ["overrun:", "dropped events:"] {
                let value = stats.lines().find_map(|line| line.strip_prefix(key));
                lost += value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(lost)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // An instance whose files are open cannot be removed.
        self.switch = None;
        let _ = fs::remove_dir(&self.instance);
    }
}

/// Instances outlive a process that is killed: removes those.
fn remove_stale(instances: &Path) {
    let Ok(entries) = fs::read_dir(instances) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(INSTANCE));
        if process.is_some_and(|process| {
            process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists()
        }) {
            // Whoever is faster, it is gone.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// tracefs, attached nowhere.
fn mount() -> io::Result<OwnedFd> {
    const NAME: &CStr = c"tracefs";
    // SAFETY: the name is a string that ends with 0.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, NAME.as_ptr(), FSOPEN_CLOEXEC) };
    let context = descriptor(context)?;
    let no = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, no, no, 0) };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes values only.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

fn descriptor(answer: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(answer).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Counts lines of `trace`.
struct Counter {
    group_of: HashMap<i32, usize>,
    counts: Vec<Traced>,
    /// Since when threads sleep uninterruptibly, in microseconds.
    asleep: HashMap<i32, u64>,
}

impl Counter {
    fn new(groups: &[Vec<i32>]) -> Self {
        let group_of = groups.iter().enumerate();
        let group_of = group_of.flat_map(|(number, group)| group.iter().map(move |&thread| (thread, number)));
        Self {
            group_of: group_of.collect(),
            counts: vec![Traced::default(); groups.len()],
            asleep: HashMap::new(),
        }
    }

    fn count(&mut self, line: &str) {
        if let Some(event) = Event::parse(line) {
            self.add(&event);
        }
    }

    fn add(&mut self, event: &Event<'_>) -> Option<()> {
        match event.name {
            "mmap_lock_acquire_returned" if event.field("success=") == Some("true") => {
                let counts = &mut self.counts[*self.group_of.get(&event.thread)?];
                match event.field("write=")? {
                    "true" => counts.mmap_lock_writes += 1,
                    _ => counts.mmap_lock_reads += 1,
                }
            }
            "sched_switch" if event.field("prev_state=")?.starts_with('D') => {
                let thread = event.field("prev_pid=")?.parse().ok()?;
                self.counts[*self.group_of.get(&thread)?].sleeps += 1;
                self.asleep.insert(thread, event.microseconds);
            }
            "sched_wakeup" => {
                let thread = event.field(" pid=")?.parse().ok()?;
                let since = self.asleep.remove(&thread)?;
                let slept = event.microseconds.saturating_sub(since) * 1_000;
                self.counts[*self.group_of.get(&thread)?].asleep_ns += slept;
            }
            _ => {}
        }
        Some(())
    }

    fn finish(mut self, lost_events: u64) -> Vec<Traced> {
        self.counts.iter_mut().for_each(|counts| counts.lost_events = lost_events);
        self.counts
    }
}

/// A line such as
/// `strikeslip-gc-42 [001] d..2. 12.000345: sched_switch: prev_comm=strikeslip-gc prev_pid=42 prev_state=D ..`.
struct Event<'a> {
    thread: i32,
    microseconds: u64,
    name: &'a str,
    fields: &'a str,
}

impl<'a> Event<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (task, rest) = line.split_once(" [")?;
        let thread = task.trim_end().rsplit_once('-')?.1.parse().ok()?;
        let (head, rest) = rest.split_once(": ")?;
        let (seconds, part) = head.rsplit(' ').next()?.split_once('.')?;
        let microseconds = seconds.parse::<u64>().ok()? * 1_000_000 + part.parse::<u64>().ok()?;
        let (name, fields) = rest.split_once(": ")?;
        Some(Self { thread, microseconds, name, fields })
    }

    /// What is behind `key`, up to the next space.
    fn field(&self, key: &str) -> Option<&'a str> {
        self.fields.split_once(key)?.1.split(' ').next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# tracer: nop
 strikeslip-serv-42      [001] ...1.   100.000001: mmap_lock_acquire_returned: mm=0000 memcg_path= write=false success=true
 strikeslip-serv-42      [001] ...1.   100.000002: mmap_lock_acquire_returned: mm=0000 memcg_path= write=true success=true
 strikeslip-serv-42      [001] ...1.   100.000003: mmap_lock_acquire_returned: mm=0000 memcg_path= write=true success=false
 a b-c-7                 [000] ...1.   100.000004: mmap_lock_acquire_returned: mm=0000 memcg_path= write=false success=true
 strikeslip-serv-42      [001] d..2.   100.000010: sched_switch: prev_comm=strikeslip-serv prev_pid=42 prev_prio=120 prev_state=D ==> next_comm=x next_pid=9 next_prio=120
 x-9                     [001] d..2.   100.000015: sched_switch: prev_comm=x prev_pid=9 prev_prio=120 prev_state=D ==> next_comm=y next_pid=1 next_prio=120
 a b-c-7                 [000] d..2.   100.000017: sched_switch: prev_comm=a b-c prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=y next_pid=1 next_prio=120
 x-9                     [000] d..2.   100.000030: sched_wakeup: comm=strikeslip-serv pid=42 prio=120 target_cpu=001
";

    #[test]
    fn events_are_counted_by_group_and_sleep_is_timed() {
        let mut counter = Counter::new(&[vec![42, 43], vec![7]]);
        TRACE.lines().for_each(|line| counter.count(line));
        let collector =
            Traced { mmap_lock_reads: 1, mmap_lock_writes: 1, sleeps: 1, asleep_ns: 20_000, lost_events: 3 };
        let mutators = Traced { mmap_lock_reads: 1, lost_events: 3, ..Traced::default() };
        assert_eq!(counter.finish(3), [collector, mutators]);
    }

    #[test]
    fn system_calls_that_take_the_lock_are_counted_if_tracefs_can_be_read() {
        let tracer = match Tracer::open() {
            Ok(tracer) => tracer,
            // Needs a privilege; without it there is a reason in one line.
            Err(reason) => return assert!(reason.starts_with("no exact counts") && !reason.contains('\n')),
        };
        let this = strikeslip::gc::sys::sched::thread_id();
        let area = super::super::memory::Area::new(64 * super::super::memory::PAGE_BYTES).unwrap();
        tracer.watch(std::iter::once(this)).unwrap();
        tracer.turn(true);
        for nth in 0..50 {
            area.set_writable(nth % 2 == 1).unwrap();
        }
        tracer.turn(false);
        let counts = tracer.counts(&[vec![this]]).unwrap();
        assert_eq!(counts[0].lost_events, 0);
        assert!(counts[0].mmap_lock_writes >= 50, "{counts:?}");
        let instance = tracer.instance.clone();
        assert!(instance.exists());
        drop(tracer);
        assert!(!instance.exists());
    }
}
