package main

import (
	"math/bits"
	"syscall"
	"time"
)

// histogram has 64 buckets for each power of two; its maximum is exact.
type histogram struct {
	counts [60 * 64]uint64
	count  uint64
	max    uint64
}

func (h *histogram) record(value uint64) {
	shift := max(0, 57-bits.LeadingZeros64(value|1))
	h.counts[shift*64+int(value>>shift)]++
	h.count++
	h.max = max(h.max, value)
}

// summary is what the result line says of latencies and pauses.
type summary struct {
	Count uint64 `json:"count"`
	P50   uint64 `json:"p50"`
	P99   uint64 `json:"p99"`
	P999  uint64 `json:"p99.9"`
	Max   uint64 `json:"max"`
}

func (h *histogram) summary() *summary {
	if h.count == 0 {
		return nil
	}
	return &summary{h.count, h.at(0.5), h.at(0.99), h.at(0.999), h.max}
}

// at is the value that a share of all values does not exceed.
func (h *histogram) at(share float64) uint64 {
	rank := uint64(share * float64(h.count))
	if float64(rank) < share*float64(h.count) {
		rank++
	}
	seen := uint64(0)
	for index, count := range h.counts {
		seen += count
		if seen >= rank && count > 0 {
			return min(lastOf(index), h.max)
		}
	}
	return 0
}

// lastOf is the greatest value of a bucket.
func lastOf(index int) uint64 {
	if index < 128 {
		return uint64(index)
	}
	shift := index/64 - 1
	return uint64(64+index%64)<<shift + (1<<shift - 1)
}

// timed is the timed section of a workload: its wall and processor time, and the latency of each of its
// operations. Flat out, an operation begins when the one before has ended; paced, at its intended start.
type timed struct {
	start            time.Time
	processorStart   float64
	interval         uint64
	intended         uint64 // when the next operation begins, in ns since start
	latency          histogram
	markEvery        uint64
	marks            []uint64
	pausesBefore     *pauses
	pauses           *summary
	wallSeconds      float64
	processorSeconds float64
}

func begin(interval, operations, markEvery uint64) *timed {
	return &timed{
		interval: interval, markEvery: markEvery, marks: make([]uint64, 0, operations/markEvery),
		pausesBefore: readPauses(), processorStart: processorSeconds(), start: time.Now(),
	}
}

func (t *timed) now() uint64 { return uint64(time.Since(t.start)) }

// wait waits for the intended start of the next operation.
func (t *timed) wait() {
	if t.interval != 0 {
		for t.now() < t.intended {
		}
	}
}

// done counts the operation that has just ended.
func (t *timed) done() {
	now := t.now()
	t.latency.record(now - t.intended)
	if t.interval == 0 {
		t.intended = now
	} else {
		t.intended += t.interval
	}
	if t.latency.count%t.markEvery == 0 {
		t.marks = append(t.marks, now)
	}
}

func (t *timed) end() *timed {
	t.wallSeconds = time.Since(t.start).Seconds()
	t.processorSeconds = processorSeconds() - t.processorStart
	t.pauses = readPauses().since(t.pausesBefore)
	return t
}

func usage() (usage syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage
}

func processorSeconds() float64 {
	usage := usage()
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
