package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestSelectorsChooseByType_S10(t *testing.T) {
	for _, c := range []struct {
		sel  Selector
		want []uint64
	}{
		{Selector{}, []uint64{1, 2, 3, 4, 5}},
		{Selector{Kind: TypeIs, Type: 3}, []uint64{1, 5}},
		{Selector{Kind: TypeIs, Type: 9}, nil},
		{Selector{Kind: LowestUpTo, Type: 3}, []uint64{2, 3, 1, 5}}, // types 1, 2, 3, 3
		{Selector{Kind: LowestUpTo, Type: 1}, []uint64{2}},
		{Selector{Kind: TypeIsNot, Type: 3}, []uint64{2, 3, 4}},
		{Selector{Kind: TypeIsNot, Type: 8}, []uint64{1, 2, 3, 4, 5}},
		{Selector{Kind: TypeIn, Types: []int64{7, 1, 9, 1}}, []uint64{2, 4}},
	} {
		q := newQueue(nil)
		for _, typ := range []int64{3, 1, 2, 7, 3} {
			send(t, q, at(0), Message{Type: typ})
		}
		sel, err := c.sel.Check()
		if err != nil {
			t.Fatal(err)
		}
		want(t, c.sel.String(), sequences(receive(t, q, at(0), 10, sel)), c.want)
		consistent(t, q)
	}
}

func TestSelectorsOutsideLimitsAreRefused_S10(t *testing.T) {
	for _, s := range []Selector{
		{Kind: TypeIs}, {Kind: TypeIs, Type: -1}, {Kind: LowestUpTo}, {Kind: TypeIsNot}, {Kind: TypeIn}, {Kind: TypeIn, Types: []int64{1, 0}},
		{Kind: TypeIn, Types: make([]int64, limits.SelectorTypes+1)}, {Kind: TypeIn + 1},
	} {
		if _, err := s.Check(); reason.Of(err) != reason.InvalidArgument {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestHighestPriorityThenLowestSequence_S11(t *testing.T) {
	q := newQueue(nil)
	for i, p := range []uint16{0, 5, 0, limits.PriorityMax, 5} {
		send(t, q, at(0), Message{Type: int64(i%2 + 1), Priority: p})
	}
	want(t, "order", sequences(receive(t, q, at(0), 10, Selector{})), []uint64{4, 2, 5, 1, 3})
}

func TestLowestTypeComesFirst_S11(t *testing.T) {
	q := newQueue(nil)
	for _, m := range []Message{{Type: 2, Priority: 9}, {Type: 1}, {Type: 1, Priority: 3}, {Type: 5, Priority: 9}, {Type: 1, Priority: 3}} {
		send(t, q, at(0), m)
	}
	want(t, "order", sequences(receive(t, q, at(0), 10, Selector{Kind: LowestUpTo, Type: 4})), []uint64{3, 5, 2, 1})
}

// Many types and priorities come and go: what is kept for them is bounded, and nothing is mixed up.
func TestManyTypesAndPriorities_S11(t *testing.T) {
	q := newQueue(nil)
	for round := range 3 {
		for i := range 3000 {
			send(t, q, at(0), Message{Type: int64(i + round*10_000 + 1), Priority: uint16(i % 7)}, Message{Type: 1, Priority: uint16(i)})
		}
		consistent(t, q)
		got := receive(t, q, at(0), 10_000, Selector{})
		want(t, "messages", len(got), 6000)
		for i := range got[1:] {
			a, b := got[i], got[i+1]
			if a.Priority < b.Priority || a.Priority == b.Priority && a.Sequence > b.Sequence {
				t.Fatalf("%+v before %+v", a, b)
			}
		}
		for _, d := range got {
			ack(t, q, at(0), d)
		}
		consistent(t, q)
	}
	if len(q.kindOf) > 3000+2*spareKinds {
		t.Errorf("%d types are kept", len(q.kindOf))
	}
	if n := len(q.kinds[q.kindOf[1]].classes); n > 16 {
		t.Errorf("%d priorities of one type are kept", n)
	}
}

func TestReceiptHoldsForItsDeliveryAlone_S13(t *testing.T) {
	q, other := newQueue(nil), New(2, "/other", 1, 0x5eed, Default(0, 0))
	actions := map[string]func(Settlements, Receipt) error{
		"ack":     Settlements.Ack,
		"nack":    func(s Settlements, r Receipt) error { return s.Nack(r, -1, "") },
		"release": Settlements.Release,
		"break":   Settlements.Break,
		"bury":    func(s Settlements, r Receipt) error { return s.Bury(r, "") },
		"touch":   func(s Settlements, r Receipt) error { _, err := s.Touch(r, 0); return err },
	}
	send(t, q, at(0), text("a"), text("b"))
	first := one(t, q, at(0))
	settle(t, q, nil, at(0), func(s Settlements) error { return s.Release(first.Receipt) })
	second := one(t, q, at(0))
	want(t, "sequence", second.Sequence, first.Sequence)
	for name, action := range actions {
		stale := map[string]Receipt{"of an earlier delivery": first.Receipt, "nothing": {}}
		for what, edit := range map[string]func(*Receipt){
			"of another queue":       func(r *Receipt) { r.Queue++ },
			"of another epoch":       func(r *Receipt) { r.Epoch++ },
			"of a later delivery":    func(r *Receipt) { r.Delivery++ },
			"of a ready message":     func(r *Receipt) { r.Sequence++ },
			"of no message":          func(r *Receipt) { r.Sequence = 99 },
			"of the sequence before": func(r *Receipt) { r.Sequence = 0 },
		} {
			r := second.Receipt
			edit(&r)
			stale[what+", mistyped"] = r
			r.Check = receiptCheck(q.secret, r)
			stale[what] = r
		}
		before := dump(q, nil, 0, 0)
		for what, r := range stale {
			run := q.Begin(at(0), nil)
			if err := action(run, r); reason.Of(err) != reason.StaleReceipt {
				t.Errorf("%s with a receipt %s: %v", name, what, err)
			}
			run.End()
		}
		want(t, "queue after "+name, dump(q, nil, 0, 0), before)
	}
	run := other.Begin(at(0), nil)
	wantReason(t, run.Ack(second.Receipt), reason.StaleReceipt)
	ack(t, q, at(0), second)
	run = q.Begin(at(0), nil)
	wantReason(t, run.Ack(second.Receipt), reason.StaleReceipt)
}

func TestStaleReceiptSpoilsNoOther_S13(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), repeat(3, text("a"))...)
	ds := receive(t, q, at(0), 3, Selector{})
	run := q.Begin(at(0), nil)
	errs := []error{run.Ack(ds[0].Receipt), run.Ack(ds[0].Receipt), run.Release(ds[1].Receipt), run.Ack(ds[1].Receipt), run.Ack(ds[2].Receipt)}
	run.End()
	for i, err := range errs {
		want(t, fmt.Sprintf("error %d", i), reason.Of(err) == reason.StaleReceipt, i == 1 || i == 3)
	}
	want(t, "left", shown(peek(t, q, at(0), Ready, Leased)), []uint64{2})
}

func TestReceiptIsStaleInNextEpoch_S13(t *testing.T) {
	q := newQueue(nil)
	journal := newTape(q, at(0))
	send(t, q, at(0), text("a"))
	d := one(t, q, at(0))
	for clean, r := range map[bool]reason.Reason{true: "", false: reason.StaleReceipt} {
		again := journal.loaded(t)
		again.Restart(at(0), clean, at(0))
		want(t, "ready again", again.ReadyLen() == 1, !clean)
		run := again.Begin(at(0), nil)
		wantReason(t, run.Ack(d.Receipt), r)
		run.End()
	}
}

func TestConsumeAtOnceLeavesNoLease_S13(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), repeat(3, text("a"))...)
	got, err := q.Lease(at(0), LeaseRequest{Max: 2, MaxBytes: 10, Consume: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "sequences, receipt, lease", []any{sequences(got), got[0].Receipt, got[0].LeaseEnds}, []any{[]uint64{1, 2}, Receipt{}, 0})
	s := q.Stats(at(0))
	want(t, "ready, leased, consumed, delivered", []any{s.Ready, s.Leased, s.Consumed, s.Delivered}, []any{1, 0, 2, 2})
}

func TestReceiptSurvivesItsText_S13(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("a"))
	r := one(t, q, at(0)).Receipt
	if strings.ContainsAny(r.String(), " \t\n'\"\\$`*?[]{}()<>|&;!~#=%") {
		t.Errorf("%s is not safe in a shell", r)
	}
	parsed, err := ParseReceipt(r.String())
	want(t, "receipt", []any{parsed, err}, []any{r, nil})
}

func TestOneLeaseAtATime_S14(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Lease = time.Second })
	send(t, q, at(0), text("a"))
	d := one(t, q, at(0))
	want(t, "end", d.LeaseEnds, at(time.Second).Wall)
	expire(q, nil, at(time.Second-tick))
	want(t, "others", len(receive(t, q, at(0), 1, Selector{})), 0)
	expire(q, nil, at(time.Second+tick))
	e := one(t, q, at(2*time.Second))
	want(t, "sequence, attempts", []any{e.Sequence, e.Attempts}, []any{1, 1})
	run := q.Begin(at(0), nil)
	wantReason(t, run.Ack(d.Receipt), reason.StaleReceipt)
}

func TestTouchRestartsLease_S14(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Lease = 10 * time.Second })
	send(t, q, at(0), text("a"))
	d := one(t, q, at(0))
	touch := func(now, lease time.Duration) (end int64) {
		settle(t, q, nil, at(now), func(s Settlements) (err error) {
			end, err = s.Touch(d.Receipt, lease)
			return err
		})
		return end
	}
	want(t, "end", touch(9*time.Second, 0), at(19*time.Second).Wall)
	want(t, "end", touch(18*time.Second, time.Minute), at(78*time.Second).Wall)
	want(t, "end", touch(20*time.Second, 0), at(80*time.Second).Wall) // its own duration is now a minute
	expire(q, nil, at(79*time.Second))
	want(t, "leased", q.LeasedLen(), 1)
	expire(q, nil, at(81*time.Second))
	want(t, "leased", q.LeasedLen(), 0)
	d = one(t, q, at(81*time.Second))
	for _, lease := range []time.Duration{limits.LeaseMin - 1, limits.LeaseMax + 1, -1} {
		run := q.Begin(at(0), nil)
		_, err := run.Touch(d.Receipt, lease)
		wantReason(t, err, reason.InvalidArgument)
		run.End()
	}
}

// The wall clock is not asked about leases.
func TestLeaseRunsOnMonotonicClock_S14(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Lease = time.Second })
	send(t, q, at(0), text("a"))
	one(t, q, at(0))
	now := at(time.Second / 2)
	now.Wall += int64(time.Hour)
	expire(q, nil, now)
	want(t, "leased", q.LeasedLen(), 1)
	now = at(2 * time.Second)
	now.Wall -= int64(time.Hour)
	expire(q, nil, now)
	want(t, "leased", q.LeasedLen(), 0)
}

func TestEndlessLeaseHasNoEnd_S14(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("a"))
	got, ok := q.LeaseOne(at(0), 1)
	if !ok {
		t.Fatal("nothing was leased")
	}
	expire(q, nil, at(100*366*24*time.Hour))
	want(t, "leased, end", []any{q.LeasedLen(), got.LeaseEnds}, []any{1, 0})
	settle(t, q, nil, at(0), func(s Settlements) error {
		end, err := s.Touch(got.Receipt, 0)
		want(t, "end", end, 0)
		return err
	})
	ack(t, q, at(0), got)
	consistent(t, q)
}

func TestReturnedMessageComesFirstAgain_S15(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), Message{Type: 1}, Message{Type: 1}, Message{Type: 1, Priority: 2}, Message{Type: 1})
	d := receive(t, q, at(0), 3, Selector{})
	for _, i := range []int{1, 2, 0} {
		settle(t, q, nil, at(0), func(s Settlements) error { return s.Release(d[i].Receipt) })
		consistent(t, q)
	}
	send(t, q, at(0), Message{Type: 1})
	want(t, "order", sequences(receive(t, q, at(0), 10, Selector{})), []uint64{3, 1, 2, 4, 5})
}

func TestNackDelays_S15(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings func(*Settings)
		delays   []time.Duration // asked for
		want     []time.Duration
	}{
		{"as asked", nil, []time.Duration{0, time.Second, limits.DelayMax}, []time.Duration{0, time.Second, limits.DelayMax}},
		{"no back-off", nil, []time.Duration{-1, -1}, []time.Duration{0, 0}},
		{"back-off", func(s *Settings) { s.BackoffInitial, s.BackoffMax = time.Second, 5*time.Second },
			[]time.Duration{-1, -1, -1, -1, 0, time.Minute, -1}, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 0, time.Minute, 5 * time.Second}},
	} {
		q := newQueue(c.settings)
		send(t, q, at(0), text("a"))
		now := time.Duration(0)
		for i, delay := range c.delays {
			d := one(t, q, at(now))
			settle(t, q, nil, at(now), func(s Settlements) error { return s.Nack(d.Receipt, delay, "") })
			if c.want[i] > 0 {
				p := peek(t, q, at(now), Delayed)
				want(t, c.name+": due", p[0].Due, at(now+c.want[i]).Wall)
				want(t, "ready before", len(receive(t, q, at(now), 1, Selector{})), 0)
			}
			now += c.want[i] + tick
			expire(q, nil, at(now))
		}
	}
	q := newQueue(nil)
	send(t, q, at(0), text("a"))
	d := one(t, q, at(0))
	run := q.Begin(at(0), nil)
	wantReason(t, run.Nack(d.Receipt, limits.DelayMax+1, ""), reason.InvalidArgument)
	wantReason(t, run.Nack(d.Receipt, 0, strings.Repeat("x", limits.ReasonLength+1)), reason.InvalidArgument)
	wantReason(t, run.Bury(d.Receipt, strings.Repeat("x", limits.ReasonLength+1)), reason.InvalidArgument)
	run.End()
	ack(t, q, at(0), d)
}

func TestExpiryBacksOff_S15(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Lease, s.BackoffInitial, s.BackoffMax = time.Second, time.Minute, time.Hour })
	send(t, q, at(0), text("a"))
	one(t, q, at(0))
	expire(q, nil, at(2*time.Second))
	want(t, "due", peek(t, q, at(0), Delayed)[0].Due, at(2*time.Second+time.Minute).Wall)
}

func TestAttemptsCountFailedLeases_S16(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Lease = time.Second })
	send(t, q, at(0), text("a"))
	attempts := 0
	for _, step := range []struct {
		name  string
		fails int
		end   func(Settlements, Receipt) error
	}{
		{"nack", 1, func(s Settlements, r Receipt) error { return s.Nack(r, 0, "") }},
		{"release", 0, Settlements.Release},
		{"broken stream", 1, Settlements.Break},
		{"release", 0, Settlements.Release},
		{"expiry", 1, func(s Settlements, r Receipt) error { expire(q, nil, at(2*time.Second)); return nil }},
	} {
		d := one(t, q, at(0))
		want(t, "attempts before "+step.name, d.Attempts, attempts)
		if step.name == "expiry" {
			_ = step.end(Settlements{}, d.Receipt)
		} else {
			settle(t, q, nil, at(0), func(s Settlements) error { return step.end(s, d.Receipt) })
		}
		attempts += step.fails
		want(t, "attempts after "+step.name, peek(t, q, at(0), Ready)[0].Attempts, attempts)
	}
	s := q.Stats(at(0))
	want(t, "nacked, expired", []uint64{s.Nacked, s.LeaseExpired}, []uint64{1, 2})
}

// A lease that fails when the TTL is over is a failed attempt like any other.
func TestFailureAfterTTLCounts_S16_S18(t *testing.T) {
	for _, dead := range []string{"", "/dead"} {
		q := newQueue(func(s *Settings) { s.DeadLetter, s.DeadLetterExpired = dead, dead != "" })
		send(t, q, at(0), Message{Type: 1, TTL: time.Second}, Message{Type: 1, TTL: time.Second})
		ds := receive(t, q, at(0), 2, Selector{})
		settle(t, q, nil, at(time.Minute), func(s Settlements) error { return s.Nack(ds[0].Receipt, -1, "") })
		expire(q, nil, at(time.Minute))
		s := q.Stats(at(0))
		want(t, "nacked, expired", []uint64{s.Nacked, s.LeaseExpired}, []uint64{1, 1})
		if dead != "" { // it is missing
			for _, p := range peek(t, q, at(0), Buried) {
				want(t, "attempts", p.Attempts, 1)
			}
		}
		want(t, "dropped, buried", []any{s.TTLDropped, s.Buried}, map[string][]any{"": {2, 0}, "/dead": {0, 2}}[dead])
	}
}

func TestDeadLetterAtMaxAttempts_S17(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxAttempts, s.DeadLetter = 2, "/dead" })
	dead := New(2, "/dead", 1, 1, Default(0, 0))
	send(t, q, at(0), text("other"), Message{Type: 5, Priority: 3, Body: []byte("b"), Headers: []Header{{"k", []byte("v")}, {HeaderDeadQueue, []byte("/older")}},
		DedupID: "d", CorrelationID: "c", ReplyTo: "/r", ContentType: "t", TTL: time.Hour})
	nack(t, q, dead, at(0), one(t, q, at(0)))
	want(t, "dead after one attempt", dead.Len(), 0)
	d := one(t, q, at(0))
	settle(t, q, dead, at(time.Minute), func(s Settlements) error { return s.Nack(d.Receipt, time.Hour, "broken") })
	want(t, "messages here, there, uncommitted", []any{q.Len(), dead.Len(), dead.Stats(at(0)).Uncommitted}, []any{1, 1, 1})
	dead.Publish(dead.Last())
	got := peek(t, dead, at(0), Ready)[0]
	want(t, "dead letter", got, Peeked{State: Ready, Delivery: Delivery{Sequence: 1, SentAt: at(time.Minute).Wall, Message: Message{
		Type: 5, Priority: 3, Body: []byte("b"), CorrelationID: "c", ReplyTo: "/r", ContentType: "t",
		Headers: []Header{{"k", []byte("v")}, {HeaderDeadQueue, []byte("/q")}, {HeaderDeadReason, []byte("max-attempts")},
			{HeaderDeadDetail, []byte("failed 2 times: broken")}, {HeaderDeadAttempts, []byte("2")}, {HeaderDeadSequence, []byte("2")}},
	}}})
	s := q.Stats(at(0))
	want(t, "dead-lettered, nacked", []uint64{s.DeadLettered, s.Nacked}, []uint64{1, 2})
	consistent(t, q)
	consistent(t, dead)
}

func TestDefaultMaxAttempts_S17(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("a"))
	for range 16 {
		nack(t, q, nil, at(0), one(t, q, at(0)))
	}
	want(t, "buried", q.Stats(at(0)).Buried, 1)
}

func TestBuriedWhereDeadLetterQueueCannotTakeIt_S17(t *testing.T) {
	full := func(edit func(*Settings)) *Queue {
		s := Default(0, 0)
		edit(&s)
		d := New(2, "/dead", 1, 1, s)
		send(t, d, at(0), text(""))
		return d
	}
	for _, c := range []struct {
		name, declared string
		dead           *Queue
		why            string
	}{
		{"none", "", nil, "failed 1 times"},
		{"missing", "/dead", nil, "the dead-letter queue /dead is not there"},
		{"full", "/dead", full(func(s *Settings) { s.MaxMessages = 1 }), "did not take it"},
		{"full, blocking", "/dead", full(func(s *Settings) { s.MaxMessages, s.Overflow = 1, Block }), "did not take it"},
		{"bodies too large", "/dead", full(func(s *Settings) { s.MaxMessageSize = 3 }), "did not take it"},
		{"headers too large", "/dead", full(func(s *Settings) { s.MaxBytes = 20 }), "did not take it"},
	} {
		q := newQueue(func(s *Settings) { s.MaxAttempts, s.DeadLetter = 1, c.declared })
		send(t, q, at(0), text("body"))
		nack(t, q, c.dead, at(0), one(t, q, at(0)))
		p := peek(t, q, at(0), Buried)
		if len(p) != 1 || p[0].Attempts != 1 || !strings.Contains(p[0].BuryReason, c.why) {
			t.Errorf("%s: %+v", c.name, p)
		}
		want(t, c.name+": dead-lettered, left", []any{q.Stats(at(0)).DeadLettered, q.Len()}, []any{0, 1})
		consistent(t, q)
	}
}

func TestBuryAndKick_S17(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("a"), text("b"))
	d := one(t, q, at(0))
	settle(t, q, nil, at(0), func(s Settlements) error { return s.Bury(d.Receipt, "odd") })
	p := peek(t, q, at(0), Buried)
	want(t, "buried", []any{p[0].Sequence, p[0].BuryReason, p[0].Attempts}, []any{1, "odd", 0})
	n, _ := q.Kick(at(0), &Filter{}, 0, 10, false)
	want(t, "kicked, order", []any{n, sequences(receive(t, q, at(0), 2, Selector{}))}, []any{1, []uint64{1, 2}})
	want(t, "reasons kept", len(q.reasons.byText), 0)
}

func TestTTLCountsFromSend_S18(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Lease = time.Hour })
	ttl := Message{Type: 1, TTL: time.Minute}
	late := Message{Type: 1, TTL: time.Minute, Delay: time.Hour}
	send(t, q, at(0), ttl, late, ttl, ttl, text("stays"))
	leased := receive(t, q, at(0), 2, Selector{})
	settle(t, q, nil, at(0), func(s Settlements) error { return s.Bury(leased[1].Receipt, "") })
	expire(q, nil, at(time.Minute-tick))
	want(t, "messages", q.Len(), 5)
	q2 := q.Stats(at(0))
	want(t, "dropped early", q2.TTLDropped, 0)
	settle(t, q, nil, at(0), func(s Settlements) error { _, err := s.Touch(leased[0].Receipt, time.Hour); return err })
	expire(q, nil, at(time.Minute+tick))
	s := q.Stats(at(0))
	want(t, "ready, delayed, leased, buried, dropped", []any{s.Ready, s.Delayed, s.Leased, s.Buried, s.TTLDropped}, []any{1, 0, 1, 1, 2})
	settle(t, q, nil, at(2*time.Minute), func(s Settlements) error { return s.Release(leased[0].Receipt) }) // its lease ends, so it goes
	want(t, "left, dropped", []any{q.Len(), q.Stats(at(0)).TTLDropped}, []any{2, 3})
	consistent(t, q)
}

func TestExpiredMessageIsDeadLetteredIfDeclared_S18(t *testing.T) {
	q := newQueue(func(s *Settings) { s.DeadLetter, s.DeadLetterExpired = "/dead", true })
	dead := New(2, "/dead", 1, 1, Default(0, 0))
	send(t, q, at(0), Message{Type: 1, TTL: time.Minute}, Message{Type: 1, TTL: time.Minute, Delay: time.Hour})
	expire(q, dead, at(2*time.Minute))
	dead.Publish(dead.Last())
	got := peek(t, dead, at(0), Ready)
	want(t, "here, there, dropped, dead-lettered", []any{q.Len(), len(got), q.Stats(at(0)).TTLDropped, q.Stats(at(0)).DeadLettered}, []any{0, 2, 0, 2})
	if !slices.ContainsFunc(got[0].Headers, func(h Header) bool { return h.Key == HeaderDeadReason && string(h.Value) == "expired" }) || got[0].Expires != 0 {
		t.Errorf("dead letter %+v", got[0])
	}
}

func TestDelayedMessageBecomesReadyInTime_S18(t *testing.T) {
	q := newQueue(func(s *Settings) { s.Lease = time.Hour })
	send(t, q, at(0), Message{Type: 1, Delay: time.Minute}, Message{Type: 1, NotBefore: at(time.Second).Wall}, Message{Type: 1, NotBefore: 1}, text(""))
	want(t, "at once", sequences(receive(t, q, at(0), 9, Selector{})), []uint64{3, 4})
	expire(q, nil, at(time.Second-1))
	want(t, "too early", q.ReadyLen(), 0)
	expire(q, nil, at(time.Second+tick))
	want(t, "after a second", sequences(receive(t, q, at(time.Second), 9, Selector{})), []uint64{2})
	d, ok := q.NextDue(at(2 * time.Second))
	if !ok || d > time.Minute {
		t.Errorf("next due in %v, %v", d, ok)
	}
	expire(q, nil, at(time.Minute+tick))
	want(t, "after a minute", sequences(receive(t, q, at(0), 9, Selector{})), []uint64{1})
}

// The wall clock steps back: what is sent after that is due as soon as it says.
func TestNextDueFollowsClockBack_S18(t *testing.T) {
	q := newQueue(nil)
	expire(q, nil, at(time.Hour))
	send(t, q, at(0), Message{Type: 1, Delay: time.Second}, Message{Type: 1, TTL: 2 * time.Second})
	if d, ok := q.NextDue(at(0)); !ok || d > time.Second+tick {
		t.Fatalf("next due in %v, %v: the delay is a second", d, ok)
	}
	expire(q, nil, at(time.Second+tick))
	want(t, "ready", q.ReadyLen(), 2)
	expire(q, nil, at(2*time.Second+tick))
	want(t, "ready", q.ReadyLen(), 1)
}

func TestSmallStepBackIsNeverEarlyNorVeryLate_S18(t *testing.T) {
	q := newQueue(nil)
	expire(q, nil, at(time.Second))
	send(t, q, at(time.Second/2), Message{Type: 1, Delay: time.Second / 4})
	expire(q, nil, at(3*time.Second/4-tick))
	want(t, "ready early", q.ReadyLen(), 0)
	expire(q, nil, at(3*time.Second/4+(rewindSlack+2)*tick))
	want(t, "ready", q.ReadyLen(), 1)
}

func TestMessageTooLargeForReceiverStays_S19(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), text("long body"), text("tiny"), text("long body"))
	lease := func(l LeaseRequest) ([]Delivery, error) {
		l.MaxBytes, l.Max = 100, 10
		return q.Lease(at(0), l, nil)
	}
	before := dump(q, nil, 0, 0)
	got, err := lease(LeaseRequest{MaxBody: 8})
	wantReason(t, err, reason.BufferTooSmall)
	want(t, "received", len(got), 0)
	want(t, "queue", dump(q, nil, 0, 0), before)
	for _, d := range receive(t, q, at(0), 1, Selector{}) {
		ack(t, q, at(0), d)
	}
	got, err = lease(LeaseRequest{MaxBody: 8}) // a later one ends the batch
	want(t, "received", []any{sequences(got), err}, []any{[]uint64{2}, nil})
	got, err = lease(LeaseRequest{MaxBody: 4, Truncate: true})
	want(t, "received", []any{string(got[0].Body), got[0].TruncatedFrom, err}, []any{"long", 9, nil})
	settle(t, q, nil, at(0), func(s Settlements) error { return s.Release(got[0].Receipt) })
	got, err = lease(LeaseRequest{MaxBody: 9})
	want(t, "received", []any{string(got[0].Body), got[0].TruncatedFrom, err}, []any{"long body", 0, nil})
}

func TestTruncationLeavesHeaders_S19(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), Message{Type: 1, Body: []byte("body"), Headers: []Header{{"k", []byte("v")}}})
	got, err := q.Lease(at(0), LeaseRequest{Max: 1, MaxBytes: 9, MaxBody: 1, Truncate: true}, nil)
	want(t, "received", []any{string(got[0].Body), got[0].TruncatedFrom, got[0].Headers, err}, []any{"b", 4, []Header{{"k", []byte("v")}}, nil})
}

func TestReceiveIsBoundedInBytes_S12(t *testing.T) {
	q := newQueue(nil)
	send(t, q, at(0), repeat(5, text("0123456789"))...)
	lease := func(bytes int) int {
		got, err := q.Lease(at(0), LeaseRequest{Max: 10, MaxBytes: bytes}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	want(t, "received", []int{lease(5), lease(29), lease(20)}, []int{1, 2, 2})
}

// A kernel door takes what fits and passes over the rest, counting each once.
func TestFitPassesOverLargeMessages_S30(t *testing.T) {
	q := newQueue(func(s *Settings) { s.MaxMessageSize = 100 })
	big, small := Message{Type: 1, Body: make([]byte, 50)}, Message{Type: 1, Body: make([]byte, 5)}
	send(t, q, at(0), repeat(limits.PeekScan+100, big)...)
	send(t, q, at(0), small, Message{Type: 2, Body: make([]byte, 5), Priority: 1})
	fit := func(sel Selector) (seq uint64, skipped int) {
		var from ReadyCursor
		for {
			s, next, n, more := q.Fit(sel, 10, from)
			skipped += n
			if s != 0 || !more {
				return s, skipped
			}
			from = next
		}
	}
	seq, skipped := fit(Selector{Kind: TypeIs, Type: 1})
	want(t, "fits, skipped", []any{seq, skipped}, []any{limits.PeekScan + 101, limits.PeekScan + 100})
	seq, skipped = fit(Selector{Kind: TypeIs, Type: 1})
	want(t, "fits, skipped anew", []any{seq, skipped}, []any{limits.PeekScan + 101, 0})
	seq, _ = fit(Selector{})
	want(t, "fits", seq, limits.PeekScan+102)
	for _, n := range []uint64{seq, limits.PeekScan + 101} {
		if d, ok := q.LeaseOne(at(0), n); !ok || d.Sequence != n || d.LeaseEnds != 0 {
			t.Errorf("lease of %d: %+v, %v", n, d, ok)
		}
	}
	seq, _ = fit(Selector{})
	want(t, "fits", seq, 0)
}
