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
	// By number, so that a walk over them can go on while they come and go; nil: vacant.
	table  []*producer
	vacant []int
	// All producers, the one that sent last at the end.
	oldest, newest *producer
	answers        int // of all producers
	duplicates     int // in all answers
}

type producer struct {
	id         string
	number     int      // in the table
	sentAt     int64    // of the last batch, wall time, ns
	sentIn     uint64   // the record of the last batch
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

// remember keeps the answer to a batch, from the record of that number, and forgets producers that were
// silent for too long, as admit does.
func (p *producers) remember(id string, batch uint64, stored Stored, record uint64) {
	before := stored.SentAt - limits.ProducerWindow.Nanoseconds()
	p.forget(before)
	known := p.know(id)
	if known.forgotten > 0 && batch <= known.forgotten { // in a replay: it had been forgotten altogether
		known.forgotten = 0
		p.deleteAnswers(known, func(a answer) bool { return a.stored.SentAt < before })
	}
	p.unlink(known)
	known.sentAt, known.sentIn = stored.SentAt, record
	p.link(known)
	p.put(known, batch, stored)
	p.trim(known)
}

// know returns the producer of that name, made if need be.
func (p *producers) know(id string) *producer {
	if known := p.byID[id]; known != nil {
		return known
	}
	if p.byID == nil {
		p.byID = map[string]*producer{}
	}
	x := &producer{id: id, number: len(p.table)}
	if last := len(p.vacant) - 1; last >= 0 {
		x.number = p.vacant[last]
		p.vacant = p.vacant[:last]
		p.table[x.number] = x
	} else {
		p.table = append(p.table, x)
	}
	p.byID[id] = x
	p.link(x)
	return x
}

// drop forgets a producer.
func (p *producers) drop(x *producer) {
	p.answers -= len(x.answers)
	for _, a := range x.answers {
		p.duplicates -= len(a.stored.Duplicates)
	}
	delete(p.byID, x.id)
	p.unlink(x)
	p.table[x.number] = nil
	p.vacant = append(p.vacant, x.number)
	if len(p.byID) == 0 {
		p.table, p.vacant = nil, nil
	}
}

// put adds an answer.
func (p *producers) put(x *producer, batch uint64, stored Stored) {
	i := sort.Search(len(x.answers), func(i int) bool { return x.answers[i].batch >= batch })
	p.duplicates += len(stored.Duplicates)
	if i < len(x.answers) && x.answers[i].batch == batch { // in a replay: it had been forgotten, or is a copy
		p.duplicates -= len(x.answers[i].stored.Duplicates)
		x.answers[i].stored = stored
		return
	}
	x.answers = slices.Insert(x.answers, i, answer{batch, stored})
	p.answers++
}

// trim forgets the lowest batches of a producer that has too many. Where many producers share the memory
// each keeps fewer: still more than it should have under way.
func (p *producers) trim(x *producer) {
	keep := limits.ProducerBatches
	if p.answers > limits.ProducerAnswers {
		keep = limits.ProducerBatchesMin
	}
	if surplus := len(x.answers) - keep; surplus > 0 {
		x.forgotten = max(x.forgotten, x.answers[surplus-1].batch)
		p.deleteAnswers(x, func(a answer) bool { return a.batch <= x.forgotten })
	}
}

func (p *producers) deleteAnswers(x *producer, which func(answer) bool) {
	p.answers -= len(x.answers)
	x.answers = slices.DeleteFunc(x.answers, func(a answer) bool {
		if which(a) {
			p.duplicates -= len(a.stored.Duplicates)
			return true
		}
		return false
	})
	p.answers += len(x.answers)
}

// forget drops producers that sent nothing since a time.
func (p *producers) forget(before int64) {
	for p.oldest != nil && p.oldest.sentAt < before {
		p.drop(p.oldest)
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
