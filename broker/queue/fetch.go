package queue

import "errors"

// ErrMissing says that a settlement needs a payload that is not in memory. Nothing was changed. See Missing.
var ErrMissing = errors.New("the message's payload has to be read from the journal first")

// reasonDamaged is why messages without a readable payload are buried.
const reasonDamaged = "its payload can not be read from the journal"

const (
	fetchMessages = 512       // payloads asked for at a time, those that are read ahead included
	fetchBytes    = 512 << 10 // of their messages' charges, unless one is larger
	fetchMost     = 4096      // the same for payloads that are needed at once
	fetchMostSize = cacheBytes / 2
	fetchPending  = 4 * fetchMost
	cacheBytes    = 4 << 20 // of payloads that were read, unless one is larger
	cacheEntry    = 64      // what one takes besides
)

// fetcher knows the payloads that have to be read from the journal and, for a while, those that were.
type fetcher struct {
	missing      []Place // to be asked for
	missingBytes int
	pending      map[Place]pendingFetch // asked for; they have messages
	cache        map[Place][]byte       // they have messages
	cacheBytes   int
}

type pendingFetch struct {
	seq    uint64
	listed bool // in missing
}

// Missing returns the places of the payloads without which operations had to stop, and of some that will
// be needed next, and forgets them. The caller reads them, hands each to Fetched or Damaged, and tries
// the operations again. Until then the journal must not use the places for anything else.
func (q *Queue) Missing() []Place {
	f := &q.fetch
	places := f.missing[:0]
	for _, p := range f.missing {
		if asked, ok := f.pending[p]; ok && asked.listed { // its message did not go meanwhile
			asked.listed = false
			f.pending[p] = asked
			places = append(places, p)
		}
	}
	f.missing, f.missingBytes = nil, 0
	return places
}

// Fetched hands in a payload that was missing. The queue keeps the slice for a while. It is ignored if
// its message went meanwhile.
func (q *Queue) Fetched(p Place, payload []byte) {
	s := q.arrived(p)
	if s == nil {
		return
	}
	if !s.holds(len(payload)) {
		s.flags |= flagDamaged
		return
	}
	f := &q.fetch
	if _, known := f.cache[p]; known {
		return
	}
	if f.cacheBytes+len(payload)+cacheEntry > cacheBytes || f.cache == nil {
		f.cache, f.cacheBytes = map[Place][]byte{}, 0
	}
	f.cache[p] = payload
	f.cacheBytes += len(payload) + cacheEntry
}

// Damaged says that a payload that was missing can not be read. Its message will be buried where it would
// be handed out. It is ignored if the message went meanwhile.
func (q *Queue) Damaged(p Place) {
	if s := q.arrived(p); s != nil {
		s.flags |= flagDamaged
	}
}

// MarkDamaged says so of a message by its sequence, whether or not its payload was missing. One that is gone,
// or in memory, is left alone.
func (q *Queue) MarkDamaged(seq uint64) {
	if n := q.slots.find(seq); n != 0 {
		if s := q.slots.at(n); s.ref.onDisk() {
			s.flags |= flagDamaged
		}
	}
}

// arrived ends the wait for a payload and returns its message, nil if there is none any more.
func (q *Queue) arrived(p Place) *slot {
	q.resume()
	asked, ok := q.fetch.pending[p]
	if !ok {
		return nil
	}
	delete(q.fetch.pending, p)
	n := q.slots.find(asked.seq)
	if n == 0 {
		return nil
	}
	s := q.slots.at(n)
	if !s.ref.onDisk() || s.ref.place() != p {
		return nil
	}
	return s
}

// holds reports whether a payload may have so many bytes.
func (s *slot) holds(bytes int) bool {
	if s.flags&flagExtras == 0 {
		return bytes == s.ref.charge()
	}
	return bytes > s.ref.charge()
}

// payload returns a message's stored bytes, valid until the queue changes; ok is false if they are not in
// memory. Those of a damaged message are empty.
func (q *Queue) payload(s *slot) (_ []byte, ok bool) {
	if !s.ref.onDisk() {
		return q.payloads.load(s.ref), true
	}
	return q.fetched(s)
}

func (q *Queue) fetched(s *slot) ([]byte, bool) {
	if s.flags&flagExtras == 0 && s.ref.charge() == 0 {
		return nil, true // nothing is read to learn that
	}
	p := s.ref.place()
	if p == 0 {
		s.flags |= flagDamaged
	}
	if s.flags&flagDamaged != 0 {
		return nil, true
	}
	payload, ok := q.fetch.cache[p]
	return payload, ok
}

// want notes a payload that an operation stopped for, unless it is in memory.
func (q *Queue) want(s *slot) { q.fetch.ask(q, s, fetchMost, fetchMostSize) }

// wantAhead notes a payload that will be needed soon, unless it is in memory. It reports whether more may
// be noted.
func (q *Queue) wantAhead(s *slot) bool { return q.fetch.ask(q, s, fetchMessages, fetchBytes) }

// ask notes a payload, within limits for what is noted together. It reports whether the limits are not reached.
func (f *fetcher) ask(q *Queue, s *slot, messages, bytes int) bool {
	if _, ok := q.payload(s); ok {
		return true
	}
	p, charge := s.ref.place(), s.ref.charge()
	asked, known := f.pending[p]
	if known && asked.listed {
		return true
	}
	if len(f.missing) >= messages || len(f.missing) > 0 && charge > bytes-f.missingBytes {
		return false
	}
	if f.pending == nil || len(f.pending) >= fetchPending { // somebody does not hand in what was asked for
		f.pending = map[Place]pendingFetch{}
	}
	f.pending[p] = pendingFetch{seq: s.seq, listed: true}
	f.missing = append(f.missing, p)
	f.missingBytes += charge
	return true
}

// drop forgets a payload: its message went, or lies elsewhere now.
func (f *fetcher) drop(p Place) {
	if len(f.pending) > 0 {
		delete(f.pending, p)
	}
	if payload, ok := f.cache[p]; ok {
		delete(f.cache, p)
		f.cacheBytes -= len(payload) + cacheEntry
	}
}
