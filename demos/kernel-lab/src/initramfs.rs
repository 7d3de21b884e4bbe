//! The guest's root file system: an archive that the kernel unpacks into memory (`newc`), with one program in it.

use std::io;
use std::path::Path;

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

use crate::error::Error;

/// Where the guest's program mounts file systems of the kernel's.
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "sys", "tmp"];
/// Device number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);
/// Read, write, enter, for everybody.
const FOLDER_MODE: u32 = 0o755;

/// An archive with `program` as `/init`.
///
/// # Errors
/// The program is too large for the format.
pub fn archive(program: &[u8]) -> io::Result<Vec<u8>> {
    let entry = |name: &str, kind: ModeFileType, mode: u32| {
        NewcBuilder::new(name).mode(mode).set_mode_file_type(kind)
    };
    let mut archive = vec![];
    for folder in MOUNT_POINTS {
        archive = entry(folder, ModeFileType::Directory, FOLDER_MODE).write(archive, 0).finish()?;
    }
    // The kernel opens it for `/init` before there is a /dev.
    let console = entry("dev/console", ModeFileType::Char, 0o600);
    archive = console.rdev_major(CONSOLE.0).rdev_minor(CONSOLE.1).write(archive, 0).finish()?;
    let size = u32::try_from(program.len()).map_err(|_| io::Error::other("the program is too large"))?;
    let mut writer = entry("init", ModeFileType::Regular, 0o755).write(archive, size);
    io::Write::write_all(&mut writer, program)?;
    trailer(writer.finish()?)
}

/// Writes an archive with the program at `program` as `/init`.
///
/// # Errors
/// One of the files cannot be read or written.
pub fn write(program: &Path, to: &Path) -> Result<(), Error> {
    let program_bytes = std::fs::read(program).map_err(Error::at(program))?;
    let archive = archive(&program_bytes).map_err(Error::at(to))?;
    std::fs::write(to, archive).map_err(Error::at(to))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use cpio::NewcReader;

    use super::*;

    #[test]
    fn the_program_is_there_and_can_be_run() {
        let program = [b'x'; 4_099];
        let archive = archive(&program).unwrap();
        let mut rest = &archive[..];
        let mut names = vec![];
        loop {
            let mut reader = NewcReader::new(rest).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                break;
            }
            let mut contents = vec![];
            reader.read_to_end(&mut contents).unwrap();
            match entry.name() {
                "init" => {
                    assert_eq!(contents, program);
                    assert_eq!(entry.mode(), 0o100_755);
                }
                "dev/console" => {
                    assert_eq!((entry.rdev_major(), entry.rdev_minor()), CONSOLE);
                    assert_eq!(entry.mode(), 0o020_600);
                }
                _ => assert_eq!((entry.mode(), contents.len()), (0o040_755, 0)),
            }
            names.push(entry.name().to_owned());
            rest = reader.finish().unwrap();
        }
        assert_eq!(names, ["dev", "proc", "sys", "tmp", "dev/console", "init"]);
    }
}
