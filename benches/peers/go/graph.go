package main

import "bytes"

type vertex struct {
	value    uint64
	data     []byte
	children [2]*vertex
}

// forest is a mutating graph: trees whose parts change places, so that what dies together was not allocated
// together.
type forest struct {
	trees  []*vertex
	random random
	sum    checksum
}

func (f *forest) build(nodes uint64) *vertex {
	if nodes == 0 {
		return nil
	}
	value := f.random.next()
	data := bytes.Repeat([]byte{byte(value)}, int(8*(1+value>>32%6)))
	left := f.build((nodes - 1) / 2)
	right := f.build(nodes - 1 - (nodes-1)/2)
	return &vertex{value, data, [2]*vertex{left, right}}
}

func (f *forest) operation() {
	bits := f.random.next()
	at := f.random.below(len(f.trees))
	switch bits >> 62 {
	case 0, 1:
		f.trees[at] = f.build(1 + bits&15)
	case 2:
		f.exchange(bits, at)
	default:
		f.read(bits, at)
	}
}

// walk takes up to some steps, to the sides that bits say, and returns the bits left.
func (v *vertex) walk(steps, bits uint64) (*vertex, uint64) {
	for ; steps > 0; steps-- {
		child := v.children[bits&1]
		bits >>= 1
		if child == nil {
			break
		}
		v = child
	}
	return v, bits
}

// exchange lets two subtrees of different trees change places.
func (f *forest) exchange(bits uint64, at int) {
	other := f.random.below(len(f.trees) - 1)
	if other >= at {
		other++
	}
	a, aBits := f.trees[at].walk(bits&3, bits>>2&0xff)
	b, bBits := f.trees[other].walk(bits>>16&3, bits>>18&0xff)
	a.children[aBits&1], b.children[bBits&1] = b.children[bBits&1], a.children[aBits&1]
	f.sum.fold(a.value ^ b.value)
}

// read reads what lies on a path.
func (f *forest) read(bits uint64, at int) {
	steps := bits & 7
	bits >>= 3
	for v := f.trees[at]; v != nil; bits >>= 1 {
		f.sum.fold(v.value ^ uint64(v.data[len(v.data)-1]))
		if steps == 0 {
			break
		}
		steps--
		v = v.children[bits&1]
	}
}

// check folds in all nodes of a tree, each before its children.
func (f *forest) check(v *vertex) {
	if v != nil {
		f.sum.fold(v.value)
		f.sum.fold(uint64(v.data[0]) + uint64(len(v.data)))
		f.check(v.children[0])
		f.check(v.children[1])
	}
}

func runGraph(slots int, operations, batch uint64, o options) outcome {
	f := &forest{trees: make([]*vertex, slots), random: newRandom(o.seed, 1)}
	for slot := range f.trees {
		f.trees[slot] = f.build(1 + f.random.next()&15)
	}
	for range operations / 10 {
		f.operation()
	}
	timed := begin(o.interval, operations/batch, 1)
	for range operations / batch {
		timed.wait()
		for range batch {
			f.operation()
		}
		timed.done()
	}
	timed.end()
	for _, tree := range f.trees {
		f.check(tree)
	}
	return outcome{f.sum, operations / batch * batch, timed}
}
