//! The contract of the page operations, rule by rule, on the running kernel.
//!
//! The collector rests on what the kernel answers, and much of that is written down nowhere but in the kernel's
//! source. Here each rule is a row: what is asked for, what has to be answered, and a trial that asks. The
//! test `conformance` runs all rows, and so does `strikeslip doctor --conformance`.
//!
//! Trials have memory and descriptors of their own, and run one after another on the calling thread. One of them
//! forks (the child ends at once), and some ask for pages of what they have just unmapped, so nobody else should
//! map memory meanwhile. Invariant: a trial leaves nothing behind, and waits for no event for ever.

use std::fmt;

use serde::Serialize;

mod events;
mod ground;
mod ranges;
mod sharing;

/// A trial: what was seen, or why it could not be tried.
type Trial = fn() -> Result<String, NotTried>;

/// Why a rule was not tried: the kernel does not offer the operation, or a privilege is missing.
#[derive(Debug)]
pub(crate) struct NotTried(String);

impl NotTried {
    fn because(what: &str, error: impl fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// A rule of the contract.
#[derive(Copy, Clone)]
pub struct Rule {
    /// The operation.
    pub operation: &'static str,
    /// The condition it is asked for under.
    pub condition: &'static str,
    /// What may be seen. More than one where it depends on the kernel; `note` says on what.
    pub expected: &'static [&'static str],
    /// What depends on the kernel's version, or what the collector makes of it; may be empty.
    pub note: &'static str,
    trial: Trial,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.operation, self.condition, self.expected.join(" or "))
    }
}

/// How a rule fared.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As the rule says.
    AsExpected,
    /// The kernel answers otherwise.
    Different,
    /// It could not be tried.
    NotTried,
}

/// A rule, and what was seen of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The operation.
    pub operation: &'static str,
    /// The condition.
    pub condition: &'static str,
    /// What may be seen.
    pub expected: String,
    /// What was seen, or why it was not tried.
    pub seen: String,
    /// How it fared.
    pub verdict: Verdict,
    /// What depends on the kernel's version, or what the collector makes of it.
    pub note: &'static str,
}

impl Rule {
    /// Tries the rule.
    #[must_use]
    pub fn examine(&self) -> Outcome {
        let (seen, verdict) = match (self.trial)() {
            Ok(seen) if self.expected.contains(&seen.as_str()) => (seen, Verdict::AsExpected),
            Ok(seen) => (seen, Verdict::Different),
            Err(NotTried(reason)) => (reason, Verdict::NotTried),
        };
        let Self { operation, condition, note, .. } = *self;
        Outcome { operation, condition, expected: self.expected.join(" or "), seen, verdict, note }
    }
}

macro_rules! rules {
    ($($operation:literal, $condition:literal => [$($expected:literal),+], $note:literal, $trial:path;)+) => {
        /// All rules.
        pub static RULES: &[Rule] = &[$(Rule {
            operation: $operation,
            condition: $condition,
            expected: &[$($expected),+],
            note: $note,
            trial: $trial,
        },)+];
    };
}

rules! {
    "COPY", "an address that is not a page's" => ["EINVAL"], "", ranges::copy_misaligned;
    "COPY", "a source that is not a page's address" => ["done"],
        "only destination and length are pages", ranges::copy_from_anywhere;
    "ZEROPAGE", "an address that is not a page's" => ["EINVAL"], "", ranges::zero_misaligned;
    "MOVE", "a source that is not a page's address" => ["EINVAL"], "", ranges::move_misaligned;
    "REGISTER", "an address that is not a page's" => ["EINVAL"], "", ranges::register_misaligned;
    "COPY", "no bytes" => ["EINVAL"], "", ranges::copy_nothing;
    "ZEROPAGE", "no bytes" => ["EINVAL"], "", ranges::zero_nothing;
    "MOVE", "no bytes" => ["EINVAL"], "", ranges::move_nothing;
    "REGISTER", "no bytes" => ["EINVAL"], "", ranges::register_nothing;
    "COPY", "to where nothing is mapped" => ["ENOENT"], "", ranges::copy_to_nowhere;
    "MOVE", "to where nothing is mapped" => ["ENOENT"], "", ranges::move_to_nowhere;
    "MOVE", "from where nothing is mapped" => ["ENOENT"], "", ranges::move_from_nowhere;
    "COPY", "from where nothing is mapped" => ["EFAULT"], "", ranges::copy_from_nowhere;
    "COPY", "to an address beyond the process's" => ["EINVAL"], "", ranges::copy_beyond_all;
    "COPY", "across two mappings, both registered" => ["ENOENT"],
        "nothing is done, not even in the first", ranges::copy_across;
    "ZEROPAGE", "across two mappings, both registered" => ["ENOENT"], "", ranges::zero_across;
    "MOVE", "across two mappings, both registered" => ["EINVAL"], "", ranges::move_across;
    "COPY", "not registered" => ["ENOENT"], "", ranges::copy_unregistered;
    "ZEROPAGE", "not registered" => ["ENOENT"], "", ranges::zero_unregistered;
    "MOVE", "not registered" => ["EINVAL"], "", ranges::move_unregistered;
    "WRITEPROTECT", "registered for missing pages only" => ["ENOENT"], "", ranges::protect_unregistered;
    "REGISTER", "registered with another descriptor" => ["EBUSY"], "", ranges::register_twice;
    "COPY", "registered with another descriptor" => ["done"],
        "any descriptor of the process will do", ranges::copy_by_another;
    "MOVE", "registered with another descriptor" => ["EINVAL"], "", ranges::move_by_another;
    "MOVE", "a mode bit that does not exist" => ["EINVAL"], "", ranges::move_in_no_mode;
    "COPY", "the page is there" => ["EEXIST, count -EEXIST"], "a success for the collector", ranges::copy_present;
    "ZEROPAGE", "the page is there" => ["EEXIST, count -EEXIST"], "", ranges::zero_present;
    "MOVE", "the page is there" => ["EEXIST, the source keeps its page"],
        "the source is still the collector's", ranges::move_present;
    "COPY", "a later page is there" => ["3 of 8 pages, then EEXIST"],
        "the next call tells the reason", ranges::copy_in_part;
    "ZEROPAGE", "a later page is there" => ["3 of 8 pages, then EEXIST"], "", ranges::zero_in_part;
    "MOVE", "a later page is there" => ["3 of 8 pages, then EEXIST"], "", ranges::move_in_part;
    "MOVE", "a hole in the source" => ["ENOENT"], "", ranges::move_hole;
    "MOVE", "a hole in the source, allowed" => ["done, the hole is missing still"],
        "ALLOW_SRC_HOLES: the collector always sets it", ranges::move_hole_allowed;
    "MOVE", "a later hole in the source" => ["3 of 8 pages, then ENOENT"], "", ranges::move_hole_in_part;
    "MOVE", "a source that is shared memory" => ["EINVAL"], "", sharing::move_shared;
    "MOVE", "a source that is only readable" => ["EINVAL"], "", sharing::move_read_only;
    "COPY", "a source that cannot be read" => ["EFAULT"], "", sharing::copy_unreadable;
    "COPY", "a destination that is only readable" => ["done"], "", sharing::copy_to_read_only;
    "MOVE", "a source that is locked in memory, to one that is not" => ["EINVAL"],
        "of the two mappings' flags these have to be the same", sharing::move_locked;
    "MOVE", "a page that is shared since a fork" => ["EBUSY, done once it is written to"],
        "copied then; heaps are not inherited", sharing::move_forked;
    "COPY", "a page that is shared since a fork" => ["done"], "", sharing::copy_forked;
    "MOVE", "a page that is pinned (io_uring buffer)" => ["EBUSY, done once it is not"],
        "copied then", sharing::move_pinned;
    "MOVE", "a source of huge pages from the pool (hugetlb)" => ["EINVAL"], "", sharing::move_hugetlb;
    "COPY", "a small page into hugetlb" => ["EINVAL"], "", sharing::copy_hugetlb;
    "ZEROPAGE", "into hugetlb" => ["EINVAL"], "", sharing::zero_hugetlb;
    "COPY", "while memory is given back (EVENT_REMOVE)" => ["EAGAIN, done once the event is read"],
        "mmap_changing", events::copy_while_removing;
    "ZEROPAGE", "while memory is given back (EVENT_REMOVE)" => ["EAGAIN, done once the event is read"],
        "mmap_changing", events::zero_while_removing;
    "MOVE", "while memory is given back (EVENT_REMOVE)" => ["EAGAIN, done once the event is read"],
        "mmap_changing", events::move_while_removing;
    "COPY", "what it says of its progress then" => ["count 0", "count -EAGAIN"],
        "filled in since about Linux 6.15, and in stable kernels of that time: not to be relied on",
        events::count_while_removing;
    "COPY", "while a part is unmapped (EVENT_UNMAP)" => ["EAGAIN, done once the event is read"],
        "mmap_changing", events::copy_while_unmapping;
    "COPY", "while the process forks (EVENT_FORK)" => ["EAGAIN, done once the event is read"],
        "mmap_changing; needs CAP_SYS_PTRACE", events::copy_while_forking;
    "COPY", "a thread waits for the page" => ["it goes on with the contents"], "", events::copy_wakes;
    "WAKE", "a thread waits for a page that is still missing" => ["it faults again"], "", events::wake_alone;
    "UNREGISTER", "a thread waits for a page" => ["it goes on with zeros"],
        "who faults between the wake and the end of the registration is not woken: serve_fault wakes it",
        events::unregister_wakes;
}
