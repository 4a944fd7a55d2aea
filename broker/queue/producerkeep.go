package queue

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/ipcd/ipcd/internal/limits"
)

// keptProducer is a producer with some of its answers.
type keptProducer struct {
	id        string
	sentAt    int64
	sentIn    uint64
	forgotten uint64
	answers   []answer
}

// producersPerEach bounds a record: the producers, answers and duplicates of one, unless it holds one producer.
const producersPerEach = 4096

// KeepProducers emits again the answers to producers that are still remembered and were given up to a wall
// time, about so many at most, from a place in the order of producers on: 0 is the first. It returns the place
// to go on from; more says that there are others. The time of a record it emits is not before any answer in
// it, though the clock was set back: the latest time of the records in a segment covers all answers there.
func (q *Queue) KeepProducers(now Instant, before int64, from, most int) (next int, more bool) {
	p := &q.producers
	p.forget(now.Wall - limits.ProducerWindow.Nanoseconds())
	r := &Record{kind: recProducers, At: now}
	weight, total := 0, 0
	for ; from < len(p.table) && total < most; from++ {
		if p.table[from] == nil {
			continue
		}
		k, w := p.table[from].keep(before)
		if w == 0 {
			continue
		}
		if weight += w; weight > producersPerEach && len(r.producers) > 0 {
			q.issue(r)
			r, weight = &Record{kind: recProducers, At: now}, w
		}
		r.producers = append(r.producers, k)
		for _, a := range k.answers {
			r.At.Wall = max(r.At.Wall, a.stored.SentAt)
		}
		total += w
	}
	if len(r.producers) > 0 {
		q.issue(r)
	}
	return from, from < len(p.table)
}

// keep returns what is to be kept of a producer, and how much it is: 0 if nothing.
func (x *producer) keep(before int64) (k keptProducer, weight int) {
	k = keptProducer{id: x.id, sentAt: x.sentAt, sentIn: x.sentIn, forgotten: x.forgotten}
	for _, a := range x.answers {
		if a.stored.SentAt <= before {
			k.answers = append(k.answers, a)
			weight += 1 + len(a.stored.Duplicates)
		}
	}
	if weight > 0 || k.forgotten > 0 {
		weight++
	}
	return k, weight
}

// learn takes over what a record says of a producer.
func (p *producers) learn(k *keptProducer) {
	x := p.know(k.id)
	x.sentAt, x.sentIn, x.forgotten = k.sentAt, k.sentIn, max(x.forgotten, k.forgotten)
	for _, a := range k.answers {
		p.put(x, a.batch, a.stored)
	}
	if x.forgotten > 0 {
		p.deleteAnswers(x, func(a answer) bool { return a.batch <= x.forgotten })
	}
	p.trim(x)
}

// settle puts the producers in the order in which they sent last.
func (p *producers) settle() {
	all := make([]*producer, 0, len(p.byID))
	for x := p.oldest; x != nil; x = x.next {
		all = append(all, x)
	}
	slices.SortStableFunc(all, func(a, b *producer) int { return cmp.Compare(a.sentIn, b.sentIn) })
	for _, x := range all {
		p.unlink(x)
		p.link(x)
	}
}

func appendProducers(b []byte, all []keptProducer) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for i := range all {
		k := &all[i]
		b = appendString(b, k.id)
		b = binary.AppendVarint(b, k.sentAt)
		b = binary.AppendUvarint(b, k.sentIn)
		b = binary.AppendUvarint(b, k.forgotten)
		b = binary.AppendUvarint(b, uint64(len(k.answers)))
		for _, a := range k.answers {
			b = binary.AppendUvarint(b, a.batch)
			b = binary.AppendUvarint(b, a.stored.First)
			b = binary.AppendUvarint(b, uint64(a.stored.Count))
			b = binary.AppendVarint(b, a.stored.SentAt)
			b = appendDuplicates(b, a.stored.Duplicates)
		}
	}
	return b
}

func (d *decoder) producers() (all []keptProducer) {
	const shortest, shortestAnswer = 5, 5
	for n := d.countOf(producersPerEach, shortest); n > 0 && d.err == nil; n-- {
		k := keptProducer{id: d.string(), sentAt: d.varint(), sentIn: d.uvarint(), forgotten: d.uvarint()}
		for n := d.countOf(limits.ProducerBatches, shortestAnswer); n > 0 && d.err == nil; n-- {
			k.answers = append(k.answers, answer{batch: d.uvarint(), stored: Stored{
				First: d.uvarint(), Count: d.count(limits.BatchMessages), SentAt: d.varint(), Duplicates: d.duplicates(),
			}})
		}
		all = append(all, k)
	}
	return all
}
