package queue

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"
)

// backlog is a queue with so many plain messages ready, delayed, leased and with TTLs, as many of each.
func backlog(t testing.TB, n int) *Queue {
	q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxBytes = 1<<30, 1<<40 })
	for range n / 4 {
		send(t, q, at(0), text("leased"))
	}
	for left := n / 4; left > 0; {
		left -= len(receive(t, q, at(0), min(left, 10_000), Selector{}))
	}
	for range n / 4 {
		send(t, q, at(0), text("ready"), Message{Type: 2, Body: []byte("delayed"), Delay: time.Hour}, Message{Type: 3, TTL: time.Hour, Body: []byte("ttl")})
	}
	return q
}

// What an operation allocates does not depend on what stands before it.
func TestAllocationsDoNotGrowWithBacklog(t *testing.T) {
	operations := map[string]func(q *Queue, now *Instant){
		"send, lease, ack": func(q *Queue, now *Instant) {
			_, _ = q.Send(*now, Batch{Messages: []Message{{Type: 9, Priority: 5, Body: []byte("body")}}})
			q.Publish(q.Last())
			d, _ := q.Lease(*now, LeaseRequest{Max: 1, MaxBytes: 100}, nil)
			run := q.Begin(*now, nil)
			_ = run.Ack(d[0].Receipt)
			run.End()
		},
		"lease, nack": func(q *Queue, now *Instant) {
			d, _ := q.Lease(*now, LeaseRequest{Max: 1, MaxBytes: 100}, nil)
			run := q.Begin(*now, nil)
			for i := range d {
				_ = run.Nack(d[i].Receipt, 0, "")
			}
			run.End()
		},
		"expire": func(q *Queue, now *Instant) { now.Mono += tick; q.Expire(*now, nil, 100) },
		"stats":  func(q *Queue, now *Instant) { q.Stats(*now) },
		"full page of peek": func(q *Queue, now *Instant) {
			p, _ := NewPeeker(Filter{}, 1, 0, false, "")
			p.Step(q, *now)
		},
	}
	for name, op := range operations {
		// Against the backlog of one message of each kind: with none there is nothing to hand out.
		var got []float64
		for _, n := range []int{4, 100_000} {
			q, now := backlog(t, n), at(0)
			q.settings.MaxAttempts = math.MaxInt32
			for range 100 {
				op(q, &now)
			}
			got = append(got, testing.AllocsPerRun(100, func() { op(q, &now) }))
		}
		if got[1] > got[0] {
			t.Errorf("%s: %v allocations with little, %v with much before it", name, got[0], got[1])
		}
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A queue that was drained gives its memory back, however it was drained.
func TestDrainedQueueGivesMemoryBack(t *testing.T) {
	const n = 100_000
	for name, drain := range map[string]func(q *Queue){
		"purge": func(q *Queue) {
			for next := uint64(1); next != 0; {
				_, next = q.Purge(at(0), &Filter{States: []State{Ready, Delayed, Leased, Buried}}, next, math.MaxInt, false)
			}
		},
		"lease and ack": func(q *Queue) {
			for q.Len() > 0 {
				for _, d := range receive(t, q, at(0), 1000, Selector{}) {
					ack(t, q, at(0), d)
				}
				expire(q, nil, at(30*time.Minute))
				expire(q, nil, at(2*time.Hour))
			}
		},
	} {
		before := heap()
		q := backlog(t, n)
		for range 5 {
			send(t, q, at(0), repeat(1000, Message{Type: 5, Body: make([]byte, 1000)})...)
		}
		full := heap()
		drain(q)
		after := heap()
		want(t, name+": messages left", q.Len(), 0)
		if full < before+n*60 {
			t.Fatalf("%d bytes for %d messages: nothing was measured", full-before, n)
		}
		if kept := int64(after) - int64(before); kept > 4<<20 {
			t.Errorf("%s: %d bytes are kept of %d", name, kept, full-before)
		}
		consistent(t, q)
	}
}

// Messages that stay do not keep the payloads of those that went, and what they do keep is used again.
func TestSurvivorsPinLittleMemory(t *testing.T) {
	const n = 200_000
	q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxBytes = 1<<30, 1<<40 })
	var kept []uint64
	for range 4 {
		for range n / 1000 {
			send(t, q, at(0), Message{Type: 2, Body: make([]byte, 100)})
			send(t, q, at(0), repeat(999, Message{Type: 1, Body: make([]byte, 100)})...)
		}
		for next := uint64(1); next != 0; {
			_, next = q.Purge(at(0), &Filter{Selector: Selector{Kind: TypeIs, Type: 1}}, next, math.MaxInt, false)
		}
		kept = append(kept, heap())
		if p := &q.payloads; p.total > 2*p.live+2*slabSlack {
			t.Errorf("%d bytes of payload memory for %d", p.total, p.live)
		}
	}
	want(t, "left", q.Len(), 4*n/1000)
	if grown := int64(kept[3]) - int64(kept[0]); grown > 4<<20 {
		t.Errorf("memory grew by %d bytes for %d messages that stayed", grown, q.Len())
	}
	consistent(t, q)
	runtime.KeepAlive(q)
}

// BenchmarkOverhead reports the bytes that a million messages take, each, beside a body of 96 bytes, and that a remembered
// dedup id takes whose message is gone.
func BenchmarkOverhead(b *testing.B) {
	const (
		n    = 1_000_000
		body = 96
	)
	for _, c := range []struct {
		name  string
		m     Message
		lease bool
	}{
		{name: "plain"},
		{name: "delay", m: Message{Delay: time.Hour}},
		{name: "ttl", m: Message{TTL: time.Hour}},
		{name: "delay-and-ttl", m: Message{Delay: time.Hour, TTL: time.Hour}},
		{name: "leased", lease: true},
		{name: "dedup-id", m: Message{DedupID: "%016x"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				q := newQueue(func(s *Settings) { s.MaxMessages, s.MaxBytes, s.MaxDedupIDs = 1<<30, 1<<40, n })
				m := c.m
				m.Type, m.Body = 1, make([]byte, body)
				take := func(l LeaseRequest) {
					l.Max, l.MaxBytes = 1000, 1<<30
					for q.ReadyLen() > 0 {
						if _, err := q.Lease(at(0), l, nil); err != nil {
							b.Fatal(err)
						}
					}
				}
				for i := range n {
					if c.m.DedupID != "" {
						m.DedupID = fmt.Sprintf(c.m.DedupID, i)
					}
					if _, err := q.Send(at(0), Batch{Messages: []Message{m}}); err != nil {
						b.Fatal(err)
					}
					q.Publish(q.Last())
					if c.m.DedupID != "" && i%1000 == 0 {
						take(LeaseRequest{Consume: true})
					}
				}
				if c.lease {
					take(LeaseRequest{})
				}
				left := n * body
				if c.m.DedupID != "" {
					take(LeaseRequest{Consume: true})
					left = 0
				}
				b.ReportMetric((float64(heap()-before)-float64(left))/n, "bytes/message")
				runtime.KeepAlive(q)
			}
		})
	}
}
