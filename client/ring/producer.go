//go:build linux

package ring

import (
	"context"
	"errors"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// ProducerOptions say how a Producer attaches and publishes.
type ProducerOptions struct {
	Attach  string            // the path of the daemon's attach socket; "" is DefaultAttach
	Untimed bool              // do not look at the clock for each message: messages carry no time
	Logger  func(line string) // told when the daemon goes away and comes back, and what the kernel lacks; nil: nobody. It must not block, nor close the handle.
}

// Producer publishes into a lane of its own. It is for one goroutine at a time, but for Close and Stats.
type Producer struct {
	writer *shm.Writer
	m      *membership
	full   *Error // what TryPublish returns without allocating
}

// NewProducer attaches to the ring and takes a lane in it. The lane's memory, the ring's capacity, is
// charged to this process's memory cgroup. The context is for attaching only. Errors are ErrNotFound,
// ErrDenied, ErrQuota, ErrUnreachable and others.
func NewProducer(ctx context.Context, name string, o ProducerOptions) (*Producer, error) {
	m, memory, members, err := join(ctx, request{name: name, attach: o.Attach, role: attach.Producer, logger: o.Logger})
	if err != nil {
		return nil, err
	}
	w := shm.NewWriter(shm.WriterConfig{
		Memory: memory, RingID: m.place.ringID, LaneID: m.place.id, Epoch: m.place.epoch, Slot: m.place.slot,
		Geometry: m.place.geometry, Lossless: m.place.lossless, Stall: m.place.stall, Untimed: o.Untimed,
		Pull: m.wantMembers,
	}, members)
	m.start(w)
	return &Producer{
		writer: w, m: m,
		full: newError(laneFull, "the lane is full of what a lossless consumer has not read yet").on(name),
	}, nil
}

// forever is what a Writer takes for a call that is never given up.
var forever context.Context

// Publish publishes a message. In an overwrite ring it never waits. In a lossless ring it waits while a
// lossless consumer has not read what would be overwritten, at most until that consumer is evicted.
// The payload is copied, and may be empty; the type is a positive number. Errors are ErrTooLarge,
// ErrInvalidArgument, and why the handle closed.
func (p *Producer) Publish(typ int64, payload []byte) error {
	err := p.writer.Publish(forever, typ, payload)
	if err != nil {
		return p.failed(err)
	}
	return nil
}

// PublishContext is Publish that waits no longer than the context: then it is ErrTimedOut or
// ErrCancelled, and nothing was published.
func (p *Producer) PublishContext(ctx context.Context, typ int64, payload []byte) error {
	err := p.writer.Publish(ctx, typ, payload)
	if err != nil {
		return p.failed(err)
	}
	return nil
}

// TryPublish is Publish that does not wait: where Publish would, it is ErrFull.
func (p *Producer) TryPublish(typ int64, payload []byte) error {
	err := p.writer.TryPublish(typ, payload)
	if err != nil {
		return p.failed(err)
	}
	return nil
}

// PublishParts publishes one message whose payload is all parts, one behind the other.
func (p *Producer) PublishParts(typ int64, parts ...[]byte) error {
	err := p.writer.PublishV(forever, typ, parts)
	if err != nil {
		return p.failed(err)
	}
	return nil
}

// PublishBatch publishes the messages in order, of which it uses Type and Payload, and looks only once
// whether consumers are to be woken. It returns how many were published, which is all of them unless
// there is an error.
func (p *Producer) PublishBatch(ctx context.Context, batch []Message) (int, error) {
	n, err := p.writer.PublishBatch(ctx, frames(batch))
	if err != nil {
		return n, p.failed(err)
	}
	return n, nil
}

// Claim returns room for a payload of up to size bytes in the lane itself, so that it need not be copied.
// Fill it, then call Commit or Abort, and nothing else of the producer between. It waits as
// PublishContext does. The room is not zeroed, and must not be touched after Commit, Abort or Close.
func (p *Producer) Claim(ctx context.Context, size int) ([]byte, error) {
	room, err := p.writer.Claim(ctx, size)
	if err != nil {
		return nil, p.failed(err)
	}
	return room, nil
}

// Commit publishes the first size bytes of what was claimed.
func (p *Producer) Commit(typ int64, size int) error {
	err := p.writer.Commit(typ, size)
	if err != nil {
		return p.failed(err)
	}
	return nil
}

// Abort gives back what was claimed. Nothing is published.
func (p *Producer) Abort() { p.writer.Abort() }

// MaxPayload returns the size in bytes of the largest payload that the ring takes.
func (p *Producer) MaxPayload() int { return p.m.place.geometry.MaxPayload() }

// Lane returns the id of the producer's lane, which is Message.Lane of what it publishes.
func (p *Producer) Lane() uint64 { return p.m.place.id }

// Sequence returns that of the message published last; 0 if there is none.
func (p *Producer) Sequence() uint64 { return p.writer.Sequence() }

// Lossless reports whether the ring's policy is lossless, so that Publish may wait.
func (p *Producer) Lossless() bool { return p.m.place.lossless }

// Close leaves the ring. What was published can still be read. It may be called at any time and more
// than once; a call that waits returns ErrClosed.
func (p *Producer) Close() error { return p.m.close() }

// failed turns what the writer returned into an Error.
func (p *Producer) failed(err error) error {
	if errors.Is(err, shm.ErrFull) {
		return p.full
	}
	e := p.m.dataError(err)
	if e.Reason == string(reason.MessageTooLarge) {
		e.Message += ": send less, or make the ring with a larger max message"
	}
	return e
}
