//! What this process holds, as the system counts it.

use std::fs;

use serde::Serialize;

/// What is held at one time. Zero where the system does not tell.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Bytes of memory.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Mappings.
    pub mappings: u64,
}

impl Process {
    /// What is held now.
    #[must_use]
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key| field(&status, key).unwrap_or(0);
        Self {
            resident_bytes: number("VmRSS:") << 10,
            // One is open for this look.
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64 - 1),
            threads: number("Threads:"),
            mappings: fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count() as u64),
        }
    }
}

/// The first number of the line that begins with `key`.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Bytes of memory behind the mappings between two addresses. `None` if the system does not tell.
#[must_use]
pub fn resident_bytes(start: usize, end: usize) -> Option<u64> {
    sum_resident(&fs::read_to_string("/proc/self/smaps").ok()?, start, end)
}

fn sum_resident(smaps: &str, start: usize, end: usize) -> Option<u64> {
    let mut inside = false;
    let mut kilobytes = 0;
    for line in smaps.lines() {
        if let Some(number) = line.strip_prefix("Rss:") {
            if inside {
                kilobytes += number.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
            }
        } else if let Some((address, _)) = line.split_once('-')
            && let Ok(address) = usize::from_str_radix(address, 16)
        {
            inside = (start..end).contains(&address);
        }
    }
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let now = Process::now();
        assert!(now.resident_bytes > 1 << 20 && now.threads > 0 && now.mappings > 10, "{now:?}");
        assert!(now.descriptors >= 1 && now.descriptors < 1000, "{now:?}");
    }

    #[test]
    fn only_mappings_of_the_range_count() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\nRss:    4 kB\n3000-5000 rw-p 0 0 0 [heap]\nRss:   8 kB\nPss: 8 kB\n\
                     5000-6000 rw-p 00000000 00:00 0\nRss:   16 kB\n";
        assert_eq!(sum_resident(smaps, 0x3000, 0x5000), Some(8 << 10));
        assert_eq!(sum_resident(smaps, 0, 0x10000), Some(28 << 10));
        assert_eq!(sum_resident("Rss: x kB\n", 0, 1), Some(0));
    }
}
