package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// InspectOptions says which journal is inspected, and how thoroughly.
type InspectOptions struct {
	FS  vfs.FS
	Dir string
	// Verify reads and checks everything, payloads and indexes too, instead of what tells the queues' state.
	Verify bool
	// Progress, if not nil, is told how many bytes are read, of how many.
	Progress func(done, total int64)
}

// Inspection is what a journal holds. Nothing was written to read it. It is not safe for concurrent use.
type Inspection struct {
	Segments int
	Bytes    int64 // of records in them
	Frames   int64
	Damage   []DamageFound
	Queues   []Info // by name
	// Quarantined tells by queue why it has been read-only since a daemon accepted damage.
	Quarantined map[string]string
	CleanStop   bool          // the daemon stopped cleanly at last
	At          queue.Instant // of the last record, on the clocks of the daemon that wrote it; zero: there is none

	byName    map[string]*queue.Queue
	concerned []string // queues that may have lost something
	journal   *journal.Info
}

// Inspect reads a journal that nobody writes meanwhile. Damage is no error: what is left is there, and
// DamageError tells.
func Inspect(ctx context.Context, o InspectOptions) (*Inspection, error) {
	i := &Inspection{Quarantined: map[string]string{}, byName: map[string]*queue.Queue{}}
	loading := newLoader()
	damage := loading.damages
	var last []byte // metadata of the last frame that begins with a queue's record
	info, err := journal.Scan(o.FS, o.Dir, journal.ScanOptions{Verify: o.Verify, Progress: o.Progress}, func(e journal.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(e.Meta) > 0 && e.Meta[0] != 0 {
			last = append(last[:0], e.Meta...)
		}
		if err := loading.replay(e); err != nil {
			damage.add(journal.Damage{Generation: e.Generation, Reason: err.Error()}, slices.Collect(maps.Keys(loading.touched))...)
		}
		return nil
	}, func(d journal.Damage) { damage.add(d) })
	if err != nil {
		return nil, err
	}
	i.journal, i.Segments, i.Frames = info, len(info.Segments), info.Frames
	for _, s := range info.Segments {
		i.Bytes += s.Bytes
	}
	i.At, i.CleanStop = lastInstant(last), loading.stopped
	if loading.stopped {
		i.At = loading.stoppedAt
	}
	i.adopt(loading, damage)
	return i, nil
}

// lastInstant is the time of the last record in a frame.
func lastInstant(meta []byte) (at queue.Instant) {
	_ = eachItem(meta, func(id uint64, item []byte) error {
		if id == 0 {
			return nil
		}
		r, err := queue.DecodeRecord(item)
		if err == nil {
			at = r.At
		}
		return err
	})
	return at
}

// adopt takes over what was replayed. A queue that can not be completed is damage like any other.
func (i *Inspection) adopt(l *loader, damage *damages) {
	whole := map[uint64]*queue.Queue{}
	for _, id := range slices.Sorted(maps.Keys(l.queues)) {
		q := l.queues[id]
		err := q.Finish()
		if err == nil && i.byName[q.Name()] != nil {
			err = fmt.Errorf("another one is called %s too", q.Name())
		}
		if err != nil {
			damage.add(journal.Damage{Reason: fmt.Sprintf("queue %d: %v", id, err)}, id)
			continue
		}
		whole[id], i.byName[q.Name()] = q, q
		if why := l.quarantined[id]; why != "" {
			i.Quarantined[q.Name()] = why
		}
		i.Queues = append(i.Queues, Info{
			Name: q.Name(), ID: id, Settings: *q.Settings(), Paused: q.Paused(), CreatedAt: q.CreatedAt,
			Stats: Stats{Stats: q.Stats(i.At)}, Schema: q.SchemaVersion(),
		})
	}
	slices.SortFunc(i.Queues, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	i.Damage, i.concerned = damage.finish(whole)
}

// DamageError is all damage that was found, nil if none was. Peek may find more.
func (i *Inspection) DamageError() *DamageError {
	if len(i.Damage) == 0 {
		return nil
	}
	all := make([]string, len(i.Damage))
	for n, d := range i.Damage {
		all[n] = d.String()
		if d.File == "" && d.Generation == 0 { // of a queue, not of a place
			all[n] = d.Reason
		}
	}
	return &DamageError{Err: errors.New(strings.Join(all, "; ")), Queues: i.concerned}
}

// Peek shows a page of messages, as Broker.Peek does. A message whose payload can not be read is shown
// without body, and is damage.
func (i *Inspection) Peek(ctx context.Context, r PeekRequest) (PeekPage, error) {
	q := i.byName[r.Queue]
	if q == nil {
		return PeekPage{}, notInJournal(r.Queue)
	}
	if r.Max <= 0 || r.Max > limits.PeekPage {
		r.Max = limits.PeekPage
	}
	p, err := queue.NewPeeker(r.Filter, r.Max, r.MaxBody, r.BySequence, r.Cursor)
	if err != nil {
		return PeekPage{}, err
	}
	for !p.Step(q, i.At) {
		if err := ctx.Err(); err != nil {
			return PeekPage{}, err
		}
		if err := i.fetch(q); err != nil {
			return PeekPage{}, err
		}
	}
	return PeekPage{Messages: p.Page, Cursor: p.Cursor(), Last: p.Last()}, nil
}

// fetch reads the payloads that the queue has missed. Those that can not be read are damage.
func (i *Inspection) fetch(q *queue.Queue) error {
	places := q.Missing()
	for len(places) > 0 {
		at := make([]journal.Position, len(places))
		for n, p := range places {
			at[n] = journal.Position(p)
		}
		read := make(map[queue.Place]bool, len(places))
		err := i.journal.ReadPayloads(at, func(n int, payload []byte) {
			q.Fetched(places[n], payload)
			read[places[n]] = true
		})
		if err == nil {
			return nil
		}
		var bad *journal.PayloadError // the first; there may be more
		if !errors.As(err, &bad) {
			return err
		}
		i.Damage = append(i.Damage, DamageFound{
			Damage: journal.Damage{File: bad.File, Offset: bad.Offset, Reason: err.Error()}, Queues: []string{q.Name()},
		})
		if !slices.Contains(i.concerned, q.Name()) {
			i.concerned = append(i.concerned, q.Name())
		}
		read[queue.Place(bad.Position)] = true
		q.Damaged(queue.Place(bad.Position))
		places = slices.DeleteFunc(places, func(p queue.Place) bool { return read[p] })
	}
	return nil
}

func notInJournal(name string) error {
	return reason.New(reason.QueueNotFound, "there is no such queue in the journal: ipcd ls lists them").On(name)
}
