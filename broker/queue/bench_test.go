package queue

import (
	"fmt"
	"testing"
)

// BenchmarkSendLeaseAck is the whole life of a 128-byte message in the engine alone, one at a time, in
// front of a backlog of the given size.
func BenchmarkSendLeaseAck(b *testing.B) {
	for _, backlog := range []int{0, 1000, 1_000_000} {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			s := Default(0, 0)
			s.MaxMessages, s.MaxBytes = 100_000_000, 1<<40
			q := New(1, "/bench", 1, 42, s)
			batch := Batch{Messages: []Message{{Type: 1, Body: make([]byte, 128)}}}
			now := Instant{Wall: 1, Mono: 1}
			for range backlog {
				if _, err := q.Send(now, batch); err != nil {
					b.Fatal(err)
				}
			}
			q.Publish(q.Last())
			out := make([]Delivery, 0, 1)
			b.ReportAllocs()
			for b.Loop() {
				now.Wall, now.Mono = now.Wall+1000, now.Mono+1000
				if _, err := q.Send(now, batch); err != nil {
					b.Fatal(err)
				}
				q.Publish(q.Last())
				got, err := q.Lease(now, LeaseRequest{Max: 1, MaxBytes: 1 << 20}, out[:0])
				if err != nil || len(got) != 1 {
					b.Fatal(err, len(got))
				}
				t := q.Begin(now, nil)
				if err := t.Ack(got[0].Receipt); err != nil {
					b.Fatal(err)
				}
				t.End()
			}
		})
	}
}

// BenchmarkSendLeaseAckBatch is the same with 64 messages a batch; the time is per message.
func BenchmarkSendLeaseAckBatch(b *testing.B) {
	const n = 64
	q := New(1, "/bench", 1, 42, Default(0, 0))
	batch := Batch{Messages: make([]Message, n)}
	for i := range batch.Messages {
		batch.Messages[i] = Message{Type: 1, Body: make([]byte, 128)}
	}
	now := Instant{Wall: 1, Mono: 1}
	out := make([]Delivery, 0, n)
	b.ReportAllocs()
	for i := 0; i < b.N; i += n {
		now.Wall, now.Mono = now.Wall+1000, now.Mono+1000
		if _, err := q.Send(now, batch); err != nil {
			b.Fatal(err)
		}
		q.Publish(q.Last())
		got, err := q.Lease(now, LeaseRequest{Max: n, MaxBytes: 1 << 20}, out[:0])
		if err != nil || len(got) != n {
			b.Fatal(err, len(got))
		}
		t := q.Begin(now, nil)
		for j := range got {
			if err := t.Ack(got[j].Receipt); err != nil {
				b.Fatal(err)
			}
		}
		t.End()
	}
}
