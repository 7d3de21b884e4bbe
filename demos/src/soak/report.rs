//! Sums over all rounds, and the report.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;
use strikeslip::Snapshot;
use strikeslip::gc::stats::CallCount;

use super::Settings;
use super::draw::Round;
use super::system::Process;
use crate::units::Bytes;
use crate::workload::Outcome;

/// Differences that are reported in words.
const EXAMPLES: usize = 20;
/// Mappings that the C library may keep for threads that ended, beyond those after the first rounds.
const MOST_MAPPINGS: u64 = 64;
/// By how much resident memory between rounds may grow from the second quarter of the run to the last.
const MOST_DRIFT_BYTES: u64 = 48 << 20;
/// Rounds before which there is nothing to be said of drift.
const FEW_ROUNDS: usize = 16;

/// What rounds in one mode did.
#[derive(Copy, Clone, Debug, Default, Serialize)]
struct ModeTotals {
    rounds: u64,
    cycles: u64,
    mutator_faults: u64,
}

/// Bytes whose contents were compared.
#[derive(Copy, Clone, Debug, Serialize)]
struct VerifiedBytes {
    /// By the workloads' checksums: everything that was live at the end of each round.
    by_checksum: u64,
    /// By the verifier: what it reached, in each cycle of rounds that it was on in.
    by_verifier: u64,
}

/// What the process held.
#[derive(Copy, Clone, Debug, Serialize)]
struct ProcessReport {
    /// Before the first round.
    at_start: Process,
    /// After the last one.
    at_end: Process,
    /// Growth of resident memory between rounds, medians of the second and the last quarter of the run compared. `None`:
    /// too few rounds.
    drift_bytes: Option<i64>,
}

/// The account of memory against the system's.
#[derive(Copy, Clone, Debug, Serialize)]
struct AccountReport {
    /// Most bytes that were counted and not there: regions that were being filled.
    largest_untouched_bytes: u64,
    /// Most bytes that were there and not counted.
    largest_uncounted_bytes: u64,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    seed: u64,
    seconds: f64,
    rounds: u64,
    /// By mode and delivery.
    modes: BTreeMap<String, ModeTotals>,
    cycles: u64,
    young_cycles: u64,
    cycles_without_flip: u64,
    flips_refused: u64,
    operations: u64,
    allocated_bytes: u64,
    evacuated_bytes: u64,
    mutator_faults: u64,
    faults_by_path: BTreeMap<String, u64>,
    forced_answers: BTreeMap<String, u64>,
    kernel_answers: BTreeMap<String, u64>,
    /// How often each stress mode acted.
    stress: BTreeMap<String, u64>,
    verified_bytes: VerifiedBytes,
    process: ProcessReport,
    account: AccountReport,
    /// Wrong results found by workloads.
    mismatches: u64,
    /// Everything that was not as it must be, mismatches too.
    differences: u64,
    difference_examples: Vec<String>,
}

impl Report {
    /// How often something was not as it must be.
    pub const fn differences(&self) -> u64 {
        self.differences
    }

    /// The first difference.
    pub fn example(&self) -> &str {
        self.difference_examples.first().map_or("", String::as_str)
    }

    /// One screen.
    pub fn screen(&self) -> String {
        let mut text = String::new();
        let mut row = |label: &str, figure: String| {
            writeln!(text, "{label:<32}{figure}").expect("writing to a string");
        };
        row("rounds", format!("{} in {:.1} min, seed {}", self.rounds, self.seconds / 60.0, self.seed));
        for (mode, totals) in &self.modes {
            let ModeTotals { rounds, cycles, mutator_faults } = totals;
            row(&format!("  {mode}"), format!("{rounds} rounds, {cycles} cycles, {mutator_faults} faults"));
        }
        let Self { cycles, young_cycles, cycles_without_flip, flips_refused, .. } = self;
        row(
            "cycles",
            format!(
                "{cycles} ({young_cycles} young, {cycles_without_flip} without flip, {flips_refused} flips refused)"
            ),
        );
        row("operations", self.operations.to_string());
        row(
            "allocated / evacuated",
            format!("{} / {}", Bytes(self.allocated_bytes), Bytes(self.evacuated_bytes)),
        );
        row("mutator faults", format!("{}: {}", self.mutator_faults, list(&self.faults_by_path)));
        let forced: u64 = self.forced_answers.values().sum();
        row("forced answers", format!("{forced}: {}", list(&self.forced_answers)));
        row("stress modes acted", list(&self.stress));
        let verified = self.verified_bytes;
        let by = (Bytes(verified.by_checksum), Bytes(verified.by_verifier));
        row("verified by checksum / verifier", format!("{} / {}", by.0, by.1));
        let (start, end) = (self.process.at_start, self.process.at_end);
        row(
            "resident at start / end",
            format!("{} / {}", Bytes(start.resident_bytes), Bytes(end.resident_bytes)),
        );
        let drift = self.process.drift_bytes.map_or("too few rounds".to_owned(), |drift| {
            format!("{}{}", if drift < 0 { "-" } else { "" }, Bytes(drift.unsigned_abs()))
        });
        row("  drift", drift);
        row("descriptors at start / end", format!("{} / {}", start.descriptors, end.descriptors));
        row("threads at start / end", format!("{} / {}", start.threads, end.threads));
        row("mappings at start / end", format!("{} / {}", start.mappings, end.mappings));
        let account = self.account;
        let most = (Bytes(account.largest_untouched_bytes), Bytes(account.largest_uncounted_bytes));
        row("account: untouched / uncounted", format!("{} / {} at most", most.0, most.1));
        row("mismatches", self.mismatches.to_string());
        row("differences", self.differences.to_string());
        self.difference_examples.iter().for_each(|example| row("", example.clone()));
        text
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    parts.join(", ")
}

/// Sums so far.
#[derive(Debug)]
pub struct Totals {
    /// The process before the first round.
    pub at_start: Process,
    /// Bytes that the verifier looked at.
    pub verified_by_verifier: u64,
    /// See [`AccountReport`].
    pub largest_untouched: u64,
    /// See [`AccountReport`].
    pub largest_uncounted: u64,
    report: Report,
    /// By recipe: the checksum, and the round that had it first.
    checksums: BTreeMap<usize, (u64, u64)>,
    /// After each round.
    resident: Vec<u64>,
    /// Mappings after the first rounds.
    settled_mappings: u64,
}

impl Totals {
    /// Nothing yet.
    pub fn new(at_start: Process) -> Self {
        let report = Report {
            seed: 0,
            seconds: 0.0,
            rounds: 0,
            modes: BTreeMap::new(),
            cycles: 0,
            young_cycles: 0,
            cycles_without_flip: 0,
            flips_refused: 0,
            operations: 0,
            allocated_bytes: 0,
            evacuated_bytes: 0,
            mutator_faults: 0,
            faults_by_path: BTreeMap::new(),
            forced_answers: BTreeMap::new(),
            kernel_answers: BTreeMap::new(),
            stress: BTreeMap::new(),
            verified_bytes: VerifiedBytes { by_checksum: 0, by_verifier: 0 },
            process: ProcessReport { at_start, at_end: at_start, drift_bytes: None },
            account: AccountReport { largest_untouched_bytes: 0, largest_uncounted_bytes: 0 },
            mismatches: 0,
            differences: 0,
            difference_examples: vec![],
        };
        Self {
            at_start,
            verified_by_verifier: 0,
            largest_untouched: 0,
            largest_uncounted: 0,
            report,
            checksums: BTreeMap::new(),
            resident: vec![],
            settled_mappings: 0,
        }
    }

    /// Something is not as it must be.
    pub fn difference(&mut self, round: &Round, what: fmt::Arguments<'_>) {
        self.report.differences += 1;
        if self.report.difference_examples.len() < EXAMPLES {
            let (number, mode, seed) = (round.number, round.options.mode, round.plan.seed);
            let line = format!("{what} ({} {mode}; --seed {seed} --round {number})", round.job.name());
            self.report.difference_examples.push(line);
        }
    }

    /// Adds what a heap counted.
    pub fn add(&mut self, round: &Round, snapshot: &Snapshot) {
        let (report, counters) = (&mut self.report, &snapshot.counters);
        let mode = match snapshot.delivery {
            Some(delivery) => format!("{} · {delivery}", snapshot.mode),
            None => snapshot.mode.to_owned(),
        };
        let by_mode = report.modes.entry(mode).or_default();
        by_mode.rounds += 1;
        by_mode.cycles += counters.cycles;
        by_mode.mutator_faults += counters.mutator_faults;
        report.rounds += 1;
        report.cycles += counters.cycles;
        report.young_cycles += counters.young_cycles;
        report.cycles_without_flip += counters.cycles_without_flip;
        report.flips_refused += counters.flips_refused;
        report.allocated_bytes += counters.allocated_bytes;
        report.evacuated_bytes += counters.evacuated_bytes;
        report.mutator_faults += counters.mutator_faults;
        for path in &snapshot.fault_paths {
            let name = format!("{:?}", path.path).to_lowercase();
            *report.faults_by_path.entry(name).or_default() += path.latency_ns.count;
        }
        let add = |into: &mut BTreeMap<String, u64>, counts: &[CallCount]| {
            for count in counts {
                *into.entry(format!("{} {}", count.call, count.answer)).or_default() += count.count;
            }
        };
        add(&mut report.forced_answers, &snapshot.forced_answers);
        add(&mut report.kernel_answers, &snapshot.ioctls);
        for stress in &snapshot.stress {
            *report.stress.entry(stress.mode.to_string()).or_default() += stress.acted;
        }
        if counters.cycles == 0 && round.options.mode != strikeslip::Mode::NoGc {
            self.difference(round, format_args!("nothing was collected"));
        }
    }

    /// Looks at what a workload found.
    pub fn check(&mut self, round: &Round, outcome: &Outcome) {
        self.report.operations += outcome.operations;
        self.report.mismatches += outcome.mismatches.count;
        for example in &outcome.mismatches.examples {
            self.difference(round, format_args!("{example}"));
        }
        self.report.verified_bytes.by_checksum += round.plan.live_bytes;
        let first = *self.checksums.entry(round.recipe).or_insert((outcome.checksum, round.number));
        if first.0 != outcome.checksum {
            let (checksum, expected, earlier) = (outcome.checksum, first.0, first.1);
            self.difference(
                round,
                format_args!("the checksum is {checksum:016x}, and was {expected:016x} in round {earlier}"),
            );
        }
    }

    /// Looks at what is left of a round.
    pub fn round_ended(&mut self, round: &Round, left: Process) {
        let start = self.at_start;
        if left.descriptors > start.descriptors || left.threads > start.threads {
            self.difference(round, format_args!("{left:?} are left, and at the start there were {start:?}"));
        }
        self.resident.push(left.resident_bytes);
        let rounds = self.resident.len();
        if rounds <= FEW_ROUNDS {
            self.settled_mappings = self.settled_mappings.max(left.mappings);
        } else if left.mappings > self.settled_mappings + MOST_MAPPINGS {
            let settled = self.settled_mappings;
            self.difference(round, format_args!("{} mappings are left, and {settled} before", left.mappings));
        }
        self.report.process.at_end = left;
        if let Some(drift) = drift(&self.resident)
            && drift > MOST_DRIFT_BYTES as i64
            && rounds.is_multiple_of(FEW_ROUNDS)
        {
            self.difference(round, format_args!("resident memory has grown by {drift} bytes"));
        }
    }

    /// The report.
    pub fn report(self, settings: &Settings, time: Duration) -> Report {
        let Report { verified_bytes, process, .. } = self.report;
        Report {
            seed: settings.seed,
            seconds: time.as_secs_f64(),
            verified_bytes: VerifiedBytes { by_verifier: self.verified_by_verifier, ..verified_bytes },
            process: ProcessReport { drift_bytes: drift(&self.resident), ..process },
            account: AccountReport {
                largest_untouched_bytes: self.largest_untouched,
                largest_uncounted_bytes: self.largest_uncounted,
            },
            ..self.report
        }
    }
}

/// Growth from the second quarter to the last one, by their medians.
fn drift(resident: &[u64]) -> Option<i64> {
    if resident.len() < FEW_ROUNDS {
        return None;
    }
    let quarter = resident.len() / 4;
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2] as i64
    };
    Some(median(&resident[resident.len() - quarter..]) - median(&resident[quarter..2 * quarter]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_growth_and_no_outlier() {
        assert_eq!(drift(&[5; 10]), None);
        let mut resident = vec![100; 32];
        resident[30] = 100_000;
        assert_eq!(drift(&resident), Some(0));
        let growing: Vec<_> = (0..32).map(|nth| nth * 10).collect();
        assert_eq!(drift(&growing), Some(160));
    }
}
