//! Policies with something wrong, which the checks have to notice.

use std::sync::Arc;

use mmap_lock_model::policy::{Held, LockUnderMmapLock, Policy};
use mmap_lock_model::service::Errno;
use mmap_lock_model::space::Space;

/// MOVE as in v4 of the series: the whole of the second proposal for each VMA in turn. It waits for `mmap_lock` with
/// a VMA locked, which the writer that holds `mmap_lock` waits for. v5 attempts the second VMA only.
#[derive(Debug)]
pub struct LockEachInTurn;

impl Policy for LockEachInTurn {
    fn name(&self) -> &'static str {
        "each VMA in turn"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        let mut held = LockUnderMmapLock.lock(space, dst, None)?;
        let Some(page) = src else { return Ok(held) };
        if held.dst.bounds().contains(&page) {
            held.src = Some(Arc::clone(&held.dst));
            return Ok(held);
        }
        match LockUnderMmapLock.lock(space, page, None) {
            Ok(source) => {
                held.src = Some(source.dst);
                Ok(held)
            }
            Err(error) => {
                self.unlock(space, held);
                Err(error)
            }
        }
    }
}

/// Looks up under `mmap_lock`, and goes on without any lock.
#[derive(Debug)]
pub struct NothingLocked;

impl Policy for NothingLocked {
    fn name(&self) -> &'static str {
        "nothing locked"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        space.read_lock();
        let found = (space.lookup(dst), src.map(|src| space.lookup(src)));
        if let Some(dst) = &found.0 {
            space.prepare_anon_vma(dst);
        }
        space.read_unlock();
        match found {
            (Some(dst), None) => Ok(Held { dst, src: None, by_mmap_lock: false }),
            (Some(dst), Some(Some(src))) => Ok(Held { dst, src: Some(src), by_mmap_lock: false }),
            _ => Err(Errno::Missing),
        }
    }

    fn unlock(&self, _: &Space, _: Held) {}
}

/// Locks the destination of a MOVE, and looks its source up.
#[derive(Debug)]
pub struct OnlyTheDestination;

impl Policy for OnlyTheDestination {
    fn name(&self) -> &'static str {
        "destination only"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        let held = LockUnderMmapLock.lock(space, dst, None)?;
        match src.map(|src| space.lookup(src)) {
            None => Ok(held),
            Some(Some(src)) => Ok(Held { src: Some(src), ..held }),
            Some(None) => {
                LockUnderMmapLock.unlock(space, held);
                Err(Errno::Missing)
            }
        }
    }

    fn unlock(&self, space: &Space, held: Held) {
        LockUnderMmapLock.unlock(space, Held { src: None, ..held });
    }
}

/// Does not see that source and destination are one VMA.
#[derive(Debug)]
pub struct TwiceTheSame;

impl Policy for TwiceTheSame {
    fn name(&self) -> &'static str {
        "the same VMA twice"
    }

    fn lock(&self, space: &Space, dst: usize, src: Option<usize>) -> Result<Held, Errno> {
        let held = LockUnderMmapLock.lock(space, dst, src)?;
        let is_one = held.src.as_ref().is_some_and(|src| Arc::ptr_eq(src, &held.dst));
        if is_one {
            // It has the lock already, so this does not wait unless a writer does.
            held.dst.lock().down_read();
        }
        Ok(held)
    }
}

/// The first proposal, with an answer to try again where the attempt fails.
#[derive(Debug)]
pub struct SequenceElseAgain;

impl Policy for SequenceElseAgain {
    fn name(&self) -> &'static str {
        "sequence, else again"
    }

    fn lock(&self, space: &Space, dst: usize, _: Option<usize>) -> Result<Held, Errno> {
        if let Some(dst) = space.lock_under_rcu(dst) {
            return Ok(Held { dst, src: None, by_mmap_lock: false });
        }
        space.read_lock();
        let found = space.lookup(dst).ok_or(Errno::Missing);
        let locked = found.and_then(|dst| if space.start_read(&dst) { Ok(dst) } else { Err(Errno::Again) });
        space.read_unlock();
        locked.map(|dst| Held { dst, src: None, by_mmap_lock: false })
    }
}
