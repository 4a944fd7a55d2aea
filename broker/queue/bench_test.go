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

// BenchmarkReplay is recovery in the engine alone: batches of 64 messages of 128 bytes are replayed, and
// all is finished. The time is per message.
func BenchmarkReplay(b *testing.B) {
	const n, batches = 64, 4096
	for _, acked := range []bool{false, true} {
		b.Run(fmt.Sprintf("acked=%v", acked), func(b *testing.B) {
			s := Default(0, 0)
			s.Durability = Journal
			q := New(1, "/bench", 1, 42, s)
			var records [][]byte
			q.Emit = func(r *Record) { records = append(records, r.Append(nil)) }
			now := Instant{Wall: 1, Mono: 1}
			q.KeepBase(now)
			batch := Batch{Messages: make([]Message, n)}
			for i := range batch.Messages {
				batch.Messages[i] = Message{Type: 1, Body: make([]byte, 128)}
			}
			for range batches {
				if _, err := q.Send(now, batch); err != nil {
					b.Fatal(err)
				}
				q.Publish(q.Last())
				if !acked {
					continue
				}
				got, err := q.Lease(now, LeaseRequest{Max: n, MaxBytes: 1 << 20}, nil)
				if err != nil {
					b.Fatal(err)
				}
				t := q.Begin(now, nil)
				for i := range got {
					if err := t.Ack(got[i].Receipt); err != nil {
						b.Fatal(err)
					}
				}
				t.End()
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += n * batches {
				again := NewLoading(1)
				place := Place(0)
				next := func(size int) Place { place += Place(size+15) / 8; return place }
				for _, meta := range records {
					r, err := DecodeRecord(meta)
					if err != nil {
						b.Fatal(err)
					}
					if err := again.Replay(r, next); err != nil {
						b.Fatal(err)
					}
				}
				if err := again.Finish(); err != nil || again.Len() != q.Len() {
					b.Fatal(err, again.Len())
				}
			}
		})
	}
}

// BenchmarkSpilled is the way of a 128-byte message through a queue whose payloads are in the journal: sent,
// fetched with others, leased and acked. The time is per message.
func BenchmarkSpilled(b *testing.B) {
	const n = 64
	q := New(1, "/bench", 1, 42, Default(0, 0))
	batch := Batch{Messages: make([]Message, n), Spill: true}
	for i := range batch.Messages {
		batch.Messages[i] = Message{Type: 1, Body: make([]byte, 128)}
	}
	now := Instant{Wall: 1, Mono: 1}
	out := make([]Delivery, 0, n)
	payload := make([]byte, 128)
	b.ReportAllocs()
	for i := 0; i < b.N; i += n {
		now.Wall, now.Mono = now.Wall+1000, now.Mono+1000
		stored, err := q.Send(now, batch)
		if err != nil {
			b.Fatal(err)
		}
		for j := range uint64(n) {
			q.SetPlace(stored.First+j, Place(stored.First+j))
		}
		q.Publish(q.Last())
		got, err := q.Lease(now, LeaseRequest{Max: n, MaxBytes: 1 << 20}, out[:0])
		if err != nil || len(got) != 0 {
			b.Fatal(err, len(got))
		}
		for _, p := range q.Missing() {
			q.Fetched(p, payload)
		}
		if got, err = q.Lease(now, LeaseRequest{Max: n, MaxBytes: 1 << 20}, out[:0]); err != nil || len(got) != n {
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
