package shm

import (
	"context"
	"sync/atomic"
	"unsafe"
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
	if ctx != nil && ctx.Err() != nil {
		return View{}, ctx.Err()
	}
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
		header := (*[4]uint64)(unsafe.Pointer(unsafe.SliceData(r.rest)))
		sequence, length, typ := header[0], header[1], int64(header[2])
		size := (FrameHeader + length + FrameAlign - 1) &^ (FrameAlign - 1)
		if length > uint64(l.peer.MaxFrame) || size > uint64(l.peer.MaxFrame) || size > min(l.limit-at, l.peer.Capacity-at&l.mask) || sequence < l.expected || sequence == 0 || typ <= 0 {
			pad, err := r.examine(l)
			if err != nil {
				return View{}, err
			}
			l.cursor += pad
			continue
		}
		nanos := int64(header[3])
		r.rest = nil
		l.cursor += size
		if !l.accept(r, sequence) || r.config.Types != nil && !r.config.Types(typ) {
			continue
		}
		begin := at&l.mask + FrameHeader
		end := begin + length
		v := View{oldest: l.oldest, fence: &r.fence, position: at}
		v.Message = Message{Type: typ, Time: nanos, Lane: l.peer.ID, Sequence: sequence, Lost: l.untold, Payload: l.data[begin:end:end]}
		l.untold = 0
		r.stats.received++
		return v, nil
	}
}
