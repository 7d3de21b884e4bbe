//! Checks of the index against an ordinary `HashMap` index of the same versions of the documents, and
//! the checksum of its contents.
//!
//! While the index changes, single documents are checked under their lock; when nothing changes any
//! more, all of it is, and answers of queries too.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use strikeslip::{Gc, Mutator, OutOfMemory};

use super::{Index, Query, Word, filled, posting, posting_count, postings, shard_of};
use crate::corpus::{Corpus, DocumentId, Version};
use crate::random::{Random, hash, mix};
use crate::sync::lock;
use crate::tokenize::count_words;

/// Examples kept of what did not match.
const EXAMPLES: usize = 10;
/// Queries that the final check asks, each twice.
const QUERIES: usize = 300;

/// What did not match.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Mismatches {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

impl Mismatches {
    /// Counts a mismatch if `actual` is not `expected`.
    pub fn compare<T: PartialEq + fmt::Debug>(&mut self, what: fmt::Arguments<'_>, actual: &T, expected: &T) {
        if actual != expected {
            self.add(format_args!("{what}: found {actual:?}, expected {expected:?}"));
        }
    }

    /// Counts a mismatch.
    pub fn add(&mut self, what: fmt::Arguments<'_>) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what.to_string());
        }
    }

    /// Adds the mismatches of `other`.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }
}

/// An ordinary index: for each word its postings in order of documents.
struct Oracle(HashMap<Box<str>, Vec<u64>>);

impl Oracle {
    fn answer(&self, query: &Query) -> Vec<u64> {
        let entries = |word: &str| self.0.get(word).map_or(&[][..], Vec::as_slice);
        match query {
            Query::Word(word) | Query::Top(word, _) => query.evaluate(entries(word), &[]),
            Query::Both(first, second) => query.evaluate(entries(first), entries(second)),
        }
    }
}

/// What the final check found.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) mismatches: Mismatches,
    /// Of the names, words and postings as they are in the heap, whatever their order.
    pub(super) checksum: u64,
    pub(super) words: u64,
    pub(super) postings: u64,
}

impl Index {
    /// Checks one document, while others may change: its entry, and its occurrence in the postings of
    /// each of its words.
    pub(super) fn check_document(
        &self,
        m: &mut Mutator,
        corpus: &Corpus,
        document: DocumentId,
    ) -> Mismatches {
        let mut mismatches = Mismatches::default();
        let version = lock(m, &self.versions[document as usize]);
        let Some(number) = *version else { return mismatches };
        let (bytes, expected) = m.blocked(|| counted(corpus, document, number));
        self.check_entry(m, corpus, (document, number), bytes, &expected, &mut mismatches);
        for (word, &count) in &expected {
            let hash = hash(word.as_bytes());
            let dictionary = lock(m, &self.shards[shard_of(hash)]);
            let found = dictionary.find(m, hash, word).and_then(|word| postings::find(word, document));
            let what = format_args!("posting of '{word}' in document {document}");
            mismatches.compare(what, &found, &Some(posting(document, count)));
            m.safepoint();
        }
        drop(version);
        mismatches
    }

    /// Checks a document's own object. The caller holds the document's lock.
    fn check_entry(
        &self,
        m: &Mutator,
        corpus: &Corpus,
        (document, version): (DocumentId, Version),
        bytes: usize,
        expected: &HashMap<Box<str>, u32>,
        mismatches: &mut Mismatches,
    ) {
        let Some(entry) = self.documents.get(m).as_ref().get(document as usize) else {
            return mismatches.add(format_args!("document {document} is not there"));
        };
        let of = format_args!("of document {document} version {version}");
        let (name, expected_name) = (filled(&entry.name).to_string(), corpus.name(document));
        mismatches.compare(format_args!("name {of}"), &name, &expected_name);
        mismatches.compare(format_args!("bytes {of}"), &entry.bytes.get(), &bytes);
        let (words, counts) = (filled(&entry.words), filled(&entry.counts));
        mismatches.compare(format_args!("number of words {of}"), &words.len(), &expected.len());
        let mut text = String::new();
        for at in 0..words.len() {
            text.clear();
            filled(&filled(words.slot(at)).text).push_to(&mut text);
            let expected = expected.get(text.as_str()).map(|&count| u64::from(count));
            mismatches.compare(format_args!("count of '{text}' {of}"), &Some(counts.get(at)), &expected);
        }
    }

    /// Checks everything. Nothing may change meanwhile.
    pub(super) fn check(&self, m: &mut Mutator, corpus: &Corpus, seed: u64) -> Result<Verdict, OutOfMemory> {
        let mut verdict = Verdict { mismatches: Mismatches::default(), checksum: 0, words: 0, postings: 0 };
        let mut oracle = self.check_documents(m, corpus, &mut verdict);
        self.check_answers(m, &oracle, seed, &mut verdict.mismatches)?;
        for shard in 0..self.shards.len() {
            self.check_shard(m, shard, &mut oracle, &mut verdict);
        }
        for word in oracle.0.keys() {
            verdict.mismatches.add(format_args!("word '{word}' is missing"));
        }
        Ok(verdict)
    }

    /// Checks the documents' own objects, and builds the ordinary index from their versions.
    fn check_documents(&self, m: &mut Mutator, corpus: &Corpus, verdict: &mut Verdict) -> Oracle {
        let mut oracle: HashMap<Box<str>, Vec<u64>> = HashMap::new();
        for document in 0..self.len() as DocumentId {
            let Some(version) = self.version(m, document) else {
                verdict.mismatches.add(format_args!("document {document} was never added"));
                continue;
            };
            let (bytes, counts) = m.blocked(|| counted(corpus, document, version));
            self.check_entry(m, corpus, (document, version), bytes, &counts, &mut verdict.mismatches);
            for (word, count) in counts {
                oracle.entry(word).or_default().push(posting(document, count));
            }
            if let Some(entry) = self.documents.get(m).get(document as usize) {
                let name = hash(filled(&entry.name).to_string().as_bytes());
                verdict.checksum = verdict.checksum.wrapping_add(mix(name ^ u64::from(document)));
            }
        }
        Oracle(oracle)
    }

    /// Compares a shard's words with the oracle's, which are taken out of it.
    fn check_shard(&self, m: &mut Mutator, shard: usize, oracle: &mut Oracle, verdict: &mut Verdict) {
        let dictionary = lock(m, &self.shards[shard]);
        let mut words = 0;
        for bucket in 0..dictionary.buckets(m).len() {
            m.safepoint();
            let mut next = dictionary.buckets(m).get(bucket);
            while let Some(word) = next {
                check_word(word, oracle, verdict);
                words += 1;
                next = word.as_ref().next.load();
            }
        }
        verdict.mismatches.compare(format_args!("words in shard {shard}"), &dictionary.len(), &words);
    }

    /// Asks queries twice, so that the second answer comes from the cache.
    fn check_answers(
        &self,
        m: &mut Mutator,
        oracle: &Oracle,
        seed: u64,
        mismatches: &mut Mismatches,
    ) -> Result<(), OutOfMemory> {
        let mut words: Vec<_> = oracle.0.iter().map(|(word, entries)| (entries.len(), word)).collect();
        words.sort_unstable_by(|a, b| b.cmp(a));
        let mut random = Random::new(seed, u64::MAX);
        for turn in 0..if words.is_empty() { 0 } else { QUERIES } {
            // Common words first: every second choice is one of those.
            let most = if random.one_in(2) { words.len() } else { words.len().min(100) };
            let mut word = || words[random.below(most)].1.clone();
            let query = match turn % 3 {
                0 => Query::Word(word()),
                1 => Query::Both(word(), word()),
                _ => Query::Top(word(), 10),
            };
            let expected = oracle.answer(&query);
            for _ in 0..2 {
                let answer = self.answer(m, &query)?;
                mismatches.compare(format_args!("answer to {query:?}"), &answer.results, &expected);
            }
        }
        Ok(())
    }
}

/// Bytes and words of a version of a document. Touches no heap: call it in a blocked state.
fn counted(corpus: &Corpus, document: DocumentId, version: Version) -> (usize, HashMap<Box<str>, u32>) {
    let mut text = String::new();
    corpus.text(document, version, &mut text);
    (text.len(), count_words(&text))
}

fn check_word(word: Gc<'_, Word>, oracle: &mut Oracle, verdict: &mut Verdict) {
    let text = filled(&word.text).to_string();
    let expected = oracle.0.remove(text.as_str()).unwrap_or_default();
    let mut found = vec![];
    postings::for_each(&word, |entry| found.push(entry));
    let mismatches = &mut verdict.mismatches;
    mismatches.compare(format_args!("postings of '{text}'"), &found, &expected);
    mismatches.compare(format_args!("documents with '{text}'"), &word.documents.get(), &(found.len() as u64));
    let word_hash = hash(text.as_bytes());
    for &entry in &found {
        let part = mix(word_hash ^ mix(entry.wrapping_add(u64::from(posting_count(entry)))));
        verdict.checksum = verdict.checksum.wrapping_add(part);
    }
    verdict.words += 1;
    verdict.postings += found.len() as u64;
}
