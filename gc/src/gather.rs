//! Gathering: the live words of a chunk, copied together, by what the processor can do.
//!
//! Run by whoever builds a destination (see [`crate::build`]), also in signal handlers. Three ways
//! with one result: [`Plain`] for any processor; [`Bits`] where there are instructions to count and
//! to extract bits; [`Wide`] where a vector's words can be compressed too, so that eight words are
//! copied without a branch, whichever of them are live.
//!
//! Invariant: no word outside the chunk is read.

use crate::geometry::CHUNK_WORDS;

/// Words behind its last that [`Gather::words`] may write.
pub const OVERSHOOT_WORDS: usize = 8;

/// A way to gather.
pub trait Gather {
    /// Copies the words of the chunk at `from` whose bits are set in `live`, in order, to `to`.
    ///
    /// # Safety
    /// The chunk at `from` is readable; `to` is writable for as many words as `live` has bits and
    /// [`OVERSHOOT_WORDS`] more, which may be overwritten; they do not overlap. The processor can do
    /// what this way needs.
    unsafe fn words(from: *const u64, live: u64, to: *mut u64);

    /// The bits of `value` at the places set in `mask`, moved together to the low end.
    ///
    /// # Safety
    /// The processor can do what this way needs.
    unsafe fn bits(value: u64, mask: u64) -> u64;
}

/// Copies run by run.
///
/// # Safety
/// As [`Gather::words`].
#[inline(always)]
unsafe fn copy_runs(from: *const u64, mut live: u64, mut to: *mut u64) {
    let mut at = 0;
    while live != 0 {
        let gap = live.trailing_zeros();
        live >>= gap;
        at += gap as usize;
        let run = live.trailing_ones();
        // SAFETY: the caller's contract: the run lies in the chunk, and `to` has room for it.
        unsafe {
            copy_words(from.add(at), to, run as usize);
            to = to.add(run as usize);
        }
        at += run as usize;
        live = live.checked_shr(run).unwrap_or(0);
    }
}

/// Copies words. Short runs, the most, by two blocks that may overlap: no loop, no call.
///
/// # Safety
/// As `std::ptr::copy_nonoverlapping`.
#[inline(always)]
unsafe fn copy_words(from: *const u64, to: *mut u64, words: usize) {
    // SAFETY: the caller's contract; a block is copied only where there are as many words.
    unsafe {
        match words {
            0 => {}
            1 => to.write(from.read()),
            2..=4 => copy_ends::<2>(from, to, words),
            5..=8 => copy_ends::<4>(from, to, words),
            9..=16 => copy_ends::<8>(from, to, words),
            _ => std::ptr::copy_nonoverlapping(from, to, words),
        }
    }
}

/// Copies the first `N` words and the last `N` words.
///
/// # Safety
/// As `std::ptr::copy_nonoverlapping`; `words` is at least `N` and at most `2 * N`.
#[inline(always)]
unsafe fn copy_ends<const N: usize>(from: *const u64, to: *mut u64, words: usize) {
    // SAFETY: the caller's contract: both blocks lie in the words.
    unsafe {
        let (first, last) = (from.cast::<[u64; N]>().read(), from.add(words - N).cast::<[u64; N]>().read());
        to.cast::<[u64; N]>().write(first);
        to.add(words - N).cast::<[u64; N]>().write(last);
    }
}

/// For any processor.
#[derive(Debug)]
pub struct Plain;

impl Gather for Plain {
    #[inline(always)]
    unsafe fn words(from: *const u64, live: u64, to: *mut u64) {
        // SAFETY: the caller's contract.
        unsafe { copy_runs(from, live, to) }
    }

    #[inline(always)]
    unsafe fn bits(value: u64, mask: u64) -> u64 {
        let (mut wanted, mut bits) = (value & mask, 0);
        while wanted != 0 {
            let lowest = wanted & wanted.wrapping_neg();
            bits |= 1 << (mask & (lowest - 1)).count_ones();
            wanted &= wanted - 1;
        }
        bits
    }
}

/// For processors with BMI2.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub struct Bits;

#[cfg(target_arch = "x86_64")]
impl Gather for Bits {
    #[inline(always)]
    unsafe fn words(from: *const u64, live: u64, to: *mut u64) {
        // SAFETY: the caller's contract.
        unsafe { copy_runs(from, live, to) }
    }

    #[inline(always)]
    unsafe fn bits(value: u64, mask: u64) -> u64 {
        // SAFETY: the caller's contract: the processor has BMI2.
        unsafe { std::arch::x86_64::_pext_u64(value, mask) }
    }
}

/// For processors with BMI2 and AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub struct Wide;

#[cfg(target_arch = "x86_64")]
impl Gather for Wide {
    #[inline(always)]
    unsafe fn words(from: *const u64, live: u64, to: *mut u64) {
        use std::arch::x86_64::{_mm512_loadu_epi64, _mm512_maskz_compress_epi64, _mm512_storeu_epi64};
        const LANES: usize = 8;
        const { assert!(LANES <= OVERSHOOT_WORDS) };
        if live == u64::MAX {
            // SAFETY: the caller's contract: a whole chunk is read and written.
            return unsafe { std::ptr::copy_nonoverlapping(from, to, CHUNK_WORDS) };
        }
        let mut to = to.cast::<i64>();
        for group in 0..CHUNK_WORDS / LANES {
            let mask = (live >> (group * LANES)) as u8;
            // SAFETY: the group lies in the chunk; a whole vector is written where `to` has room for
            // `OVERSHOOT_WORDS` beyond the words gathered so far; the processor has AVX-512.
            unsafe {
                let words = _mm512_loadu_epi64(from.add(group * LANES).cast());
                _mm512_storeu_epi64(to, _mm512_maskz_compress_epi64(mask, words));
                to = to.add(mask.count_ones() as usize);
            }
        }
    }

    #[inline(always)]
    unsafe fn bits(value: u64, mask: u64) -> u64 {
        // SAFETY: the caller's contract: the processor has BMI2.
        unsafe { std::arch::x86_64::_pext_u64(value, mask) }
    }
}

/// The best way this processor can do.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// [`Plain`].
    Plain,
    /// [`Bits`].
    #[cfg(target_arch = "x86_64")]
    Bits,
    /// [`Wide`].
    #[cfg(target_arch = "x86_64")]
    Wide,
}

impl Way {
    /// Asks the processor; the answer is remembered by the standard library, without a lock.
    #[inline]
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("bmi1") && has!("bmi2") && has!("popcnt") && has!("lzcnt") {
                return if has!("avx512f") { Self::Wide } else { Self::Bits };
            }
        }
        Self::Plain
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<G: Gather>(live: u64, value: u64) -> Result<(), TestCaseError> {
        let chunk: [u64; CHUNK_WORDS] = std::array::from_fn(|word| 1000 + word as u64);
        let mut gathered = [u64::MAX; CHUNK_WORDS + OVERSHOOT_WORDS];
        let set = |mask: u64| (0..64_u64).filter(move |bit| mask >> bit & 1 == 1);
        // SAFETY: both arrays are as long as is asked for; the caller asked the processor.
        let bits = unsafe {
            G::words(chunk.as_ptr(), live, gathered.as_mut_ptr());
            G::bits(value, live)
        };
        let expected: Vec<u64> = set(live).map(|word| 1000 + word).collect();
        prop_assert_eq!(&gathered[..expected.len()], &expected[..]);
        let flags: Vec<u64> = set(live).map(|bit| value >> bit & 1).collect();
        for (place, flag) in flags.iter().enumerate() {
            prop_assert_eq!(bits >> place & 1, *flag);
        }
        prop_assert_eq!(bits.checked_shr(flags.len() as u32).unwrap_or(0), 0);
        Ok(())
    }

    proptest! {
        #[test]
        fn every_way_gathers_the_live_words(a in any::<u64>(), b in any::<u64>(), value in any::<u64>()) {
            for live in [0, u64::MAX, 1, 1 << 63, a, a & b, a | b] {
                check::<Plain>(live, value)?;
                #[cfg(target_arch = "x86_64")]
                {
                    if Way::best() != Way::Plain {
                        check::<Bits>(live, value)?;
                    }
                    if Way::best() == Way::Wide {
                        check::<Wide>(live, value)?;
                    }
                }
            }
        }
    }
}
