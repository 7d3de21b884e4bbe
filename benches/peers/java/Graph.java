import java.util.Arrays;

/**
 * A mutating graph: trees whose parts change places, so that what dies together was not allocated together.
 */
final class Graph {
    private static final class Node {
        final long value;
        final byte[] data;
        Node left;
        Node right;

        Node(long value, byte[] data, Node left, Node right) {
            this.value = value;
            this.data = data;
            this.left = left;
            this.right = right;
        }

        Node child(long side) {
            return side == 0 ? left : right;
        }

        void setChild(long side, Node child) {
            if (side == 0) {
                left = child;
            } else {
                right = child;
            }
        }
    }

    private final Node[] trees;
    private final Random random;
    private final Random.Checksum checksum = new Random.Checksum();
    /** What the last walk left of its bits. */
    private long bitsLeft;

    private Graph(int slots, long seed) {
        trees = new Node[slots];
        random = new Random(seed, 1);
        for (int slot = 0; slot < slots; slot++) {
            trees[slot] = build(1 + (int) (random.next() & 15));
        }
    }

    private Node build(int nodes) {
        if (nodes == 0) {
            return null;
        }
        long value = random.next();
        byte[] data = new byte[8 * (1 + (int) ((value >>> 32) % 6))];
        Arrays.fill(data, (byte) value);
        Node left = build((nodes - 1) / 2);
        Node right = build(nodes - 1 - (nodes - 1) / 2);
        return new Node(value, data, left, right);
    }

    private void operation() {
        long bits = random.next();
        int at = random.below(trees.length);
        switch ((int) (bits >>> 62)) {
            case 0, 1 -> trees[at] = build(1 + (int) (bits & 15));
            case 2 -> exchange(bits, at);
            default -> read(bits, at);
        }
    }

    /** The node at which a walk ends; leaves the rest of the bits in {@link #bitsLeft}. */
    private Node walk(Node tree, long steps, long bits) {
        Node node = tree;
        for (; steps > 0; steps--) {
            Node child = node.child(bits & 1);
            bits >>>= 1;
            if (child == null) {
                break;
            }
            node = child;
        }
        bitsLeft = bits;
        return node;
    }

    /** Lets two subtrees of different trees change places. */
    private void exchange(long bits, int at) {
        int other = random.below(trees.length - 1);
        other += other >= at ? 1 : 0;
        Node a = walk(trees[at], bits & 3, bits >>> 2 & 0xff);
        long aSide = bitsLeft & 1;
        Node b = walk(trees[other], bits >>> 16 & 3, bits >>> 18 & 0xff);
        long bSide = bitsLeft & 1;
        Node child = a.child(aSide);
        a.setChild(aSide, b.child(bSide));
        b.setChild(bSide, child);
        checksum.fold(a.value ^ b.value);
    }

    /** Reads what lies on a path. */
    private void read(long bits, int at) {
        long steps = bits & 7;
        bits >>>= 3;
        for (Node node = trees[at]; node != null; node = node.child(bits & 1), bits >>>= 1) {
            checksum.fold(node.value ^ (node.data[node.data.length - 1] & 0xff));
            if (steps-- == 0) {
                break;
            }
        }
    }

    /** Folds in all nodes of a tree, each before its children. */
    private void check(Node node) {
        if (node != null) {
            checksum.fold(node.value);
            checksum.fold((node.data[0] & 0xff) + node.data.length);
            check(node.left);
            check(node.right);
        }
    }

    static Peer.Outcome run(Peer.Options options) {
        Graph forest = new Graph(options.size("slots"), options.seed);
        long operations = options.number("operations");
        long batch = options.number("batch");
        for (long count = 0; count < operations / 10; count++) {
            forest.operation();
        }
        Timed timed = new Timed(options.interval, operations / batch, 1);
        for (long count = 0; count < operations / batch; count++) {
            timed.await();
            for (long nth = 0; nth < batch; nth++) {
                forest.operation();
            }
            timed.done();
        }
        timed.end();
        for (Node tree : forest.trees) {
            forest.check(tree);
        }
        return new Peer.Outcome(forest.checksum, operations / batch * batch, timed);
    }
}
