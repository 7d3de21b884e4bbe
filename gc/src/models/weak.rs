//! Upgrades against the end of marking and the clearing of weak slots: whatever is found dead stays so, with all that
//! refers to it; and memory that is given back has no reader.
//!
//! The heap and the mutators are those of the model of [marking](super::marking); real besides what is real there is
//! [`Upgrades`](crate::weak::Upgrades). What clears slots is a replica.

use crate::sync::model::{assert_finds, check};

use super::marking::{A, B, Barrier, C, Script, mark_beside};

/// `B → C`, and nothing else refers to them but one weak slot each. `A` is a root.
const WEAK: Script = Script {
    slots: [None, Some(C), None, None],
    roots: [[Some(A), None], [Some(A), None]],
    weak: [Some(B), Some(C)],
    sections: [&[], &[]],
};

/// One mutator resurrects `B`; the other asks for `C`, which then is reachable from it.
static TOGETHER: Script = Script {
    sections: [
        &[|m| {
            if let Some(b) = m.upgrade() {
                m.store_root(1, b);
            }
        }],
        &[|m| _ = m.upgrade()],
    ],
    ..WEAK
};

/// One mutator resurrects `B`, takes `C` out of it, and cuts it off; the other resurrects `C`.
static TAKE: Script = Script {
    sections: [
        &[|m| {
            if let Some(c) = m.upgrade().and_then(|b| m.load(b)) {
                m.store_root(1, c);
                m.store(B, None);
            }
        }],
        &[|m| {
            if let Some(c) = m.upgrade() {
                m.store(A, Some(c));
            }
        }],
    ],
    ..WEAK
};

/// No root slot refers to the candidates: they are given back, unless one is resurrected.
static REUSE: Script = Script {
    roots: [[None; 2]; 2],
    sections: [
        &[|m| {
            if let Some(b) = m.upgrade() {
                m.store_root(1, b);
            }
        }],
        &[],
    ],
    ..WEAK
};

#[test]
fn dead_objects_die_together_and_stay_dead() {
    for script in [&TOGETHER, &TAKE, &REUSE] {
        check(2, move || mark_beside(Barrier::Whole, script));
    }
}

#[test]
fn upgrades_that_are_counted_late_are_lost() {
    assert_finds("is lost", 2, || mark_beside(Barrier::CountsLate, &TOGETHER));
}

/// As with old values: what is resurrected gets into a root slot or an object, which shades it.
#[test]
fn unshaded_upgrades_are_lost_if_root_slots_are_not_shaded() {
    assert_finds("is lost", 2, || mark_beside(Barrier::UpgradesUnshaded, &TOGETHER));
}

#[test]
fn giving_memory_back_without_a_handshake_is_found() {
    assert_finds("in use again", 2, || mark_beside(Barrier::FreesAtOnce, &REUSE));
}
