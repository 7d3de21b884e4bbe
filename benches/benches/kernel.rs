//! The kernel's own floor: what installing pages, taking regions and waking threads cost when nothing has to be
//! found out. The figures of the collector stand beside these.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strikeslip::Delivery;
use strikeslip::gc::address::{FromAddress, ToAddress, WindowIndex};
use strikeslip::gc::geometry::{REGION_BYTES, WINDOW_BYTES};
use strikeslip::gc::sys::mapping::Reservation;
use strikeslip::gc::sys::sched::{futex_wait, futex_wake};
use strikeslip::gc::sys::uffd::Userfault;
use strikeslip::gc::sys::{Install, PageService as _};

/// Bytes that are installed before the arena is made ready again.
const ARENA_BYTES: usize = 16 << 20;
const LENGTHS: [usize; 4] = [4 << 10, 64 << 10, 512 << 10, 2 << 20];

/// A window with pages, and a registered one without.
struct Arena {
    reservation: Reservation,
    userfault: Userfault,
    from: usize,
    to: usize,
}

impl Arena {
    fn new(huge: bool) -> Self {
        let reservation = Reservation::new(2).expect("there is address space");
        let userfault = Userfault::open(Delivery::InPlace).expect("userfaultfd can be had: see `doctor`");
        for window in 0..2 {
            reservation.open_window(WindowIndex(window), huge).expect("a window can be mapped");
        }
        let [from, to] = [0, 1].map(|window| reservation.range().window_address(WindowIndex(window)));
        userfault.register(to, WINDOW_BYTES).expect("a window can be registered");
        Self { reservation, userfault, from: from.get(), to: to.get() }
    }

    /// Pages in one window, none in the other.
    fn make_ready(&self) {
        self.reservation.discard(self.to, ARENA_BYTES).expect("pages can be given back");
        self.reservation.populate(ToAddress::new(self.from), ARENA_BYTES).expect("there is memory");
    }

    /// Time that `times` calls of `install` take, each with other pages.
    fn time(
        &self,
        times: u64,
        bytes: usize,
        install: impl Fn(ToAddress, FromAddress) -> Install,
    ) -> Duration {
        let mut total = Duration::ZERO;
        let mut left = times;
        while left > 0 {
            self.make_ready();
            let calls = left.min((ARENA_BYTES / bytes) as u64);
            let begin = Instant::now();
            for nth in 0..calls as usize {
                let (to, from) = (self.to + nth * bytes, self.from + nth * bytes);
                let installed = install(ToAddress::new(to), FromAddress::new(from));
                assert!(matches!(installed, Install::Done), "{installed:?}");
            }
            total += begin.elapsed();
            left -= calls;
        }
        total
    }
}

fn installing(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel: install pages");
    let (small, huge) = (Arena::new(false), Arena::new(true));
    for bytes in LENGTHS {
        group.throughput(Throughput::Bytes(bytes as u64));
        let name = |operation: &str| BenchmarkId::new(operation.to_owned(), format!("{} KiB", bytes >> 10));
        group.bench_function(name("UFFDIO_COPY"), |b| {
            b.iter_custom(|n| small.time(n, bytes, |to, from| small.userfault.copy(to, from, bytes)));
        });
        group.bench_function(name("UFFDIO_MOVE, small pages"), |b| {
            b.iter_custom(|n| small.time(n, bytes, |to, from| small.userfault.move_pages(to, from, bytes)));
        });
        group.bench_function(name("UFFDIO_ZEROPAGE"), |b| {
            b.iter_custom(|n| small.time(n, bytes, |to, _| small.userfault.zero(to, bytes)));
        });
    }
    group.throughput(Throughput::Bytes(REGION_BYTES as u64));
    group.bench_function(BenchmarkId::new("UFFDIO_MOVE, a huge page", "2048 KiB"), |b| {
        b.iter_custom(|n| {
            huge.time(n, REGION_BYTES, |to, from| huge.userfault.move_pages(to, from, REGION_BYTES))
        });
    });
    group.finish();
}

fn ranges(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel: take and register");
    let arena = Arena::new(true);
    let window = ToAddress::new(arena.to);
    group.bench_function("register and unregister 1 GiB", |b| {
        arena.userfault.unregister(window, WINDOW_BYTES).expect("it is registered");
        b.iter(|| {
            arena.userfault.register(window, WINDOW_BYTES).expect("a window can be registered");
            arena.userfault.unregister(window, WINDOW_BYTES).expect("it is registered");
        });
    });
    group.bench_function("take a region (mremap)", |b| {
        b.iter_custom(|times| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                let region = ToAddress::new(arena.from);
                arena.reservation.populate(region, REGION_BYTES).expect("there is memory");
                let begin = Instant::now();
                arena.reservation.take(region, REGION_BYTES).expect("a region can be taken");
                total += begin.elapsed();
                arena.reservation.close_alias(region, REGION_BYTES).expect("its alias can be closed");
            }
            total
        });
    });
    group.finish();
}

fn waking(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel: signals and futexes");
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing, and nobody else uses this signal.
    unsafe { libc::signal(libc::SIGUSR2, nothing as *const () as libc::sighandler_t) };
    group.bench_function("signal to oneself", |b| {
        // SAFETY: the signal has a handler.
        b.iter(|| black_box(unsafe { libc::raise(libc::SIGUSR2) }));
    });
    let word = Arc::new(AtomicU32::new(0));
    group.bench_function("futex wake, nobody sleeps", |b| b.iter(|| black_box(futex_wake(&word, 1))));
    // 0: ours to change to 1, which the other thread changes back; 2: the end.
    let answer = {
        let word = Arc::clone(&word);
        move || loop {
            match word.load(Ordering::Acquire) {
                0 => _ = futex_wait(&word, 0, None),
                1 => {
                    // Release: pairs with the Acquire of the benchmark's loop.
                    word.store(0, Ordering::Release);
                    futex_wake(&word, 1);
                }
                _ => return,
            }
        }
    };
    let other = thread::spawn(answer);
    group.bench_function("futex there and back", |b| {
        b.iter(|| {
            // Release: pairs with the Acquire of the other thread's loop.
            word.store(1, Ordering::Release);
            futex_wake(&word, 1);
            while word.load(Ordering::Acquire) == 1 {
                let _ = futex_wait(&word, 1, None);
            }
        });
    });
    // Release: as above.
    word.store(2, Ordering::Release);
    futex_wake(&word, 1);
    other.join().expect("it does not panic");
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = installing, ranges, waking
}
criterion_main!(benches);
