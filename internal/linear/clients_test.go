//go:build linux

package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ipcd/ipcd/client"
)

// target is one queue that clients work on, with what they do written down.
type target struct {
	*record
	rules
	name     string
	settings client.QueueSettings
	types    int
	// Payloads are on disk alone. A receive of several ends at one that has to be read, or goes on after that: it is no single
	// step, and not asked for.
	onDisk bool
}

// newTarget chooses a queue's settings. Where messages or attempts may be lost there are many attempts: it would not be known
// what is buried.
func newTarget(name string, random *rand.Rand, between interlude) *target {
	t := &target{name: name, types: 1 + random.IntN(3)}
	lease := time.Duration(20+random.IntN(150)) * time.Millisecond
	t.record, t.durable, t.maxAttempts = newRecord(lease), random.IntN(2) == 0, 2+random.IntN(2)
	if between == isKilled || between == isRestarted && !t.durable || random.IntN(3) == 0 {
		t.maxAttempts = 65535
	}
	t.settings = client.QueueSettings{Lease: lease, MaxAttempts: t.maxAttempts, Durability: client.DurabilityMemory, Mqueue: client.KernelQueue{Mode: client.KernelNone}}
	if t.durable {
		t.settings.Durability = client.DurabilityJournal
	}
	return t
}

// worker is one client of a queue.
type worker struct {
	*target
	who    int
	random *rand.Rand
	c      *client.Client
	q      *client.Queue
	mortal bool  // the daemon may be killed meanwhile
	own    []int // deliveries that it did not settle yet
}

// work does so many random operations. lives ends with the daemon: what was not answered then has an unknown outcome.
func (w *worker) work(lives context.Context, operations int) error {
	for range operations {
		if lives.Err() != nil {
			return nil
		}
		var err error
		switch n := w.random.IntN(100); {
		case n < 28:
			err = w.send(lives)
		case n < 60:
			wait := time.Duration(0)
			if w.random.IntN(3) == 0 {
				wait = time.Duration(w.random.IntN(40)) * time.Millisecond
			}
			err = w.receive(lives, w.selector(), 1+w.random.IntN(3), wait, w.random.IntN(6) == 0)
		case n < 95:
			err = w.settle(lives)
		default:
			err = w.kick(lives)
		}
		if err != nil && lives.Err() == nil {
			return err
		}
	}
	return nil
}

// done records an operation. Of one that fails the outcome is unknown, if the daemon is to be killed; else it is a failure.
func (w *worker) done(lives context.Context, c call, out output, err error) error {
	if err != nil {
		// The daemon may be gone, which is not known here yet.
		if !w.mortal {
			return err
		}
		select {
		case <-lives.Done():
		case <-time.After(patience):
			return err
		}
	}
	w.end(w.who, c, out, err != nil)
	return nil
}

func (w *worker) send(lives context.Context) error {
	var in input
	var messages []client.Message
	delay := time.Duration(0)
	if w.random.IntN(6) == 0 {
		delay = time.Duration(5+w.random.IntN(40)) * time.Millisecond
	}
	for range 1 + w.random.IntN(3) {
		m := sent{message: w.messageNumber(), typ: int64(1 + w.random.IntN(w.types)), priority: uint16(w.random.IntN(3)), delayed: delay > 0}
		in.messages = append(in.messages, m)
		messages = append(messages, client.Message{Type: m.typ, Priority: m.priority, Delay: delay, Body: []byte(strconv.Itoa(m.message))})
	}
	in.kind = send
	in.delay = delay
	c := w.begin(in)
	stored, err := w.q.Send(lives, messages...)
	var out output
	if err == nil {
		out.first = stored[0].Sequence
	}
	return w.done(lives, c, out, err)
}

func (w *worker) selector() client.Selector {
	typ := int64(1 + w.random.IntN(w.types))
	switch w.random.IntN(8) {
	case 0:
		return client.Type(typ)
	case 1:
		return client.UpTo(typ)
	case 2:
		return client.Not(typ)
	case 3:
		return client.OneOf(typ, int64(1+w.random.IntN(w.types)))
	}
	return client.Selector{}
}

func (w *worker) receive(lives context.Context, s client.Selector, n int, wait time.Duration, atOnce bool) error {
	if w.onDisk {
		n = 1
	}
	c := w.begin(input{kind: receive, selector: s, max: n, atOnce: atOnce})
	deliveries, err := w.q.Receive(lives, n, client.ReceiveOptions{Selector: s, Wait: wait, AtOnce: atOnce})
	var out output
	for _, d := range deliveries {
		number, bad := strconv.Atoi(string(d.Body))
		if bad != nil {
			return fmt.Errorf("a message with the body %q: %w", d.Body, bad)
		}
		g := got{message: number, sequence: d.Sequence, attempts: d.Attempts, hand: nobody}
		if !atOnce {
			g.deadline = d.LeaseExpires.UnixNano()
			g.hand = w.deliveryNumber(delivery{receipt: d.Receipt, message: number, until: g.deadline, life: c.life})
			w.own = append(w.own, g.hand)
		}
		out.got = append(out.got, g)
	}
	return w.done(lives, c, out, err)
}

// settle settles a delivery: mostly one of its own, else any that there ever was. It touches only its own, so that it is
// known which end of the lease was the last.
func (w *worker) settle(lives context.Context) error {
	kind := [...]action{ack, ack, nack, nack, touch, release, bury}[w.random.IntN(7)]
	hand := nobody
	if len(w.own) > 0 && (kind == touch || w.random.IntN(5) > 0) {
		i := w.random.IntN(len(w.own))
		if hand = w.own[i]; kind != touch {
			w.own = append(w.own[:i], w.own[i+1:]...)
		}
	} else if kind != touch {
		hand = w.anyDelivery(w.random)
	}
	if hand == nobody {
		return nil
	}
	return w.settleAs(lives, kind, hand)
}

func (w *worker) settleAs(lives context.Context, kind action, hand int) error {
	receipt := w.receipt(hand)
	in := input{kind: kind, hand: hand}
	if kind == nack && w.random.IntN(2) == 0 {
		in.delay = time.Duration(5+w.random.IntN(40)) * time.Millisecond
	}
	c := w.begin(in)
	var out output
	var err error
	if kind == touch {
		var until time.Time
		until, err = w.c.Touch(lives, receipt, time.Duration(w.random.IntN(2)*(20+w.random.IntN(100)))*time.Millisecond)
		out.deadline = until.UnixNano()
	} else {
		outcome := map[action]client.Outcome{ack: client.OutcomeAck, nack: client.OutcomeNack, release: client.OutcomeRelease, bury: client.OutcomeBury}[kind]
		err = w.c.Settle(lives, client.Settlement{Receipt: receipt, Outcome: outcome, Delay: in.delay})
	}
	if errors.Is(err, client.ErrStaleReceipt) {
		out.stale, err = true, nil
	}
	return w.done(lives, c, out, err)
}

func (w *worker) kick(lives context.Context) error {
	c := w.begin(input{kind: kick})
	n, err := w.c.KickQueue(lives, w.name, client.SelectOptions{})
	return w.done(lives, c, output{count: int(n)}, err)
}

// drain consumes all that is left, alone, and sees that nothing is.
func (w *worker) drain(lives context.Context) error {
	for {
		c := w.begin(input{kind: empty})
		info, err := w.c.GetQueue(lives, w.name)
		if err != nil {
			return err
		}
		if info.Stats.Messages() == 0 {
			return w.done(lives, c, output{}, nil)
		}
		if info.Stats.Buried > 0 {
			if err := w.kick(lives); err != nil {
				return err
			}
		}
		// Some at once and some with a lease: both ways tell of every message that is left how often it failed.
		if err := w.receive(lives, client.Selector{}, 10, 20*time.Millisecond, w.random.IntN(2) == 0); err != nil {
			return err
		}
		for len(w.own) > 0 {
			hand := w.own[0]
			w.own = w.own[1:]
			if err := w.settleAs(lives, ack, hand); err != nil {
				return err
			}
		}
	}
}
