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
	q.Kick(at(0), &Filter{}, 0, 10, false)
	q.Pause(at(0), true)
	kinds := map[byte]bool{}
	for _, r := range records {
		kinds[r[1]] = true
	}
	for k := recSend; k <= recPause; k++ {
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
	// An id whose bytes could pass for the body that follows it.
	r := Record{kind: recSend, Number: 1, First: 1, Count: 1, Messages: []storedMessage{{typ: 1, hasID: true, charge: 100, body: make([]byte, 100)}}}
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
	q := newQueue(nil)
	for _, good := range before {
		if err := q.Replay(good); err != nil {
			t.Fatal(err)
		}
	}
	if q.Replay(b) != nil {
		return
	}
	expire(q, nil, at(time.Hour))
	peek(t, q, at(0), Ready, Delayed, Leased, Buried)
	receive(t, q, at(0), 10, Selector{})
	for from := uint64(1); from != 0; {
		_, from = q.Purge(at(0), &Filter{States: []State{Ready, Delayed, Leased, Buried}}, from, 1000, false)
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
	for place, value := range map[int]byte{0: recordVersion + 1, 1: byte(recPause) + 1} {
		damaged := slices.Clone(b)
		damaged[place] = value
		if _, err := DecodeRecord(damaged); err == nil {
			t.Errorf("byte %d is %d and nobody minds", place, value)
		}
	}
}

// A record that would use sequences again is refused; one that leaves some out is not.
func TestReplayNeverReusesSequences_S5(t *testing.T) {
	record := func(number, first uint64) []byte {
		r := Record{kind: recSend, Number: number, At: at(0), First: first, Count: 1, Messages: []storedMessage{{typ: 1}}}
		return r.Append(nil)
	}
	q := newQueue(nil)
	for i, first := range []uint64{5, 1 << 60} { // what lay between is gone, and not looked for
		if err := q.Replay(record(uint64(i+1), first)); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "ready", shown(peek(t, q, at(0), Ready)), []uint64{5, 1 << 60})
	for _, first := range []uint64{0, 5, 6, 1 << 60, math.MaxUint64} {
		if err := q.Replay(record(3, first)); err == nil {
			t.Errorf("sequence %d is stored after %d", first, q.Last())
		}
	}
	want(t, "next", send(t, q, at(0), text("")).First, uint64(1<<60+1))
	consistent(t, q)
}

// What was forgotten when a batch was decided on is forgotten after its replay: an id that was stored
// twice, a window apart, is known by its second message.
func TestReplayForgetsDedupIDs_S8(t *testing.T) {
	q, again := newQueue(nil), newQueue(nil)
	q.Emit = func(r *Record) {
		if err := again.Replay(r.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		send(t, q, at(time.Duration(i)*time.Hour), Message{Type: 1, DedupID: "id"})
	}
	want(t, "ids", again.ids.len(), 1)
	stored := send(t, again, at(49*time.Hour), Message{Type: 1, DedupID: "id"})
	want(t, "duplicates", stored.Duplicates, []Duplicate{{0, 50}})
	consistent(t, again)
}

// Ids are also forgotten without a record of it: by a shorter window that was in force for a while.
func TestReplayKnowsIDByItsSecondMessage_S8(t *testing.T) {
	q, again := newQueue(nil), newQueue(nil)
	q.Emit = func(r *Record) {
		if err := again.Replay(r.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	m := Message{Type: 1, DedupID: "id"}
	send(t, q, at(0), Message{Type: 1, DedupID: "before"}, m)
	for _, window := range []time.Duration{time.Second, time.Hour} {
		s := q.settings
		s.DedupWindow = window
		q.Configure(at(time.Minute), s)
		q.Stats(at(time.Minute))
	}
	send(t, q, at(time.Minute), m)
	consistent(t, again)
	want(t, "replayed", dump(again, 0, 0), dump(q, 0, 0))
	want(t, "duplicates", send(t, again, at(time.Minute), m).Duplicates, []Duplicate{{0, 3}})
}

func FuzzDecodeRecord(f *testing.F) {
	records := sampleRecords(f)
	for _, b := range records {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { survives(t, records[:2], b) })
}
