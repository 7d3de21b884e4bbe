//! Atomics, locks and futexes: the collector's facade, through which the protocol of safepoints is
//! model-checked. See `strikeslip_gc::sync`.

pub(crate) use strikeslip_gc::sync::*;
