//! The cycle: the only file that knows the order of its stages.
//!
//! Run by the controller thread. Each stage takes what only the stage before it can make:
//! `Marking → Marked → Plan → Preparation → Compacting → CycleSummary`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use crate::barrier::Barrier;
use crate::control::Request;
use crate::core::Core;
use crate::delivery::FaultQueue;
use crate::embedder::WorldStopped;
use crate::events::{CycleSummary, Phase};
use crate::extent::Extent;
use crate::flip::{self, Compacting};
use crate::geometry::{PAGE_BYTES, REGION_BYTES};
use crate::mark::{Marked, Marking, until_clean};
use crate::options::{Mode, VerifyLevel};
use crate::plan::{Plan, Pressure, concurrent_plan};
use crate::reclaim;
use crate::region::{Class, Use};
use crate::remembered::OldToYoung;
use crate::serve;
use crate::stress::StressMode;
use crate::sys::sched;
use crate::verify;
use crate::weak;

/// Threads that a cycle uses.
#[derive(Debug)]
pub struct Pools {
    /// Marking, at a low weight.
    pub mark: ThreadPool,
    /// Serving, at full weight.
    pub serve: Arc<ThreadPool>,
    /// Faults on their way to the serving pool.
    pub faults: Arc<FaultQueue>,
}

/// The nice value of the controller during the pause: a pause must not wait for a time slice.
const PAUSE_WEIGHT: i32 = -10;

/// Runs one cycle. Returns its extent.
pub fn run(core: &Core, pools: &Pools, request: Request) -> Extent {
    let number = core.cycles_begun();
    core.tell(|listener| listener.cycle_started(number, request.trigger));
    let everything = core.stress().is_on(StressMode::EvacuateAll);
    let pressure = if everything { Pressure::Everything } else { request.pressure };
    let extent = core.generations.choose(&core.options, &core.space, request.extent, pressure);
    let mut summary = CycleSummary {
        cycle: number,
        extent,
        used_before_bytes: (core.space.used() * REGION_BYTES) as u64,
        ..CycleSummary::default()
    };
    let allocated = core.stats.counters.allocated_bytes.load(Ordering::Relaxed);
    core.space.begin_cycle();
    if core.options.mode == Mode::StopTheWorld {
        stop_the_world(core, pools, pressure, &mut summary);
    } else {
        concurrent(core, pools, pressure, &mut summary);
    }
    finish(core, allocated, &mut summary);
    extent
}

fn concurrent(core: &Core, pools: &Pools, pressure: Pressure, summary: &mut CycleSummary) {
    let old_to_young = phase(core, Phase::Start, || start(core, pressure, summary.extent));
    let marked = phase(core, Phase::Mark, || mark(core, pools, &old_to_young));
    phase(core, Phase::Weak, || concurrent_clear(core, pools));
    verify_stopped(core, || verify::after_mark(core, summary.extent));
    core.generations.marked(&core.space, summary.extent);
    // Somebody may have begun to wait for memory meanwhile.
    let pressure = if core.control.is_urgent() { pressure.max(Pressure::High) } else { pressure };
    let gate = core.pin_gate.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut plan = phase(core, Phase::Plan, || concurrent_plan(core, marked, pressure));
    verify::after_plan(core, &plan);
    note_plan(core, &plan, summary);
    if plan.is_empty() {
        drop(gate);
        phase(core, Phase::Reclaim, || end_without_flip(core));
        return;
    }
    let prepared = phase(core, Phase::Plan, || flip::concurrent_prepare(core, &mut plan));
    let preparation = match prepared {
        Ok(preparation) => preparation,
        Err(error) => {
            drop(gate);
            core.stats.counters.flips_refused.fetch_add(1, Ordering::Relaxed);
            core.tell(|listener| listener.flip_refused(&error));
            phase(core, Phase::Reclaim, || {
                end_without_flip(core);
                plan.evacuated.iter().for_each(|&region| core.space.regions.set_class(region, Class::New));
                core.generations.demand_full();
            });
            return;
        }
    };
    let compacting = pause(core, summary, |world| {
        let shadow = verify::before_flip(core);
        let compacting = flip::pause_flip(core, plan, preparation, world);
        verify::after_flip(core, &compacting);
        if let Some(shadow) = shadow {
            shadow.compare_untaken(core);
            // By flips, not cycles: of these, every other one may have no flip.
            if core.stats.counters.pauses.load(Ordering::Relaxed) % 2 == 1 {
                // Mutators change objects as soon as they run: what is installed can only be compared before.
                concurrent_serve(core, pools);
                shadow.compare_all(core);
            } else {
                core.serving.shadow.publish(shadow);
            }
        }
        compacting
    });
    drop(gate);
    let resumed = Instant::now();
    phase(core, Phase::Serve, || concurrent_serve(core, pools));
    summary.serve_ns = nanoseconds(resumed.elapsed());
    note_flip(core, &compacting, summary);
    phase(core, Phase::Reclaim, || reclaim::concurrent_finish(core, &compacting));
    verify_stopped(core, || verify::after_compaction(core));
}

/// Stop-the-world mode: the same stages, all in one pause.
fn stop_the_world(core: &Core, pools: &Pools, pressure: Pressure, summary: &mut CycleSummary) {
    let _gate = core.pin_gate.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let extent = summary.extent;
    let compacting = pause(core, summary, |world| {
        choose_candidates(core, pressure, extent);
        core.roots.forget_notes();
        flip::end_marking(core);
        let old_to_young = core.remembered.begin(core, extent);
        // As many as threads: a marker waits for all others, so each needs one of its own.
        let marking = Marking::new(core, pools.serve.current_num_threads(), &old_to_young);
        marking.round(&pools.serve);
        let marked = marking.finish();
        core.generations.marked(&core.space, extent);
        note_cleared(core, weak::clear(core, &pools.serve));
        verify::after_mark(core, extent);
        let plan = concurrent_plan(core, marked, pressure);
        verify::after_plan(core, &plan);
        let shadow = verify::before_flip(core);
        let compacting = flip::pause_compact(core, plan, &pools.serve, world);
        if let Some(shadow) = shadow {
            shadow.compare_all(core);
        }
        reclaim::settle(core, &compacting.plan.evacuated, &compacting.plan.destinations);
        compacting
    });
    note_plan(core, &compacting.plan, summary);
    note_flip(core, &compacting, summary);
    verify_stopped(core, || verify::after_compaction(core));
}

/// Step 1: candidates are named, the barrier goes on everywhere, then objects are born marked.
fn start(core: &Core, pressure: Pressure, extent: Extent) -> OldToYoung {
    core.space.set_allocation_class(Class::Candidate);
    choose_candidates(core, pressure, extent);
    core.roots.forget_notes();
    core.upgrades.open();
    core.set_barrier(Barrier::Mark);
    core.handshake(&|context| {
        context.hand_over_records();
        context.set_barrier(Barrier::Mark);
    });
    // Before there are fresh objects: slots that refer to these are for the next cycle.
    let old_to_young = core.remembered.begin(core, extent);
    // Only now: an object that is born marked may be stored into by any mutator, so all barriers
    // must be on.
    core.space.set_allocation_class(Class::Fresh);
    core.shared.close();
    core.handshake(&|context| context.retire_buffer());
    old_to_young
}

/// Candidates: what was filled since the last flip, and, in a full cycle, what is likely to be sparse by now;
/// under pressure, all. Clears what the last cycle left in the regions' records.
fn choose_candidates(core: &Core, pressure: Pressure, extent: Extent) {
    let (space, regions) = (&core.space, &core.space.regions);
    let sparse = core.options.evacuate_below * REGION_BYTES as f64 / core.generations.survival();
    for region in regions.in_use() {
        let record = regions.record(region);
        record.slots.store(0, Ordering::Relaxed);
        record.slots_overflowed.store(false, Ordering::Relaxed);
        record.slots_begin.store(0, Ordering::Relaxed);
        record.slots_end.store(0, Ordering::Relaxed);
        record.incoming.store(0, Ordering::Relaxed);
        if regions.usage(region) == Use::Roots {
            continue;
        }
        let is_young = regions.class(region) != Class::Settled;
        if extent == Extent::Young && !is_young {
            continue;
        }
        let was_live = record.live_bytes.swap(0, Ordering::Relaxed);
        record.was_live.store(if is_young { 0 } else { was_live }, Ordering::Relaxed);
        let may_move = regions.usage(region) == Use::Objects
            && (is_young || f64::from(was_live) <= sparse || pressure != Pressure::Normal);
        let is_candidate = may_move || extent == Extent::Young;
        regions.set_class(region, if is_candidate { Class::Candidate } else { Class::Traced });
        record.is_mapped.store(true, Ordering::Relaxed);
        space.live.clear(region);
    }
}

/// Steps 2 and 3.
fn mark(core: &Core, pools: &Pools, old_to_young: &OldToYoung) -> Marked {
    let marking = Marking::new(core, core.options.mark_workers, old_to_young);
    let ended = until_clean(
        &core.upgrades,
        || marking.round(&pools.mark),
        || core.handshake(&|context| context.hand_over_records()),
        || marking.has_news(),
    );
    if !ended {
        let _ = stopped(core, |world| marking.finish_stopped(&pools.mark, world));
    }
    marking.finish()
}

/// Step 4. Mutators that load from weak slots give nothing for dead objects already.
fn concurrent_clear(core: &Core, pools: &Pools) {
    let cleared = weak::clear(core, &pools.mark);
    if cleared.is_some() {
        // A mutator may be about to find out that the object it has read from a slot is dead: not later than this.
        core.handshake(&|_| {});
    }
    note_cleared(core, cleared);
}

fn note_cleared(core: &Core, slots: Option<u64>) {
    core.stats.counters.weak_slots_cleared.fetch_add(slots.unwrap_or(0), Ordering::Relaxed);
}

/// Step 6: the one pause.
fn pause(
    core: &Core,
    summary: &mut CycleSummary,
    work: impl FnOnce(&WorldStopped) -> Compacting,
) -> Compacting {
    core.tell(|listener| listener.phase_started(Phase::Flip));
    let Stop { result: compacting, safepoint, until_resume } = stopped(core, work);
    core.stats.record_phase(Phase::Flip, until_resume);
    core.tell(|listener| listener.phase_ended(Phase::Flip, until_resume));
    summary.safepoint_ns = nanoseconds(safepoint);
    summary.stopped_ns = nanoseconds(until_resume);
    compacting
}

/// What was done with the world stopped, and how long after the request it stood still, and might run again.
struct Stop<R> {
    result: R,
    safepoint: Duration,
    until_resume: Duration,
}

/// Stops the world for `work`.
fn stopped<R>(core: &Core, work: impl FnOnce(&WorldStopped) -> R) -> Stop<R> {
    let raised = sched::set_weight(PAUSE_WEIGHT);
    let requested = Instant::now();
    core.embedder.stop_world();
    let safepoint = requested.elapsed();
    let result = work(&WorldStopped::new());
    let until_resume = requested.elapsed();
    core.embedder.resume_world(requested);
    if raised {
        let _ = sched::set_weight(0);
    }
    core.stats.safepoint.record_duration(safepoint);
    core.stats.stopped.record_duration(until_resume);
    core.stats.counters.pauses.fetch_add(1, Ordering::Relaxed);
    core.tell(|listener| listener.world_stopped(safepoint));
    Stop { result, safepoint, until_resume }
}

/// Step 7: workers build and return what is missing; whoever faults does so first.
fn concurrent_serve(core: &Core, pools: &Pools) {
    let between = || {
        pools.faults.drain(core);
        reclaim::release_drained(core);
    };
    if core.stress().is_on(StressMode::NoWorkers) {
        serve::let_mutators_serve(core, &between);
    } else {
        core.serving.run_workers(&pools.serve, core.options.workers, &|| serve::work(core, &between));
    }
    core.serving.wait_until_complete();
}

/// Nothing was worth evacuating: the barrier goes off with a handshake, and there is no pause.
fn end_without_flip(core: &Core) {
    let barrier = Core::idle_barrier(&core.options);
    core.set_barrier(barrier);
    core.handshake(&|context| {
        context.set_barrier(barrier);
        context.hand_over_records();
    });
    core.space.set_allocation_class(Class::New);
    while let Some(buffer) = core.barrier.take(crate::barrier::Recorded::Slots) {
        core.barrier.give_back(buffer);
    }
    reclaim::settle(core, &[], &[]);
    core.control.memory_freed();
    core.stats.counters.cycles_without_flip.fetch_add(1, Ordering::Relaxed);
}

fn note_plan(core: &Core, plan: &Plan, summary: &mut CycleSummary) {
    let counters = &core.stats.counters;
    if core.stress().is_on(StressMode::EvacuateAll) {
        core.stress().add(StressMode::EvacuateAll, plan.evacuated.len() as u64);
    }
    summary.marked_bytes = plan.live_bytes;
    summary.evacuated_bytes = plan.survivor_bytes;
    summary.regions_free = plan.free as u64;
    summary.regions_evacuated = plan.evacuated.len() as u64;
    counters.evacuated_bytes.fetch_add(plan.survivor_bytes, Ordering::Relaxed);
    counters.regions_free.fetch_add(plan.free as u64, Ordering::Relaxed);
    counters.regions_evacuated.fetch_add(plan.evacuated.len() as u64, Ordering::Relaxed);
}

fn note_flip(core: &Core, compacting: &Compacting, summary: &mut CycleSummary) {
    core.stats.counters.patched_slots.fetch_add(compacting.patched, Ordering::Relaxed);
    summary.slots_patched = compacting.patched;
    summary.patch_ns = nanoseconds(compacting.patch_time);
    summary.take_ns = nanoseconds(compacting.take_time);
    summary.regions_taken = compacting.taken as u64;
}

/// Sets when the next cycle starts, publishes the summary, and lets go of memory that will not be
/// needed until then.
fn finish(core: &Core, allocated_before: u64, summary: &mut CycleSummary) {
    let allocated = core.stats.counters.allocated_bytes.load(Ordering::Relaxed) - allocated_before;
    let used = core.space.used();
    core.space.tighten_limit();
    core.space.end_cycle();
    let wanted = core.control.wanted_by_mutators(allocated as usize / REGION_BYTES);
    let expected = core.generations.ended(
        &core.options,
        &core.space,
        summary.extent,
        allocated as usize / REGION_BYTES,
        wanted,
    );
    core.control.set_trigger(core.space.limit(), used, expected);
    if !core.space.holds_memory {
        core.space.trim(core.control.trigger_regions().max(used) + 2);
    }
    summary.used_after_bytes = (used * REGION_BYTES) as u64;
    summary.allocated_bytes = allocated;
    summary.peak_resident_bytes = (core.space.account.cycle_peak_pages() * PAGE_BYTES) as u64;
    core.stats.record_cycle(summary);
    core.tell(|listener| listener.cycle_ended(summary));
}

/// Runs a check in a stop of its own, if there is anything to be checked.
fn verify_stopped(core: &Core, check: impl FnOnce()) {
    if core.options.verify != VerifyLevel::Off {
        phase(core, Phase::Verify, || verify::while_stopped(core, check));
    }
}

/// Runs a phase: events and its duration.
fn phase<R>(core: &Core, phase: Phase, work: impl FnOnce() -> R) -> R {
    core.tell(|listener| listener.phase_started(phase));
    let start = Instant::now();
    let result = work();
    let duration = start.elapsed();
    core.stats.record_phase(phase, duration);
    core.tell(|listener| listener.phase_ended(phase, duration));
    result
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
