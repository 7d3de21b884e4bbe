//! The postings of a word: a list of [`Block`]s, each a sorted run of entries (document and count), the
//! runs in order too. Entries grow by doubling up to [`MOST`], then the block splits; they shrink
//! when three quarters are unused. So common words are lists of full-grown blocks, rare ones a
//! single small one, and every change leaves garbage of some size behind.
//!
//! Callers hold the lock of the word's shard.

use strikeslip::{Gc, Local, Mutator, OutOfMemory, Scope, Words};

use super::{Block, DocumentId, Word, filled, posting_document};

/// Entries of a new block.
const FEWEST: usize = 2;
/// Most entries of a block.
const MOST: usize = 512;

/// Adds `entry`, whose document must not be there yet.
pub(super) fn insert(
    m: &mut Mutator,
    s: &Scope<'_>,
    word: Local<'_, Word>,
    entry: u64,
) -> Result<(), OutOfMemory> {
    let block = match locate(word.get(m), posting_document(entry)) {
        Some(block) => s.root(block),
        None => {
            let block = new_block(m, s, FEWEST)?;
            word.get(m).postings.store(m, Some(block.get(m)));
            block
        }
    };
    let block = if block.get(m).used.get() == MOST { split(m, s, block, entry)? } else { block };
    if block.get(m).used.get() == filled(&block.get(m).entries).len() {
        let more = block.get(m).used.get() * 2;
        resize(m, s, block, more)?;
    }
    insert_in_block(block.get(m), entry);
    changed(word.get(m), 1);
    Ok(())
}

/// Removes the entry of `document`, if there is one.
pub(super) fn remove(
    m: &mut Mutator,
    s: &Scope<'_>,
    word: Local<'_, Word>,
    document: DocumentId,
) -> Result<(), OutOfMemory> {
    let Some(block) = locate(word.get(m), document).map(|block| s.root(block)) else { return Ok(()) };
    if !remove_from_block(block.get(m), document) {
        return Ok(());
    }
    changed(word.get(m), -1);
    let (used, capacity) = (block.get(m).used.get(), filled(&block.get(m).entries).len());
    if used == 0 {
        unlink(m, word.get(m), block.get(m));
    } else if used * 4 <= capacity && capacity > FEWEST {
        resize(m, s, block, capacity / 2)?;
    }
    Ok(())
}

/// Calls `visit` with each entry in order.
pub(super) fn for_each(word: &Word, mut visit: impl FnMut(u64)) {
    let mut next = word.postings.load();
    while let Some(block) = next {
        let entries = filled(&block.entries);
        (0..block.used.get()).for_each(|at| visit(entries.get(at)));
        next = block.as_ref().next.load();
    }
}

/// The entry of `document`.
pub(super) fn find(word: Gc<'_, Word>, document: DocumentId) -> Option<u64> {
    let block = locate(word, document)?;
    let at = position(&block, document);
    let entries = filled(&block.entries);
    (at < block.used.get()).then(|| entries.get(at)).filter(|&entry| posting_document(entry) == document)
}

/// The block in which `document` is or would be: the last one that begins at or before it, or else
/// the first.
fn locate<'m>(word: Gc<'m, Word>, document: DocumentId) -> Option<Gc<'m, Block>> {
    let mut block = word.as_ref().postings.load()?;
    while let Some(next) = block.as_ref().next.load() {
        if posting_document(filled(&next.entries).get(0)) > document {
            break;
        }
        block = next;
    }
    Some(block)
}

/// Index of the first entry of `document` or a later one.
fn position(block: &Block, document: DocumentId) -> usize {
    let entries = filled(&block.entries);
    let (mut low, mut high) = (0, block.used.get());
    while low < high {
        let middle = usize::midpoint(low, high);
        if posting_document(entries.get(middle)) < document {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn new_block<'s>(m: &mut Mutator, s: &Scope<'s>, entries: usize) -> Result<Local<'s, Block>, OutOfMemory> {
    let entries = m.alloc_words(s, entries)?;
    let block = m.alloc::<Block>(s)?;
    block.get(m).entries.store(m, Some(entries.get(m)));
    Ok(block)
}

/// Gives `block` room for `capacity` entries, at least as many as it has.
fn resize(
    m: &mut Mutator,
    s: &Scope<'_>,
    block: Local<'_, Block>,
    capacity: usize,
) -> Result<(), OutOfMemory> {
    let entries = m.alloc_words(s, capacity)?;
    let (block, entries) = (block.get(m), entries.get(m));
    copy(&filled(&block.entries), 0..block.used.get(), &entries);
    block.entries.store(m, Some(entries));
    Ok(())
}

fn copy(from: &Words, range: std::ops::Range<usize>, to: &Words) {
    range.enumerate().for_each(|(into, at)| to.set(into, from.get(at)));
}

/// Moves the upper half of a full `block` to a new one behind it. Returns the one that `entry`
/// belongs to.
fn split<'s>(
    m: &mut Mutator,
    s: &Scope<'s>,
    block: Local<'s, Block>,
    entry: u64,
) -> Result<Local<'s, Block>, OutOfMemory> {
    let upper = new_block(m, s, MOST)?;
    let (low, high) = (block.get(m), upper.get(m));
    copy(&filled(&low.entries), MOST / 2..MOST, &filled(&high.entries));
    high.used.set(MOST / 2);
    low.used.set(MOST / 2);
    high.next.store(m, low.next.load());
    low.next.store(m, Some(high));
    Ok(if entry < filled(&high.entries).get(0) { block } else { upper })
}

fn insert_in_block(block: Gc<'_, Block>, entry: u64) {
    let entries = filled(&block.entries);
    let (at, used) = (position(&block, posting_document(entry)), block.used.get());
    (at..used).rev().for_each(|index| entries.set(index + 1, entries.get(index)));
    entries.set(at, entry);
    block.used.set(used + 1);
}

fn remove_from_block(block: Gc<'_, Block>, document: DocumentId) -> bool {
    let entries = filled(&block.entries);
    let (at, used) = (position(&block, document), block.used.get());
    if at == used || posting_document(entries.get(at)) != document {
        return false;
    }
    (at + 1..used).for_each(|index| entries.set(index - 1, entries.get(index)));
    block.used.set(used - 1);
    true
}

fn unlink(m: &Mutator, word: Gc<'_, Word>, empty: Gc<'_, Block>) {
    let mut link = &word.as_ref().postings;
    while let Some(block) = link.load() {
        if block == empty {
            link.store(m, empty.next.load());
            return;
        }
        link = &block.as_ref().next;
    }
}

fn changed(word: Gc<'_, Word>, documents: i64) {
    word.documents.set(word.documents.get().wrapping_add_signed(documents));
    word.generation.set(word.generation.get() + 1);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{posting, posting_count};
    use super::*;
    use crate::random::Random;
    use crate::testing::with_mutator;

    /// Runs seeded operations on postings and on a model, with documents below `documents`.
    fn compare(documents: usize, steps: usize) {
        with_mutator(|m| {
            m.scope(|m, s| {
                let word = m.alloc::<Word>(s).unwrap();
                let mut model = BTreeMap::new();
                let mut random = Random::new(documents as u64, 0);
                for step in 0..steps as u32 {
                    let document = random.below(documents) as DocumentId;
                    let known = model.get(&document).copied();
                    assert_eq!(find(word.get(m), document).map(posting_count), known);
                    m.scope(|m, s| {
                        if known.is_some() {
                            remove(m, s, word, document).unwrap();
                            model.remove(&document);
                        } else {
                            insert(m, s, word, posting(document, step)).unwrap();
                            model.insert(document, step);
                        }
                    });
                    assert_eq!(word.get(m).documents.get() as usize, model.len());
                }
                let mut entries = vec![];
                for_each(&word.get(m), |entry| entries.push((posting_document(entry), posting_count(entry))));
                assert_eq!(entries, model.into_iter().collect::<Vec<_>>());
                assert_eq!(word.get(m).generation.get(), steps as u64);
            });
        });
    }

    #[test]
    fn few_documents_behave_like_a_map() {
        compare(5, 2_000);
    }

    #[test]
    fn many_documents_behave_like_a_map() {
        compare(3_000, 20_000);
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        with_mutator(|m| {
            m.scope(|m, s| {
                let word = m.alloc::<Word>(s).unwrap();
                remove(m, s, word, 1).unwrap();
                insert(m, s, word, posting(2, 3)).unwrap();
                remove(m, s, word, 1).unwrap();
                assert_eq!(find(word.get(m), 2), Some(posting(2, 3)));
                assert_eq!(word.get(m).generation.get(), 1);
            });
        });
    }
}
