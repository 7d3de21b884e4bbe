//! WIP
use clap::Args;
use serde::Serialize;
use crate::cli::Common;
use crate::error::Error;
/// Options.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Options of all benchmarks
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}
/// Runs.
///
/// # Errors
/// None.
pub fn run(_: &Options) -> Result<(), Error> { Ok(()) }
