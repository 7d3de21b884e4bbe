//! Declarations of `linux/userfaultfd.h`, written out by hand.
//!
//! Stands in for the published crate of this name and version, which generates the same
//! declarations with bindgen and so needs libclang. Only declarations: no code, no build script.
//! Names and types are those that bindgen would give them, because the `userfaultfd` crate is
//! compiled against them. Newer than the published crate: everything of the header as of
//! Linux 6.8, which brought [`uffdio_move`].
//!
//! Invariant: sizes, offsets and request codes equal the kernel's; they are its ABI. Assertions at
//! the end of this file check them at compile time.

#![no_std]
#![allow(non_camel_case_types)]

/// Type byte of the ioctls of `/dev/userfaultfd`.
pub const USERFAULTFD_IOC: u32 = 0xAA;
/// `ioctl` request on `/dev/userfaultfd`: a new descriptor, with the system call's flags as argument.
pub const USERFAULTFD_IOC_NEW: u32 = 0xAA00;
/// Type byte of the ioctls of a userfaultfd.
pub const UFFDIO: u32 = 0xAA;
/// The only version of the interface.
pub const UFFD_API: u64 = 0xAA;
/// Flag of the system call: the descriptor serves only faults taken in user mode (Linux 5.11).
pub const UFFD_USER_MODE_ONLY: u32 = 1;

/// Number of `UFFDIO_REGISTER`.
pub const _UFFDIO_REGISTER: u32 = 0x00;
/// Number of `UFFDIO_UNREGISTER`.
pub const _UFFDIO_UNREGISTER: u32 = 0x01;
/// Number of `UFFDIO_WAKE`.
pub const _UFFDIO_WAKE: u32 = 0x02;
/// Number of `UFFDIO_COPY`.
pub const _UFFDIO_COPY: u32 = 0x03;
/// Number of `UFFDIO_ZEROPAGE`.
pub const _UFFDIO_ZEROPAGE: u32 = 0x04;
/// Number of `UFFDIO_MOVE`.
pub const _UFFDIO_MOVE: u32 = 0x05;
/// Number of `UFFDIO_WRITEPROTECT`.
pub const _UFFDIO_WRITEPROTECT: u32 = 0x06;
/// Number of `UFFDIO_CONTINUE`.
pub const _UFFDIO_CONTINUE: u32 = 0x07;
/// Number of `UFFDIO_POISON`.
pub const _UFFDIO_POISON: u32 = 0x08;
/// Number of `UFFDIO_API`.
pub const _UFFDIO_API: u32 = 0x3F;

/// Agrees on the interface; see [`uffdio_api`].
pub const UFFDIO_API: u32 = read_write(_UFFDIO_API, size_of::<uffdio_api>());
/// Registers a range; see [`uffdio_register`].
pub const UFFDIO_REGISTER: u32 = read_write(_UFFDIO_REGISTER, size_of::<uffdio_register>());
/// Ends the registration of a range; see [`uffdio_range`].
pub const UFFDIO_UNREGISTER: u32 = read(_UFFDIO_UNREGISTER, size_of::<uffdio_range>());
/// Wakes the threads that wait for a page of a range; see [`uffdio_range`].
pub const UFFDIO_WAKE: u32 = read(_UFFDIO_WAKE, size_of::<uffdio_range>());
/// Installs copies of pages; see [`uffdio_copy`].
pub const UFFDIO_COPY: u32 = read_write(_UFFDIO_COPY, size_of::<uffdio_copy>());
/// Installs zero pages; see [`uffdio_zeropage`].
pub const UFFDIO_ZEROPAGE: u32 = read_write(_UFFDIO_ZEROPAGE, size_of::<uffdio_zeropage>());
/// Installs pages by moving them; see [`uffdio_move`].
pub const UFFDIO_MOVE: u32 = read_write(_UFFDIO_MOVE, size_of::<uffdio_move>());
/// Changes write protection; see [`uffdio_writeprotect`].
pub const UFFDIO_WRITEPROTECT: u32 = read_write(_UFFDIO_WRITEPROTECT, size_of::<uffdio_writeprotect>());
/// Maps pages that are in the page cache; see [`uffdio_continue`].
pub const UFFDIO_CONTINUE: u32 = read_write(_UFFDIO_CONTINUE, size_of::<uffdio_continue>());
/// Marks pages as poisoned; see [`uffdio_poison`].
pub const UFFDIO_POISON: u32 = read_write(_UFFDIO_POISON, size_of::<uffdio_poison>());

/// Write-protection faults say so in [`uffd_msg_pagefault::flags`].
pub const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
/// `fork` is reported.
pub const UFFD_FEATURE_EVENT_FORK: u64 = 1 << 1;
/// `mremap` is reported.
pub const UFFD_FEATURE_EVENT_REMAP: u64 = 1 << 2;
/// `MADV_DONTNEED` and `MADV_REMOVE` are reported.
pub const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
/// Missing pages of hugetlbfs.
pub const UFFD_FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
/// Missing pages of shared memory.
pub const UFFD_FEATURE_MISSING_SHMEM: u64 = 1 << 5;
/// `munmap` is reported.
pub const UFFD_FEATURE_EVENT_UNMAP: u64 = 1 << 6;
/// A fault becomes a SIGBUS of the faulting thread, not an event.
pub const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
/// Events name the faulting thread.
pub const UFFD_FEATURE_THREAD_ID: u64 = 1 << 8;
/// Minor faults of hugetlbfs.
pub const UFFD_FEATURE_MINOR_HUGETLBFS: u64 = 1 << 9;
/// Minor faults of shared memory.
pub const UFFD_FEATURE_MINOR_SHMEM: u64 = 1 << 10;
/// Addresses in events are not rounded down to a page.
pub const UFFD_FEATURE_EXACT_ADDRESS: u64 = 1 << 11;
/// Write protection of hugetlbfs and shared memory.
pub const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
/// Write protection of pages that are not there.
pub const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
/// [`UFFDIO_POISON`].
pub const UFFD_FEATURE_POISON: u64 = 1 << 14;
/// Write-protection faults are resolved by the kernel (for dirty tracking).
pub const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
/// [`UFFDIO_MOVE`].
pub const UFFD_FEATURE_MOVE: u64 = 1 << 16;

/// Every feature declared here.
pub const UFFD_API_FEATURES: u64 = (UFFD_FEATURE_MOVE << 1) - 1;
/// The ioctls that every userfaultfd offers.
pub const UFFD_API_IOCTLS: u64 = 1 << _UFFDIO_REGISTER | 1 << _UFFDIO_UNREGISTER | 1 << _UFFDIO_API;
/// The ioctls of a registered range of anonymous memory.
pub const UFFD_API_RANGE_IOCTLS: u64 =
    UFFD_API_RANGE_IOCTLS_BASIC | 1 << _UFFDIO_ZEROPAGE | 1 << _UFFDIO_MOVE;
/// The ioctls of every registered range.
pub const UFFD_API_RANGE_IOCTLS_BASIC: u64 = 1 << _UFFDIO_WAKE
    | 1 << _UFFDIO_COPY
    | 1 << _UFFDIO_WRITEPROTECT
    | 1 << _UFFDIO_CONTINUE
    | 1 << _UFFDIO_POISON;

/// Register for faults on missing pages.
pub const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
/// Register for writes to protected pages.
pub const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
/// Register for minor faults.
pub const UFFDIO_REGISTER_MODE_MINOR: u64 = 1 << 2;

/// Do not wake the threads that wait for the pages.
pub const UFFDIO_COPY_MODE_DONTWAKE: u64 = 1 << 0;
/// Install the pages write-protected.
pub const UFFDIO_COPY_MODE_WP: u64 = 1 << 1;
/// Do not wake the threads that wait for the pages.
pub const UFFDIO_ZEROPAGE_MODE_DONTWAKE: u64 = 1 << 0;
/// Do not wake the threads that wait for the pages.
pub const UFFDIO_MOVE_MODE_DONTWAKE: u64 = 1 << 0;
/// Skip pages that are not there in the source.
pub const UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES: u64 = 1 << 1;
/// Protect (else: end the protection).
pub const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;
/// Do not wake the threads that wait for the pages.
pub const UFFDIO_WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;
/// Do not wake the threads that wait for the pages.
pub const UFFDIO_CONTINUE_MODE_DONTWAKE: u64 = 1 << 0;
/// Map the pages write-protected.
pub const UFFDIO_CONTINUE_MODE_WP: u64 = 1 << 1;
/// Do not wake the threads that wait for the pages.
pub const UFFDIO_POISON_MODE_DONTWAKE: u64 = 1 << 0;

/// A fault on a registered page.
pub const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
/// The process forked.
pub const UFFD_EVENT_FORK: u8 = 0x13;
/// A range was moved by `mremap`.
pub const UFFD_EVENT_REMAP: u8 = 0x14;
/// Memory was given back.
pub const UFFD_EVENT_REMOVE: u8 = 0x15;
/// A range was unmapped.
pub const UFFD_EVENT_UNMAP: u8 = 0x16;

/// The fault was a write.
pub const UFFD_PAGEFAULT_FLAG_WRITE: u64 = 1 << 0;
/// The fault was a write to a protected page.
pub const UFFD_PAGEFAULT_FLAG_WP: u64 = 1 << 1;
/// The fault was minor.
pub const UFFD_PAGEFAULT_FLAG_MINOR: u64 = 1 << 2;

/// A message read from the descriptor.
#[repr(C, packed)]
#[derive(Copy, Clone)]
#[expect(missing_debug_implementations, reason = "which member of the union is valid depends on the event")]
pub struct uffd_msg {
    /// One of `UFFD_EVENT_*`; says which member of `arg` is valid.
    pub event: u8,
    /// Reserved.
    pub reserved1: u8,
    /// Reserved.
    pub reserved2: u16,
    /// Reserved.
    pub reserved3: u32,
    /// What the event is about.
    pub arg: uffd_msg_arg,
}

/// What an event is about.
#[repr(C)]
#[derive(Copy, Clone)]
#[expect(missing_debug_implementations, reason = "which member is valid depends on the event")]
pub union uffd_msg_arg {
    /// Of [`UFFD_EVENT_PAGEFAULT`].
    pub pagefault: uffd_msg_pagefault,
    /// Of [`UFFD_EVENT_FORK`].
    pub fork: uffd_msg_fork,
    /// Of [`UFFD_EVENT_REMAP`].
    pub remap: uffd_msg_remap,
    /// Of [`UFFD_EVENT_REMOVE`] and [`UFFD_EVENT_UNMAP`].
    pub remove: uffd_msg_remove,
    /// Reserved.
    pub reserved: uffd_msg_reserved,
}

/// A fault.
#[repr(C)]
#[derive(Copy, Clone)]
#[expect(missing_debug_implementations, reason = "contains a union")]
pub struct uffd_msg_pagefault {
    /// `UFFD_PAGEFAULT_FLAG_*`.
    pub flags: u64,
    /// Where, rounded down to a page without [`UFFD_FEATURE_EXACT_ADDRESS`].
    pub address: u64,
    /// What features add.
    pub feat: uffd_msg_pagefault_feat,
}

/// What features add to a fault.
#[repr(C)]
#[derive(Copy, Clone)]
#[expect(missing_debug_implementations, reason = "a union")]
pub union uffd_msg_pagefault_feat {
    /// The faulting thread, with [`UFFD_FEATURE_THREAD_ID`].
    pub ptid: u32,
}

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
            pub struct $name { $($(#[$fdoc])* pub $field: $type,)+ }
        )+
    };
}

structs! {
    /// A fork.
    uffd_msg_fork {
        /// The child's userfaultfd.
        ufd: u32,
    }
    /// A range moved.
    uffd_msg_remap {
        /// Old address.
        from: u64,
        /// New address.
        to: u64,
        /// Bytes.
        len: u64,
    }
    /// A range given back or unmapped.
    uffd_msg_remove {
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
    }
    /// Gives the union its size.
    uffd_msg_reserved {
        /// Reserved.
        reserved1: u64,
        /// Reserved.
        reserved2: u64,
        /// Reserved.
        reserved3: u64,
    }
    /// Argument of [`UFFDIO_API`].
    uffdio_api {
        /// [`UFFD_API`].
        api: u64,
        /// In: features to enable. Out: features the kernel offers.
        features: u64,
        /// Out: ioctls the kernel offers.
        ioctls: u64,
    }
    /// A range of addresses.
    uffdio_range {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
    }
    /// Argument of [`UFFDIO_REGISTER`].
    uffdio_register {
        /// What to register.
        range: uffdio_range,
        /// `UFFDIO_REGISTER_MODE_*`.
        mode: u64,
        /// Out: ioctls the kernel offers for the range.
        ioctls: u64,
    }
    /// Argument of [`UFFDIO_COPY`].
    uffdio_copy {
        /// Where to install the pages.
        dst: u64,
        /// What to copy.
        src: u64,
        /// Bytes.
        len: u64,
        /// `UFFDIO_COPY_MODE_*`.
        mode: u64,
        /// Out: bytes copied, or a negative error.
        copy: i64,
    }
    /// Argument of [`UFFDIO_ZEROPAGE`].
    uffdio_zeropage {
        /// Where to install the pages.
        range: uffdio_range,
        /// `UFFDIO_ZEROPAGE_MODE_*`.
        mode: u64,
        /// Out: bytes installed, or a negative error.
        zeropage: i64,
    }
    /// Argument of [`UFFDIO_WRITEPROTECT`].
    uffdio_writeprotect {
        /// What to change.
        range: uffdio_range,
        /// `UFFDIO_WRITEPROTECT_MODE_*`.
        mode: u64,
    }
    /// Argument of [`UFFDIO_CONTINUE`].
    uffdio_continue {
        /// Where to map the pages.
        range: uffdio_range,
        /// `UFFDIO_CONTINUE_MODE_*`.
        mode: u64,
        /// Out: bytes mapped, or a negative error.
        mapped: i64,
    }
    /// Argument of [`UFFDIO_POISON`].
    uffdio_poison {
        /// What to poison.
        range: uffdio_range,
        /// `UFFDIO_POISON_MODE_*`.
        mode: u64,
        /// Out: bytes poisoned, or a negative error.
        updated: i64,
    }
    /// Argument of [`UFFDIO_MOVE`].
    uffdio_move {
        /// Where to install the pages.
        dst: u64,
        /// Where to take them from.
        src: u64,
        /// Bytes.
        len: u64,
        /// `UFFDIO_MOVE_MODE_*`.
        mode: u64,
        /// Out: bytes moved, or a negative error. Field `move` of the header, a Rust keyword.
        move_: i64,
    }
}

/// `_IOC` with a direction: number, type and size as the kernel packs them.
const fn request(direction: u32, number: u32, bytes: usize) -> u32 {
    direction | (bytes as u32) << 16 | UFFDIO << 8 | number
}

/// `_IOR(UFFDIO, number, ..)`.
const fn read(number: u32, bytes: usize) -> u32 {
    request(2 << 30, number, bytes)
}

/// `_IOWR(UFFDIO, number, ..)`.
const fn read_write(number: u32, bytes: usize) -> u32 {
    request(3 << 30, number, bytes)
}

#[cfg(any(
    target_arch = "mips",
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc64"
))]
compile_error!("this architecture packs ioctl requests differently");

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<uffd_msg>() == 32 && offset_of!(uffd_msg, arg) == 8);
    assert!(size_of::<uffd_msg_arg>() == 24);
    assert!(offset_of!(uffd_msg_pagefault, address) == 8 && offset_of!(uffd_msg_pagefault, feat) == 16);
    assert!(size_of::<uffdio_api>() == 24 && offset_of!(uffdio_api, ioctls) == 16);
    assert!(size_of::<uffdio_range>() == 16);
    assert!(size_of::<uffdio_register>() == 32 && offset_of!(uffdio_register, ioctls) == 24);
    assert!(size_of::<uffdio_copy>() == 40 && offset_of!(uffdio_copy, copy) == 32);
    assert!(size_of::<uffdio_zeropage>() == 32 && offset_of!(uffdio_zeropage, zeropage) == 24);
    assert!(size_of::<uffdio_writeprotect>() == 24);
    assert!(size_of::<uffdio_continue>() == 32 && offset_of!(uffdio_continue, mapped) == 24);
    assert!(size_of::<uffdio_poison>() == 32 && offset_of!(uffdio_poison, updated) == 24);
    assert!(size_of::<uffdio_move>() == 40 && offset_of!(uffdio_move, move_) == 32);
};

// The codes as the header's macros give them on the architectures that pack them alike.
const _: () = {
    assert!(UFFDIO_API == 0xc018_aa3f);
    assert!(UFFDIO_REGISTER == 0xc020_aa00);
    assert!(UFFDIO_UNREGISTER == 0x8010_aa01);
    assert!(UFFDIO_WAKE == 0x8010_aa02);
    assert!(UFFDIO_COPY == 0xc028_aa03);
    assert!(UFFDIO_ZEROPAGE == 0xc020_aa04);
    assert!(UFFDIO_MOVE == 0xc028_aa05);
    assert!(UFFDIO_WRITEPROTECT == 0xc018_aa06);
    assert!(UFFDIO_CONTINUE == 0xc020_aa07);
    assert!(UFFDIO_POISON == 0xc020_aa08);
};
