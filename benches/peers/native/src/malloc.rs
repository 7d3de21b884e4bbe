//! The workloads with the system's allocator.

fn main() -> std::io::Result<()> {
    peers_native::main()
}
