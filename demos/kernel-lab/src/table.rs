//! Both kernels side by side, and whether they differ as they should.
//!
//! Judged by uninterruptible sleep of collector and mutator threads, and never by wall time: processors that are
//! emulated, and competed for, slow both kernels, as the control shows.

use std::fmt::Write as _;

use strikeslip_demos::units::Nanoseconds;

use crate::console::Row;
use crate::machine::Told;

/// The control: competes for processors, and takes no lock.
const CONTROL: &str = "spin";
/// Without threads.
const CALM: &str = "none";
/// Takes `mmap_lock` seldom, since the C library keeps the stacks of threads that ended: beside it, threads may sleep
/// before the change, and must not after it.
const WEAK: &str = "thread";
/// Beside each other storm that takes `mmap_lock`, threads sleep longer than this before the change ..
const MIN_BEFORE_NS: u64 = 200_000_000;
/// .. and shorter than this after it, and on both kernels beside the control.
const MAX_AFTER_NS: u64 = 100_000_000;
/// Widths of the columns.
const STORM: usize = 12;
const PAIR: usize = 24;

/// The table.
#[must_use]
pub fn table(before: &Told, after: &Told) -> String {
    let mut text = String::new();
    let mut line = |cells: [String; 6]| {
        let [storm, rest @ ..] = cells;
        let mut row = format!("{storm:<STORM$}");
        for cell in rest {
            row.push_str(&format!("{cell:>PAIR$}"));
        }
        writeln!(text, "{}", row.trim_end()).expect("writing to a string");
    };
    let titles = ["storm", "sleep", "switches", "wall time", "COPY p99", "storm operations"];
    line(titles.map(ToOwned::to_owned));
    for row in &before.rows {
        let Some(other) = after.rows.iter().find(|other| other.storm == row.storm) else { continue };
        let time = |nanoseconds: Option<u64>| {
            nanoseconds.map_or("?".to_owned(), |time| Nanoseconds(time).to_string())
        };
        let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
        let pair = |of: &dyn Fn(&Row) -> String| format!("{} -> {}", of(row), of(other));
        line([
            if row.threads == 0 { row.storm.clone() } else { format!("{} x{}", row.storm, row.threads) },
            pair(&|row| time(row.blocked_ns)),
            pair(&|row| number(row.switches)),
            pair(&|row| time(Some(row.compaction_ns))),
            pair(&|row| time(Some(row.copy_p99_ns))),
            pair(&|row| row.storm_operations.to_string()),
        ]);
    }
    text
}

/// What is not as it should be, in a line each. None if userfaultfd operations sleep in the process-wide lock
/// before the change, and not after it.
#[must_use]
pub fn objections(before: &Told, after: &Told) -> Vec<String> {
    let mut objections = vec![];
    for (told, is_before) in [(before, true), (after, false)] {
        if told.rows.is_empty() {
            objections.push(format!("{}: there are no figures", told.release));
        }
        for row in &told.rows {
            let place = format!("{}, {}", told.release, row.storm);
            if row.mismatches > 0 {
                objections.push(format!("{place}: {} objects were wrong", row.mismatches));
            }
            if row.compactions == 0 {
                objections.push(format!("{place}: nothing was compacted"));
            }
            let Some(blocked) = row.blocked_ns else {
                objections.push(format!("{place}: uninterruptible sleep is not known"));
                continue;
            };
            let takes_lock = row.storm != CONTROL && row.storm != CALM;
            let must_sleep = is_before && takes_lock && row.storm != WEAK;
            let may_sleep = is_before && takes_lock;
            if must_sleep && blocked <= MIN_BEFORE_NS {
                objections.push(format!(
                    "{place}: threads slept {}, and more than {} was expected",
                    Nanoseconds(blocked),
                    Nanoseconds(MIN_BEFORE_NS)
                ));
            }
            if !may_sleep && blocked >= MAX_AFTER_NS {
                objections.push(format!(
                    "{place}: threads slept {}, and less than {} was expected",
                    Nanoseconds(blocked),
                    Nanoseconds(MAX_AFTER_NS)
                ));
            }
        }
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(release: &str, blocked_ms: [u64; 3]) -> Told {
        let row = |(storm, blocked_ms): (&str, u64)| Row {
            storm: storm.to_owned(),
            threads: 4,
            compactions: 1,
            blocked_ns: Some(blocked_ms * 1_000_000),
            switches: Some(blocked_ms / 2),
            ..Row::default()
        };
        let rows = [CALM, CONTROL, "map"].into_iter().zip(blocked_ms).map(row).collect();
        Told { release: release.to_owned(), rows, ..Told::default() }
    }

    #[test]
    fn columns_stand_side_by_side() {
        let table = table(&told("6.1", [0, 1, 900]), &told("6.12", [0, 2, 3]));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[3].starts_with("map x4 "), "{table}");
        assert!(lines[3].contains(" 900 ms -> 3.0 ms "), "{table}");
        assert!(lines[3].contains(" 450 -> 1 "), "{table}");
    }

    #[test]
    fn sleep_before_and_none_after_is_as_it_should_be() {
        assert_eq!(objections(&told("6.1", [0, 1, 900]), &told("6.12", [0, 2, 3])), [] as [&str; 0]);
    }

    #[test]
    fn beside_a_weak_storm_sleep_is_judged_after_the_change() {
        let weak = |release, blocked_ms| {
            let mut told = told(release, [0, 1, blocked_ms]);
            told.rows[2].storm = WEAK.to_owned();
            told
        };
        assert_eq!(objections(&weak("6.1", 150), &weak("6.12", 3)), [] as [&str; 0]);
        let found = objections(&weak("6.1", 0), &weak("6.12", 120));
        assert_eq!(found, ["6.12, thread: threads slept 120 ms, and less than 100 ms was expected"]);
    }

    #[test]
    fn each_thing_that_is_not_as_it_should_be_is_named() {
        let found = objections(&told("6.1", [0, 300, 150]), &told("6.12", [0, 2, 120]));
        let expected = [
            "6.1, spin: threads slept 300 ms, and less than 100 ms was expected",
            "6.1, map: threads slept 150 ms, and more than 200 ms was expected",
            "6.12, map: threads slept 120 ms, and less than 100 ms was expected",
        ];
        assert_eq!(found, expected);
        let mut wrong = told("6.1", [0, 0, 900]);
        wrong.rows[2].mismatches = 1;
        wrong.rows[0].compactions = 0;
        wrong.rows[1].blocked_ns = None;
        let found = objections(&wrong, &Told { release: "6.12".into(), ..Told::default() });
        let expected = [
            "6.1, none: nothing was compacted",
            "6.1, spin: uninterruptible sleep is not known",
            "6.1, map: 1 objects were wrong",
            "6.12: there are no figures",
        ];
        assert_eq!(found, expected);
    }
}
