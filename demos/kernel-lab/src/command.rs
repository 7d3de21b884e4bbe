//! Running other programs, with what they say as the error.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::Error;

/// Runs a command to its end, which must be a good one, and gives its standard output.
///
/// # Errors
/// It cannot be run, or fails: with its last line on standard error.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(command, error.to_string()))?;
    check(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes the files of a Debian package that fit `pattern` below `to`.
///
/// # Errors
/// The package cannot be read, or nothing in it fits.
pub(crate) fn unpack(package: &Path, pattern: &str, to: &Path) -> Result<(), Error> {
    let mut reading = Command::new("dpkg-deb");
    reading.arg("--fsys-tarfile").arg(package);
    extract(reading, pattern, to)
}

/// Writes the files that fit `pattern`, of the archive that `reading` writes, below `to`.
fn extract(mut reading: Command, pattern: &str, to: &Path) -> Result<(), Error> {
    reading.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reader = reading.spawn().map_err(|error| failed(&reading, error.to_string()))?;
    let mut writing = Command::new("tar");
    // The folder first: it is for the names behind it.
    writing.arg("--directory").arg(to).args(["--extract", "--no-same-owner", "--wildcards", pattern]);
    let archive = reader.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let written = writing.stdin(archive).output().map_err(|error| failed(&writing, error.to_string()))?;
    let read = reader.wait_with_output().map_err(|error| failed(&reading, error.to_string()))?;
    check(&reading, &read)?;
    check(&writing, &written)
}

/// That a command ended well.
fn check(command: &Command, output: &Output) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = last_line(&said).map_or_else(|| output.status.to_string(), ToOwned::to_owned);
    Err(failed(command, reason))
}

/// A command's error.
pub(crate) fn failed(command: &Command, reason: String) -> Error {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .take(4)
        .map(|word| word.to_string_lossy())
        .collect();
    Error::Command { command: words.join(" "), reason }
}

/// Whether a program of this name is on the path.
pub(crate) fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_command_that_fails_says_why_in_one_line() {
        let error =
            output(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo first >&2; echo last >&2; exit 3: last");
        let error = output(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3"), "{error}");
        let error = output(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().starts_with("no-such-program: No such file"), "{error}");
    }

    #[test]
    fn what_is_on_the_path_is_found() {
        assert!(is_there("sh"));
        assert!(!is_there("no-such-program"));
    }

    #[test]
    fn what_fits_is_unpacked_where_it_belongs() {
        let folder = std::env::temp_dir().join(format!("kernel-lab-unpack-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::create_dir_all(from.join("boot")).unwrap();
        fs::create_dir_all(&to).unwrap();
        for name in ["vmlinuz-6.1", "config-6.1"] {
            fs::write(from.join("boot").join(name), name).unwrap();
        }
        let archive = || {
            let mut reading = Command::new("tar");
            reading.arg("--directory").arg(&from).args(["--create", "./boot"]);
            reading
        };
        extract(archive(), "./boot/vmlinuz-*", &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("boot/vmlinuz-6.1")).unwrap(), "vmlinuz-6.1");
        assert!(!to.join("boot/config-6.1").exists());
        let error = extract(archive(), "./etc/*", &to).unwrap_err();
        assert!(error.to_string().starts_with("tar --directory "), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let mut reading = Command::new("sh");
        reading.args(["-c", "echo no package >&2; exit 2"]);
        let error = extract(reading, "./*", &std::env::temp_dir()).unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo no package >&2; exit 2: no package");
    }
}
