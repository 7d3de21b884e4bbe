//! The protocol of safepoints, for any kind of context: what [`super`] uses, and what models check.
//!
//! Run by mutators (at safepoints, around blocked regions, when they attach and detach) and by the
//! controller.
//!
//! A mutator's *word* (`Member::word`) is both its state and what is asked of it, so that each
//! transition is one atomic operation and a poll is one relaxed load: the word is 0 exactly if the
//! mutator is running and nothing is asked. Whoever moves the word out of a state owns the mutator's
//! context in the next one.
//!
//! | from | to | by | when | ordering |
//! |---|---|---|---|---|
//! | running | running+handshake | controller | handshake | Release (the action) |
//! | running | running+stop | controller | stop | Release |
//! | running+handshake | running | mutator | poll, after it ran the action | Relaxed |
//! | running | blocked | mutator | begins to block | Release |
//! | running+stop | claimed+waiting | mutator | poll | Relaxed |
//! | running+stop | claimed | mutator | begins to block | Relaxed |
//! | blocked | running | mutator | ends to block | Acquire |
//! | blocked | claimed | controller | handshake on its behalf, or stop | Acquire |
//! | claimed | claimed+waiting | mutator | ends to block, must wait | Relaxed |
//! | claimed (+waiting) | blocked (+resuming) | controller | action done, or resume | Release |
//! | blocked+resuming | running | mutator | woken; counts itself as resumed | Acquire |
//!
//! Every Release of one side pairs with the Acquire of the other on the same word. Where a mutator
//! arrives by itself (a stop, or an action that it ran), [`Registry::arrive`] carries the Release, and
//! the controller's wait for `pending` the Acquire.
//!
//! Invariants:
//! - requests (handshake, stop) are only added to *running* members, under the registry's lock, and
//!   answered by the mutator itself: a mutator that holds the lock and finds its word 0 can leave;
//! - the controller is one thread: a handshake or stop ends before the next begins;
//! - nobody waits for another mutator's action while holding the lock.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::park;
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::sync::{Condvar, Futex, Mutex, MutexGuard};
use crate::watchdog::{LateMutator, Watchdog};

/// Low two bits: the state.
const STATE: u32 = 0b11;
const RUNNING: u32 = 0;
const BLOCKED: u32 = 1;
/// Blocked or stopped, and the controller may use the context.
const CLAIMED: u32 = 2;
/// The controller asks a running mutator to run the handshake's action.
const HANDSHAKE: u32 = 1 << 2;
/// The controller asks a running mutator to stop.
const STOP: u32 = 1 << 3;
/// The mutator wants to run, and waits on the word.
const WAITING: u32 = 1 << 4;
/// The mutator waited when the world was resumed: the pause is not over before it runs.
const RESUMING: u32 = 1 << 5;

/// What a mutator brings along: a context that the protocol gives to one owner after the other, and things of its
/// own.
///
/// # Safety
/// What can be reached by a shared reference is `Sync`, or part of the context, or used by the mutator's own
/// thread only.
pub(crate) unsafe trait Party: Sized + 'static {
    /// What a handshake's action is given.
    type Context;
    /// What a registry of such parties keeps.
    type Host;

    /// The context.
    fn context(&self) -> &Self::Context;

    /// This mutator was the last to run again after the pause that was requested then.
    fn pause_ended(&self, requested: Instant);

    /// The same, but the controller was the last.
    fn controller_pause_ended(host: &Self::Host, requested: Instant);
}

/// A mutator as its heap's registry knows it: its state, and what it brings along.
pub(crate) struct Member<P: Party> {
    word: Futex,
    party: P,
    pub(super) registry: Arc<Registry<P>>,
    thread: ThreadId,
    name: Option<String>,
}

// SAFETY: the context is used by whoever owns it by the table above; else `Party`'s contract holds.
unsafe impl<P: Party> Send for Member<P> {}
// SAFETY: as above.
unsafe impl<P: Party> Sync for Member<P> {}

impl<P: Party> fmt::Debug for Member<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("thread", &self.thread)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<P: Party> Deref for Member<P> {
    type Target = P;

    #[inline]
    fn deref(&self) -> &P {
        &self.party
    }
}

impl<P: Party> Member<P> {
    /// Whether the mutator is running.
    pub(super) fn is_running(&self) -> bool {
        self.word.load(Ordering::Relaxed) & STATE == RUNNING
    }

    /// A safepoint.
    #[inline]
    pub(crate) fn poll(&self) {
        // Relaxed: only a hint. `answer` looks again with Acquire.
        if self.word.load(Ordering::Relaxed) != RUNNING {
            self.answer();
        }
    }

    /// Does what is asked of the running mutator.
    #[cold]
    #[inline(never)]
    fn answer(&self) {
        loop {
            // Acquire: pairs with the Release with which `handshake` adds the request.
            let word = self.word.load(Ordering::Acquire);
            if word & HANDSHAKE != 0 {
                self.run_action();
            } else if word & STOP != 0 {
                // Relaxed: `arrive` carries the Release.
                if self.try_move(word, CLAIMED | WAITING, Ordering::Relaxed) {
                    self.registry.arrive();
                    self.wait_to_run();
                }
            } else {
                return;
            }
        }
    }

    /// Begins a blocked region: gives the context up. Also a safepoint.
    #[inline]
    pub(crate) fn begin_blocked(&self) {
        // Release: pairs with the Acquire of the controller's claim.
        if !self.try_move(RUNNING, BLOCKED, Ordering::Release) {
            self.begin_blocked_asked();
        }
    }

    #[cold]
    fn begin_blocked_asked(&self) {
        loop {
            // Acquire: as in `answer`.
            let word = self.word.load(Ordering::Acquire);
            if word & HANDSHAKE != 0 {
                self.run_action();
            } else if word & STOP != 0 {
                // Relaxed: as in `answer`. Counts as stopped, and need not wait to go on blocking.
                if self.try_move(word, CLAIMED, Ordering::Relaxed) {
                    self.registry.arrive();
                    return;
                }
            // Relaxed: `arrive` carried the Release, after the action that brought this thread here.
            } else if self.try_move(RUNNING, BLOCKED, Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Ends a blocked region: takes the context back, and waits while the controller has it.
    #[inline]
    pub(crate) fn end_blocked(&self) {
        // Acquire: pairs with the Release with which the controller gives the context back.
        if !self.try_move(BLOCKED, RUNNING, Ordering::Acquire) {
            self.wait_to_run();
        }
    }

    #[cold]
    fn wait_to_run(&self) {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & STATE == BLOCKED {
                // Acquire: as in `end_blocked`.
                if self.try_move(word, RUNNING, Ordering::Acquire) {
                    if word & RESUMING != 0 {
                        self.registry.resumed(|requested| self.party.pause_ended(requested));
                    }
                    return;
                }
            } else if word & WAITING != 0 || self.try_move(word, word | WAITING, Ordering::Relaxed) {
                park::wait(&self.word, word | WAITING, None);
            }
        }
    }

    /// Runs the handshake's action, which was asked for, and reports that it is done.
    fn run_action(&self) {
        struct Done<'a, P: Party>(&'a Member<P>);
        impl<P: Party> Drop for Done<'_, P> {
            // A guard, so that a panic in the action cannot leave the controller waiting for ever.
            fn drop(&mut self) {
                self.0.word.fetch_and(!HANDSHAKE, Ordering::Relaxed);
                self.0.registry.arrive();
            }
        }
        let _done = Done(self);
        let action = self.registry.action.load(Ordering::Relaxed);
        // SAFETY: `handshake` stored the pointer before the request that was seen with Acquire, and
        // keeps what it points at alive until all have arrived; the guard above arrives after this.
        let action = unsafe { action.as_ref() }.expect("the action is there before the request");
        (action.0)(self.party.context());
    }

    #[inline]
    #[cfg_attr(loom, track_caller)]
    fn try_move(&self, from: u32, to: u32, success: Ordering) -> bool {
        self.word.compare_exchange(from, to, success, Ordering::Relaxed).is_ok()
    }

    /// Adds a request if the mutator is running, claims it if it is blocked: returns whether it is
    /// claimed. Run by the controller, with the registry's lock.
    fn ask_or_claim(&self, request: u32) -> bool {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & STATE == RUNNING {
                // Release: pairs with the Acquire in `answer`: the action is stored before.
                if self.try_move(word, word | request, Ordering::Release) {
                    return false;
                }
            // Acquire: pairs with the Release of `begin_blocked`.
            } else if self.try_move(word, CLAIMED, Ordering::Acquire) {
                if word & RESUMING != 0 {
                    // Stopped again before it ran: the last pause's end is not later than this.
                    self.registry.resumed(|requested| self.party.pause_ended(requested));
                }
                return true;
            }
        }
    }

    /// Gives a claimed member back, as blocked. Returns whether the mutator waits to run.
    fn give_back(&self, with: u32) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let waits = word & WAITING != 0;
            let to = if waits { BLOCKED | with } else { BLOCKED };
            // Release: pairs with the Acquire of `end_blocked` and `wait_to_run`.
            match self.word.compare_exchange_weak(word, to, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return waits,
                Err(now) => word = now,
            }
        }
    }

    fn late(&self, waited: Duration) -> Option<LateMutator> {
        let word = self.word.load(Ordering::Relaxed);
        (word & (HANDSHAKE | STOP) != 0).then(|| LateMutator {
            thread: self.thread,
            name: self.name.clone(),
            waited,
        })
    }
}

/// A handshake's action. Lives in `handshake`'s frame.
struct Action<'a, C>(&'a (dyn Fn(&C) + Sync));

struct Members<P: Party> {
    list: Vec<Arc<Member<P>>>,
    /// From the request of a stop to the end of `resume_world`.
    stopping: bool,
}

/// A heap's mutators.
pub(crate) struct Registry<P: Party> {
    members: Mutex<Members<P>>,
    /// Signalled when `stopping` ends.
    not_stopping: Condvar,
    /// How many mutators have yet to arrive. The controller parks on it.
    pending: Futex,
    action: AtomicPtr<Action<'static, P::Context>>,
    /// How many mutators have yet to run again before the last pause is over, and its beginning.
    resuming: AtomicUsize,
    requested: Mutex<Option<Instant>>,
    pub(super) watchdog: Watchdog,
    pub(super) host: P::Host,
}

impl<P: Party> fmt::Debug for Registry<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("members", &lock(&self.members).list).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Party> Registry<P> {
    /// Without members yet.
    pub(super) fn with_host(host: P::Host, watchdog: Duration) -> Self {
        Self {
            members: Mutex::new(Members { list: vec![], stopping: false }),
            not_stopping: Condvar::new(),
            pending: Futex::new(0),
            action: AtomicPtr::default(),
            resuming: AtomicUsize::new(0),
            requested: Mutex::new(None),
            watchdog: Watchdog::new(watchdog),
            host,
        }
    }

    /// How many members there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.members).list.len()
    }

    fn lock_not_stopped(&self) -> MutexGuard<'_, Members<P>> {
        let mut members = lock(&self.members);
        while members.stopping {
            members = self.not_stopping.wait(members).unwrap_or_else(PoisonError::into_inner);
        }
        members
    }

    /// Runs `action` while the world is not stopped, nor can be. For threads that are no running
    /// mutators.
    pub(crate) fn while_not_stopped(&self, action: impl FnOnce()) {
        let members = self.lock_not_stopped();
        action();
        drop(members);
    }

    /// Adds the calling thread, as a running mutator. `make` runs under the lock that excludes handshakes and
    /// stops.
    pub(super) fn enter(self: &Arc<Self>, make: impl FnOnce() -> P) -> Arc<Member<P>> {
        let thread = std::thread::current();
        let mut members = self.lock_not_stopped();
        let member = Arc::new(Member {
            word: Futex::new(RUNNING),
            party: make(),
            registry: Arc::clone(self),
            thread: thread.id(),
            name: thread.name().map(str::to_owned),
        });
        members.list.push(Arc::clone(&member));
        member
    }

    /// Removes the calling thread's running mutator, after `leave`, which runs under the same lock.
    pub(super) fn leave(&self, member: &Arc<Member<P>>, leave: impl FnOnce()) {
        loop {
            member.poll();
            let mut members = lock(&self.members);
            // Requests are added under the lock: if there is none now, there will be none. Relaxed: it was
            // this thread that made it running.
            if member.word.load(Ordering::Relaxed) == RUNNING {
                leave();
                members.list.retain(|other| !Arc::ptr_eq(other, member));
                return;
            }
        }
    }

    /// A mutator did what it was asked.
    fn arrive(&self) {
        // Release: pairs with the Acquire in `wait_for_pending`.
        if self.pending.fetch_sub(1, Ordering::Release) == 1 {
            self.pending.wake_all();
        }
    }

    /// A mutator that waited when the world was resumed runs again.
    fn resumed(&self, report: impl FnOnce(Instant)) {
        // Relaxed: the count was set before the words that brought threads here, and the time has its lock.
        if self.resuming.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        // The next stop cannot be resumed before this thread reaches a safepoint, or is the
        // controller itself: the time is still that of the pause that ends here.
        let requested = lock(&self.requested).take();
        if let Some(requested) = requested {
            report(requested);
        }
    }

    fn wait_for_pending(&self, members: &[Arc<Member<P>>]) {
        let begin = Instant::now();
        let mut alarm = self.watchdog.period();
        loop {
            // Acquire: pairs with the Release in `arrive`, of all that arrived.
            let pending = self.pending.load(Ordering::Acquire);
            if pending == 0 {
                return;
            }
            park::wait(&self.pending, pending, alarm.map(|alarm| alarm.saturating_sub(begin.elapsed())));
            if alarm.is_some_and(|alarm| begin.elapsed() >= alarm) {
                alarm = None; // Once for each request is enough.
                members.iter().filter_map(|member| member.late(begin.elapsed())).for_each(|late| {
                    self.watchdog.report(&late);
                });
            }
        }
    }

    /// Runs `action` once on each member's context.
    pub(super) fn handshake(&self, action: &(dyn Fn(&P::Context) + Sync)) {
        let action = Action(action);
        self.action.store(std::ptr::from_ref(&action).cast_mut().cast(), Ordering::Relaxed);
        let members = lock(&self.members);
        let list = members.list.clone();
        self.pending.store(list.len().try_into().expect("fewer threads"), Ordering::Relaxed);
        // First those that run, so that they get to it while this thread serves the others.
        let (claimed, _) = list.iter().partition::<Vec<_>, _>(|member| member.ask_or_claim(HANDSHAKE));
        for member in claimed {
            (action.0)(member.party.context());
            if member.give_back(0) {
                member.word.wake_all();
            }
            self.arrive();
        }
        drop(members);
        self.wait_for_pending(&list);
    }

    /// Returns when no member is running.
    pub(super) fn stop_world(&self) {
        let mut members = lock(&self.members);
        members.stopping = true;
        let list = members.list.clone();
        self.pending.store(list.len().try_into().expect("fewer threads"), Ordering::Relaxed);
        for member in &list {
            if member.ask_or_claim(STOP) {
                self.arrive();
            }
        }
        drop(members);
        self.wait_for_pending(&list);
    }

    /// Runs `action` on each context, while the world is stopped.
    pub(super) fn for_each_stopped(&self, action: &mut dyn FnMut(&P::Context)) {
        lock(&self.members).list.iter().for_each(|member| action(member.party.context()));
    }

    /// Lets members run again.
    pub(super) fn resume_world(&self, requested: Instant) {
        let mut members = lock(&self.members);
        *lock(&self.requested) = Some(requested);
        // Each member, and this thread, so that nobody is the last before all are counted. Relaxed: the
        // Release in `give_back` comes after it.
        self.resuming.store(members.list.len() + 1, Ordering::Relaxed);
        let mut not_waiting = 1;
        for member in &members.list {
            if member.give_back(RESUMING) {
                member.word.wake_all();
            } else {
                not_waiting += 1;
            }
        }
        members.stopping = false;
        drop(members);
        self.not_stopping.notify_all();
        for _ in 0..not_waiting {
            self.resumed(|requested| P::controller_pause_ended(&self.host, requested));
        }
    }
}
