//! Queries, and how they are answered: through the cache, else from the postings.
//!
//! An answer is the first [`MOST_RESULTS`] postings that match, in one word each. What a query means is
//! defined once ([`Query::evaluate`]), for the heap's postings and for the oracle's alike.

use strikeslip::{Mutator, OutOfMemory, Scope};

use super::cache::Source;
use super::{Index, posting, posting_count, posting_document, postings, shard_of};
use crate::random::hash;
use crate::sync::lock;

/// Most results of an answer.
const MOST_RESULTS: usize = 256;

/// A question to the index. Words are lower-case, as the tokenizer makes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// The documents with this word.
    Word(Box<str>),
    /// The documents with both words; the count is the smaller of the two.
    Both(Box<str>, Box<str>),
    /// So many documents that have the word most often.
    Top(Box<str>, usize),
}

/// An answer, and whether it came from the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Document and count, in one word.
    pub results: Vec<u64>,
    /// Whether the cache had it.
    pub cached: bool,
}

impl Query {
    fn words(&self) -> (&str, Option<&str>) {
        match self {
            Self::Word(word) | Self::Top(word, _) => (word, None),
            Self::Both(first, second) => (first, Some(second)),
        }
    }

    /// What the cache knows this query by. Words have no punctuation.
    fn key(&self) -> String {
        match self {
            Self::Word(word) => format!("{word}"),
            Self::Both(first, second) => format!("{first}&{second}"),
            Self::Top(word, results) => format!("{word}/{results}"),
        }
    }

    /// The answer, from the words' postings in order of documents.
    pub(super) fn evaluate(&self, first: &[u64], second: &[u64]) -> Vec<u64> {
        let mut results = match self {
            Self::Word(_) => first.to_vec(),
            Self::Both(..) => intersection(first, second),
            Self::Top(_, results) => top(first, *results),
        };
        results.truncate(MOST_RESULTS);
        results
    }
}

/// Entries of documents that are in both, by merging.
fn intersection(first: &[u64], second: &[u64]) -> Vec<u64> {
    let mut rest = second.iter().copied().peekable();
    let mut both = vec![];
    for &entry in first {
        let document = posting_document(entry);
        while rest.next_if(|&other| posting_document(other) < document).is_some() {}
        if let Some(other) = rest.next_if(|&other| posting_document(other) == document) {
            both.push(posting(document, posting_count(entry).min(posting_count(other))));
        }
    }
    both
}

/// The entries with the highest counts, highest first; of equals, the lower document.
fn top(entries: &[u64], results: usize) -> Vec<u64> {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable_by_key(|&entry| (std::cmp::Reverse(posting_count(entry)), posting_document(entry)));
    sorted.truncate(results);
    sorted
}

impl Index {
    /// Answers `query`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn answer(&self, m: &mut Mutator, query: &Query) -> Result<Answer, OutOfMemory> {
        let key = query.key();
        let hash = hash(key.as_bytes());
        let cached = lock(m, &self.cache).get(m, hash, &key);
        if let Some(results) = cached {
            return Ok(Answer { results, cached: true });
        }
        m.scope(|m, s| {
            let (first, second) = query.words();
            let (first, first_source) = self.read(m, s, first);
            let (second, second_source) = match second {
                Some(word) => self.read(m, s, word),
                None => (vec![], None),
            };
            let results = query.evaluate(&first, &second);
            // Nothing would tell that a word which is in no document has come to be in one.
            let all_known = first_source.is_some() && (second_source.is_some() || query.words().1.is_none());
            if all_known {
                lock(m, &self.cache).insert(m, hash, &key, &results, [first_source, second_source])?;
            }
            Ok(Answer { results, cached: false })
        })
    }

    /// A word's postings, and what to know them by.
    fn read<'s>(&self, m: &mut Mutator, s: &Scope<'s>, text: &str) -> (Vec<u64>, Option<Source<'s>>) {
        let hash = hash(text.as_bytes());
        let dictionary = lock(m, &self.shards[shard_of(hash)]);
        let Some(word) = dictionary.find(m, hash, text) else { return (vec![], None) };
        let mut entries = Vec::with_capacity(word.documents.get() as usize);
        postings::for_each(&word, |entry| entries.push(entry));
        (entries, Some((s.root(word), word.generation.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::with_mutator;

    const FIRST: [u64; 3] = [posting(1, 5), posting(3, 1), posting(8, 5)];
    const SECOND: [u64; 4] = [posting(0, 1), posting(3, 4), posting(7, 1), posting(8, 2)];

    #[test]
    fn queries_mean_what_they_say() {
        let (a, b) = (Box::<str>::from("a"), Box::<str>::from("b"));
        assert_eq!(Query::Word(a.clone()).evaluate(&FIRST, &[]), FIRST);
        assert_eq!(Query::Both(a.clone(), b).evaluate(&FIRST, &SECOND), [posting(3, 1), posting(8, 2)]);
        assert_eq!(Query::Top(a.clone(), 2).evaluate(&FIRST, &[]), [FIRST[0], FIRST[2]]);
        let many: Vec<_> = (0..1000).map(|document| posting(document, 1)).collect();
        assert_eq!(Query::Word(a).evaluate(&many, &[]).len(), MOST_RESULTS);
    }

    #[test]
    fn answers_come_from_the_cache_until_a_word_changes() {
        with_mutator(|m| {
            let index = Index::new(m, 2).unwrap();
            index.replace(m, 0, 0, "zero", "slow fault").unwrap();
            index.replace(m, 1, 0, "one", "fault fault line").unwrap();
            let query = Query::Both("fault".into(), "line".into());
            let ask = |m: &mut Mutator| {
                let answer = index.answer(m, &query).unwrap();
                (answer.results, answer.cached)
            };
            assert_eq!(ask(m), (vec![posting(1, 1)], false));
            assert_eq!(ask(m), (vec![posting(1, 1)], true));
            index.replace(m, 0, 1, "zero", "line after line, fault after fault").unwrap();
            assert_eq!(ask(m), (vec![posting(0, 2), posting(1, 1)], false));
            index.replace(m, 0, 2, "zero", "slow").unwrap();
            index.replace(m, 1, 2, "one", "slow").unwrap();
            assert_eq!(ask(m), (vec![], false));
            assert_eq!(ask(m), (vec![], false), "answers about unknown words are not cached");
        });
    }
}
