//! Forced answers: a [`PageService`] around another that, now and then, gives an answer that the kernel gives
//! rarely.
//!
//! Every forced answer is one that the kernel could have given, and is true: of a request answered *in part*, a
//! part was done; a page that *exists* is there; after `EAGAIN`, `EBUSY` and `ENOMEM` nothing was done.
//! They are drawn from a seed, and counted ([`crate::stats::Statistics::forced`]).
//!
//! Called where the service below is: in signal handlers too, so it neither allocates nor locks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::schedule::Schedule;
use super::{Install, PageService};
use crate::address::{FromAddress, ToAddress};
use crate::geometry::PAGE_BYTES;
use crate::options::ForcedAnswers;
use crate::stats::{KernelAnswer, KernelCall, Statistics};

/// The service that forces answers.
#[derive(Debug)]
pub struct Forcing {
    inner: Arc<dyn PageService>,
    answers: ForcedAnswers,
    stats: Arc<Statistics>,
    /// Requests so far.
    requests: AtomicU64,
    /// MOVEs so far.
    moves: AtomicU64,
    /// Registrations before a flip so far.
    registrations: AtomicU64,
}

/// A request to install, without its kind.
#[derive(Copy, Clone)]
struct Request {
    to: ToAddress,
    from: FromAddress,
    bytes: usize,
}

impl Forcing {
    /// Around `inner`, counting in `stats`.
    #[must_use]
    pub const fn new(inner: Arc<dyn PageService>, answers: ForcedAnswers, stats: Arc<Statistics>) -> Self {
        let (requests, moves, registrations) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { inner, answers, stats, requests, moves, registrations }
    }

    /// What to force on this request, if anything, and a random number to go with it.
    fn draw(&self, call: KernelCall) -> Option<(KernelAnswer, u64)> {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed);
        let random = mix(self.answers.seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if call == KernelCall::Move {
            let after = self.answers.refuse_moves_after;
            if after.is_some_and(|after| self.moves.fetch_add(1, Ordering::Relaxed) >= after) {
                // A kernel that does not move pages says one or the other, always.
                let refused = [KernelAnswer::Invalid, KernelAnswer::Missing][self.answers.seed as usize % 2];
                return Some((refused, random));
            }
        }
        if random % 1000 >= u64::from(self.answers.per_mille) {
            return None;
        }
        let random = random / 1000;
        let common =
            [KernelAnswer::Partial, KernelAnswer::Exists, KernelAnswer::Again, KernelAnswer::NoMemory];
        let busy = call == KernelCall::Move && random.is_multiple_of(3);
        let answer = if busy { KernelAnswer::Busy } else { common[(random / 3 % 4) as usize] };
        Some((answer, random / 12))
    }

    /// Makes the request by `perform`, or part of it, or nothing.
    fn force(
        &self,
        call: KernelCall,
        request: Request,
        perform: impl Fn(Request) -> Install,
        one_page: impl Fn(Request) -> Install,
    ) -> Install {
        let Some((forced, random)) = self.draw(call) else { return perform(request) };
        let pages = request.bytes / PAGE_BYTES;
        let answer = match forced {
            KernelAnswer::Partial if pages > 1 => {
                let bytes = (1 + random as usize % (pages - 1)) * PAGE_BYTES;
                match perform(Request { bytes, ..request }) {
                    Install::Done => Install::Partial { bytes },
                    other => return other,
                }
            }
            KernelAnswer::Partial => return perform(request),
            // Somebody else was faster.
            KernelAnswer::Exists => match one_page(Request { bytes: PAGE_BYTES, ..request }) {
                Install::Done => Install::Exists,
                other => return other,
            },
            KernelAnswer::Busy => Install::Busy,
            KernelAnswer::NoMemory => Install::NoMemory,
            KernelAnswer::Invalid => Install::Invalid,
            KernelAnswer::Missing => Install::Missing,
            _ => Install::Again,
        };
        self.stats.forced.count(call, forced);
        answer
    }
}

/// The output function of `SplitMix64`.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl PageService for Forcing {
    fn register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.inner.register(start, bytes)
    }

    fn try_register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        let nth = self.registrations.fetch_add(1, Ordering::Relaxed);
        if mix(self.answers.seed ^ mix(nth)) % 1000 < u64::from(self.answers.refuse_registrations) {
            self.stats.forced.count(KernelCall::Register, KernelAnswer::NoMemory);
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.inner.try_register(start, bytes)
    }

    fn unregister(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.inner.unregister(start, bytes)
    }

    fn copy(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        let copy = |request: Request| self.inner.copy(request.to, request.from, request.bytes);
        self.force(KernelCall::Copy, Request { to, from, bytes }, copy, copy)
    }

    fn zero(&self, to: ToAddress, bytes: usize) -> Install {
        let zero = |request: Request| self.inner.zero(request.to, request.bytes);
        let from = FromAddress::new(to.get());
        self.force(KernelCall::Zeropage, Request { to, from, bytes }, zero, zero)
    }

    fn move_pages(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        let moved = |request: Request| self.inner.move_pages(request.to, request.from, request.bytes);
        // Whoever was faster has copied the page: it is still at the source.
        let copy = |request: Request| self.inner.copy(request.to, request.from, request.bytes);
        self.force(KernelCall::Move, Request { to, from, bytes }, moved, copy)
    }

    fn wake(&self, start: ToAddress, bytes: usize) {
        self.inner.wake(start, bytes);
    }

    fn schedule(&self) -> Option<&dyn Schedule> {
        self.inner.schedule()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A kernel that does what it is asked to, and notes how many bytes.
    #[derive(Debug, Default)]
    struct Obliging(Mutex<usize>);

    impl Obliging {
        fn done(&self, bytes: usize) -> Install {
            *self.0.lock().unwrap() += bytes;
            Install::Done
        }
    }

    impl PageService for Obliging {
        fn register(&self, _start: ToAddress, _bytes: usize) -> io::Result<()> {
            Ok(())
        }
        fn unregister(&self, _start: ToAddress, _bytes: usize) -> io::Result<()> {
            Ok(())
        }
        fn copy(&self, _to: ToAddress, _from: FromAddress, bytes: usize) -> Install {
            self.done(bytes)
        }
        fn zero(&self, _to: ToAddress, bytes: usize) -> Install {
            self.done(bytes)
        }
        fn move_pages(&self, _to: ToAddress, _from: FromAddress, bytes: usize) -> Install {
            self.done(bytes)
        }
        fn wake(&self, _start: ToAddress, _bytes: usize) {}
    }

    fn forcing(answers: ForcedAnswers) -> (Arc<Obliging>, Forcing) {
        let kernel = Arc::new(Obliging::default());
        (kernel.clone(), Forcing::new(kernel, answers, Arc::default()))
    }

    #[test]
    fn what_is_said_to_be_done_was_done() {
        let (kernel, forcing) =
            forcing(ForcedAnswers { seed: 5, per_mille: 900, ..ForcedAnswers::default() });
        let (to, from, bytes) = (ToAddress::new(0), FromAddress::new(0), 32 * PAGE_BYTES);
        let mut forced = 0;
        for nth in 0..3000 {
            let answer = match nth % 3 {
                0 => forcing.copy(to, from, bytes),
                1 => forcing.zero(to, bytes),
                _ => forcing.move_pages(to, from, bytes),
            };
            let expected = match answer {
                Install::Done => bytes,
                Install::Partial { bytes: part } if part > 0 && part < bytes => part,
                Install::Exists => PAGE_BYTES,
                Install::Again | Install::NoMemory => 0,
                Install::Busy if nth % 3 == 2 => 0,
                other => panic!("{other:?} is never an answer to this"),
            };
            forced += u64::from(answer != Install::Done);
            assert_eq!(std::mem::take(&mut *kernel.0.lock().unwrap()), expected, "{answer:?}");
        }
        assert!((2400..3000).contains(&forced), "{forced} of 3000, at 900 of 1000");
        assert_eq!(forcing.stats.forced.total(), forced);
    }

    #[test]
    fn moves_are_refused_from_one_on() {
        for (seed, refused) in [(4, Install::Invalid), (5, Install::Missing)] {
            let (_, forcing) =
                forcing(ForcedAnswers { seed, refuse_moves_after: Some(2), ..ForcedAnswers::default() });
            let (to, from) = (ToAddress::new(0), FromAddress::new(0));
            let answers = [0; 4].map(|_| forcing.move_pages(to, from, PAGE_BYTES));
            assert_eq!(answers, [Install::Done, Install::Done, refused, refused]);
            assert_eq!(forcing.copy(to, from, PAGE_BYTES), Install::Done);
        }
    }

    #[test]
    fn only_registrations_that_the_caller_can_do_without_are_refused() {
        let answers = ForcedAnswers { seed: 5, refuse_registrations: 500, ..ForcedAnswers::default() };
        let (_, forcing) = forcing(answers);
        let window = ToAddress::new(0);
        assert!((0..100).all(|_| forcing.register(window, PAGE_BYTES).is_ok()));
        let refused = (0..1000).filter(|_| forcing.try_register(window, PAGE_BYTES).is_err()).count();
        assert!((400..600).contains(&refused), "{refused} of 1000");
        assert_eq!(forcing.stats.forced.total(), refused as u64);
    }
}
