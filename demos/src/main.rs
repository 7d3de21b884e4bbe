//! The program `strikeslip`. See the library for what it does.

fn main() -> std::process::ExitCode {
    strikeslip_demos::cli::main()
}
