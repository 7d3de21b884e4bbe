package main

import "math"

type node struct {
	left, right *node
	i, j        uint64
}

func bottomUp(depth int, j uint64) *node {
	if depth == 0 {
		return &node{j: j}
	}
	return &node{bottomUp(depth-1, j), bottomUp(depth-1, j), uint64(depth), j}
}

func topDown(n *node, depth int, j uint64) *node {
	n.i = uint64(depth)
	n.j = j
	if depth > 0 {
		n.left = &node{}
		topDown(n.left, depth-1, j)
		n.right = &node{}
		topDown(n.right, depth-1, j)
	}
	return n
}

// path follows one path, left and right in turn, and adds up what lies on it.
func path(n *node) (sum uint64) {
	for left := true; n != nil; left = !left {
		sum += n.i + n.j
		if left {
			n = n.left
		} else {
			n = n.right
		}
	}
	return sum
}

func nodes(depth int) uint64 { return 1<<(depth+1) - 1 }

// runGcbench is GCBench: trees built from the leaves up, and from the root down.
func runGcbench(stretch int) outcome {
	most := stretch - 2
	var sum checksum
	timed := begin(0, 0, 1)
	sum.fold(path(bottomUp(stretch, 0)))
	longLived := topDown(&node{}, most, 1)
	array := make([]float64, 2<<stretch)
	for index := range array {
		array[index] = 1 / (float64(index) + 1)
	}
	operations := nodes(stretch) + nodes(most)
	for depth := 4; depth <= most; depth += 2 {
		trees := 2 * nodes(stretch) / nodes(depth)
		for j := range trees {
			sum.fold(path(topDown(&node{}, depth, j)))
		}
		for j := range trees {
			sum.fold(path(bottomUp(depth, j)))
		}
		operations += 2 * trees * nodes(depth)
	}
	sum.fold(path(longLived))
	sum.fold(math.Float64bits(array[1000]))
	return outcome{sum, operations, timed.end()}
}
