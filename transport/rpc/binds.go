package rpc

import (
	"context"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func (s queueAdmin) BindQueue(ctx context.Context, r *ipcdv1.BindQueueRequest) (*ipcdv1.BindQueueResponse, error) {
	if r.Bind == nil {
		return nil, reason.Invalid("bind", "no bind: name a destination").On(r.Source)
	}
	bind, err := decodeBind("bind", r.Bind)
	if err != nil {
		return nil, onQueue(err, r.Source)
	}
	info, err := s.broker.Bind(ctx, callerFrom(ctx), r.Source, bind)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.BindQueueResponse{Queue: encodeQueue(info, s.now())}, nil
}

func (s queueAdmin) UnbindQueue(ctx context.Context, r *ipcdv1.UnbindQueueRequest) (*ipcdv1.UnbindQueueResponse, error) {
	info, err := s.broker.Unbind(ctx, callerFrom(ctx), r.Source, r.Destination)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.UnbindQueueResponse{Queue: encodeQueue(info, s.now())}, nil
}

// decodeBinds returns the binds of a queue's settings.
func decodeBinds(binds []*ipcdv1.Bind) ([]queue.Bind, error) {
	if len(binds) == 0 {
		return nil, nil
	}
	if len(binds) > limits.Binds {
		return nil, reason.Invalid("settings.binds", "%d binds: a queue may have %d", len(binds), limits.Binds)
	}
	out := make([]queue.Bind, len(binds))
	for i, b := range binds {
		var err error
		if out[i], err = decodeBind("settings.binds", b); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// decodeBind leaves it to the queue whether the destination's name is one.
func decodeBind(field string, b *ipcdv1.Bind) (queue.Bind, error) {
	out := queue.Bind{To: b.GetDestination()}
	var err error
	if out.Selector, err = decodeSelector(b.GetSelector()); err != nil {
		return out, reason.Invalid(field+".selector", "the bind to %.200q: %v", out.To, err)
	}
	switch b.GetOverflow() {
	case ipcdv1.BindOverflow_BIND_OVERFLOW_UNSPECIFIED, ipcdv1.BindOverflow_BIND_OVERFLOW_REFUSE:
	case ipcdv1.BindOverflow_BIND_OVERFLOW_SKIP:
		out.Skip = true
	default:
		return out, reason.Invalid(field+".overflow", "the bind to %.200q: overflow %d is not known: it may be REFUSE (1) or SKIP (2)", out.To, b.GetOverflow())
	}
	return out, nil
}

// encodeBinds sets every field.
func encodeBinds(binds []queue.Bind) []*ipcdv1.Bind {
	var out []*ipcdv1.Bind
	for _, b := range binds {
		overflow := ipcdv1.BindOverflow_BIND_OVERFLOW_REFUSE
		if b.Skip {
			overflow = ipcdv1.BindOverflow_BIND_OVERFLOW_SKIP
		}
		out = append(out, &ipcdv1.Bind{Destination: b.To, Selector: encodeSelector(b.Selector), Overflow: overflow})
	}
	return out
}

func encodeBindStatus(binds []broker.BindStatus) []*ipcdv1.BindStatus {
	var out []*ipcdv1.BindStatus
	for _, b := range binds {
		out = append(out, &ipcdv1.BindStatus{Destination: b.To, CopiedTotal: b.Copied, SkippedTotal: b.Skipped, Problem: b.Problem})
	}
	return out
}
