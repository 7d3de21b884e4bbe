//! A run in a process of its own: the plan goes to it as an argument, what it measured comes back on its
//! standard output.

use std::process::{Command, Stdio};

use super::once::{self, Plan};
use super::result::Run;
use crate::error::Error;

/// Name of the hidden command.
const COMMAND: &str = "once";

/// Runs a plan in a process of its own.
///
/// # Errors
/// [`Error::Child`] if it cannot be started or fails; its reason is on standard error.
pub fn run(plan: &Plan) -> Result<Run, Error> {
    let failed = |reason: String| Error::Child { case: plan.case.to_string(), reason };
    let child = command(plan).map_err(failed)?.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let child = child.map_err(|error| failed(format!("cannot be started: {error}")))?;
    if !child.status.success() {
        return Err(failed(format!("ended with {}", child.status)));
    }
    serde_json::from_slice(&child.stdout)
        .map_err(|error| failed(format!("its answer cannot be read: {error}")))
}

/// The command that runs a plan and prints a [`Run`].
///
/// # Errors
/// A sentence that says why there is none.
pub fn command(plan: &Plan) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program is not found: {error}"))?;
    let plan = serde_json::to_string(plan).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args([COMMAND, &plan]);
    Ok(command)
}

/// What the process does: runs the plan that it was given, and prints what was measured.
///
/// # Errors
/// [`Error`].
pub fn answer(plan: &str) -> Result<(), Error> {
    let failed =
        |error: serde_json::Error| Error::Child { case: COMMAND.to_owned(), reason: error.to_string() };
    let plan: Plan = serde_json::from_str(plan).map_err(failed)?;
    let run = once::run(&plan)?;
    println!("{}", serde_json::to_string(&run).map_err(failed)?);
    Ok(())
}
