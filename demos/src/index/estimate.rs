//! How many bytes of heap an index of some documents needs.

use std::collections::HashSet;

use crate::random::hash;
use crate::tokenize::count_words;

/// Header and fields of a `Document`, its name, and the headers of its arrays.
const DOCUMENT_BYTES: u64 = 40 + 40 + 16 + 8;
/// A word in a document: a reference, a count, and a posting, of which blocks have some to spare.
const OCCURRENCE_BYTES: u64 = 8 + 8 + 12;
/// A `Word`, its text's header and padding, its bucket, its first block and that block's entries.
const WORD_BYTES: u64 = 56 + 12 + 12 + 32 + 8;

/// Adds up the live bytes of an index, document by document. It follows from the sizes of the objects,
/// and errs by the slack of growing tables and blocks (tested to a fifth).
#[derive(Debug, Default)]
pub struct LiveEstimate {
    vocabulary: HashSet<u64>,
    bytes: u64,
}

impl LiveEstimate {
    /// Adds a document.
    pub fn add(&mut self, text: &str) {
        self.bytes += DOCUMENT_BYTES;
        for word in count_words(text).keys() {
            self.bytes += OCCURRENCE_BYTES;
            if self.vocabulary.insert(hash(word.as_bytes())) {
                self.bytes += WORD_BYTES + word.len() as u64;
            }
        }
    }

    /// Bytes of the documents so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}
