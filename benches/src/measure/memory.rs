//! Memory of this process, as the system counts it.

use std::fs;

/// The most bytes that the process had resident at any time; 0 if the system does not tell.
#[must_use]
pub fn peak_resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "VmHWM:").unwrap_or(0) << 10
}

/// Bytes that can be had without swapping; 0 if the system does not tell.
#[must_use]
pub fn available_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&info, "MemAvailable:").unwrap_or(0) << 10
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_key() {
        let text = "VmPeak:\t  200 kB\nVmHWM:\t  123 kB\n";
        assert_eq!(kilobytes(text, "VmHWM:"), Some(123));
        assert_eq!(kilobytes(text, "VmSwap:"), None);
        assert!(peak_resident_bytes() > 0 && available_bytes() > 0);
    }
}
