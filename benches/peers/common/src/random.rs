//! The random stream (SplitMix64) and the running checksum of `benches/WORKLOADS.md`.

/// The odd constant of SplitMix64: 2^64 divided by the golden ratio.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes the bits of `value`.
#[inline]
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator for `stream` of `seed`.
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(GOLDEN))))
    }

    /// The next number.
    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`, which must not be 0.
    #[inline]
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.next() as u128 * bound as u128) >> 64) as usize
    }
}

/// A running checksum; the order of what is folded in matters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u64);

impl Checksum {
    /// Folds a value in.
    #[inline]
    pub const fn fold(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(GOLDEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_and_the_checksum_are_those_of_the_specification() {
        let mut random = Random::new(1, 1);
        let numbers = [random.next(), random.next(), random.next()];
        assert_eq!(numbers, [0x21a5_7154_31dc_4cc7, 0xe1a2_6c10_1cc3_8752, 0xa001_a4cd_8524_12c8]);
        assert_eq!(random.below(400_000), 3857);
        let mut checksum = Checksum::default();
        checksum.fold(1);
        checksum.fold(2);
        assert_eq!(checksum, Checksum(0x6a34_b9ab_3cfd_7485));
    }
}
