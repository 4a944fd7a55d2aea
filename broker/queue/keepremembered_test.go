package queue

import (
	"fmt"
	"testing"
	"time"
)

func TestOnlyIDsOfOldGenerationsAreKept_S8(t *testing.T) {
	q, journal := spilling(nil)
	id := func(n int) Message { return Message{Type: 1, DedupID: fmt.Sprint(n)} }
	for gen := range 4 { // generations 1 to 4, 10 ids each
		if gen > 0 {
			journal.rotate()
		}
		for i := range 10 {
			send(t, q, at(0), id(10*gen+i))
		}
	}
	again := journal.loaded(t)
	for _, q := range []*Queue{q, again} {
		want(t, "extents", q.ids.extents, []idExtent{{10, 1}, {20, 2}, {30, 3}, {40, 4}})
		var seqs []uint64
		q.Emit = func(r *Record) {
			for _, e := range r.ids {
				seqs = append(seqs, e.seq)
			}
		}
		kept := func(gen uint64, most int, now Instant) (more bool, n int) {
			seqs = nil
			more = q.KeepIDs(now, gen, most)
			q.Stamp(9)
			consistent(t, q)
			return more, len(seqs)
		}
		more, n := kept(2, 13, at(0))
		want(t, "kept, of 20", []any{n, more, seqs[0], seqs[12]}, []any{13, true, 1, 13})
		more, n = kept(2, 13, at(0))
		want(t, "the rest", []any{n, more, seqs[0]}, []any{7, false, 14})
		more, n = kept(2, 13, at(0))
		want(t, "again", []any{n, more}, []any{0, false})
		more, n = kept(3, 100, at(0))
		want(t, "of the next", []any{n, more, seqs[0]}, []any{10, false, 21})
		more, n = kept(100, 100, at(time.Hour))
		want(t, "when they are forgotten", []any{n, more}, []any{0, false})
	}
}

// The clock was set back while answers were copied forward: they are not lost with the next segment.
func TestProducersOutliveAClockSetBack_S9(t *testing.T) {
	q, journal := spilling(nil)
	if _, err := q.Send(at(time.Minute), Batch{Producer: "p", Number: 1, Messages: []Message{text("")}}); err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	for range 3 {
		journal.free(at(0), 10)
	}
	_, known, err := journal.loaded(t).Repeat("p", 1)
	want(t, "known", []any{known, err}, []any{true, nil})
}

func TestForgottenBatchesStayForgotten_S9(t *testing.T) {
	q, journal := spilling(nil)
	for n := range uint64(300) {
		if _, err := q.Send(at(0), Batch{Producer: "p", Number: n + 1, Messages: []Message{text("")}}); err != nil {
			t.Fatal(err)
		}
	}
	q.Publish(q.Last())
	journal.free(at(0), 1000)
	again := journal.loaded(t)
	for n, known := range map[uint64]bool{1: false, 44: false, 45: true, 300: true} {
		_, ok, err := again.Repeat("p", n)
		want(t, fmt.Sprintf("batch %d known, refused", n), []any{ok, err != nil}, []any{known, !known})
	}
	_, ok, err := again.Repeat("p", 301)
	want(t, "a new batch", []any{ok, err}, []any{false, nil})
}

// A producer that was forgotten altogether may count from the beginning again.
func TestForgottenProducerStartsAnew_S9(t *testing.T) {
	q, journal := spilling(nil)
	one := func(now Instant, producer string, batch uint64) {
		if _, err := q.Send(now, Batch{Producer: producer, Number: batch, Messages: []Message{text("")}}); err != nil {
			t.Fatal(err)
		}
		q.Publish(q.Last())
	}
	for n := range uint64(300) {
		one(at(0), "p", n+1)
	}
	one(at(time.Hour), "other", 1)
	one(at(time.Hour), "p", 2)
	for range 2 { // also where the batches that came first are known no more
		again := journal.loaded(t)
		stored, ok, err := again.Repeat("p", 2)
		want(t, "known", []any{stored.First, ok, err}, []any{302, true, nil})
		_, ok, err = again.Repeat("p", 1)
		want(t, "a batch that was not sent anew", []any{ok, err}, []any{false, nil})
		journal.free(at(time.Hour), 1000)
	}
}

func TestCopiesOfIDsCountForTheirGeneration_S8(t *testing.T) {
	q, journal := spilling(nil)
	send(t, q, at(0), Message{Type: 1, DedupID: "a"}, Message{Type: 1, DedupID: "b"})
	journal.rotate()
	send(t, q, at(0), Message{Type: 1, DedupID: "c"})
	journal.rotate()
	q.KeepIDs(at(0), 1, 1)
	again := journal.loaded(t)
	want(t, "extents", again.ids.extents, []idExtent{{1, 3}, {2, 1}, {3, 2}})
	want(t, "extents of the live one", q.ids.extents, again.ids.extents)
}

// The answers of producers may be of a time that has not come again, after the clock was set back. What
// else is remembered does not grow old by that.
func TestIDsOutliveAClockSetBack_S8(t *testing.T) {
	q, journal := spilling(nil)
	if _, err := q.Send(at(time.Hour), Batch{Producer: "p", Number: 1, Messages: []Message{text("")}}); err != nil {
		t.Fatal(err)
	}
	send(t, q, at(0), Message{Type: 1, DedupID: "id"})
	journal.rotate()
	q.KeepProducers(at(0), at(time.Hour).Wall, 0, 10)
	again := journal.loaded(t)
	want(t, "duplicates", send(t, again, at(0), Message{Type: 1, DedupID: "id"}).Duplicates, []Duplicate{{0, 2}})
}

func TestKeptProducersComeBackInOrder_S9(t *testing.T) {
	q, journal := spilling(nil)
	for n, producer := range []string{"a", "b", "c", "b", "a"} {
		if _, err := q.Send(at(0), Batch{Producer: producer, Number: uint64(n), Messages: []Message{text("")}}); err != nil {
			t.Fatal(err)
		}
	}
	q.Publish(q.Last())
	for range 2 {
		again := journal.loaded(t)
		want(t, "loaded", dump(again, journal, 0, 0), dump(q, journal, 0, 0))
		consistent(t, again)
		journal.free(at(0), 10)
	}
}

// A producer that was forgotten may count from the beginning although its old batches come forward last.
func TestKeptProducerMayHaveStartedAnew_S9(t *testing.T) {
	q, journal := spilling(nil)
	one := func(now time.Duration, producer string, batch uint64) {
		if _, err := q.Send(at(now), Batch{Producer: producer, Number: batch, Messages: []Message{text("")}}); err != nil {
			t.Fatal(err)
		}
		q.Publish(q.Last())
	}
	for n := range uint64(300) {
		one(0, "p", n+1)
	}
	journal.rotate()
	one(time.Minute, "other", 1)
	journal.free(at(time.Minute), 1000) // behind the other's
	one(150*time.Second, "third", 1)    // and the first is forgotten
	one(151*time.Second, "p", 2)
	again := journal.loaded(t)
	for _, x := range []*Queue{q, again} {
		_, two, err2 := x.Repeat("p", 2)
		_, one, err1 := x.Repeat("p", 1)
		want(t, "batches 2 and 1 known, errors", []any{two, err2, one, err1}, []any{true, nil, false, nil})
	}
}
