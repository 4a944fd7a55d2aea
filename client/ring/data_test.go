//go:build linux

package ring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEveryConsumerGetsEveryMessageOfEveryLane(t *testing.T) {
	f := newFake(t, nil)
	early := f.consumer(t, ConsumerOptions{})
	p1, p2 := f.producer(t), f.producer(t)
	if p1.Lane() == p2.Lane() {
		t.Fatalf("both producers have lane %d", p1.Lane())
	}
	late := f.consumer(t, ConsumerOptions{From: Oldest}) // in time for all the same
	began := time.Now().Add(-time.Minute)
	for i := range 100 {
		for _, p := range []*Producer{p1, p2} {
			if err := p.Publish(int64(i+1), fmt.Append(nil, p.Lane(), i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []*Consumer{early, late} {
		next := map[uint64]int{p1.Lane(): 0, p2.Lane(): 0}
		for range 200 {
			m, err := c.Next(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			i, known := next[m.Lane]
			if !known || m.Sequence != uint64(i+1) || m.Type != int64(i+1) || string(m.Payload) != fmt.Sprint(m.Lane, i) || m.Lost != 0 {
				t.Fatalf("message %+v, want number %d of its lane", m, i)
			}
			if at := m.Published(); at.Before(began) || at.After(time.Now().Add(time.Minute)) {
				t.Fatalf("published at %v", at)
			}
			next[m.Lane]++
		}
		if _, ok, err := c.TryNext(); ok || err != nil {
			t.Errorf("a message after the last: %v, %v", ok, err)
		}
		s := c.Stats()
		if s.Received != 200 || s.Lost != 0 || s.Lag != 0 || len(s.Lanes) != 2 {
			t.Errorf("stats %+v", s)
		}
	}
	if p1.Sequence() != 100 || p1.Stats().Published != 100 {
		t.Errorf("sequence %d, stats %+v", p1.Sequence(), p1.Stats())
	}
}

func TestPositionsSayWhereToStart(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	publish(t, p, 0, 10)
	oldest := f.consumer(t, ConsumerOptions{From: Oldest})
	newest := f.consumer(t, ConsumerOptions{})
	seventh := f.consumer(t, ConsumerOptions{From: Sequence(7)})
	publish(t, p, 10, 12)
	expect(t, oldest, 0, 12)
	expect(t, newest, 10, 12)
	expect(t, seventh, 6, 12)
}

func TestOnlyTypesAskedForCome(t *testing.T) {
	f := newFake(t, nil)
	many := []int64{2, 4, 6, 8, 10, 12, 14, 16, 18, 20}
	for _, types := range [][]int64{nil, {3}, {3, 5}, many} {
		c := f.consumer(t, ConsumerOptions{Types: slices.Clone(types)})
		p := f.producer(t)
		for typ := range int64(20) {
			if err := p.Publish(typ+1, nil); err != nil {
				t.Fatal(err)
			}
		}
		for typ := int64(1); typ <= 20; typ++ {
			if len(types) > 0 && !slices.Contains(types, typ) {
				continue
			}
			if m, err := c.Next(deadline(t)); err != nil || m.Type != typ {
				t.Fatalf("types %d: type %d, %v; want %d", types, m.Type, err, typ)
			}
		}
		c.Close()
		p.Close()
	}
}

func TestAllWaysToPublishAndToReadAgree(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{})
	ctx := deadline(t)
	check := func(how string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
	}
	check("Publish", p.Publish(1, []byte("one")))
	check("PublishContext", p.PublishContext(ctx, 2, []byte("two")))
	check("TryPublish", p.TryPublish(3, []byte("three")))
	check("PublishParts", p.PublishParts(4, []byte("fo"), nil, []byte("ur")))
	n, err := p.PublishBatch(ctx, []Message{{Type: 5, Payload: []byte("five")}, {Type: 6, Payload: []byte("six")}})
	if n != 2 {
		t.Errorf("PublishBatch: %d", n)
	}
	check("PublishBatch", err)
	room, err := p.Claim(ctx, 100)
	check("Claim", err)
	if len(room) != 100 {
		t.Fatalf("Claim: %d bytes", len(room))
	}
	copy(room, "never")
	p.Abort()
	room, err = p.Claim(ctx, 100)
	check("Claim", err)
	check("Commit", p.Commit(7, copy(room, "seven")))
	check("Publish", p.Publish(8, nil))

	var got []string
	note := func(m Message, err error) {
		t.Helper()
		check("reading", err)
		got = append(got, fmt.Sprintf("%d:%s", m.Type, m.Payload))
	}
	m, ok, err := c.TryNext()
	for ; !ok && err == nil; m, ok, err = c.TryNext() { // the lane may only be about to be taken up
	}
	note(m, err)
	note(c.Next(ctx))
	v, err := c.View(ctx)
	note(v.Message, err)
	if !v.Valid() {
		t.Error("a view became invalid although nothing was overwritten")
	}
	batch := make([]Message, 3)
	n, err = c.NextBatch(ctx, batch)
	check("NextBatch", err)
	for _, m := range batch[:n] {
		note(m, nil)
	}
	for m, err := range c.Messages(ctx) {
		note(m, err)
		if m.Type == 8 {
			break
		}
	}
	if want := "1:one 2:two 3:three 4:four 5:five 6:six 7:seven 8:"; strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestSlowConsumerOfAnOverwriteRingLearnsItsLoss(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{})
	const all = 10_000 // of 64 bytes: ten times the capacity
	publish(t, p, 0, 1)
	expect(t, c, 0, 1)
	publish(t, p, 1, all)
	lost, read := uint64(0), 1
	for {
		m, err := c.Next(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		lost += m.Lost
		read++
		if m.Sequence != lost+uint64(read) {
			t.Fatalf("sequence %d after %d were read and %d lost", m.Sequence, read, lost)
		}
		if m.Sequence == all {
			break
		}
	}
	if lost == 0 {
		t.Error("nothing was lost in ten laps")
	}
	if _, ok, err := c.TryNext(); ok || err != nil { // now it shows how far it is
		t.Errorf("a message after the last: %v, %v", ok, err)
	}
	if s := c.Stats(); s.Lost != lost {
		t.Errorf("stats say %d were lost, messages %d", s.Lost, lost)
	}
}

func TestDeadlinesEndWaiting(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless = true })
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{Lossless: true})
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := c.Next(short); !errors.Is(err, ErrTimedOut) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next: %v", err)
	}
	fill(t, p)
	if err := p.PublishContext(short, 1, make([]byte, 1000)); !errors.Is(err, ErrTimedOut) {
		t.Errorf("PublishContext: %v", err)
	}
}

// fill publishes until a consumer, who must be known to the producer before, holds it back.
func fill(t *testing.T, p *Producer) (published int) {
	t.Helper()
	for {
		err := p.TryPublish(1, make([]byte, 1000))
		if errors.Is(err, ErrFull) {
			return published
		}
		if err != nil {
			t.Fatal(err)
		}
		if published++; published > 1000 {
			t.Fatal("a megabyte fits into 64 KiB that nobody reads")
		}
	}
}

func TestLosslessConsumerHoldsTheProducerBack(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless = true })
	p := f.producer(t)
	if !p.Lossless() {
		t.Error("the producer does not know that the ring is lossless")
	}
	c := f.consumer(t, ConsumerOptions{Lossless: true})
	n := fill(t, p)
	blocked := make(chan error)
	go func() { blocked <- p.Publish(1, make([]byte, 1000)) }()
	for i := range n + 1 {
		m, err := c.Next(deadline(t))
		if err != nil || m.Sequence != uint64(i+1) {
			t.Fatalf("message %+v, %v; want number %d", m, err, i+1)
		}
	}
	if err := <-blocked; err != nil {
		t.Error(err)
	}
}

func TestEvictedConsumerIsToldOnceAndReadsOn(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless, f.stall = true, 10*time.Millisecond })
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{Lossless: true})
	fill(t, p)
	for range 200 { // more than the capacity: it is evicted on the way
		if err := p.Publish(1, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if s := p.Stats(); s.Evictions != 1 || s.Blocks == 0 || s.Blocked == 0 {
		t.Errorf("stats %+v", s)
	}
	evictions := 0
	for m, err := range c.Messages(deadline(t)) {
		var e *Error
		switch {
		case errors.Is(err, ErrEvicted) && errors.As(err, &e) && e.Lane == p.Lane():
			evictions++
		case err != nil:
			t.Fatal(err)
		}
		if m.Sequence == p.Sequence() {
			break
		}
	}
	if evictions != 1 {
		t.Errorf("told %d times", evictions)
	}
}

func TestCorruptLaneIsToldOnceAndOthersAreReadOn(t *testing.T) {
	f := newFake(t, nil)
	bad, good := f.producer(t), f.producer(t)
	c := f.consumer(t, ConsumerOptions{})
	f.set(func() { copy(f.members[bad.Lane()].memory.Bytes()[4096:], []byte{1, 2, 3}) }) // published
	publish(t, good, 0, 1)
	corrupt := 0
	for m, err := range c.Messages(deadline(t)) {
		var e *Error
		switch {
		case errors.Is(err, ErrCorrupt) && errors.As(err, &e) && e.Lane == bad.Lane():
			corrupt++
		case err != nil:
			t.Fatal(err)
		}
		if m.Lane == good.Lane() && corrupt > 0 {
			break
		}
		if corrupt > 0 {
			publish(t, good, 1, 2) // should the first have come before
		}
	}
	if _, ok, err := c.TryNext(); err != nil && !ok {
		t.Errorf("told again: %v", err)
	}
	if s := c.Stats(); s.Corrupt != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestTheHotPathDoesNotAllocate(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	c := f.consumer(t, ConsumerOptions{Types: []int64{1, 2}})
	ctx := deadline(t)
	payload := make([]byte, 100)
	out, in := make([]Message, 4), make([]Message, 4)
	for i := range out {
		out[i] = Message{Type: 1, Payload: payload}
	}
	var failed error
	publish := func(err error) {
		if err != nil {
			failed = err
		}
	}
	for name, run := range map[string]func(){
		"Publish, Next":       func() { publish(p.Publish(1, payload)); _, err := c.Next(ctx); publish(err) },
		"PublishContext":      func() { publish(p.PublishContext(ctx, 1, payload)); _, err := c.Next(ctx); publish(err) },
		"TryPublish, TryNext": func() { publish(p.TryPublish(1, payload)); _, _, err := c.TryNext(); publish(err) },
		"PublishParts, View":  func() { publish(p.PublishParts(1, payload, payload)); _, err := c.View(ctx); publish(err) },
		"Claim, Commit": func() {
			_, err := p.Claim(ctx, 9)
			publish(err)
			publish(p.Commit(1, 9))
			_, err = c.Next(ctx)
			publish(err)
		},
		"PublishBatch, batches": func() { _, err := p.PublishBatch(ctx, out); publish(err); _, err = c.NextBatch(ctx, in); publish(err) },
	} {
		run()
		if n := testing.AllocsPerRun(1000, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if failed != nil {
		t.Error(failed)
	}
}

func TestFullLaneCostsNoAllocation(t *testing.T) {
	f := newFake(t, func(f *fake) { f.lossless = true })
	p := f.producer(t)
	f.consumer(t, ConsumerOptions{Lossless: true})
	fill(t, p)
	payload := make([]byte, 1000)
	var err error
	if n := testing.AllocsPerRun(100, func() { err = p.TryPublish(1, payload) }); n != 0 || !errors.Is(err, ErrFull) {
		t.Errorf("%v allocations, %v", n, err)
	}
}
