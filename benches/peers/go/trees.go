package main

type tree struct{ left, right *tree }

func buildTree(depth int) *tree {
	if depth == 0 {
		return &tree{}
	}
	return &tree{buildTree(depth - 1), buildTree(depth - 1)}
}

func (t *tree) count() uint64 {
	count := uint64(1)
	if t.left != nil {
		count += t.left.count()
	}
	if t.right != nil {
		count += t.right.count()
	}
	return count
}

// runTrees is binary trees.
func runTrees(depth int) outcome {
	var sum checksum
	timed := begin(0, 0, 1)
	operations := buildTree(depth + 1).count()
	sum.fold(operations)
	longLived := buildTree(depth)
	for now := 4; now <= depth; now += 2 {
		total := uint64(0)
		for range 1 << (depth - now + 4) {
			total += buildTree(now).count()
		}
		sum.fold(total)
		operations += total
	}
	total := longLived.count()
	sum.fold(total)
	return outcome{sum, operations + total, timed.end()}
}
