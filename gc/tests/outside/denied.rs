//! A kernel that does not offer everything, from the beginning or from some time on.

use std::time::Duration;

use strikeslip_gc::error::HeapError;
use strikeslip_gc::options::{Delivery, HeapOptions, Mode};
use strikeslip_gc::sys::uffd::{Door, Userfault};

use super::load::{CONCURRENT, calls, heap_in, options, under_load, wait_until};
use crate::child::{Denied, UFFDIO_API, UFFDIO_MOVE, denied_call, denied_request, deny, in_child};
use crate::toy_embedder::Toy;

/// The reason why a heap of this mode is refused.
pub fn refusal(mode: Mode, delivery: Option<Delivery>) -> String {
    match Toy::new(options(mode, delivery)) {
        Err(HeapError::ModeUnavailable { mode: refused, reason }) => {
            assert_eq!(refused, mode);
            assert!(!reason.contains('\n'), "one line: {reason}");
            reason
        }
        Err(error) => panic!("{error}"),
        Ok(toy) => panic!("not refused: {}", toy.heap.choice()),
    }
}

/// The heap that is there instead.
pub fn instead(mode: Mode, delivery: Option<Delivery>) -> Toy {
    Toy::new(HeapOptions { fall_back: true, ..options(mode, delivery) }).expect("another mode")
}

#[test]
fn an_unprivileged_user_gets_faults_of_user_mode() {
    if !in_child("denied::an_unprivileged_user_gets_faults_of_user_mode") {
        return;
    }
    const NOBODY: u32 = 65_534;
    // SAFETY: takes no arguments; then values only. The child has no other threads that matter.
    let refused = unsafe {
        if libc::geteuid() != 0 {
            println!("not root: runs as the user it is");
            false
        } else {
            libc::setgroups(0, std::ptr::null()) != 0
                || libc::setgid(NOBODY) != 0
                || libc::setuid(NOBODY) != 0
        }
    };
    assert!(!refused, "cannot become another user: {}", std::io::Error::last_os_error());
    let sysctl = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
    let full = Userfault::open_full(Delivery::Pool);
    if sysctl.trim() == "0" {
        let reason = full.expect_err("full userfaultfd without privilege").to_string();
        assert!(reason.contains("userfaultfd()") && reason.contains("/dev/userfaultfd"), "{reason}");
    } else {
        println!("vm.unprivileged_userfaultfd is '{}': everybody may", sysctl.trim());
        assert!(full.is_ok());
    }
    assert_eq!(Userfault::open(Delivery::InPlace).expect("user mode only").door(), Door::UserModeOnly);
    for (mode, delivery) in CONCURRENT {
        under_load(&heap_in(mode, delivery), 2, |_| {});
    }
}

#[test]
fn a_userfaultfd_with_another_interface_is_refused() {
    if !in_child("denied::a_userfaultfd_with_another_interface_is_refused") {
        return;
    }
    deny(&[denied_request(UFFDIO_API, libc::EINVAL)], false);
    for delivery in [Delivery::InPlace, Delivery::Pool] {
        let reason = refusal(Mode::ConcurrentMove, Some(delivery));
        assert!(reason.contains("does not offer"), "{reason}");
        let toy = instead(Mode::ConcurrentMove, Some(delivery));
        assert_eq!(toy.heap.mode(), Mode::StopTheWorld);
        under_load(&toy, 2, |_| {});
    }
}

#[test]
fn without_move_pages_are_copied() {
    if !in_child("denied::without_move_pages_are_copied") {
        return;
    }
    deny(&[denied_request(UFFDIO_MOVE, libc::ENOTTY)], false);
    let reason = refusal(Mode::ConcurrentMove, None);
    assert!(reason.contains("cannot be moved"), "{reason}");
    let toy = instead(Mode::ConcurrentMove, None);
    assert_eq!(toy.heap.mode(), Mode::ConcurrentCopy);
    let counters = under_load(&toy, 2, |_| {});
    assert!(counters.moved_bytes == 0 && counters.copied_bytes > 0, "{counters:?}");
}

#[test]
fn regions_that_cannot_be_taken_stop_the_world() {
    if !in_child("denied::regions_that_cannot_be_taken_stop_the_world") {
        return;
    }
    deny(&[denied_call(libc::SYS_mremap, libc::EINVAL)], false);
    let reason = refusal(Mode::ConcurrentCopy, None);
    assert!(reason.contains("cannot be taken"), "{reason}");
    let toy = instead(Mode::ConcurrentCopy, None);
    assert_eq!(toy.heap.mode(), Mode::StopTheWorld);
    under_load(&toy, 2, |_| {});
}

/// Refuses something to a heap at work.
fn deny_later(denied: Denied, test: &str, check: impl Fn(&Toy)) {
    if !in_child(test) {
        return;
    }
    let heaps: Vec<_> = [Delivery::InPlace, Delivery::Pool]
        .map(|delivery| heap_in(Mode::ConcurrentMove, delivery))
        .into_iter()
        .collect();
    for (nth, toy) in heaps.iter().enumerate() {
        under_load(toy, 2, |_| {
            wait_until("taken regions", || toy.heap.snapshot().counters.regions_taken > 0 || nth > 0);
            deny(&[denied], true);
            std::thread::sleep(Duration::from_millis(300));
        });
        check(toy);
    }
}

#[test]
fn moves_that_are_refused_later_become_copies() {
    let denied = denied_request(UFFDIO_MOVE, libc::EINVAL);
    deny_later(denied, "denied::moves_that_are_refused_later_become_copies", |toy| {
        let counters = toy.heap.snapshot().counters;
        assert!(calls(toy, "move", "invalid") > 0 && counters.copied_bytes > 0, "{counters:?}");
    });
}

#[test]
fn regions_that_are_refused_in_the_pause_are_rewritten_there() {
    let denied = denied_call(libc::SYS_mremap, libc::ENOMEM);
    deny_later(denied, "denied::regions_that_are_refused_in_the_pause_are_rewritten_there", |toy| {
        let counters = toy.heap.snapshot().counters;
        assert!(calls(toy, "mremap", "no-memory") > 0 && counters.patched_slots > 0, "{counters:?}");
    });
}
