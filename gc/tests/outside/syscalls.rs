//! System calls on heap memory while it is compacted. Of a pinned object they find all of it, always. Of any
//! other one they may find a page missing, and a fault of the kernel's is not served: the answer is then
//! `EFAULT`, or a shorter count. What was transferred is right in any case.

use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::options::Mode;

use super::load::{CONCURRENT, PATIENCE, heap_in, under_load};
use crate::toy_embedder::graph::mix;
use crate::toy_embedder::{Mutator, Toy, layouts};

/// Words of the objects used: 12 pages, less than a pipe holds.
const WORDS: usize = 6 * 1024;
const BYTES: usize = 8 * WORDS;

fn write(pipe: &PipeWriter, object: ToAddress) -> Result<usize, i32> {
    let contents = object.offset(8).as_ptr::<u8>();
    // SAFETY: the object has so many bytes. Whether they are there is the question.
    answer(unsafe { libc::write(pipe.as_raw_fd(), contents.cast(), BYTES) })
}

fn read(pipe: &PipeReader, object: ToAddress) -> Result<usize, i32> {
    let contents = object.offset(8).as_ptr::<u8>();
    // SAFETY: the object has room for so many bytes, and nobody else uses it.
    answer(unsafe { libc::read(pipe.as_raw_fd(), contents.cast(), BYTES) })
}

fn answer(count: isize) -> Result<usize, i32> {
    usize::try_from(count).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn fill(mutator: &Mutator, object: ToAddress, seed: u64) {
    (1..=WORDS).for_each(|word| mutator.set(object, word, mix(seed ^ word as u64)));
}

fn cycles(toy: &Toy) -> u64 {
    toy.heap.snapshot().counters.cycles
}

#[test]
fn system_calls_find_all_of_a_pinned_object() {
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        let counters = under_load(&toy, 2, |_| {
            let (receiver, sender) = std::io::pipe().expect("a pipe");
            let mutator = toy.attach();
            let begin = cycles(&toy);
            let mut transfers = 0;
            while transfers < 300 || cycles(&toy) < begin + 8 {
                for slot in 0..2 {
                    let object = mutator.alloc_pinned(layouts().data, WORDS).expect("room");
                    mutator.set_root(slot, Some(object));
                }
                let [from, to] = [0, 1].map(|slot| mutator.root(slot).expect("just put there"));
                fill(&mutator, from, transfers);
                // In a blocked state, as a system call should be: flips happen meanwhile.
                let answers = mutator.blocked(|| {
                    std::thread::scope(|scope| {
                        let reading = scope.spawn(|| read_all(&receiver, to));
                        if transfers % 8 == 0 {
                            // The reader waits in the kernel meanwhile.
                            std::thread::sleep(std::time::Duration::from_millis(3));
                        }
                        (write(&sender, from), reading.join().expect("no panic"))
                    })
                });
                assert_eq!(answers, (Ok(BYTES), Ok(BYTES)), "{mode}, {delivery}");
                assert!((1..=WORDS).all(|word| mutator.get(to, word) == mix(transfers ^ word as u64)));
                transfers += 1;
            }
        });
        assert!(counters.mutator_faults > 0);
    }
}

/// A pipe may give what it holds in parts; nothing else is expected here.
fn read_all(pipe: &PipeReader, object: ToAddress) -> Result<usize, i32> {
    let mut done = 0;
    while done < BYTES {
        let contents = object.offset(8 + done).as_ptr::<u8>();
        // SAFETY: as in `read`.
        done += answer(unsafe { libc::read(pipe.as_raw_fd(), contents.cast(), BYTES - done) })?;
    }
    Ok(done)
}

const OBJECTS: usize = 200;
/// Bytes that are installed together, where pages are copied.
const UNIT_BYTES: usize = 256 << 10;

/// Whether the object's contents lie in two units: one may be there without the other.
fn straddles(object: ToAddress) -> bool {
    object.get() / UNIT_BYTES != (object.get() + BYTES) / UNIT_BYTES
}

#[test]
fn system_calls_on_other_objects_may_answer_efault_but_transfer_nothing_wrong() {
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        under_load(&toy, 1, |_| {
            let (mut receiver, sender) = std::io::pipe().expect("a pipe");
            let mutator = toy.attach();
            for nth in 0..OBJECTS {
                let object = mutator.alloc(layouts().data, WORDS).expect("room");
                fill(&mutator, object, nth as u64);
                mutator.set_root(nth, Some(object));
                // Garbage between them, so that it is worth moving them.
                mutator.alloc(layouts().data, WORDS).expect("room");
            }
            let begin = (cycles(&toy), std::time::Instant::now());
            let (mut refused, mut short, mut whole) = (0, 0, 0);
            let mut nth = 0;
            let mut buffer = vec![0; BYTES];
            // Where pages are moved, an object's region comes whole.
            let wants_short = mode == Mode::ConcurrentCopy;
            while refused == 0 || whole == 0 || wants_short && short == 0 || cycles(&toy) < begin.0 + 5 {
                assert!(begin.1.elapsed() < PATIENCE, "{refused} refused, {short} short, {whole} whole");
                mutator.poll();
                // From one safepoint to the next objects stay where they are.
                let object_at = |nth| mutator.root(nth % OBJECTS).expect("still there");
                nth = (nth + 1) % OBJECTS;
                if let Some(two_units) = (nth..nth + 20).find(|&nth| straddles(object_at(nth)))
                    && wants_short
                {
                    nth = two_units % OBJECTS;
                    // The first page is there then, the last ones perhaps not.
                    mutator.get(object_at(nth), 1);
                }
                let object = object_at(nth);
                let count = match write(&sender, object) {
                    Ok(count) => count,
                    Err(errno) => {
                        assert_eq!(errno, libc::EFAULT);
                        refused += 1;
                        0
                    }
                };
                match count {
                    0 => {}
                    BYTES => whole += 1,
                    _ => short += 1,
                }
                receiver.read_exact(&mut buffer[..count]).expect("what was written");
                for (at, bytes) in buffer[..count].chunks_exact(8).enumerate() {
                    let expected = mix(nth as u64 ^ (at as u64 + 1)).to_ne_bytes();
                    assert_eq!(bytes, expected, "word {at} of object {nth}");
                }
                // Touched by the program, the pages come; then the system call succeeds.
                if count < BYTES {
                    assert!(
                        (1..=WORDS).all(|word| mutator.get(object, word) == mix(nth as u64 ^ word as u64))
                    );
                    assert_eq!(write(&sender, object), Ok(BYTES));
                    receiver.read_exact(&mut buffer).expect("what was written");
                }
            }
            // Reading into an object that is there.
            let object = mutator.root(0).expect("still there");
            fill(&mutator, object, 1234);
            assert_eq!(write(&sender, object), Ok(BYTES));
            assert!(read(&receiver, object).is_ok_and(|count| count > 0));
            fill(&mutator, object, 0);
        });
    }
}
