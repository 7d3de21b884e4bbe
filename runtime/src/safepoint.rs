//! Safepoints: how mutators are handshaken with, stopped and resumed.
//!
//! A mutator's *word* ([`Member::word`]) is both its state and what is asked of it, so that each
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
//! | running+stop | claimed+waiting | mutator | poll | Release |
//! | running+stop | claimed | mutator | begins to block | Release |
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

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use strikeslip_gc::address::HeapRange;
use strikeslip_gc::context::MutatorContext;
use strikeslip_gc::embedder::Embedder;
use strikeslip_gc::heap::Heap as GcHeap;
use strikeslip_gc::roots::RootSpace;

use crate::handle::HandleStack;
use crate::park;
use crate::watchdog::{LateMutator, Watchdog};

#[cfg(test)]
mod tests;

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

/// A mutator as its heap's registry knows it: its state, its context, its handles.
pub(crate) struct Member {
    word: AtomicU32,
    range: HeapRange,
    context: MutatorContext,
    /// Used by the mutator's own thread only.
    pub(crate) handles: HandleStack,
    gc: GcHeap,
    registry: Arc<Registry>,
    thread: ThreadId,
    name: Option<String>,
}

// SAFETY: the context is used by whoever owns it by the table above; the handle stack by the
// mutator's own thread; the rest is Sync.
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("thread", &self.thread)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// The context, for the owner of the member (by the table above).
    #[inline]
    pub(crate) fn context(&self) -> &MutatorContext {
        &self.context
    }

    #[inline]
    pub(crate) fn roots(&self) -> &RootSpace {
        self.gc.roots()
    }

    #[inline]
    pub(crate) fn gc(&self) -> &GcHeap {
        &self.gc
    }

    /// Panics if `address` is not in the member's heap.
    #[inline]
    pub(crate) fn check_address(&self, address: usize, what: &str) {
        if !self.range.contains(address) {
            not_in_this_heap(what);
        }
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
                // Release: pairs, by way of `arrive`, with the controller's Acquire of `pending`.
                if self.try_move(word, CLAIMED | WAITING, Ordering::Release) {
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
                // Release: as in `answer`. Counts as stopped, and need not wait to go on blocking.
                if self.try_move(word, CLAIMED, Ordering::Release) {
                    self.registry.arrive();
                    return;
                }
            } else if self.try_move(RUNNING, BLOCKED, Ordering::Release) {
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
                        self.registry.resumed(|requested| self.gc.pause_ended(requested));
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
        struct Done<'a>(&'a Member);
        impl Drop for Done<'_> {
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
        let action = unsafe { &*action };
        (action.0)(&self.context);
    }

    #[inline]
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
                    self.registry.resumed(|requested| self.gc.pause_ended(requested));
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

#[cold]
#[inline(never)]
fn not_in_this_heap(what: &str) -> ! {
    panic!("{what} is not in this mutator's heap");
}

/// A handshake's action. Lives in `handshake`'s frame.
struct Action<'a>(&'a (dyn Fn(&MutatorContext) + Sync));

#[derive(Debug, Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// From the request of a stop to the end of `resume_world`.
    stopping: bool,
}

/// A heap's mutators: the embedder's side of the collector's seam.
pub(crate) struct Registry {
    members: Mutex<Members>,
    /// Signalled when `stopping` ends.
    not_stopping: Condvar,
    /// How many mutators have yet to arrive. The controller parks on it.
    pending: AtomicU32,
    action: AtomicPtr<Action<'static>>,
    /// How many mutators have yet to run again before the last pause is over, and its beginning.
    resuming: AtomicUsize,
    requested: Mutex<Option<Instant>>,
    watchdog: Watchdog,
    /// For the controller's own report of a pause. Taken out by the last [`crate::Heap`], for the
    /// collector's heap owns this registry.
    gc: Mutex<Option<GcHeap>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("members", &self.members).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    pub(crate) fn new(watchdog: Duration) -> Self {
        Self {
            members: Mutex::default(),
            not_stopping: Condvar::new(),
            pending: AtomicU32::new(0),
            action: AtomicPtr::default(),
            resuming: AtomicUsize::new(0),
            requested: Mutex::default(),
            watchdog: Watchdog::new(watchdog),
            gc: Mutex::default(),
        }
    }

    pub(crate) fn set_gc(&self, gc: Option<GcHeap>) {
        let old = std::mem::replace(&mut *lock(&self.gc), gc);
        drop(old); // After the lock is free: it may wait for the controller to finish.
    }

    pub(crate) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    fn lock_not_stopped(&self) -> MutexGuard<'_, Members> {
        let members = lock(&self.members);
        self.not_stopping
            .wait_while(members, |members| members.stopping)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `action` while the world is not stopped, nor can be. For threads that are no running
    /// mutators.
    pub(crate) fn while_not_stopped(&self, action: impl FnOnce()) {
        let members = self.lock_not_stopped();
        action();
        drop(members);
    }

    /// Attaches the calling thread, as a running mutator.
    pub(crate) fn attach(self: &Arc<Self>, gc: &GcHeap, handles: HandleStack) -> Arc<Member> {
        let thread = std::thread::current();
        let mut members = self.lock_not_stopped();
        let member = Arc::new(Member {
            word: AtomicU32::new(RUNNING),
            range: gc.range(),
            context: gc.attach(),
            handles,
            gc: gc.clone(),
            registry: Arc::clone(self),
            thread: thread.id(),
            name: thread.name().map(str::to_owned),
        });
        members.list.push(Arc::clone(&member));
        drop(members);
        ATTACHED.with_borrow_mut(|attached| attached.push(Arc::clone(&member)));
        member
    }

    /// Detaches the calling thread's running mutator.
    pub(crate) fn detach(&self, member: &Arc<Member>) {
        member.handles.release(member.roots());
        loop {
            member.poll();
            let mut members = lock(&self.members);
            // Requests are added under the lock: if there is none now, there will be none. Acquire,
            // as in `answer`.
            if member.word.load(Ordering::Acquire) == RUNNING {
                member.gc.detach(&member.context);
                members.list.retain(|other| !Arc::ptr_eq(other, member));
                break;
            }
        }
        ATTACHED.with_borrow_mut(|attached| attached.retain(|other| !Arc::ptr_eq(other, member)));
    }

    /// A mutator did what it was asked.
    fn arrive(&self) {
        // Release: pairs with the Acquire in `wait_for_pending`.
        if self.pending.fetch_sub(1, Ordering::Release) == 1 {
            park::wake_all(&self.pending);
        }
    }

    /// A mutator that waited when the world was resumed runs again.
    fn resumed(&self, report: impl FnOnce(Instant)) {
        // AcqRel: pairs with itself and with the Release in `resume_world`: the last one sees the
        // time of the request.
        if self.resuming.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // The next stop cannot be resumed before this thread reaches a safepoint, or is the
        // controller itself: the time is still that of the pause that ends here.
        let requested = lock(&self.requested).take();
        if let Some(requested) = requested {
            report(requested);
        }
    }

    fn wait_for_pending(&self, members: &[Arc<Member>]) {
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
}

// SAFETY: by the points of the trait's contract:
// 1. `Mutator` gives access to heap and context to its own thread, by borrows that end before it
//    blocks or reaches a safepoint (see `mutator`).
// 2. A `Gc` borrows the mutator; what outlives a safepoint is a `Local` or `Persistent`: a root slot.
// 3. `stop_world` returns when every member is claimed; a claimed member runs again only after
//    `give_back`, and no thread attaches meanwhile (`stopping`).
// 4. By the orderings in the table above.
unsafe impl Embedder for Registry {
    fn handshake(&self, action: &(dyn Fn(&MutatorContext) + Sync)) {
        let action = Action(action);
        self.action.store(std::ptr::from_ref(&action).cast_mut().cast(), Ordering::Relaxed);
        let members = lock(&self.members);
        let list = members.list.clone();
        self.pending.store(list.len().try_into().expect("fewer threads"), Ordering::Relaxed);
        // First those that run, so that they get to it while this thread serves the others.
        let (claimed, _) = list.iter().partition::<Vec<_>, _>(|member| member.ask_or_claim(HANDSHAKE));
        for member in claimed {
            (action.0)(&member.context);
            if member.give_back(0) {
                park::wake_all(&member.word);
            }
            self.arrive();
        }
        drop(members);
        self.wait_for_pending(&list);
    }

    fn stop_world(&self) {
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

    fn for_each_stopped(&self, action: &mut dyn FnMut(&MutatorContext)) {
        lock(&self.members).list.iter().for_each(|member| action(&member.context));
    }

    fn resume_world(&self, requested: Instant) {
        let mut members = lock(&self.members);
        *lock(&self.requested) = Some(requested);
        // Each member, and this thread, so that nobody is the last before all are counted. Release:
        // pairs with the AcqRel in `resumed`.
        self.resuming.store(members.list.len() + 1, Ordering::Release);
        let mut not_waiting = 1;
        for member in &members.list {
            if member.give_back(RESUMING) {
                park::wake_all(&member.word);
            } else {
                not_waiting += 1;
            }
        }
        members.stopping = false;
        drop(members);
        self.not_stopping.notify_all();
        for _ in 0..not_waiting {
            self.resumed(|requested| {
                if let Some(gc) = &*lock(&self.gc) {
                    gc.pause_ended(requested);
                }
            });
        }
    }
}

thread_local! {
    /// The calling thread's mutators, of all heaps.
    static ATTACHED: RefCell<Vec<Arc<Member>>> = const { RefCell::new(Vec::new()) };
}

fn with_member<R>(registry: &Arc<Registry>, look: impl FnOnce(&Member) -> R) -> Option<R> {
    // A thread that ends (`try_with` fails) is not attached any more.
    ATTACHED
        .try_with(|attached| {
            attached
                .borrow()
                .iter()
                .find(|member| Arc::ptr_eq(&member.registry, registry))
                .map(|member| look(member))
        })
        .ok()
        .flatten()
}

/// Whether the calling thread is attached to the heap.
pub(crate) fn is_attached(registry: &Arc<Registry>) -> bool {
    with_member(registry, |_| ()).is_some()
}

/// Whether the calling thread is attached to the heap, as a running mutator.
pub(crate) fn is_running(registry: &Arc<Registry>) -> bool {
    with_member(registry, |member| member.word.load(Ordering::Relaxed) & STATE == RUNNING) == Some(true)
}
