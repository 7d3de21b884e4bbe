//! Splitting text into words, and counting them.
//!
//! A word is a run of alphanumeric characters (Unicode's sense), lower-cased, at most
//! [`MAX_WORD_BYTES`] long: what is longer is cut there, so that a line of base64 does not become a
//! word of a megabyte.

use std::collections::HashMap;

/// Longest word, in bytes of UTF-8.
pub const MAX_WORD_BYTES: usize = 48;

/// Calls `visit` with each word of `text` in order.
pub fn for_each_word(text: &str, mut visit: impl FnMut(&str)) {
    let mut word = String::with_capacity(MAX_WORD_BYTES);
    for character in text.chars() {
        if character.is_alphanumeric() {
            push_lower(&mut word, character);
        } else if !word.is_empty() {
            visit(&word);
            word.clear();
        }
    }
    if !word.is_empty() {
        visit(&word);
    }
}

fn push_lower(word: &mut String, character: char) {
    if character.is_ascii() {
        if word.len() < MAX_WORD_BYTES {
            word.push(character.to_ascii_lowercase());
        }
        return;
    }
    for lower in character.to_lowercase() {
        if word.len() + lower.len_utf8() <= MAX_WORD_BYTES {
            word.push(lower);
        }
    }
}

/// How often each word occurs in `text`.
#[must_use]
pub fn count_words(text: &str) -> HashMap<Box<str>, u32> {
    let mut counts: HashMap<Box<str>, u32> = HashMap::new();
    for_each_word(text, |word| match counts.get_mut(word) {
        Some(count) => *count += 1,
        None => {
            counts.insert(word.into(), 1);
        }
    });
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = vec![];
        for_each_word(text, |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(words("fn flip(&self) -> Result<u64>"), ["fn", "flip", "self", "result", "u64"]);
        assert_eq!(words(" \n--"), [""; 0]);
        assert_eq!(words("end"), ["end"]);
    }

    #[test]
    fn lower_casing_follows_unicode() {
        assert_eq!(words("ÄRGER Straße ΣΊΣΥΦΟΣ"), ["ärger", "straße", "σίσυφοσ"]);
        assert_eq!(words("İ"), ["i\u{307}"], "one character can become two");
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        assert_eq!(words(&"a".repeat(1000)), ["a".repeat(MAX_WORD_BYTES)]);
        let cut = words(&"語".repeat(100));
        assert_eq!(cut, ["語".repeat(MAX_WORD_BYTES / 3)]);
    }

    proptest! {
        #[test]
        fn counting_agrees_with_splitting(text in "(\\PC|[ a-cA-C]){0,200}") {
            let counts = count_words(&text);
            let all = words(&text);
            prop_assert_eq!(counts.values().sum::<u32>() as usize, all.len());
            for word in &all {
                prop_assert!(word.len() <= MAX_WORD_BYTES && !word.is_empty());
                let times = all.iter().filter(|other| *other == word).count();
                prop_assert_eq!(counts[word.as_str()] as usize, times);
            }
        }
    }
}
