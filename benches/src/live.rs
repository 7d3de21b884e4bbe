//! A live set: leaves of plain words, in tables, in one directory.
//!
//! Built in address order: each table is followed by the leaves it refers to, so that all regions
//! are alike. A table may have room for links besides, slots that a benchmark makes refer to young
//! objects, so that regions hold slots to be rewritten.
//!
//! Each leaf knows its number, so a reader sees at once if it is another one.

use strikeslip::{Array, Gc, Mutator, OutOfMemory, Persistent, Words};
use strikeslip_demos::random::mix;

use crate::error::{Error, expect_equal};

/// Leaves of a table. Small enough that a table is allocated among its leaves: larger objects get
/// regions of their own.
pub const TABLE: usize = 128;
/// Least words of a leaf: its number, the mixed number, a counter.
pub const MIN_WORDS: usize = 3;

/// A table of leaves, and links behind them.
pub type LeafTable = Array<Words>;

/// The live set.
#[derive(Debug)]
pub struct LiveSet {
    directory: Persistent<Array<LeafTable>>,
    tables: usize,
    links: usize,
}

impl LiveSet {
    /// Builds about `bytes` of leaves of `words` words, numbered from `first`, with room for `links`
    /// links in each table. `filler` is called after each leaf, to allocate what will be garbage.
    ///
    /// # Errors
    /// The heap is too small.
    pub fn build(
        m: &mut Mutator,
        shape: Shape,
        mut filler: impl FnMut(&mut Mutator) -> Result<(), OutOfMemory>,
    ) -> Result<Self, OutOfMemory> {
        let Shape { bytes, words, links, first } = shape;
        assert!(words >= MIN_WORDS);
        let tables = (bytes as usize).div_ceil(TABLE * (words + 1) * 8).max(1);
        m.scope(|m, s| {
            let directory = m.alloc_array::<LeafTable>(s, tables)?;
            for nth in 0..tables {
                m.scope(|m, s| {
                    let table = m.alloc_array::<Words>(s, TABLE + links)?;
                    directory.get(m).set(m, nth, Some(table.get(m)));
                    for index in 0..TABLE {
                        let number = (first + nth * TABLE + index) as u64;
                        m.scope(|m, s| {
                            let leaf = m.alloc_words(s, words)?;
                            let leaf = leaf.get(m);
                            leaf.set(0, number);
                            leaf.set(1, mix(number));
                            table.get(m).set(m, index, Some(leaf));
                            Ok(())
                        })?;
                        filler(m)?;
                    }
                    Ok(())
                })?;
            }
            Ok(Self { directory: m.persistent(directory.get(m)), tables, links })
        })
    }

    /// Number of leaves.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.tables * TABLE
    }

    /// Whether there are no leaves (never).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tables.
    #[must_use]
    pub const fn tables(&self) -> usize {
        self.tables
    }

    /// Links of each table.
    #[must_use]
    pub const fn links(&self) -> usize {
        self.links
    }

    /// A table.
    #[inline]
    #[must_use]
    pub fn table<'n>(&self, m: &'n Mutator, nth: usize) -> &'n LeafTable {
        self.directory.get(m).as_ref().get(nth).expect("all tables exist").as_ref()
    }

    /// A leaf.
    #[inline]
    #[must_use]
    pub fn leaf<'n>(&self, m: &'n Mutator, index: usize) -> Gc<'n, Words> {
        self.table(m, index / TABLE).get(index % TABLE).expect("all leaves exist")
    }

    /// What a link refers to.
    #[inline]
    #[must_use]
    pub fn link<'n>(&self, m: &'n Mutator, table: usize, link: usize) -> Option<Gc<'n, Words>> {
        self.table(m, table).get(TABLE + link)
    }

    /// Makes a link refer to a leaf.
    pub fn set_link(&self, m: &Mutator, table: usize, link: usize, leaf: Option<Gc<'_, Words>>) {
        self.table(m, table).set(m, TABLE + link, leaf);
    }

    /// Checks that every leaf is what it was built as, `first` being the number of the first.
    ///
    /// # Errors
    /// [`Error::Wrong`] names the first leaf that is not.
    pub fn check(&self, m: &mut Mutator, first: usize) -> Result<(), Error> {
        for index in 0..self.len() {
            check_leaf(self.leaf(m, index), first + index)?;
            m.safepoint();
        }
        Ok(())
    }
}

/// What a live set is built of.
#[derive(Copy, Clone, Debug)]
pub struct Shape {
    /// Bytes of leaves, about.
    pub bytes: u64,
    /// Words of a leaf.
    pub words: usize,
    /// Links of each table.
    pub links: usize,
    /// Number of the first leaf.
    pub first: usize,
}

/// Checks that this is leaf `number`.
///
/// # Errors
/// [`Error::Wrong`] if not.
#[inline]
pub fn check_leaf(leaf: Gc<'_, Words>, number: usize) -> Result<(), Error> {
    if leaf.len() < MIN_WORDS {
        return Err(Error::Wrong(format!("leaf {number} at {:p} has {} words", leaf.as_ref(), leaf.len())));
    }
    if leaf.get(0) == number as u64 && leaf.get(1) == mix(number as u64) {
        return Ok(());
    }
    expect_equal("number of leaf", number, number as u64, leaf.get(0))?;
    expect_equal("check word of leaf", number, mix(number as u64), leaf.get(1))
}
