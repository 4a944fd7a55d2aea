package queue

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLoadingNeedsTheQueueItself(t *testing.T) {
	q := newQueue(nil)
	loading := NewLoading(1)
	q.Emit = func(r *Record) {
		again, err := DecodeRecord(r.Append(nil))
		if err == nil {
			err = replayOne(loading, again)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	send(t, q, at(0), text(""))
	if err := loading.Finish(); err == nil {
		t.Fatal("a queue without name and settings can be used")
	}
	q.CreatedAt = 4711
	q.KeepBase(at(0))
	if err := loading.Finish(); err != nil {
		t.Fatal(err)
	}
	want(t, "name, creation, id, ready", []any{loading.Name(), loading.CreatedAt, loading.ID(), loading.ReadyLen()}, []any{"/q", 4711, 1, 1})
	if err := replayOne(loading, &Record{kind: recPause, Number: 100}); err == nil {
		t.Error("a record is replayed after all was finished")
	}
}

func TestGapsBetweenRecordsAreNoticed(t *testing.T) {
	for _, left := range []int{0, 1, 2} { // the record that is left out
		q := newQueue(nil)
		journal := newTape(q, at(0))
		for range 2 {
			q.Pause(at(0), !q.Paused())
		}
		q.KeepBase(at(0))
		seg := journal.segments[0]
		seg.records = append(seg.records[:left:left], seg.records[left+1:]...)
		want(t, fmt.Sprintf("gap where record %d is missing", left+1), journal.loaded(t).Gaps(), left > 0)
	}
}

// A queue whose messages are not recorded never gives a sequence twice, and comes back empty.
func TestMemoryQueueGoesOnBehindWhatWasReserved_S5(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Durability = Memory })
	journal := newTape(q, at(0))
	write := q.Emit
	q.ReserveSequences(at(0), 1000)
	q.Emit = nil
	send(t, q, at(0), repeat(10, text("x"))...)
	q.Emit = write
	q.Pause(at(0), true)
	send(t, q, at(0), text("its record is there all the same"))
	want(t, "reserved", q.Reserved(), uint64(1000))
	again := journal.loaded(t)
	want(t, "messages, bytes, paused, reserved", []any{again.Len(), again.Bytes(), again.LiveBytes(), again.Paused(), again.Reserved()}, []any{0, 0, 0, true, 1000})
	consistent(t, again)
	again.Restart(at(0), false, Instant{})
	want(t, "next", send(t, again, at(0), text("")).First, uint64(1001))
	consistent(t, again)
}

// What is replayed stands in lists by sequence, not in trees.
func TestLoadedBacklogIsInLists(t *testing.T) {
	q, journal := spilling(nil)
	for i := range 1000 {
		spill(t, q, at(0), Message{Type: int64(1 + i%3), Priority: uint16(i % 2), Body: []byte("x")})
	}
	journal.rotate()
	for range 1000 {
		spill(t, q, at(0), text("y"))
	}
	journal.free(at(0), 100) // the old ones now come last
	again := journal.loaded(t)
	consistent(t, again)
	eachSlot(again, func(_ uint32, s *slot) {
		if s.flags&flagInTree != 0 {
			t.Fatalf("message %d stands in a tree", s.seq)
		}
	})
	want(t, "lowest", again.LowestLive(), uint64(1))
	want(t, "replayed", dump(again, journal, 0, 0), dump(q, journal, 0, 0))
}

func TestLowestLive(t *testing.T) {
	q := newQueue(nil)
	want(t, "of none", q.LowestLive(), uint64(0))
	send(t, q, at(0), repeat(200, text(""))...)
	want(t, "lowest", q.LowestLive(), uint64(1))
	for _, first := range []uint64{2, 32, 100, 199, 200} {
		q.Purge(at(0), &Filter{MaxSequence: first - 1}, 0, 1000, false)
		want(t, "lowest", []any{q.LowestLive(), q.Live(first), q.Live(first - 1)}, []any{first, true, false})
	}
	q.Purge(at(0), &Filter{}, 0, 1000, false)
	want(t, "of none any more", []any{q.LowestLive(), q.Live(200)}, []any{0, false})
}

// Index pages whose sequences come late are found at once, and stand in order in the end.
func TestLateSequencesAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue(nil)
		x := &q.slots
		in := map[uint64]bool{}
		seqGen := rapid.OneOf(rapid.Uint64Range(1, 40), rapid.Uint64Range(1, 2000), rapid.Uint64Range(1<<30, 1<<30+200))
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for seq := range rapid.SampledFrom([]uint64{1, 40}).Draw(t, "run") {
					if seq += seqGen.Draw(t, "seq"); !in[seq] {
						x.add(seq)
						in[seq] = true
					}
				}
			},
			"remove": func(t *rapid.T) {
				part := rapid.Uint64Range(1, 4).Draw(t, "part")
				for seq := range in {
					if seq%5 < part {
						x.remove(x.find(seq))
						delete(in, seq)
					}
				}
			},
			"": func(t *rapid.T) {
				count := 0
				x.each(func(n uint32, s *slot) {
					if count++; !in[s.seq] || x.find(s.seq) != n {
						t.Fatalf("sequence %d is there: %v, found: %v", s.seq, in[s.seq], x.find(s.seq) == n)
					}
				})
				if count != len(in) {
					t.Fatalf("%d sequences instead of %d", count, len(in))
				}
				if seq := seqGen.Draw(t, "sought"); (x.find(seq) != 0) != in[seq] {
					t.Fatalf("sequence %d is found: %v", seq, !in[seq])
				}
			},
		})
		x.settleLate()
		if err := indexInvariants(q); err != nil {
			t.Fatal(err)
		}
		last, count := uint64(0), 0
		eachSlot(q, func(n uint32, s *slot) {
			if count++; s.seq <= last || x.find(s.seq) != n {
				t.Fatalf("%d after %d", s.seq, last)
			}
			last = s.seq
		})
		if count != len(in) {
			t.Fatalf("%d sequences instead of %d", count, len(in))
		}
	})
}

// Messages alike are recorded once, whatever their bodies say.
func TestRecordOfMessagesAlikeIsSmall(t *testing.T) {
	q := newQueue(nil)
	var meta []byte
	var bodies [][]byte
	q.Emit = func(r *Record) {
		meta = r.Append(nil)
		r.EachPayload(func(head, body []byte) { bodies = append(bodies, append(head, body...)) })
	}
	var all []Message
	for i := range 5000 {
		all = append(all, text(fmt.Sprintf("%08d", i)))
	}
	send(t, q, at(0), all...)
	if len(meta) > 64 || len(bodies) != 5000 || string(bodies[4999]) != "00004999" || bytes.Contains(meta, []byte("0000")) {
		t.Errorf("%d bytes of metadata, %d payloads", len(meta), len(bodies))
	}
	r, err := DecodeRecord(meta)
	if err != nil {
		t.Fatal(err)
	}
	next, sum := uint64(1), 0
	r.EachMessage(func(seq uint64, size int) {
		if seq == next {
			next++
		}
		sum += size
	})
	want(t, "messages, bytes", []any{next - 1, sum}, []any{5000, 40_000})
}

// After a clean stop leases end when they would have; those of nobody are over.
func TestCleanRestartKeepsLeases_S13(t *testing.T) {
	q, journal := spilling(nil)
	send(t, q, at(0), repeat(4, text(""))...)
	short, err := q.Lease(at(0), LeaseRequest{Max: 1, MaxBytes: 1, Duration: time.Minute}, nil)
	if err != nil {
		t.Fatal(err)
	}
	long := receive(t, q, at(0), 1, Selector{})
	settle(t, q, nil, at(0), func(s Settlements) error { _, err := s.Touch(long[0].Receipt, time.Hour); return err })
	if _, ok := q.LeaseOne(at(0), 3); !ok {
		t.Fatal("no lease")
	}
	again := journal.loaded(t)
	now := Instant{Wall: at(10 * time.Minute).Wall, Mono: 5 * tick} // another monotonic clock
	again.Restart(now, true, at(time.Second))
	want(t, "leased, ready", []any{shown2(again, Leased), shown2(again, Ready)}, []any{[]uint64{1, 2}, []uint64{3, 4}})
	p := peek(t, again, now, Leased)
	want(t, "end", []any{p[0].LeaseEnds, p[1].LeaseEnds}, []any{max(at(time.Minute).Wall, now.Wall-now.Mono+1), at(time.Hour).Wall})
	expire(again, nil, now)
	want(t, "leased, once expired", shown2(again, Leased), []uint64{2})
	ack(t, again, now, long[0])
	run := again.Begin(now, nil)
	wantReason(t, run.Ack(short[0].Receipt), "STALE_RECEIPT")
	run.End()
	consistent(t, again)
}

// What messages differ in is kept of each, although those alike are recorded once.
func TestNeighboursThatDifferStayDifferent(t *testing.T) {
	base := Message{Type: 1, Body: []byte("body")}
	differ := map[string]func(m *Message){
		"type": func(m *Message) { m.Type = 2 }, "priority": func(m *Message) { m.Priority = 1 },
		"length": func(m *Message) { m.Body = []byte("longer") }, "delay": func(m *Message) { m.Delay = time.Minute },
		"ttl": func(m *Message) { m.TTL = time.Hour }, "header": func(m *Message) { m.Headers = []Header{{"k", nil}} },
		"dedup id": func(m *Message) { m.DedupID = "id" },
	}
	for name, change := range differ {
		for _, before := range []bool{true, false} {
			other := base
			change(&other)
			all := []Message{base, base, other, base}
			if before {
				all = []Message{other, base, base, other}
				all[3].DedupID = ""
			}
			q, journal := spilling(nil)
			send(t, q, at(0), all...)
			for range 2 {
				want(t, name, dump(journal.loaded(t), journal, 0, 0), dump(q, journal, 0, 0))
				journal.free(at(0), 10)
			}
		}
	}
}

func TestKeptStatesStayDifferent(t *testing.T) {
	q, journal := spilling(nil)
	send(t, q, at(0), repeat(13, text("body"))...)
	ds := receive(t, q, at(0), 9, Selector{})
	later := append(receive(t, q, at(time.Second), 1, Selector{}), receive(t, q, at(2*time.Second), 1, Selector{})...)
	run := q.Begin(at(0), nil)
	_, err := run.Touch(ds[1].Receipt, time.Minute)
	for i, e := range []error{
		err, run.Bury(ds[2].Receipt, ""), run.Bury(ds[3].Receipt, "why"), run.Bury(ds[4].Receipt, "why not"),
		run.Nack(ds[5].Receipt, 0, ""), run.Nack(ds[6].Receipt, time.Minute, ""), run.Nack(ds[7].Receipt, time.Hour, ""), run.Release(ds[8].Receipt),
	} {
		if e != nil {
			t.Fatal(i, e)
		}
	}
	run.End()
	want(t, "leased later", sequences(later), []uint64{10, 11})
	d, _ := q.LeaseOne(at(0), 12)
	settle(t, q, nil, at(0), func(s Settlements) error { return s.Release(d.Receipt) })
	for range 2 {
		journal.free(at(0), 100)
		want(t, "kept", dump(journal.loaded(t), journal, 0, 0), dump(q, journal, 0, 0))
	}
}

func TestDamagedMessageStaysDamagedWhenKept(t *testing.T) {
	q, journal := spilling(nil)
	spill(t, q, at(0), text("bad"), Message{Type: 1, CorrelationID: "too"}, text("good"))
	receive(t, q, at(0), 1, Selector{})
	for i, p := range q.Missing() {
		if i < 2 {
			q.Damaged(p)
		}
	}
	journal.free(at(0), 100)
	consistent(t, q)
	again := journal.loaded(t)
	want(t, "kept", dump(again, journal, 0, 0), dump(q, journal, 0, 0))
	receive(t, again, at(0), 10, Selector{})
	want(t, "buried, asked for", []any{shown2(again, Buried), len(again.Missing())}, []any{[]uint64{1, 2}, 1})
}

// Bytes of the wrong length are not taken for a payload.
func TestKeepRefusesWhatIsNoPayload(t *testing.T) {
	q, journal := spilling(nil)
	spill(t, q, at(0), text("body"))
	q.Keep(at(0), []uint64{1, 99}, func(int) ([]byte, []byte) { return nil, []byte("another body") })
	again := journal.loaded(t)
	want(t, "kept", dump(again, journal, 0, 0), dump(q, journal, 0, 0))
	want(t, "received", len(receive(t, again, at(0), 1, Selector{})), 0)
	want(t, "buried", again.stats.Buried, 1)
}

// What happened to messages that come forward only later is counted.
func TestCountersCountWhatIsNotYetKnown(t *testing.T) {
	q, journal := spilling(nil)
	send(t, q, at(0), repeat(9, text("body"))...)
	all := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}
	journal.rotate()
	q.KeepBase(at(0))
	ds := receive(t, q, at(0), 7, Selector{})
	run := q.Begin(at(0), nil)
	for i, err := range []error{
		run.Ack(ds[0].Receipt), run.Nack(ds[1].Receipt, 0, ""), run.Break(ds[2].Receipt), run.Bury(ds[3].Receipt, "why"), run.Release(ds[4].Receipt),
	} {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	run.End()
	q.Kick(at(0), &Filter{}, 0, 1, false)
	q.Purge(at(0), &Filter{MinSequence: 9}, 0, 1, false)
	var left []uint64
	for _, seq := range all {
		if q.Live(seq) {
			left = append(left, seq)
		}
	}
	q.Keep(at(0), left, func(i int) ([]byte, []byte) { p, _ := q.Payload(left[i]); return p, nil })
	journal.segments = journal.segments[1:]
	want(t, "loaded", dump(journal.loaded(t), journal, 0, 0), dump(q, journal, 0, 0))
}

func TestReceiptsAfterACrashAreOfAnotherEpoch_S13(t *testing.T) {
	q, journal := spilling(nil)
	send(t, q, at(0), text("body"))
	before := journal.loaded(t) // the lease was not yet written
	old := one(t, q, at(0))
	for clean, epoch := range map[bool]uint32{true: 1, false: 2} {
		again := journal.loaded(t)
		again.Restart(at(0), clean, at(0))
		want(t, "epoch", again.epoch, epoch)
	}
	before.Restart(at(0), false, at(0))
	receive(t, before, at(0), 1, Selector{})
	journal.q = before
	journal.fetch()
	got := one(t, before, at(0))
	want(t, "delivery", got.Receipt.Delivery, old.Receipt.Delivery)
	run := before.Begin(at(0), nil)
	wantReason(t, run.Ack(old.Receipt), "STALE_RECEIPT")
	run.End()
}
