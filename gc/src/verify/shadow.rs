//! Copies of all that is reachable, taken before the flip, and what is compared with them: regions that were not taken
//! in the pause, units when they are built or returned, and, where the world stands still until all is there,
//! everything.
//!
//! Invariant: a shadow is published in the pause, and withdrawn after service has ended, so whoever serves may read it.

use std::ptr;

use crate::address::{FromAddress, PageIndex, ToAddress, WordIndex};
use crate::core::Core;
use crate::forward::forward;
use crate::geometry::{PAGE_BYTES, WORD_BYTES};
use crate::layout::Header;
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::traverse::traverse;
use super::{fail, read_word};

/// Copies of all reachable objects, taken before the flip, by new address.
#[derive(Debug, Default)]
pub struct Shadow {
    objects: Vec<ShadowObject>,
    words: Vec<u64>,
}

#[derive(Debug)]
struct ShadowObject {
    /// Where it will be after the flip.
    new: WordIndex,
    /// Where it was before.
    old: WordIndex,
    header: Header,
    /// Position of its contents, references already mapped.
    contents: usize,
}

impl ShadowObject {
    fn words(&self) -> usize {
        self.header.object_bytes() / WORD_BYTES
    }

    fn end(&self) -> WordIndex {
        self.new.offset(self.words() as u32)
    }
}

impl Shadow {
    /// Copies what is reachable, by the plan's new addresses. With the world stopped.
    pub(super) fn take(core: &Core) -> Box<Self> {
        let mut shadow = Box::new(Self::default());
        let _ = traverse(core, "before the flip", |word, header| shadow.add(core, word, header));
        shadow.objects.sort_unstable_by_key(|object| object.new);
        if let Some(pair) = shadow.objects.windows(2).find(|pair| pair[0].end() > pair[1].new) {
            fail(format_args!("before the flip: two objects go to one place: {pair:x?}"));
        }
        shadow
    }

    fn add(&mut self, core: &Core, word: WordIndex, header: Header) {
        let space = &core.space;
        let words = header.object_bytes() / WORD_BYTES;
        let new = space.range.word(forward(space, space.range.address(word)));
        let contents = self.words.len();
        self.objects.push(ShadowObject { old: word, new, header, contents });
        self.words.extend((0..words as u32).map(|at| read_word(core, word.offset(at))));
        header.layout().for_each_reference(header.length(), 0..words, |slot| {
            let value = &mut self.words[contents + slot];
            if *value != 0 {
                *value = forward(space, ToAddress::new(*value as usize)).get() as u64;
            }
        });
    }

    /// Compares the objects that lie in `words`, as far as they do; `read` gives a word by its new place.
    fn compare(&self, core: &Core, words: std::ops::Range<WordIndex>, read: impl Fn(WordIndex) -> u64) {
        let first = self.objects.partition_point(|object| object.end() <= words.start);
        let mut compared = 0;
        for object in self.objects[first..].iter().take_while(|object| object.new < words.end) {
            let begin = object.new.max(words.start);
            for at in begin.0..object.end().min(words.end).0 {
                let expected = self.words[object.contents + (at - object.new.0) as usize];
                let found = read(WordIndex(at));
                if expected != found {
                    differ(core, object, at - object.new.0, expected, found);
                }
                compared += WORD_BYTES as u64;
            }
        }
        core.stats.counters.compared_bytes.fetch_add(compared, Ordering::Relaxed);
    }

    /// With the world stopped since the shadow was taken, and every page there: all objects equal their copies.
    pub fn compare_all(&self, core: &Core) {
        self.compare(core, WordIndex(0)..WordIndex(u32::MAX), |word| read_word(core, word));
    }

    /// After the flip, in the pause: objects that did not move and were not taken equal their copies.
    pub fn compare_untaken(&self, core: &Core) {
        let regions = &core.space.regions;
        for objects in self.objects.chunk_by(|a, b| a.new.region() == b.new.region()) {
            let region = objects[0].new.region();
            let is_missing = regions.service(region) != crate::region::Service::Zero;
            if !is_missing {
                // The end of a large object lies in regions that may be missing.
                let words = region.first_word()..region.next().first_word();
                self.compare(core, words, |word| read_word(core, word));
            }
        }
    }
}

#[cold]
fn differ(core: &Core, object: &ShadowObject, at: u32, expected: u64, found: u64) -> ! {
    // Perhaps in a signal handler: nothing is allocated.
    let regions = &core.space.regions;
    let region = object.new.region();
    fail(format_args!(
        "word {at} of the object at {:#x} (was at {:#x}) is {found:#x}, but should be {expected:#x}; region {}: {:?}, \
         {:?}, {:?}",
        object.new.0,
        object.old.0,
        region.0,
        regions.usage(region),
        regions.class(region),
        regions.verdict(region),
    ))
}

/// The shadow of the cycle that is being served, if there is one.
#[derive(Debug, Default)]
pub struct Published(AtomicPtr<Shadow>);

impl Published {
    /// Lets whoever serves compare. In the pause.
    pub fn publish(&self, shadow: Box<Shadow>) {
        // Release: pairs with the Acquire in `compare`.
        self.0.store(Box::into_raw(shadow), Ordering::Release);
    }

    /// When nobody serves any more.
    pub fn withdraw(&self) {
        let shadow = self.0.swap(ptr::null_mut(), Ordering::Relaxed);
        if !shadow.is_null() {
            // SAFETY: it came from `publish`, and service, in which alone it is read, has ended.
            drop(unsafe { Box::from_raw(shadow) });
        }
    }

    /// Compares pages with their copies, before they are installed: `pages` pages that go to `first`, at `contents`.
    /// Safe in a signal handler.
    #[inline]
    pub fn compare(&self, core: &Core, first: PageIndex, pages: usize, contents: FromAddress) {
        // Acquire: pairs with the Release in `publish`.
        let shadow = self.0.load(Ordering::Acquire);
        if shadow.is_null() {
            return;
        }
        let begin = first.first_word();
        let words = begin..begin.offset((pages * (PAGE_BYTES / WORD_BYTES)) as u32);
        // SAFETY: the invariant of this module: the caller serves, so the shadow is still there.
        unsafe { &*shadow }.compare(core, words, |word| {
            let bytes = (word.0 - begin.0) as usize * WORD_BYTES;
            // SAFETY: the pages are the caller's, who has just built them, or rewritten them in their alias.
            unsafe { &*contents.offset(bytes).as_ptr::<AtomicU64>() }.load(Ordering::Relaxed)
        });
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.withdraw();
    }
}
