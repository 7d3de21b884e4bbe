//! Our own side: the same workload in a process of its own, as the command `run` starts it.

use strikeslip::{Delivery, Mode};

use super::peer::Start;
use crate::run::once::Plan;
use crate::run::result::Case;
use crate::workload::{Name, Parameters, graph, lru, trees};

/// What is to be run.
pub fn plan(start: &Start<'_>) -> Plan {
    let given = start.parameters;
    let workload = match given.name {
        "trees" => Name::Trees,
        "gcbench" => Name::Gcbench,
        "lru" => Name::Lru,
        _ => Name::Graph,
    };
    // A workload reads its own parameters only, so that those of others may be 0.
    let count = |name| usize::try_from(given.value(name)).unwrap_or(usize::MAX);
    let parameters = Parameters {
        trees: trees::Parameters { depth: u32::try_from(given.value("depth")).unwrap_or(u32::MAX) },
        lru: lru::Parameters {
            window: count("window"),
            bytes: count("bytes"),
            pushes: given.value("pushes"),
        },
        graph: graph::Parameters {
            slots: count("slots"),
            operations: Some(given.value("operations")),
            batch: given.value("batch"),
        },
        ..Parameters::default()
    };
    let case = Case {
        workload,
        mode: Mode::ConcurrentMove,
        delivery: Some(Delivery::InPlace),
        factor: None,
        interval_ns: given.interval_ns,
    };
    Plan {
        case,
        parameters,
        live_bytes: None,
        heap_bytes: start.heap_bytes,
        seed: start.seed,
        small_pages: false,
        young_cycles: true,
        trace: None,
    }
}
