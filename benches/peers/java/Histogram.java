/** Latencies, with 64 buckets for each power of two; the maximum is exact. */
final class Histogram {
    private final long[] counts = new long[60 * 64];
    private long count;
    private long max;

    void record(long value) {
        counts[index(value)]++;
        count++;
        max = Math.max(max, value);
    }

    long count() {
        return count;
    }

    private static int index(long value) {
        int shift = Math.max(0, 57 - Long.numberOfLeadingZeros(value | 1));
        return shift * 64 + (int) (value >>> shift);
    }

    /** The greatest value of a bucket. */
    private static long last(int index) {
        if (index < 128) {
            return index;
        }
        int shift = index / 64 - 1;
        return ((64L + index % 64) << shift) + ((1L << shift) - 1);
    }

    /** The value that a share of all values does not exceed. */
    private long at(double share) {
        long rank = (long) Math.ceil(share * count);
        long seen = 0;
        for (int index = 0; index < counts.length; index++) {
            seen += counts[index];
            if (seen >= rank && counts[index] > 0) {
                return Math.min(last(index), max);
            }
        }
        return 0;
    }

    /** As JSON. */
    @Override
    public String toString() {
        if (count == 0) {
            return "null";
        }
        return "{\"count\":%d,\"p50\":%d,\"p99\":%d,\"p99.9\":%d,\"max\":%d}"
                .formatted(count, at(0.5), at(0.99), at(0.999), max);
    }
}
