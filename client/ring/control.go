//go:build linux

package ring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/shm"
)

// The first attempt to reach a daemon that went away comes after reconnectMin, later ones after up to
// reconnectMax.
const (
	reconnectMin = 20 * time.Millisecond
	reconnectMax = time.Second
)

// dataPath is what a membership needs of a Writer or Reader.
type dataPath interface {
	Offer(shm.Members)
	Stop()
	Close()
}

// membership is a handle's relation to the daemon. After start, its goroutine alone uses the fields that
// change:
//
//	attached --epoch rose--> pull the members, offer them --> attached
//	attached --hang-up--> away: dial, with growing pauses --> adopt, pull, offer --> attached
//	anywhere --definite refusal--> failed: the data path is closed, and says why
//	anywhere --Close--> detached
type membership struct {
	name   string
	path   string // of the attach socket
	role   attach.Role
	asked  bool // to make producers wait
	answer time.Duration
	logger func(string)
	place  place // set before start

	conn   *conn
	token  [32]byte
	joined uint64   // the epoch that others are told it joined at
	own    *os.File // the member's own memory, read-only; nil before ATTACHED
	page   *shm.Page
	peers  *peers

	mu     sync.Mutex // held for offers, so that none comes after the data path was closed
	closed bool
	data   dataPath

	wanted  chan struct{}   // the data path wants a new list of members
	ctx     context.Context // until the handle is closed
	stop    context.CancelFunc
	asking  context.Context // of what is asked of the daemon: a little longer, to leave in good order
	hangUp  context.CancelFunc
	ended   chan struct{}         // closed when the goroutine has returned
	failure atomic.Pointer[Error] // why the handle closed by itself
}

func newMembership(r request, path string) *membership {
	m := &membership{
		name: r.name, path: path, role: r.role, asked: r.lossless, answer: r.answer, logger: r.logger,
		peers: newPeers(r.role), wanted: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.asking, m.hangUp = context.WithCancel(context.Background())
	return m
}

// wantMembers is called by the data path when the epoch has risen. It does not block.
func (m *membership) wantMembers() {
	select {
	case m.wanted <- struct{}{}:
	default:
	}
}

// start begins to look after the data path.
func (m *membership) start(data dataPath) {
	m.data = data
	m.tellHowItWaits(shm.SleepsOnFutexes())
	go func() {
		defer close(m.ended)
		defer m.release()
		m.run()
	}()
}

// close ends the membership and waits for its goroutine.
func (m *membership) close() error {
	m.endData() // first: what is published later than DETACH nobody would see
	m.data.Close()
	m.stop()
	patience := time.AfterFunc(detachTimeout, m.hangUp)
	defer patience.Stop()
	<-m.ended
	return nil
}

// endData ends the use of the data path. Its memory stays mapped: the program may hold a claim, or a borrowed view.
func (m *membership) endData() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.data.Stop()
}

// offer hands members to the data path, which takes over their references.
func (m *membership) offer(members shm.Members) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		drop(members)
		return
	}
	m.data.Offer(members)
}

// release gives back what the membership holds.
func (m *membership) release() {
	m.stop()
	m.hangUp()
	m.peers.release()
	m.page.Release()
	m.page = nil
	if m.own != nil {
		m.own.Close()
	}
}

func (m *membership) run() {
	for {
		err := m.serve()
		m.conn.close()
		if m.ctx.Err() == nil && isPassing(err) {
			m.log("the daemon went away (%s): going on, and connecting again", asError(err, m.name).Message)
			if err = m.comeBack(); err == nil {
				m.log("attached again")
				continue
			}
		}
		if m.ctx.Err() == nil {
			m.fail(err)
		}
		return
	}
}

// serve asks for members whenever the data path wants them, until the connection or the membership ends.
// It has all the time there is: a daemon that is merely silent does not keep the data path from working,
// while hanging up on it would end the membership.
func (m *membership) serve() error {
	for {
		select {
		case <-m.ctx.Done():
			m.conn.detach(m.asking)
			return nil
		case r, ok := <-m.conn.replies:
			if !ok {
				return m.conn.broken()
			}
			if no, is := r.Reply.(attach.ErrorReply); is {
				return refused(no)
			}
			return m.conn.unexpected(r)
		case <-m.wanted:
			members, err := m.pull(m.asking, m.conn)
			if err != nil {
				return err
			}
			m.offer(members)
		}
	}
}

// comeBack connects again and is adopted, however long it takes.
func (m *membership) comeBack() error {
	told := ""
	for n := 0; ; n++ {
		if err := pause(m.ctx, n); err != nil {
			return err
		}
		err := m.tryToComeBack()
		if err == nil || m.ctx.Err() != nil || !isPassing(err) {
			return err
		}
		if now := asError(err, m.name).Message; told != now {
			told = now
			m.log("not attached yet (%s): trying on", told)
		}
	}
}

func (m *membership) tryToComeBack() error {
	c, err := dial(m.ctx, m.path)
	if err != nil {
		return &passing{err} // also if access is denied: a socket that was just made may not have its mode yet
	}
	if err = m.adopt(m.ctx, c); err == nil {
		var members shm.Members
		if members, err = m.pull(m.ctx, c); err == nil {
			m.conn = c
			m.offer(members)
			return nil
		}
	}
	c.close()
	return err
}

// fail ends the use of the handle for good. Every later call returns the error. Its memory is given back by Close.
func (m *membership) fail(err error) {
	e := *asError(err, m.name) // a copy: it is shared by all later calls
	m.failure.Store(&e)
	m.log("the handle is closed: %s", e.Message)
	m.endData()
}

// dataError is what the caller gets to see of an error of the data path.
func (m *membership) dataError(err error) *Error {
	if errors.Is(err, shm.ErrClosed) {
		if e := m.failure.Load(); e != nil {
			return e
		}
	}
	return dataError(err, m.name)
}

// tellHowItWaits says what a kernel costs that has no futex_waitv(2).
func (m *membership) tellHowItWaits(onFutexes bool) {
	if !onFutexes {
		m.log("futex_waitv(2) is not there (a kernel before Linux 5.16, or a filter of system calls): while it waits, it looks again each millisecond instead")
	}
}

func (m *membership) log(format string, args ...any) {
	if m.logger != nil {
		m.logger("ring " + m.name + ": " + fmt.Sprintf(format, args...))
	}
}

// pause waits before the n-th try in a row, n from 0, or until the context ends, whose error it returns.
// Half of the delay is a matter of chance: all members of a daemon that was restarted come at once.
func pause(ctx context.Context, n int) error {
	delay := reconnectMax
	if n < 6 {
		delay = min(reconnectMin<<n, reconnectMax)
	}
	timer := time.NewTimer(delay - rand.N(delay/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
