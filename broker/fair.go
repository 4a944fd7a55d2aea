package broker

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
)

// fair keeps one principal's flood from being everybody's latency. Each call is taken to be some work, and the work of a
// principal counts against a share of all time. Who has done more waits for a turn, but only for the sake of somebody
// else who is there and does less than half as much.
//
//	paid - now
//	        │       │╲  │╲ │╲        Each call lifts it by its work / fairShare, and time lowers it.
//	        │     │╲│ ╲ │ ╲│ ╲
//	        │   │╲│    ╲│     ╲      Above 0 the next call waits until the turn in which it would be at 0.
//	      0 ┼─│╲│──────────────╲──
//	        │╲│                 ╲    Below 0 it goes at once.
//	 -burst │                    ╲___
//
// Turns are fairTurn long, and all that is due in one goes at its beginning: so that a flood's calls share a commit, and
// the disk and the processors are free between, instead of always busy with one of them.
//
// Nobody waits who is alone, or among others like him, or for the sake of those who use the same queue: a producer and the
// consumers of what it sends do not slow each other. Nobody starves: a call waits for no more than what its own principal
// asked for before it. Who may wait must hold no lock, and no place in line.
type fair struct {
	began time.Time // all times count from here

	mu   sync.Mutex // guards what follows; the last lock taken
	uses map[identity.Principal]*use
	keep int // how many uses there may be before those that are over are forgotten
}

// use is what one principal has had lately.
type use struct {
	paid time.Duration // when all that it asked for is within its share
	seen time.Duration // when it last asked for, or was given, something
	work float64       // ns of the last moments: it halves with each fairMemory
	on   [4]string     // queues that it used last, the oldest at next
	next int
}

const (
	fairShare  = 0.25                   // of all time, for one who must wait
	fairBurst  = 40 * time.Millisecond  // what a short burst may be ahead, in time: a quarter of it is work
	fairTurn   = 5 * time.Millisecond   // a few commits, and little against what people notice
	fairMemory = 100 * time.Millisecond // what was done counts half after it, and so on
	fairThere  = 500 * time.Millisecond // who asked for nothing for so long is not there; a call may take a while
	fairKeep   = 256
)

// What a call is taken to be worth. It is measured in time of one processor, and of the disk, but need only be right
// in proportion.
const (
	callWork    = 50 * time.Microsecond
	messageWork = 250 * time.Nanosecond
	byteWork    = 8 * time.Nanosecond // it is copied, written and synced, its segment zeroed, and garbage collected
	adminWork   = 4 * callWork        // calls that make or change a queue
)

// workOf is the work of a call with so many messages, of so many bytes together.
func workOf(messages int, bytes int64) time.Duration {
	return callWork + time.Duration(messages)*messageWork + time.Duration(bytes)*byteWork
}

// sendWork is the work of a send.
func sendWork(messages []queue.Message) time.Duration {
	return workOf(len(messages), totalBytes(messages))
}

// deliveryWork is the work of handing out messages.
func deliveryWork(deliveries []queue.Delivery) (work time.Duration) {
	for i := range deliveries {
		work += messageWork + time.Duration(deliveries[i].Bytes())*byteWork
	}
	return work
}

func newFair() *fair {
	return &fair{began: time.Now(), uses: map[identity.Principal]*use{}, keep: fairKeep}
}

// enter counts the work of a call that is about the queue of that name ("": several, or none), and waits while it is
// not its principal's turn. An error is the context's; a call that gave up waiting stays counted, for it has cost
// something.
func (f *fair) enter(ctx context.Context, p identity.Principal, name string, work time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Since(f.began)
	u := f.useLocked(p, name, now)
	due := u.countLocked(now, work)
	for due -= due % fairTurn; due > now; now = time.Since(f.began) {
		if !f.crowdsLocked(u, name, now) {
			// While it harms nobody it runs up no debt, which it would have to pay once it does.
			u.paid = min(u.paid, now+fairTurn)
			break
		}
		f.mu.Unlock()
		err := sleep(ctx, min(due-now, fairMemory))
		f.mu.Lock()
		if err != nil {
			return err
		}
	}
	u.doLocked(now, work)
	return nil
}

// count is enter for work that is done already, or that is not to be held up: later calls wait for it.
func (f *fair) count(p identity.Principal, name string, work time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Since(f.began)
	u := f.useLocked(p, name, now)
	u.countLocked(now, work)
	u.doLocked(now, work)
	if !f.crowdsLocked(u, name, now) {
		u.paid = min(u.paid, now+fairTurn)
	}
}

// sleep waits for a time, or until the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// useLocked returns what a principal has had, and notes that it uses a queue; "": none in particular.
func (f *fair) useLocked(p identity.Principal, name string, now time.Duration) *use {
	u := f.uses[p]
	if u == nil {
		u = f.newLocked(p, now)
	}
	if name != "" && !slices.Contains(u.on[:], name) {
		u.on[u.next] = name
		u.next = (u.next + 1) % len(u.on)
	}
	return u
}

func (f *fair) newLocked(p identity.Principal, now time.Duration) *use {
	if len(f.uses) >= f.keep {
		// Calls that wait have a paid that is ahead, so that theirs is never among them.
		maps.DeleteFunc(f.uses, func(_ identity.Principal, u *use) bool { return u.paid < now && now-u.seen > 2*fairThere })
		f.keep = max(fairKeep, 2*len(f.uses))
	}
	u := &use{paid: now - fairBurst, seen: now}
	f.uses[p] = u
	return u
}

// countLocked counts work and returns when all before it is paid.
func (u *use) countLocked(now, work time.Duration) (due time.Duration) {
	due = max(u.paid, now-fairBurst)
	u.paid = due + time.Duration(float64(work)/fairShare)
	return due
}

// doLocked notes that work is done now.
func (u *use) doLocked(now, work time.Duration) {
	u.work = u.recentLocked(now) + float64(work)
	u.seen = now
}

// recentLocked is how much was done in the last moments.
func (u *use) recentLocked(now time.Duration) float64 {
	return u.work * math.Exp2(-float64(now-u.seen)/float64(fairMemory))
}

// crowdsLocked reports whether somebody else is there who does less than half as much, on other queues than that.
func (f *fair) crowdsLocked(u *use, name string, now time.Duration) bool {
	mine := u.recentLocked(now)
	for _, other := range f.uses {
		if other != u && now-other.seen < fairThere && 2*other.recentLocked(now) < mine && (name == "" || !slices.Contains(other.on[:], name)) {
			return true
		}
	}
	return false
}
