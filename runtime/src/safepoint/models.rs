//! The protocol of safepoints under loom: a handshake's action runs once on each context, nobody runs while the
//! world is stopped, each pause is reported once, and nobody sleeps for ever.
//!
//! Real is all of `protocol`. A context is a cell, and the heap is one that running mutators read and the
//! controller writes while it has stopped them: loom finds accesses that do not exclude each other.
//!
//! Run with `RUSTFLAGS="--cfg loom"`, see `CONTRIBUTING.md`.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as PlainCount;
use std::time::{Duration, Instant};

use loom::thread;
use strikeslip_gc::sync::model::{Model, assert_each_ordering_matters, assert_finds};

use super::protocol::{Member, Party, Registry};
use crate::sync::UnsafeCell;
use crate::sync::atomic::Ordering;

/// What a model's mutator has.
struct Mutator {
    /// How often it was used, and 100 for each action on it.
    context: UnsafeCell<u32>,
    world: Arc<World>,
}

/// What all of them share.
#[derive(Default)]
struct World {
    heap: UnsafeCell<u32>,
    /// Pauses that were reported.
    pauses: PlainCount,
}

// SAFETY: models check that accesses to the cell exclude each other.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

// SAFETY: the cell is the context; the world is `Sync`.
unsafe impl Party for Mutator {
    type Context = UnsafeCell<u32>;
    type Host = Arc<World>;

    fn context(&self) -> &UnsafeCell<u32> {
        &self.context
    }

    fn pause_ended(&self, _: Instant) {
        self.world.pauses.fetch_add(1, Ordering::Relaxed);
    }

    fn controller_pause_ended(world: &Arc<World>, _: Instant) {
        world.pauses.fetch_add(1, Ordering::Relaxed);
    }
}

type Mutators = Registry<Mutator>;

fn registry() -> Arc<Mutators> {
    Arc::new(Registry::with_host(Arc::default(), Duration::ZERO))
}

fn attach(registry: &Arc<Mutators>) -> Arc<Member<Mutator>> {
    registry.enter(|| Mutator { context: UnsafeCell::new(0), world: registry.host.clone() })
}

/// What a running mutator does between two safepoints.
fn run(member: &Member<Mutator>) {
    // SAFETY: checked by loom.
    member.context().with_mut(|context| unsafe { *context += 1 });
    // SAFETY: checked by loom.
    member.world.heap.with(|heap| unsafe { *heap });
}

fn act(context: &UnsafeCell<u32>) {
    // SAFETY: checked by loom.
    context.with_mut(|context| unsafe { *context += 100 });
}

fn actions_on(member: &Member<Mutator>) -> u32 {
    // SAFETY: checked by loom.
    member.context().with(|context| unsafe { *context }) / 100
}

/// A pause, as the controller makes it.
fn pause(registry: &Mutators) {
    registry.stop_world();
    registry.for_each_stopped(&mut act);
    // SAFETY: checked by loom.
    registry.host.heap.with_mut(|heap| unsafe { *heap += 1 });
    registry.resume_world(Instant::now());
}

type Life = fn(&Member<Mutator>);

fn polls(member: &Member<Mutator>) {
    run(member);
    member.poll();
    run(member);
}

fn blocks(member: &Member<Mutator>) {
    run(member);
    member.begin_blocked();
    member.end_blocked();
    run(member);
}

fn only_blocks(member: &Member<Mutator>) {
    member.begin_blocked();
    member.end_blocked();
    run(member);
}

/// What a mutator does at the end.
#[derive(Copy, Clone, PartialEq, Eq)]
enum End {
    Detaches,
    /// Stays in a blocked region.
    Blocks,
}

/// Attached mutators live while the controller does something.
fn beside(lives: &[Life], end: End, control: impl FnOnce(&Arc<Mutators>)) -> Vec<Arc<Member<Mutator>>> {
    let registry = registry();
    let members: Vec<_> = lives.iter().map(|_| attach(&registry)).collect();
    let threads: Vec<_> = lives
        .iter()
        .zip(&members)
        .map(|(&life, member)| {
            let (registry, member) = (registry.clone(), member.clone());
            thread::spawn(move || {
                life(&member);
                match end {
                    End::Detaches => registry.leave(&member, || run(&member)),
                    End::Blocks => member.begin_blocked(),
                }
            })
        })
        .collect();
    control(&registry);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    members
}

fn handshake(lives: &[Life], end: End) {
    for member in beside(lives, end, |registry| registry.handshake(&act)) {
        let actions = actions_on(&member);
        let is_gone = end == End::Detaches && actions == 0;
        assert!(actions == 1 || is_gone, "the action ran {actions} times on a context");
    }
}

fn pauses(lives: &[Life], end: End, count: usize) {
    let mut world = None;
    let _members = beside(lives, end, |registry| {
        (0..count).for_each(|_| pause(registry));
        world = Some(registry.host.clone());
    });
    let reported = world.expect("the controller ran").pauses.load(Ordering::Relaxed);
    assert_eq!(reported, count, "each pause is reported once");
}

/// One mutator attaches and detaches, and a thread that is none runs something that no stop may overlap.
fn attach_beside_a_pause() {
    let registry = registry();
    let late = thread::spawn({
        let registry = registry.clone();
        move || {
            let member = attach(&registry);
            run(&member);
            registry.leave(&member, || run(&member));
        }
    });
    let stranger = thread::spawn({
        let registry = registry.clone();
        // SAFETY: checked by loom.
        move || registry.while_not_stopped(|| assert!(registry.host.heap.with(|heap| unsafe { *heap }) <= 1))
    });
    pause(&registry);
    late.join().unwrap();
    stranger.join().unwrap();
    assert_eq!(registry.host.pauses.load(Ordering::Relaxed), 1);
}

fn models() -> Vec<Model> {
    let both = |preemptions: usize, model: fn(End)| {
        [End::Detaches, End::Blocks].map(|end| Model::new(preemptions + 1, move || model(end)))
    };
    let mut models = vec![];
    models.extend(both(3, |end| handshake(&[polls], end)));
    models.extend(both(3, |end| handshake(&[blocks], end)));
    models.extend(both(2, |end| handshake(&[polls, blocks], end)));
    models.extend(both(3, |end| pauses(&[polls], end, 1)));
    models.extend(both(3, |end| pauses(&[blocks], end, 1)));
    models.extend(both(2, |end| pauses(&[polls, only_blocks], end, 1)));
    models.extend(both(2, |end| pauses(&[only_blocks], end, 2)));
    models.extend(both(2, |end| {
        beside(&[only_blocks], end, |registry| {
            pause(registry);
            registry.handshake(&act);
        });
    }));
    models.push(Model::new(2, attach_beside_a_pause));
    models
}

#[test]
fn contexts_have_one_owner_and_no_wake_is_lost() {
    assert_each_ordering_matters("safepoint/protocol.rs", &[], &models());
}

#[test]
fn a_mutator_that_runs_in_a_blocked_region_is_found() {
    fn runs_on(member: &Member<Mutator>) {
        member.begin_blocked();
        run(member);
        member.end_blocked();
    }
    assert_finds("Causality violation", 2, || handshake(&[runs_on], End::Detaches));
}

#[test]
fn attaching_without_looking_whether_the_world_is_stopped_is_found() {
    let model = || {
        let registry = registry();
        let stranger = thread::spawn({
            let registry = registry.clone();
            // SAFETY: checked by loom.
            move || assert!(registry.host.heap.with(|heap| unsafe { *heap }) <= 1)
        });
        pause(&registry);
        stranger.join().unwrap();
    };
    assert_finds("Causality violation", 2, model);
}

#[test]
fn resuming_before_the_heap_is_whole_is_found() {
    let model = || {
        let _members = beside(&[polls], End::Detaches, |registry| {
            registry.stop_world();
            registry.resume_world(Instant::now());
            // SAFETY: checked by loom.
            registry.host.heap.with_mut(|heap| unsafe { *heap += 1 });
        });
    };
    assert_finds("Causality violation", 2, model);
}
