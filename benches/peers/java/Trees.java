/** Binary trees. */
final class Trees {
    private record Node(Node left, Node right) {
        long count() {
            return 1 + (left == null ? 0 : left.count()) + (right == null ? 0 : right.count());
        }
    }

    private static Node build(int depth) {
        return depth == 0 ? new Node(null, null) : new Node(build(depth - 1), build(depth - 1));
    }

    static Peer.Outcome run(Peer.Options options) {
        int depth = options.size("depth");
        Random.Checksum checksum = new Random.Checksum();
        Timed timed = new Timed(0, 0, 1);
        long operations = build(depth + 1).count();
        checksum.fold(operations);
        Node longLived = build(depth);
        for (int now = 4; now <= depth; now += 2) {
            long total = 0;
            for (long trees = 1L << (depth - now + 4); trees > 0; trees--) {
                total += build(now).count();
            }
            checksum.fold(total);
            operations += total;
        }
        long total = longLived.count();
        checksum.fold(total);
        timed.end();
        return new Peer.Outcome(checksum, operations + total, timed);
    }
}
