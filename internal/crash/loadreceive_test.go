//go:build linux

package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/checker"
)

// receiveWait is how long one receive waits. A receive that spans a crash tells less.
const receiveWait = 50 * time.Millisecond

func trimmed(s string) string { return strings.TrimSpace(s) }

// choose says what becomes of a delivery: most are acked.
func choose(rng *rand.Rand) checker.Settlement {
	switch rng.IntN(20) {
	case 0, 1:
		return checker.Nack
	case 2:
		return checker.Release
	}
	return checker.Ack
}

// consume runs a Consume until receivers end. handle gets each delivery together with a moment before it was
// made.
func (l *Load) consume(c *client.Client, queue string, o client.ConsumeOptions, handle func(context.Context, *client.Delivery, checker.Mark) error) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	go func() {
		select {
		case <-l.receiving:
			cancel()
		case <-ctx.Done():
		}
	}()
	var since atomic.Pointer[checker.Mark]
	note := func(m checker.Mark) { since.Store(&m) }
	note(l.checker.Mark())
	o.OnReconnect = func(error) { note(l.checker.Broken()) }
	for ctx.Err() == nil {
		err := c.Queue(queue).Consume(ctx, func(ctx context.Context, d *client.Delivery) error {
			opened := *since.Load()
			if ctx.Err() != nil {
				opened = checker.Mark{} // of a stream that is over: there is no telling when it was opened
			}
			return handle(ctx, d, opened)
		}, o)
		if err != nil && !transient(err) {
			l.fail("consume "+queue, err)
			return
		}
		note(l.checker.Broken())
		if err != nil {
			pause(l.receiving, 20*time.Millisecond)
		}
	}
}

// streamConsumer settles each delivery by itself, one at a time.
func (l *Load) streamConsumer(rng *rand.Rand, c *client.Client) {
	l.consume(c, streamQueue, client.ConsumeOptions{Prefetch: 64}, func(ctx context.Context, d *client.Delivery, since checker.Mark) error {
		record := l.delivered(d, since)
		kind := choose(rng)
		s := record.Settle(kind)
		err := settle(l.ctx, d, kind)
		if errors.Is(err, client.ErrStaleReceipt) && ctx.Err() != nil {
			s.Unknown() // the stream broke: the settlement may have gone through before
			return nil
		}
		l.settled(s, err)
		return nil
	})
}

// invoiceConsumer leaves settling to Consume, which tells nobody how it went.
func (l *Load) invoiceConsumer(_ *rand.Rand, c *client.Client) {
	l.consume(c, invoiceQueue, client.ConsumeOptions{Concurrency: 4, Prefetch: 64}, func(_ context.Context, d *client.Delivery, since checker.Mark) error {
		record := l.delivered(d, since)
		// In the same run of the daemon every message is nacked once in a while.
		if d.Sequence%16 == 0 && d.Attempts == 0 {
			record.Settle(checker.Nack).Unknown()
			return client.NackAfter(errors.New("not yet"), 0)
		}
		record.Settle(checker.Ack).Unknown()
		return nil
	})
}

func settle(ctx context.Context, d *client.Delivery, kind checker.Settlement) error {
	switch kind {
	case checker.Ack:
		return d.Ack(ctx)
	case checker.Nack:
		return d.Nack(ctx, 0, "try again")
	case checker.Release:
		return d.Release(ctx)
	}
	return fmt.Errorf("settlement %v", kind)
}

// receive asks for up to n messages and records them. none: there were none.
func (l *Load) receive(c *client.Client, queue string, n int) (deliveries []*client.Delivery, records []*checker.Delivery) {
	since := l.checker.Mark()
	deliveries, err := c.Queue(queue).Receive(l.ctx, n, client.ReceiveOptions{Wait: receiveWait})
	if err != nil {
		if !transient(err) {
			l.fail("receive from "+queue, err)
		}
		pause(l.receiving, 10*time.Millisecond)
	}
	for _, d := range deliveries {
		records = append(records, l.delivered(d, since))
	}
	return deliveries, records
}

// workReceiver receives a few messages at once and settles them one by one, or together.
func (l *Load) workReceiver(rng *rand.Rand, c *client.Client) {
	for !ended(l.receiving) {
		deliveries, records := l.receive(c, workQueue, 1+rng.IntN(16))
		if rng.IntN(2) == 0 {
			l.ackAll(c, deliveries, records)
			continue
		}
		for i, d := range deliveries {
			kind := choose(rng)
			s := records[i].Settle(kind)
			l.settled(s, settle(l.ctx, d, kind))
		}
	}
}

// ackAll acks deliveries in one call.
func (l *Load) ackAll(c *client.Client, deliveries []*client.Delivery, records []*checker.Delivery) {
	if len(deliveries) == 0 {
		return
	}
	all := make([]client.Settlement, len(deliveries))
	settling := make([]*checker.Settling, len(deliveries))
	for i, d := range deliveries {
		all[i] = client.Settlement{Receipt: d.Receipt, Outcome: client.OutcomeAck}
		settling[i] = records[i].Settle(checker.Ack)
	}
	err := c.Settle(l.ctx, all...)
	failed := map[int]error{}
	var some *client.SettleError
	if errors.As(err, &some) {
		for _, f := range some.Failures {
			failed[f.Index] = f
		}
		err = nil
	}
	for i, s := range settling {
		if err != nil {
			l.settled(s, err)
		} else {
			l.settled(s, failed[i])
		}
	}
}

// noteReceiver acks all it gets.
func (l *Load) noteReceiver(rng *rand.Rand, c *client.Client) {
	for !ended(l.receiving) {
		deliveries, records := l.receive(c, notesQueue, 1+rng.IntN(16))
		l.ackAll(c, deliveries, records)
	}
}

// transactor writes an invoice for every order, in the transaction that acks the order.
func (l *Load) transactor(rng *rand.Rand, c *client.Client) {
	for !ended(l.receiving) {
		orders, records := l.receive(c, ordersQueue, 1+rng.IntN(4))
		if len(orders) == 0 {
			continue
		}
		intents, messages := make([]checker.Message, len(orders)), make([]client.Message, len(orders))
		for i := range orders {
			intents[i], messages[i] = l.message(rng, invoiceQueue)
		}
		b := l.checker.Transact(intents, records)
		var done *client.Tx
		err := c.Transact(l.ctx, func(tx *client.Tx) error {
			tx.Send(invoiceQueue, messages...)
			tx.Ack(orders...)
			done = tx
			return nil
		})
		switch {
		case err == nil:
			b.Acked(outcomes(done.Stored()))
			continue
		case errors.Is(err, client.ErrOutcomeUnknown), errors.Is(err, client.ErrUnhealthy):
			b.Unknown()
			continue
		}
		b.Refused()
		if !transient(err) && !errors.Is(err, client.ErrStaleReceipt) && !errors.Is(err, client.ErrQueueFull) {
			l.fail("transact", err)
		}
		for i, d := range orders {
			l.settled(records[i].Settle(checker.Release), d.Release(l.ctx))
		}
	}
}
