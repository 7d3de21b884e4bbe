//! The corpus that comes with the program: documents generated from the repository's own sources and
//! documents, which the build script embeds.
//!
//! A document is a seeded choice of paragraphs. Some words get a seeded ending, so that the vocabulary
//! is large and changes with the versions, as that of real text does.

use super::{DocumentId, Version};
use crate::random::Random;

/// Name and text of each embedded file.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));

/// A document has at least this many bytes and less than four times as many.
const SHORTEST_BYTES: usize = 4 << 10;
/// One word in this many gets an ending.
const ENDING_EVERY: usize = 24;
/// Number of different endings.
const ENDINGS: usize = 4_096;

/// Documents generated from the embedded files.
#[derive(Debug)]
pub struct Embedded {
    seed: u64,
    documents: usize,
    paragraphs: Vec<&'static str>,
}

impl Embedded {
    /// A corpus of `documents` documents.
    #[must_use]
    pub fn new(seed: u64, documents: u32) -> Self {
        let paragraphs = FILES
            .iter()
            .flat_map(|(_, text)| text.split("\n\n"))
            .map(str::trim)
            .filter(|paragraph| !paragraph.is_empty())
            .collect();
        Self { seed, documents: documents as usize, paragraphs }
    }

    pub(super) const fn len(&self) -> usize {
        self.documents
    }

    pub(super) fn name(&self, document: DocumentId) -> String {
        let (file, _) = FILES[document as usize % FILES.len()];
        format!("{file}#{}", document as usize / FILES.len())
    }

    pub(super) fn text(&self, document: DocumentId, version: Version, text: &mut String) {
        let mut random = Random::new(self.seed, (u64::from(document) << 32) | u64::from(version));
        let bytes = SHORTEST_BYTES + random.below(3 * SHORTEST_BYTES);
        while text.len() < bytes {
            vary(self.paragraphs[random.below(self.paragraphs.len())], &mut random, text);
            text.push_str("\n\n");
        }
    }
}

/// Appends `paragraph` with endings at some of its words.
fn vary(paragraph: &str, random: &mut Random, text: &mut String) {
    use std::fmt::Write as _;
    for piece in paragraph.split_inclusive(' ') {
        let word = piece.trim_end_matches(' ');
        text.push_str(word);
        if word.ends_with(char::is_alphanumeric) && random.one_in(ENDING_EVERY) {
            // The smaller of two draws: some endings are common, most are rare.
            let ending = random.below(ENDINGS).min(random.below(ENDINGS));
            write!(text, "{ending:x}").expect("writing to a string");
        }
        text.push_str(&piece[word.len()..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(corpus: &Embedded, document: DocumentId, version: Version) -> String {
        let mut text = String::new();
        corpus.text(document, version, &mut text);
        text
    }

    #[test]
    fn versions_are_reproducible_and_differ() {
        let corpus = Embedded::new(1, 5);
        assert_eq!(text(&corpus, 3, 9), text(&Embedded::new(1, 5), 3, 9));
        assert_ne!(text(&corpus, 3, 9), text(&corpus, 3, 10));
        assert_ne!(text(&corpus, 3, 9), text(&corpus, 4, 9));
        assert_ne!(text(&corpus, 3, 9), text(&Embedded::new(2, 5), 3, 9));
        assert!(text(&corpus, 3, 9).len() >= SHORTEST_BYTES);
    }

    #[test]
    fn names_are_unique() {
        let corpus = Embedded::new(1, 5);
        let names: std::collections::HashSet<_> = (0..1000).map(|document| corpus.name(document)).collect();
        assert_eq!(names.len(), 1000);
    }
}
