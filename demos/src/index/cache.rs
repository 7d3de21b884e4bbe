//! A cache of answers, least recently used out first, that lives in the managed heap: a hash table of
//! chains, and a doubly linked list from the newest entry to the oldest. An entry remembers the words
//! its answer came from and their generations; one changed word makes it stale.

use strikeslip::{
    Array, Field, Gc, Local, Mutator, OutOfMemory, Persistent, Scope, Slot, Str, Words, object,
};

use super::{Word, filled};

/// Entries before the oldest is dropped.
const CAPACITY: usize = 512;
/// Buckets of the table. A power of two.
const BUCKETS: usize = 1_024;

object! {
    /// The cache's own object.
    struct Lru {
        buckets: Slot<Array<Entry>>,
        newest: Slot<Entry>,
        oldest: Slot<Entry>,
    }
}

object! {
    /// A cached answer.
    struct Entry {
        key: Slot<Str>,
        chain: Slot<Entry>,
        newer: Slot<Entry>,
        older: Slot<Entry>,
        answer: Slot<Words>,
        first: Slot<Word>,
        second: Slot<Word>,
        hash: Field<u64>,
        first_generation: Field<u64>,
        second_generation: Field<u64>,
    }
}

/// A word that an answer came from, and its generation then.
pub(super) type Source<'s> = (Local<'s, Word>, u64);

/// The cache. Whoever uses it holds its lock.
#[derive(Debug)]
pub(super) struct Cache {
    lru: Persistent<Lru>,
    len: usize,
    capacity: usize,
}

impl Cache {
    pub(super) fn new(m: &mut Mutator) -> Result<Self, OutOfMemory> {
        Self::with_capacity(m, CAPACITY)
    }

    fn with_capacity(m: &mut Mutator, capacity: usize) -> Result<Self, OutOfMemory> {
        m.scope(|m, s| {
            let buckets = m.alloc_array::<Entry>(s, BUCKETS)?;
            let lru = m.alloc::<Lru>(s)?;
            lru.get(m).buckets.store(m, Some(buckets.get(m)));
            Ok(Self { lru: m.persistent(lru.get(m)), len: 0, capacity })
        })
    }

    /// The cached answer, if there is one that is not stale. It becomes the newest.
    pub(super) fn get(&mut self, m: &Mutator, hash: u64, key: &str) -> Option<Vec<u64>> {
        let entry = self.find(m, hash, key)?;
        if is_stale(&entry) {
            self.remove(m, entry);
            return None;
        }
        let lru = self.lru.get(m);
        unlink(m, lru, entry);
        link_newest(m, lru, entry);
        let answer = filled(&entry.answer);
        Some((0..answer.len()).map(|at| answer.get(at)).collect())
    }

    /// Adds an answer in place of what there was for the same key, and drops the oldest if there are
    /// too many.
    pub(super) fn insert(
        &mut self,
        m: &mut Mutator,
        hash: u64,
        key: &str,
        answer: &[u64],
        sources: [Option<Source<'_>>; 2],
    ) -> Result<(), OutOfMemory> {
        if let Some(previous) = self.find(m, hash, key) {
            self.remove(m, previous);
        }
        m.scope(|m, s| {
            let entry = new_entry(m, s, hash, key, answer, sources)?;
            let (lru, entry) = (self.lru.get(m), entry.get(m));
            let bucket = bucket(lru, hash);
            entry.chain.store(m, bucket.load());
            bucket.store(m, Some(entry));
            link_newest(m, lru, entry);
            self.len += 1;
            if self.len > self.capacity {
                self.remove(m, filled(&lru.oldest));
            }
            Ok(())
        })
    }

    fn find<'m>(&self, m: &'m Mutator, hash: u64, key: &str) -> Option<Gc<'m, Entry>> {
        let mut next = bucket(self.lru.get(m), hash).load();
        while let Some(entry) = next {
            if entry.hash.get() == hash && filled(&entry.key).eq_str(key) {
                return Some(entry);
            }
            next = entry.as_ref().chain.load();
        }
        None
    }

    fn remove(&mut self, m: &Mutator, entry: Gc<'_, Entry>) {
        let lru = self.lru.get(m);
        unlink(m, lru, entry);
        let mut link = bucket(lru, entry.hash.get());
        while let Some(found) = link.load() {
            if found == entry {
                link.store(m, entry.chain.load());
                break;
            }
            link = &found.as_ref().chain;
        }
        self.len -= 1;
    }
}

fn bucket<'m>(lru: Gc<'m, Lru>, hash: u64) -> &'m Slot<Entry> {
    filled(&lru.as_ref().buckets).as_ref().slot(hash as usize % BUCKETS)
}

fn is_stale(entry: &Entry) -> bool {
    let changed = |word: &Slot<Word>, generation: &Field<u64>| {
        word.load().is_some_and(|word| word.generation.get() != generation.get())
    };
    changed(&entry.first, &entry.first_generation) || changed(&entry.second, &entry.second_generation)
}

fn new_entry<'s>(
    m: &mut Mutator,
    s: &Scope<'s>,
    hash: u64,
    key: &str,
    answer: &[u64],
    [first, second]: [Option<Source<'_>>; 2],
) -> Result<Local<'s, Entry>, OutOfMemory> {
    let key = m.alloc_str(s, key)?;
    let words = m.alloc_words(s, answer.len())?;
    let entry = m.alloc::<Entry>(s)?;
    let (fresh, into) = (entry.get(m), words.get(m));
    answer.iter().enumerate().for_each(|(at, &word)| into.set(at, word));
    fresh.key.store(m, Some(key.get(m)));
    fresh.answer.store(m, Some(into));
    fresh.hash.set(hash);
    if let Some((word, generation)) = first {
        fresh.first.store(m, Some(word.get(m)));
        fresh.first_generation.set(generation);
    }
    if let Some((word, generation)) = second {
        fresh.second.store(m, Some(word.get(m)));
        fresh.second_generation.set(generation);
    }
    Ok(entry)
}

fn link_newest(m: &Mutator, lru: Gc<'_, Lru>, entry: Gc<'_, Entry>) {
    let newest = lru.newest.load();
    entry.newer.store(m, None);
    entry.older.store(m, newest);
    match newest {
        Some(newest) => newest.newer.store(m, Some(entry)),
        None => lru.oldest.store(m, Some(entry)),
    }
    lru.newest.store(m, Some(entry));
}

fn unlink(m: &Mutator, lru: Gc<'_, Lru>, entry: Gc<'_, Entry>) {
    let (newer, older) = (entry.newer.load(), entry.older.load());
    match newer {
        Some(newer) => newer.older.store(m, older),
        None => lru.newest.store(m, older),
    }
    match older {
        Some(older) => older.newer.store(m, newer),
        None => lru.oldest.store(m, newer),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::random::Random;
    use crate::testing::with_mutator;

    #[test]
    fn behaves_like_a_list_of_the_most_recent() {
        const SMALL: usize = 16;
        with_mutator(|m| {
            let mut cache = Cache::with_capacity(m, SMALL).unwrap();
            let mut model: VecDeque<(String, u64)> = VecDeque::new();
            let mut random = Random::new(3, 0);
            for step in 0..10_000 {
                let key = format!("k{}", random.below(3 * SMALL));
                // Few different hashes, so that chains are long.
                let hash = key.len() as u64;
                let known = model.iter().position(|(known, _)| *known == key);
                let found = cache.get(m, hash, &key);
                assert_eq!(found, known.map(|at| vec![model[at].1, 7]));
                if let Some(at) = known {
                    let entry = model.remove(at).unwrap();
                    model.push_front(entry);
                } else {
                    cache.insert(m, hash, &key, &[step, 7], [None, None]).unwrap();
                    model.push_front((key, step));
                    model.truncate(SMALL);
                }
                assert_eq!(cache.len, model.len());
            }
        });
    }

    #[test]
    fn a_changed_word_makes_its_answers_stale() {
        with_mutator(|m| {
            m.scope(|m, s| {
                let mut cache = Cache::new(m).unwrap();
                let (one, two) = (m.alloc::<Word>(s).unwrap(), m.alloc::<Word>(s).unwrap());
                cache.insert(m, 1, "one", &[1], [Some((one, 0)), None]).unwrap();
                cache.insert(m, 2, "both", &[2], [Some((one, 0)), Some((two, 0))]).unwrap();
                two.get(m).generation.set(1);
                assert_eq!(cache.get(m, 1, "one"), Some(vec![1]));
                assert_eq!(cache.get(m, 2, "both"), None);
                assert_eq!(cache.len, 1, "stale answers are dropped");
                cache.insert(m, 2, "both", &[3], [Some((one, 0)), Some((two, 1))]).unwrap();
                assert_eq!(cache.get(m, 2, "both"), Some(vec![3]));
                one.get(m).generation.set(9);
                assert_eq!(cache.get(m, 1, "one"), None);
            });
        });
    }

    #[test]
    fn inserting_again_replaces_the_answer() {
        with_mutator(|m| {
            let mut cache = Cache::new(m).unwrap();
            cache.insert(m, 1, "key", &[1], [None, None]).unwrap();
            cache.insert(m, 1, "key", &[2, 3], [None, None]).unwrap();
            assert_eq!(cache.get(m, 1, "key"), Some(vec![2, 3]));
            assert_eq!(cache.len, 1);
        });
    }
}
