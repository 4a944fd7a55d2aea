package shm

import (
	"context"
	"sync/atomic"
)

// View is a message that stands in the producer's memory. It may be overwritten at any time: only if Valid
// reports true after its payload was used, was that payload the message's. Payload may change while it is looked at: a length or an
// offset in it must be copied before it is checked.
type View struct {
	Message
	oldest   *atomic.Uint64
	fence    *atomic.Uint64
	position uint64
}

// Valid reports whether the payload has not been overwritten so far. It must not be called after the Reader's next
// call.
func (v View) Valid() bool {
	fenceBeforeRecheck(v.fence)
	return v.oldest.Load() <= v.position
}

// View is Next without a copy: the payload is the producer's memory, until the next call of the Reader. A producer
// that waits for this consumer does not overwrite it before that.
func (r *Reader) View(ctx context.Context) (View, error) {
	r.rest = nil // the lane's cursor is behind what was handed out, not behind what was copied
	r.borrowing = true
	defer func() { r.borrowing = false }()
	for passes := 1; ; passes++ {
		if passes%(chunkBytes/FrameHeader) == 0 && ctx != nil && ctx.Err() != nil {
			return View{}, ctx.Err()
		}
		if err := r.more(ctx); err != nil {
			return View{}, err
		}
		l := r.lane
		at := l.cursor
		f, _, err := l.parse(r.rest, l.limit)
		r.rest = nil
		if err != nil {
			r.failed()
			return View{}, err
		}
		l.cursor += f.size
		if f.pad || !l.accept(r, f.sequence) || r.config.Types != nil && !r.config.Types(f.typ) {
			continue
		}
		begin := at&l.mask + FrameHeader
		end := begin + uint64(f.length)
		v := View{oldest: l.oldest, fence: &r.fence, position: at}
		v.Message = Message{Type: f.typ, Time: f.time, Lane: l.peer.ID, Sequence: f.sequence, Lost: l.untold, Payload: l.data[begin:end:end]}
		l.untold = 0
		r.stats.received++
		return v, nil
	}
}
