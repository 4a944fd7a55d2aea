package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/reason"
)

// at is the fake clock: so long after it started.
func at(d time.Duration) Instant {
	return Instant{Wall: 1_700_000_000_000_000_000>>tickBits<<tickBits + int64(d), Mono: 1000*tick + int64(d)}
}

// newQueue is a queue with default settings, changed by edit.
func newQueue(edit func(*Settings)) *Queue {
	s := Default(0, 0)
	s.Durability = Journal
	if edit != nil {
		edit(&s)
	}
	return New(1, "/q", 1, 0x5eed, s)
}

// send stores and publishes messages, one batch, and returns the answer.
func send(t testing.TB, q *Queue, now Instant, messages ...Message) Stored {
	t.Helper()
	stored, err := q.Send(now, Batch{Messages: messages})
	if err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	return stored
}

// text is a message of type 1 with a body.
func text(body string) Message { return Message{Type: 1, Body: []byte(body)} }

// repeat is n messages alike.
func repeat(n int, m Message) []Message { return slices.Repeat([]Message{m}, n) }

// receive leases up to max messages.
func receive(t testing.TB, q *Queue, now Instant, max int, sel Selector) []Delivery {
	t.Helper()
	got, err := q.Lease(now, LeaseRequest{Selector: sel, Max: max, MaxBytes: 1 << 30}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// one leases the first message, which there must be.
func one(t testing.TB, q *Queue, now Instant) Delivery {
	t.Helper()
	got := receive(t, q, now, 1, Selector{})
	if len(got) != 1 {
		t.Fatalf("%d messages received instead of one", len(got))
	}
	return got[0]
}

// settle runs one settlement and wants it to succeed.
func settle(t testing.TB, q, dead *Queue, now Instant, f func(Settlements) error) {
	t.Helper()
	run := q.Begin(now, dead)
	err := f(run)
	run.End()
	if err != nil {
		t.Fatal(err)
	}
}

func ack(t testing.TB, q *Queue, now Instant, d Delivery) {
	t.Helper()
	settle(t, q, nil, now, func(s Settlements) error { return s.Ack(d.Receipt) })
}

func nack(t testing.TB, q, dead *Queue, now Instant, d Delivery) {
	t.Helper()
	settle(t, q, dead, now, func(s Settlements) error { return s.Nack(d.Receipt, 0, "") })
}

// expire lets time do all that is due.
func expire(q, dead *Queue, now Instant) {
	for q.Expire(now, dead, 1<<20) {
	}
}

// sequences lists those of deliveries.
func sequences(ds []Delivery) (seqs []uint64) {
	for _, d := range ds {
		seqs = append(seqs, d.Sequence)
	}
	return seqs
}

// peek shows all messages in some states.
func peek(t testing.TB, q *Queue, now Instant, states ...State) (all []Peeked) {
	t.Helper()
	cursor := ""
	for {
		page, next := peekPage(t, q, Filter{States: states}, 1000, cursor, now)
		all = append(all, page...)
		if cursor = next; cursor == "" {
			return all
		}
	}
}

func shown(ps []Peeked) (seqs []uint64) {
	for _, p := range ps {
		seqs = append(seqs, p.Sequence)
	}
	return seqs
}

// want fails the test unless both print alike.
func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s: %s; it should be %s", what, g, w)
	}
}

// wantReason fails the test unless err has that reason.
func wantReason(t testing.TB, err error, r reason.Reason) {
	t.Helper()
	if reason.Of(err) != r {
		t.Fatalf("error %v (%s); it should be %s", err, reason.Of(err), r)
	}
}

// consistent fails the test if the queue contradicts itself.
func consistent(t testing.TB, q *Queue) {
	t.Helper()
	if err := checkInvariants(q); err != nil {
		t.Fatal(err)
	}
}
