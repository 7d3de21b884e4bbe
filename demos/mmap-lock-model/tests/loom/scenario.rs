//! What runs beside what, and what must be true at the end.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;

use loom::thread::{self, JoinHandle};
use mmap_lock_model::policy::Policy;
use mmap_lock_model::rule::Options;
use mmap_lock_model::service::{Errno, copy, move_pages};
use mmap_lock_model::space::Space;

/// Preemptions in schedules of two threads, and of three.
const PREEMPTIONS: [usize; 2] = [3, 2];

type Answer = Result<usize, Errno>;
type Body = dyn Fn(&'static dyn Policy, Options) + Send + Sync;

/// A piece of concurrent work that checks itself, for any policy.
#[derive(Clone)]
pub struct Scenario {
    name: String,
    threads: usize,
    body: Arc<Body>,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl Scenario {
    fn new(
        name: impl Into<String>,
        threads: usize,
        body: impl Fn(&'static dyn Policy, Options) + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), threads, body: Arc::new(body) }
    }

    /// Runs it under every schedule.
    pub fn check(&self, policy: &'static dyn Policy, options: Options) {
        let found = self.finds(policy, options);
        assert!(found.is_none(), "{self}, policy {}: {}", policy.name(), found.unwrap_or_default());
    }

    /// What is found wrong: the first failing schedule's message.
    pub fn finds(&self, policy: &'static dyn Policy, options: Options) -> Option<String> {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS[self.threads - 2]);
        let body = Arc::clone(&self.body);
        let run = AssertUnwindSafe(|| builder.check(move || body(policy, options)));
        catch_unwind(run).err().map(|panic| message(&*panic))
    }
}

/// Checks that something is found, and said in words that contain `expected`.
pub fn assert_finds(expected: &str, scenario: &Scenario, policy: &'static dyn Policy, options: Options) {
    let found = scenario.finds(policy, options);
    let found = found.unwrap_or_else(|| panic!("{scenario}, policy {}: nothing is found", policy.name()));
    assert!(found.contains(expected), "{scenario}, policy {}: {found}", policy.name());
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// VMA A has pages 0 to 3, of which 0 and 1 are there; VMA B pages 8 to 11, of which 8 and 9 are there.
fn space(options: Options, is_touched: bool) -> Arc<Space> {
    let space = Space::new(options);
    for start in [0, 8] {
        space.map(start..start + 4, true);
        let vma = space.lookup(start).unwrap();
        for page in [start, start + 1] {
            space.put_page(&vma, page).unwrap();
        }
    }
    if !is_touched {
        // The same VMAs as they are before their first page.
        for start in [0, 8] {
            space.unmap(start, false).unwrap();
            space.map(start..start + 4, false);
        }
    }
    Arc::new(space)
}

fn spawn<R: 'static>(space: &Arc<Space>, work: impl FnOnce(&Space) -> R + 'static) -> JoinHandle<R> {
    let space = Arc::clone(space);
    thread::spawn(move || work(&space))
}

fn assert_pages_are_mapped(space: &Space) {
    for page in (0..16).filter(|&page| space.has_page(page)) {
        assert!(space.lookup(page).is_some(), "page {page} is there and not mapped");
    }
}

/// A page operation.
#[derive(Copy, Clone, Debug)]
enum Operation {
    /// To pages 2 and 3 of A.
    Copy,
    /// Pages 8 and 9 of B, to pages 2 and 3 of A.
    MoveAcross,
    /// Pages 0 and 1 of A, to pages 2 and 3 of A.
    MoveWithin,
}

impl Operation {
    fn run(self, space: &Space, policy: &dyn Policy) -> Answer {
        match self {
            Self::Copy => copy(space, policy, 2..4, || ()),
            Self::MoveAcross => move_pages(space, policy, 2, 8, 2, || ()),
            Self::MoveWithin => move_pages(space, policy, 2, 0, 2, || ()),
        }
    }

    const fn source(self) -> Option<usize> {
        match self {
            Self::Copy => None,
            Self::MoveAcross => Some(8),
            Self::MoveWithin => Some(0),
        }
    }
}

/// An operation that changes mappings.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Change {
    /// Of the VMA of this page, with an event or without.
    Unmap(usize, bool),
    /// Before this page.
    Split(usize),
    /// Of the VMA of this page, to read-only.
    Protect(usize),
    /// Of a VMA that the operation is not about: sequence numbers move on.
    Elsewhere,
}

impl Change {
    const ALL: [Self; 9] = [
        Self::Unmap(0, false),
        Self::Unmap(0, true),
        Self::Unmap(8, false),
        Self::Unmap(8, true),
        Self::Split(3),
        Self::Split(9),
        Self::Protect(0),
        Self::Protect(8),
        Self::Elsewhere,
    ];

    fn run(self, space: &Space) {
        match self {
            Self::Unmap(page, event) => space.unmap(page, event).unwrap(),
            Self::Split(page) => space.split(page).unwrap(),
            Self::Protect(page) => space.protect(page, false, || ()).unwrap(),
            Self::Elsewhere => {
                space.map(20..24, true);
                space.unmap(20, false).unwrap();
            }
        }
    }

    /// Whether pages that an operation had dealt with stay.
    const fn keeps_pages(self) -> bool {
        !matches!(self, Self::Unmap(..))
    }

    /// The answers that the operation may give, besides that it is done.
    fn allows(self, operation: Operation, error: Errno) -> bool {
        match self {
            Self::Unmap(page, event) => {
                let concerned = page == 0 || operation.source() == Some(page);
                // A MOVE to a hole: `find_vma` gives the VMA above, whose range is wrong.
                (event && error == Errno::Again)
                    || (concerned && matches!(error, Errno::Missing | Errno::Invalid))
            }
            Self::Split(3) => {
                matches!((operation, error), (Operation::Copy, Errno::Missing))
                    || (operation.source().is_some() && error == Errno::Invalid)
            }
            Self::Split(_) => matches!(operation, Operation::MoveAcross) && error == Errno::Invalid,
            Self::Protect(page) => {
                let concerned = page == 0 || operation.source() == Some(page);
                operation.source().is_some() && concerned && error == Errno::Invalid
            }
            Self::Elsewhere => false,
        }
    }
}

/// Each operation beside each writer, in VMAs that were touched before and that were not.
pub fn pairs() -> Vec<Scenario> {
    let mut scenarios = vec![];
    for operation in [Operation::Copy, Operation::MoveAcross, Operation::MoveWithin] {
        for change in Change::ALL {
            scenarios.push(pair(operation, change, true));
        }
    }
    for change in Change::ALL {
        scenarios.push(pair(Operation::Copy, change, false));
    }
    scenarios
}

fn pair(operation: Operation, change: Change, is_touched: bool) -> Scenario {
    let touched = if is_touched { "" } else { ", untouched" };
    Scenario::new(format!("{operation:?} beside {change:?}{touched}"), 2, move |policy, options| {
        let space = space(options, is_touched);
        let operating = spawn(&space, move |space| operation.run(space, policy));
        change.run(&space);
        let answer = operating.join().unwrap();
        match answer {
            Ok(pages) => assert_eq!(pages, 2, "an operation was done in part"),
            Err(error) => assert!(change.allows(operation, error), "{answer:?}"),
        }
        assert_pages_are_mapped(&space);
        if change.keeps_pages() {
            for page in [2, 3] {
                assert_eq!(space.has_page(page), answer.is_ok(), "page {page}, {answer:?}");
            }
            if let Some(source) = operation.source() {
                assert_eq!(space.has_page(source), answer.is_err(), "page {source}, {answer:?}");
            }
        }
    })
}

/// A MOVE from B to A and one from A to B, beside a writer.
pub fn opposite_moves() -> Vec<Scenario> {
    let scenario = |change: Change| {
        Scenario::new(format!("opposite moves beside {change:?}"), 3, move |policy, options| {
            let space = space(options, true);
            let there = spawn(&space, move |space| move_pages(space, policy, 2, 8, 1, || ()));
            let back = spawn(&space, move |space| move_pages(space, policy, 10, 0, 1, || ()));
            change.run(&space);
            let is_allowed = |answer: Answer| match answer {
                Ok(pages) => pages == 1,
                Err(error) => !change.keeps_pages() && matches!(error, Errno::Missing | Errno::Invalid),
            };
            let answers = (there.join().unwrap(), back.join().unwrap());
            assert!(is_allowed(answers.0) && is_allowed(answers.1), "{answers:?}");
            assert_pages_are_mapped(&space);
        })
    };
    vec![scenario(Change::Elsewhere), scenario(Change::Unmap(0, false)), scenario(Change::Unmap(8, false))]
}

/// A COPY beside two writers.
pub fn two_writers() -> Vec<Scenario> {
    let scenario = |first: Change, second: Change| {
        Scenario::new(format!("Copy beside {first:?} and {second:?}"), 3, move |policy, options| {
            let space = space(options, true);
            let copying = spawn(&space, move |space| Operation::Copy.run(space, policy));
            let writing = spawn(&space, move |space| first.run(space));
            second.run(&space);
            writing.join().unwrap();
            let answer = copying.join().unwrap();
            match answer {
                Ok(pages) => assert_eq!(pages, 2, "an operation was done in part"),
                Err(error) => {
                    let is_allowed =
                        [first, second].iter().any(|change| change.allows(Operation::Copy, error));
                    assert!(is_allowed, "{answer:?}");
                }
            }
            assert_pages_are_mapped(&space);
        })
    };
    vec![scenario(Change::Split(3), Change::Protect(0)), scenario(Change::Unmap(8, true), Change::Split(3))]
}

/// A COPY to where something is being mapped.
pub fn copy_beside_map() -> Scenario {
    Scenario::new("copy beside map", 2, |policy, options| {
        let space = space(options, true);
        let copying = spawn(&space, move |space| copy(space, policy, 5..7, || ()));
        space.map(4..8, false);
        let answer = copying.join().unwrap();
        assert!(matches!(answer, Ok(2) | Err(Errno::Missing)), "{answer:?}");
        assert_eq!(space.has_page(5), answer.is_ok());
    })
}

/// A COPY to where nothing is, with a VMA above.
pub fn copy_into_a_hole() -> Scenario {
    Scenario::new("copy into a hole", 2, |policy, options| {
        let space = space(options, true);
        assert_eq!(copy(&space, policy, 6..7, || ()), Err(Errno::Missing));
    })
}

/// A COPY that is tried again while mappings change.
pub fn copy_until_done() -> Scenario {
    Scenario::new("copy until it is done", 2, |policy, options| {
        let space = space(options, true);
        let copying = spawn(&space, move |space| {
            loop {
                match copy(space, policy, 2..4, || ()) {
                    Err(Errno::Again) => thread::yield_now(),
                    answer => return answer,
                }
            }
        });
        space.unmap(8, true).unwrap();
        assert_eq!(copying.join().unwrap(), Ok(2));
    })
}

/// A space in which VMA A looks locked, since the number has come round.
fn overflown(options: Options) -> Arc<Space> {
    let space = space(options, true);
    space.protect(0, true, || ()).unwrap();
    space.protect(8, true, || ()).unwrap();
    assert!(space.lock_under_rcu(0).is_none(), "the number has come round");
    space
}

/// A COPY into a VMA that looks locked and is being unmapped.
pub fn copy_after_overflow() -> Scenario {
    Scenario::new("copy after overflow", 2, |policy, options| {
        let space = overflown(options);
        let copying = spawn(&space, move |space| copy(space, policy, 2..3, || ()));
        space.unmap(0, false).unwrap();
        let answer = copying.join().unwrap();
        assert!(matches!(answer, Ok(1) | Err(Errno::Missing)), "{answer:?}");
        assert_pages_are_mapped(&space);
    })
}

/// A MOVE into a VMA that looks locked, beside an unmap of its source.
pub fn move_after_overflow() -> Scenario {
    Scenario::new("move after overflow", 2, |policy, options| {
        let space = overflown(options);
        let moving = spawn(&space, move |space| move_pages(space, policy, 2, 8, 1, || ()));
        space.unmap(8, false).unwrap();
        let answer = moving.join().unwrap();
        assert!(matches!(answer, Ok(1) | Err(Errno::Missing | Errno::Invalid)), "{answer:?}");
        assert_pages_are_mapped(&space);
    })
}

/// A MOVE within one VMA, beside a writer of it.
pub fn move_within_beside_protect() -> Scenario {
    pair(Operation::MoveWithin, Change::Protect(0), true)
}

/// A MOVE between VMAs that were not touched before, so that attempts fail, beside a writer of the destination.
pub fn first_move_beside_protect() -> Scenario {
    Scenario::new("first move beside protect", 2, |policy, options| {
        let space = space(options, false);
        let moving = spawn(&space, move |space| move_pages(space, policy, 2, 8, 1, || ()));
        space.protect(0, true, || ()).unwrap();
        assert_eq!(moving.join().unwrap(), Err(Errno::Missing), "there is no source page");
    })
}

/// COPYs one after another into a VMA that looks locked, with no writer.
pub struct Copies {
    count: usize,
}

/// So many of them.
pub const fn copies_after_overflow(count: usize) -> Copies {
    Copies { count }
}

impl Copies {
    /// What they answer.
    pub fn answers(&self, policy: &'static dyn Policy, options: Options) -> Vec<Answer> {
        let answers = Arc::new(Mutex::new(vec![]));
        let (count, told) = (self.count, Arc::clone(&answers));
        loom::model(move || {
            let space = overflown(options);
            let all = (0..count).map(|_| {
                let answer = copy(&space, policy, 2..3, || ());
                space.zap(&(2..3));
                answer
            });
            *told.lock().unwrap() = all.collect();
        });
        let answers = answers.lock().unwrap();
        answers.clone()
    }
}
