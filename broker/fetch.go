package broker

import (
	"errors"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
)

func placeOf(p journal.Position) queue.Place { return queue.Place(p) }

// wanted is payloads that an operation missed in memory. Until they are read no segment is overwritten.
type wanted struct {
	places  []journal.Position
	release func()
}

// missingLocked returns what the operation at hand missed, nil if nothing. Whoever gets it calls fetch.
func (s *served) missingLocked() *wanted {
	if !s.durable {
		return nil
	}
	missing := s.q.Missing()
	if len(missing) == 0 {
		return nil
	}
	w := &wanted{places: make([]journal.Position, len(missing)), release: s.b.journal.Hold()}
	for i, p := range missing {
		w.places[i] = journal.Position(p)
	}
	return w
}

// fetch reads payloads back from the journal and hands them to the queue. The lock is not held.
func (s *served) fetch(w *wanted) {
	payloads := make([][]byte, len(w.places))
	err := s.b.journal.ReadPayloads(w.places, func(i int, payload []byte) { payloads[i] = payload })
	w.release()
	s.mu.Lock()
	for i, p := range payloads {
		if p != nil {
			s.q.Fetched(queue.Place(w.places[i]), p)
		}
	}
	s.mu.Unlock()
	if err != nil {
		s.unreadable(err)
	}
}

// fetchAsideLocked fetches what serving those who wait has missed, and serves them then.
func (s *served) fetchAsideLocked() {
	if s.fetching || s.closed || s.deleted {
		return
	}
	w := s.missingLocked()
	if w == nil {
		return
	}
	s.fetching = true
	s.b.running.Go(func() {
		s.fetch(w)
		s.mu.Lock()
		s.fetching = false
		s.afterLocked(s.b.now())
		s.mu.Unlock()
	})
}

// unreadable deals with a payload that is there no more.
func (s *served) unreadable(err error) {
	var bad *journal.PayloadError
	if !errors.As(err, &bad) {
		s.b.fail(err)
		return
	}
	if !s.b.quarantine && s.damaged.Load() == nil {
		s.b.fail(DamageError{err, []string{s.name}})
		return
	}
	s.mu.Lock()
	s.damageLocked(err.Error())
	s.q.Damaged(queue.Place(bad.Position))
	s.flushLocked()
	s.mu.Unlock()
}

// damageLocked makes the queue read-only.
func (s *served) damageLocked(why string) {
	if s.damaged.CompareAndSwap(nil, &why) {
		s.b.log.Error("the queue is read-only: the journal is damaged", zap.String("queue", s.name), zap.String("damage", why))
		s.endWaitersLocked(damagedError(s))
		for c := range s.consumers {
			c.failLocked(damagedError(s))
		}
		s.frameLocked().addDamaged(s.id, why) // it stays so
	}
}
