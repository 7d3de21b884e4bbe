//! Memory that is short: each kind of out-of-memory on four threads, and a group that is at its limit while
//! pages are copied.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{fs, io};

use strikeslip_gc::error::AllocError;
use strikeslip_gc::options::{Delivery, ForcedAnswers, HeapOptions, Mode, StressOptions};
use strikeslip_gc::roots::RootPageKind;

use super::load::{CONCURRENT, PATIENCE, calls, heap_in, options, under_load, wait_until};
use crate::child::{is_child, start};
use crate::toy_embedder::{Mutator, Toy, layouts};

const THREADS: usize = 4;

/// Links nodes with data behind them into root 0 until the limit is reached. Returns how many.
fn fill(mutator: &Mutator, words: usize) -> usize {
    let mut count = 0;
    let error = loop {
        let data = match mutator.alloc(layouts().data, words) {
            Ok(data) => data,
            Err(error) => break error,
        };
        mutator.set(data, words, count as u64);
        mutator.set_root(1, Some(data));
        let node = match mutator.alloc(layouts().node, 0) {
            Ok(node) => node,
            Err(error) => break error,
        };
        mutator.store(node, 1, mutator.root(0));
        mutator.store(node, 2, mutator.root(1));
        mutator.set_root(0, Some(node));
        count += 1;
    };
    assert!(matches!(error, AllocError::HeapLimit { .. }), "{error}");
    count
}

/// What `fill` linked is what it wrote.
fn check(mutator: &Mutator, count: usize, words: usize) {
    let mut next = mutator.root(0);
    for expected in (0..count as u64).rev() {
        let node = next.expect("the list is not shorter");
        let data = mutator.load(node, 2).expect("data behind each node");
        assert_eq!(mutator.get(data, words), expected);
        next = mutator.load(node, 1);
    }
    assert_eq!(next, None);
}

/// Where the threads wait for each other; not for ever, if one of them failed.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    fn wait(&self, mutator: &Mutator) {
        let arrived = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let all = arrived.next_multiple_of(THREADS);
        mutator.blocked(|| wait_until("all threads", || self.0.load(Ordering::Relaxed) >= all));
    }
}

fn each_kind(toy: &Toy, together: &Meeting, seed: usize) {
    let mutator = toy.attach();
    let limit = toy.heap.options().limit_bytes;
    for round in 0..3 {
        let words = [30, 1000, 40_000][(seed + round) % 3];
        let too_large = mutator.alloc(layouts().data, limit / 8);
        assert!(matches!(too_large, Err(AllocError::TooLarge { .. })), "{too_large:?}");
        let count = fill(&mutator, words);
        together.wait(&mutator);
        check(&mutator, count, words);
        (0..2).for_each(|slot| mutator.set_root(slot, None));
        together.wait(&mutator);
        // An eighth for each of four: there is room.
        for _ in 0..limit / 8 / (8 * (words + 1)) {
            mutator.alloc(layouts().data, words).expect("dropped memory comes back");
        }
        together.wait(&mutator);
    }
}

#[test]
fn four_threads_run_out_of_memory_and_recover() {
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        let together = Meeting::default();
        std::thread::scope(|scope| {
            for seed in 0..THREADS {
                let (toy, together) = (&toy, &together);
                scope.spawn(move || each_kind(toy, together, seed));
            }
        });
        under_load(&toy, 2, |_| {});
    }
}

/// The third kind: the window of root slots is full.
#[test]
fn four_threads_use_up_all_root_slots_and_recover() {
    let toy = heap_in(Mode::ConcurrentMove, Delivery::InPlace);
    let exhaust = || {
        let mut pages = vec![];
        let error = loop {
            match toy.heap.roots().allocate(RootPageKind::Paged) {
                Ok(page) => pages.push(page),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AllocError::SystemRefused { .. }), "{error}");
        pages
    };
    under_load(&toy, 2, |load| {
        // They have the root pages that they need.
        wait_until("checks", || load.checks.load(Ordering::Relaxed) > 2);
        std::thread::scope(|scope| {
            let threads = [(); THREADS].map(|()| scope.spawn(exhaust));
            let pages: Vec<_> =
                threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
            assert!(pages.len() > 200_000, "{} pages", pages.len());
            pages.into_iter().for_each(|page| toy.heap.roots().free(page));
        });
        drop(toy.attach());
    });
}

/// A memory group below this process's own, of version 1: only there a process at the limit can be made to
/// wait instead of being killed.
struct Group(PathBuf);

impl Group {
    fn new() -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.split_once(":memory:"));
        let Some((_, own)) = own else { return Err(io::Error::other("no memory groups of version 1")) };
        let base = Path::new("/sys/fs/cgroup/memory").join(own.trim_start_matches('/'));
        let group = Self(base.join(format!("strikeslip-test-{}", std::process::id())));
        fs::create_dir(&group.0)?;
        group.write("memory.oom_control", "1")?;
        Ok(group)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(name), text)
    }

    fn usage(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("memory.usage_in_bytes")).expect("usage of the group");
        text.trim().parse().expect("a number")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.write("memory.limit_in_bytes", "-1");
        let begin = Instant::now();
        while fs::remove_dir(&self.0).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
            && begin.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

const DELIVERIES: [Delivery; 2] = [Delivery::InPlace, Delivery::Pool];

/// The child in the group: works until a COPY was refused for want of memory, and says so.
fn copy_in_a_group() {
    let mut lines = io::stdin().lines();
    let mut wait_for_line = || lines.next().expect("the parent lives").expect("a line");
    assert_eq!(wait_for_line(), "begin");
    for delivery in DELIVERIES {
        let toy = heap_in(Mode::ConcurrentCopy, delivery);
        under_load(&toy, 2, |load| {
            // A thread that starts at the limit cannot have an alternate stack, and ends the process.
            wait_until("all threads", || load.checks.load(Ordering::Relaxed) > 4);
            println!("working");
            wait_until("a refused COPY", || calls(&toy, "copy", "no-memory") > 0);
            println!("refused");
            assert_eq!(wait_for_line(), "end");
        });
    }
}

/// Waits for a line of the child's; there are others.
fn heard(lines: &Receiver<String>, wanted: &str, patience: Duration) -> bool {
    let begin = Instant::now();
    while let Ok(line) = lines.recv_timeout(patience.saturating_sub(begin.elapsed())) {
        if line.contains(wanted) {
            return true;
        }
    }
    false
}

#[test]
fn a_memory_limit_that_is_hit_while_copying_is_waited_out() {
    if is_child() {
        return copy_in_a_group();
    }
    let group = match Group::new() {
        Ok(group) => group,
        Err(error) => {
            println!("no memory group ({error}): the answers are forced instead");
            return copy_with_forced_answers();
        }
    };
    let mut child = start("memory::a_memory_limit_that_is_hit_while_copying_is_waited_out");
    group.write("cgroup.procs", &child.id().to_string()).expect("the child joins the group");
    let mut input = child.stdin.take().expect("a pipe");
    let (sender, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).is_ok()
    });
    writeln!(input, "begin").expect("the child lives");
    for _ in DELIVERIES {
        assert!(heard(&lines, "working", PATIENCE), "the child does not begin");
        let begin = Instant::now();
        let mut tightened = 0;
        loop {
            // Nothing can be given back, so a limit below what is used would be refused.
            if group.write("memory.limit_in_bytes", &group.usage().to_string()).is_ok() {
                tightened += 1;
                std::thread::sleep(Duration::from_millis(60));
                group.write("memory.limit_in_bytes", "-1").expect("more memory");
            }
            if heard(&lines, "refused", Duration::from_millis(20)) {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "no COPY was refused in {tightened} times at the limit");
        }
        writeln!(input, "end").expect("the child lives");
    }
    assert!(child.wait().expect("a status").success());
    assert!(reader.join().expect("no panic"));
}

/// The other way: nearly all answers are `ENOMEM` and the like.
fn copy_with_forced_answers() {
    let forced = ForcedAnswers { seed: 3, per_mille: 900, ..ForcedAnswers::default() };
    for delivery in DELIVERIES {
        let stress = StressOptions { forced_answers: Some(forced), ..StressOptions::default() };
        let toy = Toy::new(HeapOptions { stress, ..options(Mode::ConcurrentCopy, Some(delivery)) });
        let toy = toy.expect("a heap");
        under_load(&toy, 2, |_| {});
        let forced = toy.heap.snapshot().forced_answers;
        assert!(forced.iter().any(|entry| (entry.call, entry.answer) == ("copy", "no-memory")), "{forced:?}");
    }
}
