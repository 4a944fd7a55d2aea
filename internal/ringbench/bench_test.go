//go:build linux

package ringbench

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const (
	capacity     = 4 << 20 // bytes of a ring
	payloadBytes = 128
	rounds       = 7 // at least
)

// measured gathers figures, one of each kind in each round.
type measured map[string][]float64

func (m measured) add(name string, value float64) { m[name] = append(m[name], value) }

// report reports the median of each figure, and of its ratios to baselines: "ours/base" for each figure that is not one. A ratio
// is always that of two figures of the same round, and above 1 where ours is better. Where more is better it also reports the
// best round: a pair of processes flips between modes, as the hypervisor places their processors.
func (m measured) report(b *testing.B, unit string, more bool, baselines ...string) {
	b.ReportMetric(0, "ns/op") // of a round: it says nothing
	for name, values := range m {
		b.ReportMetric(median(values), name+"_"+unit)
		if more {
			b.ReportMetric(slices.Max(values), name+"_best_"+unit)
		}
		if slices.Contains(baselines, name) {
			continue
		}
		for _, base := range baselines {
			ratios := make([]float64, len(values))
			for i, v := range values {
				if ratios[i] = v / m[base][i]; !more {
					ratios[i] = m[base][i] / v
				}
			}
			b.ReportMetric(median(ratios), name+"/"+base)
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// repeat runs rounds as long as the benchmark wants, and a few at least. The first is to warm up: it does not count.
func repeat(b *testing.B, m measured, round func()) {
	round()
	clear(m)
	n := 0
	for ; b.Loop(); n++ {
		round()
	}
	for ; n < rounds; n++ {
		round()
	}
}

// ways is the two ways to reach a ring.
func ways(b *testing.B, o rigOptions, run func(b *testing.B, r *rig)) {
	b.Run("direct", func(b *testing.B) { run(b, newRig(b, o)) })
	b.Run("attached", func(b *testing.B) {
		o.Attach = startDaemon(b, o)
		run(b, newRig(b, o))
	})
}

// Messages a second from one producer to one consumer that loses nothing.
func BenchmarkThroughput(b *testing.B) {
	ways(b, rigOptions{Capacity: capacity, PayloadBytes: payloadBytes, Lossless: true}, func(b *testing.B, r *rig) {
		const n = 200_000
		m := measured{}
		rate := func(name, send, receive string) {
			m.add(name, n/float64(r.stream(send, receive, n).Microseconds()))
		}
		repeat(b, m, func() {
			rate("bare", "bare write", "bare read")
			rate("single", "publish", "next")
			rate("half", "publish", "next batches")
			rate("batch", "publish batches", "next batches")
		})
		m.report(b, "M/s", true, "bare")
	})
}

// A round trip between two processes that spin.
func BenchmarkRoundTripSpinning(b *testing.B) {
	ways(b, rigOptions{Capacity: capacity, PayloadBytes: payloadBytes}, func(b *testing.B, r *rig) {
		const n = 5_000
		m := measured{}
		repeat(b, m, func() {
			m.add("words", r.roundTrip("words ask", "words answer", n))
			m.add("ours", r.roundTrip("ask", "answer", n))
		})
		m.report(b, "ns", false, "words")
	})
}

// A round trip between two processes that sleep until they are woken, each on a processor of its own.
func BenchmarkRoundTripParked(b *testing.B) {
	ways(b, rigOptions{Capacity: capacity, PayloadBytes: payloadBytes, Pinned: true}, func(b *testing.B, r *rig) {
		const n = 500
		m := measured{}
		repeat(b, m, func() {
			m.add("futex", r.roundTrip("futex ask", "futex answer", n)/1e3)
			m.add("mq", r.roundTrip("mq ask", "mq answer", n)/1e3)
			m.add("ours", r.roundTrip("ask", "answer", n)/1e3)
		})
		m.report(b, "us", false, "futex", "mq")
	})
}

// Messages of 1 MiB, beside copying them into memory of the ring's size and out again.
func BenchmarkLarge(b *testing.B) {
	ways(b, rigOptions{Capacity: 32 << 20, PayloadBytes: 1 << 20, Lossless: true}, func(b *testing.B, r *rig) {
		const n = 100
		gigabytes := func(d time.Duration) float64 { return n * (1 << 20) / float64(d.Nanoseconds()) }
		m := measured{}
		repeat(b, m, func() {
			m.add("copies", gigabytes(time.Duration(r.left.do("copy", n)[0])))
			m.add("bare", gigabytes(r.stream("bare write", "bare read", n)))
			m.add("ours", gigabytes(r.stream("publish", "next", n)))
		})
		m.report(b, "GB/s", true, "copies", "bare")
	})
}

// System calls that wake, for each 100 messages, with a consumer that keeps up.
func BenchmarkWakes(b *testing.B) {
	ways(b, rigOptions{Capacity: capacity, PayloadBytes: payloadBytes}, func(b *testing.B, r *rig) {
		const n = 500
		m := measured{}
		repeat(b, m, func() {
			for _, pace := range paces {
				r.right.begin("next", n)
				r.left.begin(fmt.Sprint("publish every ", pace), n)
				m.add(fmt.Sprintf("every%dus", pace/1000), float64(r.left.end()[0])*100/n)
				r.right.end()
			}
		})
		m.report(b, "wakes/100", false)
	})
}

// CPU time that a producer and a waiting consumer take in which nothing happens.
func BenchmarkIdle(b *testing.B) {
	ways(b, rigOptions{Capacity: capacity, PayloadBytes: payloadBytes}, func(b *testing.B, r *rig) {
		const millis = 2_000
		m := measured{}
		for b.Loop() {
			r.right.begin("wait", millis)
			r.left.begin("rest", millis)
			m.add("producer", float64(r.left.end()[0])/millis)
			m.add("consumer", float64(r.right.end()[0])/millis)
		}
		m.report(b, "us/s", false)
	})
}
