//! COPY and MOVE (`mfill_atomic`, `move_pages`), with any [`Policy`].

use std::ops::Range;

use crate::policy::Policy;
use crate::rule::Rule;
use crate::space::Space;
use crate::vma::Vma;

/// Why an operation was not done: the kernel's error codes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Errno {
    /// `EAGAIN`: mappings are changing (`mmap_changing`); to be tried again.
    Again,
    /// `EEXIST`: the page is there.
    Exists,
    /// `EINVAL`: the VMAs do not fit the operation.
    Invalid,
    /// `ENOENT`: no such VMA or source page, or the range of a COPY leaves its VMA.
    Missing,
}

/// UFFDIO_COPY; `work` is what a page costs, under the locks. Says how many pages were put.
///
/// # Errors
/// As the kernel's, if it is none.
pub fn copy(
    space: &Space,
    policy: &dyn Policy,
    pages: Range<usize>,
    work: impl Fn(),
) -> Result<usize, Errno> {
    let held = policy.lock(space, pages.start, None)?;
    let result = space.userfault.unless_changing(|| {
        if !is_range_in(space, &held.dst, &pages) {
            return Err(Errno::Missing);
        }
        held.dst.with_use(&pages, || {
            for_each_page(pages.clone(), |page| {
                work();
                space.put_page(&held.dst, page)
            })
        })
    });
    policy.unlock(space, held);
    result
}

/// UFFDIO_MOVE of `count` pages; `work` is what a page costs, under the locks. Says how many pages were moved.
///
/// # Errors
/// As the kernel's, if it is none.
///
/// # Panics
/// The policy locked no source.
pub fn move_pages(
    space: &Space,
    policy: &dyn Policy,
    dst: usize,
    src: usize,
    count: usize,
    work: impl Fn(),
) -> Result<usize, Errno> {
    let held = policy.lock(space, dst, Some(src))?;
    let source = held.src.as_ref().expect("who is asked for a source locks one");
    let (to, from) = (dst..dst + count, src..src + count);
    let result = space.userfault.unless_changing(|| {
        let in_range = is_range_in(space, &held.dst, &to) && is_range_in(space, source, &from);
        // `validate_move_areas`
        let is_valid = source.is_writable() && held.dst.is_writable();
        if !in_range || !is_valid {
            return Err(Errno::Invalid);
        }
        held.dst.with_use(&to, || {
            source.with_use(&from, || {
                for_each_page(0..count, |page| {
                    work();
                    space.move_page(&held.dst, dst + page, src + page)
                })
            })
        })
    });
    policy.unlock(space, held);
    result
}

fn is_range_in(space: &Space, vma: &Vma, range: &Range<usize>) -> bool {
    !space.keeps(Rule::RangeInVma) || vma.contains(range)
}

/// Up to the first error, which is told only if nothing was done before: the kernel's partial progress.
fn for_each_page(
    pages: Range<usize>,
    operation: impl Fn(usize) -> Result<(), Errno>,
) -> Result<usize, Errno> {
    let begin = pages.start;
    for page in pages.clone() {
        match operation(page) {
            Ok(()) => {}
            Err(error) if page == begin => return Err(error),
            Err(_) => return Ok(page - begin),
        }
    }
    Ok(pages.len())
}
