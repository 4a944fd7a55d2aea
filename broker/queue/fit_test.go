package queue

import (
	"bytes"
	"fmt"
	"testing"
)

// TestFitTakesTheLowestTypeThatFits_S11_S30: what is too large of a lower type is passed over, and the
// next type is looked at before any higher one, whatever the priorities.
func TestFitTakesTheLowestTypeThatFits_S11_S30(t *testing.T) {
	q := New(1, "/q", 1, 1, Default(0, 0))
	large, small := bytes.Repeat([]byte("x"), 100), []byte("y")
	_, err := q.Send(Instant{Wall: 1, Mono: 1}, Batch{Messages: []Message{
		{Type: 2, Body: large, Priority: 9},
		{Type: 5, Body: small, Priority: 9},
		{Type: 3, Body: large},
		{Type: 4, Body: small},
		{Type: 2, Body: large},
	}})
	if err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	fit := func(sel Selector) (seq uint64, big int) {
		var from ReadyCursor
		for more := true; more && seq == 0; {
			var met int
			seq, from, met, more = q.Fit(sel, 10, from)
			big += met
		}
		return seq, big
	}
	if seq, big := fit(Selector{Kind: LowestUpTo, Type: 9}); seq != 4 || big != 3 {
		t.Fatalf("message %d after %d large ones", seq, big)
	}
	if seq, big := fit(Selector{Kind: LowestUpTo, Type: 3}); seq != 0 || big != 0 {
		t.Fatalf("message %d, %d large ones counted again", seq, big)
	}
	if seq, _ := fit(Selector{}); seq != 2 {
		t.Fatalf("message %d", seq)
	}
}

// TestManyProducersKeepFewerAnswersEach_S9: memory for answers is bounded, and what was forgotten is
// never taken for new.
func TestManyProducersKeepFewerAnswersEach_S9(t *testing.T) {
	var p producers
	for id := range 5000 {
		for batch := range uint64(256) {
			p.remember(fmt.Sprint(id), batch+1, Stored{First: batch, SentAt: 1}, batch+1)
		}
	}
	if most := 1<<20 + 5000*32; p.answers > most {
		t.Fatalf("%d answers are kept, more than %d", p.answers, most)
	}
	for _, c := range []struct {
		batch uint64
		known bool
	}{{256, true}, {225, true}, {224, false}, {1, false}} {
		stored, known, err := p.repeat("4999", c.batch)
		if known != c.known || known && stored.First != c.batch-1 || !known && err == nil {
			t.Errorf("batch %d: known %v, %v", c.batch, known, err)
		}
	}
}
