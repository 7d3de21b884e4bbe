//! The program without a boot: bad options, missing commands, and the question, each in one line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Runs it with nobody to ask.
fn run(change: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernel-lab"));
    change(command.stdin(Stdio::null())).output().expect("it can be run")
}

/// A folder with links to commands that are found on this machine, as a path; removed again.
struct Commands(PathBuf);

impl Commands {
    fn new(name: &str, commands: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("kernel-lab-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (command, to) in commands {
            symlink(to, folder.join(command)).unwrap();
        }
        Self(folder)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All commands that are needed; none of them does anything.
const ALL: [(&str, &str); 7] = [
    ("apt-get", "/bin/false"),
    ("apt-cache", "/bin/false"),
    ("dpkg-deb", "/bin/false"),
    ("tar", "/bin/false"),
    ("cargo", "/bin/false"),
    ("rustc", "/bin/false"),
    ("cc", "/bin/false"),
];

fn one_line(output: &Output) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors.trim_end().to_owned()
}

#[test]
fn bad_options_are_refused_in_one_line() {
    for arguments in
        [&["--what"][..], &["--rounds", "0"], &["--live", "x"], &["--processors", "1"], &["more"]]
    {
        let output = run(|command| command.args(arguments));
        assert!(one_line(&output).starts_with("kernel-lab: "), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn each_missing_command_is_named_before_anything_is_done() {
    for missing in 0..ALL.len() {
        let mut rest = ALL.to_vec();
        let (name, _) = rest.remove(missing);
        let commands = Commands::new(&format!("without-{name}"), &rest);
        let output = run(|command| command.arg("--yes").env("PATH", &commands.0));
        assert!(one_line(&output).starts_with(&format!("kernel-lab: {name} is missing: ")), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn it_says_what_it_needs_and_nobody_there_to_ask_means_no() {
    let commands = Commands::new("asks", &ALL);
    let output = run(|command| command.env("PATH", &commands.0));
    assert_eq!(one_line(&output), "kernel-lab: nothing was done");
    let needs = String::from_utf8(output.stdout).unwrap();
    assert!(needs.contains("downloads about 78 MB of packages"), "{needs}");
    assert!(needs.contains("Nothing is installed"), "{needs}");
}

#[test]
fn a_step_that_fails_ends_it_in_one_line_and_leaves_no_folder() {
    let commands = Commands::new("fails", &ALL);
    let folder = commands.0.join("folder");
    let output = run(|command| command.args(["--yes", "--folder"]).arg(&folder).env("PATH", &commands.0));
    assert_eq!(one_line(&output), "kernel-lab: rustc -vV: exit status: 1");
    assert!(!folder.join("kernel-lab").exists());
}

#[test]
fn the_guests_program_is_not_for_people() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernel-lab-init"));
    let output = command.output().unwrap();
    assert!(one_line(&output).starts_with("kernel-lab-init: "));
}
