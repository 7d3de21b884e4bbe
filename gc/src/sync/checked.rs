//! The facade under `--cfg loom`.
//!
//! Faithful but for this: queues and futexes synchronize like a mutex, which is more than they
//! promise; loom takes a `SeqCst` access for `AcqRel`, so code under test uses `SeqCst` fences.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::PoisonError;
use std::time::Duration;

pub use loom::sync::{Condvar, Mutex, MutexGuard};

/// Atomics that can be weakened at one place.
pub mod atomic {
    pub use std::sync::atomic::Ordering;

    use super::super::weaken;

    macro_rules! atomic {
        ($name:ident, $value:ty, $($generic:ident)?) => {
            /// As in `std`.
            #[derive(Debug)]
            pub struct $name$(<$generic>)?(loom::sync::atomic::$name$(<$generic>)?);

            impl$(<$generic>)? $name$(<$generic>)? {
                /// As in `std`, but not constant.
                #[track_caller]
                pub fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                /// For code that is compiled but never run in a model: heap memory holds no such atomics.
                ///
                /// # Panics
                /// Always.
                ///
                /// # Safety
                /// None.
                pub unsafe fn from_ptr<'a>(_: *mut $value) -> &'a Self {
                    panic!("heap memory has no place in a model")
                }

                /// As in `std`.
                pub fn into_inner(self) -> $value {
                    self.0.load(Ordering::Relaxed)
                }

                /// As in `std`.
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    self.0.load(weaken::ordering(order))
                }

                /// As in `std`.
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    self.0.store(value, weaken::ordering(order));
                }

                /// As in `std`.
                #[track_caller]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.0.swap(value, weaken::ordering(order))
                }

                /// As in `std`.
                ///
                /// # Errors
                /// As in `std`.
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.0.compare_exchange(current, new, weaken::ordering(success), weaken::ordering(failure))
                }

                /// As in `std`. Never fails for no reason: loom does not model that.
                ///
                /// # Errors
                /// As in `std`.
                #[track_caller]
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    macro_rules! integer {
        ($name:ident, $value:ty) => {
            atomic!($name, $value,);

            impl $name {
                integer!(@method $value: fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min);

                /// As in `std`.
                ///
                /// # Errors
                /// As in `std`.
                #[track_caller]
                pub fn fetch_update(
                    &self,
                    success: Ordering,
                    failure: Ordering,
                    update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    self.0.fetch_update(weaken::ordering(success), weaken::ordering(failure), update)
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(0)
                }
            }
        };
        (@method $value:ty: $($method:ident)+) => {
            $(
                /// As in `std`.
                #[track_caller]
                pub fn $method(&self, value: $value, order: Ordering) -> $value {
                    self.0.$method(value, weaken::ordering(order))
                }
            )+
        };
    }

    integer!(AtomicU8, u8);
    integer!(AtomicU32, u32);
    integer!(AtomicU64, u64);
    integer!(AtomicUsize, usize);
    atomic!(AtomicBool, bool,);
    atomic!(AtomicPtr, *mut T, T);

    impl Default for AtomicBool {
        fn default() -> Self {
            Self::new(false)
        }
    }

    impl<T> Default for AtomicPtr<T> {
        fn default() -> Self {
            Self::new(std::ptr::null_mut())
        }
    }

    /// As in `std`.
    #[track_caller]
    pub fn fence(order: Ordering) {
        if !weaken::leaves_out_fence() {
            loom::sync::atomic::fence(order);
        }
    }
}

/// `loom::hint`.
pub mod hint {
    pub use loom::hint::spin_loop;
}

/// `loom::thread`.
pub mod thread {
    pub use loom::thread::yield_now;

    /// Lets others run.
    pub fn nap() {
        yield_now();
    }
}

/// A cell that is lent by pointer, to a closure. Accesses that do not exclude each other are found.
pub struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    #[track_caller]
    pub fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    /// Lends the contents for reading.
    #[track_caller]
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        self.0.with(read)
    }

    /// Lends the contents for writing.
    #[track_caller]
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        self.0.with_mut(write)
    }
}

impl<T: Default> Default for UnsafeCell<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for UnsafeCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnsafeCell")
    }
}

/// A word that threads can sleep on: as in the kernel, the word is compared, and sleepers are woken,
/// under a lock. Limits of time are ignored, so that a lost wake is a deadlock, which loom finds.
#[derive(Debug)]
pub struct Futex {
    word: atomic::AtomicU32,
    lock: Mutex<()>,
    sleepers: Condvar,
}

impl Futex {
    /// A word.
    #[must_use]
    #[track_caller]
    pub fn new(value: u32) -> Self {
        Self { word: atomic::AtomicU32::new(value), lock: Mutex::new(()), sleepers: Condvar::new() }
    }

    /// Sleeps while the word is `expected`, until woken.
    #[track_caller]
    pub fn wait(&self, expected: u32, _limit: Option<Duration>) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.word.load(atomic::Ordering::Relaxed) == expected {
            drop(self.sleepers.wait(lock));
        }
    }

    /// Wakes all who sleep.
    #[track_caller]
    pub fn wake_all(&self) {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.notify_all();
    }
}

impl Default for Futex {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Deref for Futex {
    type Target = atomic::AtomicU32;

    fn deref(&self) -> &atomic::AtomicU32 {
        &self.word
    }
}

/// A queue without a bound: crossbeam's, as far as it is used here.
#[derive(Debug)]
pub struct SegQueue<T>(Mutex<VecDeque<T>>);

impl<T> SegQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an element at the end.
    pub fn push(&self, element: T) {
        self.lock().push_back(element);
    }

    /// Takes the first element.
    pub fn pop(&self) -> Option<T> {
        self.lock().pop_front()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl<T> Default for SegQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A side table in ordinary memory, for loom's atomics cannot live in zeroed pages.
#[derive(Debug)]
pub struct SideTable<T>(Box<[T]>);

impl<T: Default> SideTable<T> {
    /// A table of `elements` elements.
    ///
    /// # Errors
    /// None.
    pub fn new(elements: usize) -> io::Result<Self> {
        Ok(Self((0..elements).map(|_| T::default()).collect()))
    }
}

impl<T> SideTable<T> {
    /// Bytes of the table.
    pub fn resident_bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

impl<T> Deref for SideTable<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}
