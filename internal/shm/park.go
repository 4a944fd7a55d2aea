package shm

import (
	"context"
	"errors"
	"time"
)

const (
	readerSpins = 2000 // looks at all lanes before sleeping, divided by their number: about 20 us
	pollEvery   = time.Millisecond
	pollFor     = 10 * time.Second // after a wake-up that did not come
)

var errNothing = errors.New("there is nothing to read")

// more waits until something is copied.
func (r *Reader) more(ctx context.Context) error {
	if r.late != nil {
		err := r.late
		r.late = nil
		return err
	}
	if !r.use.enter() {
		return r.use.refusal()
	}
	defer r.use.leave()
	spins := 0
	if spinning {
		spins = readerSpins / (1 + len(r.lanes)) &^ 31
	}
	for first := true; ; first = false {
		found, err := r.poll(first)
		if err != nil || found {
			return err
		}
		if spins%32 == 0 {
			r.settle()
			switch {
			case ctx == never:
				return errNothing
			case r.use.isClosed():
				return ErrClosed
			case ctx != nil && ctx.Err() != nil:
				return ctx.Err()
			}
		}
		if spins > 0 {
			spins--
			pause()
			continue
		}
		r.park(ctx)
	}
}

// hook makes the end of ctx wake this reader. The hook stays for later calls with the same ctx.
func (r *Reader) hook(ctx context.Context) {
	if ctx == nil || ctx == r.hooked || ctx.Done() == nil {
		return
	}
	if r.unhook != nil {
		r.unhook()
	}
	r.hooked, r.unhook = ctx, context.AfterFunc(ctx, r.interrupt)
}

// park sleeps until a lane has something new, members change, or the deadline passes. What it sleeps on is remembered
// before parked says so, and everything is looked at again after that: who publishes in between either sees parked and
// changes a word, or is seen.
func (r *Reader) park(ctx context.Context) {
	r.hook(ctx)
	words := append(r.waiting[:0], sharedWaiter(r.page.futex, r.page.futex.Load()), privateWaiter(&r.private, r.private.Load()))
	for _, l := range r.lanes {
		if !l.corrupt {
			words = append(words, sharedWaiter(l.wake, l.wake.Load()))
		}
	}
	r.waiting = words
	r.generation++
	r.parked.Store(r.generation)
	again := r.pending.Load() != nil || r.use.isClosed() || ctx != nil && ctx.Err() != nil || r.page.Epoch() > max(r.seen, r.pulled) || r.hasNew()
	timedOut, deadline := false, int64(0)
	if !again {
		now := monotonic()
		deadline = now + int64(backstop)
		if now < r.pollUntil {
			deadline = now + int64(pollEvery)
		}
		r.stats.parks++
		storeRelaxed(r.counters.parks, r.stats.parks)
		timedOut = sleep(words, deadline)
	}
	r.generation++
	r.parked.Store(r.generation)
	if timedOut && r.hasNew() && !justWoken(r.wasWoken, deadline) {
		r.stats.backstops++
		storeRelaxed(r.counters.backstops, r.stats.backstops)
		r.pollUntil = monotonic() + int64(pollFor)
	}
}

// wasWoken reports whether the wake word of a lane that has something new is another than when the sleep began.
func (r *Reader) wasWoken() bool {
	i := 2 // the words of waiting: the epoch, the private one, and one for each lane
	for _, l := range r.lanes {
		if l.corrupt {
			continue
		}
		if l.hasNew() && uint64(l.wake.Load()) != r.waiting[i].value {
			return true
		}
		i++
	}
	return false
}

// justWoken says whether a sleep that ended at its deadline, with something to be found, may be put down to chance: the wake-up
// comes a moment later, or came while this thread did not run. A wake word that has changed at once is one whose sleepers
// were moved elsewhere.
func justWoken(wasWoken func() bool, deadline int64) bool {
	if wasWoken() {
		return monotonic()-deadline > int64(time.Millisecond)
	}
	for range 2 {
		time.Sleep(time.Millisecond)
		if wasWoken() {
			return true
		}
	}
	return false
}

// hasNew reports whether a lane has something that was not read.
func (r *Reader) hasNew() bool {
	for _, l := range r.lanes {
		if l.hasNew() {
			return true
		}
	}
	return false
}
