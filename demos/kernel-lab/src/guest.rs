//! Building the guest's only program: this repository's collector, with the contention experiment, as `/init`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::command::{failed, output};
use crate::error::Error;

/// The program's name.
const PROGRAM: &str = "kernel-lab-init";
/// A static program without symbols: the guest has no libraries, and unpacks it into memory.
const FLAGS: &str = "-C target-feature=+crt-static -C strip=symbols";

/// Builds it, static, for this machine. Where it is.
///
/// # Errors
/// Cargo fails, or is not there.
pub fn build() -> Result<PathBuf, Error> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = host(&version).ok_or_else(|| Error::Machine("rustc names no host".to_owned()))?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--quiet", "--message-format", "json", "--bin", PROGRAM]);
    command.arg("--manifest-path").arg(manifest);
    // With a target named, the flags are not for build scripts and macros, which are loaded and cannot be static.
    command.args(["--target", host]).env("RUSTFLAGS", FLAGS);
    let messages = output(&mut command)?;
    executable(&messages).ok_or_else(|| failed(&command, "it names no program".to_owned()))
}

/// The program that cargo says it made, in the last of its messages that names one.
fn executable(messages: &str) -> Option<PathBuf> {
    let path = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    messages.lines().rev().find_map(path)
}

/// The machine that a compiler runs on, from what it says of itself.
fn host(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_its_program() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/target/kernel-lab-init"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/target/kernel-lab-init".into()));
        assert_eq!(executable("{}\nno JSON"), None);
    }

    #[test]
    fn the_compiler_names_its_host() {
        let version = "rustc 1.91.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.91.0\n";
        assert_eq!(host(version), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host("rustc 1.91.0"), None);
    }
}
