//! The files of a directory as documents.
//!
//! Scanning lists candidates. A survey reads each once, to sort out what is no text and what there is
//! no room for; what it leaves over are the documents. Their texts are kept only when the index's
//! mutators read them again. Nothing that is skipped is fatal, all of it is counted by reason.
//! Symbolic links are not followed, so there are no loops to be caught in.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Serialize;

use super::{DocumentId, ORIGINAL, Version, floor_boundary};
use crate::random::Random;

/// Files larger than this are skipped.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why a directory cannot be indexed at all.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It is not there, is no directory, or cannot be read.
    #[error("cannot read directory {}: {source}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no file to index.
    #[error("nothing to index in {}: {skipped}", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
        /// What was there, but skipped.
        skipped: Skipped,
    },
}

/// What was left out, by reason.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Files with NUL bytes.
    pub binary: u64,
    /// Files that are not UTF-8.
    pub invalid_utf8: u64,
    /// Files and directories that could not be read, and what is neither (sockets, devices).
    pub unreadable: u64,
    /// Files larger than [`MAX_FILE_BYTES`].
    pub huge: u64,
    /// Symbolic links.
    pub links: u64,
    /// Files without a word in them, or without a byte.
    pub empty: u64,
    /// Files that the heap has no room for.
    pub no_room: u64,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { binary, invalid_utf8, unreadable, huge, links, empty, no_room } = self;
        write!(
            f,
            "skipped {binary} binary, {invalid_utf8} not UTF-8, {unreadable} unreadable, {huge} huge, \
             {links} links, {empty} empty, {no_room} without room"
        )
    }
}

#[derive(Debug)]
struct Candidate {
    path: PathBuf,
    /// Set when a mutator has read it; empty if it changed so that it is no text any more.
    text: OnceLock<Box<str>>,
}

/// The files of a directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    seed: u64,
    files: Vec<Candidate>,
    skipped: Skipped,
}

impl Directory {
    /// Lists the files under `root`, in the order of their paths.
    ///
    /// # Errors
    /// [`ScanError`] if `root` cannot be read or holds no candidate.
    pub fn scan(root: &Path, seed: u64) -> Result<Self, ScanError> {
        let unreadable = |source| ScanError::Unreadable { path: root.to_owned(), source };
        let mut corpus = Self { root: root.to_owned(), seed, files: vec![], skipped: Skipped::default() };
        let mut waiting = vec![fs::read_dir(root).map_err(unreadable)?];
        while let Some(directory) = waiting.pop() {
            for entry in directory {
                match entry {
                    Ok(entry) => corpus.add(&entry, &mut waiting),
                    Err(_) => corpus.skipped.unreadable += 1,
                }
            }
        }
        if corpus.files.is_empty() {
            return Err(ScanError::Empty { path: root.to_owned(), skipped: corpus.skipped });
        }
        corpus.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(corpus)
    }

    fn add(&mut self, entry: &fs::DirEntry, waiting: &mut Vec<fs::ReadDir>) {
        // The entry's own metadata: it does not follow links.
        let Ok(metadata) = entry.metadata() else {
            self.skipped.unreadable += 1;
            return;
        };
        if metadata.is_symlink() {
            self.skipped.links += 1;
        } else if metadata.is_dir() {
            match fs::read_dir(entry.path()) {
                Ok(directory) => waiting.push(directory),
                Err(_) => self.skipped.unreadable += 1,
            }
        } else if !metadata.is_file() {
            self.skipped.unreadable += 1;
        } else if metadata.len() > MAX_FILE_BYTES {
            self.skipped.huge += 1;
        } else {
            self.files.push(Candidate { path: entry.path(), text: OnceLock::new() });
        }
    }

    /// Reads every candidate and keeps those that are text, as long as `admit` says that there is room
    /// for another; what comes after the first refusal is left out unread.
    ///
    /// # Errors
    /// [`ScanError::Empty`] if no document is left.
    pub fn survey(&mut self, mut admit: impl FnMut(&str) -> bool) -> Result<(), ScanError> {
        let mut room = true;
        for file in std::mem::take(&mut self.files) {
            if !room {
                self.skipped.no_room += 1;
                continue;
            }
            match read(&file.path) {
                Ok(text) if admit(&text) => self.files.push(file),
                Ok(_) => {
                    room = false;
                    self.skipped.no_room += 1;
                }
                Err(reason) => *reason.counter(&mut self.skipped) += 1,
            }
        }
        if self.files.is_empty() {
            return Err(ScanError::Empty { path: self.root.clone(), skipped: self.skipped });
        }
        Ok(())
    }

    /// What was skipped.
    #[must_use]
    pub const fn skipped(&self) -> Skipped {
        self.skipped
    }

    pub(super) const fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn load(&self, document: DocumentId) {
        let file = &self.files[document as usize];
        file.text.get_or_init(|| read(&file.path).unwrap_or_default());
    }

    pub(super) fn name(&self, document: DocumentId) -> String {
        let path = &self.files[document as usize].path;
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    fn original(&self, document: DocumentId) -> &str {
        self.files[document as usize].text.get().map_or("", |text| text)
    }

    /// Versions are windows, half to one and a half times as long as the original, into the texts of
    /// all loaded files laid end to end.
    pub(super) fn text(&self, document: DocumentId, version: Version, text: &mut String) {
        let original = self.original(document);
        if version == ORIGINAL {
            text.push_str(original);
            return;
        }
        let mut random = Random::new(self.seed, (u64::from(document) << 32) | u64::from(version));
        let bytes = original.len() / 2 + random.below(original.len() + 1);
        let mut donor = random.below(self.files.len());
        let offset = random.below(self.original(donor as u32).len() + 1);
        let mut rest = self.original(donor as u32);
        rest = &rest[floor_boundary(rest, offset)..];
        while text.len() < bytes {
            text.push_str(&rest[..floor_boundary(rest, bytes - text.len())]);
            if text.len() + 4 > bytes {
                break; // Not room for any further character.
            }
            text.push('\n');
            donor = (donor + 1) % self.files.len();
            rest = self.original(donor as u32);
        }
    }
}

/// Why a file is no document.
#[derive(Copy, Clone, Debug)]
enum NoText {
    Unreadable,
    Huge,
    Binary,
    InvalidUtf8,
    Empty,
}

impl NoText {
    const fn counter(self, skipped: &mut Skipped) -> &mut u64 {
        match self {
            Self::Unreadable => &mut skipped.unreadable,
            Self::Huge => &mut skipped.huge,
            Self::Binary => &mut skipped.binary,
            Self::InvalidUtf8 => &mut skipped.invalid_utf8,
            Self::Empty => &mut skipped.empty,
        }
    }
}

fn read(path: &Path) -> Result<Box<str>, NoText> {
    let mut bytes = vec![];
    // The file may have grown since the scan.
    let file = File::open(path).map_err(|_| NoText::Unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|_| NoText::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(NoText::Huge);
    }
    if bytes.contains(&0) {
        return Err(NoText::Binary);
    }
    let text = String::from_utf8(bytes).map_err(|_| NoText::InvalidUtf8)?;
    if text.contains(char::is_alphanumeric) { Ok(text.into()) } else { Err(NoText::Empty) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed again.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("strikeslip-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("sub")).unwrap();
            Self(path)
        }
        fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
            fs::write(self.0.join(name), contents).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_no_text_is_counted_by_reason() {
        let scratch = Scratch::new("reasons");
        scratch.file("b.txt", "some words");
        scratch.file("sub/a.txt", "more words, ärger");
        scratch.file("binary", b"a\0b");
        scratch.file("latin1", b"\xe4rger");
        scratch.file("empty", "");
        File::create(scratch.0.join("huge")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        std::os::unix::fs::symlink(&scratch.0, scratch.0.join("sub/loop")).unwrap();

        let mut corpus = Directory::scan(&scratch.0, 1).unwrap();
        corpus.survey(|_| true).unwrap();
        let names: Vec<_> = (0..corpus.len() as u32).map(|document| corpus.name(document)).collect();
        assert_eq!(names, ["b.txt", "sub/a.txt"]);
        let expected =
            Skipped { binary: 1, invalid_utf8: 1, huge: 1, links: 1, empty: 1, ..Skipped::default() };
        assert_eq!(corpus.skipped(), expected);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out() {
        let scratch = Scratch::new("room");
        ["a", "b", "c", "d"].iter().for_each(|name| scratch.file(name, "word"));
        let mut corpus = Directory::scan(&scratch.0, 1).unwrap();
        let mut room = 2;
        corpus
            .survey(|_| {
                room -= 1;
                room >= 0
            })
            .unwrap();
        assert_eq!((corpus.len(), corpus.skipped().no_room), (2, 2));
        assert!(matches!(corpus.survey(|_| false), Err(ScanError::Empty { .. })));
    }

    #[test]
    fn versions_are_windows_of_about_the_same_length() {
        let scratch = Scratch::new("windows");
        scratch.file("a", "alpha ä ".repeat(100));
        scratch.file("b", "beta 語 ".repeat(100));
        scratch.file("c", b"\0");
        let mut corpus = Directory::scan(&scratch.0, 1).unwrap();
        corpus.survey(|_| true).unwrap();
        (0..2).for_each(|document| corpus.load(document));
        let mut lengths = vec![];
        for version in 1..50 {
            let (mut text, mut again) = (String::new(), String::new());
            corpus.text(0, version, &mut text);
            corpus.text(0, version, &mut again);
            assert_eq!(text, again);
            lengths.push(text.len());
        }
        let original = corpus.original(0).len();
        assert!(
            lengths.iter().all(|&bytes| bytes + 4 >= original / 2 && bytes <= original * 3 / 2 + 1),
            "{lengths:?}"
        );
    }

    #[test]
    fn a_missing_or_empty_directory_is_an_error() {
        let scratch = Scratch::new("empty");
        assert!(matches!(Directory::scan(&scratch.0.join("no"), 1), Err(ScanError::Unreadable { .. })));
        assert!(matches!(Directory::scan(&scratch.0, 1), Err(ScanError::Empty { .. })));
    }
}
