//! The words of a text, counted in the managed heap, as a program does that has no other memory: every
//! word of the text becomes a string of its own, most of them garbage at once. This is where most of
//! the index's allocation comes from.

use strikeslip::{Array, Field, Gc, Local, Mutator, OutOfMemory, Scope, Slot, Str, object};

use super::{SAFEPOINT_EVERY, filled, shard_of};
use crate::random::hash;
use crate::tokenize::for_each_word;

/// A bucket for so many bytes of text, which is about one for each different word.
const BYTES_PER_BUCKET: usize = 16;
/// Most buckets of a draft.
const MOST_BUCKETS: usize = 1 << 16;

object! {
    /// A word, and how often it occurred so far.
    pub struct Token {
        text: Slot<Str>,
        /// The next one of the same bucket.
        next: Slot<Token>,
        hash: Field<u64>,
        count: Field<u32>,
    }
}

/// The different words of a text.
#[derive(Debug)]
pub(super) struct Draft<'s> {
    tokens: Local<'s, Array<Token>>,
    /// Hash and place of each token, ordered by shard.
    order: Vec<(u64, usize)>,
}

/// A word of a draft, with copies of what can be copied.
#[derive(Debug)]
pub(super) struct DraftWord<'s> {
    pub(super) hash: u64,
    pub(super) count: u32,
    pub(super) text: Local<'s, Str>,
}

impl<'s> Draft<'s> {
    /// Counts the words of `text`.
    pub(super) fn new(m: &mut Mutator, s: &Scope<'s>, text: &str) -> Result<Self, OutOfMemory> {
        let buckets = (text.len() / BYTES_PER_BUCKET).next_power_of_two().min(MOST_BUCKETS);
        let table = m.alloc_array::<Token>(s, buckets)?;
        let mut tokens = 0;
        let mut result = Ok(());
        for_each_word(text, |word| {
            if result.is_ok() {
                result = count(m, table, word, &mut tokens);
            }
        });
        result?;
        Self::collected(m, s, table, tokens)
    }

    /// Moves the tokens from their chains into an array.
    fn collected(
        m: &mut Mutator,
        s: &Scope<'s>,
        table: Local<'_, Array<Token>>,
        count: usize,
    ) -> Result<Self, OutOfMemory> {
        let tokens = m.alloc_array::<Token>(s, count)?;
        let mut order = Vec::with_capacity(count);
        for bucket in 0..table.get(m).len() {
            if bucket % SAFEPOINT_EVERY == 0 {
                m.safepoint();
            }
            let (from, into) = (table.get(m), tokens.get(m));
            let mut next = from.as_ref().get(bucket);
            while let Some(token) = next {
                into.set(m, order.len(), Some(token));
                order.push((token.hash.get(), order.len()));
                next = token.as_ref().next.load();
            }
        }
        order.sort_unstable_by_key(|&(hash, _)| (shard_of(hash), hash));
        Ok(Self { tokens, order })
    }

    /// Number of different words.
    pub(super) const fn len(&self) -> usize {
        self.order.len()
    }

    /// The places of the words in [`Self::word`]'s sense, shard by shard.
    pub(super) fn shards(&self) -> impl Iterator<Item = &[(u64, usize)]> {
        self.order.chunk_by(|a, b| shard_of(a.0) == shard_of(b.0))
    }

    /// The word in a place.
    pub(super) fn word<'w>(&self, m: &Mutator, s: &Scope<'w>, place: usize) -> DraftWord<'w> {
        let token = filled(self.tokens.get(m).as_ref().slot(place));
        DraftWord { hash: token.hash.get(), count: token.count.get(), text: s.root(filled(&token.text)) }
    }
}

/// Counts one occurrence of `word`; `tokens` counts the different ones.
fn count(
    m: &mut Mutator,
    table: Local<'_, Array<Token>>,
    word: &str,
    tokens: &mut usize,
) -> Result<(), OutOfMemory> {
    m.scope(|m, s| {
        let hash = hash(word.as_bytes());
        let text = m.alloc_str(s, word)?;
        if let Some(token) = find(table.get(m), hash, word) {
            token.count.set(token.count.get() + 1);
            return Ok(());
        }
        let token = m.alloc::<Token>(s)?;
        let (fresh, table) = (token.get(m), table.get(m));
        let bucket = table.slot(bucket_of(hash, &table));
        fresh.text.store(m, Some(text.get(m)));
        fresh.hash.set(hash);
        fresh.count.set(1);
        fresh.next.store(m, bucket.load());
        bucket.store(m, Some(fresh));
        *tokens += 1;
        Ok(())
    })
}

fn find<'m>(table: Gc<'m, Array<Token>>, hash: u64, word: &str) -> Option<Gc<'m, Token>> {
    let mut next = table.as_ref().get(bucket_of(hash, &table));
    while let Some(token) = next {
        if token.hash.get() == hash && filled(&token.text).eq_str(word) {
            return Some(token);
        }
        next = token.as_ref().next.load();
    }
    None
}

/// Buckets are told by bits that neither shards nor the dictionary's small tables use.
fn bucket_of(hash: u64, table: &Array<Token>) -> usize {
    (hash >> 32) as usize & (table.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::with_mutator;
    use crate::tokenize::count_words;

    #[test]
    fn counts_what_the_tokenizer_counts() {
        let text = include_str!("draft.rs");
        with_mutator(|m| {
            m.scope(|m, s| {
                let draft = Draft::new(m, s, text).unwrap();
                let mut expected = count_words(text);
                assert_eq!(draft.len(), expected.len());
                let places: Vec<_> = draft.shards().flatten().map(|&(_, place)| place).collect();
                for place in places {
                    m.scope(|m, s| {
                        let word = draft.word(m, s, place);
                        let text = word.text.get(m).to_string();
                        assert_eq!(word.hash, hash(text.as_bytes()));
                        assert_eq!(expected.remove(text.as_str()), Some(word.count));
                    });
                }
                assert!(expected.is_empty());
            });
        });
    }

    #[test]
    fn a_text_without_words_is_empty() {
        with_mutator(|m| m.scope(|m, s| assert_eq!(Draft::new(m, s, " .,").unwrap().len(), 0)));
    }
}
