//! Rules about ranges: alignment, length, mappings, registration, pages that are there and holes.

use std::sync::atomic::Ordering;

use userfaultfd_sys as raw;

use super::NotTried;
use super::ground::{Ground, PAGES, said, said_in_part, said_with_count};
use crate::geometry::PAGE_BYTES;
use crate::sys::ioctls::RawUserfault;

type Seen = Result<String, NotTried>;

/// Pages of a request that is answered in part, and the page of it that stops it.
const MANY: usize = 8;
const STOPS: usize = 3;

pub(super) fn copy_misaligned() -> Seen {
    let g = Ground::new()?;
    Ok(said(g.fd.copy(g.to.page(0) + 8, g.from.page(0), PAGE_BYTES, 0)))
}

pub(super) fn copy_from_anywhere() -> Seen {
    let g = Ground::new()?;
    let answer = g.fd.copy(g.to.page(0), g.from.page(0) + 8, PAGE_BYTES, 0);
    // What is 8 bytes before the second page's first word is there as well.
    let copied = answer.is_done() && g.to.word(0).load(Ordering::Relaxed) == 0;
    Ok(if copied { "done".to_owned() } else { said(answer) })
}

pub(super) fn zero_misaligned() -> Seen {
    let g = Ground::new()?;
    Ok(said(g.fd.zeropage(g.to.page(0) + 8, PAGE_BYTES)))
}

pub(super) fn move_misaligned() -> Seen {
    let g = Ground::for_move()?;
    Ok(said(g.move_by(&g.fd, g.to.page(0), g.from.page(0) + 8, PAGE_BYTES, 0)))
}

pub(super) fn register_misaligned() -> Seen {
    let g = Ground::unregistered()?;
    Ok(said(g.fd.register(g.to.page(0) + 8, PAGE_BYTES, raw::UFFDIO_REGISTER_MODE_MISSING)))
}

pub(super) fn copy_nothing() -> Seen {
    Ok(said(Ground::new()?.copy(0, 0, 0)))
}

pub(super) fn zero_nothing() -> Seen {
    Ok(said(Ground::new()?.zero(0, 0)))
}

pub(super) fn move_nothing() -> Seen {
    Ok(said(Ground::for_move()?.move_pages(0, 0, 0)))
}

pub(super) fn register_nothing() -> Seen {
    let g = Ground::unregistered()?;
    Ok(said(g.fd.register(g.to.page(0), 0, raw::UFFDIO_REGISTER_MODE_MISSING)))
}

pub(super) fn copy_to_nowhere() -> Seen {
    let g = Ground::new()?;
    g.to.unmap_from(0);
    Ok(said(g.copy(0, 0, 1)))
}

pub(super) fn move_to_nowhere() -> Seen {
    let g = Ground::for_move()?;
    g.to.unmap_from(0);
    Ok(said(g.move_pages(0, 0, 1)))
}

pub(super) fn move_from_nowhere() -> Seen {
    let g = Ground::for_move()?;
    g.from.unmap_from(0);
    Ok(said(g.move_pages(0, 0, 1)))
}

pub(super) fn copy_from_nowhere() -> Seen {
    let g = Ground::new()?;
    g.from.unmap_from(0);
    Ok(said(g.copy(0, 0, 1)))
}

pub(super) fn copy_beyond_all() -> Seen {
    let g = Ground::new()?;
    let beyond = usize::MAX & !(PAGE_BYTES - 1);
    Ok(said(g.fd.copy(beyond - PAGE_BYTES, g.from.page(0), PAGE_BYTES, 0)))
}

/// A destination of two mappings, which differ in their protection.
fn two_mappings() -> Result<Ground, NotTried> {
    let g = Ground::new()?;
    g.to.protect(PAGES / 2, PAGES / 2, libc::PROT_READ)?;
    Ok(g)
}

pub(super) fn copy_across() -> Seen {
    let g = two_mappings()?;
    Ok(said(g.copy(PAGES / 2 - 1, 0, 2)))
}

pub(super) fn zero_across() -> Seen {
    let g = two_mappings()?;
    Ok(said(g.zero(PAGES / 2 - 1, 2)))
}

pub(super) fn move_across() -> Seen {
    let g = two_mappings()?;
    g.needs_move()?;
    Ok(said(g.move_pages(PAGES / 2 - 1, 0, 2)))
}

pub(super) fn copy_unregistered() -> Seen {
    Ok(said(Ground::unregistered()?.copy(0, 0, 1)))
}

pub(super) fn zero_unregistered() -> Seen {
    Ok(said(Ground::unregistered()?.zero(0, 1)))
}

pub(super) fn move_unregistered() -> Seen {
    let g = Ground::unregistered()?;
    g.needs_move()?;
    Ok(said(g.move_pages(0, 0, 1)))
}

pub(super) fn protect_unregistered() -> Seen {
    let g = Ground::new()?;
    Ok(said(g.fd.write_protect(g.to.page(0), PAGE_BYTES, raw::UFFDIO_WRITEPROTECT_MODE_WP)))
}

fn another() -> Result<RawUserfault, NotTried> {
    RawUserfault::open(0).map_err(|error| NotTried::because("userfaultfd", error))
}

pub(super) fn register_twice() -> Seen {
    let g = Ground::new()?;
    let mode = raw::UFFDIO_REGISTER_MODE_MISSING;
    Ok(said(another()?.register(g.to.page(0), PAGES * PAGE_BYTES, mode)))
}

pub(super) fn copy_by_another() -> Seen {
    let g = Ground::new()?;
    Ok(said(another()?.copy(g.to.page(0), g.from.page(0), PAGE_BYTES, 0)))
}

pub(super) fn move_by_another() -> Seen {
    let g = Ground::for_move()?;
    Ok(said(g.move_by(&another()?, g.to.page(0), g.from.page(0), PAGE_BYTES, 0)))
}

pub(super) fn move_in_no_mode() -> Seen {
    let g = Ground::for_move()?;
    Ok(said(g.move_by(&g.fd, g.to.page(0), g.from.page(0), PAGE_BYTES, 1 << 40)))
}

/// A destination in which one page is there.
fn with_page(page: usize) -> Result<Ground, NotTried> {
    let g = Ground::new()?;
    let answer = g.copy(page, 0, 1);
    if answer.is_done() { Ok(g) } else { Err(NotTried::because("COPY", said(answer))) }
}

pub(super) fn copy_present() -> Seen {
    Ok(said_with_count(with_page(0)?.copy(0, 0, 1)))
}

pub(super) fn zero_present() -> Seen {
    Ok(said_with_count(with_page(0)?.zero(0, 1)))
}

pub(super) fn move_present() -> Seen {
    let g = with_page(0)?;
    g.needs_move()?;
    let answer = g.move_pages(0, 1, 1);
    let kept = g.from.word(1).load(Ordering::Relaxed) == 2;
    Ok(format!("{}, the source {} its page", said(answer), if kept { "keeps" } else { "loses" }))
}

pub(super) fn copy_in_part() -> Seen {
    let g = with_page(STOPS)?;
    Ok(said_in_part(g.copy(0, 0, MANY), MANY, |done| g.copy(done, done, MANY - done)))
}

pub(super) fn zero_in_part() -> Seen {
    let g = with_page(STOPS)?;
    Ok(said_in_part(g.zero(0, MANY), MANY, |done| g.zero(done, MANY - done)))
}

pub(super) fn move_in_part() -> Seen {
    let g = with_page(STOPS)?;
    g.needs_move()?;
    Ok(said_in_part(g.move_pages(0, 0, MANY), MANY, |done| g.move_pages(done, done, MANY - done)))
}

/// A source of which one page is not there.
fn with_hole(page: usize) -> Result<Ground, NotTried> {
    let g = Ground::for_move()?;
    let discarded = g.from.advise(page, 1, libc::MADV_DONTNEED);
    discarded.map_err(|error| NotTried::because("MADV_DONTNEED", error))?;
    Ok(g)
}

pub(super) fn move_hole() -> Seen {
    Ok(said(with_hole(0)?.move_pages(0, 0, 1)))
}

pub(super) fn move_hole_allowed() -> Seen {
    let g = with_hole(STOPS)?;
    let mode = raw::UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES;
    let answer = g.move_by(&g.fd, g.to.page(0), g.from.page(0), MANY * PAGE_BYTES, mode);
    let others = (0..MANY).filter(|&page| page != STOPS);
    let missing = is_missing(&g, STOPS) && others.into_iter().all(|page| !is_missing(&g, page));
    Ok(format!("{}, the hole is {}", said(answer), if missing { "missing still" } else { "filled" }))
}

/// Whether a page is not there: installing zeros succeeds only then.
fn is_missing(g: &Ground, page: usize) -> bool {
    g.zero(page, 1).is_done()
}

pub(super) fn move_hole_in_part() -> Seen {
    let g = with_hole(STOPS)?;
    Ok(said_in_part(g.move_pages(0, 0, MANY), MANY, |done| g.move_pages(done, done, MANY - done)))
}
