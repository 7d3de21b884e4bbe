//! What this system offers, found out by trying it.
//!
//! Runs at start-up, or for a program that only wants to know. Each finding is a line that says what
//! works, or why it does not.
//!
//! Invariants: a probe never panics and never ends the process, also where userfaultfd is denied (by
//! seccomp, say) or behaves unlike Linux's. Nothing is left behind: descriptors are closed, memory
//! is unmapped, the previous SIGBUS handler is back.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;

use serde::Serialize;
use userfaultfd_sys as raw;

use super::uffd::Door;
use super::{errno, sched};
use crate::options::Delivery;

mod trials;

/// What works, or why it does not: one line.
pub type Finding = Result<String, String>;

/// The names of the features, by bit.
const FEATURES: [&str; 17] = [
    "pagefault-flag-wp",
    "event-fork",
    "event-remap",
    "event-remove",
    "missing-hugetlbfs",
    "missing-shmem",
    "event-unmap",
    "sigbus",
    "thread-id",
    "minor-hugetlbfs",
    "minor-shmem",
    "exact-address",
    "wp-hugetlbfs-shmem",
    "wp-unpopulated",
    "poison",
    "wp-async",
    "move",
];

/// A door, and whether it opened.
#[derive(Clone, Debug, Serialize)]
pub struct DoorFinding {
    /// The door.
    pub door: Door,
    /// Whether it opened.
    pub finding: Finding,
}

/// What this system offers.
#[derive(Clone, Debug, Serialize)]
pub struct Capabilities {
    /// The kernel's release.
    pub kernel: Finding,
    /// Processors that this process may use.
    pub processors: Finding,
    /// Each way to get a userfaultfd.
    pub doors: Vec<DoorFinding>,
    /// `vm.unprivileged_userfaultfd`.
    pub unprivileged_userfaultfd: Finding,
    /// The feature word (`UFFD_FEATURE_*`), if a userfaultfd could be had.
    pub features: Option<u64>,
    /// A real fault, delivered as SIGBUS and served in place.
    pub in_place_fault: Finding,
    /// A real fault, delivered as an event and served by another thread.
    pub event_fault: Finding,
    /// MOVE of small pages, contents compared.
    pub move_pages: Finding,
    /// MOVE of an aligned 2 MiB, contents compared.
    pub move_huge: Finding,
    /// Taking a range by `mremap(MREMAP_DONTUNMAP)`.
    pub take: Finding,
    /// Whether huge pages can be asked for.
    pub huge_pages: Finding,
    /// Whether COPY and MOVE lock only their own mapping.
    pub per_vma_locks: Finding,
    /// `vm.max_map_count`.
    pub max_map_count: Finding,
    /// `RLIMIT_NOFILE`.
    pub open_files: Finding,
    /// `RLIMIT_AS`.
    pub address_space: Finding,
    /// Whether a thread that has lowered its weight can raise it again.
    pub weight: Finding,
}

impl Capabilities {
    /// Whether faults can be served with this delivery.
    ///
    /// # Errors
    /// The reason why not.
    pub fn delivery(&self, delivery: Delivery) -> Result<(), String> {
        match delivery {
            Delivery::InPlace => &self.in_place_fault,
            Delivery::Pool => &self.event_fault,
        }
        .clone()
        .map(drop)
    }

    /// Whether MOVE can be used.
    ///
    /// # Errors
    /// The reason why not.
    pub fn moves(&self) -> Result<(), String> {
        self.move_pages.clone().and(self.move_huge.clone()).map(drop)
    }

    fn lines(&self) -> Vec<(String, Finding)> {
        let features = self.features.map(feature_names).ok_or_else(|| "no userfaultfd".to_owned());
        let mut lines = vec![("kernel".to_owned(), self.kernel.clone())];
        lines.push(("processors".to_owned(), self.processors.clone()));
        lines.extend(self.doors.iter().map(|door| (door.door.to_string(), door.finding.clone())));
        for (name, finding) in [
            ("vm.unprivileged_userfaultfd", &self.unprivileged_userfaultfd),
            ("features", &features),
            ("fault served in place", &self.in_place_fault),
            ("fault served by event", &self.event_fault),
            ("move of pages", &self.move_pages),
            ("move of 2 MiB", &self.move_huge),
            ("taking a range", &self.take),
            ("huge pages", &self.huge_pages),
            ("per-VMA locks", &self.per_vma_locks),
            ("vm.max_map_count", &self.max_map_count),
            ("open files", &self.open_files),
            ("address space", &self.address_space),
            ("weight", &self.weight),
        ] {
            lines.push((name.to_owned(), finding.clone()));
        }
        lines
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, finding) in self.lines() {
            match finding {
                Ok(text) => writeln!(f, "{name:<28} ok    {text}")?,
                Err(reason) => writeln!(f, "{name:<28} no    {reason}")?,
            }
        }
        Ok(())
    }
}

/// The names of the features in a feature word.
fn feature_names(word: u64) -> String {
    let known = FEATURES.iter().enumerate().filter(|(bit, _)| word >> bit & 1 == 1).map(|(_, name)| *name);
    format!("{word:#x}: {}", known.collect::<Vec<_>>().join(" "))
}

/// Finds out what this system offers. Takes some milliseconds.
#[must_use]
pub fn probe() -> Capabilities {
    // The trials run on a thread of their own: they change its signal mask and take its faults.
    let trials = thread::Builder::new().name("probe".into()).spawn(trials::all);
    let trials = match trials {
        Ok(thread) => thread.join().unwrap_or_else(|_| trials::Trials::impossible("the probe panicked")),
        Err(error) => trials::Trials::impossible(&format!("no thread to probe on: {error}")),
    };
    let doors = Door::ALL.map(|door| DoorFinding {
        door,
        finding: door.open().map(|_| "opens".to_owned()).map_err(|e| e.to_string()),
    });
    let release = sched::kernel_release();
    Capabilities {
        kernel: release.as_ref().map(|(release, _)| release.clone()).map_err(ToString::to_string),
        processors: thread::available_parallelism().map(|n| n.to_string()).map_err(|e| e.to_string()),
        doors: doors.into(),
        unprivileged_userfaultfd: read("/proc/sys/vm/unprivileged_userfaultfd"),
        features: trials.features,
        in_place_fault: trials.in_place_fault,
        event_fault: trials.event_fault,
        move_pages: trials.move_pages,
        move_huge: trials.move_huge,
        take: trials.take,
        huge_pages: huge_pages(),
        per_vma_locks: per_vma_locks(release.as_ref().ok().map(|(_, version)| *version)),
        max_map_count: read("/proc/sys/vm/max_map_count"),
        open_files: limit(libc::RLIMIT_NOFILE),
        address_space: limit(libc::RLIMIT_AS),
        weight: if sched::weight_is_reversible() {
            Ok("can be lowered and raised again".to_owned())
        } else {
            Err("once lowered, cannot be raised again".to_owned())
        },
    }
}

fn read(path: impl AsRef<Path>) -> Finding {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| error.to_string())
}

fn huge_pages() -> Finding {
    let setting = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    if setting.contains("[never]") { Err(setting) } else { Ok(setting) }
}

/// There is no way to ask the kernel. Linux 6.9 brought them for COPY and MOVE, and builds for the
/// common architectures have them.
fn per_vma_locks(version: Option<(u32, u32)>) -> Finding {
    match version {
        Some(version) if version >= (6, 9) => Ok("to be expected: the kernel is 6.9 or later".to_owned()),
        Some(_) => Err("the kernel is older than 6.9: every COPY and MOVE takes mmap_lock".to_owned()),
        None => Err("the kernel's version is unknown".to_owned()),
    }
}

fn limit(resource: libc::__rlimit_resource_t) -> Finding {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the structure given.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(std::io::Error::from_raw_os_error(errno()).to_string());
    }
    Ok(if limit.rlim_cur == libc::RLIM_INFINITY {
        "unlimited".to_owned()
    } else {
        limit.rlim_cur.to_string()
    })
}

const _: () = assert!(1 << (FEATURES.len() - 1) == raw::UFFD_FEATURE_MOVE);
