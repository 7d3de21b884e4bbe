//! Four ways to lock the VMAs of a userfaultfd operation.
//!
//! Invariant: [`Policy::lock`] returns with everything locked that [`Policy::unlock`] releases, or with nothing.

use std::fmt;
use std::sync::Arc;

use crate::service::Errno;
use crate::space::{Space, one};
use crate::vma::Vma;

/// VMAs that are locked.
#[derive(Debug)]
pub struct Held {
    /// The destination.
    pub dst: Arc<Vma>,
    /// The source of a MOVE; may be the destination's VMA, which is locked once then.
    pub src: Option<Arc<Vma>>,
    /// `mmap_lock` is held, no VMA's own lock is (the boolean that v2 passed around).
    pub by_mmap_lock: bool,
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

    /// Locks the VMA of page `dst`, and that of page `src` for a MOVE. The VMA may lie above the page, and its
    /// range is not checked.
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

impl Policy for MmapLock {
    fn name(&self) -> &'static str {
        "1 mmap_lock"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        keep_mmap_lock(space, dst, src)
    }
}

impl Policy for AttemptOrMmapLock {
    fn name(&self) -> &'static str {
        "2 attempt, else mmap_lock kept"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        attempt(space, dst, src).map_or_else(|| keep_mmap_lock(space, dst, src), Ok)
    }
}

impl Policy for SequenceUnderMmapLock {
    fn name(&self) -> &'static str {
        "3 sequence under mmap_lock"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        attempt(space, dst, src).map_or_else(
            || {
                drop_mmap_lock(space, dst, src, |vma| {
                    // The flaw: it can fail, and nobody looks.
                    let _ = space.start_read(vma);
                })
            },
            Ok,
        )
    }
}

impl Policy for LockUnderMmapLock {
    fn name(&self) -> &'static str {
        "4 VMA lock under mmap_lock"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        attempt(space, dst, src)
            .map_or_else(|| drop_mmap_lock(space, dst, src, |vma| vma.lock().down_read()), Ok)
    }
}

/// Both VMAs without `mmap_lock`, or none. Attempts never wait, so their order does not matter. If one fails, the
/// other is released: who waited for `mmap_lock` with it would hold what the lock's writer may wait for.
fn attempt(space: &Space, dst: usize, src: Option<usize>) -> Option<Held> {
    let locked = space.lock_under_rcu(dst)?;
    let src = match src {
        None => None,
        Some(page) if locked.contains(&one(page)) => Some(Arc::clone(&locked)),
        Some(page) => {
            let other = space.lock_under_rcu(page);
            if other.is_none() {
                space.end_read(&locked);
            }
            Some(other?)
        }
    };
    Some(Held { dst: locked, src, by_mmap_lock: false })
}

/// Both VMAs by `find_vma`, and `mmap_lock` kept.
fn keep_mmap_lock(space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
    space.read_lock();
    let found = find_both(dst, src, |page| space.find(page));
    match &found {
        Some((dst, _)) => space.prepare_anon_vma(dst),
        None => space.read_unlock(),
    }
    let (dst, src) = found.ok_or(Errno::Missing)?;
    Ok(Held { dst, src, by_mmap_lock: true })
}

/// Both VMAs by `vma_lookup`, each locked by `acquire` under `mmap_lock`, which is dropped again. While it is held
/// no writer waits for a VMA, so `acquire` may wait, in any order.
fn drop_mmap_lock(
    space: &Space,
    dst: usize,
    src: Option<usize>,
    acquire: impl Fn(&Vma),
) -> Result<Held, Errno> {
    space.read_lock();
    let found = find_both(dst, src, |page| space.lookup(page));
    let held = found.map(|(dst, src)| Held { dst, src, by_mmap_lock: false });
    if let Some(held) = &held {
        space.prepare_anon_vma(&held.dst);
        acquire(&held.dst);
        if let Some(src) = held.other_src() {
            acquire(src);
        }
    }
    space.read_unlock();
    held.ok_or(Errno::Missing)
}

type Both = (Arc<Vma>, Option<Arc<Vma>>);

fn find_both(dst: usize, src: Option<usize>, find: impl Fn(usize) -> Option<Arc<Vma>>) -> Option<Both> {
    let dst = find(dst)?;
    let src = match src {
        Some(page) => Some(find(page)?),
        None => None,
    };
    Some((dst, src))
}
