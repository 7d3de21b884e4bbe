//! What a round is: a recipe, which says the result, and modes and options, which must not change it.

use std::time::Duration;

use strikeslip::gc::stress::{StressMode, StressModes};
use strikeslip::{Delivery, ForcedAnswers, HeapOptions, Mode, StressOptions, VerifyLevel};

use crate::corpus::{Corpus, Embedded, ORIGINAL};
use crate::index::LiveEstimate;
use crate::random::Random;
use crate::workload::Plan;

/// Without a collector everything that is allocated stays.
const NO_GC_FACTOR: u64 = 10;

/// A workload.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// The index, of the corpus with this number.
    Index {
        /// Number of the corpus.
        corpus: usize,
    },
    /// Trees, graphs and arrays.
    Churn,
}

impl Job {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Index { .. } => "index",
            Self::Churn => "churn",
        }
    }
}

/// A job with all that its checksum depends on.
#[derive(Copy, Clone, Debug)]
struct Recipe {
    job: Job,
    mutators: usize,
    live_bytes: u64,
}

/// All recipes, and the corpora that they are about.
#[derive(Debug)]
pub struct Recipes {
    /// Corpora of index jobs.
    pub corpora: Vec<Corpus>,
    recipes: Vec<Recipe>,
}

impl Recipes {
    /// The recipes of a seed.
    pub fn new(seed: u64) -> Self {
        let corpora = [400, 1500].map(|documents| Corpus::Embedded(Embedded::new(seed, documents)));
        let index = |(nth, mutators): (usize, usize)| {
            let mut estimate = LiveEstimate::default();
            let mut text = String::new();
            for document in 0..corpora[nth].len() as u32 {
                corpora[nth].text(document, ORIGINAL, &mut text);
                estimate.add(&text);
            }
            Recipe { job: Job::Index { corpus: nth }, mutators, live_bytes: estimate.bytes() }
        };
        let churn = |(mutators, live_bytes)| Recipe { job: Job::Churn, mutators, live_bytes };
        let mut recipes: Vec<_> = [(0, 3), (1, 2)].map(index).into();
        recipes.extend([(1, 12 << 20), (2, 32 << 20), (5, 48 << 20)].map(churn));
        Self { corpora: corpora.into(), recipes }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.recipes.len()
    }
}

/// A round.
#[derive(Clone, Debug)]
pub struct Round {
    /// From 0.
    pub number: u64,
    /// Which recipe: rounds with the same one have the same checksum.
    pub recipe: usize,
    /// What to run.
    pub job: Job,
    /// How to run it.
    pub plan: Plan,
    /// On what heap.
    pub options: HeapOptions,
}

impl Round {
    /// The round of this number. The first ones go through all recipes.
    pub fn draw(seed: u64, number: u64, recipes: &Recipes) -> Self {
        let mut random = Random::new(seed, number);
        let any = random.below(recipes.len());
        let recipe = usize::try_from(number).ok().filter(|&first| first < recipes.len()).unwrap_or(any);
        let Recipe { job, mutators, live_bytes } = recipes.recipes[recipe];
        let mode = match random.below(16) {
            0 => Mode::NoGc,
            1 | 2 => Mode::StopTheWorld,
            3..=7 => Mode::ConcurrentCopy,
            _ => Mode::ConcurrentMove,
        };
        let factor = if mode == Mode::NoGc { NO_GC_FACTOR } else { 2 + random.below(3) as u64 };
        let heap_bytes = (live_bytes * factor).max(24 << 20).next_multiple_of(2 << 20);
        let time = Duration::from_millis(500 + random.below(4500) as u64);
        Self {
            number,
            recipe,
            job,
            plan: Plan { mutators, time, seed, heap_bytes, live_bytes },
            options: options(&mut random, mode, heap_bytes),
        }
    }
}

/// Stress modes that a round can have. Not those with which running out of memory is no wonder, nor those that wait
/// for a cycle at each allocation.
const STRESS: [StressMode; 18] = [
    StressMode::CollectAllocations,
    StressMode::CollectSites,
    StressMode::NoWorkers,
    StressMode::NoMutatorService,
    StressMode::Yields,
    StressMode::ToggleMoves,
    StressMode::ProtectFreed,
    StressMode::PoisonFreed,
    StressMode::OneObjectBuffers,
    StressMode::EvacuateAll,
    StressMode::SignalStorm,
    StressMode::PageUnits,
    StressMode::OverflowSlots,
    StressMode::TakeAll,
    StressMode::TakeWindows,
    StressMode::TakeNothing,
    StressMode::RefuseTakes,
    StressMode::Overtake,
];
/// Allocations from one collection to the next, where that is how they are asked for.
const COLLECT_EVERY: u32 = 20_000;

/// Up to three stress modes that go together.
fn stress(random: &mut Random) -> StressModes {
    loop {
        let modes: Vec<_> = (0..random.below(4)).map(|_| STRESS[random.below(STRESS.len())]).collect();
        let collects = modes.contains(&StressMode::CollectAllocations);
        let modes = StressModes::of(&modes);
        let modes = if collects { modes.with_collect_every(COLLECT_EVERY) } else { modes };
        let stress = StressOptions { modes, ..StressOptions::default() };
        if (HeapOptions { stress, ..HeapOptions::default() }).resolved().is_ok() {
            return modes;
        }
    }
}

fn options(random: &mut Random, mode: Mode, heap_bytes: u64) -> HeapOptions {
    let pick = |random: &mut Random, of: &[usize]| of[random.below(of.len())];
    let concurrent = mode.is_concurrent();
    HeapOptions {
        limit_bytes: usize::try_from(heap_bytes).unwrap_or(usize::MAX),
        mode,
        fall_back: false,
        delivery: concurrent.then(|| Delivery::ALL[random.below(Delivery::ALL.len())]),
        workers: pick(random, &[0, 1, 2, 4]),
        mark_workers: pick(random, &[0, 1, 2, 4]),
        huge_pages: random.one_in(2),
        buffer_bytes: pick(random, &[1 << 10, 8 << 10, 32 << 10, 256 << 10]),
        evacuate_below: [0.25, 0.5, 0.75, 1.0][random.below(4)],
        patch_budget: pick(random, &[0, 4, 256, 1 << 20]),
        verify: match random.below(3) {
            0 => VerifyLevel::ALL[random.below(VerifyLevel::ALL.len())],
            _ => VerifyLevel::Off,
        },
        young_cycles: !random.one_in(4),
        low_weight_marking: random.one_in(2),
        stress: StressOptions {
            forced_answers: (concurrent && !random.one_in(3)).then(|| forced(random)),
            modes: if concurrent && random.one_in(2) { stress(random) } else { StressModes::default() },
        },
        // Rounds run beside other programs.
        watchdog_ms: 60_000,
        ..HeapOptions::default()
    }
}

fn forced(random: &mut Random) -> ForcedAnswers {
    ForcedAnswers {
        seed: random.next(),
        per_mille: [5, 50, 300, 800][random.below(4)],
        refuse_moves_after: random.one_in(4).then(|| random.below(20_000) as u64),
        refuse_registrations: [0, 0, 50, 300][random.below(4)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_tell_the_round() {
        let recipes = Recipes::new(3);
        let draw = |number| format!("{:?}", Round::draw(3, number, &recipes));
        assert_eq!(draw(17), draw(17));
        assert_ne!(draw(17), draw(18));
        let modes: Vec<_> = (0..100).map(|number| Round::draw(3, number, &recipes).options.mode).collect();
        assert!(Mode::ALL.iter().all(|mode| modes.contains(mode)), "{modes:?}");
        assert!((0..recipes.len()).all(|nth| Round::draw(3, nth as u64, &recipes).recipe == nth));
    }
}
