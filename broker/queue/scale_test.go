//go:build linux

package queue

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each round of these benchmarks measures what is small and what is large in turn, so that what else the machine does
// meets both: the ratios mean more than the times. `make bench-scale` runs them; docs/scale.md has the figures.

const (
	few  = 1000
	many = 10_000_000
)

// onProcessor is the time that this thread, to which a benchmark is locked, has been on a processor: what others do to it
// meanwhile counts only by the caches and memory that they take.
func onProcessor() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// filled is a queue with so many ready messages of 16 bytes.
func filled(b *testing.B, messages int) *Queue {
	b.Helper()
	q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxBytes, s.MaxAttempts, s.Lease = 1<<30, 1<<40, 60_000, time.Hour })
	body := make([]byte, 16)
	for left := messages; left > 0; left -= few {
		if _, err := q.Send(at(0), Batch{Messages: repeat(min(left, few), Message{Type: 1, Body: body})}); err != nil {
			b.Fatal(err)
		}
	}
	q.Publish(q.Last())
	return q
}

// inTurn measures n operations on a small and a large queue in turn, b.N times, and reports the medians of what one takes.
func inTurn(b *testing.B, n int, small, large func(n int) time.Duration) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var s, l []float64
	small(n)
	large(n)
	runtime.GC()
	for b.Loop() {
		s = append(s, float64(small(n).Nanoseconds())/float64(n))
		l = append(l, float64(large(n).Nanoseconds())/float64(n))
	}
	slices.Sort(s)
	slices.Sort(l)
	b.ReportMetric(0, "ns/op") // a round is as long as it is
	b.ReportMetric(s[len(s)/2], "small-ns")
	b.ReportMetric(l[len(l)/2], "large-ns")
	b.ReportMetric(l[len(l)/2]/s[len(s)/2], "ratio")
	b.ReportMetric(l[len(l)/2]-s[len(s)/2], "more-ns")
}

// memoryAccess is what one access to memory takes that no cache foresees: the measure of what can be expected behind
// ten million messages.
var memoryAccess = sync.OnceValue(func() float64 {
	const line = 16 // words
	words := make([]uint32, 512<<20/4)
	order := rand.New(rand.NewPCG(5, 6)).Perm(len(words) / line)
	for i, n := range order {
		words[n*line] = uint32(order[(i+1)%len(order)] * line)
	}
	const steps = 1_000_000
	at := uint32(0)
	began := onProcessor()
	for range steps {
		at = words[at]
	}
	took := onProcessor() - began
	runtime.KeepAlive(at)
	return float64(took.Nanoseconds()) / steps
})

// BenchmarkScaleInFlight is send, lease, and ack of any of ten thousand messages that are leased, behind a thousand and
// behind ten million.
func BenchmarkScaleInFlight(b *testing.B) {
	life := func(q *Queue) func(n int) time.Duration {
		random := rand.New(rand.NewPCG(7, 8))
		batch, now, out := Batch{Messages: []Message{{Type: 1, Body: make([]byte, 16)}}}, at(0), make([]Delivery, 0, 1)
		var held []Receipt
		return func(n int) time.Duration {
			began := onProcessor()
			for i := 0; i < n; i++ {
				now.Wall, now.Mono = now.Wall+1000, now.Mono+1000
				if _, err := q.Send(now, batch); err != nil {
					b.Fatal(err)
				}
				q.Publish(q.Last())
				got, err := q.Lease(now, LeaseRequest{Max: 1, MaxBytes: 1 << 20}, out[:0])
				if err != nil || len(got) != 1 {
					b.Fatal(err, len(got))
				}
				if len(held) < 10_000 {
					held = append(held, got[0].Receipt)
					began, i = onProcessor(), 0
					continue
				}
				any := random.IntN(len(held))
				run := q.Begin(now, nil)
				if err := run.Ack(held[any]); err != nil {
					b.Fatal(err)
				}
				run.End()
				held[any] = got[0].Receipt
			}
			return onProcessor() - began
		}
	}
	inTurn(b, 20_000, life(filled(b, few)), life(filled(b, many)))
}

// BenchmarkScaleBacklog is send, lease and ack of a message behind a thousand and behind ten million that came in order.
func BenchmarkScaleBacklog(b *testing.B) {
	life := func(q *Queue) func(n int) time.Duration {
		batch, now, out := Batch{Messages: []Message{{Type: 1, Body: make([]byte, 16)}}}, at(0), make([]Delivery, 0, 1)
		return func(n int) time.Duration {
			began := onProcessor()
			for range n {
				now.Wall, now.Mono = now.Wall+1000, now.Mono+1000
				if _, err := q.Send(now, batch); err != nil {
					b.Fatal(err)
				}
				q.Publish(q.Last())
				got, err := q.Lease(now, LeaseRequest{Max: 1, MaxBytes: 1 << 20}, out[:0])
				if err != nil || len(got) != 1 {
					b.Fatal(err, len(got))
				}
				run := q.Begin(now, nil)
				if err := run.Ack(got[0].Receipt); err != nil {
					b.Fatal(err)
				}
				run.End()
			}
			return onProcessor() - began
		}
	}
	inTurn(b, 20_000, life(filled(b, few)), life(filled(b, many)))
}

// BenchmarkScaleSettle is one settlement in no order of messages that are all leased: a thousand, and ten million.
func BenchmarkScaleSettle(b *testing.B) {
	for _, c := range []struct {
		name   string
		settle func(s Settlements, r Receipt) error
	}{
		{"ack", Settlements.Ack},
		{"touch", func(s Settlements, r Receipt) error { _, err := s.Touch(r, 0); return err }},
		{"nack", func(s Settlements, r Receipt) error { return s.Nack(r, 0, "") }},
		{"nack-delay", func(s Settlements, r Receipt) error { return s.Nack(r, time.Hour, "") }},
	} {
		b.Run(c.name, func(b *testing.B) {
			random := rand.New(rand.NewPCG(1, 2))
			settle := func(q *Queue, receipts []Receipt) time.Duration {
				began := onProcessor()
				for _, r := range receipts {
					run := q.Begin(at(0), nil)
					if err := c.settle(run, r); err != nil {
						b.Fatal(err)
					}
					run.End()
				}
				return onProcessor() - began
			}
			small := func(n int) (took time.Duration) {
				for ; n > 0; n -= few {
					q := filled(b, few)
					took += settle(q, leaseAll(b, q, 1, random))
				}
				return took
			}
			q := filled(b, many)
			sample := leaseAll(b, q, 8, random)
			large := func(n int) time.Duration {
				if len(sample) < n {
					b.Fatal("nothing is left to settle: run fewer rounds")
				}
				took := settle(q, sample[:n])
				sample = sample[n:]
				return took
			}
			inTurn(b, 20_000, small, large)
			b.ReportMetric(memoryAccess(), "memory-access-ns")
		})
	}
}

// leaseAll leases all messages and returns the receipts of one in so many, shuffled.
func leaseAll(b *testing.B, q *Queue, oneIn int, random *rand.Rand) (sample []Receipt) {
	b.Helper()
	out := make([]Delivery, 0, few)
	for q.ReadyLen() > 0 {
		var err error
		if out, err = q.Lease(at(0), LeaseRequest{Max: few, MaxBytes: 1 << 30}, out[:0]); err != nil {
			b.Fatal(err)
		}
		for i := range out {
			if oneIn == 1 || random.IntN(oneIn) == 0 {
				sample = append(sample, out[i].Receipt)
			}
		}
	}
	random.Shuffle(len(sample), func(i, j int) { sample[i], sample[j] = sample[j], sample[i] })
	return sample
}

// BenchmarkScaleTypes is receive by selectors, with a send and an ack, where so many types have messages ready.
func BenchmarkScaleTypes(b *testing.B) {
	for _, types := range []int{10, 100, 1000, 10_000, 100_000} {
		q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxBytes = 1<<30, 1<<40 })
		for range 3 {
			for typ := range types {
				send(b, q, at(0), Message{Type: int64(typ + 1), Body: make([]byte, 16)})
			}
		}
		random := rand.New(rand.NewPCG(3, 4))
		some := func() int64 { return random.Int64N(int64(types)) + 1 }
		set := make([]int64, 16)
		for _, c := range []struct {
			name string
			next func() Selector
		}{
			{"any", func() Selector { return Selector{} }},
			{"type", func() Selector { return Selector{Kind: TypeIs, Type: some()} }},
			{"upto", func() Selector { return Selector{Kind: LowestUpTo, Type: some()} }},
			{"not", func() Selector { return Selector{Kind: TypeIsNot, Type: some()} }},
			{"set16", func() Selector {
				for i := range set {
					set[i] = some()
				}
				slices.Sort(set)
				return Selector{Kind: TypeIn, Types: slices.Compact(set)}
			}},
		} {
			b.Run(fmt.Sprintf("%s/types=%d", c.name, types), func(b *testing.B) {
				out := make([]Delivery, 0, 1)
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				began := onProcessor()
				for b.Loop() {
					sel := c.next()
					got, err := q.Lease(at(0), LeaseRequest{Selector: sel, Max: 1, MaxBytes: 1 << 20}, out[:0])
					if err != nil || len(got) != 1 {
						b.Fatal(err, len(got), sel)
					}
					run := q.Begin(at(0), nil)
					if err := run.Ack(got[0].Receipt); err != nil {
						b.Fatal(err)
					}
					run.End()
					if _, err := q.Send(at(0), Batch{Messages: []Message{{Type: got[0].Type, Body: got[0].Body}}}); err != nil {
						b.Fatal(err)
					}
					q.Publish(q.Last())
				}
				b.ReportMetric(float64((onProcessor()-began).Nanoseconds())/float64(b.N), "cpu-ns")
			})
		}
	}
}
