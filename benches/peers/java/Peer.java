import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.StringJoiner;

/** The workloads of {@code benches/WORKLOADS.md} on a Java virtual machine, whose collector is chosen by its options. */
public final class Peer {
    /** What a workload hands back. */
    record Outcome(Random.Checksum checksum, long operations, Timed timed) {}

    /** The command line: parameters in the order of the specification, with their defaults. */
    static final class Options {
        long seed = 1;
        long interval;
        String marks;
        final Map<String, Long> parameters = new LinkedHashMap<>();

        int size(String name) {
            return Math.toIntExact(parameters.get(name));
        }

        long number(String name) {
            return parameters.get(name);
        }
    }

    public static void main(String[] arguments) throws IOException {
        if (arguments.length == 0) {
            throw fail("which workload? trees, gcbench, lru or graph");
        }
        Options options = new Options();
        String workload = arguments[0];
        Map<String, Long> parameters = options.parameters;
        switch (workload) {
            case "trees", "gcbench" -> parameters.put("depth", 19L);
            case "lru" -> {
                parameters.put("window", 200_000L);
                parameters.put("bytes", 1024L);
                parameters.put("pushes", 5_000_000L);
            }
            case "graph" -> {
                parameters.put("slots", 400_000L);
                parameters.put("operations", 3_000_000L);
                parameters.put("batch", 50L);
            }
            default -> throw fail("no such workload: " + workload);
        }
        read(arguments, options);
        Outcome outcome = switch (workload) {
            case "trees" -> Trees.run(options);
            case "gcbench" -> Gcbench.run(options);
            case "lru" -> Lru.run(options);
            default -> Graph.run(options);
        };
        report(workload, options, outcome);
    }

    private static void read(String[] arguments, Options options) {
        for (int at = 1; at < arguments.length; at += 2) {
            String name = arguments[at].replaceFirst("^--", "");
            if (at + 1 == arguments.length) {
                throw fail("--" + name + " needs a value");
            }
            String value = arguments[at + 1];
            switch (name) {
                case "seed" -> options.seed = number(name, value);
                case "interval-ns" -> options.interval = number(name, value);
                case "marks" -> options.marks = value;
                default -> {
                    if (options.parameters.replace(name, number(name, value)) == null) {
                        throw fail("no such option: --" + name);
                    }
                }
            }
        }
    }

    private static long number(String name, String value) {
        try {
            return Long.parseLong(value);
        } catch (NumberFormatException exception) {
            throw fail("--%s: not a number: %s".formatted(name, value));
        }
    }

    private static RuntimeException fail(String message) {
        System.err.println("peer: " + message);
        System.exit(2);
        return new IllegalStateException(message);
    }

    private static void report(String workload, Options options, Outcome outcome) throws IOException {
        Timed timed = outcome.timed();
        if (options.marks != null) {
            ByteBuffer buffer = ByteBuffer.allocate(8 * timed.marks.length).order(ByteOrder.LITTLE_ENDIAN);
            buffer.asLongBuffer().put(timed.marks);
            Files.write(Path.of(options.marks), buffer.array());
        }
        StringJoiner parameters = new StringJoiner(",", "{", "}");
        parameters.add("\"seed\":" + options.seed).add("\"interval_ns\":" + options.interval);
        options.parameters.forEach((name, value) -> parameters.add("\"" + name + "\":" + value));
        // The virtual machine's log tells pauses on the clock of nanoTime; the section says which of them count.
        System.out.printf(
                "{\"workload\":\"%s\",\"parameters\":%s,\"checksum\":\"%016x\",\"operations\":%d,"
                        + "\"wall_seconds\":%.6f,\"processor_seconds\":%.6f,\"latency_ns\":%s,\"pauses_ns\":null,"
                        + "\"peak_rss_bytes\":%d,\"section_ns\":[%d,%d]}%n",
                workload, parameters, outcome.checksum().value, outcome.operations(),
                (timed.end - timed.start) / 1e9, timed.processorSeconds, timed.latency,
                peakResidentBytes(), timed.start, timed.end);
    }

    private static long peakResidentBytes() throws IOException {
        String line = Files.readAllLines(Path.of("/proc/self/status")).stream()
                .filter(text -> text.startsWith("VmHWM:"))
                .findFirst()
                .orElseThrow();
        return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
    }
}
