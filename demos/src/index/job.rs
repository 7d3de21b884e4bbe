//! The main job: build the index, replace documents and ask queries for some time, bring every
//! document to its final version, check everything.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use strikeslip::{Heap, Mutator};

use super::check::Verdict;
use super::{Index, Mismatches, Query};
use crate::corpus::{Corpus, DocumentId, ORIGINAL, VERSIONS, Version, final_version};
use crate::random::Random;
use crate::tokenize::for_each_word;
use crate::workload::{
    IndexFigures, Meter, Outcome, Plan, RunError, Timer, Workload, attached, latency_histogram, run_mutators,
};

/// Queries asked for each document that is replaced.
const QUERIES_PER_REPLACEMENT: usize = 8;
/// One document is checked for so many that are replaced.
const CHECK_EVERY: u64 = 40;
/// Words that a thread asks about, taken from the texts it has seen.
const KNOWN_WORDS: usize = 512;
/// Queries of its own that a thread remembers; three queries in four are one of them.
const KNOWN_QUERIES: usize = 64;
/// Shortest word that is asked about, in bytes.
const SHORTEST_WORD: usize = 5;
/// One word in this many of a text is taken.
const TAKE_EVERY: usize = 40;

/// The main job on a corpus.
#[derive(Debug)]
pub struct IndexJob<'a> {
    corpus: &'a Corpus,
}

impl<'a> IndexJob<'a> {
    /// The job for `corpus`.
    #[must_use]
    pub const fn new(corpus: &'a Corpus) -> Self {
        Self { corpus }
    }
}

impl Workload for IndexJob<'_> {
    fn name(&self) -> &'static str {
        "index"
    }

    fn run(&self, heap: &Heap, plan: &Plan, meter: &Meter) -> Result<Outcome, RunError> {
        let index = attached(heap, |m| Ok(Index::new(m, self.corpus.len())?))?;
        let run = Run { corpus: self.corpus, index, heap, plan, meter };
        let build_start = Instant::now();
        let text_bytes = run.build()?;
        let build = (build_start.elapsed(), text_bytes);

        let start = Instant::now();
        let tallies = run.replace_and_ask()?;
        let time = start.elapsed();
        let mut tally = Tally::default();
        tallies.into_iter().for_each(|other| tally.merge(other));

        run.settle()?;
        let used_before_bytes = heap.snapshot().memory.used_bytes;
        heap.collect();
        let used_after_bytes = heap.snapshot().memory.used_bytes;
        let Verdict { mismatches, checksum, words, postings } =
            attached(heap, |m| Ok(run.index.check(m, self.corpus, plan.seed)?))?;
        tally.mismatches.merge(mismatches);
        Ok(Outcome {
            operations: tally.replaced + tally.query_ns.len(),
            time,
            checksum,
            mismatches: tally.mismatches,
            used_before_bytes,
            used_after_bytes,
            index: Some(IndexFigures {
                documents: self.corpus.len() as u64,
                words,
                postings,
                build,
                replaced: (tally.replaced, tally.replaced_bytes),
                checked: tally.checked,
                cached: tally.cached,
                query_ns: tally.query_ns,
            }),
        })
    }
}

/// What a thread did in the timed part.
struct Tally {
    replaced: u64,
    replaced_bytes: u64,
    checked: u64,
    cached: u64,
    query_ns: Histogram<u64>,
    mismatches: Mismatches,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            replaced: 0,
            replaced_bytes: 0,
            checked: 0,
            cached: 0,
            query_ns: latency_histogram(),
            mismatches: Mismatches::default(),
        }
    }
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.replaced += other.replaced;
        self.replaced_bytes += other.replaced_bytes;
        self.checked += other.checked;
        self.cached += other.cached;
        self.query_ns.add(other.query_ns).expect("the same bounds");
        self.mismatches.merge(other.mismatches);
    }
}

/// One run of the job.
struct Run<'a> {
    corpus: &'a Corpus,
    index: Index,
    heap: &'a Heap,
    plan: &'a Plan,
    meter: &'a Meter,
}

impl Run<'_> {
    /// Mutators take documents from the list of those that are left, and call `body` on them.
    fn each_document(
        &self,
        body: impl Fn(&mut Mutator, DocumentId, &mut String) -> Result<(), RunError> + Sync,
    ) -> Result<(), RunError> {
        let next = AtomicU32::new(0);
        run_mutators(self.heap, self.plan.mutators, self.meter, |m, _| {
            let mut text = String::new();
            loop {
                let document = next.fetch_add(1, Ordering::Relaxed);
                if document as usize >= self.corpus.len() || self.meter.failed() {
                    return Ok(());
                }
                body(m, document, &mut text)?;
                self.meter.count(1);
            }
        })?;
        Ok(())
    }

    /// Adds every document. Returns the bytes of text.
    fn build(&self) -> Result<u64, RunError> {
        let bytes = AtomicU64::new(0);
        self.each_document(|m, document, text| {
            // Reading may take long; nobody shall wait for it at a safepoint.
            m.blocked(|| self.corpus.load(document));
            self.replace(m, document, ORIGINAL, text)?;
            bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
            Ok(())
        })?;
        Ok(bytes.into_inner())
    }

    /// Brings every document to its final version, whatever version the timed part left it in.
    fn settle(&self) -> Result<(), RunError> {
        self.each_document(|m, document, text| {
            let version = final_version(self.plan.seed, document);
            if self.index.version(m, document) == Some(version) {
                return Ok(());
            }
            self.replace(m, document, version, text)
        })
    }

    fn replace_and_ask(&self) -> Result<Vec<Tally>, RunError> {
        run_mutators(self.heap, self.plan.mutators, self.meter, |m, thread| {
            self.replace_and_ask_thread(m, thread)
        })
    }

    fn replace_and_ask_thread(&self, m: &mut Mutator, thread: usize) -> Result<Tally, RunError> {
        let mut tally = Tally::default();
        let mut random = Random::new(self.plan.seed, thread as u64);
        let mut known = KnownWords::default();
        let mut text = String::new();
        let mut timer = Timer::start(self.heap, self.plan, self.plan.time, self.meter);
        while timer.go_on() {
            let document = random.below(self.corpus.len()) as DocumentId;
            let version = random.below(VERSIONS as usize) as Version;
            self.replace(m, document, version, &mut text)?;
            known.take(&text, &mut random);
            tally.replaced += 1;
            tally.replaced_bytes += text.len() as u64;
            for _ in 0..QUERIES_PER_REPLACEMENT {
                let query = known.query(&mut random);
                let start = Instant::now();
                let answer = self.index.answer(m, &query)?;
                record(&mut tally.query_ns, start.elapsed());
                tally.cached += u64::from(answer.cached);
            }
            if tally.replaced % CHECK_EVERY == 0 {
                let document = random.below(self.corpus.len()) as DocumentId;
                tally.mismatches.merge(self.index.check_document(m, self.corpus, document));
                tally.checked += 1;
            }
            self.meter.count(1 + QUERIES_PER_REPLACEMENT as u64);
        }
        Ok(tally)
    }

    fn replace(
        &self,
        m: &mut Mutator,
        document: DocumentId,
        version: Version,
        text: &mut String,
    ) -> Result<(), RunError> {
        m.blocked(|| self.corpus.text(document, version, text));
        Ok(self.index.replace(m, document, version, &self.corpus.name(document), text)?)
    }
}

fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

/// What to ask about: words of the latest texts, as common among queries as they are in texts but for
/// short ones; and queries that were asked a moment ago, for people ask the same things.
#[derive(Debug, Default)]
struct KnownWords {
    words: Vec<Box<str>>,
    next_word: usize,
    queries: Vec<Query>,
    next_query: usize,
}

/// Puts `value` into a ring of at most `most`, in place of the oldest.
fn push<T>(ring: &mut Vec<T>, next: &mut usize, most: usize, value: T) {
    if ring.len() < most {
        ring.push(value);
    } else {
        ring[*next] = value;
        *next = (*next + 1) % most;
    }
}

impl KnownWords {
    fn take(&mut self, text: &str, random: &mut Random) {
        let mut until_next = random.below(TAKE_EVERY);
        for_each_word(text, |word| {
            if until_next > 0 {
                until_next -= 1;
                return;
            }
            if word.len() >= SHORTEST_WORD {
                until_next = TAKE_EVERY;
                push(&mut self.words, &mut self.next_word, KNOWN_WORDS, word.into());
            }
        });
    }

    fn word(&self, random: &mut Random) -> Box<str> {
        match self.words.len() {
            0 => "the".into(),
            len => self.words[random.below(len)].clone(),
        }
    }

    fn query(&mut self, random: &mut Random) -> Query {
        if !self.queries.is_empty() && !random.one_in(4) {
            return self.queries[random.below(self.queries.len())].clone();
        }
        let query = match random.below(4) {
            0 | 1 => Query::Word(self.word(random)),
            2 => Query::Both(self.word(random), self.word(random)),
            _ => Query::Top(self.word(random), 10),
        };
        push(&mut self.queries, &mut self.next_query, KNOWN_QUERIES, query.clone());
        query
    }
}
