//! Which mode and delivery a heap uses: what was asked for, what the system offers, and a line that
//! says so.

use std::sync::{Arc, OnceLock};

use crate::error::HeapError;
use crate::options::{Delivery, HeapOptions, Mode};
use crate::stats::Statistics;
use crate::sys::probe::{Capabilities, probe};
use crate::sys::uffd::Userfault;

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

/// What the system offers; found out once a process, with real faults.
pub fn capabilities() -> &'static Capabilities {
    static CAPABILITIES: OnceLock<Capabilities> = OnceLock::new();
    CAPABILITIES.get_or_init(probe)
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
    let delivery = match pick_delivery(offered, options.delivery) {
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

impl Choice {
    /// Opens what serves faults in this mode.
    ///
    /// # Errors
    /// [`HeapError::ModeUnavailable`]: it worked when it was probed, but does not now.
    pub(crate) fn open(&self, stats: &Arc<Statistics>) -> Result<Option<Arc<Userfault>>, HeapError> {
        let Some(delivery) = self.delivery else { return Ok(None) };
        match Userfault::open(delivery) {
            Ok(userfault) => Ok(Some(Arc::new(userfault.with_counts(stats.clone())))),
            Err(error) => Err(HeapError::ModeUnavailable { mode: self.mode, reason: error.to_string() }),
        }
    }
}
