//! Observed page operations: a [`PageService`] around another that tells a [`PageObserver`] of each call, before
//! and after. For experiments ([`crate::options::HeapOptions::observer`]); without an observer it is not there.
//!
//! Called where the service below is: in signal handlers too. Invariant: between an operation's beginning and its
//! end, a thread begins no other one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::schedule::Schedule;
use super::{Install, PageService};
use crate::address::{FromAddress, ToAddress};
use crate::stats::KernelCall;

/// Is told of each page operation of a heap's.
///
/// The methods run in signal handlers, on the thread that makes the call: they neither allocate nor take a lock
/// that what they interrupt could hold, and leave `errno` as it was.
pub trait PageObserver: Send + Sync + fmt::Debug {
    /// An operation is about to be asked for. What this returns comes back at its end.
    fn operation_begins(&self, _call: KernelCall) -> u64 {
        0
    }
    /// It was answered, so long after [`Self::operation_begins`] was called, which returned `note`.
    fn operation_ended(&self, _call: KernelCall, _note: u64, _took: Duration) {}
}

/// The service that is observed.
#[derive(Debug)]
pub struct Observed {
    inner: Arc<dyn PageService>,
    observer: Arc<dyn PageObserver>,
}

impl Observed {
    /// Around `inner`.
    #[must_use]
    pub const fn new(inner: Arc<dyn PageService>, observer: Arc<dyn PageObserver>) -> Self {
        Self { inner, observer }
    }

    fn observe<R>(&self, call: KernelCall, operation: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let note = self.observer.operation_begins(call);
        let answer = operation();
        self.observer.operation_ended(call, note, begin.elapsed());
        answer
    }
}

impl PageService for Observed {
    fn register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.observe(KernelCall::Register, || self.inner.register(start, bytes))
    }

    fn try_register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.observe(KernelCall::Register, || self.inner.try_register(start, bytes))
    }

    fn unregister(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.observe(KernelCall::Unregister, || self.inner.unregister(start, bytes))
    }

    fn copy(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        self.observe(KernelCall::Copy, || self.inner.copy(to, from, bytes))
    }

    fn zero(&self, to: ToAddress, bytes: usize) -> Install {
        self.observe(KernelCall::Zeropage, || self.inner.zero(to, bytes))
    }

    fn move_pages(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        self.observe(KernelCall::Move, || self.inner.move_pages(to, from, bytes))
    }

    fn wake(&self, start: ToAddress, bytes: usize) {
        self.observe(KernelCall::Wake, || self.inner.wake(start, bytes));
    }

    fn schedule(&self) -> Option<&dyn Schedule> {
        self.inner.schedule()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::geometry::PAGE_BYTES;

    /// Notes what happens, in order: a kernel and an observer at once.
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<(&'static str, KernelCall)>>);

    impl Notes {
        fn note(&self, what: &'static str, call: KernelCall) {
            self.0.lock().unwrap().push((what, call));
        }
    }

    impl PageObserver for Notes {
        fn operation_begins(&self, call: KernelCall) -> u64 {
            self.note("begins", call);
            call as u64 + 7
        }
        fn operation_ended(&self, call: KernelCall, note: u64, _took: Duration) {
            assert_eq!(note, call as u64 + 7);
            self.note("ended", call);
        }
    }

    impl PageService for Notes {
        fn register(&self, _start: ToAddress, _bytes: usize) -> io::Result<()> {
            self.note("done", KernelCall::Register);
            Ok(())
        }
        fn unregister(&self, _start: ToAddress, _bytes: usize) -> io::Result<()> {
            self.note("done", KernelCall::Unregister);
            Err(io::ErrorKind::InvalidInput.into())
        }
        fn copy(&self, _to: ToAddress, _from: FromAddress, _bytes: usize) -> Install {
            self.note("done", KernelCall::Copy);
            Install::Exists
        }
        fn zero(&self, _to: ToAddress, _bytes: usize) -> Install {
            self.note("done", KernelCall::Zeropage);
            Install::Again
        }
        fn move_pages(&self, _to: ToAddress, _from: FromAddress, _bytes: usize) -> Install {
            self.note("done", KernelCall::Move);
            Install::Busy
        }
        fn wake(&self, _start: ToAddress, _bytes: usize) {
            self.note("done", KernelCall::Wake);
        }
    }

    #[test]
    fn every_operation_is_told_of_before_and_after_and_answered_as_below() {
        let notes = Arc::new(Notes::default());
        let observed = Observed::new(notes.clone(), notes.clone());
        let (to, from) = (ToAddress::new(0), FromAddress::new(0));
        assert!(observed.register(to, PAGE_BYTES).is_ok());
        assert!(observed.try_register(to, PAGE_BYTES).is_ok());
        assert!(observed.unregister(to, PAGE_BYTES).is_err());
        assert_eq!(observed.copy(to, from, PAGE_BYTES), Install::Exists);
        assert_eq!(observed.zero(to, PAGE_BYTES), Install::Again);
        assert_eq!(observed.move_pages(to, from, PAGE_BYTES), Install::Busy);
        observed.wake(to, PAGE_BYTES);
        let calls = [
            KernelCall::Register,
            KernelCall::Register,
            KernelCall::Unregister,
            KernelCall::Copy,
            KernelCall::Zeropage,
            KernelCall::Move,
            KernelCall::Wake,
        ];
        let expected: Vec<_> =
            calls.iter().flat_map(|&call| ["begins", "done", "ended"].map(|what| (what, call))).collect();
        assert_eq!(*notes.0.lock().unwrap(), expected);
    }
}
