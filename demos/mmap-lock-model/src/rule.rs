//! The rules that the locking rests on. Each can be left out of a space, to see that the checks need it.

/// A rule.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    /// `vma_start_read` compares sequence numbers again once it has the VMA's lock: a writer may have come between.
    RecheckSequence,
    /// `lock_vma_under_rcu` looks again, once it has the lock, whether the VMA is attached and contains the address.
    RecheckVma,
    /// `lock_vma_under_rcu` refuses a VMA without `anon_vma`, which only who holds `mmap_lock` may prepare.
    AnonVma,
    /// The range of an operation lies in its VMA: `find_vma` may give a VMA above, and any lookup one that ends
    /// too early.
    RangeInVma,
    /// `vma_start_write` waits for the VMA's readers.
    WriterWaits,
    /// `vma_end_write_all` comes after the changes.
    EndAfterChange,
    /// The sequence number is written with release and read with acquire, so that who sees a VMA unlocked sees how
    /// it was changed.
    OrderedSequence,
    /// `mmap_changing` is set and looked at under `map_changing_lock`.
    ChangingLock,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RecheckSequence,
        Self::RecheckVma,
        Self::AnonVma,
        Self::RangeInVma,
        Self::WriterWaits,
        Self::EndAfterChange,
        Self::OrderedSequence,
        Self::ChangingLock,
    ];
}

/// How a space keeps to the rules.
#[derive(Copy, Clone, Debug)]
pub struct Options {
    /// Readers compare sequence numbers modulo this (2^32 in the kernel).
    pub modulus: usize,
    /// Writers (`vma_start_write`) compare modulo it too, as in the kernel; else they never mistake a number.
    pub writers_wrap: bool,
    /// The rule that is left out.
    pub left_out: Option<Rule>,
}

impl Options {
    /// All rules, and numbers that never come round.
    pub const SOUND: Self = Self { modulus: usize::MAX, writers_wrap: false, left_out: None };

    /// All but one.
    #[must_use]
    pub const fn without(rule: Rule) -> Self {
        Self { left_out: Some(rule), ..Self::SOUND }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }
}
