package posixmq

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// Outlet moves messages from a queue into a kernel queue. Those are leased until they have left it.
//
// Two goroutines: fill leases what is ready into free places; watch settles what natives have received.
//
//	ready --Lease--> [fill] --mq_send--> kernel queue + shadow --mq_receive--> [watch] --Settle(consumed)
//	                                            |
//	                                            +-- Recall: drain --Settle(released)--> ready
type Outlet struct {
	counts
	mq         *MQ
	lane       broker.DoorQueue
	selector   queue.Selector
	typePrefix bool
	log        rareLog

	ctx    context.Context
	cancel context.CancelFunc
	flow   sync.WaitGroup
	wake   chan struct{} // one token: fill shall look again

	// mu guards what was put into the kernel queue. It is held across the settlement of what was found
	// to have left, so that a recall ends after it.
	mu      sync.Mutex
	shadow  shadow
	doubt   bool   // the count no longer tells which of the shadow have left
	scratch []byte // for one message
	recalls int    // under way: fill stands still
	lease   *lease // the Lease call that is under way, with what follows until its messages are in the shadow
}

// lease is a Lease call that a recall can end.
type lease struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when its messages are in the kernel queue, or given back
}

// sendPause is how long an Outlet rests after the kernel refused a message for want of memory.
const sendPause = time.Second

// NewOutlet returns an Outlet that does nothing yet. What the kernel queue holds from an earlier run of
// the daemon is drained: all of that is still in the queue, unless it was recorded as consumed. dropped
// says how many messages those were. The MQ stays the caller's, to be closed after Stop.
func NewOutlet(mq *MQ, lane broker.DoorQueue, k queue.KernelQueue, logger *zap.Logger) (out *Outlet, dropped int) {
	out = &Outlet{mq: mq, lane: lane, selector: k.OutSelector, typePrefix: k.TypePrefix, log: rareLog{logger: logger}}
	out.ctx, out.cancel = context.WithCancel(context.Background())
	out.wake = make(chan struct{}, 1)
	out.scratch = make([]byte, mq.messageSize)
	for dropped < mq.maxMessages {
		if _, _, err := mq.Receive(out.scratch); err != nil {
			break
		}
		dropped++
	}
	return out, dropped
}

// Start lets messages flow until Stop, or until the queue is deleted or the daemon stops.
func (out *Outlet) Start() {
	out.flow.Go(out.fill)
	out.flow.Go(out.watch)
}

// Stop ends the flow and takes back what is in the kernel queue.
func (out *Outlet) Stop() {
	out.cancel()
	out.mq.SetDeadline(time.Unix(1, 0)) // wakes watch
	out.flow.Wait()
	out.mq.SetDeadline(time.Time{})
	out.mu.Lock()
	defer out.mu.Unlock()
	out.takeBack()
}

// Recall takes back what is in the kernel queue: what has left it is settled as consumed, the rest
// released. Before, it ends a Lease call that is under way, so that nothing is on its way into the
// kernel queue either; the next call begins afterwards. The error is ctx's, and then nothing was taken back.
func (out *Outlet) Recall(ctx context.Context) error {
	out.mu.Lock()
	out.recalls++
	l := out.lease
	out.mu.Unlock()
	var err error
	if l != nil {
		l.cancel()
		select {
		case <-l.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	if err == nil {
		out.takeBack()
	}
	out.recalls--
	out.signal()
	return err
}

func (out *Outlet) signal() {
	select {
	case out.wake <- struct{}{}:
	default:
	}
}

// fill leases messages whenever there is a free place, and puts them in.
func (out *Outlet) fill() {
	for {
		l, ctx, free := out.beginLease()
		if l == nil {
			select {
			case <-out.wake:
				continue
			case <-out.ctx.Done():
				return
			}
		}
		deliveries, skipped, err := out.lane.Lease(ctx, out.selector, free, out.maxBody())
		out.skipped.Add(uint64(skipped))
		recalled := ctx.Err() != nil
		pause := out.endLease(l, deliveries)
		switch {
		case out.ctx.Err() != nil || over(err):
			return
		case err == nil:
			out.setProblem(nil)
		case !recalled:
			out.setProblem(err)
			out.log.warn("nothing is leased for the kernel queue", zap.Error(err))
			pause = true
		}
		if pause {
			out.pause()
		}
	}
}

func (out *Outlet) pause() {
	t := time.NewTimer(sendPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-out.ctx.Done():
	}
}

// maxBody is the size of the largest body that fits the kernel queue.
func (out *Outlet) maxBody() int {
	if out.typePrefix {
		return max(0, out.mq.messageSize-PrefixSize)
	}
	return out.mq.messageSize
}

// beginLease returns nil if no place is free, or a recall is under way.
func (out *Outlet) beginLease() (*lease, context.Context, int) {
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.recalls > 0 {
		return nil, nil, 0
	}
	out.review()
	current, err := out.mq.Current()
	free := out.mq.maxMessages - max(current, len(out.shadow))
	if err != nil || free <= 0 {
		return nil, nil, 0
	}
	ctx, cancel := context.WithCancel(out.ctx)
	out.lease = &lease{cancel: cancel, done: make(chan struct{})}
	return out.lease, ctx, free
}

// endLease puts in what was leased, even if a recall is waiting, which then finds it there. It returns
// true if the kernel had no memory.
func (out *Outlet) endLease(l *lease, deliveries []queue.Delivery) (pause bool) {
	out.mu.Lock()
	defer out.mu.Unlock()
	defer close(l.done)
	l.cancel()
	out.lease = nil
	all := make([]held, len(deliveries))
	for i, d := range deliveries {
		body := d.Body
		if out.typePrefix {
			body = append(binary.NativeEndian.AppendUint64(make([]byte, 0, PrefixSize+len(d.Body)), uint64(d.Type)), d.Body...)
		}
		all[i] = held{receipt: d.Receipt, priority: d.Priority, body: body}
	}
	out.review()
	pause = out.putAll(all)
	out.review()
	return pause
}

// watch settles what natives have received, as soon as the kernel tells.
func (out *Outlet) watch() {
	for {
		_, err := out.mq.AwaitCount(func(current int) bool {
			out.mu.Lock()
			defer out.mu.Unlock()
			return out.doubt || current != len(out.shadow)
		})
		if out.ctx.Err() != nil {
			return
		}
		if err != nil {
			out.setProblem(reason.New(reason.Internal, "kernel queue %s: %v", out.mq.name, err))
			return
		}
		out.mu.Lock()
		out.review()
		out.mu.Unlock()
		out.signal()
	}
}

// review settles what has left the kernel queue since the last look. The caller holds mu.
func (out *Outlet) review() {
	current, err := out.mq.Current()
	gone := len(out.shadow) - current
	switch {
	case err != nil:
	case out.doubt || gone < 0: // fewer gone than none: somebody else has put something in
		out.sort()
	default:
		out.settle(out.shadow.leave(gone), nil)
	}
}

// putAll puts messages into the kernel queue and gives back those for which there is no place. The
// caller holds mu, and calls review before and after. It returns true if the kernel had no memory.
func (out *Outlet) putAll(all []held) (pause bool) {
	for i, h := range all {
		if err := out.mq.Send(h.body, h.priority); err != nil {
			if err != unix.EAGAIN {
				pause = true
				out.log.warn("mq_send failed", zap.Error(err))
			}
			out.settle(nil, all[i:])
			return pause
		}
		current, err := out.mq.Current()
		if out.doubt || err != nil {
			out.shadow.insert(h)
			continue
		}
		left, known := out.shadow.put(h, current)
		out.doubt = !known
		out.settle(left, nil)
	}
	return false
}

// sort drains the kernel queue, settles what is missing and puts back the rest. Put back in the order
// in which it came out, no message overtakes another, and what leaves meanwhile can be told by count.
// The caller holds mu.
func (out *Outlet) sort() {
	found, missing := out.drain()
	out.settle(missing, nil)
	out.putAll(found)
}

// takeBack drains the kernel queue and settles all that was in it. The caller holds mu.
func (out *Outlet) takeBack() {
	found, missing := out.drain()
	out.settle(missing, found)
}

// drain takes everything out of the kernel queue, which empties the shadow: what was there still, in
// order, and what was missing. What somebody else put in is discarded and counted: nobody may write to
// this kernel queue but root and the daemon's user. The caller holds mu.
func (out *Outlet) drain() (found, missing []held) {
	var all []drained
	var err error
	for len(all) < 4*out.mq.maxMessages { // whoever keeps filling it does not hold us here for ever
		var n int
		var priority uint16
		if n, priority, err = out.mq.Receive(out.scratch); err != nil {
			break
		}
		all = append(all, drained{priority, append([]byte(nil), out.scratch[:n]...)})
	}
	found, missing, strangers := out.shadow.match(all)
	if err != unix.EAGAIN {
		found, missing = out.shadow, nil // not seen to be empty: rather twice than lost
	}
	if strangers > 0 {
		out.skipped.Add(uint64(strangers))
		out.log.warn("discarded messages that a stranger put into the outgoing kernel queue", zap.Int("messages", strangers))
	}
	out.shadow, out.doubt = nil, false
	return found, missing
}

// settle reports to the queue. The caller holds mu.
func (out *Outlet) settle(consumed, released []held) {
	if len(consumed)+len(released) == 0 {
		return
	}
	out.passed.Add(uint64(len(consumed)))
	out.lane.Settle(receipts(consumed), receipts(released))
}
