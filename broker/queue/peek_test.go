package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// everyState fills a queue with n messages in each state and returns it.
func everyState(t testing.TB, n int) *Queue {
	q := newQueue(nil)
	for i := range n {
		send(t, q, at(0), Message{Type: 1, Body: []byte("buried")}, Message{Type: 2, Body: []byte("leased")})
		d := receive(t, q, at(0), 1, Selector{Kind: TypeIs, Type: 1})[0]
		settle(t, q, nil, at(0), func(s Settlements) error { return s.Bury(d.Receipt, fmt.Sprint("why ", i%3)) })
		// Later ones have shorter leases and delays: neither stands in the order of sequences.
		_, err := q.Lease(at(0), LeaseRequest{Max: 1, MaxBytes: 1, Selector: Selector{Kind: TypeIs, Type: 2}, Duration: time.Duration(10*n-i) * time.Second}, nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, q, at(0), Message{Type: 3, Body: []byte("delayed"), Delay: time.Duration(10*n-i) * time.Second})
		send(t, q, at(0), Message{Type: 4, Priority: uint16(i % 5), Body: []byte("ready"), Headers: []Header{{"n", []byte(fmt.Sprint(i % 2))}}})
	}
	return q
}

func TestPeekChangesNothing_S20(t *testing.T) {
	q := everyState(t, 20)
	emitted := 0
	q.Emit = func(*Record) { emitted++ }
	before, stats := dump(q, nil, 0, 0), q.Stats(at(0))
	peek(t, q, at(0), Ready, Delayed, Leased, Buried)
	want(t, "queue", dump(q, nil, 0, 0), before)
	want(t, "statistics, records", []any{q.Stats(at(0)), emitted}, []any{stats, 0})
	q.CountPeeked(3)
	stats.Peeked += 3
	want(t, "statistics", q.Stats(at(0)), stats)
}

func TestPeekShowsEachStateInItsOrder_S20(t *testing.T) {
	const n = 7
	q := everyState(t, n)
	for _, state := range []State{Ready, Delayed, Leased, Buried} {
		got := peek(t, q, at(time.Second), state)
		want(t, state.String()+" messages", len(got), n)
		for i, p := range got {
			if p.State != state || string(p.Body) != state.String() || p.Receipt != (Receipt{}) {
				t.Errorf("%v shows %+v", state, p)
			}
			if i == 0 {
				continue
			}
			o := got[i-1]
			ordered := map[State]bool{
				Ready:   o.Priority > p.Priority || o.Priority == p.Priority && o.Sequence < p.Sequence,
				Delayed: o.Due < p.Due,
				Leased:  o.LeaseEnds < p.LeaseEnds,
				Buried:  o.Sequence < p.Sequence && p.BuryReason == fmt.Sprint("why ", i%3),
			}
			if !ordered[state] {
				t.Errorf("%v: %+v before %+v", state, o, p)
			}
		}
	}
	want(t, "end of the first lease", peek(t, q, at(time.Second), Leased)[0].LeaseEnds, at(10*n*time.Second-(n-1)*time.Second).Wall)
}

func TestPeekFilters_S20(t *testing.T) {
	q := newQueue(nil)
	h := func(v string) []Header { return []Header{{"k", []byte(v)}, {"l", []byte("x")}} }
	for i, m := range []Message{{Type: 1}, {Type: 2, Headers: h("a")}, {Type: 1, Headers: h("b")}, {Type: 3, DedupID: "d"}} {
		send(t, q, at(time.Duration(i)*time.Second), m)
	}
	for _, c := range []struct {
		f    Filter
		want []uint64
	}{
		{Filter{}, []uint64{1, 2, 3, 4}},
		{Filter{Selector: Selector{Kind: TypeIs, Type: 1}}, []uint64{1, 3}},
		{Filter{Selector: Selector{Kind: LowestUpTo, Type: 2}}, []uint64{1, 2, 3}},
		{Filter{MinSequence: 2, MaxSequence: 3}, []uint64{2, 3}},
		{Filter{SentBefore: at(time.Second).Wall}, []uint64{1, 2}},
		{Filter{Headers: []Header{{"k", []byte("b")}}}, []uint64{3}},
		{Filter{Headers: []Header{{"l", []byte("x")}, {"k", []byte("a")}}}, []uint64{2}},
		{Filter{Headers: []Header{{"k", nil}}}, nil},
		{Filter{States: []State{Buried}}, nil},
	} {
		page, _ := peekPage(t, q, c.f, 100, "", at(0))
		want(t, fmt.Sprintf("%+v", c.f), shown(page), c.want)
	}
}

func TestPeekCutsBodies_S20(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("body"))
	p, _ := NewPeeker(Filter{}, 1, 2, false, "")
	for !p.Step(q, at(0)) {
	}
	want(t, "body", []any{string(p.Page[0].Body), p.Page[0].TruncatedFrom}, []any{"bo", 4})
}

func TestPeekPageIsBoundedInBytes_S20(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessageSize = limits.MessageSizeMax })
	for range 5 {
		send(t, q, at(0), Message{Type: 1, Body: make([]byte, limits.PeekPageBytes/2)})
		send(t, q, at(0), Message{Type: 1, Body: make([]byte, limits.PeekPageBytes/2), Delay: time.Hour})
	}
	var all []uint64
	cursor := ""
	for {
		page, next := peekPage(t, q, Filter{States: []State{Ready, Delayed}}, 100, cursor, at(0))
		if len(page) > 2 {
			t.Fatalf("a page of %d messages", len(page))
		}
		all = append(all, shown(page)...)
		if cursor = next; cursor == "" {
			break
		}
	}
	want(t, "shown", all, []uint64{1, 3, 5, 7, 9, 2, 4, 6, 8, 10})
}

func TestPeekRefusesForeignCursors_S20(t *testing.T) {
	for _, cursor := range []string{"x", "1", "1.2.3.4", "1.2.0.4.5", "1.2.5.4.5", "1.2.1.4.5.6", " 1.2.1.4.5", "1.2.1.4.5 ", "1.2.1.4.x", "-1.2.1.4.5", "99999999999999999999.2.1.4.5"} {
		if _, err := NewPeeker(Filter{}, 1, 0, false, cursor); reason.Of(err) != reason.InvalidArgument {
			t.Errorf("%q: %v", cursor, err)
		}
	}
}

// With more messages in a state than are looked at under one hold of the lock, pages come out of passes
// over the queue in steps; messages move in between.
func TestPeekManyWhileMessagesMove_S20(t *testing.T) {
	const n = limits.PeekScan + 1500
	for _, state := range []State{Ready, Delayed, Leased, Buried} {
		q := newQueue(nil)
		var ds []Delivery
		for i := range n {
			m := Message{Type: int64(i%3 + 1), Priority: uint16(i % 2)}
			if state == Delayed {
				m.Delay = time.Duration(1+(i*7919)%n) * time.Second
			}
			send(t, q, at(0), m)
			if state == Leased || state == Buried {
				got, err := q.Lease(at(0), LeaseRequest{Max: 1, Duration: time.Duration(1+(i*7919)%n) * time.Second}, nil)
				if err != nil {
					t.Fatal(err)
				}
				ds = append(ds, got...)
			}
		}
		if state == Buried {
			run := q.Begin(at(0), nil)
			for _, d := range ds {
				if err := run.Bury(d.Receipt, ""); err != nil {
					t.Fatal(err)
				}
			}
			run.End()
		}
		seen, moved := map[uint64]bool{}, map[uint64]bool{}
		var last Peeked
		cursor, pages := "", 0
		for {
			p, err := NewPeeker(Filter{States: []State{state}}, 256, 0, false, cursor)
			if err != nil {
				t.Fatal(err)
			}
			for !p.Step(q, at(0)) {
				// Something moves between the steps: away, or to where it may not be shown again.
				pages++
				seq := uint64(pages*37%n + 1)
				switch state {
				case Ready:
					if _, ok := q.LeaseOne(at(0), seq); ok {
						moved[seq] = true
					}
				case Delayed:
					q.Purge(at(0), &Filter{MaxSequence: seq}, seq, 1, false)
					moved[seq] = true
				case Leased:
					d := ds[seq-1]
					settle(t, q, nil, at(0), func(s Settlements) error { _, err := s.Touch(d.Receipt, 24*time.Hour); return err })
					moved[seq] = true
				case Buried:
					q.Kick(at(0), &Filter{MaxSequence: seq}, seq, 1, false)
					moved[seq] = true
				}
			}
			for _, x := range p.Page {
				if seen[x.Sequence] {
					t.Fatalf("%v: %d is shown again", state, x.Sequence)
				}
				seen[x.Sequence] = true
				if state == Delayed && x.Due < last.Due || state == Leased && x.LeaseEnds < last.LeaseEnds || state == Buried && x.Sequence < last.Sequence {
					t.Fatalf("%v: %+v after %+v", state, x, last)
				}
				last = x
			}
			send(t, q, at(0), Message{Type: 1, Priority: uint16(pages % 2), Delay: time.Hour * 24})
			if cursor = p.Cursor(); cursor == "" {
				break
			}
		}
		for seq := uint64(1); seq <= n; seq++ {
			if !seen[seq] && !moved[seq] {
				t.Fatalf("%v: %d was missed", state, seq)
			}
		}
		if len(seen) > n {
			t.Fatalf("%v: what was sent since is shown", state)
		}
		consistent(t, q)
	}
}

// What became visible before the peek began is shown, whatever was tried in between.
func TestPeekShowsDelayedMessagePublishedLater_S20(t *testing.T) {
	for name, try := range map[string]func(q *Queue){
		"nothing":            func(*Queue) {},
		"an idle expiry":     func(q *Queue) { expire(q, nil, at(0)) },
		"an empty run":       func(q *Queue) { q.Begin(at(0), nil).End() },
		"a refused send":     func(q *Queue) { _, _ = q.Send(at(0), Batch{Messages: []Message{{Type: 1, DedupID: "a"}}}) },
		"an idle receive":    func(q *Queue) { _, _ = q.Lease(at(0), LeaseRequest{Max: 1}, nil) },
		"a too small buffer": func(q *Queue) { _, _ = q.Lease(at(0), LeaseRequest{Max: 1, MaxBody: 1}, nil) },
	} {
		q := newQueue(func(s *Settings) { s.MaxDedupIDs = 0 })
		send(t, q, at(0), text("too large"))
		if _, err := q.Send(at(0), Batch{Messages: []Message{{Type: 1, Delay: time.Hour}}}); err != nil {
			t.Fatal(err)
		}
		try(q)
		q.Publish(q.Last())
		want(t, "delayed after "+name, shown(peek(t, q, at(0), Delayed)), []uint64{2})
	}
}

// What was buried, leased or delayed billions of records ago is still shown.
func TestPeekShowsWhatMovedLongAgo_S20(t *testing.T) {
	q := everyState(t, 1)
	for _, later := range []uint64{1 << 30, 1<<31 + 100, 1<<32 - 100, 1<<32 + 5} {
		q.number = later
		want(t, fmt.Sprintf("shown at record %d", later), len(peek(t, q, at(0), Ready, Delayed, Leased, Buried)), 4)
	}
}

func TestPauseStopsDeliveriesNotSends_S22(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("a"), text("b"))
	d := one(t, q, at(0))
	q.Pause(at(0), true)
	want(t, "received", len(receive(t, q, at(0), 5, Selector{})), 0)
	if _, ok := q.LeaseOne(at(0), 2); ok || !q.Paused() {
		t.Error("a paused queue delivers")
	}
	send(t, q, at(0), text("c"))
	ack(t, q, at(0), d)
	want(t, "shown", shown(peek(t, q, at(0), Ready)), []uint64{2, 3})
	q.Pause(at(0), false)
	want(t, "received", sequences(receive(t, q, at(0), 5, Selector{})), []uint64{2, 3})
}

func TestPurgeByFilter_S22(t *testing.T) {
	const n = 5
	for _, c := range []struct {
		f    Filter
		gone int
	}{
		{Filter{}, 3 * n}, // not the leased ones
		{Filter{States: []State{Leased}}, n},
		{Filter{States: []State{Ready, Leased}}, 2 * n},
		{Filter{Selector: Selector{Kind: TypeIs, Type: 3}}, n},
		{Filter{MinSequence: 4, MaxSequence: 4}, 1},
		{Filter{Headers: []Header{{"n", []byte("1")}}}, 2},
		{Filter{SentBefore: 1}, 0},
	} {
		q := everyState(t, n)
		before := dump(q, nil, 0, 0)
		count, next := q.Purge(at(0), &c.f, 0, 1000, true)
		want(t, fmt.Sprintf("dry run of %+v", c.f), []any{count, next, dump(q, nil, 0, 0) == before}, []any{c.gone, 0, true})
		count, next = q.Purge(at(0), &c.f, 0, 1000, false)
		s := q.Stats(at(0))
		want(t, fmt.Sprintf("purge of %+v", c.f), []any{count, next, q.Len(), s.Purged}, []any{c.gone, 0, 4*n - c.gone, c.gone})
		consistent(t, q)
	}
}

func TestPurgeAndKickInSteps_S22(t *testing.T) {
	const n = 3000
	for name, work := range map[string]func(q *Queue, from uint64, max int) (int, uint64){
		"purge": func(q *Queue, from uint64, max int) (int, uint64) {
			return q.Purge(at(0), &Filter{States: []State{Buried}}, from, max, false)
		},
		"kick": func(q *Queue, from uint64, max int) (int, uint64) { return q.Kick(at(0), &Filter{}, from, max, false) },
	} {
		for _, step := range []int{700, 1 << 20} {
			q := everyState(t, n)
			records := 0
			q.Emit = func(r *Record) { records += len(r.Seqs) }
			total, steps := 0, 0
			for from := uint64(0); ; steps++ {
				count, next := work(q, from, step)
				if count > step {
					t.Fatalf("%s: %d at once", name, count)
				}
				if total += count; next == 0 {
					break
				}
				if next <= from {
					t.Fatalf("%s: from %d on to %d", name, from, next)
				}
				from = next
			}
			want(t, name+": messages, recorded, left", []any{total, records, q.Stats(at(0)).Buried}, []any{n, n, 0})
			consistent(t, q)
		}
	}
}

// Looking at a queue of which little is left in the middle is bounded work, too.
func TestScanOverGapsIsBounded_S20(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("first"))
	for range 20 {
		send(t, q, at(0), repeat(10_000, text(""))...)
	}
	last := send(t, q, at(0), text("last")).First
	for _, next := q.Purge(at(0), &Filter{MinSequence: 2, MaxSequence: last - 1}, 0, 1<<30, false); next != 0; {
		_, next = q.Purge(at(0), &Filter{MinSequence: 2, MaxSequence: last - 1}, next, 1<<30, false)
	}
	want(t, "left", shown(peek(t, q, at(0), Ready)), []uint64{1, last})
	steps := 0
	var seen []uint64
	for from := uint64(1); from != 0; steps++ {
		from = q.slots.scan(from, last, 100, func(n uint32, s *slot) bool {
			seen = append(seen, s.seq)
			return true
		})
	}
	want(t, "seen", seen, []uint64{1, last})
	if pages := int(last / pageSlots); steps < pages/100 {
		t.Errorf("%d pages in %d steps of 100", pages, steps)
	}
}

func TestPurgeByFilterLeavesOrder_S22(t *testing.T) {
	q := newQueue(nil)
	for i := range 100 {
		send(t, q, at(0), Message{Type: int64(i%4 + 1)})
	}
	q.Purge(at(0), &Filter{Selector: Selector{Kind: TypeIn, Types: []int64{2, 3}}}, 0, 1000, false)
	got := sequences(receive(t, q, at(0), 1000, Selector{}))
	if !slices.IsSorted(got) || len(got) != 50 {
		t.Errorf("left %v", got)
	}
	consistent(t, q)
}

func TestPeekBySequenceMergesTheStates(t *testing.T) {
	q := everyState(t, 3000)
	var all []uint64
	states := map[State]int{}
	f := Filter{States: []State{Buried, Ready, Delayed, Leased}, MinSequence: 5, MaxSequence: 11_000}
	for cursor := ""; ; {
		page, next := peekPageInOrder(t, q, f, 256, true, cursor, at(0))
		for _, p := range page {
			all = append(all, p.Sequence)
			states[p.State]++
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	for i, seq := range all {
		if seq != uint64(i)+5 {
			t.Fatalf("place %d shows %d", i, seq)
		}
	}
	want(t, "shown", len(all), 10_996)
	want(t, "states", states, map[State]int{Ready: 2749, Delayed: 2749, Leased: 2749, Buried: 2749})
}

func TestPeekCursorIsOfOneOrder(t *testing.T) {
	q := everyState(t, 3)
	for _, inSequence := range []bool{false, true} {
		_, cursor := peekPageInOrder(t, q, Filter{}, 1, inSequence, "", at(0))
		if _, err := NewPeeker(Filter{}, 1, 0, !inSequence, cursor); reason.Of(err) != reason.InvalidArgument {
			t.Errorf("by sequence %v: cursor %q of the other order: %v", !inSequence, cursor, err)
		}
	}
}
