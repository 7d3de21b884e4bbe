// The workloads of benches/WORKLOADS.md in Go.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
)

// outcome is what a workload hands back.
type outcome struct {
	checksum   checksum
	operations uint64
	timed      *timed
}

// options of all workloads.
type options struct {
	seed     uint64
	interval uint64
}

// result is the result line.
type result struct {
	Workload         string            `json:"workload"`
	Parameters       map[string]uint64 `json:"parameters"`
	Checksum         string            `json:"checksum"`
	Operations       uint64            `json:"operations"`
	WallSeconds      float64           `json:"wall_seconds"`
	ProcessorSeconds float64           `json:"processor_seconds"`
	Latency          *summary          `json:"latency_ns"`
	Pauses           *summary          `json:"pauses_ns"`
	PeakResident     uint64            `json:"peak_rss_bytes"`
}

func main() {
	if len(os.Args) < 2 {
		fail("which workload? trees, gcbench, lru or graph")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	parameters := map[string]*uint64{}
	number := func(name string, value uint64) *uint64 {
		parameters[name] = flags.Uint64(name, value, "")
		return parameters[name]
	}
	seed := flags.Uint64("seed", 1, "of the random stream")
	interval := flags.Uint64("interval-ns", 0, "between intended starts; 0: flat out")
	marks := flags.String("marks", "", "file for the times at which operations were complete")
	var run func(options) outcome
	switch os.Args[1] {
	case "trees":
		depth := number("depth", 19)
		run = func(options) outcome { return runTrees(int(*depth)) }
	case "gcbench":
		depth := number("depth", 19)
		run = func(options) outcome { return runGcbench(int(*depth)) }
	case "lru":
		window, bytes, pushes := number("window", 200_000), number("bytes", 1024), number("pushes", 5_000_000)
		run = func(o options) outcome { return runLru(int(*window), int(*bytes), *pushes, o) }
	case "graph":
		slots, operations, batch := number("slots", 400_000), number("operations", 3_000_000), number("batch", 50)
		run = func(o options) outcome { return runGraph(int(*slots), *operations, *batch, o) }
	default:
		fail("no such workload: " + os.Args[1])
	}
	flags.Parse(os.Args[2:])
	outcome := run(options{*seed, *interval})
	timed := outcome.timed
	if *marks != "" {
		bytes := make([]byte, 0, 8*len(timed.marks))
		for _, mark := range timed.marks {
			bytes = binary.LittleEndian.AppendUint64(bytes, mark)
		}
		if err := os.WriteFile(*marks, bytes, 0o644); err != nil {
			fail(err.Error())
		}
	}
	values := map[string]uint64{"seed": *seed, "interval_ns": *interval}
	for name, value := range parameters {
		values[name] = *value
	}
	line, err := json.Marshal(result{
		os.Args[1], values, fmt.Sprintf("%016x", uint64(outcome.checksum)), outcome.operations,
		timed.wallSeconds, timed.processorSeconds, timed.latency.summary(), timed.pauses,
		uint64(usage().Maxrss) * 1024,
	})
	if err != nil {
		fail(err.Error())
	}
	fmt.Println(string(line))
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, "peer: "+message)
	os.Exit(2)
}
