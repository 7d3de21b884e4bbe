//! Two real kernels, before and after userfaultfd operations went under per-VMA locks, in an emulator.
//!
//! The host's program ([`cli`]) takes kernels and the emulator from Debian's packages ([`packages`]), builds the
//! guest's only program ([`guest`]), which is told what to do ([`task`]), puts it into an [`initramfs`], boots each kernel ([`machine`]), reads what the
//! guest prints ([`console`]) and prints both side by side ([`table`]). Nothing is installed.

pub mod cli;
mod command;
pub mod console;
pub mod error;
pub mod guest;
pub mod initramfs;
pub mod machine;
pub mod packages;
pub mod table;
pub mod task;
