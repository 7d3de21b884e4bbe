//! What the tests of the binary share: running it, and reading what it wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A directory that is removed again.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty directory for the test `name`.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("strikeslip-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory can be made");
        Self(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in the directory")).expect("a directory can be made");
        fs::write(path, contents).expect("a file can be written");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the program.
pub fn strikeslip(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strikeslip")).args(arguments).output().expect("the program can be run")
}

/// Runs the program, which must succeed, and reads its report.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn report(file: &Path, arguments: &[&str]) -> Value {
    let file = file.to_str().expect("a path in UTF-8");
    let output = strikeslip(&[arguments, &["--quiet", "--json", file]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}: {errors}", output.status);
    assert_eq!(errors, "", "{arguments:?}");
    let text = fs::read_to_string(file).expect("the report was written");
    serde_json::from_str(&text).expect("the report is JSON")
}
