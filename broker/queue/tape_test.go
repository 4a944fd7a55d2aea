package queue

import (
	"bytes"
	"fmt"
	"slices"
)

// tape stands for the journal of one queue: the encoded records in segments, and the payloads by place.
type tape struct {
	q        *Queue
	segments []*tapeSegment // oldest first
	payloads map[Place][]byte
	last     Place
	damaged  map[Place]bool
	fetches  int
}

type tapeSegment struct {
	gen     uint64
	newest  int64 // wall time
	records []tapeRecord
}

type tapeRecord struct {
	meta   []byte
	places []Place
}

// newTape records all that the queue emits from now on, beginning with the queue itself.
func newTape(q *Queue, now Instant) *tape {
	t := &tape{payloads: map[Place][]byte{}, damaged: map[Place]bool{}}
	t.segments = []*tapeSegment{{gen: 1}}
	t.attach(q)
	q.KeepBase(now)
	return t
}

func (t *tape) attach(q *Queue) {
	t.q = q
	q.Emit = t.write
}

// write is what the broker does with a record.
func (t *tape) write(r *Record) {
	seg := t.segments[len(t.segments)-1]
	rec := tapeRecord{meta: r.Append(nil)}
	var sizes []int
	r.EachPayload(func(head, body []byte) {
		t.last++
		rec.places = append(rec.places, t.last)
		t.payloads[t.last] = slices.Concat(head, body)
		sizes = append(sizes, len(head)+len(body))
	})
	seg.records = append(seg.records, rec)
	seg.newest = max(seg.newest, r.At.Wall)
	places := rec.places
	r.EachMessage(func(seq uint64, _ int) {
		if r.spill || r.kind == recKeep && !t.q.InMemory(seq) {
			t.q.SetPlace(seq, places[0])
		}
		places = places[1:]
	})
	t.q.Stamp(seg.gen)
	again, err := DecodeRecord(rec.meta)
	if err != nil {
		panic(err)
	}
	if b := again.Append(nil); !bytes.Equal(b, rec.meta) {
		panic(fmt.Sprintf("%x is written again as %x", rec.meta, b))
	}
	RecordPayloads(again, func(size int) {
		if len(sizes) == 0 || sizes[0] != size {
			panic(fmt.Sprintf("a payload of %d bytes; it should be %v", size, sizes))
		}
		sizes = sizes[1:]
	})
	if len(sizes) > 0 {
		panic("payloads that the record does not name")
	}
}

// rotate begins a new segment.
func (t *tape) rotate() {
	t.segments = append(t.segments, &tapeSegment{gen: t.segments[len(t.segments)-1].gen + 1})
}

// free gives up the oldest segment, after copying forward what is needed of it, few at a time.
func (t *tape) free(now Instant, few int) {
	if len(t.segments) == 1 {
		t.rotate()
	}
	seg := t.segments[0]
	for _, rec := range seg.records {
		r, err := DecodeRecord(rec.meta)
		if err != nil {
			panic(err)
		}
		var seqs []uint64
		var places []Place
		i := 0
		r.EachMessage(func(seq uint64, _ int) {
			if t.q.Live(seq) {
				seqs, places = append(seqs, seq), append(places, rec.places[i])
			}
			i++
		})
		for len(seqs) > 0 {
			n := min(few, len(seqs))
			t.q.Keep(now, seqs[:n], func(i int) ([]byte, []byte) {
				payload, ok := t.q.Payload(seqs[i])
				if !ok {
					payload = t.payloads[places[i]]
				}
				return payload[:len(payload)/3], payload[len(payload)/3:]
			})
			seqs, places = seqs[n:], places[n:]
		}
	}
	t.q.KeepBase(now)
	for t.q.KeepSchemas(now, seg.gen) {
	}
	for t.q.KeepIDs(now, seg.gen, few) {
	}
	for from, more := 0, true; more; {
		from, more = t.q.KeepProducers(now, seg.newest, from, few)
	}
	for _, rec := range seg.records {
		for _, p := range rec.places {
			delete(t.payloads, p)
		}
	}
	t.segments = t.segments[1:]
}

// fetch reads what the queue misses, and reports whether that was anything.
func (t *tape) fetch() bool {
	if t == nil {
		return false
	}
	missing := t.q.Missing()
	for _, p := range missing {
		payload, ok := t.payloads[p]
		if !ok {
			panic(fmt.Sprintf("a payload is missing at place %d, where there is none", p))
		}
		t.fetches++
		if t.damaged[p] {
			t.q.Damaged(p)
		} else {
			t.q.Fetched(p, bytes.Clone(payload))
		}
	}
	return len(missing) > 0
}

// load replays all segments into a new queue and finishes it. Some records come twice.
func (t *tape) load() (*Queue, error) {
	q := NewLoading(t.q.id)
	for _, seg := range t.segments {
		for i, rec := range seg.records {
			for range 1 + i%2 {
				if err := replayRecord(q, rec); err != nil {
					return nil, err
				}
				q.Stamp(seg.gen)
			}
		}
	}
	return q, q.Finish()
}

func replayRecord(q *Queue, rec tapeRecord) error {
	r, err := DecodeRecord(rec.meta)
	if err != nil {
		return err
	}
	places := rec.places
	err = q.Replay(r, func(size int) Place {
		p := places[0]
		places = places[1:]
		return p
	})
	if err == nil && len(places) > 0 {
		return fmt.Errorf("record %d: %d payloads were not asked for", r.Number, len(places))
	}
	return err
}

// loaded is the queue as its records have it.
func (t *tape) loaded(f interface{ Fatal(...any) }) *Queue {
	q, err := t.load()
	if err != nil {
		f.Fatal(err)
	}
	return q
}
