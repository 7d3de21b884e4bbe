//! The report for programs. Its keys are documented in `demos/JSON.md` and do not change.
//!
//! The file is written beside its final place and renamed, so nobody ever reads half of it; it is
//! opened before the run, so that a bad path is known at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use strikeslip::gc::stats::{
    CallCount, CounterValues, FaultPathStatistics, Memory, Percentiles, PhaseStatistics,
};
use strikeslip::gc::stress::StressCount;

use crate::corpus::Skipped;
use crate::noise::Noise;
use crate::run::Finished;

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    run: RunReport<'a>,
    /// The stop-the-world run with the same seed, if there was one.
    compare: Option<RunReport<'a>>,
    /// Files of the directory that were not indexed.
    skipped: Option<Skipped>,
}

/// One run.
#[derive(Debug, Serialize)]
struct RunReport<'a> {
    mode: &'a str,
    delivery: Option<&'a str>,
    choice: &'a str,
    cycles: u64,
    mutator_faults: u64,
    pause_ns: Percentiles,
    stopped_ns: Percentiles,
    safepoint_ns: Percentiles,
    memory_wait_ns: Percentiles,
    fault_ns: Percentiles,
    fault_paths: &'a [FaultPathStatistics],
    phases: &'a [PhaseStatistics],
    bytes: BytesReport,
    ioctls: &'a [CallCount],
    forced_answers: &'a [CallCount],
    stress: &'a [StressCount],
    counters: CounterValues,
    memory: Memory,
    live_bytes: u64,
    heap_bytes: u64,
    used_before_bytes: u64,
    used_after_bytes: u64,
    peak_resident_bytes: u64,
    #[serde(flatten)]
    noise: Noise,
    workload: WorkloadReport<'a>,
}

#[derive(Debug, Serialize)]
struct BytesReport {
    allocated: u64,
    evacuated: u64,
    moved: u64,
    copied: u64,
    patched: u64,
    built_in_place: u64,
}

#[derive(Debug, Serialize)]
struct WorkloadReport<'a> {
    name: &'a str,
    seed: u64,
    mutators: usize,
    operations: u64,
    seconds: f64,
    /// In hexadecimal: not every reader of JSON keeps 64 bits.
    checksum: String,
    mismatches: u64,
    mismatch_examples: &'a [String],
    index: Option<IndexReport>,
}

#[derive(Debug, Serialize)]
struct IndexReport {
    documents: u64,
    words: u64,
    postings: u64,
    build_seconds: f64,
    text_bytes: u64,
    replaced_documents: u64,
    replaced_bytes: u64,
    checked_documents: u64,
    queries: u64,
    cached_answers: u64,
    query_ns: BTreeMap<&'static str, u64>,
}

impl<'a> Report<'a> {
    /// A report of a run and of the one that it is compared with.
    #[must_use]
    pub fn new(main: &'a Finished, compare: Option<&'a Finished>, skipped: Option<Skipped>) -> Self {
        Self { run: RunReport::new(main), compare: compare.map(RunReport::new), skipped }
    }
}

impl<'a> RunReport<'a> {
    fn new(finished: &'a Finished) -> Self {
        let Finished { choice, snapshot, outcome, noise, .. } = finished;
        let counters = snapshot.counters;
        Self {
            mode: snapshot.mode,
            delivery: snapshot.delivery,
            choice,
            cycles: counters.cycles,
            mutator_faults: counters.mutator_faults,
            pause_ns: snapshot.pause_ns,
            stopped_ns: snapshot.stopped_ns,
            safepoint_ns: snapshot.safepoint_ns,
            memory_wait_ns: snapshot.memory_wait_ns,
            fault_ns: snapshot.fault_ns,
            fault_paths: &snapshot.fault_paths,
            phases: &snapshot.phases,
            bytes: BytesReport {
                allocated: counters.allocated_bytes,
                evacuated: counters.evacuated_bytes,
                moved: counters.moved_bytes,
                copied: counters.copied_bytes,
                patched: counters.patched_bytes,
                built_in_place: counters.built_in_place_bytes,
            },
            ioctls: &snapshot.ioctls,
            forced_answers: &snapshot.forced_answers,
            stress: &snapshot.stress,
            counters,
            memory: snapshot.memory,
            live_bytes: snapshot.memory.live_bytes,
            heap_bytes: snapshot.memory.limit_bytes,
            used_before_bytes: outcome.used_before_bytes,
            used_after_bytes: outcome.used_after_bytes,
            peak_resident_bytes: snapshot.memory.peak_resident_bytes,
            noise: *noise,
            workload: WorkloadReport::new(finished),
        }
    }
}

impl<'a> WorkloadReport<'a> {
    fn new(finished: &'a Finished) -> Self {
        let outcome = &finished.outcome;
        Self {
            name: finished.workload,
            seed: finished.plan.seed,
            mutators: finished.plan.mutators,
            operations: outcome.operations,
            seconds: outcome.time.as_secs_f64(),
            checksum: format!("{:016x}", outcome.checksum),
            mismatches: outcome.mismatches.count,
            mismatch_examples: &outcome.mismatches.examples,
            index: outcome.index.as_ref().map(|index| IndexReport {
                documents: index.documents,
                words: index.words,
                postings: index.postings,
                build_seconds: index.build.0.as_secs_f64(),
                text_bytes: index.build.1,
                replaced_documents: index.replaced.0,
                replaced_bytes: index.replaced.1,
                checked_documents: index.checked,
                queries: index.query_ns.len(),
                cached_answers: index.cached,
                query_ns: [
                    ("count", index.query_ns.len()),
                    ("p50", index.query_ns.value_at_quantile(0.5)),
                    ("p99", index.query_ns.value_at_quantile(0.99)),
                    ("p999", index.query_ns.value_at_quantile(0.999)),
                    ("max", index.query_ns.max()),
                ]
                .into(),
            }),
        }
    }
}

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// A place for a report, known to be writable.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<File>,
}

impl Output {
    /// Opens a file beside `path`.
    ///
    /// # Errors
    /// [`WriteError`] if that is not possible.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        let error = |source| WriteError { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(error(io::ErrorKind::IsADirectory.into()));
        }
        let Some(name) = path.file_name() else { return Err(error(io::ErrorKind::InvalidFilename.into())) };
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let file = File::create(&temporary).map_err(error)?;
        Ok(Self { path: path.to_owned(), temporary, file: Some(file) })
    }

    /// Writes `value` and puts the file into its place.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(self, value: &impl Serialize) -> Result<(), WriteError> {
        self.write_with(|file| {
            serde_json::to_writer_pretty(&mut *file, value)?;
            file.write_all(b"\n")
        })
    }

    /// As [`Self::write`], on one line: for what nobody reads as text.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_line(self, value: &impl Serialize) -> Result<(), WriteError> {
        self.write_with(|file| {
            serde_json::to_writer(&mut *file, value)?;
            file.write_all(b"\n")
        })
    }

    /// Writes a text and puts the file into its place.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_text(self, text: &str) -> Result<(), WriteError> {
        self.write_with(|file| file.write_all(text.as_bytes()))
    }

    fn write_with(
        mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let mut file = BufWriter::new(file);
        let written = (|| {
            write(&mut file)?;
            file.flush()?;
            file.get_ref().sync_all()?;
            fs::rename(&self.temporary, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&self.temporary);
        }
        written.map_err(|source| WriteError { path: self.path.clone(), source })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Nothing was written: leave no trace.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
