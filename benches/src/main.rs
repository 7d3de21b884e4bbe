//! The program `strikeslip-bench`. See the library for what it measures.

fn main() -> std::process::ExitCode {
    strikeslip_bench::cli::main()
}
