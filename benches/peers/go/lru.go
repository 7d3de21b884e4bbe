package main

import "bytes"

// window holds the last buffers: each push takes the place of the oldest.
type window struct {
	buffers [][]byte
	bytes   int
	pushed  uint64
	sum     checksum
}

func (w *window) push() {
	number := w.pushed
	w.pushed++
	buffer := bytes.Repeat([]byte{byte(number * golden >> 56)}, w.bytes)
	at := number % uint64(len(w.buffers))
	old := w.buffers[at]
	w.buffers[at] = buffer
	if old != nil {
		w.sum.fold(uint64(old[number%uint64(w.bytes)]))
	}
}

func runLru(size, bytes int, pushes uint64, o options) outcome {
	w := window{buffers: make([][]byte, size), bytes: bytes}
	for range size {
		w.push()
	}
	timed := begin(o.interval, pushes, 100)
	for range pushes {
		timed.wait()
		w.push()
		timed.done()
	}
	timed.end()
	for _, buffer := range w.buffers {
		w.sum.fold(uint64(buffer[bytes-1]))
	}
	return outcome{w.sum, pushes, timed}
}
