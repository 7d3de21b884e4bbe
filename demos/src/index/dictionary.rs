//! One shard of the dictionary: a hash table of [`Word`]s in chains. Growing it allocates a new array,
//! which becomes a large object when there are many words.

use strikeslip::{Array, Gc, Local, Mutator, OutOfMemory, Persistent, Scope, Str};

use super::{SAFEPOINT_EVERY, Word, filled};

/// Buckets of an empty shard. A power of two.
const FEWEST_BUCKETS: usize = 64;

/// A shard. Whoever uses it holds its lock.
#[derive(Debug)]
pub(super) struct Dictionary {
    buckets: Persistent<Array<Word>>,
    words: usize,
}

impl Dictionary {
    pub(super) fn new(m: &mut Mutator) -> Result<Self, OutOfMemory> {
        m.scope(|m, s| {
            let buckets = m.alloc_array::<Word>(s, FEWEST_BUCKETS)?;
            Ok(Self { buckets: m.persistent(buckets.get(m)), words: 0 })
        })
    }

    /// Number of words.
    pub(super) const fn len(&self) -> usize {
        self.words
    }

    /// The table itself, to walk over all words: bucket by bucket, each along its chain.
    pub(super) fn buckets<'m>(&self, m: &'m Mutator) -> &'m Array<Word> {
        self.buckets.get(m).as_ref()
    }

    pub(super) fn find<'m>(&self, m: &'m Mutator, hash: u64, text: &str) -> Option<Gc<'m, Word>> {
        let buckets = self.buckets(m);
        let mut next = buckets.get(bucket_of(hash, buckets));
        while let Some(word) = next {
            if word.hash.get() == hash && filled(&word.text).eq_str(text) {
                return Some(word);
            }
            next = word.as_ref().next.load();
        }
        None
    }

    /// The word `text`, which is added if it is not there; then the string becomes the word's own.
    pub(super) fn find_or_insert<'s>(
        &mut self,
        m: &mut Mutator,
        s: &Scope<'s>,
        hash: u64,
        text: Local<'_, Str>,
    ) -> Result<Local<'s, Word>, OutOfMemory> {
        if let Some(word) = self.find(m, hash, &text.get(m).to_string()) {
            return Ok(s.root(word));
        }
        if self.words >= self.buckets(m).len() {
            self.grow(m)?;
        }
        let word = m.alloc::<Word>(s)?;
        let fresh = word.get(m);
        fresh.text.store(m, Some(text.get(m)));
        fresh.hash.set(hash);
        push(m, self.buckets(m), fresh);
        self.words += 1;
        Ok(word)
    }

    /// Takes `word` out of its chain. It may live on: a cached answer may still refer to it.
    pub(super) fn remove(&mut self, m: &Mutator, word: Gc<'_, Word>) {
        let buckets = self.buckets(m);
        let mut link = buckets.slot(bucket_of(word.hash.get(), buckets));
        while let Some(found) = link.load() {
            if found == word {
                link.store(m, word.next.load());
                word.next.store(m, None);
                self.words -= 1;
                return;
            }
            link = &found.as_ref().next;
        }
        debug_assert!(false, "only words of this shard are removed");
    }

    /// Doubles the table. The words stay, only their chains change.
    fn grow(&mut self, m: &mut Mutator) -> Result<(), OutOfMemory> {
        m.scope(|m, s| {
            let larger = m.alloc_array::<Word>(s, self.buckets(m).len() * 2)?;
            for bucket in 0..self.buckets(m).len() {
                if bucket % SAFEPOINT_EVERY == 0 {
                    m.safepoint();
                }
                let (old, new) = (self.buckets(m), larger.get(m));
                let mut next = old.get(bucket);
                while let Some(word) = next {
                    next = word.as_ref().next.load();
                    push(m, &new, word);
                }
            }
            self.buckets.set(m, larger.get(m));
            Ok(())
        })
    }
}

fn bucket_of(hash: u64, buckets: &Array<Word>) -> usize {
    hash as usize & (buckets.len() - 1)
}

fn push(m: &Mutator, buckets: &Array<Word>, word: Gc<'_, Word>) {
    let slot = buckets.slot(bucket_of(word.hash.get(), buckets));
    word.next.store(m, slot.load());
    slot.store(m, Some(word));
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::random::{Random, hash};
    use crate::testing::with_mutator;

    #[test]
    fn behaves_like_a_hash_map() {
        with_mutator(|m| {
            let mut dictionary = Dictionary::new(m).unwrap();
            let mut model = HashMap::new();
            let mut random = Random::new(5, 0);
            for step in 0..20_000_u64 {
                let text = format!("w{}", random.below(1500));
                let hash = hash(text.as_bytes());
                m.scope(|m, s| {
                    let found = dictionary.find(m, hash, &text).map(|word| word.documents.get());
                    assert_eq!(found, model.get(&text).copied());
                    if random.one_in(3) && found.is_some() {
                        let word = s.root(dictionary.find(m, hash, &text).unwrap());
                        dictionary.remove(m, word.get(m));
                        model.remove(&text);
                    } else {
                        let text_object = m.alloc_str(s, &text).unwrap();
                        let word = dictionary.find_or_insert(m, s, hash, text_object).unwrap();
                        word.get(m).documents.set(step);
                        model.insert(text, step);
                    }
                });
                assert_eq!(dictionary.len(), model.len());
            }
        });
    }
}
