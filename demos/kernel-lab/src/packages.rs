//! Kernels and the emulator, from Debian's packages.
//!
//! Packages are downloaded and unpacked into a folder of our own. Nothing is installed, so nothing can be removed
//! for it, and no privilege is needed.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, unpack};
use crate::error::Error;

/// Package of the emulator.
const EMULATOR: &str = "qemu-system-x86";

/// The newest package that is a cloud kernel of a series, as in `6.1`. Its name has the exact version, and rotates.
///
/// # Errors
/// The system knows none.
pub fn newest_kernel(series: &str) -> Result<String, Error> {
    let pattern = format!(r"^linux-image-{}\.[0-9].*-cloud-amd64$", series.replace('.', r"\."));
    let found = output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    newest(&found, series).ok_or(Error::NoPackage { pattern })
}

/// The newest of the kernels of a series among lines `NAME - description`.
fn newest(found: &str, series: &str) -> Option<String> {
    let prefix = format!("linux-image-{series}.");
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    let kernels = names.filter(|name| name.starts_with(&prefix) && name.ends_with("-cloud-amd64"));
    kernels.max_by(|a, b| by_version(a, b)).map(ToOwned::to_owned)
}

/// Orders names by the numbers in them: `6.1.0-9` is before `6.1.0-10`.
fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|character: char| !character.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b))
}

/// Downloads a kernel's package and keeps the kernel itself, a file of some megabytes, in `to`.
///
/// # Errors
/// The package cannot be had, or has no kernel.
pub fn fetch_kernel(package: &str, to: &Path) -> Result<PathBuf, Error> {
    let folder = to.join(package);
    let found = find(&folder.join("boot"), "vmlinuz-");
    if let Some(kernel) = found {
        return Ok(kernel);
    }
    make(&folder)?;
    for file in download(&[package.to_owned()], &folder)? {
        unpack(&file, "./boot/vmlinuz-*", &folder)?;
        fs::remove_file(&file).map_err(Error::at(&file))?;
    }
    let boot = folder.join("boot");
    find(&boot, "vmlinuz-")
        .ok_or_else(|| Error::Contents { package: package.to_owned(), file: "/boot/vmlinuz-*" })
}

/// An emulator: its program, and where its libraries and firmware are if they are not the system's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emulator {
    /// The program.
    pub program: PathBuf,
    /// Root of a private copy.
    pub root: Option<PathBuf>,
}

impl Emulator {
    /// What it is called.
    pub const COMMAND: &str = "qemu-system-x86_64";

    fn private(root: &Path) -> Self {
        Self { program: root.join("usr/bin").join(Self::COMMAND), root: Some(root.to_owned()) }
    }
}

/// The system's emulator if there is one, else a private copy in `to`: its packages, and those that it needs and
/// this system has not.
///
/// # Errors
/// A package cannot be had.
pub fn fetch_emulator(to: &Path) -> Result<Emulator, Error> {
    if crate::command::is_there(Emulator::COMMAND) {
        return Ok(Emulator { program: Emulator::COMMAND.into(), root: None });
    }
    let root = to.join("qemu");
    let emulator = Emulator::private(&root);
    if emulator.program.is_file() {
        return Ok(emulator);
    }
    let (downloads, unpacking) = (to.join("qemu-packages"), to.join("qemu-unpacking"));
    make(&downloads)?;
    make(&unpacking)?;
    // Of what apt would do, only the list is taken: it may want to remove something, which does not concern us.
    let plan =
        output(Command::new("apt-get").args(["install", "--simulate", "--no-install-recommends", EMULATOR]))?;
    for file in download(&to_install(&plan), &downloads)? {
        unpack(&file, "./*", &unpacking)?;
    }
    fs::remove_dir_all(&downloads).map_err(Error::at(&downloads))?;
    // Last, so that a copy that is there is whole.
    fs::rename(&unpacking, &root).map_err(Error::at(&root))?;
    if emulator.program.is_file() {
        return Ok(emulator);
    }
    Err(Error::Contents { package: EMULATOR.to_owned(), file: Emulator::COMMAND })
}

/// Packages that apt would install, from what it says in a simulation.
fn to_install(plan: &str) -> Vec<String> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .map(ToOwned::to_owned)
        .collect()
}

/// Downloads packages into a folder that is empty. Their files.
fn download(packages: &[String], to: &Path) -> Result<Vec<PathBuf>, Error> {
    output(Command::new("apt-get").arg("download").args(packages).current_dir(to))?;
    let entries = fs::read_dir(to).map_err(Error::at(to))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "deb"));
    files.sort();
    Ok(files)
}

/// The file in a folder whose name begins so.
fn find(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
}

/// Makes a folder anew.
fn make(folder: &Path) -> Result<(), Error> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::at(folder))?;
    }
    fs::create_dir_all(folder).map_err(Error::at(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: &str = "\
linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.1.0-47-cloud-amd64-dbg - Debug symbols for linux-image-6.1.0-47-cloud-amd64
linux-image-6.1.0-56-cloud-amd64-unsigned - Linux 6.1 for x86-64 cloud
linux-image-6.1.0-50-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.12.107+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
";

    #[test]
    fn the_newest_kernel_of_a_series_is_taken() {
        assert_eq!(newest(FOUND, "6.1").as_deref(), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest(FOUND, "6.12").as_deref(), Some("linux-image-6.12.107+deb12-cloud-amd64"));
        assert_eq!(newest(FOUND, "6.18"), None);
        assert_eq!(newest("", "6.1"), None);
    }

    #[test]
    fn of_apts_plan_only_the_list_is_taken() {
        let plan = "Reading package lists...\nThe following packages will be REMOVED:\n  qemu-utils\n\
                    Remv qemu-utils [1:10.0]\nInst seabios (1.16.2-1 Debian:12 [all])\n\
                    Inst qemu-system-x86 (1:7.2 Debian:12 [amd64])\nConf seabios (1.16.2-1)\n";
        assert_eq!(to_install(plan), ["seabios", "qemu-system-x86"]);
        assert_eq!(to_install(""), [] as [&str; 0]);
    }
}
