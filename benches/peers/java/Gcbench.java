/** GCBench: trees built from the leaves up, and from the root down. */
final class Gcbench {
    private static final class Node {
        Node left;
        Node right;
        long i;
        long j;

        Node() {}

        Node(Node left, Node right, long i, long j) {
            this.left = left;
            this.right = right;
            this.i = i;
            this.j = j;
        }
    }

    private static Node bottomUp(int depth, long j) {
        return depth == 0
                ? new Node(null, null, 0, j)
                : new Node(bottomUp(depth - 1, j), bottomUp(depth - 1, j), depth, j);
    }

    private static Node topDown(Node node, int depth, long j) {
        node.i = depth;
        node.j = j;
        if (depth > 0) {
            node.left = new Node();
            topDown(node.left, depth - 1, j);
            node.right = new Node();
            topDown(node.right, depth - 1, j);
        }
        return node;
    }

    /** Follows one path, left and right in turn, and adds up what lies on it. */
    private static long path(Node tree) {
        long sum = 0;
        boolean left = true;
        for (Node node = tree; node != null; node = left ? node.left : node.right, left = !left) {
            sum += node.i + node.j;
        }
        return sum;
    }

    private static long nodes(int depth) {
        return (1L << (depth + 1)) - 1;
    }

    static Peer.Outcome run(Peer.Options options) {
        int stretch = options.size("depth");
        int most = stretch - 2;
        Random.Checksum checksum = new Random.Checksum();
        Timed timed = new Timed(0, 0, 1);
        checksum.fold(path(bottomUp(stretch, 0)));
        Node longLived = topDown(new Node(), most, 1);
        double[] array = new double[2 << stretch];
        for (int index = 0; index < array.length; index++) {
            array[index] = 1.0 / (index + 1.0);
        }
        long operations = nodes(stretch) + nodes(most);
        for (int depth = 4; depth <= most; depth += 2) {
            long trees = 2 * nodes(stretch) / nodes(depth);
            for (long j = 0; j < trees; j++) {
                checksum.fold(path(topDown(new Node(), depth, j)));
            }
            for (long j = 0; j < trees; j++) {
                checksum.fold(path(bottomUp(depth, j)));
            }
            operations += 2 * trees * nodes(depth);
        }
        checksum.fold(path(longLived));
        checksum.fold(Double.doubleToRawLongBits(array[1000]));
        timed.end();
        return new Peer.Outcome(checksum, operations, timed);
    }
}
