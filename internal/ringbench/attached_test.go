//go:build linux

package ringbench

import (
	"context"
	"fmt"

	"github.com/ipcd/ipcd/client/ring"
)

// attached is the ends of the two rings at one process, through the SDK and a daemon. The loops are those of direct: a
// common one would call through an interface, which takes a tenth of the time of a publish.
type attached struct {
	o        rigOptions
	producer *ring.Producer
	consumer *ring.Consumer
	ctx      context.Context
	payload  []byte
	batch    []ring.Message
}

// attachEnd joins both rings and adds what can be done with them. The consumer comes first, and its ring has no lane before.
func attachEnd(o rigOptions, jobs map[string]job) error {
	out, in := "/left", "/right"
	if o.Right {
		out, in = in, out
	}
	d := attached{o: o, ctx: context.Background(), payload: make([]byte, o.PayloadBytes), batch: make([]ring.Message, batchMessages)}
	var err error
	if d.consumer, err = ring.NewConsumer(d.ctx, in, ring.ConsumerOptions{Attach: o.Attach, Lossless: o.Lossless}); err != nil {
		return err
	}
	if d.producer, err = ring.NewProducer(d.ctx, out, ring.ProducerOptions{Attach: o.Attach}); err != nil {
		return err
	}
	d.add(jobs)
	return nil
}

func (d *attached) add(jobs map[string]job) {
	jobs["publish"] = d.publish
	jobs["publish batches"] = d.publishBatches
	jobs["next"] = d.next
	jobs["next batches"] = d.nextBatches
	jobs["ask"] = d.ask
	jobs["answer"] = d.answer
	jobs["wait"] = d.wait
	addPaced(jobs, func() error { return d.producer.Publish(1, d.payload) }, func() int64 { return int64(d.producer.Stats().Wakes) })
}

func (d *attached) publish(n int, ready func()) ([]int64, error) {
	ready()
	began := monotonic()
	for range n {
		if err := d.producer.Publish(1, d.payload); err != nil {
			return nil, err
		}
	}
	return []int64{began}, nil
}

func (d *attached) publishBatches(n int, ready func()) ([]int64, error) {
	for i := range d.batch {
		d.batch[i] = ring.Message{Type: 1, Payload: d.payload}
	}
	ready()
	began := monotonic()
	for ; n > 0; n -= len(d.batch) {
		if _, err := d.producer.PublishBatch(d.ctx, d.batch[:min(n, len(d.batch))]); err != nil {
			return nil, err
		}
	}
	return []int64{began}, nil
}

func (d *attached) next(n int, ready func()) ([]int64, error) {
	ready()
	for range n {
		m, err := d.consumer.Next(d.ctx)
		if err != nil {
			return nil, err
		}
		if m.Lost > 0 && d.o.Lossless {
			return nil, fmt.Errorf("%d messages are lost", m.Lost)
		}
	}
	return []int64{monotonic()}, nil
}

func (d *attached) nextBatches(n int, ready func()) ([]int64, error) {
	ready()
	for n > 0 {
		got, err := d.consumer.NextBatch(d.ctx, d.batch[:min(n, len(d.batch))])
		if err != nil {
			return nil, err
		}
		n -= got
	}
	return []int64{monotonic()}, nil
}

func (d *attached) ask(n int, ready func()) ([]int64, error) {
	ready()
	began := monotonic()
	for range n {
		if err := d.producer.Publish(1, d.payload); err != nil {
			return nil, err
		}
		if _, err := d.consumer.Next(d.ctx); err != nil {
			return nil, err
		}
	}
	return []int64{monotonic() - began}, nil
}

func (d *attached) answer(n int, ready func()) ([]int64, error) {
	ready()
	for range n {
		if _, err := d.consumer.Next(d.ctx); err != nil {
			return nil, err
		}
		if err := d.producer.Publish(1, d.payload); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// wait waits n milliseconds for a message that does not come.
func (d *attached) wait(n int, ready func()) ([]int64, error) {
	return resting(n, ready, func(ctx context.Context) error {
		_, err := d.consumer.Next(ctx)
		return err
	})
}
