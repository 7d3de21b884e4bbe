//! The emulated machine: boots a kernel with the guest's program, and collects what it tells.
//!
//! Emulation only (no KVM), no disk, no network. The kernel's command line has what a first try found out:
//! isolation of page tables and reads of an emulated timer are dear in emulation, so both are off.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::command::failed;
use crate::console::{Line, Row};
use crate::error::Error;
use crate::packages::Emulator;

/// Memory of the machine.
const MEMORY: &str = "1024M";
/// What the kernel is told; what follows `--` goes to `/init`. It takes 32 arguments for `/init` and panics at one
/// more, so all options travel as one.
const KERNEL_OPTIONS: &str =
    "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc nokaslr rdinit=/init --";
/// Where Debian's packages keep firmware.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
/// Where they keep libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// A boot.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The emulator.
    pub emulator: &'a Emulator,
    /// The kernel.
    pub kernel: &'a Path,
    /// The archive with the guest's program.
    pub initramfs: &'a Path,
    /// Processors.
    pub processors: usize,
    /// What the guest's program is to do, in one word.
    pub task: &'a str,
    /// Where the console is kept.
    pub log: PathBuf,
    /// After which it is ended.
    pub limit: Duration,
}

/// What a guest told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// The kernel's release.
    pub release: String,
    /// What could not be measured.
    pub notes: Vec<String>,
    /// A row for each storm.
    pub rows: Vec<Row>,
}

impl Boot<'_> {
    /// Boots, and waits until the guest has told all.
    ///
    /// # Errors
    /// The emulator cannot be run, the guest failed, or it took too long.
    pub fn run(&self) -> Result<Told, Error> {
        let mut command = self.command();
        end_with_this_thread(&mut command);
        let mut emulator = Running(command.spawn().map_err(|error| failed(&command, error.to_string()))?);
        let console = emulator.0.stdout.take().expect("the console is a pipe");
        let (send, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let told = self.collect(&lines);
        drop(emulator);
        let _ = reader.join();
        told
    }

    fn collect(&self, lines: &mpsc::Receiver<String>) -> Result<Told, Error> {
        let mut log = File::create(&self.log).map_err(Error::at(&self.log))?;
        let end = Instant::now() + self.limit;
        let mut told = Told::default();
        let mut last = String::new();
        loop {
            let line = match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::TimedOut {
                        kernel: self.name(),
                        limit: self.limit,
                        log: self.log.clone(),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure(last)),
            };
            writeln!(log, "{}", line.trim_end()).map_err(Error::at(&self.log))?;
            match Line::parse(&line) {
                Some(Line::Begin { release, notes }) => told = Told { release, notes, rows: vec![] },
                Some(Line::Row(row)) => told.rows.push(row),
                Some(Line::End) => return Ok(told),
                Some(Line::Failed(reason)) => return Err(self.failure(reason)),
                None if line.trim().is_empty() => {}
                None => line.trim().clone_into(&mut last),
            }
        }
    }

    fn failure(&self, reason: String) -> Error {
        Error::Guest { kernel: self.name(), reason, log: self.log.clone() }
    }

    fn name(&self) -> String {
        self.kernel.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The command that boots.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.emulator.program);
        if let Some(root) = &self.emulator.root {
            for firmware in FIRMWARE {
                command.arg("-L").arg(root.join(firmware));
            }
            let libraries = LIBRARIES.map(|folder| root.join(folder));
            command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default());
        }
        command.args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY]);
        command.args(["-smp", &self.processors.to_string()]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        command.args(["-append", &format!("{KERNEL_OPTIONS} {}", self.task)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

/// Has the system end the process if this one is killed and cannot do it.
fn end_with_this_thread(command: &mut Command) {
    let ask = || Ok(set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: after the fork, the closure makes one system call; it neither allocates nor locks.
    unsafe { command.pre_exec(ask) };
}

/// A process that is ended when this goes.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already at its end, or of no use any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Removes a folder with all that is in it, if it is there.
///
/// # Errors
/// It cannot be removed.
pub fn remove(folder: &Path) -> Result<(), Error> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(Error::at(folder)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot with a script in place of the emulator.
    fn boot(name: &str, script: &str, limit: Duration) -> Result<Told, Error> {
        let folder = std::env::temp_dir().join(format!("kernel-lab-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("emulator");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let emulator = Emulator { program, root: None };
        let (kernel, initramfs) = (folder.join("vmlinuz-test"), folder.join("initramfs"));
        let log = folder.join("log");
        let told = Boot {
            emulator: &emulator,
            kernel: &kernel,
            initramfs: &initramfs,
            processors: 2,
            task: "word",
            log: log.clone(),
            limit,
        }
        .run();
        if told.is_ok() {
            assert!(fs::read_to_string(&log).unwrap().contains("Linux"));
        }
        fs::remove_dir_all(&folder).unwrap();
        told
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn rows_are_collected_until_the_end() {
        let row = Row { storm: "map".to_owned(), ..Row::default() };
        let begin = Line::Begin { release: "6.1".into(), notes: vec![] };
        let script = format!(
            "echo Linux; echo '{begin}'; echo '{}'; echo '{}'; exec sleep 1000",
            Line::Row(row.clone()),
            Line::End
        );
        let told = boot("rows", &script, LONG).unwrap();
        assert_eq!(told, Told { release: "6.1".into(), notes: vec![], rows: vec![row] });
    }

    #[test]
    fn a_guest_that_fails_says_why() {
        let script = format!("echo '{}'", Line::Failed("no memory".into()));
        let error = boot("fails", &script, LONG).unwrap_err();
        assert!(error.to_string().starts_with("vmlinuz-test ended without a result: no memory; "), "{error}");
    }

    #[test]
    fn of_a_guest_that_ends_early_the_last_line_is_told() {
        let error = boot("early", "echo 'Kernel panic'; echo", LONG).unwrap_err();
        assert!(error.to_string().contains("without a result: Kernel panic; "), "{error}");
    }

    #[test]
    fn a_guest_that_hangs_is_ended() {
        let error = boot("hangs", "exec sleep 1000", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }
}
