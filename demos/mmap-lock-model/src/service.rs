//! COPY and MOVE (`mfill_atomic`, `move_pages`) of one page, with any [`Policy`].

use crate::policy::Policy;
use crate::space::{Errno, Space};

/// UFFDIO_COPY of one page; `work` is what it costs, under the locks.
///
/// # Errors
/// As the kernel's.
pub fn copy(space: &Space, policy: &dyn Policy, dst: usize, work: impl FnOnce()) -> Result<(), Errno> {
    let held = policy.lock(space, dst, None)?;
    let result = space.unless_changing(|| {
        if !held.dst.contains(dst, 1) {
            return Err(Errno::Missing);
        }
        held.dst.with_use(|| {
            work();
            if space.put_page(dst) { Ok(()) } else { Err(Errno::Exists) }
        })
    });
    policy.unlock(space, held);
    result
}

/// UFFDIO_MOVE of one page; `work` is what it costs, under the locks.
///
/// # Errors
/// As the kernel's.
pub fn move_page(
    space: &Space,
    policy: &dyn Policy,
    dst: usize,
    src: usize,
    work: impl FnOnce(),
) -> Result<(), Errno> {
    let held = policy.lock(space, dst, Some(src))?;
    let result = space.unless_changing(|| {
        let Some(source) = &held.src else { return Err(Errno::Missing) };
        let fits = held.dst.contains(dst, 1) && source.contains(src, 1);
        if !fits || !source.is_writable() || source.is_writable() != held.dst.is_writable() {
            return Err(Errno::Invalid);
        }
        held.dst.with_use(|| {
            source.with_use(|| {
                work();
                if !space.take_page(src) {
                    return Err(Errno::Missing);
                }
                if space.put_page(dst) {
                    return Ok(());
                }
                // The source page stays.
                let _ = space.put_page(src);
                Err(Errno::Exists)
            })
        })
    });
    policy.unlock(space, held);
    result
}
