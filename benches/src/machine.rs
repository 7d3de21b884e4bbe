//! Facts about the machine and the program that a figure is worth nothing without.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};
use strikeslip::gc::sys::sched;

/// The facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// What they call themselves.
    pub processor_model: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's policy for transparent huge pages, of which the one in brackets is in force.
    pub huge_pages: String,
    /// Version of this program.
    pub version: String,
    /// The commit that the sources are at, `+` behind it if they have changed since. `None` if not known.
    pub commit: Option<String>,
}

impl Machine {
    /// Those of this machine.
    #[must_use]
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':'))
                .map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self {
            kernel: sched::kernel_release().map_or_else(|error| error.to_string(), |(release, _)| release),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            processor_model: field(&read("/proc/cpuinfo"), "model name"),
            memory_bytes: kilobytes << 10,
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
        }
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(git(&["rev-parse", "--short=12", "HEAD"])? + if changed { "+" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let machine = Machine::here();
        assert!(machine.processors > 0 && machine.memory_bytes > 1 << 26 && machine.kernel.contains('.'));
        assert!(!machine.processor_model.is_empty() && !machine.version.is_empty());
    }
}
