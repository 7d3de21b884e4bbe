//! A storm of signals: a thread that sends one to every other thread of the process, again and again.
//!
//! For a stress mode ([`crate::stress::StressMode::SignalStorm`]). The signal interrupts system calls, waits on
//! futexes and fault handlers, and its handler does nothing; it is set without `SA_RESTART`, so that calls that can be
//! interrupted are.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{check, sched};
use crate::stats::Statistics;
use crate::stress::StressMode;

/// Sleep between two rounds.
const PAUSE: Duration = Duration::from_micros(200);
/// Rounds between two looks at which threads there are.
const ROUNDS_BETWEEN_LOOKS: u32 = 16;

/// A running storm. Dropping it ends it.
#[derive(Debug)]
pub struct Storm {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread is in.
    process: u32,
}

/// The signal: one of those that nobody else should have a use for.
fn signal() -> i32 {
    libc::SIGRTMIN() + 7
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

impl Storm {
    /// Sets the handler, and starts the thread.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn start(stats: Arc<Statistics>) -> io::Result<Self> {
        // SAFETY: zeros are a valid action: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing; the signal is one without a meaning.
        check(unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) })?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let thread =
            std::thread::Builder::new().name("strikeslip-storm".into()).spawn(move || blow(&told, &stats))?;
        Ok(Self { ended, thread: Some(thread), process: std::process::id() })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.take().filter(|_| self.process == std::process::id());
        if let Some(thread) = thread {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

fn blow(ended: &AtomicBool, stats: &Statistics) {
    let (process, own) = (std::process::id() as i32, sched::thread_id());
    let mut threads = vec![];
    let mut round = 0_u32;
    while !ended.load(Ordering::Relaxed) {
        if round.is_multiple_of(ROUNDS_BETWEEN_LOOKS) {
            threads = others(own);
        }
        round = round.wrapping_add(1);
        for &thread in &threads {
            // SAFETY: takes values only. A thread that has ended meanwhile is an error without consequences.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal()) };
            stats.stress.add(StressMode::SignalStorm, u64::from(sent == 0));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The ids of the process's threads but `own`.
fn others(own: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return vec![] };
    let ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    ids.filter(|&id| id != own).collect()
}
