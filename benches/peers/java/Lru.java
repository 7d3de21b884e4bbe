import java.util.Arrays;

/** A window of buffers: each push takes the place of the oldest. */
final class Lru {
    private final byte[][] buffers;
    private final int bytes;
    private final Random.Checksum checksum = new Random.Checksum();
    private long pushed;

    private Lru(int window, int bytes) {
        buffers = new byte[window][];
        this.bytes = bytes;
    }

    private void push() {
        long number = pushed++;
        byte[] buffer = new byte[bytes];
        Arrays.fill(buffer, (byte) (number * Random.GOLDEN >>> 56));
        int at = (int) (number % buffers.length);
        byte[] old = buffers[at];
        buffers[at] = buffer;
        if (old != null) {
            checksum.fold(old[(int) (number % bytes)] & 0xff);
        }
    }

    static Peer.Outcome run(Peer.Options options) {
        Lru window = new Lru(options.size("window"), options.size("bytes"));
        long pushes = options.number("pushes");
        for (int count = 0; count < window.buffers.length; count++) {
            window.push();
        }
        Timed timed = new Timed(options.interval, pushes, 100);
        for (long count = 0; count < pushes; count++) {
            timed.await();
            window.push();
            timed.done();
        }
        timed.end();
        for (byte[] buffer : window.buffers) {
            window.checksum.fold(buffer[window.bytes - 1] & 0xff);
        }
        return new Peer.Outcome(window.checksum, pushes, timed);
    }
}
