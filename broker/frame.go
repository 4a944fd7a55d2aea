package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
)

// frame collects the records of one operation, which is held together by the locks of the queues it
// concerns: they are written together, and survive a crash together or not at all.
//
// Its metadata is items, each after the id of its queue (a varint) and its length (4 bytes): a record of
// that queue, or for id 0 something that concerns the broker.
type frame struct {
	journal.Frame
	queues  []*served // that have records in it
	spilled []spilled
}

// spilled is a message whose payload stays in the journal only.
type spilled struct {
	s      *served
	seq    uint64
	offset int // of the payload in the frame
}

// What an item of the broker's own says: its first byte.
const (
	itemDeleted = 1 // a queue's id
	itemBroker  = 2 // the highest id that was given to a queue
	itemStopped = 3 // a clean stop, and when: wall and monotonic time
	itemDamaged = 4 // a queue's id, and then why it is read-only
)

// add appends a queue's record.
func (f *frame) add(s *served, r *queue.Record) {
	f.join(s)
	f.Meta = binary.AppendUvarint(f.Meta, s.id)
	at := len(f.Meta)
	f.Meta = r.Append(append(f.Meta, 0, 0, 0, 0))
	binary.LittleEndian.PutUint32(f.Meta[at:], uint32(len(f.Meta)-at-4))
	first := len(f.spilled)
	r.EachPayload(func(head, body []byte) {
		offset := f.AddPayload(head, body)
		if s.spill || s.keeping {
			f.spilled = append(f.spilled, spilled{s: s, offset: offset})
		}
	})
	if added := f.spilled[first:]; len(added) > 0 {
		r.EachMessage(func(seq uint64, _ int) { added[0].seq, added = seq, added[1:] })
	}
	if s.keeping { // what is in memory stays there
		f.spilled = slices.DeleteFunc(f.spilled, func(p spilled) bool { return p.s == s && s.q.InMemory(p.seq) })
	}
}

func (f *frame) join(s *served) {
	for _, known := range f.queues {
		if known == s {
			return
		}
	}
	f.queues = append(f.queues, s)
}

// addOwn appends an item of the broker's own.
func (f *frame) addOwn(kind byte, values ...uint64) {
	f.Meta = append(f.Meta, 0)
	at := len(f.Meta)
	f.Meta = append(f.Meta, 0, 0, 0, 0, kind)
	for _, v := range values {
		f.Meta = binary.AppendUvarint(f.Meta, v)
	}
	binary.LittleEndian.PutUint32(f.Meta[at:], uint32(len(f.Meta)-at-4))
}

// addDamaged notes that a queue is read-only.
func (f *frame) addDamaged(id uint64, why string) {
	f.addOwn(itemDamaged, id)
	at := len(f.Meta)
	f.Meta = append(f.Meta, why...)
	start := at - len(binary.AppendUvarint(nil, id)) - 5
	binary.LittleEndian.PutUint32(f.Meta[start:], uint32(len(f.Meta)-start-4))
}

func (f *frame) reset() {
	f.Reset()
	clear(f.queues)
	f.queues = f.queues[:0]
	f.spilled = f.spilled[:0]
	if cap(f.spilled) > 1<<14 {
		f.spilled = nil
	}
}

var errItems = errors.New("a frame's items do not fill it")

// eachItem visits the items of a frame's metadata.
func eachItem(meta []byte, visit func(id uint64, item []byte) error) error {
	for len(meta) > 0 {
		id, n := binary.Uvarint(meta)
		if n <= 0 || len(meta) < n+4 {
			return errItems
		}
		size := binary.LittleEndian.Uint32(meta[n:])
		meta = meta[n+4:]
		if uint64(size) > uint64(len(meta)) {
			return errItems
		}
		if err := visit(id, meta[:size:size]); err != nil {
			return err
		}
		meta = meta[size:]
	}
	return nil
}

// ownItem reads an item of the broker's own. text is what follows its values.
func ownItem(item []byte) (kind byte, values [2]uint64, text []byte, err error) {
	counts := map[byte]int{itemDeleted: 1, itemBroker: 1, itemStopped: 2, itemDamaged: 1}
	if len(item) == 0 || counts[item[0]] == 0 {
		return 0, values, nil, fmt.Errorf("an item of unknown kind % x", item[:min(len(item), 8)])
	}
	rest := item[1:]
	for i := range counts[item[0]] {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, values, nil, errItems
		}
		values[i], rest = v, rest[n:]
	}
	return item[0], values, rest, nil
}
