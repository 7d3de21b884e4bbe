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
        Self { inner, answers, stats, requests: AtomicU64::new(0), moves: AtomicU64::new(0) }
    }

    /// What to force on this request, if anything, and a random number to go with it.
    fn draw(&self, call: KernelCall) -> Option<(KernelAnswer, u64)> {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed);
        let random = mix(self.answers.seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if call == KernelCall::Move {
            let after = self.answers.refuse_moves_after;
            if after.is_some_and(|after| self.moves.fetch_add(1, Ordering::Relaxed) >= after) {
                return Some((KernelAnswer::Invalid, random));
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
            _ => Install::Again,
        };
        self.stats.forced.count(call, forced);
        answer
    }
}

/// The output function of `SplitMix64`.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl PageService for Forcing {
    fn register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.inner.register(start, bytes)
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
