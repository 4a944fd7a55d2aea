package queue

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"
)

// sampleRecords is at least one record of every kind, as a queue emits them.
func sampleRecords(t testing.TB) (records [][]byte) {
	q := newQueue(func(s *Settings) { s.MaxMessages, s.Overflow, s.MaxAttempts = 6, DropOldest, 2 })
	q.Emit = func(r *Record) { records = append(records, r.Append(nil)) }
	q.KeepBase(at(0))
	s := q.settings
	s.TypeNames, s.DeadLetter, s.DeadLetterExpired = map[string]int64{"a": 1, "b": 2}, "/dead", true
	s.Kernel.OutSelector = Selector{Kind: TypeIn, Types: []int64{1, 5}}
	q.Configure(at(0), s)
	b := Batch{Producer: "p", Number: 3, Messages: []Message{
		{Type: math.MaxInt64, Priority: 7, Body: []byte("body"), DedupID: "id", Headers: []Header{{"k", []byte("v")}}, Delay: time.Second, TTL: time.Hour},
		{Type: 1, DedupID: "id"}, text("x"),
	}}
	if _, err := q.Send(at(0), b); err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	send(t, q, at(0), repeat(5, text("y"))...) // drops one
	ds := receive(t, q, at(0), 4, Selector{})
	run := q.Begin(at(0), nil)
	errs := []error{run.Ack(ds[0].Receipt), run.Nack(ds[1].Receipt, time.Minute, ""), run.Bury(ds[2].Receipt, "why")}
	_, err := run.Touch(ds[3].Receipt, time.Minute)
	run.End()
	if err := fmt.Sprint(append(errs, err)); err != "[<nil> <nil> <nil> <nil>]" {
		t.Fatal(err)
	}
	var all []uint64
	eachSlot(q, func(_ uint32, s *slot) { all = append(all, s.seq) })
	q.Keep(at(0), all, func(i int) ([]byte, []byte) {
		payload, _ := q.Payload(all[i])
		return nil, payload
	})
	q.Stamp(1)
	q.KeepIDs(at(0), 1, 10)
	q.KeepProducers(at(0), at(0).Wall, 0, 10)
	q.Restart(at(time.Hour), true, at(0))
	q.Kick(at(0), &Filter{}, 0, 10, false)
	b = Batch{Messages: append(repeat(2, text("z")), Message{Type: 2, DedupID: "id"}), Past: []Past{
		{SentAt: at(-time.Hour).Wall, Attempts: 3, Expires: at(time.Hour).Wall}, {Buried: true, Why: "it was"}, {Due: at(time.Minute).Wall},
	}}
	if _, err := q.Send(at(0), b); err != nil {
		t.Fatal(err)
	}
	q.Publish(q.Last())
	q.Pause(at(0), true)
	q.AddSchema(at(0), []byte("descriptors"), []TypeSchema{{7, "acme.Order", true}, {8, "acme.Item", false}})
	q.KeepSchemas(at(0), unstamped)
	q.RemoveSchemas(at(0))
	kinds := map[byte]bool{}
	for _, r := range records {
		kinds[r[1]] = true
	}
	for k := recSend; k <= recSchema; k++ {
		if !kinds[byte(k)] {
			t.Fatalf("no record of kind %d", k)
		}
	}
	return records
}

func TestRecordReadsAsItWasWritten(t *testing.T) {
	for _, b := range sampleRecords(t) {
		r, err := DecodeRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if again := r.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x is written again as %x", b, again)
		}
	}
}

func TestTruncatedRecordIsAnError(t *testing.T) {
	records := sampleRecords(t)
	// An id whose bytes could pass for others.
	r := Record{kind: recSend, Number: 1, First: 1, Count: 1, Messages: []storedMessage{{typ: 1, hasID: true, charge: 100}}}
	records = append(records, r.Append(nil))
	for _, b := range records {
		for n := range b {
			if _, err := DecodeRecord(b[:n]); err == nil {
				t.Errorf("%d of %d bytes of a record of kind %d are taken for all", n, len(b), b[1])
			}
		}
		if _, err := DecodeRecord(append(slices.Clone(b), 0)); err == nil {
			t.Errorf("a byte after a record of kind %d is overlooked", b[1])
		}
	}
}

// survives replays a damaged record: whatever it says, nothing breaks and little memory is taken.
func survives(t testing.TB, before [][]byte, b []byte) {
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	r, err := DecodeRecord(b)
	runtime.ReadMemStats(&m1)
	if taken := m1.TotalAlloc - m0.TotalAlloc; taken > 8<<20 {
		t.Fatalf("%d bytes taken for a record of %d: %x", taken, len(b), b)
	}
	if err != nil {
		return
	}
	r.Append(nil)
	q := NewLoading(1)
	place := Place(0)
	next := func(size int) Place {
		if size < 0 || size >= 1<<chargeBits {
			t.Fatalf("a payload of %d bytes", size)
		}
		place++
		return place
	}
	for _, b := range before {
		good, err := DecodeRecord(b)
		if err == nil {
			err = q.Replay(good, next)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if q.Replay(r, next) != nil || q.Finish() != nil {
		return
	}
	if err := checkInvariants(q); err != nil {
		t.Fatal(err)
	}
	q.Restart(at(0), place%2 == 0, at(time.Minute))
	fetch := func() bool { // something of some length
		missing := q.Missing()
		for _, p := range missing {
			q.Fetched(p, make([]byte, p%200))
		}
		return len(missing) > 0
	}
	for rounds := 0; q.Expire(at(time.Hour), nil, 1<<20) || fetch(); rounds++ {
		if rounds > 1000 {
			t.Fatal("expiry does not end")
		}
	}
	p, err := NewPeeker(Filter{States: []State{Ready, Delayed, Leased, Buried}}, 1000, 0, false, "")
	if err != nil {
		t.Fatal(err)
	}
	for rounds := 0; !p.Step(q, at(0)); rounds++ {
		if fetch(); rounds > 100_000 {
			t.Fatal("peek does not end")
		}
	}
	for again := true; again; again = fetch() {
		receive(t, q, at(0), 10, Selector{})
	}
	q.KeepIDs(at(0), 1<<40, 1<<20)
	q.KeepProducers(at(0), 1<<62, 0, 1<<20)
	for from := uint64(1); from != 0; {
		_, from = q.Purge(at(0), &Filter{States: []State{Ready, Delayed, Leased, Buried}}, from, 1000, false)
	}
	if err := checkInvariants(q); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedRecordBreaksNothing(t *testing.T) {
	records := sampleRecords(t)
	for i, b := range records {
		for bit := range 8 * len(b) {
			damaged := slices.Clone(b)
			damaged[bit/8] ^= 1 << (bit % 8)
			survives(t, records[:i], damaged)
		}
		for at := range b { // lengths that promise everything
			damaged := slices.Concat(b[:at], bytes.Repeat([]byte{0xff}, 9), []byte{1}, b[min(at+1, len(b)):])
			survives(t, records[:i], damaged)
		}
	}
}

// A number of messages that is promised and not kept takes no memory.
func TestEmptyPromiseTakesNoMemory(t *testing.T) {
	r := Record{kind: recSend, Number: 1, First: 1}
	b := r.Append(nil)
	b = append(b[:len(b)-1], 0x80, 0x80, 0x01) // 16384 messages
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	_, err := DecodeRecord(b)
	runtime.ReadMemStats(&m1)
	if taken := m1.TotalAlloc - m0.TotalAlloc; err == nil || taken > 256<<10 {
		t.Errorf("%d bytes taken, error %v", taken, err)
	}
}

func TestUnknownVersionAndKindAreRefused(t *testing.T) {
	b := sampleRecords(t)[1]
	for place, value := range map[int]byte{0: recordVersion + 1, 1: byte(recSchema) + 1} {
		damaged := slices.Clone(b)
		damaged[place] = value
		if _, err := DecodeRecord(damaged); err == nil {
			t.Errorf("byte %d is %d and nobody minds", place, value)
		}
	}
}

// replayOne replays a record without payloads.
func replayOne(q *Queue, r *Record) error {
	return q.Replay(r, func(int) Place { return 0 })
}

// A record that would use sequences again is refused; one that leaves some out is not.
func TestReplayNeverReusesSequences_S5(t *testing.T) {
	record := func(number, first uint64) *Record {
		return &Record{kind: recSend, Number: number, At: at(0), First: first, Count: 1, Messages: []storedMessage{{typ: 1}}}
	}
	base := newQueue(nil)
	q := NewLoading(1)
	base.Emit = func(r *Record) {
		if err := replayOne(q, r); err != nil {
			t.Fatal(err)
		}
	}
	base.KeepBase(at(0))
	for i, first := range []uint64{5, 1 << 60} { // what lay between is gone, and not looked for
		if err := replayOne(q, record(uint64(i+2), first)); err != nil {
			t.Fatal(err)
		}
	}
	for _, first := range []uint64{0, 5, 6, 1 << 60, math.MaxUint64} {
		if err := replayOne(q, record(4, first)); err == nil {
			t.Errorf("sequence %d is stored after %d", first, q.Last())
		}
	}
	if err := q.Finish(); err != nil {
		t.Fatal(err)
	}
	want(t, "ready", shown(peek(t, q, at(0), Ready)), []uint64{5, 1 << 60})
	want(t, "next", send(t, q, at(0), text("")).First, uint64(1<<60+1))
	consistent(t, q)
}

// What was forgotten when a batch was decided on is forgotten after its replay: an id that was stored
// twice, a window apart, is known by its second message.
func TestReplayForgetsDedupIDs_S8(t *testing.T) {
	q := newQueue(nil)
	journal := newTape(q, at(0))
	for i := range 50 {
		send(t, q, at(time.Duration(i)*time.Hour), Message{Type: 1, DedupID: "id"})
	}
	again := journal.loaded(t)
	want(t, "ids", again.ids.len(), 1)
	stored := send(t, again, at(49*time.Hour), Message{Type: 1, DedupID: "id"})
	want(t, "duplicates", stored.Duplicates, []Duplicate{{0, 50}})
	consistent(t, again)
}

// Ids are also forgotten without a record of it: by a shorter window that was in force for a while.
func TestReplayKnowsIDByItsSecondMessage_S8(t *testing.T) {
	q := newQueue(nil)
	journal := newTape(q, at(0))
	m := Message{Type: 1, DedupID: "id"}
	send(t, q, at(0), Message{Type: 1, DedupID: "before"}, m)
	for _, window := range []time.Duration{time.Second, time.Hour} {
		s := q.settings
		s.DedupWindow = window
		q.Configure(at(time.Minute), s)
		q.Stats(at(time.Minute))
	}
	send(t, q, at(time.Minute), m)
	again := journal.loaded(t)
	consistent(t, again)
	want(t, "replayed", dump(again, journal, 0, 0), dump(q, journal, 0, 0))
	want(t, "duplicates", send(t, again, at(time.Minute), m).Duplicates, []Duplicate{{0, 3}})
}

func FuzzDecodeRecord(f *testing.F) {
	records := sampleRecords(f)
	for _, b := range records {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { survives(t, records[:2], b) })
}
