import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;

/**
 * The timed section of a workload: its wall and processor time, and the latency of each of its operations. Flat
 * out, an operation begins when the one before has ended; paced, at its intended start.
 */
final class Timed {
    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    final Histogram latency = new Histogram();
    final long[] marks;
    private final long markEvery;
    private final long interval;
    private final long processorStart;
    final long start;
    /** When the next operation begins, on the clock of {@link System#nanoTime}. */
    private long intended;
    private int marked;
    long end;
    double processorSeconds;

    /** Begins. {@code interval} is 0 for flat out; every {@code markEvery}-th of {@code operations} leaves a mark. */
    Timed(long interval, long operations, long markEvery) {
        this.interval = interval;
        this.markEvery = markEvery;
        marks = new long[(int) (operations / markEvery)];
        processorStart = SYSTEM.getProcessCpuTime();
        start = System.nanoTime();
        intended = start;
    }

    /** Waits for the intended start of the next operation. */
    void await() {
        if (interval != 0) {
            while (System.nanoTime() < intended) {
                Thread.onSpinWait();
            }
        }
    }

    /** Counts the operation that has just ended. */
    void done() {
        long now = System.nanoTime();
        latency.record(now - intended);
        intended = interval == 0 ? now : intended + interval;
        if (latency.count() % markEvery == 0) {
            marks[marked++] = now - start;
        }
    }

    /** Ends. */
    void end() {
        end = System.nanoTime();
        processorSeconds = (SYSTEM.getProcessCpuTime() - processorStart) / 1e9;
    }
}
