//! Faults from outside: a kernel that refuses, limits that are reached, forks, signals, system calls on heap
//! memory, neighbours in the process. Everything on the real kernel, with mutators whose graphs are compared
//! with their models.
//!
//! What changes the process for good runs in a child: this test binary again, with one test.

mod child;
mod toy_embedder;

#[path = "outside/denied.rs"]
mod denied;
#[path = "outside/forks.rs"]
mod forks;
#[path = "outside/load.rs"]
mod load;
#[path = "outside/memory.rs"]
mod memory;
#[path = "outside/neighbours.rs"]
mod neighbours;
#[path = "outside/resources.rs"]
mod resources;
#[path = "outside/sigbus.rs"]
mod sigbus;
#[path = "outside/storms.rs"]
mod storms;
#[path = "outside/syscalls.rs"]
mod syscalls;
