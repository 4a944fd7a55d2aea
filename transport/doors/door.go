package doors

import (
	"context"
	"errors"

	"github.com/ipcd/ipcd/broker"
)

// Door is the kernel doors of one queue. It implements broker.Door.
type Door struct {
	directions []*direction
}

// Start lets messages flow.
func (d *Door) Start() {
	for _, one := range d.directions {
		one.start()
	}
}

// Status tells how each direction fares. It takes no lock that is held across a call to the queue, so it
// may be called with the queue's lock held.
func (d *Door) Status() []broker.DoorStatus {
	all := make([]broker.DoorStatus, 0, len(d.directions))
	for _, one := range d.directions {
		all = append(all, one.status())
	}
	return all
}

// Protect gives the kernel queues another mode, owner and group. See broker.Door.
func (d *Door) Protect(mode, uid, gid uint32) {
	for _, one := range d.directions {
		one.protect(mode, uid, gid)
	}
}

// Recall takes back what is in outgoing kernel queues. See broker.Door.
func (d *Door) Recall(ctx context.Context) error {
	var failed error
	for _, one := range d.directions {
		failed = errors.Join(failed, one.recall(ctx))
	}
	return failed
}

// Close ends the flow and recalls; see broker.Door. Before an incoming kernel queue is removed, what it
// holds is taken in for as long as the queue takes it. It is called without the queue's lock held.
func (d *Door) Close(remove bool) {
	for _, one := range d.directions {
		one.close(remove)
	}
}
