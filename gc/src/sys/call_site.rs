//! Where a function was called from: a number for the return addresses on the stack.
//!
//! For a stress mode ([`crate::stress::StressMode::CollectSites`]), on the slow path of allocation. Not for signal
//! handlers: the first use loads the unwinder.

/// Frames that tell one call site from another.
const FRAMES: usize = 16;

/// Whether the system's library can walk the stack.
#[must_use]
pub const fn is_known() -> bool {
    cfg!(target_env = "gnu")
}

/// A number that depends on the last 16 return addresses. The same for all, where they are not known.
#[must_use]
#[inline(never)]
pub fn call_site() -> u64 {
    let mut addresses = [std::ptr::null_mut(); FRAMES];
    // SAFETY: the array has as many entries as is said.
    #[cfg(target_env = "gnu")]
    let frames = unsafe { libc::backtrace(addresses.as_mut_ptr(), FRAMES as i32) };
    #[cfg(not(target_env = "gnu"))]
    let frames = 0;
    let addresses: &mut [*mut std::ffi::c_void] = &mut addresses;
    addresses.iter().take(frames as usize).fold(0, |hash: u64, address| {
        (hash ^ address.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    })
}
