package shm

import (
	"errors"
	"sync"
	"sync/atomic"
)

// use guards a handle's memory: it is unmapped when the handle is closed and nobody is inside. One goroutine at a
// time may be inside.
//
// Going in and out is on every path, closing happens once. So who goes in writes inside without a fence and then looks
// whether the handle is closed; who closes says so, makes every thread of the process pass a fence, and then looks at
// inside. See membarrier(2).
type use struct {
	inside atomic.Uint64 // 1: somebody is, written with storeRelaxed and storeRelease
	closed atomic.Bool

	mu      sync.Mutex // guards the rest
	sharers int
	ended   bool   // close was called
	free    func() // set by close, until it was called
}

var errTwoAtOnce = errors.New("two goroutines use one handle at once: give each its own")

// enter goes inside, unless the handle is closed or somebody is inside. The latter is noticed mostly, not always.
func (u *use) enter() bool {
	if u.inside.Load() != 0 {
		return false
	}
	storeRelaxed(&u.inside, 1)
	if u.closed.Load() {
		u.leave()
		return false
	}
	return true
}

// refusal says why enter refused.
func (u *use) refusal() error {
	if u.closed.Load() {
		return ErrClosed
	}
	return errTwoAtOnce
}

// leave goes outside.
func (u *use) leave() {
	storeRelease(&u.inside, 0)
	if u.closed.Load() {
		u.release()
	}
}

// isClosed is for who is inside.
func (u *use) isClosed() bool { return u.closed.Load() }

// stop ends the use of the handle, and interrupts who waits. The memory stays mapped until close: somebody may hold
// slices of it.
func (u *use) stop(interrupt func()) {
	u.closed.Store(true)
	interrupt()
}

// close closes the handle. Who is inside is interrupted, and frees the memory when it leaves.
func (u *use) close(interrupt, free func()) {
	u.mu.Lock()
	if u.ended {
		u.mu.Unlock()
		return
	}
	u.ended, u.free = true, free
	u.mu.Unlock()
	u.stop(interrupt)
	u.release()
}

// share keeps the memory mapped for somebody who only looks, unless it is closed.
func (u *use) share() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return false
	}
	u.sharers++
	return true
}

func (u *use) unshare() {
	u.mu.Lock()
	u.sharers--
	u.mu.Unlock()
	if u.closed.Load() {
		u.release()
	}
}

// release frees the memory if the handle is closed and nobody uses it.
func (u *use) release() {
	fenceAllThreads()
	u.mu.Lock()
	var free func()
	if u.sharers == 0 && u.inside.Load() == 0 {
		free, u.free = u.free, nil
	}
	u.mu.Unlock()
	if free != nil {
		free()
	}
}
