//! Which mode and delivery a heap uses: what was asked for, what the system offers, and a line that
//! says so.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::HeapError;
use crate::options::{Delivery, HeapOptions, Mode};
use crate::stats::Statistics;
use crate::sys::probe::{Capabilities, probe};
use crate::sys::uffd::{FaultReader, Userfault};

/// What was chosen, and why.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Mode in use.
    pub mode: Mode,
    /// Delivery in use, in concurrent modes.
    pub delivery: Option<Delivery>,
    /// Whether huge pages can be asked for.
    pub huge_pages: bool,
    /// One line for people.
    pub line: String,
}

/// What the system offers, found out with real faults. Kept for the process if nothing was refused: a refusal
/// may pass (there was no free descriptor, say), so the next heap asks again.
fn capabilities() -> Arc<Capabilities> {
    static KEPT: Mutex<Option<Arc<Capabilities>>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(capabilities) = &*kept {
        return capabilities.clone();
    }
    let found = Arc::new(probe());
    let deliveries = Delivery::ALL.iter().all(|&delivery| found.delivery(delivery).is_ok());
    if deliveries && found.take.is_ok() && found.moves().is_ok() {
        *kept = Some(found.clone());
    }
    found
}

/// Chooses for these options.
///
/// # Errors
/// [`HeapError::ModeUnavailable`] if falling back is not allowed.
pub fn choose(options: &HeapOptions) -> Result<Choice, HeapError> {
    let offered = capabilities();
    let huge_pages = offered.huge_pages.is_ok();
    if !options.mode.is_concurrent() {
        let line = format!("{} (as asked)", options.mode);
        return Ok(Choice { mode: options.mode, delivery: None, huge_pages, line });
    }
    if let Err(reason) = &offered.take {
        let reason = format!("regions cannot be taken: {reason}");
        return fall_back(options, Mode::StopTheWorld, None, huge_pages, reason);
    }
    let delivery = match pick_delivery(&offered, options.delivery) {
        Ok(delivery) => delivery,
        Err(reason) => return fall_back(options, Mode::StopTheWorld, None, huge_pages, reason),
    };
    if let (Mode::ConcurrentMove, Err(reason)) = (options.mode, offered.moves()) {
        let reason = format!("pages cannot be moved: {reason}");
        return fall_back(options, Mode::ConcurrentCopy, Some(delivery.0), huge_pages, reason);
    }
    let line = format!("{}, faults served by {} ({})", options.mode, delivery.0, delivery.1);
    Ok(Choice { mode: options.mode, delivery: Some(delivery.0), huge_pages, line })
}

/// The delivery asked for, or else the one that was measured to be faster; the other if only that
/// works.
fn pick_delivery(
    offered: &Capabilities,
    asked: Option<Delivery>,
) -> Result<(Delivery, &'static str), String> {
    let (first, second, why) = match asked {
        Some(Delivery::Pool) => (Delivery::Pool, Delivery::InPlace, "as asked"),
        Some(Delivery::InPlace) => (Delivery::InPlace, Delivery::Pool, "as asked"),
        None => (Delivery::InPlace, Delivery::Pool, "the faster one"),
    };
    let Err(reason) = offered.delivery(first) else { return Ok((first, why)) };
    match offered.delivery(second) {
        Ok(()) => Ok((second, "the other one is not available")),
        Err(_) => Err(format!("faults cannot be served: {reason}")),
    }
}

fn fall_back(
    options: &HeapOptions,
    mode: Mode,
    delivery: Option<Delivery>,
    huge_pages: bool,
    reason: String,
) -> Result<Choice, HeapError> {
    if !options.fall_back {
        return Err(HeapError::ModeUnavailable { mode: options.mode, reason });
    }
    let line = format!("{mode}, instead of {}: {reason}", options.mode);
    Ok(Choice { mode, delivery, huge_pages, line })
}

/// What serves faults in a concurrent mode.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    pub(crate) userfault: Arc<Userfault>,
    /// Reads the events of delivery by pool.
    pub(crate) reader: Option<Arc<FaultReader>>,
}

impl Choice {
    /// Opens what serves faults in this mode. Where it worked when it was probed, but does not now (the last
    /// descriptor is gone, say), the choice falls back.
    ///
    /// # Errors
    /// [`HeapError::ModeUnavailable`] if falling back is not allowed.
    pub(crate) fn open(
        &mut self,
        options: &HeapOptions,
        stats: &Arc<Statistics>,
    ) -> Result<Option<Faults>, HeapError> {
        let Some(delivery) = self.delivery else { return Ok(None) };
        match open_faults(delivery, stats) {
            Ok(faults) => Ok(Some(faults)),
            Err(reason) => {
                *self = fall_back(options, Mode::StopTheWorld, None, self.huge_pages, reason)?;
                Ok(None)
            }
        }
    }
}

fn open_faults(delivery: Delivery, stats: &Arc<Statistics>) -> Result<Faults, String> {
    let userfault = Userfault::open(delivery).map_err(|error| error.to_string())?;
    let userfault = Arc::new(userfault.with_counts(stats.clone()));
    let reader = match delivery {
        Delivery::Pool => {
            let reader = FaultReader::new(userfault.clone());
            Some(Arc::new(reader.map_err(|error| format!("fault events cannot be read: {error}"))?))
        }
        Delivery::InPlace => None,
    };
    Ok(Faults { userfault, reader })
}
