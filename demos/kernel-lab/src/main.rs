//! The program on the host. See README.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    kernel_lab::cli::main()
}
