//! How models are run: through all schedules with few preemptions, whole and weakened.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::weaken;

/// Most steps of one run: more is taken for a loop without end.
const STEPS: usize = 5_000;
/// Most lines of a call whose last lines name the orderings.
const CALL_LINES: u32 = 6;

/// A model: what loom runs, and with how many preemptions at most.
#[derive(Clone)]
pub struct Model {
    preemptions: usize,
    run: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("preemptions", &self.preemptions).finish_non_exhaustive()
    }
}

impl Model {
    /// A model that is run through all schedules with at most `preemptions` preemptions.
    pub fn new(preemptions: usize, run: impl Fn() + Send + Sync + 'static) -> Self {
        Self { preemptions, run: Arc::new(run) }
    }

    /// Runs it.
    ///
    /// # Panics
    /// If a schedule fails: an assertion, a data race, a deadlock, or no end.
    pub fn check(&self) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(self.preemptions);
        builder.max_branches = STEPS;
        let run = self.run.clone();
        builder.check(move || run());
    }

    /// What the model finds wrong: the first failing schedule's message.
    ///
    /// # Panics
    /// If a run has no end: that shows nothing, except that the model is no good.
    #[must_use]
    pub fn finds(&self) -> Option<String> {
        let message = message(&*catch_unwind(AssertUnwindSafe(|| self.check())).err()?);
        assert!(!message.contains("maximum number of branches"), "no end in {STEPS} steps");
        Some(message)
    }
}

/// Checks a model.
///
/// # Panics
/// As [`Model::check`].
pub fn check(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    Model::new(preemptions, run).check();
}

/// Checks that a model with something made wrong finds it, and says so in words that contain `expected`.
///
/// # Panics
/// If it finds nothing, or something else.
pub fn assert_finds(expected: &str, preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let found = Model::new(preemptions, run).finds();
    let found = found.unwrap_or_else(|| panic!("nothing was found; expected: {expected}"));
    assert!(found.contains(expected), "found {found:?}; expected: {expected}");
}

/// Checks the models; then, for each line of `file` with an ordering stronger than `Relaxed`, or a fence, checks that
/// some model fails without it. Lines that contain one of `elsewhere` are those that no model passes.
///
/// # Panics
/// If a model fails as it is, an ordering is not needed, or no model passes it.
pub fn assert_each_ordering_matters(file: &str, elsewhere: &[&str], models: &[Model]) {
    drop(weaken::take_places());
    models.iter().for_each(Model::check);
    let all: BTreeSet<_> =
        weaken::take_places().into_iter().filter(|place| place.file.ends_with(file)).collect();
    let mut needless = vec![];
    for &place in &all {
        weaken::set_weakened(Some(place));
        if models.iter().all(|model| model.finds().is_none()) {
            needless.push(place);
        }
        weaken::set_weakened(None);
    }
    assert!(needless.is_empty(), "no model needs these orderings: {needless:#?}");
    let file = all.first().expect("a model passes an ordering of the file").file;
    let not_passed: Vec<_> = strong_lines(file)
        .into_iter()
        .filter(|(line, text)| {
            let passed = all.iter().any(|place| (place.line..place.line + CALL_LINES).contains(line));
            !passed && !elsewhere.iter().any(|elsewhere| text.contains(elsewhere))
        })
        .collect();
    assert!(not_passed.is_empty(), "no model passes these lines of {file}: {not_passed:#?}");
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// The lines of a file's code, before its unit tests, that name a strong ordering.
fn strong_lines(file: &str) -> Vec<(u32, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let text = std::fs::read_to_string(root.join(file)).expect("a place's file can be read");
    let is_strong = |line: &str| {
        !line.trim().starts_with("//")
            && ["Acquire", "Release", "AcqRel", "SeqCst"]
                .iter()
                .any(|order| line.contains(&format!("Ordering::{order}")))
    };
    (1..)
        .zip(text.lines().take_while(|line| *line != "#[cfg(test)]"))
        .filter(|(_, line)| is_strong(line))
        .map(|(number, line)| (number, line.trim().to_owned()))
        .collect()
}
