package doors

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport/posixmq"
)

// way is which way messages go.
type way string

const (
	in  way = "in"  // from native senders, under the queue's own name
	out way = "out" // to native readers, under the queue's name with ".out"
)

// kernelName is the name of a queue's kernel queue.
func (w way) kernelName(queue string) string {
	if w == out {
		return queue + ".out"
	}
	return queue
}

// bits are those that make sense for the users of a kernel queue.
func (w way) bits() uint32 {
	if w == out {
		return 0o444
	}
	return 0o222
}

// flow is what an Inlet and an Outlet have in common.
type flow interface {
	Start()
	Stop()
	Passed() uint64
	Skipped() uint64
	Problem() string
}

// direction is one kernel queue before a queue, or the attempt to have one.
//
//	        open           start
//	closed ------> opened -------> flowing
//	  ^ \                            |
//	  |  `--- kernel limit: waits    | unlinked by somebody: closed, and opened again
//	  `------------------------------'
type direction struct {
	doors *Doors
	spec  broker.DoorSpec
	way   way
	name  string // of the kernel queue
	log   *zap.Logger

	// turn is held by whoever opens, starts or closes, across calls to the queue. It guards what follows.
	turn    sync.Mutex
	adopted bool // the kernel queue was there before Open
	started bool
	ended   bool // closed for good

	// mu guards what Status and Recall read. It is never held across a call to the queue.
	mu      sync.Mutex
	mq      *posixmq.MQ // nil: not open
	flow    flow        // nil: not open
	problem string      // why it is not open, or what is wrong with the object
	want    permissions // what the object was given
	passed  uint64      // by flows that have ended
	skipped uint64
}

func newDirection(d *Doors, spec broker.DoorSpec, w way) *direction {
	name := w.kernelName(spec.Queue)
	return &direction{doors: d, spec: spec, way: w, name: name, log: d.logger.With(zap.String("queue", spec.Queue), zap.String("kernel_queue", name))}
}

func (one *direction) geometry() posixmq.Geometry {
	return posixmq.WantedGeometry(one.spec.Kernel, one.spec.MaxMessageSize)
}

// open makes or adopts the kernel queue. The error is recorded as the problem, too.
func (one *direction) open() error {
	one.turn.Lock()
	defer one.turn.Unlock()
	return one.openInTurn()
}

func (one *direction) openInTurn() error {
	mq, adopted, err := one.obtain()
	if err != nil {
		one.mu.Lock()
		if one.problem != err.Error() {
			one.problem = err.Error()
			one.log.Info("kernel door is not open", zap.Error(err))
		}
		one.mu.Unlock()
		return err
	}
	want, problem := one.doors.powers.protect(mq, one.way, one.spec)
	if g := one.geometry(); adopted && mq.Geometry() != g {
		problem = join(problem, fmt.Sprintf("it is from before and holds %d messages of %d bytes, not %d of %d: remove and create the queue to change that", mq.Geometry().MaxMessages, mq.Geometry().MessageSize, g.MaxMessages, g.MessageSize))
	}
	if problem != "" {
		one.log.Warn("kernel door is open, but not as declared", zap.String("problem", problem))
	}
	var f flow
	if one.way == in {
		f = posixmq.NewInlet(mq, one.spec.Lane, one.spec.Kernel, one.log)
	} else {
		outlet, dropped := posixmq.NewOutlet(mq, one.spec.Lane, one.spec.Kernel, one.log)
		if dropped > 0 {
			one.log.Info("drained an outgoing kernel queue of an earlier run", zap.Int("messages", dropped))
		}
		f = outlet
	}
	one.adopted = adopted
	one.mu.Lock()
	one.mq, one.flow, one.problem, one.want = mq, f, problem, want
	one.mu.Unlock()
	if one.started {
		f.Start()
	}
	return nil
}

// obtain returns the kernel queue: the recorded one if it still stands, else a new one.
func (one *direction) obtain() (mq *posixmq.MQ, adopted bool, err error) {
	if g := one.geometry(); one.spec.Kernel.TypePrefix && g.MessageSize < posixmq.PrefixSize {
		return nil, false, reason.Invalid("settings.mqueue.message_size", "mqueue.message_size %d: with a type prefix it must be at least %d", g.MessageSize, posixmq.PrefixSize)
	}
	if err := one.doors.claim(one); err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			one.doors.unclaim(one, false)
		}
	}()
	r := one.doors.registry
	if o, ok := r.get(one.name); ok {
		mq, err := one.doors.powers.find(o)
		if mq != nil || err != nil {
			if mq != nil && (o.Queue != one.spec.Queue || o.Direction != string(one.way)) {
				mq.Close()
				return nil, false, reason.New(reason.KernelNameTaken, "the kernel queue %s is the %s door of queue %s: choose another name", o.Name, o.Direction, o.Queue)
			}
			return mq, true, err
		}
	}
	mq, err = one.create(r)
	return mq, false, err
}

// find opens the recorded object; nil if it is gone, or another stands in its place.
func (p powers) find(o record) (*posixmq.MQ, error) {
	mq, err := p.reopen(o, posixmq.Open)
	switch {
	case err == unix.ENOENT:
		return nil, nil
	case err == unix.EACCES || errors.Is(err, posixmq.ErrHidden):
		return nil, reason.New(reason.KernelNameTaken, "the kernel queue %s may be ipcd's, but the daemon may not open it to see (%v): run it as before, or mq_unlink the kernel queue", o.Name, err)
	case err != nil:
		return nil, posixmq.Explain(err, o.Name, posixmq.Geometry{})
	}
	st, err := mq.Stat()
	if err == nil && o.describes(st) {
		return mq, nil
	}
	mq.Close()
	return nil, err
}

// create makes a new kernel queue and records it; see the package comment for the order.
func (one *direction) create(r *registry) (*posixmq.MQ, error) {
	o := record{Name: one.name, Queue: one.spec.Queue, Direction: string(one.way), Mark: newMark()}
	if other, err := posixmq.Inspect(one.name); err != unix.ENOENT { // look first: an intent costs a sync
		if err == nil {
			other.Close()
		}
		return nil, posixmq.Explain(unix.EEXIST, one.name, one.geometry())
	}
	if err := r.put(o); err != nil {
		return nil, err
	}
	mq, err := posixmq.Create(one.name, one.geometry())
	if err != nil {
		r.forget(one.name)
		return nil, posixmq.Explain(err, one.name, one.geometry())
	}
	err = mq.Mark(o.Mark)
	if err == nil {
		var st posixmq.Stat
		if st, err = mq.Stat(); err == nil {
			o.Inode = st.Inode
			err = r.put(o)
		}
	}
	if err != nil {
		mq.Unlink()
		mq.Close()
		r.forget(one.name)
		return nil, err
	}
	return mq, nil
}

// start lets messages flow, now or as soon as the kernel queue can be opened.
func (one *direction) start() {
	one.turn.Lock()
	defer one.turn.Unlock()
	if one.started || one.ended {
		return
	}
	one.started = true
	if one.flow != nil {
		one.flow.Start()
	}
}

// renew opens a kernel queue that is not open, and replaces one that was unlinked. It does not try for
// one that is as large as one that was refused. limited is true if a kernel limit was in the way of
// one of geometry g.
func (one *direction) renew(refused []posixmq.Geometry) (limited bool, g posixmq.Geometry) {
	one.turn.Lock()
	defer one.turn.Unlock()
	g = one.geometry()
	if one.ended {
		return false, g
	}
	if one.mq != nil {
		if st, err := one.mq.Stat(); err != nil || st.Linked {
			return false, g
		}
		one.log.Warn("the kernel queue was unlinked by somebody; it is made anew")
		one.shut(true)
	}
	for _, r := range refused {
		if g.MaxMessages >= r.MaxMessages && g.MessageSize >= r.MessageSize {
			return false, g
		}
	}
	err := one.openInTurn()
	if err == nil {
		one.log.Info("kernel door is open now")
	}
	return reason.Of(err) == reason.KernelLimit, g
}

// protect gives the kernel queue other permissions, now or when it is opened.
func (one *direction) protect(mode, uid, gid uint32) {
	one.turn.Lock()
	defer one.turn.Unlock()
	one.mu.Lock()
	one.spec.Mode, one.spec.OwnerUID, one.spec.GroupGID = mode, uid, gid
	mq := one.mq
	one.mu.Unlock()
	if mq == nil {
		return
	}
	want, problem := one.doors.powers.protect(mq, one.way, one.spec)
	one.mu.Lock()
	one.want, one.problem = want, problem
	one.mu.Unlock()
}

// recall takes back what is in the kernel queue of an outgoing direction.
func (one *direction) recall(ctx context.Context) error {
	one.mu.Lock()
	outlet, ok := one.flow.(*posixmq.Outlet)
	one.mu.Unlock()
	if !ok {
		return nil
	}
	return outlet.Recall(ctx)
}

// close ends the direction for good.
func (one *direction) close(remove bool) {
	one.turn.Lock()
	defer one.turn.Unlock()
	if one.ended {
		return
	}
	one.ended = true
	one.doors.leave(one)
	if one.mq != nil {
		one.shut(remove)
		if remove {
			if err := one.doors.registry.save(); err != nil {
				one.log.Warn("the record of kernel queues is behind, which does no harm", zap.Error(err))
			}
		}
	}
}

// shut ends the flow, takes back what is out, and closes the kernel queue, removing it if asked. The
// caller holds turn.
func (one *direction) shut(remove bool) {
	one.flow.Stop()
	if remove {
		if _, err := one.doors.powers.unlink(one.mq); err != nil {
			one.log.Warn("the kernel queue could not be unlinked", zap.Error(err))
		} else {
			one.doors.registry.forget(one.name)
		}
		if inlet, ok := one.flow.(*posixmq.Inlet); ok {
			if left := inlet.Rest(); left > 0 {
				one.log.Warn("messages went with the kernel queue, as the queue did not take them", zap.Int("messages", left))
			}
		}
	}
	one.mu.Lock()
	mq := one.mq
	one.passed += one.flow.Passed()
	one.skipped += one.flow.Skipped()
	one.mq, one.flow, one.problem = nil, nil, "closed"
	one.mu.Unlock()
	mq.Close()
	one.doors.unclaim(one, true)
}

// status tells how the direction fares.
func (one *direction) status() broker.DoorStatus {
	one.mu.Lock()
	defer one.mu.Unlock()
	s := broker.DoorStatus{Direction: string(one.way), Name: one.name, Problem: one.problem, Passed: one.passed, Skipped: one.skipped}
	if one.mq == nil {
		g := one.geometry()
		s.MaxMessages, s.MessageSize = g.MaxMessages, g.MessageSize
		return s
	}
	s.Open = true
	s.Passed += one.flow.Passed()
	s.Skipped += one.flow.Skipped()
	s.MaxMessages, s.MessageSize = one.mq.Geometry().MaxMessages, one.mq.Geometry().MessageSize
	s.Current, _ = one.mq.Current()
	st, err := one.mq.Stat()
	s.UID, s.GID, s.Mode = st.UID, st.GID, st.Mode
	switch now := (permissions{st.UID, st.GID, st.Mode}); {
	case err != nil:
		s.Problem = join(s.Problem, err.Error())
	case !st.Linked:
		s.Problem = join(s.Problem, "somebody has unlinked the kernel queue; it will be made anew")
	case now != one.want:
		s.Problem = join(s.Problem, fmt.Sprintf("somebody has changed the kernel queue to %v; it was %v", now, one.want))
	}
	s.Problem = join(s.Problem, one.flow.Problem())
	return s
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
