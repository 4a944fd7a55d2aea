package queue

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// spill stores and publishes messages, one batch, whose payloads are in the journal alone.
func spill(t testing.TB, q *Queue, now Instant, messages ...Message) Stored {
	t.Helper()
	stored, err := q.Send(now, Batch{Messages: messages, Spill: true})
	if err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	return stored
}

// spilling is a queue with a journal.
func spilling(edit func(*Settings)) (*Queue, *tape) {
	q := newQueue(edit)
	return q, newTape(q, at(0))
}

func TestSpilledPayloadsTakeNoMemory(t *testing.T) {
	q, _ := spilling(nil)
	spill(t, q, at(0), repeat(100, Message{Type: 1, Body: make([]byte, 1000)})...)
	want(t, "resident bytes, bytes", []any{q.ResidentBytes(), q.Bytes()}, []any{0, 100_000})
	if live := q.LiveBytes(); live < 100_000 || live > 110_000 {
		t.Errorf("%d live bytes", live)
	}
	send(t, q, at(0), text("stays"))
	want(t, "in memory", []any{q.InMemory(1), q.InMemory(101), q.InMemory(102)}, []any{false, true, false})
	_, spilled := q.Payload(1)
	payload, kept := q.Payload(101)
	want(t, "payloads", []any{spilled, string(payload), kept}, []any{false, "stays", true})
	consistent(t, q)
}

func TestSetPlaceGivesUpMemory(t *testing.T) {
	q, journal := spilling(nil)
	send(t, q, at(0), text("body"), text("other"))
	q.SetPlace(1, 1)
	q.SetPlace(2, 0)
	q.SetPlace(7, 7)
	want(t, "in memory", []any{q.InMemory(1), q.InMemory(2)}, []any{false, true})
	consistent(t, q)
	want(t, "received", len(receive(t, q, at(0), 2, Selector{})), 0)
	journal.fetch()
	got := receive(t, q, at(0), 2, Selector{})
	want(t, "bodies", []any{string(got[0].Body), string(got[1].Body)}, []any{"body", "other"})
}

func TestLeaseStopsAtMissingPayload(t *testing.T) {
	q, journal := spilling(nil)
	send(t, q, at(0), text("a"), text("b"))
	spill(t, q, at(0), text("c"), Message{Type: 1, Headers: []Header{{"k", []byte("v")}}})
	send(t, q, at(0), text("e"))
	spill(t, q, at(0), text("f"), text(""))
	want(t, "before it", sequences(receive(t, q, at(0), 10, Selector{})), []uint64{1, 2})
	number := q.Number()
	want(t, "at it", sequences(receive(t, q, at(0), 10, Selector{})), []uint64(nil))
	want(t, "record", q.Number(), number)
	journal.fetch() // what follows was read ahead
	got := receive(t, q, at(0), 10, Selector{})
	want(t, "after it was fetched", sequences(got), []uint64{3, 4, 5, 6, 7})
	want(t, "body, header", []any{string(got[0].Body), got[1].Headers}, []any{"c", []Header{{"k", []byte("v")}}})
	want(t, "fetches", journal.fetches, 3) // nothing is read for an empty body
	want(t, "still cached", len(q.fetch.cache), 0)
	consistent(t, q)
}

func TestLeaseReadsAheadWithinBounds(t *testing.T) {
	for _, c := range []struct{ count, size, missing int }{{600, 10, 512}, {10, 100 << 10, 5}, {3, 1 << 20, 1}, {3, 10, 3}} {
		q, _ := spilling(func(s *Settings) { s.MaxMessageSize = 1 << 20 })
		for range c.count {
			spill(t, q, at(0), Message{Type: 1, Body: make([]byte, c.size)})
		}
		receive(t, q, at(0), 1, Selector{})
		want(t, fmt.Sprintf("asked for, with %d of %d bytes", c.count, c.size), len(q.Missing()), c.missing)
		want(t, "asked for again", len(q.Missing()), 0)
	}
}

func TestFetchedPayloadsAreBounded(t *testing.T) {
	q, journal := spilling(func(s *Settings) { s.MaxMessageSize = 8 << 20 })
	for i := range 12 {
		spill(t, q, at(0), Message{Type: int64(i + 1), Body: make([]byte, 1<<20)})
	}
	spill(t, q, at(0), Message{Type: 13, Body: make([]byte, 8<<20)})
	for typ := range int64(13) {
		_, _ = q.Lease(at(0), LeaseRequest{Selector: Selector{Kind: TypeIs, Type: typ + 1}, Max: 1, MaxBytes: 1}, nil)
		journal.fetch()
		consistent(t, q) // the bound is an invariant
	}
	want(t, "received", len(receive(t, q, at(0), 1, Selector{Kind: TypeIs, Type: 13})), 1)
}

func TestPayloadOfGoneMessageIsNotKept(t *testing.T) {
	q, journal := spilling(nil)
	spill(t, q, at(0), text("purged"), text("moved"))
	receive(t, q, at(0), 2, Selector{})
	asked := q.Missing()
	want(t, "asked for", len(asked), 2)
	q.Purge(at(0), &Filter{MaxSequence: 1}, 0, 1, false)
	q.SetPlace(2, 1000)
	for _, p := range append(asked, 77) {
		q.Fetched(p, journal.payloads[p])
		q.Damaged(p)
	}
	want(t, "cached", len(q.fetch.cache), 0)
	receive(t, q, at(0), 2, Selector{})
	q.Purge(at(0), &Filter{}, 0, 1, false)
	want(t, "asked for, of messages that went since", len(q.Missing()), 0)
	consistent(t, q)
}

func TestDamagedPayloadIsBuried(t *testing.T) {
	for name, damage := range map[string]func(q *Queue, p Place){
		"unreadable":   func(q *Queue, p Place) { q.Damaged(p) },
		"wrong length": func(q *Queue, p Place) { q.Fetched(p, make([]byte, 1000)) },
	} {
		q, journal := spilling(nil)
		send(t, q, at(0), text("good"))
		spill(t, q, at(0), text("bad"))
		send(t, q, at(0), text("good too"))
		receive(t, q, at(0), 1, Selector{})
		receive(t, q, at(0), 1, Selector{})
		damage(q, q.Missing()[0])
		p := peek(t, q, at(0), Ready)
		want(t, name+": peek", []any{p[0].Sequence, len(p[0].Body), p[0].BuryReason}, []any{2, 0, reasonDamaged})
		want(t, name+": received", sequences(receive(t, q, at(0), 10, Selector{})), []uint64{3})
		p = peek(t, q, at(0), Buried)
		want(t, name+": buried", []any{shown(p), p[0].BuryReason}, []any{[]uint64{2}, reasonDamaged})
		consistent(t, q)
		again := journal.loaded(t)
		want(t, name+": buried after a restart", shown2(again, Buried), []uint64{2})

		q.Kick(at(0), &Filter{}, 0, 10, false)
		_, ok := q.LeaseOne(at(0), 2)
		want(t, name+": leased", []any{ok, q.stats.Buried}, []any{false, 1})
	}
}

// shown2 lists the messages in a state, without their payloads.
func shown2(q *Queue, state State) (seqs []uint64) {
	eachSlot(q, func(_ uint32, s *slot) {
		if s.state == state {
			seqs = append(seqs, s.seq)
		}
	})
	return seqs
}

func TestDeadLetterWaitsForItsPayload_S17(t *testing.T) {
	q, journal := spilling(func(s *Settings) { s.MaxAttempts, s.DeadLetter = 1, "/dead" })
	dead := newQueue(nil)
	spill(t, q, at(0), text("body"), text("lost"))
	receive(t, q, at(0), 2, Selector{})
	journal.fetch()
	ds := receive(t, q, at(0), 2, Selector{})
	number := q.Number()
	for range 2 {
		run := q.Begin(at(0), dead)
		err := run.Nack(ds[0].Receipt, 0, "")
		run.End()
		want(t, "error", err, ErrMissing)
	}
	want(t, "records, leased, dead letters", []any{q.Number(), q.LeasedLen(), dead.Len()}, []any{number, 2, 0})
	journal.fetch()
	nack(t, q, dead, at(0), ds[0])
	dead.Publish(dead.Last())
	want(t, "dead letter", string(one(t, dead, at(0)).Body), "body")

	run := q.Begin(at(0), dead)
	want(t, "error", run.Break(ds[1].Receipt), ErrMissing)
	run.End()
	q.Damaged(q.Missing()[0])
	nack(t, q, dead, at(0), ds[1])
	want(t, "buried", peek(t, q, at(0), Buried)[0].BuryReason, reasonDamaged)
	want(t, "attempts", q.stats.Nacked, uint64(2))
	consistent(t, q)
}

// Without a dead-letter queue nothing is read: the message is buried.
func TestBuryingNeedsNoPayload_S17(t *testing.T) {
	q, journal := spilling(func(s *Settings) { s.MaxAttempts = 1 })
	spill(t, q, at(0), text("body"))
	receive(t, q, at(0), 1, Selector{})
	journal.fetch()
	nack(t, q, nil, at(0), one(t, q, at(0)))
	want(t, "buried, asked for", []any{q.stats.Buried, len(q.Missing())}, []any{1, 0})
}

func TestExpiryWaitsForPayloads_S18(t *testing.T) {
	q, journal := spilling(func(s *Settings) { s.DeadLetter, s.DeadLetterExpired = "/dead", true })
	dead := newQueue(nil)
	const n = 1000
	for range n {
		spill(t, q, at(0), Message{Type: 1, Body: []byte("body"), TTL: time.Second})
	}
	send(t, q, at(0), Message{Type: 2, Body: []byte("in memory"), TTL: 3 * time.Second})
	now := at(2 * time.Second)
	for rounds := 0; q.Len() > 1; rounds++ {
		left := q.Len()
		want(t, "more", q.Expire(now, dead, 1<<20), false)
		due, ok := q.NextDue(now)
		if due <= 0 || !ok {
			t.Fatalf("next due %v, %v while payloads are missing", due, ok)
		}
		asked := q.Missing()
		if len(asked) == 0 || len(asked) > fetchMessages || rounds > n {
			t.Fatalf("%d asked for, round %d, %d messages", len(asked), rounds, left)
		}
		for _, p := range asked {
			q.Fetched(p, journal.payloads[p])
		}
		if due, _ = q.NextDue(now); !q.Rescheduled() && due != 0 {
			t.Fatalf("next due %v when payloads came", due)
		}
		for q.Expire(now, dead, 100) {
		}
		if q.Len() == left {
			t.Fatal("nothing expired though payloads were handed in")
		}
		q.Missing()
	}
	want(t, "dead letters", dead.Len(), n)
	expire(q, dead, at(4*time.Second))
	want(t, "left, dead letters", []any{q.Len(), dead.Len()}, []any{0, n + 1})
	consistent(t, q)
}

func TestFitStopsAtMissingPayload(t *testing.T) {
	q, journal := spilling(nil)
	long := Message{Type: 1, Body: make([]byte, 50), CorrelationID: "c"}
	fits := Message{Type: 1, Body: make([]byte, 20), CorrelationID: "of some length"}
	spill(t, q, at(0), Message{Type: 1, Body: make([]byte, 50)}, long, fits)
	steps := 0
	for {
		seq, _, _, more := q.Fit(Selector{}, 30, ReadyCursor{})
		if seq != 0 {
			want(t, "fits", seq, uint64(3))
			break
		}
		if steps++; more || !journal.fetch() || steps > 3 {
			t.Fatalf("nothing fits, more: %v, step %d", more, steps)
		}
	}
	if _, ok := q.LeaseOne(at(0), 3); !ok {
		t.Fatal("what fits is not there")
	}
	q.fetch.cache, q.fetch.cacheBytes = nil, 0
	fetched := journal.fetches
	seq, _, big, _ := q.Fit(Selector{}, 30, ReadyCursor{})
	want(t, "fits, passed over for the first time, read again", []any{seq, big, len(q.Missing()), journal.fetches - fetched}, []any{0, 0, 0, 0})
	q.Fit(Selector{}, 50, ReadyCursor{}) // larger doors
	journal.fetch()
	seq, _, _, _ = q.Fit(Selector{Kind: TypeIs, Type: 1}, 50, ReadyCursor{})
	want(t, "fits larger doors", seq, uint64(1))
	_, ok := q.LeaseOne(at(0), 1)
	seq, _, _, _ = q.Fit(Selector{}, 50, ReadyCursor{})
	want(t, "leased, and what was too large before fits too", []any{ok, seq}, []any{true, 2})
}

// Where a purge or kick can not tell whether a message is meant it stops, and goes on there.
func TestPurgeAndKickStopAtMissingHeaders(t *testing.T) {
	f := Filter{Headers: []Header{{"k", []byte("v")}}}
	for _, kick := range []bool{false, true} {
		q, journal := spilling(nil)
		with, without := Message{Type: 1, Headers: f.Headers}, Message{Type: 1, Headers: []Header{{"k", []byte("w")}}}
		send(t, q, at(0), with, text("no headers"))
		spill(t, q, at(0), without)
		send(t, q, at(0), with)
		spill(t, q, at(0), with)
		state, sweep := Ready, q.Purge
		if kick {
			state, sweep = Buried, q.Kick
			for receive(t, q, at(0), 10, Selector{}); journal.fetch(); {
				receive(t, q, at(0), 10, Selector{})
			}
			run := q.Begin(at(0), nil)
			eachSlot(q, func(_ uint32, s *slot) {
				r := Receipt{Queue: 1, Epoch: q.epoch, Sequence: s.seq, Delivery: s.delivery}
				r.Check = receiptCheck(q.secret, r)
				if err := run.Bury(r, ""); err != nil {
					t.Fatal(err)
				}
			})
			run.End()
		}
		count, next := sweep(at(0), &f, 0, 10, false)
		want(t, "before it", []any{count, next, shown2(q, state)}, []any{1, 3, []uint64{2, 3, 4, 5}})
		want(t, "asked for", len(q.fetch.missing), 2)
		journal.fetch()
		count, next = sweep(at(0), &f, next, 10, false)
		want(t, "after it", []any{count, next, shown2(q, state)}, []any{2, 0, []uint64{2, 3}})
		consistent(t, q)
	}
}

func TestPeekReadsAheadNoFurtherThanItsPage(t *testing.T) {
	for _, state := range []State{Ready, Delayed, Leased, Buried} {
		q, journal := spilling(nil)
		for range 100 {
			m := text("body")
			if state == Delayed {
				m.Delay = time.Hour
			}
			spill(t, q, at(0), m)
		}
		if state == Leased || state == Buried {
			for receive(t, q, at(0), 100, Selector{}); journal.fetch(); {
				run := q.Begin(at(0), nil)
				for _, d := range receive(t, q, at(0), 100, Selector{}) {
					if state == Buried {
						_ = run.Bury(d.Receipt, "")
					}
				}
				run.End()
			}
		}
		p, _ := NewPeeker(Filter{States: []State{state}}, 10, 0, false, "")
		want(t, "done", p.Step(q, at(0)), false)
		want(t, fmt.Sprintf("asked for to show %v ones", state), len(q.fetch.missing), 10)
		journal.fetch()
		for steps := 0; !p.Step(q, at(0)); steps++ {
			if steps > 0 {
				t.Fatal("the page is not done though all was read")
			}
		}
		want(t, "shown", len(p.Page), 10)
	}
}

// A peek by header among many that are not in memory comes to an end.
func TestPeekByHeaderReadsAllInTurn(t *testing.T) {
	q, journal := spilling(func(s *Settings) { s.MaxMessageSize = 1 << 20 })
	var meant []uint64
	for i := range 600 {
		h := []Header{{"n", []byte(fmt.Sprint(i % 100))}}
		stored := spill(t, q, at(0), Message{Type: 1, Headers: h, Body: bytes.Repeat([]byte("x"), 20_000), Delay: time.Duration(600-i) * time.Minute})
		if i%100 == 7 {
			meant = append([]uint64{stored.First}, meant...)
		}
	}
	var got []uint64
	for cursor := ""; ; {
		page, next := peekPage(t, q, Filter{States: []State{Delayed}, Headers: []Header{{"n", []byte("7")}}}, 2, cursor, at(0), journal)
		got = append(got, shown(page)...)
		if cursor = next; cursor == "" {
			break
		}
	}
	want(t, "shown", got, meant)
}

func TestDeadLettersAreCutIntoFrames(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxAttempts, s.DeadLetter = 1, "/dead" })
	dead := newQueue(nil)
	var log []string
	q.Emit = func(r *Record) { log = append(log, fmt.Sprintf("gone %d", len(r.Seqs))) }
	dead.Emit = func(r *Record) { log = append(log, "dead") }
	q.Cut = func() { log = append(log, "cut") }
	send(t, q, at(0), repeat(8, Message{Type: 1, Body: make([]byte, 13<<10)})...)
	ds := receive(t, q, at(0), 8, Selector{})
	log = nil
	run := q.Begin(at(0), dead)
	for _, d := range ds {
		if err := run.Nack(d.Receipt, 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	run.End()
	want(t, "order", log, []string{"dead", "dead", "dead", "dead", "dead", "gone 5", "cut", "dead", "dead", "dead", "gone 3"})
}
