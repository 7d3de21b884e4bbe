//! The documents that the index is made from, each in any number of *versions*.
//!
//! A version is a pure function of the seed, the document's number and the version's number. That is
//! what makes an index checkable: whatever happened in between, its contents follow from the version
//! that each document has. Version [`ORIGINAL`] is what the index is built from, [`final_version`]
//! what each document is brought to at the end.
//!
//! Texts live outside the managed heap.

mod directory;
mod embedded;

pub use directory::{Directory, ScanError, Skipped};
pub use embedded::Embedded;

use crate::random::mix;

/// Number of a document.
pub type DocumentId = u32;
/// Number of a document's version.
pub type Version = u32;

/// The version that the index is built from.
pub const ORIGINAL: Version = 0;
/// Replacements choose from versions below this.
pub const VERSIONS: Version = 1 << 16;

/// The version that `document` is brought to before the checksum is taken.
#[must_use]
pub const fn final_version(seed: u64, document: DocumentId) -> Version {
    1 + (mix(seed ^ mix(document as u64)) % (VERSIONS as u64 - 1)) as Version
}

/// Where documents come from.
#[derive(Debug)]
pub enum Corpus {
    /// Generated from the repository's own sources and documents.
    Embedded(Embedded),
    /// The files of a directory.
    Directory(Directory),
}

impl Corpus {
    /// Number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Embedded(corpus) => corpus.len(),
            Self::Directory(corpus) => corpus.len(),
        }
    }

    /// Whether there is no document.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the document's original text available; from a directory, this reads the file.
    pub fn load(&self, document: DocumentId) {
        match self {
            Self::Embedded(_) => {}
            Self::Directory(corpus) => corpus.load(document),
        }
    }

    /// The document's name.
    #[must_use]
    pub fn name(&self, document: DocumentId) -> String {
        match self {
            Self::Embedded(corpus) => corpus.name(document),
            Self::Directory(corpus) => corpus.name(document),
        }
    }

    /// Puts the text of `version` of a loaded document into `text`. For versions other than the
    /// original, all documents must be loaded.
    pub fn text(&self, document: DocumentId, version: Version, text: &mut String) {
        text.clear();
        match self {
            Self::Embedded(corpus) => corpus.text(document, version, text),
            Self::Directory(corpus) => corpus.text(document, version, text),
        }
    }
}

/// The largest index up to `index` at which `text` may be cut.
fn floor_boundary(text: &str, index: usize) -> usize {
    let index = index.min(text.len());
    (0..=index).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
