//go:build linux

package ringbench

import (
	"context"
	"fmt"
	"os"

	"github.com/ipcd/ipcd/internal/shm"
)

// direct is the ends of the two rings at one process, over internal/shm and without a daemon.
type direct struct {
	o       rigOptions
	writer  *shm.Writer
	reader  *shm.Reader
	ctx     context.Context
	payload []byte
	batch   []shm.Message
}

const batchMessages = 64

// directEnd maps both rings and adds what can be done with them.
func directEnd(o rigOptions, jobs map[string]job) error {
	out, in := fileLeft, fileRight
	if o.Right {
		out, in = in, out
	}
	geometry := shm.Geometry{Capacity: o.Capacity, MaxFrame: uint32(o.Capacity / 4)}
	lane := func(first int, writable bool) (*shm.Memory, error) {
		return mapped(inherited(first), shm.LaneSize(o.Capacity), writable)
	}
	pages := func(first int, writable bool) (*shm.Memory, error) {
		return mapped(inherited(first+1), shm.ConsumerSize, writable)
	}
	members := func(first int) (shm.Members, error) {
		m, err := mapped(inherited(first+2), shm.MembersSize, false)
		if err != nil {
			return shm.Members{}, err
		}
		return shm.Members{Epoch: 2, Page: shm.NewPage(m)}, nil
	}

	// The consumer joined at epoch 1, the lane at 2: so nothing is ever lost.
	var d direct
	own, err := lane(out, true)
	if err != nil {
		return err
	}
	theirs, err := pages(out, false)
	if err != nil {
		return err
	}
	m, err := members(out)
	if err != nil {
		return err
	}
	m.Consumers = []shm.ConsumerPeer{{ID: 1, Epoch: 1, Lossless: o.Lossless, Memory: theirs}}
	d.writer = shm.NewWriter(shm.WriterConfig{Memory: own, RingID: 1, LaneID: 2, Epoch: 2, Geometry: geometry, Lossless: o.Lossless, Stall: 10e9}, m)

	if theirs, err = lane(in, false); err != nil {
		return err
	}
	if own, err = pages(in, true); err != nil {
		return err
	}
	if m, err = members(in); err != nil {
		return err
	}
	m.Lanes = []shm.LanePeer{{ID: 2, Epoch: 2, Geometry: geometry, Lossless: o.Lossless, Memory: theirs}}
	d.reader = shm.NewReader(shm.ReaderConfig{Memory: own, RingID: 1, ConsumerID: 1, Epoch: 1, Lossless: o.Lossless}, m)

	d.o, d.ctx, d.payload, d.batch = o, context.Background(), make([]byte, o.PayloadBytes), make([]shm.Message, batchMessages)
	d.add(jobs)
	return nil
}

func mapped(f *os.File, size int64, writable bool) (*shm.Memory, error) {
	m, err := shm.Map(f, size, writable)
	if err == nil && writable {
		err = m.Populate()
	}
	return m, err
}

func (d *direct) add(jobs map[string]job) {
	jobs["publish"] = d.publish
	jobs["publish batches"] = d.publishBatches
	jobs["next"] = d.next
	jobs["next batches"] = d.nextBatches
	jobs["ask"] = d.ask
	jobs["answer"] = d.answer
	jobs["wait"] = d.wait
	addPaced(jobs, func() error { return d.writer.Publish(d.ctx, 1, d.payload) }, func() int64 { return int64(d.writer.Stats().Wakes) })
}

func (d *direct) publish(n int, ready func()) ([]int64, error) {
	ready()
	began := monotonic()
	for range n {
		if err := d.writer.Publish(d.ctx, 1, d.payload); err != nil {
			return nil, err
		}
	}
	return []int64{began}, nil
}

func (d *direct) publishBatches(n int, ready func()) ([]int64, error) {
	for i := range d.batch {
		d.batch[i] = shm.Message{Type: 1, Payload: d.payload}
	}
	ready()
	began := monotonic()
	for ; n > 0; n -= len(d.batch) {
		if _, err := d.writer.PublishBatch(d.ctx, d.batch[:min(n, len(d.batch))]); err != nil {
			return nil, err
		}
	}
	return []int64{began}, nil
}

func (d *direct) next(n int, ready func()) ([]int64, error) {
	ready()
	for range n {
		m, err := d.reader.Next(d.ctx)
		if err != nil {
			return nil, err
		}
		if m.Lost > 0 && d.o.Lossless {
			return nil, fmt.Errorf("%d messages are lost", m.Lost)
		}
	}
	return []int64{monotonic()}, nil
}

func (d *direct) nextBatches(n int, ready func()) ([]int64, error) {
	ready()
	for n > 0 {
		got, err := d.reader.NextBatch(d.ctx, d.batch[:min(n, len(d.batch))])
		if err != nil {
			return nil, err
		}
		n -= got
	}
	return []int64{monotonic()}, nil
}

func (d *direct) ask(n int, ready func()) ([]int64, error) {
	ready()
	began := monotonic()
	for range n {
		if err := d.writer.Publish(d.ctx, 1, d.payload); err != nil {
			return nil, err
		}
		if _, err := d.reader.Next(d.ctx); err != nil {
			return nil, err
		}
	}
	return []int64{monotonic() - began}, nil
}

func (d *direct) answer(n int, ready func()) ([]int64, error) {
	ready()
	for range n {
		if _, err := d.reader.Next(d.ctx); err != nil {
			return nil, err
		}
		if err := d.writer.Publish(d.ctx, 1, d.payload); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// wait waits n milliseconds for a message that does not come.
func (d *direct) wait(n int, ready func()) ([]int64, error) {
	return resting(n, ready, func(ctx context.Context) error {
		_, err := d.reader.Next(ctx)
		return err
	})
}
