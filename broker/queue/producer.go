package queue

import (
	"slices"
	"sort"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// producers remembers the answers to the last batches of each producer, so that a batch which is
// repeated after a broken connection is stored once.
type producers struct {
	byID map[string]*producer
	// All producers, the one that sent last at the end.
	oldest, newest *producer
	answers        int // of all producers
	duplicates     int // in all answers
}

type producer struct {
	id         string
	sentAt     int64    // of the last batch, wall time, ns
	answers    []answer // by batch
	forgotten  uint64   // no batch up to this one is remembered
	prev, next *producer
}

type answer struct {
	batch  uint64
	stored Stored
}

// repeat returns the first answer to a batch that was stored before.
func (p *producers) repeat(id string, batch uint64) (Stored, bool, error) {
	known := p.byID[id]
	if known == nil {
		return Stored{}, false, nil
	}
	i := sort.Search(len(known.answers), func(i int) bool { return known.answers[i].batch >= batch })
	if i < len(known.answers) && known.answers[i].batch == batch {
		return known.answers[i].stored, true, nil
	}
	if known.forgotten > 0 && batch <= known.forgotten {
		return Stored{}, false, reason.New(reason.StaleBatch,
			"batch %d of producer %q is older than the last %d, which are remembered: whether it was stored is not known", batch, id, len(known.answers))
	}
	return Stored{}, false, nil
}

// admit says whether another answer, with so many duplicates, may be remembered now (wall time, ns).
func (p *producers) admit(id string, duplicates int, now int64) error {
	p.forget(now - limits.ProducerWindow.Nanoseconds())
	if p.duplicates+duplicates > limits.ProducerDuplicates {
		return reason.New(reason.QuotaExceeded,
			"the queue remembers %d duplicates in answers to producers and can take no more: wait %v or send without a producer id", limits.ProducerDuplicates, limits.ProducerWindow).Retry(limits.ProducerWindow)
	}
	if p.byID[id] == nil && len(p.byID) >= limits.Producers {
		return reason.New(reason.QuotaExceeded,
			"the queue remembers %d producers and can take no more: wait %v or use fewer producer ids", limits.Producers, limits.ProducerWindow).Retry(limits.ProducerWindow)
	}
	return nil
}

// remember keeps the answer to a batch and forgets producers that were silent for too long, as admit does.
func (p *producers) remember(id string, batch uint64, stored Stored) {
	p.forget(stored.SentAt - limits.ProducerWindow.Nanoseconds())
	known := p.byID[id]
	if known == nil {
		if p.byID == nil {
			p.byID = map[string]*producer{}
		}
		known = &producer{id: id}
		p.byID[id] = known
	} else {
		p.unlink(known)
	}
	known.sentAt = stored.SentAt
	p.link(known)
	i := sort.Search(len(known.answers), func(i int) bool { return known.answers[i].batch >= batch })
	p.duplicates += len(stored.Duplicates)
	if i < len(known.answers) && known.answers[i].batch == batch { // in a replay: it had been forgotten
		p.duplicates -= len(known.answers[i].stored.Duplicates)
		known.answers[i].stored = stored
		return
	}
	known.answers = slices.Insert(known.answers, i, answer{batch, stored})
	p.answers++
	// Where many producers share the memory each keeps fewer: still more than it should have under way.
	keep := limits.ProducerBatches
	if p.answers > limits.ProducerAnswers {
		keep = limits.ProducerBatchesMin
	}
	if surplus := len(known.answers) - keep; surplus > 0 {
		for _, a := range known.answers[:surplus] {
			p.duplicates -= len(a.stored.Duplicates)
		}
		known.forgotten = known.answers[surplus-1].batch
		known.answers = slices.Delete(known.answers, 0, surplus)
		p.answers -= surplus
	}
}

// forget drops producers that sent nothing since a time.
func (p *producers) forget(before int64) {
	for p.oldest != nil && p.oldest.sentAt < before {
		p.answers -= len(p.oldest.answers)
		for _, a := range p.oldest.answers {
			p.duplicates -= len(a.stored.Duplicates)
		}
		delete(p.byID, p.oldest.id)
		p.unlink(p.oldest)
	}
}

func (p *producers) link(x *producer) {
	x.prev, x.next = p.newest, nil
	if p.newest != nil {
		p.newest.next = x
	} else {
		p.oldest = x
	}
	p.newest = x
}

func (p *producers) unlink(x *producer) {
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		p.oldest = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	} else {
		p.newest = x.prev
	}
	x.prev, x.next = nil, nil
}
