package client

import (
	"context"
	"sync"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// consumeAnyBytes is what each queue of a ConsumeAny may have delivered at least, in bytes.
const consumeAnyBytes = 64 << 10

// ConsumeAny is Consume of several queues, up to 256, each named once. Concurrency is that of all together: a handler that
// becomes free takes from the queues in turn, of those that have something. Prefetch and MaxBytes are shared out among the
// queues, but each may have as many messages delivered as there are handlers.
//
// Should one of the queues be refused or deleted, all of it stops, as gracefully as at the end of ctx, and ConsumeAny
// returns that error.
func (c *Client) ConsumeAny(ctx context.Context, queues []string, h Handler, o ConsumeOptions) error {
	names, e := queueNames(queues)
	if e != nil {
		return e
	}
	if e := o.complete(); e != nil {
		return e
	}
	each := o
	each.Prefetch = max(o.Prefetch/len(names), o.Concurrency)
	each.MaxBytes = max(o.MaxBytes/len(names), min(consumeAnyBytes, o.MaxBytes))
	work := newBacklog()
	defer work.start(o.Concurrency, h)()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		all   sync.WaitGroup
		mu    sync.Mutex // guards first
		first error
	)
	for _, name := range names {
		one := &consumer{q: c.Queue(name), o: each, work: work.lineUp()}
		all.Go(func() {
			err := one.run(ctx)
			if err == nil {
				return
			}
			mu.Lock()
			if first == nil {
				first = err
			}
			mu.Unlock()
			stop()
		})
	}
	all.Wait()
	return first
}

// queueNames checks the names of several queues and adds their slashes.
func queueNames(queues []string) ([]string, *Error) {
	if len(queues) == 0 || len(queues) > limits.ReceiveQueues {
		return nil, newError(reason.InvalidArgument, "%d queues: name 1 to %d", len(queues), limits.ReceiveQueues)
	}
	names, seen := make([]string, len(queues)), make(map[string]bool, len(queues))
	for i, queue := range queues {
		names[i] = queueName(queue)
		if seen[names[i]] {
			return nil, newError(reason.InvalidArgument, "queue %q is named twice: name each once", names[i])
		}
		seen[names[i]] = true
	}
	return names, nil
}
