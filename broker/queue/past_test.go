package queue

import (
	"fmt"
	"testing"
	"time"
)

// Messages that are alike but for their past are recorded apart.
func TestPastOfEachMessageIsRecorded(t *testing.T) {
	q := newQueue(nil)
	journal := newTape(q, at(0))
	pasts := []Past{
		{}, {SentAt: 1}, {SentAt: 1}, {SentAt: 2}, {SentAt: 2, Attempts: 1}, {SentAt: 2, Attempts: 1, Buried: true},
		{SentAt: 2, Attempts: 1, Buried: true, Why: "why"}, {SentAt: 2, Attempts: 1, Buried: true, Why: "not"},
	}
	if _, err := q.Send(at(time.Hour), Batch{Messages: repeat(len(pasts), text("x")), Past: pasts}); err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	again := journal.loaded(t)
	want(t, "replayed", dump(again, journal, 0, 0), dump(q, journal, 0, 0))
	journal.q = again
	page, _ := peekPage(t, again, Filter{States: []State{Ready, Buried}}, 100, "", at(time.Hour), journal)
	for i, p := range page {
		past := pasts[i]
		if past.SentAt == 0 {
			past.SentAt = at(time.Hour).Wall
		}
		want(t, fmt.Sprint("past of ", i), Past{SentAt: p.SentAt, Attempts: p.Attempts, Buried: p.State == Buried, Why: p.BuryReason}, past)
	}
	consistent(t, again)
}

// Messages without a past take no more in the journal than before there were any.
func TestMessageWithoutAPastIsRecordedAsEver(t *testing.T) {
	r := Record{kind: recSend, Number: 1, First: 1, Count: 1, Messages: []storedMessage{{typ: 1, charge: 3}}}
	b := r.Append(nil)
	want(t, "the message", b[len(b)-5:], []byte{1, 0, 1, 0, 3}) // one run: no flags, the type, the priority, the charge
}

// What is to be buried when it is committed is copied forward as buried, whether or not there is a reason.
func TestKeepOfWhatIsToBeBuried(t *testing.T) {
	q := newQueue(nil)
	journal := newTape(q, at(0))
	if _, err := q.Send(at(0), Batch{Messages: repeat(2, text("x")), Past: []Past{{Buried: true, Why: "why"}, {Buried: true}}}); err != nil {
		t.Fatal(err)
	}
	consistent(t, q)
	journal.free(at(0), 10)
	for _, q := range []*Queue{journal.loaded(t), q} {
		journal.q = q
		q.Publish(2)
		got, _ := peekPage(t, q, Filter{States: []State{Ready, Buried}}, 100, "", at(0), journal)
		want(t, "messages", []any{got[0].State, got[0].BuryReason, got[1].State, got[1].BuryReason}, []any{Buried, "why", Buried, ""})
		consistent(t, q)
	}
}

// A record of the first version has no past: the flag was not used.
func TestPastInARecordOfVersion1IsRefused(t *testing.T) {
	r := Record{kind: recSend, Number: 1, First: 1, Count: 1, Messages: []storedMessage{{typ: 1, past: &Past{SentAt: 1}}}}
	b := r.Append(nil)
	if _, err := DecodeRecord(b); err != nil {
		t.Fatal(err)
	}
	b[0] = 1
	if _, err := DecodeRecord(b); err == nil {
		t.Error("it is read")
	}
}
