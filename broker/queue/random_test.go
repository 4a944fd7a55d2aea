package queue

import (
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestMain(m *testing.M) {
	// So that all takes seconds. The command line has the last word.
	for name, value := range map[string]string{"rapid.checks": "40", "rapid.steps": "60", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// tick is the unit in which the fake clock moves: the wheels', so that what is due is known exactly.
const tick = 1 << tickBits

// world is a queue and its dead-letter queue, and what they should be.
type world struct {
	now      Instant
	queues   [2]*Queue
	models   [2]*model
	journals [2]*tape
	receipts []Receipt
	peek     *runningPeek
	// The latest times before which ids and producers may have been forgotten.
	idsBefore, producersBefore [2]int64
}

// runningPeek is a peek whose pages are fetched one by one while other things happen.
type runningPeek struct {
	filter     Filter
	inSequence bool
	cursor     string
	began      int // step
	seen       map[uint64]bool
	highest    uint64   // that was shown last
	present    []uint64 // what it should have shown in the end, unless it moved
}

func newWorld(t *rapid.T) *world {
	w := &world{now: Instant{Wall: 1_700_000_000 << 30 >> tickBits << tickBits, Mono: 1000 * tick}}
	for i, name := range []string{"/work", "/dead"} {
		s := drawSettings(t, i == 0)
		w.queues[i] = New(uint64(i+1), name, 3, 0x5eed, s)
		w.models[i] = newModel(name, s)
		w.queues[i].CreatedAt = w.now.Wall
		w.journals[i] = newTape(w.queues[i], w.now)
	}
	return w
}

func drawSettings(t *rapid.T, first bool) Settings {
	s := Default(0, 0)
	s.Durability = Journal
	s.MaxMessages = rapid.Int64Range(1, 14).Draw(t, "max messages")
	s.MaxBytes = rapid.SampledFrom([]int64{20, 200, 2000, 1 << 20}).Draw(t, "max bytes")
	s.MaxMessageSize = rapid.SampledFrom([]int{4, 40, 100}).Draw(t, "max size")
	s.Overflow = rapid.SampledFrom([]Overflow{Reject, Block, DropOldest, DropOldest}).Draw(t, "overflow")
	s.MaxAttempts = rapid.IntRange(1, 4).Draw(t, "max attempts")
	s.Lease = rapid.SampledFrom([]time.Duration{10 * time.Millisecond, 75 * time.Millisecond, 5 * time.Second}).Draw(t, "lease")
	s.BackoffInitial = rapid.SampledFrom([]time.Duration{0, 3 * tick, time.Second}).Draw(t, "backoff")
	s.BackoffMax = s.BackoffInitial * rapid.SampledFrom([]time.Duration{1, 3, 8}).Draw(t, "backoff max")
	s.DedupWindow = rapid.SampledFrom([]time.Duration{0, 40 * time.Millisecond, 2 * time.Minute}).Draw(t, "dedup window")
	s.MaxDedupIDs = rapid.SampledFrom([]int64{0, 2, 5, 100}).Draw(t, "dedup ids")
	if first {
		s.DeadLetter = rapid.SampledFrom([]string{"", "/dead"}).Draw(t, "dead letter")
		s.DeadLetterExpired = s.DeadLetter != "" && rapid.Bool().Draw(t, "dead letter expired")
	} else {
		s.MaxMessages = rapid.Int64Range(1, 40).Draw(t, "max messages")
	}
	return s
}

var (
	typeGen     = rapid.SampledFrom([]int64{1, 1, 2, 3, 7, 1 << 40})
	priorityGen = rapid.SampledFrom([]uint16{0, 0, 0, 1, 5, limits.PriorityMax})
	delayGen    = rapid.SampledFrom([]time.Duration{0, 0, 0, 1, 5 * time.Millisecond, 100 * time.Millisecond, time.Hour, 30 * 24 * time.Hour})
	selectorGen = rapid.Custom(func(t *rapid.T) Selector {
		s := Selector{Kind: SelectorKind(rapid.IntRange(0, 4).Draw(t, "kind")), Type: typeGen.Draw(t, "type")}
		if s.Kind == TypeIn {
			s.Types = rapid.SliceOfN(typeGen, 1, 4).Draw(t, "types")
		}
		s, err := s.Check()
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
	headersGen = rapid.Custom(func(t *rapid.T) (headers []Header) {
		for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "headers") {
			headers = append(headers, Header{rapid.SampledFrom([]string{"k", "colour"}).Draw(t, "key"), []byte(rapid.SampledFrom([]string{"", "v", "red"}).Draw(t, "value"))})
		}
		return headers
	})
	filterGen = rapid.Custom(func(t *rapid.T) Filter {
		f := Filter{Selector: selectorGen.Draw(t, "selector")}
		f.States = rapid.SampledFrom([][]State{nil, {Ready}, {Delayed}, {Leased}, {Buried}, {Ready, Delayed, Leased, Buried}, {Leased, Delayed}}).Draw(t, "states")
		f.MinSequence = rapid.SampledFrom([]uint64{0, 0, 3}).Draw(t, "min")
		f.MaxSequence = rapid.SampledFrom([]uint64{0, 0, 20}).Draw(t, "max")
		f.Headers = rapid.SampledFrom([][]Header{nil, nil, nil, {{"k", []byte("v")}}, {{"k", []byte("v")}, {"colour", []byte("red")}}}).Draw(t, "headers")
		return f
	})
)

func (w *world) drawMessage(t *rapid.T) Message {
	m := Message{Type: typeGen.Draw(t, "type"), Priority: priorityGen.Draw(t, "priority")}
	m.Body = make([]byte, rapid.SampledFrom([]int{0, 1, 2, 9, 33, 90}).Draw(t, "size"))
	for i := range m.Body {
		m.Body[i] = byte(int(w.queues[0].number) + i)
	}
	m.Delay = delayGen.Draw(t, "delay")
	if m.Delay == 0 && rapid.IntRange(0, 9).Draw(t, "absolute") == 0 {
		m.NotBefore = w.now.Wall + int64(rapid.SampledFrom([]time.Duration{-time.Hour, 0, 1, 50 * time.Millisecond}).Draw(t, "not before"))
	}
	m.TTL = rapid.SampledFrom([]time.Duration{0, 0, 0, 1, 30 * time.Millisecond, time.Second, time.Hour}).Draw(t, "ttl")
	if rapid.IntRange(0, 2).Draw(t, "plain") == 0 {
		m.Headers = headersGen.Draw(t, "headers")
		m.DedupID = rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e", "f"}).Draw(t, "dedup id")
		m.CorrelationID = rapid.SampledFrom([]string{"", "c1"}).Draw(t, "correlation")
		m.ReplyTo = rapid.SampledFrom([]string{"", "/r"}).Draw(t, "reply to")
		m.ContentType = rapid.SampledFrom([]string{"", "text/plain"}).Draw(t, "content type")
	}
	return m
}

// pickQueue chooses the queue of an operation: mostly the first.
func pickQueue(t *rapid.T) int { return rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(t, "queue") }

// deadLetters gives the dead-letter queue as the broker would: nil if not declared, or missing.
func (w *world) deadLetters(t *rapid.T, i int) (*Queue, *model) {
	if i == 1 || w.models[0].s.DeadLetter == "" || rapid.IntRange(0, 5).Draw(t, "dead queue missing") == 0 {
		return nil, nil
	}
	return w.queues[1], w.models[1]
}

func sameReason(t *rapid.T, what string, got error, want *reason.Error) bool {
	if want == nil {
		if got != nil {
			t.Fatalf("%s: %v; it should succeed", what, got)
		}
		return true
	}
	if reason.Of(got) != want.Reason {
		t.Fatalf("%s: %v; it should fail with %s", what, got, want.Reason)
	}
	return false
}

// normal makes nil of empty slices, and takes out what the model does not know.
func normal(d Delivery) Delivery {
	if len(d.Body) == 0 {
		d.Body = nil
	}
	d.Headers = slices.Clone(d.Headers)
	if len(d.Headers) == 0 {
		d.Headers = nil
	}
	for i := range d.Headers {
		if len(d.Headers[i].Value) == 0 {
			d.Headers[i].Value = nil
		}
	}
	d.Receipt = Receipt{Sequence: d.Receipt.Sequence, Delivery: d.Receipt.Delivery}
	return d
}

func (w *world) send(t *rapid.T) {
	i := pickQueue(t)
	b := Batch{Messages: make([]Message, rapid.SampledFrom([]int{1, 1, 1, 2, 3, 5, 16}).Draw(t, "batch"))}
	for j := range b.Messages {
		b.Messages[j] = w.drawMessage(t)
	}
	if rapid.IntRange(0, 3).Draw(t, "with producer") == 0 {
		b.Producer = rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "producer")
		b.Number = rapid.Uint64Range(0, 6).Draw(t, "batch number")
	}
	if rapid.IntRange(0, 5).Draw(t, "imported") == 0 {
		for range b.Messages {
			b.Past = append(b.Past, w.drawPast(t))
		}
	}
	mine := b
	mine.Messages = slices.Clone(b.Messages)
	for j := range mine.Messages {
		mine.Messages[j].Body = slices.Clone(b.Messages[j].Body)
	}
	b.Spill = rapid.Bool().Draw(t, "spill")
	_, checkErr := w.queues[i].CheckSend(w.now, b, 0, 0)
	got, err := w.queues[i].Send(w.now, b)
	if reason.Of(checkErr) != reason.Of(err) {
		t.Fatalf("send: %v; the check before it said %v", err, checkErr)
	}
	for _, m := range b.Messages {
		clear(m.Body) // what the caller does with its memory is no longer the queue's business
	}
	want, wantErr := w.models[i].send(w.now, mine)
	if !sameReason(t, "send", err, wantErr) {
		if hint := err.(*reason.Error).RetryAfter > 0; wantErr.Reason == reason.QueueFull && hint != (wantErr.RetryAfter > 0) {
			t.Fatalf("send: %v: a retry hint: %v", err, hint)
		}
	} else if !reflect.DeepEqual(got, want) {
		t.Fatalf("send: %+v; it should be %+v", got, want)
	}
	if rapid.IntRange(0, 4).Draw(t, "publish later") != 0 {
		w.publish(i, w.queues[i].Last())
	}
}

func (w *world) drawPast(t *rapid.T) Past {
	p := Past{Attempts: rapid.SampledFrom([]int{0, 1, 3, 1000}).Draw(t, "attempts")}
	p.SentAt = w.now.Wall + int64(rapid.SampledFrom([]time.Duration{0, -1, -time.Hour}).Draw(t, "sent at"))
	moment := rapid.SampledFrom([]time.Duration{0, 0, -time.Minute, 1, 40 * time.Millisecond, time.Hour})
	if d := moment.Draw(t, "due"); d != 0 {
		p.Due = w.now.Wall + int64(d)
	}
	if d := moment.Draw(t, "expires"); d > 0 {
		p.Expires = w.now.Wall + int64(d)
	} else if d < 0 && p.SentAt < w.now.Wall {
		p.Expires = p.SentAt + 1
	}
	if p.Buried = rapid.IntRange(0, 3).Draw(t, "buried") == 0; p.Buried {
		p.Why = rapid.SampledFrom([]string{"", "why", "failed 2 times"}).Draw(t, "why")
	}
	return p
}

// move moves messages from one queue to the other.
func (w *world) move(t *rapid.T) {
	from := rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "from")
	to := 1 - from
	f := filterGen.Draw(t, "filter")
	v := Moving{
		Filter: &f, First: rapid.SampledFrom([]uint64{0, 0, 2, 9}).Draw(t, "first"),
		Messages: rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "max"), Bytes: rapid.SampledFrom([]int{30, 200, 1 << 20}).Draw(t, "max bytes"),
		DryRun: rapid.IntRange(0, 5).Draw(t, "dry run") == 0,
	}
	want, wantErr := w.models[from].moveTo(w.models[to], w.now, v)
	spill, bytes := rapid.Bool().Draw(t, "spill"), 0
	store := func(b Batch) (Stored, error) {
		b.Spill = spill
		for i := range b.Messages {
			bytes += b.Messages[i].Bytes()
		}
		return w.queues[to].Send(w.now, b)
	}
	got, step := 0, v
	for {
		moved, err := w.queues[from].Move(w.now, w.queues[to], step, store)
		got += moved.Messages
		step.First, step.Messages, step.Bytes = moved.Next, step.Messages-moved.Messages, v.Bytes-bytes
		if wantErr != nil && got == want && reason.Of(err) == wantErr.Reason {
			break
		} else if err != nil {
			t.Fatalf("move: %v after %d; it should be %v after %d", err, got, wantErr, want)
		}
		if got < want && moved.Messages == 0 && moved.Needs == 0 && !w.journals[from].fetch() {
			t.Fatalf("move: it ends after %d instead of %d, at %d", got, want, moved.Next)
		}
		if got >= want && wantErr == nil {
			break
		}
		if w.journals[from].fetch(); step.First == 0 {
			t.Fatalf("move: it is at the end after %d instead of %d, %v", got, want, wantErr)
		}
	}
	if got != want {
		t.Fatalf("move %+v: %d instead of %d", v, got, want)
	}
	w.publish(to, w.queues[to].Last())
}

func (w *world) publish(i int, last uint64) {
	w.queues[i].Publish(last)
	w.models[i].publish(last)
}

func (w *world) publishLater(t *rapid.T) {
	i := pickQueue(t)
	q := w.queues[i]
	w.publish(i, rapid.Uint64Range(q.Published(), q.Last()).Draw(t, "last"))
}

func (w *world) lease(t *rapid.T) {
	i := pickQueue(t)
	l := LeaseRequest{
		Selector: selectorGen.Draw(t, "selector"),
		Max:      rapid.IntRange(1, 5).Draw(t, "max"),
		MaxBytes: rapid.SampledFrom([]int{1, 50, 1 << 20}).Draw(t, "max bytes"),
		Duration: rapid.SampledFrom([]time.Duration{0, 10 * time.Millisecond, time.Second, 7*time.Millisecond + 1}).Draw(t, "duration"),
		Consume:  rapid.IntRange(0, 4).Draw(t, "consume") == 0,
		MaxBody:  rapid.SampledFrom([]int{0, 0, 1, 20}).Draw(t, "max body"),
		Truncate: rapid.Bool().Draw(t, "truncate"),
	}
	q := w.queues[i]
	got, err := q.Lease(w.now, l, nil)
	for len(got) == 0 && w.journals[i].fetch() {
		got, err = q.Lease(w.now, l, nil)
	}
	if len(q.fetch.missing) > 0 { // it stopped before one that was not in memory
		l.Max = len(got)
	}
	want, wantErr := w.models[i].leases(w.now, l)
	if !sameReason(t, "lease", err, wantErr) {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("lease %+v: %d messages instead of %d:\n%+v\n%+v", l, len(got), len(want), got, want)
	}
	for j := range got {
		if g, x := normal(got[j]), normal(want[j]); !reflect.DeepEqual(g, x) {
			t.Fatalf("lease %+v: got\n%+v, want\n%+v", l, g, x)
		}
		if !l.Consume {
			w.receipts = append(w.receipts, got[j].Receipt)
		}
		clear(got[j].Body) // the caller's own
	}
}

func (w *world) leaseOne(t *rapid.T) {
	i := pickQueue(t)
	seq := rapid.Uint64Range(0, w.queues[i].Last()+1).Draw(t, "sequence")
	got, ok := w.queues[i].LeaseOne(w.now, seq)
	for w.journals[i].fetch() {
		got, ok = w.queues[i].LeaseOne(w.now, seq)
	}
	x := w.models[i].bySeq(seq)
	if want := x != nil && x.state == Ready && !w.models[i].paused; ok != want {
		t.Fatalf("lease of %d: %v, it should be %v", seq, ok, want)
	} else if !ok {
		return
	}
	want := x.delivery0()
	w.models[i].lease(w.now, x, 0, true)
	w.models[i].stats.Delivered++
	want.Receipt = Receipt{Sequence: seq, Delivery: x.delivery}
	if !reflect.DeepEqual(normal(got), normal(want)) {
		t.Fatalf("lease of %d: got\n%+v, want\n%+v", seq, got, want)
	}
	w.receipts = append(w.receipts, got.Receipt)
}

// settle settles a few receipts in one run: some hold, some are stale, foreign or forged.
func (w *world) settle(t *rapid.T) {
	if len(w.receipts) == 0 {
		t.Skip("no receipts")
	}
	i := pickQueue(t)
	q, m := w.queues[i], w.models[i]
	dead, deadModel := w.deadLetters(t, i)
	run := q.Begin(w.now, dead)
	for range rapid.IntRange(1, 4).Draw(t, "settlements") {
		recent := min(len(w.receipts), 12)
		r := w.receipts[len(w.receipts)-rapid.IntRange(1, recent).Draw(t, "receipt")]
		x := m.held(r)
		if r.Queue != q.id {
			x = nil
		}
		switch rapid.IntRange(0, 19).Draw(t, "forgery") {
		case 0:
			r.Check++
			x = nil
		case 1:
			r.Epoch++
			x = nil
		case 2: // another delivery, with its right check
			r.Delivery++
			r.Check = receiptCheck(q.secret, r)
			if x = m.held(r); r.Queue != q.id {
				x = nil
			}
		case 3: // of an earlier epoch
			r.Epoch--
			r.Check = receiptCheck(q.secret, r)
			x = nil
		}
		if r.Epoch != q.epoch {
			x = nil
		}
		var err error
		try := func(do func() error) error {
			err := do()
			for err == ErrMissing && w.journals[i].fetch() {
				err = do()
			}
			return err
		}
		why := rapid.SampledFrom([]string{"", "bad luck", "no room"}).Draw(t, "why")
		action := rapid.IntRange(0, 5).Draw(t, "action")
		switch action {
		case 0:
			if err = run.Ack(r); x != nil {
				m.stats.Consumed++
				m.remove(x)
			}
		case 1:
			delay := rapid.SampledFrom([]time.Duration{-1, -1, 0, 1, time.Second}).Draw(t, "delay")
			if err = try(func() error { return run.Nack(r, delay, why) }); x != nil {
				m.end(w.now, x, byNack, delay, why, deadModel)
			}
		case 2:
			if err = try(func() error { return run.Release(r) }); x != nil {
				m.end(w.now, x, byRelease, 0, "", deadModel)
			}
		case 3:
			if err = try(func() error { return run.Break(r) }); x != nil {
				m.end(w.now, x, byExpiry, -1, "", deadModel)
			}
		case 4:
			if err = run.Bury(r, why); x != nil {
				m.move(x, Buried)
				x.why = why
			}
		case 5:
			d := rapid.SampledFrom([]time.Duration{0, 10 * time.Millisecond, time.Minute}).Draw(t, "lease")
			var end int64
			if end, err = run.Touch(r, d); x != nil {
				if d > 0 {
					x.lease = d.Milliseconds()
				}
				want := int64(0)
				if x.lease != 0 {
					x.ends, x.moved = w.now.Mono+x.lease*int64(time.Millisecond), m.step
					want = w.now.Wall + x.lease*int64(time.Millisecond)
				}
				if end != want {
					t.Fatalf("touch of %v: %d, it should end at %d", r, end, want)
				}
			}
		}
		if x != nil && err != nil {
			t.Fatalf("action %d with %v: %v", action, r, err)
		}
		if x == nil && reason.Of(err) != reason.StaleReceipt {
			t.Fatalf("action %d with stale %v: %v", action, r, err)
		}
	}
	run.End()
}

// elapse moves the clocks: the monotonic one forth, the wall clock with it, or by leaps, or back.
func (w *world) elapse(t *rapid.T) {
	d := int64(rapid.SampledFrom([]int{1, 3, 10, 30, 100, 1000, 5000, 200_000}).Draw(t, "ticks")) * tick
	w.now.Mono += d
	switch rapid.IntRange(0, 9).Draw(t, "wall clock") {
	case 0: // far enough for the wheels to follow, which else may be late by the slack
		w.expire(t)
		w.now.Wall -= (rewindSlack+2)*tick + d
		w.expire(t)
	case 1:
		w.now.Wall += 5_000_000 * tick
	default:
		w.now.Wall += d
	}
	if rapid.IntRange(0, 5).Draw(t, "expire later") != 0 {
		w.expire(t)
	}
}

func (w *world) expire(t *rapid.T) {
	for _, i := range []int{1, 0} {
		dead, deadModel := w.deadLetters(t, i)
		order := []uint64(nil)
		emit := w.queues[i].Emit
		w.queues[i].Emit = func(r *Record) {
			emit(r)
			order = append(order, r.Seqs...)
		}
		limit := rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "limit")
		for rounds := 0; w.queues[i].Expire(w.now, dead, limit) || w.journals[i].fetch(); rounds++ {
			if rounds > 1000 {
				t.Fatal("expiry does not end")
			}
		}
		w.queues[i].Emit = emit
		if err := w.models[i].pass(w.now, order, deadModel); err != nil {
			t.Fatal(err)
		}
		if w.queues[i].Expire(w.now, dead, 1000) {
			t.Fatal("a second expiry at the same moment had something to do")
		}
	}
}

func (w *world) nextDue(t *rapid.T) {
	q, m := w.queues[0], w.models[0]
	got, ok := q.NextDue(w.now)
	soonest := time.Duration(1<<63 - 1)
	pending := false
	for _, x := range m.msgs {
		var d int64
		switch {
		case x.state == Leased && x.lease != 0:
			d = x.ends - w.now.Mono
		case x.state == Delayed && x.expires != 0:
			d = min(x.due, x.expires) - w.now.Wall
		case x.state == Delayed:
			d = x.due - w.now.Wall
		case x.state == Ready && x.expires != 0:
			d = x.expires - w.now.Wall
		default:
			continue
		}
		pending = true
		soonest = min(soonest, time.Duration((d+tick-1)/tick*tick)) // the wheels look at whole ticks
	}
	if pending && (!ok || got > max(soonest, 0)) {
		t.Fatalf("next due: %v %v, it should be at most %v", got, ok, soonest)
	}
}

func (w *world) purgeOrKick(t *rapid.T) {
	i := pickQueue(t)
	f := filterGen.Draw(t, "filter")
	if rapid.Bool().Draw(t, "old ones") {
		f.SentBefore = w.now.Wall - 50*tick
	}
	first := rapid.SampledFrom([]uint64{0, 0, 2, 9}).Draw(t, "first")
	most := rapid.SampledFrom([]int{0, 1, 2, 1000}).Draw(t, "max")
	dryRun := rapid.IntRange(0, 3).Draw(t, "dry run") == 0
	var got, want int
	var next uint64
	if rapid.Bool().Draw(t, "kick") {
		got, next = w.sweep(i, w.queues[i].Kick, &f, first, most, dryRun)
		want = w.models[i].kick(&f, first, most, dryRun)
	} else {
		if rapid.IntRange(0, 3).Draw(t, "purge") != 0 {
			t.Skip("purges are rare, so that there is something left")
		}
		got, next = w.sweep(i, w.queues[i].Purge, &f, first, most, dryRun)
		want = w.models[i].purge(&f, first, most, dryRun)
	}
	if got != want {
		t.Fatalf("purge or kick %+v from %d: %d, it should be %d", f, first, got, want)
	}
	if got < most && next != 0 {
		t.Fatalf("purge or kick: next %d at the end", next)
	}
}

// sweep goes on with a purge or kick as long as it stops for payloads.
func (w *world) sweep(i int, step func(Instant, *Filter, uint64, int, bool) (int, uint64), f *Filter, first uint64, most int, dryRun bool) (total int, next uint64) {
	for next = first; ; {
		var count int
		count, next = step(w.now, f, next, most-total, dryRun)
		total += count
		if !w.journals[i].fetch() {
			return total, next
		}
	}
}

func (w *world) manage(t *rapid.T) {
	i := pickQueue(t)
	q, m := w.queues[i], w.models[i]
	switch rapid.IntRange(0, 3).Draw(t, "manage") {
	case 0:
		paused := rapid.IntRange(0, 3).Draw(t, "paused") == 0
		q.Pause(w.now, paused)
		m.paused = paused
	case 1:
		s := drawSettings(t, i == 0)
		q.Configure(w.now, s)
		m.s = s
	case 2:
		messages, bytes := rapid.Int64Range(0, 3).Draw(t, "messages"), rapid.Int64Range(0, 90).Draw(t, "bytes")
		want := m.room(messages, bytes)
		if got := q.Reserve(messages, bytes); got != want {
			t.Fatalf("reserve %d messages, %d bytes: %v", messages, bytes, got)
		}
		if want {
			m.reserved[0] += messages
			m.reserved[1] += bytes
		}
	case 3:
		q.Unreserve(m.reserved[0], m.reserved[1])
		m.reserved = [2]int64{}
	}
}

// peekPages fetches a page of the running peek, or starts one.
func (w *world) peekPages(t *rapid.T) {
	q, m := w.queues[0], w.models[0]
	p := w.peek
	if p == nil {
		p = &runningPeek{filter: filterGen.Draw(t, "filter"), inSequence: rapid.Bool().Draw(t, "in sequence"), began: m.step, seen: map[uint64]bool{}}
		for _, x := range m.peek(w.now, &p.filter) {
			p.present = append(p.present, x.Sequence)
		}
		w.peek = p
	}
	page, cursor := peekPageInOrder(t, q, p.filter, rapid.IntRange(1, 3).Draw(t, "page"), p.inSequence, p.cursor, w.now, w.journals[0])
	for _, got := range page {
		if p.seen[got.Sequence] {
			t.Fatalf("peek shows %d again", got.Sequence)
		}
		if p.inSequence && got.Sequence <= p.highest {
			t.Fatalf("peek shows %d after %d", got.Sequence, p.highest)
		}
		p.seen[got.Sequence], p.highest = true, got.Sequence
		x := m.bySeq(got.Sequence)
		if x == nil {
			t.Fatalf("peek shows %d, which is gone", got.Sequence)
		}
		samePeeked(t, got, x.peeked(w.now))
	}
	if p.cursor = cursor; cursor != "" {
		return
	}
	for _, seq := range p.present {
		stayed := func(x *modelMessage) bool { // what changes its state keeps its place in the order of sequences
			return x.moved < p.began || p.inSequence && len(p.filter.States) == int(Buried)
		}
		if x := m.bySeq(seq); x != nil && stayed(x) && !p.seen[seq] {
			t.Fatalf("peek %+v missed %d, which stayed where it was: %+v", p.filter, seq, x)
		}
	}
	w.peek = nil
}

func peekPage(t interface{ Fatal(...any) }, q *Queue, f Filter, max int, cursor string, now Instant, journals ...*tape) ([]Peeked, string) {
	return peekPageInOrder(t, q, f, max, false, cursor, now, journals...)
}

func peekPageInOrder(t interface{ Fatal(...any) }, q *Queue, f Filter, max int, inSequence bool, cursor string, now Instant, journals ...*tape) ([]Peeked, string) {
	p, err := NewPeeker(f, max, 0, inSequence, cursor)
	if err != nil {
		t.Fatal(err)
	}
	for steps := 0; !p.Step(q, now); steps++ {
		if steps > 10_000 {
			t.Fatal("a page does not end")
		}
		for _, j := range journals {
			j.fetch()
		}
	}
	if len(p.Page) > max {
		t.Fatal("a page is too long")
	}
	return p.Page, p.Cursor()
}

func samePeeked(t *rapid.T, got, want Peeked) {
	got.Delivery, want.Delivery = normal(got.Delivery), normal(want.Delivery)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("peek shows\n%+v instead of\n%+v", got, want)
	}
}

// check compares all of both queues with their models.
func (w *world) check(t *rapid.T) {
	for i, q := range w.queues {
		m := w.models[i]
		if err := checkInvariants(q); err != nil {
			t.Fatal(err)
		}
		got, want := q.Stats(w.now), m.statsNow(w.now)
		if got != want {
			t.Fatalf("%s: stats\n%+v instead of\n%+v", q.name, got, want)
		}
		if q.Len() != int64(len(m.msgs)) || q.Bytes() != m.bytes() || q.ReadyLen() != want.Ready || q.LeasedLen() != want.Leased || q.Last() != m.next-1 {
			t.Fatalf("%s: %d messages of %d bytes, last %d", q.name, q.Len(), q.Bytes(), q.Last())
		}
		all := Filter{States: []State{Ready, Delayed, Leased, Buried}}
		page, cursor := peekPage(t, q, all, 1000, "", w.now, w.journals[i])
		shown := m.peek(w.now, &all)
		if len(page) != len(shown) || cursor != "" {
			t.Fatalf("%s: peek shows %d messages instead of %d, cursor %q", q.name, len(page), len(shown), cursor)
		}
		for j := range page {
			samePeeked(t, page[j], shown[j])
		}
		if after := q.Stats(w.now); after != got {
			t.Fatalf("%s: peek changed %+v to %+v", q.name, got, after)
		}
		w.idsBefore[i] = max(w.idsBefore[i], w.now.Wall-int64(m.s.DedupWindow))
		w.producersBefore[i] = max(w.producersBefore[i], w.now.Wall-int64(limits.ProducerWindow))
		m.step++
		if rapid.IntRange(0, 3).Draw(t, "stay cached") != 0 {
			q.fetch.cache, q.fetch.cacheBytes = nil, 0
		}
	}
}

// transact consumes a message and sends others in one step, if the checks say that it will succeed.
func (w *world) transact(t *rapid.T) {
	if len(w.receipts) == 0 {
		t.Skip("no receipts")
	}
	r := w.receipts[len(w.receipts)-rapid.IntRange(1, min(len(w.receipts), 12)).Draw(t, "receipt")]
	i := int(r.Queue) - 1
	q, m := w.queues[i], w.models[i]
	x := m.held(r)
	if r.Epoch != q.epoch {
		x = nil
	}
	charge, err := q.CheckAck(r)
	if x == nil {
		if reason.Of(err) != reason.StaleReceipt {
			t.Fatalf("check of a stale ack: %v", err)
		}
		return
	}
	if err != nil || charge != int64(x.Bytes()) {
		t.Fatalf("check of an ack of %d bytes: %d, %v", x.Bytes(), charge, err)
	}
	b := Batch{Messages: []Message{w.drawMessage(t), w.drawMessage(t)}, Spill: rapid.Bool().Draw(t, "spill")}
	if _, err := q.CheckSend(w.now, b, 1, charge); err != nil {
		without := *m
		without.msgs = slices.Clone(m.msgs)
		without.remove(x)
		if _, err := without.send(w.now, b); err == nil {
			t.Fatal("the check refuses what would fit")
		}
		return
	}
	run := q.Begin(w.now, nil)
	err = run.Ack(r)
	run.End()
	m.stats.Consumed++
	m.remove(x)
	want, wantErr := m.send(w.now, b)
	got, sendErr := q.Send(w.now, b)
	if err != nil || sendErr != nil || wantErr != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("transaction: %v, %v, %v: %+v instead of %+v", err, sendErr, wantErr, got, want)
	}
}

// segment begins a new segment of the journal, or gives up the oldest.
func (w *world) segment(t *rapid.T) {
	i := pickQueue(t)
	j := w.journals[i]
	if rapid.Bool().Draw(t, "free") {
		w.models[i].forgetProducers(w.now)
		before, number := dump(j.q, j, 0, 0), j.q.number
		j.free(w.now, rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "few"))
		j.q.number, number = number, j.q.number
		after := dump(j.q, j, 0, 0)
		j.q.number = number
		if cut := func(s string) string { return s[:strings.Index(s, "\nids")] }; cut(after) != cut(before) { // old ids may be forgotten
			t.Fatalf("copying forward changed\n%s\nto\n%s", before, after)
		}
		return
	}
	j.rotate()
}

// restart brings both queues back from their records and goes on with those.
func (w *world) restart(t *rapid.T) {
	stopped := w.now
	w.now.Wall += int64(rapid.SampledFrom([]int{0, 3, 100, 5000, 200_000}).Draw(t, "down")) * tick
	w.now.Mono = int64(rapid.SampledFrom([]int{1, 1000, 1_000_000}).Draw(t, "monotonic")) * tick
	clean := rapid.Bool().Draw(t, "clean")
	w.peek = nil
	for i := range w.queues {
		w.publish(i, w.queues[i].Last())
		live, again := w.queues[i], w.reload(t, i)
		// What is not recorded stays as the model has it.
		again.stats.Duplicates, again.stats.Peeked = live.stats.Duplicates, live.stats.Peeked
		again.reservedMessages, again.reservedBytes = live.reservedMessages, live.reservedBytes
		if dump(again, w.journals[i], 0, 0) != dump(live, w.journals[i], 0, 0) { // it remembers more
			again.ids, again.producers = live.ids, live.producers
		}
		w.queues[i] = again
		w.journals[i].attach(again)
		again.Restart(w.now, clean, stopped)
		w.models[i].restart(stopped, w.now, clean)
	}
}

// reload brings a queue back from its records and compares.
func (w *world) reload(t *rapid.T, i int) *Queue {
	q := w.queues[i]
	again := w.journals[i].loaded(t)
	got := dump(again, w.journals[i], w.idsBefore[i], w.producersBefore[i])
	if want := dump(q, w.journals[i], w.idsBefore[i], w.producersBefore[i]); got != want {
		t.Fatalf("%s: replayed\n%s\ninstead of\n%s", q.name, got, want)
	}
	if err := checkInvariants(again); err != nil {
		t.Fatalf("%s: replayed: %v", q.name, err)
	}
	if again.Gaps() {
		t.Fatalf("%s: a gap where there is none", q.name)
	}
	return again
}

// TestRandomOperationsMatchModel holds the queue against the model, operation by operation, and in the
// end what its records yield against the queue.
func TestRandomOperationsMatchModel(t *testing.T) {
	for range 12 { // rounds of rapid.checks runs each
		rapid.Check(t, randomOperations)
	}
}

func randomOperations(t *rapid.T) {
	w := newWorld(t)
	t.Repeat(map[string]func(*rapid.T){
		"send":        w.send,
		"send more":   w.send,
		"publish":     w.publishLater,
		"lease":       w.lease,
		"lease more":  w.lease,
		"lease one":   w.leaseOne,
		"settle":      w.settle,
		"settle more": w.settle,
		"elapse":      w.elapse,
		"next due":    w.nextDue,
		"purge":       w.purgeOrKick,
		"manage":      w.manage,
		"peek":        w.peekPages,
		"transact":    w.transact,
		"move":        w.move,
		"segment":     w.segment,
		"restart":     w.restart,
		"":            w.check,
	})
	for i, q := range w.queues {
		w.publish(i, q.Last())
		w.reload(t, i)
	}
}
