package client

import (
	"context"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// BindOptions says what a bind hands on, and what becomes of a send where the destination cannot take its copy.
type BindOptions struct {
	Selector Selector // of what is handed on; zero: everything
	Skip     bool     // the destination goes without, and it is counted; else the send is refused as a whole
}

// Bind lets the queue hand on a copy of what is sent to it from now on, and returns the queue. A bind to that destination
// that is there already is changed. Queues that would hand on in a circle are refused with ErrBindCycle, and a
// destination in memory of a queue in the journal with ErrDurabilityMismatch.
func (q *Queue) Bind(ctx context.Context, destination string, o BindOptions) (QueueInfo, error) {
	bind := Bind{Destination: destination, Selector: o.Selector, Skip: o.Skip}
	r, err := q.c.admin.BindQueue(ctx, &ipcdv1.BindQueueRequest{Source: q.name, Bind: bind.proto()})
	if err != nil {
		return QueueInfo{}, q.c.rpcError(err, q.name)
	}
	return queueInfoOf(r.GetQueue()), nil
}

// Unbind ends a bind, and returns the queue. That there is none is no error.
func (q *Queue) Unbind(ctx context.Context, destination string) (QueueInfo, error) {
	r, err := q.c.admin.UnbindQueue(ctx, &ipcdv1.UnbindQueueRequest{Source: q.name, Destination: queueName(destination)})
	if err != nil {
		return QueueInfo{}, q.c.rpcError(err, q.name)
	}
	return queueInfoOf(r.GetQueue()), nil
}

// TypeNames returns the queue's names for types: 7 for "created", for instance.
func (q *Queue) TypeNames(ctx context.Context) (map[string]int64, error) {
	info, err := q.Info(ctx)
	return info.Settings.TypeNames, err
}

func (b *Bind) proto() *ipcdv1.Bind {
	p := &ipcdv1.Bind{Destination: queueName(b.Destination), Selector: b.Selector.proto(), Overflow: ipcdv1.BindOverflow_BIND_OVERFLOW_REFUSE}
	if b.Skip {
		p.Overflow = ipcdv1.BindOverflow_BIND_OVERFLOW_SKIP
	}
	return p
}

func bindsOf(binds []*ipcdv1.Bind) []Bind {
	var out []Bind
	for _, b := range binds {
		out = append(out, Bind{
			Destination: b.GetDestination(),
			Selector:    selectorOf(b.GetSelector()),
			Skip:        b.GetOverflow() == ipcdv1.BindOverflow_BIND_OVERFLOW_SKIP,
		})
	}
	return out
}
