package shmring

import (
	"context"
	"sync"
)

// charges counts what each uid holds of the server: connections, and descriptors on the way to its
// processes. The kernel counts descriptors on the way against the daemon, and beyond RLIMIT_NOFILE of
// them refuses it to send any more, to anybody.
type charges struct {
	conns, connsPerUID, filesPerUID int // the limits

	mu   sync.Mutex // guards what follows
	all  int        // connections
	uids map[uint32]*charge
}

type charge struct {
	conns int
	files int
	queue []*filesWanted // who waits for descriptors, in order
}

type filesWanted struct {
	n    int
	done chan struct{} // closed when they are charged
}

func newCharges(conns, connsPerUID, filesPerUID int) *charges {
	return &charges{conns: conns, connsPerUID: connsPerUID, filesPerUID: filesPerUID, uids: map[uint32]*charge{}}
}

// admission is the outcome of admit.
type admission uint8

const (
	admitted admission = iota
	tooMany            // connections in all
	tooManyOfUID
)

// admit charges a connection to uid.
func (c *charges) admit(uid uint32) admission {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.conns {
		return tooMany
	}
	u := c.uids[uid]
	if u == nil {
		u = &charge{}
		c.uids[uid] = u
	}
	if u.conns >= c.connsPerUID {
		return tooManyOfUID
	}
	c.all++
	u.conns++
	return admitted
}

// dismiss takes a connection's charge back. Its descriptors were released before.
func (c *charges) dismiss(uid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.uids[uid]
	c.all--
	if u.conns--; u.conns == 0 {
		delete(c.uids, uid)
	}
}

// takeFiles charges n descriptors to uid, which has a connection, and waits for its turn if they are too
// many. n is within the limit.
func (c *charges) takeFiles(ctx context.Context, uid uint32, n int) error {
	c.mu.Lock()
	u := c.uids[uid]
	if len(u.queue) == 0 && u.files+n <= c.filesPerUID {
		u.files += n
		c.mu.Unlock()
		return nil
	}
	wanted := &filesWanted{n: n, done: make(chan struct{})}
	u.queue = append(u.queue, wanted)
	c.mu.Unlock()
	select {
	case <-wanted.done:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, w := range u.queue {
		if w == wanted {
			u.queue = append(u.queue[:i], u.queue[i+1:]...)
			c.nextLocked(u) // who stands behind may want fewer
			return context.Cause(ctx)
		}
	}
	u.files -= n // charged in between
	c.nextLocked(u)
	return context.Cause(ctx)
}

// releaseFiles takes the charge of n descriptors back.
func (c *charges) releaseFiles(uid uint32, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.uids[uid]
	u.files -= n
	c.nextLocked(u)
}

// nextLocked serves the queue in order.
func (c *charges) nextLocked(u *charge) {
	for len(u.queue) > 0 && u.files+u.queue[0].n <= c.filesPerUID {
		u.files += u.queue[0].n
		close(u.queue[0].done)
		u.queue = u.queue[1:]
	}
}
