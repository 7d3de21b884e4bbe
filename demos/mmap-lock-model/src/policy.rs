//! Four ways to lock the VMAs of a userfaultfd operation.
//!
//! Invariant: [`Policy::lock`] returns with everything locked that [`Policy::unlock`] releases, or with nothing.

use std::fmt;
use std::sync::Arc;

use crate::space::{Errno, Space, Vma};

/// VMAs that are locked.
#[derive(Debug)]
pub struct Held {
    /// The destination.
    pub dst: Arc<Vma>,
    /// The source of a MOVE; may be the destination's VMA.
    pub src: Option<Arc<Vma>>,
    /// `mmap_lock` is held, no VMA's own lock is.
    by_mmap_lock: bool,
}

impl Held {
    /// The source, if it is another VMA, which has a lock of its own.
    fn other_src(&self) -> Option<&Arc<Vma>> {
        self.src.as_ref().filter(|src| !Arc::ptr_eq(src, &self.dst))
    }
}

/// A way to lock.
pub trait Policy: fmt::Debug + Send + Sync {
    /// What it is called in tables.
    fn name(&self) -> &'static str;

    /// Locks the VMA of `dst`, and that of `src` for a MOVE.
    ///
    /// # Errors
    /// [`Errno::Missing`] if there is no such VMA.
    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno>;

    /// Releases what [`Policy::lock`] took.
    fn unlock(&self, space: &Space, held: Held) {
        if held.by_mmap_lock {
            return space.read_unlock();
        }
        space.end_read(&held.dst);
        if let Some(src) = held.other_src() {
            space.end_read(src);
        }
    }
}

/// `mmap_lock`, kept for the whole operation: before the series.
#[derive(Debug)]
pub struct MmapLock;

/// A per-VMA attempt, else `mmap_lock`, kept; which one is remembered: the series as posted (v2).
#[derive(Debug)]
pub struct AttemptOrMmapLock;

/// The review's first proposal: on failure `vma_start_read` under `mmap_lock`, which "won't fail".
#[derive(Debug)]
pub struct SequenceUnderMmapLock;

/// The review's second proposal, and what was merged: on failure the VMA's lock itself, under `mmap_lock`.
#[derive(Debug)]
pub struct LockUnderMmapLock;

/// The destination and the source by `find_vma`, which may be above the page: callers check the range.
fn find_under_mmap_lock(space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
    space.read_lock();
    let found = (space.find(dst), src.map(|src| space.find(src)));
    if let (Some(dst), None | Some(Some(_))) = &found {
        dst.prepare_anon_vma();
        return Ok(Held { dst: Arc::clone(dst), src: found.1.flatten(), by_mmap_lock: true });
    }
    space.read_unlock();
    Err(Errno::Missing)
}

impl Policy for MmapLock {
    fn name(&self) -> &'static str {
        "1 mmap_lock"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        find_under_mmap_lock(space, dst, src)
    }
}

impl Policy for AttemptOrMmapLock {
    fn name(&self) -> &'static str {
        "2 attempt, else mmap_lock kept"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        // Attempts never wait, so their order does not matter.
        if let Some(locked) = space.lock_under_rcu(dst) {
            match src {
                None => return Ok(Held { dst: locked, src: None, by_mmap_lock: false }),
                Some(page) if locked.contains(page, 1) => {
                    let src = Some(Arc::clone(&locked));
                    return Ok(Held { dst: locked, src, by_mmap_lock: false });
                }
                Some(page) => {
                    if let Some(src) = space.lock_under_rcu(page) {
                        return Ok(Held { dst: locked, src: Some(src), by_mmap_lock: false });
                    }
                    space.end_read(&locked);
                }
            }
        }
        find_under_mmap_lock(space, dst, src)
    }
}

/// The plan of 3 and 4: attempts, then `acquire` for each VMA under `mmap_lock`, which is dropped again.
fn lock_vmas(
    space: &Space,
    dst: usize,
    src: Option<usize>,
    acquire: fn(&Space, &Vma),
) -> Result<Held, Errno> {
    if let Some(locked) = space.lock_under_rcu(dst) {
        let same = src.is_none_or(|src| locked.contains(src, 1));
        if same {
            let src = src.map(|_| Arc::clone(&locked));
            return Ok(Held { dst: locked, src, by_mmap_lock: false });
        }
        // Only attempted: who waited for mmap_lock here would hold what its writer waits for.
        if let Some(src) = src.and_then(|src| space.lock_under_rcu(src)) {
            return Ok(Held { dst: locked, src: Some(src), by_mmap_lock: false });
        }
        space.end_read(&locked);
    }
    space.read_lock();
    let found = (space.lookup(dst), src.map(|src| space.lookup(src)));
    let held = match found {
        (Some(dst), None) => Some(Held { dst, src: None, by_mmap_lock: false }),
        (Some(dst), Some(Some(src))) => Some(Held { dst, src: Some(src), by_mmap_lock: false }),
        _ => None,
    };
    if let Some(held) = &held {
        held.dst.prepare_anon_vma();
        acquire(space, &held.dst);
        if let Some(src) = held.other_src() {
            acquire(space, src);
        }
    }
    space.read_unlock();
    held.ok_or(Errno::Missing)
}

impl Policy for SequenceUnderMmapLock {
    fn name(&self) -> &'static str {
        "3 sequence under mmap_lock"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        // The flaw: the answer is not looked at.
        lock_vmas(space, dst, src, |space, vma| {
            let _ = space.start_read(vma);
        })
    }
}

impl Policy for LockUnderMmapLock {
    fn name(&self) -> &'static str {
        "4 VMA lock under mmap_lock"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        lock_vmas(space, dst, src, |_, vma| vma.lock.down_read())
    }
}

/// MOVE as in v4 of the series: the whole of the second proposal for each VMA in turn. It waits for `mmap_lock` with
/// a VMA locked, which the writer that holds `mmap_lock` waits for. v5 attempts the second VMA only.
#[derive(Debug)]
pub struct LockEachInTurn;

impl Policy for LockEachInTurn {
    fn name(&self) -> &'static str {
        "4 for each VMA in turn"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        let mut held = LockUnderMmapLock.lock(space, dst, None)?;
        if let Some(page) = src {
            if held.dst.contains(page, 1) {
                held.src = Some(Arc::clone(&held.dst));
            } else {
                match LockUnderMmapLock.lock(space, page, None) {
                    Ok(source) => held.src = Some(source.dst),
                    Err(error) => {
                        self.unlock(space, held);
                        return Err(error);
                    }
                }
            }
        }
        Ok(held)
    }
}
