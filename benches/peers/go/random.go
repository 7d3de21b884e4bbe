package main

import "math/bits"

// The odd constant of SplitMix64: 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

func mix(value uint64) uint64 {
	value = (value ^ value>>30) * 0xbf58476d1ce4e5b9
	value = (value ^ value>>27) * 0x94d049bb133111eb
	return value ^ value>>31
}

// random is the stream of benches/WORKLOADS.md.
type random uint64

func newRandom(seed, stream uint64) random {
	return random(mix(seed ^ mix(stream+golden)))
}

func (r *random) next() uint64 {
	*r += golden
	return mix(uint64(*r))
}

// below draws a number below bound, which is positive.
func (r *random) below(bound int) int {
	high, _ := bits.Mul64(r.next(), uint64(bound))
	return int(high)
}

// checksum is a running one; the order of what is folded in matters.
type checksum uint64

func (c *checksum) fold(value uint64) {
	*c = checksum((bits.RotateLeft64(uint64(*c), 5) ^ value) * golden)
}
