//! What the guest's program is to do, as one word of the kernel's command line.
//!
//! Written on the host, read by the guest.

use std::fmt;
use std::str::FromStr;

/// What the guest's program is to do.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// Threads of each storm.
    pub storm_threads: usize,
    /// Mutators.
    pub mutators: usize,
    /// Bytes that mutators keep live, in MiB.
    pub live_mib: usize,
    /// Rounds.
    pub rounds: usize,
    /// Seconds that are measured, all together, by the guest's clock.
    pub seconds: u64,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { storm_threads, mutators, live_mib, rounds, seconds } = self;
        write!(f, "task:{storm_threads},{mutators},{live_mib},{rounds},{seconds}")
    }
}

/// A word that is no task.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no task")]
pub struct NoTask(String);

impl FromStr for Task {
    type Err = NoTask;

    fn from_str(word: &str) -> Result<Self, NoTask> {
        let refused = || NoTask(word.to_owned());
        let numbers = word.strip_prefix("task:").ok_or_else(refused)?.split(',').map(str::parse);
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().map_err(|_| refused())?;
        let &[storm_threads, mutators, live_mib, rounds, seconds] = numbers.as_slice() else {
            return Err(refused());
        };
        let size = |number| usize::try_from(number).map_err(|_| refused());
        Ok(Self {
            storm_threads: size(storm_threads)?,
            mutators: size(mutators)?,
            live_mib: size(live_mib)?,
            rounds: size(rounds)?,
            seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_one_word_and_is_read_as_it_was_written() {
        let task = Task { storm_threads: 4, mutators: 1, live_mib: 16, rounds: 3, seconds: 20 };
        let word = task.to_string();
        // The kernel splits at spaces, and takes quotes away.
        assert!(!word.contains([' ', '"', '=']), "{word}");
        assert_eq!(word.parse::<Task>().unwrap(), task);
        for wrong in ["", "task:", "task:1,2,3,4", "task:1,2,3,4,x", "task:1,2,3,4,5,6", "1,2,3,4,5"] {
            assert!(wrong.parse::<Task>().is_err(), "{wrong}");
        }
    }
}
