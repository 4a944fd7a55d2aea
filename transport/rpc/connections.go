package rpc

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport"
)

// connections is all that were accepted and are not closed.
type connections struct {
	quotas *quota.Table                 // nil: nothing is charged
	exempt func(identity.Identity) bool // whom the limit of all connections does not stop

	bounds incomingBounds
	held   atomic.Int64                           // bytes that are coming in
	cutOff func(c *connection, held, bound int64) // is told of those that had to go

	requestTimeout time.Duration
	tooSlow        func(*call)

	mu          sync.Mutex // guards what follows
	lastID      uint64
	all         map[*connection]struct{}
	charged     int                            // of those the limit counts
	refused     int                            // that are kept to be told so
	handshaking []*connection                  // in TLS handshakes, oldest first
	closing     bool                           // no more are taken
	holders     map[identity.Principal]*holder // of all that are identified
}

func newConnections(quotas *quota.Table, exempt func(identity.Identity) bool) *connections {
	return &connections{quotas: quotas, exempt: exempt, bounds: incomingDefaults, cutOff: func(*connection, int64, int64) {}, requestTimeout: limits.RequestTimeout,
		all: map[*connection]struct{}{}, holders: map[identity.Principal]*holder{}}
}

// enter adds an accepted connection. Of a daemon that stops it is closed at once.
func (a *connections) enter(conn net.Conn, door string, now time.Time) *connection {
	c := newConnection(conn, a, door, now)
	a.mu.Lock()
	a.lastID++
	c.id = a.lastID
	a.all[c] = struct{}{}
	closing := a.closing
	a.mu.Unlock()
	if closing {
		c.Close()
	}
	return c
}

// identify says who a connection is of, and charges it. One that is over a quota is kept for a moment, so that its
// calls can be told; if there are many of those already it fails at once.
func (a *connections) identify(c *connection, who identity.Identity, peer *tlsPeer) error {
	command := transport.CommandOf(who.PID)
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.left {
		return net.ErrClosed
	}
	if err := a.chargeLocked(c, who); err != nil {
		var e *reason.Error
		if !errors.As(err, &e) || a.refused >= limits.ConnsRefused {
			return err
		}
		a.refused++
		c.refused = statusOf(e).Err()
		c.timer = time.AfterFunc(limits.ConnRefusedTime, func() { c.Close() })
	}
	c.who, c.command, c.peer, c.identified = who, command, peer, true
	c.holder = a.holderLocked(who)
	return nil
}

func (a *connections) chargeLocked(c *connection, who identity.Identity) error {
	if a.charged >= limits.Conns && !a.exempt(who) {
		return reason.New(reason.QuotaExceeded, "the daemon has %d connections and takes no more: try again when some are closed", a.charged).Retry(limits.ConnRefusedTime)
	}
	if a.quotas != nil {
		principal := who.Principal()
		if err := a.quotas.Take(principal, quota.Connections, 1); err != nil {
			return err
		}
		c.account = a.quotas.Account(principal) // stays in force: the connection is charged to it
	}
	a.charged++
	return nil
}

// leave forgets a connection, once.
func (a *connections) leave(c *connection) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.left {
		return
	}
	c.left = true
	delete(a.all, c)
	a.handshakenLocked(c)
	a.unholdLocked(c)
	if c.timer != nil {
		c.timer.Stop()
	}
	switch {
	case c.refused != nil:
		a.refused--
	case c.identified:
		a.charged--
		if c.account != nil {
			c.account.Add(quota.Connections, -1)
		}
	}
}

// handshake notes that a TLS handshake begins, and gives up the oldest if there are too many: who is honest is done in
// milliseconds, and is not among the oldest.
func (a *connections) handshake(c *connection) {
	var given *connection
	a.mu.Lock()
	if len(a.handshaking) >= limits.TLSHandshakes {
		given = a.handshaking[0]
		a.handshaking = slices.Delete(a.handshaking, 0, 1)
	}
	a.handshaking = append(a.handshaking, c)
	a.mu.Unlock()
	if given != nil {
		given.Close()
	}
}

// handshaken notes that a TLS handshake is over.
func (a *connections) handshaken(c *connection) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handshakenLocked(c)
}

func (a *connections) handshakenLocked(c *connection) {
	if i := slices.Index(a.handshaking, c); i >= 0 {
		a.handshaking = slices.Delete(a.handshaking, i, i+1)
	}
}

// list returns the connections whose callers are known, by age.
func (a *connections) list() []*connection {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*connection, 0, len(a.all))
	for c := range a.all {
		if c.identified {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(x, y *connection) int { return int(int64(x.id) - int64(y.id)) })
	return out
}

// byDoor counts connections.
func (a *connections) byDoor() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]int{doorUnix: 0, doorTCP: 0}
	for c := range a.all {
		out[c.door]++
	}
	return out
}

// stop takes no more connections, and closes those that have not made a call: whoever says nothing, perhaps in
// mid-handshake, holds up no stop.
func (a *connections) stop() {
	a.mu.Lock()
	a.closing = true
	var silent []*connection
	for c := range a.all {
		if c.userAgent.Load() == nil {
			silent = append(silent, c)
		}
	}
	a.mu.Unlock()
	for _, c := range silent {
		c.Close()
	}
}
