package main

import (
	"math"
	"runtime/metrics"
)

// pauses is how often the runtime stopped the world for its collector, by duration: from deciding to stop the
// world until it is started again.
type pauses metrics.Float64Histogram

func readPauses() *pauses {
	samples := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(samples)
	now := samples[0].Value.Float64Histogram()
	// The runtime may reuse its storage for the next reading.
	return &pauses{Counts: append([]uint64(nil), now.Counts...), Buckets: append([]float64(nil), now.Buckets...)}
}

// since summarises the pauses between two readings; each counts as its bucket's upper end.
func (p *pauses) since(before *pauses) *summary {
	var durations histogram
	for index := range p.Counts {
		upper := p.Buckets[index+1]
		if math.IsInf(upper, 1) {
			upper = p.Buckets[index]
		}
		for count := before.Counts[index]; count < p.Counts[index]; count++ {
			durations.record(uint64(upper * 1e9))
		}
	}
	return durations.summary()
}
