package main

import (
	"sync"
	"time"

	"github.com/ipcd/ipcd/client"
)

// lossesEvery is how often losses are told while there are ever more of them.
const lossesEvery = time.Second

// losses tells on stderr what a subscriber lost: the first loss at once, more at most every lossesEvery.
type losses struct {
	a    *app
	ring string

	mu     sync.Mutex // guards all below
	untold uint64
	total  uint64
	last   uint64      // the lane of the last loss
	timer  *time.Timer // runs while more must wait to be told; nil: none does
}

// add notes what was lost before a message.
func (l *losses) add(d *client.RingDelivery) {
	if d.Lost == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.untold, l.total, l.last = l.untold+d.Lost, l.total+d.Lost, d.LaneID
	if l.timer == nil {
		l.tellLocked()
		l.timer = time.AfterFunc(lossesEvery, l.elapsed)
	}
}

// elapsed tells what came since the last word.
func (l *losses) elapsed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.timer == nil: // it is over
	case l.untold == 0:
		l.timer = nil
	default:
		l.tellLocked()
		l.timer.Reset(lossesEvery)
	}
}

// end tells what was not told yet.
func (l *losses) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.untold > 0 {
		l.tellLocked()
	}
}

func (l *losses) tellLocked() {
	l.a.say("lost %s of %s, the last in lane %d; %d in all", count(l.untold, "message"), escapeLine(l.ring), l.last, l.total)
	l.untold = 0
}
