package broker

import (
	"context"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
)

// fair keeps one principal's flood from being everybody's latency. Each call is taken to be some work, and the work of a
// principal counts against a share of all time. Who has done more waits for a turn, but only for the sake of somebody
// else who is there and does less than half as much.
//
//	paid - now
//	        │       │╲  │╲ │╲        Each call lifts it by its work / share, and time lowers it.
//	        │     │╲│ ╲ │ ╲│ ╲
//	        │   │╲│    ╲│     ╲      Above 0 the next call waits until the turn in which it would be at 0.
//	      0 ┼─│╲│──────────────╲──
//	        │╲│                 ╲    Below 0 it goes at once.
//	 -burst │                    ╲___
//
// Turns are fairTurn long, and all that is due in one goes at its beginning: so that a flood's calls share a commit, and
// the disk and the processors are free between, instead of always busy with one of them.
//
// Who is there has lately sent, been given messages, or settled some, and been granted it: calls that are refused, and
// those that look and manage, slow nobody else, however often they come. They are work all the same.
//
// Nobody waits who is alone, or among others like him, or for the sake of those who use the same queue: a producer and the
// consumers of what it sends do not slow each other. Nobody starves: a call waits for no more than what its own principal
// asked for before it. Settlements wait for nobody, since they make room; nor does what comes through kernel doors, whose
// senders nobody knows and whose kernel queue bounds them. Who may wait must hold no lock, and no place in line; it does
// hold its messages, and quota.Streams bounds how many calls of one principal can do so.
//
// What it costs: whoever does more than the share is held to it while somebody quieter is there, even where the quieter one
// would not have noticed. He may call at any moment and then meets what is under way, so that the flood must be small
// before he does; and to find out how much he bears one would have to let it go now and then, for which his 99th
// percentile leaves a hundredth of the time.
type fair struct {
	began time.Time // all times count from here
	share float64   // of all time, for one who must wait

	mu       sync.Mutex // guards what follows; the last lock taken
	uses     map[identity.Principal]*use
	keep     int // how many uses there may be before those that are over are forgotten
	held     uint64
	heldTime time.Duration
}

// use is what one principal has had lately.
type use struct {
	paid time.Duration      // when all that it asked for is within its share
	work float64            // ns of the last moments: it halves with each fairMemory
	at   time.Duration      // what work is as of
	seen time.Duration      // when it last was granted to send, receive or settle
	on   [fairQueues]uint64 // ids of queues on which it was, lately; the oldest at next
	next int
}

const (
	fairBurst  = 40 * time.Millisecond  // what a short burst may be ahead, in time: on two processors a quarter of it is work
	fairTurn   = 5 * time.Millisecond   // a few commits, and little against what people notice
	fairMemory = 100 * time.Millisecond // what was done counts half after it, and so on: long against a turn
	fairThere  = 100 * time.Millisecond // who sent, received and settled nothing for so long is not there: ten calls a second are protected
	fairGone   = time.Second            // and is then forgotten, when others come: little is left of its work
	fairQueues = 4
	fairKeep   = 256
)

// What a call is taken to be worth, in time of one processor and of the disk. It need only be right in proportion.
// internal/bench and internal/bench/flood, whose floods are of calls, of messages and of bytes each, are where to look when
// it is changed.
const (
	callWork    = 50 * time.Microsecond // what a unary call takes with many under way (BenchmarkDurableSend64), about
	messageWork = 250 * time.Nanosecond // and a message of a batch: the daemon's part of what BenchmarkSenderBatches tells, about
	byteWork    = 8 * time.Nanosecond   // it is copied, written, synced (3 ns alone), its segment zeroed, and garbage collected
	adminWork   = 4 * callWork          // calls that make or change a queue
)

// shareOf is the share on a machine with so many processors: an eighth of them. Beside what counts here a flood costs the
// daemon its transport and its garbage, and the machine the flooder itself. On two processors, where it was found, a
// victim's 99th percentile is then no worse than while a flooder merely spins (internal/bench/flood). It is never more
// than one processor, as the journal's disk is one.
func shareOf(processors int) float64 { return min(1, float64(processors)/8) }

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
	return &fair{began: time.Now(), share: shareOf(runtime.GOMAXPROCS(0)), uses: map[identity.Principal]*use{}, keep: fairKeep}
}

// findInTurn is find for a call of so much work, which then waits for its turn. One that is refused waits too, before it
// is told: a flood of them is a flood.
func (b *Broker) findInTurn(ctx context.Context, id identity.Identity, name string, want access.Right, work time.Duration) (*served, error) {
	s, err := b.find(id, name, want)
	if err != nil {
		if _, turnErr := b.fair.enter(ctx, id.Principal(), work); turnErr != nil {
			return nil, turnErr
		}
		return nil, err
	}
	held, err := b.fair.enter(ctx, id.Principal(), work, s.id)
	if err != nil {
		return nil, err
	}
	if held {
		return b.find(id, name, want) // it may be deleted, and access withdrawn
	}
	return s, nil
}

// adminTurn waits for the turn of a call that looks or manages. Admins wait for nothing, so that they can see and mend
// what goes on even if it is their own uid that floods.
func (b *Broker) adminTurn(ctx context.Context, id identity.Identity, work time.Duration) error {
	if b.access.Admin(id) {
		return nil
	}
	_, err := b.fair.enter(ctx, id.Principal(), work)
	return err
}

// heldBack returns how many calls have waited for a turn, and for how long together.
func (f *fair) heldBack() (calls uint64, total time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held, f.heldTime
}

// enter counts the work of a call that is about those queues (none: it is refused, or looks or manages), and waits while it
// is not its principal's turn; held tells that it did. An error is the context's; a call that gave up waiting stays
// counted, for it has cost something.
func (f *fair) enter(ctx context.Context, p identity.Principal, work time.Duration, queues ...uint64) (held bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Since(f.began)
	u := f.useLocked(p, now)
	due, lift := f.countLocked(u, now, work)
	for due -= due % fairTurn; due > now; {
		if !f.crowdsLocked(u, queues, now) {
			f.forgiveLocked(u, now, lift)
			break
		}
		if !held {
			held = true
			f.held++
		}
		f.mu.Unlock()
		err := sleep(ctx, min(due-now, fairMemory))
		f.mu.Lock()
		before := now
		now = time.Since(f.began)
		f.heldTime += now - before
		if err != nil {
			return held, err
		}
	}
	u.doLocked(now, work)
	return held, nil
}

// count is enter for work that is done already, or that is not to be held up: later calls wait for it.
func (f *fair) count(p identity.Principal, work time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Since(f.began)
	f.doneLocked(f.useLocked(p, now), now, work)
}

func (f *fair) doneLocked(u *use, now, work time.Duration, queues ...uint64) {
	_, lift := f.countLocked(u, now, work)
	u.doLocked(now, work)
	if u.paid > now+fairTurn && !f.crowdsLocked(u, queues, now) {
		f.forgiveLocked(u, now, lift)
	}
}

// granted notes that a principal is there: it sends to a queue, receives from it, or settles what it received. It counts
// work that this was beside what enter was told.
func (f *fair) granted(p identity.Principal, queue uint64, work time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Since(f.began)
	u := f.useLocked(p, now)
	u.seen = now
	if !slices.Contains(u.on[:], queue) {
		u.on[u.next] = queue
		u.next = (u.next + 1) % fairQueues
	}
	if work > 0 {
		f.doneLocked(u, now, work, queue)
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

// useLocked returns what a principal has had.
func (f *fair) useLocked(p identity.Principal, now time.Duration) *use {
	if u := f.uses[p]; u != nil {
		return u
	}
	if len(f.uses) >= f.keep {
		// Calls that wait have a paid that is ahead, so that theirs is never among them.
		maps.DeleteFunc(f.uses, func(_ identity.Principal, u *use) bool { return u.paid < now && now-max(u.at, u.seen) > fairGone })
		f.keep = max(fairKeep, 2*len(f.uses))
	}
	u := &use{paid: now - fairBurst, at: now, seen: now - fairThere}
	f.uses[p] = u
	return u
}

// countLocked counts work. It returns when all before it is paid, and by how much it lifted that.
func (f *fair) countLocked(u *use, now, work time.Duration) (due, lift time.Duration) {
	due, lift = max(u.paid, now-fairBurst), time.Duration(float64(work)/f.share)
	u.paid = due + lift
	return due, lift
}

// forgiveLocked is for a call that harmed nobody: it runs up no debt, which would have to be paid once somebody is there.
// What was run up by harming others stays while they are there, or calls on a queue that is shared with them would be a
// way out of it.
func (f *fair) forgiveLocked(u *use, now, lift time.Duration) {
	u.paid -= lift
	if !f.crowdsLocked(u, nil, now) {
		u.paid = min(u.paid, now+fairTurn)
	}
}

// doLocked notes that work is done now.
func (u *use) doLocked(now, work time.Duration) {
	u.work = u.recentLocked(now) + float64(work)
	u.at = now
}

// recentLocked is how much was done in the last moments.
func (u *use) recentLocked(now time.Duration) float64 {
	return u.work * math.Exp2(-float64(now-u.at)/float64(fairMemory))
}

// crowdsLocked reports whether somebody else is there who does less than half as much, and on none of those queues.
func (f *fair) crowdsLocked(u *use, queues []uint64, now time.Duration) bool {
	if len(f.uses) == 1 {
		return false
	}
	for _, other := range f.uses {
		if other != u && now-other.seen < fairThere && !other.onAny(queues) && 2*other.recentLocked(now) < u.recentLocked(now) {
			return true
		}
	}
	return false
}

// onAny reports whether it was lately on one of the queues, of which the first few count.
func (u *use) onAny(queues []uint64) bool {
	return slices.ContainsFunc(queues[:min(len(queues), fairQueues)], func(id uint64) bool { return slices.Contains(u.on[:], id) })
}
