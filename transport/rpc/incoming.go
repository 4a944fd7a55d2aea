package rpc

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers what codec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/tap"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
)

// What is coming in holds memory: gRPC keeps the frames of a message until it is complete, up to limits.FrameBytes, and
// of what no handler reads as much as the stream's window. A call costs a client next to nothing, and it may have a
// thousand of them. So frames are charged to the connection, to whose it is and to all, from when they begin to come
// until a handler has the message, or the call is over:
//
//	framed.scan ── DATA ──> arrived: charged ── arriving.RecvMsg ──> taken: given back
//	                                      └──── the call ends ─────> over: given back
//
// Who passes a bound loses the connection that holds most.
type incomingBounds struct{ each, admin, all int64 } // bytes

var incomingDefaults = incomingBounds{each: limits.IncomingBytes, admin: limits.IncomingBytesAdmin, all: limits.IncomingBytesAll}

// holder is all connections of one principal.
type holder struct {
	who   identity.Principal
	bound atomic.Int64 // bytes
	held  atomic.Int64
	conns int // guarded by connections.mu
}

// arrival is what comes in for a call. It is guarded by conn.arriving.
type arrival struct {
	conn    *connection
	stream  uint32
	pending int64 // bytes that came, and are of messages that no handler has
	charged int64 // bytes of memory that those are thought to take
	stop    func() bool
}

// memoryOf is how many bytes of memory gRPC takes for a DATA frame: small ones have memory of their own, larger ones
// buffers of a pool (grpc/mem), and with each goes what has it in a list.
func memoryOf(length int) int64 {
	const entry = 96
	switch {
	case length <= 1<<10:
		return int64(length) + entry
	case length <= 4<<10:
		return 4<<10 + entry
	case length <= 16<<10:
		return 16<<10 + entry
	}
	return int64(length) // gRPC takes no such frame
}

type arrivalKey struct{}

// tap is called by gRPC for every call that it begins, by the goroutine that reads the connection.
func (s *Server) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	conn := connectionOf(ctx)
	if conn == nil || conn.framed == nil {
		return ctx, nil
	}
	a := &arrival{conn: conn, stream: conn.framed.frames.opened}
	conn.arriving.Lock()
	defer conn.arriving.Unlock()
	if conn.arrivals == nil {
		return ctx, nil
	}
	conn.arrivals[a.stream] = a
	a.stop = context.AfterFunc(ctx, a.over) // of those that never come to a handler
	return context.WithValue(ctx, arrivalKey{}, a), nil
}

// arrivalOf returns what comes in for the call of a context; nil: it is not counted.
func arrivalOf(ctx context.Context) *arrival {
	a, _ := ctx.Value(arrivalKey{}).(*arrival)
	return a
}

// arrived notes that a DATA frame begins, and returns what hold is to be told. Of calls that are over, gRPC keeps none.
func (c *connection) arrived(stream uint32, length int) int64 {
	c.arriving.Lock()
	defer c.arriving.Unlock()
	a := c.arrivals[stream]
	if a == nil {
		return 0
	}
	n := memoryOf(length)
	a.pending += int64(length)
	a.charged += n
	return n
}

// taken notes that a handler has a message of so many bytes.
func (a *arrival) taken(bytes int64) {
	if a == nil || bytes == 0 {
		return
	}
	a.conn.arriving.Lock()
	back := a.charged
	if bytes < a.pending {
		back = int64(float64(a.charged) * (float64(bytes) / float64(a.pending)))
		a.pending -= bytes
	} else {
		a.pending = 0
	}
	a.charged -= back
	a.conn.arriving.Unlock()
	a.conn.hold(-back)
}

// over notes that the call has ended. It may be called twice.
func (a *arrival) over() {
	if a == nil {
		return
	}
	a.conn.arriving.Lock()
	a.stop()
	back := a.charged
	a.pending, a.charged = 0, 0
	delete(a.conn.arrivals, a.stream)
	a.conn.arriving.Unlock()
	a.conn.hold(-back)
}

// hold charges bytes, which may be negative, and sees to it that nobody holds too many.
func (c *connection) hold(n int64) {
	all, h := c.all, c.holder
	if n == 0 {
		return
	}
	c.held.Add(n)
	mine, total := h.held.Add(n), all.held.Add(n)
	if n > 0 && (mine > h.bound.Load() || total > all.bounds.all) {
		all.relieve(h)
	}
}

// relieve cuts off the connection that holds most, of a principal that holds too much; or, if all together hold too
// much, of the one that holds most.
func (a *connections) relieve(h *holder) {
	a.mu.Lock()
	bound := h.bound.Load()
	if h.held.Load() <= bound {
		if a.held.Load() <= a.bounds.all {
			a.mu.Unlock()
			return
		}
		bound = a.bounds.all
		for _, other := range a.holders {
			if other.held.Load() > h.held.Load() {
				h = other
			}
		}
	}
	var most *connection
	for c := range a.all {
		if c.holder == h && (most == nil || c.held.Load() > most.held.Load()) {
			most = c
		}
	}
	var held int64
	if most != nil {
		held = most.letGo() // under the lock: who comes next to relieve finds it done
	}
	a.mu.Unlock()
	if held == 0 {
		return
	}
	most.Close()
	a.cutOff(most, held, bound)
}

// letGo gives back, and returns, all that was charged for a connection that is closed: its calls end a moment later.
func (c *connection) letGo() int64 {
	c.arriving.Lock()
	back := int64(0)
	for _, a := range c.arrivals {
		back += a.charged
		a.pending, a.charged = 0, 0
	}
	c.arrivals = nil
	c.arriving.Unlock()
	c.hold(-back)
	return back
}

// holderLocked returns the holder that a new connection belongs to.
func (a *connections) holderLocked(who identity.Identity) *holder {
	h := a.holders[who.Principal()]
	if h == nil {
		h = &holder{who: who.Principal()}
		h.bound.Store(a.bounds.each)
		a.holders[h.who] = h
	}
	if a.exempt(who) {
		h.bound.Store(a.bounds.admin)
	}
	h.conns++
	return h
}

func (a *connections) unholdLocked(c *connection) {
	if h := c.holder; h != nil {
		if h.conns--; h.conns == 0 {
			delete(a.holders, h.who)
		}
	}
}

func (s *Server) logCutOff(c *connection, held, bound int64) {
	s.strangers.Warn("too much is coming in, connection closed: "+c.who.Principal().String(), zap.Stringer("who", c.who),
		zap.Int64("connection_bytes", held), zap.Int64("allowed_bytes", bound))
}

// received is a message that is to be received, and learns how long it was.
type received struct {
	message any
	bytes   int // with what gRPC puts before it
}

// messagePrefixBytes stand before every message of gRPC.
const messagePrefixBytes = 5

// codec is that of protobuf, and tells received messages how long they were.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	if r, ok := message.(*received); ok {
		r.bytes = data.Len() + messagePrefixBytes
		message = r.message
	}
	return c.CodecV2.Unmarshal(data, message)
}

// arriving is a stream whose messages are counted as they are taken. Like any stream it is read by one goroutine.
type arriving struct {
	grpc.ServerStream
	arrival *arrival
	message received
}

func (s *arriving) RecvMsg(m any) error {
	s.message = received{message: m}
	err := s.ServerStream.RecvMsg(&s.message)
	s.message.message = nil
	s.arrival.taken(int64(s.message.bytes))
	return err
}

// within closes a call's connection unless its request is complete in time. The function that it returns says so.
func (c *call) within() (complete func()) {
	timer := time.AfterFunc(c.conn.all.requestTimeout, func() { c.conn.all.tooSlow(c) })
	return func() { timer.Stop() }
}

func (s *Server) closeSlow(c *call) {
	s.strangers.Info("request did not come to its end, connection closed: "+c.conn.who.Principal().String(), zap.Stringer("who", c.conn.who), zap.String("method", c.method),
		zap.Duration("allowed", c.conn.all.requestTimeout))
	c.conn.Close()
}
