/** The random stream (SplitMix64) and the running checksum of {@code benches/WORKLOADS.md}. */
final class Random {
    static final long GOLDEN = 0x9e3779b97f4a7c15L;

    private long state;

    Random(long seed, long stream) {
        state = mix(seed ^ mix(stream + GOLDEN));
    }

    static long mix(long value) {
        value = (value ^ (value >>> 30)) * 0xbf58476d1ce4e5b9L;
        value = (value ^ (value >>> 27)) * 0x94d049bb133111ebL;
        return value ^ (value >>> 31);
    }

    long next() {
        state += GOLDEN;
        return mix(state);
    }

    /** A number below {@code bound}, which is positive. */
    int below(int bound) {
        long draw = next();
        // The upper half of the unsigned product: the signed one, put right for a draw of 2^63 or more.
        return (int) (Math.multiplyHigh(draw, bound) + ((draw >> 63) & bound));
    }

    /** A running checksum; the order of what is folded in matters. */
    static final class Checksum {
        long value;

        void fold(long number) {
            value = (Long.rotateLeft(value, 5) ^ number) * GOLDEN;
        }
    }
}
