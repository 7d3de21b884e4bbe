//! A text index that lives in the managed heap.
//!
//! ```text
//! documents: Array ──> Document ──> Array of words ──> Word ──> Block ──> Block ..   (postings)
//! shards: dictionary (Array of chains) ───────────────^  ^
//! cache: Lru ──> Entry <──> Entry .. ────────────────────+
//! ```
//!
//! Mutator threads change it concurrently. Each document has a lock, held while it is replaced; each
//! shard of the dictionary has one, held while its words and their postings are read or changed; the
//! cache has one. A thread takes them in that order, at most one of each kind, and waits for them
//! in a blocked state ([`crate::sync::lock`]), so that waiting never delays a safepoint.
//!
//! Invariant: a document's words are exactly those in whose postings it occurs, with the same counts,
//! whenever the document's lock is free. A word without postings is in no dictionary.

mod cache;
mod check;
mod dictionary;
mod draft;
mod estimate;
mod job;
mod postings;
mod query;

use std::sync::Mutex;

use strikeslip::shape::Object;
use strikeslip::{Array, Field, Gc, Mutator, OutOfMemory, Persistent, Slot, Str, Words, object};

pub use check::Mismatches;
pub use estimate::LiveEstimate;
pub use job::IndexJob;
pub use query::{Answer, Query};

use crate::corpus::{DocumentId, Version};
use crate::sync::lock;
use cache::Cache;
use dictionary::Dictionary;
use draft::{Draft, DraftWord};

/// Shards of the dictionary.
const SHARDS: usize = 8;
/// Loops over tables reach a safepoint every so many buckets.
const SAFEPOINT_EVERY: usize = 512;

object! {
    /// A word, and where it occurs.
    pub struct Word {
        text: Slot<Str>,
        /// The next word of the same bucket.
        next: Slot<Word>,
        postings: Slot<Block>,
        hash: Field<u64>,
        /// Number of documents with this word.
        documents: Field<u64>,
        /// Changes with every change of the postings: what was computed from them is then stale.
        generation: Field<u64>,
    }
}

object! {
    /// A part of a word's postings: some documents, in order of their numbers.
    pub struct Block {
        next: Slot<Block>,
        /// Of these the first `used` are in use.
        entries: Slot<Words>,
        used: Field<usize>,
    }
}

object! {
    /// A document's entry.
    pub struct Document {
        name: Slot<Str>,
        /// The different words, ordered by shard.
        words: Slot<Array<Word>>,
        /// How often each occurs.
        counts: Slot<Words>,
        /// Bytes of text.
        bytes: Field<usize>,
    }
}

/// What `slot` refers to; for slots that are set before their object can be reached by others.
fn filled<T: Object>(slot: &Slot<T>) -> Gc<'_, T> {
    slot.load().expect("this slot is set when its object is made")
}

const fn shard_of(hash: u64) -> usize {
    (hash >> 56) as usize % SHARDS
}

/// A document and how often something occurs in it, in one word. Ordered by document.
const fn posting(document: DocumentId, count: u32) -> u64 {
    ((document as u64) << 32) | count as u64
}

const fn posting_document(posting: u64) -> DocumentId {
    (posting >> 32) as DocumentId
}

const fn posting_count(posting: u64) -> u32 {
    posting as u32
}

/// The index. Its objects are reached through persistent handles.
#[derive(Debug)]
pub struct Index {
    documents: Persistent<Array<Document>>,
    /// The version of each document. The lock is held while the document is replaced.
    versions: Vec<Mutex<Option<Version>>>,
    shards: Vec<Mutex<Dictionary>>,
    cache: Mutex<Cache>,
}

impl Index {
    /// An empty index with places for `documents` documents.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(m: &mut Mutator, documents: usize) -> Result<Self, OutOfMemory> {
        m.scope(|m, s| {
            let table = m.alloc_array::<Document>(s, documents)?;
            let mut shards = vec![];
            for _ in 0..SHARDS {
                shards.push(Mutex::new(Dictionary::new(m)?));
            }
            Ok(Self {
                documents: m.persistent(table.get(m)),
                versions: (0..documents).map(|_| Mutex::new(None)).collect(),
                shards,
                cache: Mutex::new(Cache::new(m)?),
            })
        })
    }

    /// Number of places for documents.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether there is no place for any document.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Replaces a document by `version`, which is `text`.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the index is then not to be used any more.
    pub fn replace(
        &self,
        m: &mut Mutator,
        document: DocumentId,
        version: Version,
        name: &str,
        text: &str,
    ) -> Result<(), OutOfMemory> {
        m.scope(|m, s| {
            // Before the lock is taken: this is much of the work.
            let draft = Draft::new(m, s, text)?;
            let mut current = lock(m, &self.versions[document as usize]);
            if current.take().is_some() {
                self.remove(m, document)?;
            }
            self.add(m, document, name, text.len(), &draft)?;
            *current = Some(version);
            Ok(())
        })
    }

    /// The document's version, if it was ever added.
    pub fn version(&self, m: &mut Mutator, document: DocumentId) -> Option<Version> {
        *lock(m, &self.versions[document as usize])
    }

    fn remove(&self, m: &mut Mutator, document: DocumentId) -> Result<(), OutOfMemory> {
        m.scope(|m, s| {
            let words = {
                let Some(old) = self.documents.get(m).as_ref().get(document as usize) else { return Ok(()) };
                s.root(filled(&old.words))
            };
            let shards: Vec<_> = {
                let words = words.get(m);
                (0..words.len()).map(|at| shard_of(filled(words.slot(at)).hash.get())).collect()
            };
            let mut at = 0;
            for group in shards.chunk_by(|a, b| a == b) {
                let mut dictionary = lock(m, &self.shards[group[0]]);
                for _ in group {
                    m.scope(|m, s| {
                        let word = s.root(filled(words.get(m).slot(at)));
                        postings::remove(m, s, word, document)?;
                        if word.get(m).documents.get() == 0 {
                            dictionary.remove(m, word.get(m));
                        }
                        Ok(())
                    })?;
                    at += 1;
                }
            }
            Ok(())
        })
    }

    fn add(
        &self,
        m: &mut Mutator,
        document: DocumentId,
        name: &str,
        bytes: usize,
        draft: &Draft<'_>,
    ) -> Result<(), OutOfMemory> {
        m.scope(|m, s| {
            let name = m.alloc_str(s, name)?;
            let words = m.alloc_array::<Word>(s, draft.len())?;
            let counts = m.alloc_words(s, draft.len())?;
            let mut at = 0;
            for shard in draft.shards() {
                let mut dictionary = lock(m, &self.shards[shard_of(shard[0].0)]);
                for &(_, place) in shard {
                    m.scope(|m, s| {
                        let DraftWord { hash, count, text } = draft.word(m, s, place);
                        let word = dictionary.find_or_insert(m, s, hash, text)?;
                        postings::insert(m, s, word, posting(document, count))?;
                        words.get(m).set(m, at, Some(word.get(m)));
                        counts.get(m).set(at, u64::from(count));
                        Ok(())
                    })?;
                    at += 1;
                }
            }
            let entry = m.alloc::<Document>(s)?;
            let fresh = entry.get(m);
            fresh.name.store(m, Some(name.get(m)));
            fresh.words.store(m, Some(words.get(m)));
            fresh.counts.store(m, Some(counts.get(m)));
            fresh.bytes.set(bytes);
            self.documents.get(m).set(m, document as usize, Some(fresh));
            Ok(())
        })
    }
}
