//go:build linux

package ring

import (
	"context"
	"errors"
	"iter"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// ConsumerOptions say how a Consumer attaches and what it reads.
type ConsumerOptions struct {
	Attach   string            // the path of the daemon's attach socket; "" is DefaultAttach
	From     Position          // where to start; the zero value is Newest
	Types    []int64           // read only messages of these types, at most 1024; none stands for all
	Lossless bool              // make producers wait for this consumer; the ring's policy must be lossless, and it takes access to write
	Logger   func(line string) // told when the daemon goes away and comes back, and what the kernel lacks; nil: nobody. It must not block, nor close the handle.
}

// Consumer reads all lanes of a ring. It is for one goroutine at a time, but for Close and Stats.
type Consumer struct {
	reader *shm.Reader
	m      *membership
	// busy is true during a call. It is not atomic, which would cost as much as the rest of a call: it is
	// for noticing most mistakes, and makes the race detector notice all.
	busy bool
}

// errTwoAtOnce is what the second of two goroutines in one consumer gets.
var errTwoAtOnce = newError(reason.InvalidArgument, "two goroutines use one consumer at once: give each its own")

// NewConsumer attaches to the ring as a consumer of it. The context is for attaching only. Errors are
// ErrNotFound, ErrDenied, ErrQuota, ErrUnreachable, ErrInvalidArgument and others.
func NewConsumer(ctx context.Context, name string, o ConsumerOptions) (*Consumer, error) {
	if err := checkTypes(o.Types); err != nil {
		return nil, err.on(name)
	}
	m, memory, members, err := join(ctx, request{name: name, attach: o.Attach, role: attach.Consumer, lossless: o.Lossless, logger: o.Logger})
	if err != nil {
		return nil, err
	}
	r := shm.NewReader(shm.ReaderConfig{
		Memory: memory, RingID: m.place.ringID, ConsumerID: m.place.id, Epoch: m.joined, Slot: m.place.slot,
		Lossless: m.place.lossless, Start: o.From.start(), Types: shm.Types(o.Types), Pull: m.wantMembers,
	}, members)
	m.start(r)
	return &Consumer{reader: r, m: m}, nil
}

// Next returns the next message, and waits for one if there is none. The payload is valid until the
// next call. After ErrEvicted and ErrCorrupt, which come once for a lane, reading goes on. Other errors
// are ErrTimedOut and ErrCancelled, of the context, and why the handle closed.
func (c *Consumer) Next(ctx context.Context) (m Message, err error) {
	if c.busy {
		return m, errTwoAtOnce
	}
	c.busy = true
	from, err := c.reader.Next(ctx)
	c.busy = false
	if err != nil {
		return m, c.m.dataError(err)
	}
	// Field by field, as they were just stored: the processor stalls when what was stored in words of 8
	// bytes is loaded in words of 16, as copies of whole structs do.
	m.Type = from.Type
	m.Time = from.Time
	m.Lane = from.Lane
	m.Sequence = from.Sequence
	m.Lost = from.Lost
	m.Payload = from.Payload
	return m, nil
}

// TryNext is Next that does not wait: it reports whether there was a message.
func (c *Consumer) TryNext() (Message, bool, error) {
	if c.busy {
		return Message{}, false, errTwoAtOnce
	}
	c.busy = true
	m, ok, err := c.reader.TryNext()
	c.busy = false
	if err != nil {
		return Message{}, false, c.m.dataError(err)
	}
	return Message(m), ok, nil
}

// NextBatch fills into with what is there, at least one message, for which it waits, and returns how
// many it were. The payloads are valid until the next call. Errors are those of Next.
func (c *Consumer) NextBatch(ctx context.Context, into []Message) (int, error) {
	if c.busy {
		return 0, errTwoAtOnce
	}
	c.busy = true
	n, err := c.reader.NextBatch(ctx, frames(into))
	c.busy = false
	if err != nil {
		return n, c.m.dataError(err)
	}
	return n, nil
}

// Messages returns an iterator over what comes. It ends after an error, which it yields last, but for
// ErrEvicted and ErrCorrupt, after which it goes on. A payload is valid until the iteration goes on.
func (c *Consumer) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := c.Next(ctx)
			if !yield(m, err) || err != nil && !errors.Is(err, ErrEvicted) && !errors.Is(err, ErrCorrupt) {
				return
			}
		}
	}
}

// View is a message whose payload lies in the lane itself. In an overwrite ring the producer may
// overwrite it at any time, also while it is looked at: copy a length or an offset in it before checking
// it. Use the payload, then ask Valid.
type View struct {
	Message
	view shm.View
}

// Valid reports whether the payload was still in place just now, so that all that was read of it before
// is right. If it is false, throw away what was made of it.
func (v *View) Valid() bool { return v.view.Valid() }

// View is Next without copying the payload.
func (c *Consumer) View(ctx context.Context) (View, error) {
	if c.busy {
		return View{}, errTwoAtOnce
	}
	c.busy = true
	v, err := c.reader.View(ctx)
	c.busy = false
	if err != nil {
		return View{}, c.m.dataError(err)
	}
	return View{Message: Message(v.Message), view: v}, nil
}

// Close leaves the ring. It may be called at any time and more than once; a call that waits returns
// ErrClosed. The payload of a View must not be touched any more.
func (c *Consumer) Close() error { return c.m.close() }
