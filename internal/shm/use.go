package shm

import (
	"errors"
	"sync"
	"sync/atomic"
)

// use guards a handle's memory: it is unmapped when the handle is closed and nobody is inside. One goroutine at a
// time may be inside.
type use struct {
	state atomic.Uint32

	mu      sync.Mutex // guards the rest
	sharers int
	free    func() // set by close, until it was called
	closed  bool
}

// States.
const (
	useIdle = iota
	useInside
	useClosed       // nobody is inside
	useClosedInside // somebody is inside, and frees what is to be freed when it leaves
)

var errTwoAtOnce = errors.New("two goroutines use one handle at once: give each its own")

// enter goes inside.
func (u *use) enter() bool { return u.state.CompareAndSwap(useIdle, useInside) }

// refusal says why enter refused.
func (u *use) refusal() error {
	if u.state.Load() == useInside {
		return errTwoAtOnce
	}
	return ErrClosed
}

// leave goes outside.
func (u *use) leave() {
	if !u.state.CompareAndSwap(useInside, useIdle) {
		u.state.Store(useClosed)
		u.release()
	}
}

// isClosed is for who is inside.
func (u *use) isClosed() bool { return u.state.Load() == useClosedInside }

// close closes the handle. Who is inside is interrupted, and frees the memory when it leaves.
func (u *use) close(interrupt, free func()) {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return
	}
	u.closed, u.free = true, free
	u.mu.Unlock()
	for {
		if u.state.CompareAndSwap(useIdle, useClosed) {
			u.release()
			return
		}
		if u.state.CompareAndSwap(useInside, useClosedInside) {
			interrupt()
			return
		}
	}
}

// share keeps the memory mapped for somebody who only looks, unless it is closed.
func (u *use) share() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.sharers++
	return true
}

func (u *use) unshare() {
	u.mu.Lock()
	u.sharers--
	u.mu.Unlock()
	u.release()
}

// release frees the memory if the handle is closed and nobody uses it.
func (u *use) release() {
	u.mu.Lock()
	var free func()
	if u.sharers == 0 && u.state.Load() == useClosed {
		free, u.free = u.free, nil
	}
	u.mu.Unlock()
	if free != nil {
		free()
	}
}
