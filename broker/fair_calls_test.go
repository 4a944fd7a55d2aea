package broker

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// loud is who floods, and has /loud; bob and alice are who might be harmed.
var loud = identity.Identity{Kind: identity.Unix, UID: 2001, GID: 2001}

func (w *world) createAs(id identity.Identity, name string, mode uint32) {
	w.Helper()
	_, _, err := w.CreateQueue(w.ctx, id, name, func(s *queue.Settings) error { s.Mode = mode; return nil }, true)
	w.must(err)
}

func (w *world) sendAs(id identity.Identity, name string) error {
	_, err := w.Send(w.ctx, id, SendRequest{Queue: name, Messages: []queue.Message{{Type: 1}}})
	return err
}

func (w *world) transactAs(id identity.Identity, name string, acks ...queue.Receipt) error {
	_, err := w.Transact(w.ctx, id, TransactRequest{Sends: []TransactSend{{Queue: name, Messages: []queue.Message{{Type: 1}}}}, Acks: acks})
	return err
}

// flooded lets a principal have flooded: while somebody is there who does less, its next call waits.
func (w *world) flooded(id identity.Identity) { w.fair.count(id.Principal(), time.Second) }

// waits tells how long a call was held up.
func (w *world) waits(call func() error) time.Duration {
	w.Helper()
	began := time.Now()
	w.must(call())
	return time.Since(began)
}

// Only who was granted to send, receive or settle is there; who looks, manages or is refused slows nobody.
func TestWhoIsThereForOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.createAs(loud, "/loud", 0o600)
		w.createAs(bob, "/bob", 0o600)
		var got []queue.Delivery
		var c *Consumer
		deliver := func() {
			var err error
			w.must(w.sendAs(bob, "/bob"))
			got, err = w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/bob"})
			w.must(err)
		}
		consume := func() {
			var err error
			w.must(w.sendAs(bob, "/bob"))
			c, err = w.Consume(w.ctx, bob, ConsumeRequest{Queue: "/bob"})
			w.must(err)
			w.must(c.Credit(1, 0))
		}
		next := func() error { _, err := c.Next(w.ctx); return err }
		settleTag := func() error {
			_, _, err := c.Settle([]TagSettlement{{First: 1, Last: 1, Verdict: Verdict{Outcome: Ack}}})
			return err
		}
		settle := func() error {
			_, err := w.Settle(w.ctx, bob, []Settlement{{Receipt: got[0].Receipt, Verdict: Verdict{Outcome: Ack}}})
			return err
		}
		for _, call := range []struct {
			name   string
			before func()
			do     func() error
			there  bool
		}{
			{"receive of nothing", nil, func() error { _, err := w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/bob"}); return err }, true},
			{"send", nil, func() error { return w.sendAs(bob, "/bob") }, true},
			{"receive", nil, func() error { _, err := w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/bob"}); return err }, true},
			{"transaction", nil, func() error { return w.transactAs(bob, "/bob") }, true},
			{"settle", deliver, settle, true},
			{"settle what is settled", nil, settle, false},
			{"settle nothing", nil, func() error { _, err := w.Settle(w.ctx, bob, nil); return err }, false},
			{"delivery", consume, next, true},
			{"settle by tag", nil, settleTag, true},
			{"settle by tag what is settled", nil, settleTag, false},
			{"send to nowhere", nil, func() error { return w.sendAs(bob, "/none") }, false},
			{"send, denied", nil, func() error { return w.sendAs(bob, "/loud") }, false},
			{"send, malformed name", nil, func() error { return w.sendAs(bob, "bob") }, false},
			{"send, invalid", nil, func() error {
				_, err := w.Send(w.ctx, bob, SendRequest{Queue: "/bob", Messages: []queue.Message{{Type: -1}}})
				return err
			}, false},
			{"receive, denied", nil, func() error { _, err := w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/loud"}); return err }, false},
			{"receive, invalid", nil, func() error { _, err := w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/bob", Max: -1}); return err }, false},
			{"transaction, denied", nil, func() error { return w.transactAs(bob, "/loud") }, false},
			{"create", nil, func() error { w.createAs(bob, "/new", 0o600); return nil }, false},
			{"update", nil, func() error {
				_, err := w.UpdateQueue(w.ctx, bob, "/bob", func(s *queue.Settings) error { s.MaxMessages++; return nil })
				return err
			}, false},
			{"get", nil, func() error { _, err := w.GetQueue(w.ctx, bob, "/bob"); return err }, false},
			{"list", nil, func() error { _, err := w.ListQueues(w.ctx, bob, ""); return err }, false},
			{"peek", nil, func() error { _, err := w.Peek(w.ctx, bob, PeekRequest{Queue: "/bob"}); return err }, false},
			{"pause", nil, func() error { _, err := w.PauseQueue(w.ctx, bob, "/bob", false); return err }, false},
			{"kick", nil, func() error { _, _, err := w.Kick(w.ctx, bob, SelectRequest{Queue: "/bob"}); return err }, false},
			{"purge", nil, func() error { _, _, err := w.Purge(w.ctx, bob, SelectRequest{Queue: "/bob"}); return err }, false},
			{"move", nil, func() error { _, _, err := w.Move(w.ctx, bob, MoveRequest{From: "/bob", To: "/new"}); return err }, false},
			{"move, denied", nil, func() error { _, _, err := w.Move(w.ctx, bob, MoveRequest{From: "/loud", To: "/bob"}); return err }, false},
			{"redrive", nil, func() error { _, err := w.Redrive(w.ctx, bob, RedriveRequest{Queue: "/bob"}); return err }, false},
			{"import, invalid", nil, func() error { _, err := w.Import(w.ctx, bob, ImportRequest{Queue: "/bob"}); return err }, false},
			{"delete", nil, func() error { _, err := w.DeleteQueue(w.ctx, bob, "/new"); return err }, false},
		} {
			if call.before != nil {
				call.before()
			}
			w.fair = newFair()
			err := call.do()
			w.flooded(loud)
			if d := w.waits(func() error { return w.sendAs(loud, "/loud") }); (d > 0) != call.there {
				t.Errorf("%s (%v): who floods waited %v", call.name, err, d)
			}
		}
	})
}

// Whoever calls ten times a second is there all the time.
func TestTenCallsASecondAreProtected(t *testing.T) {
	inWorld(t, func(w *world) {
		w.createAs(loud, "/loud", 0o600)
		w.createAs(bob, "/bob", 0o600)
		for range 10 {
			w.must(w.sendAs(bob, "/bob"))
			pass(99 * time.Millisecond)
			w.flooded(loud)
			if d := w.waits(func() error { return w.sendAs(loud, "/loud") }); d == 0 {
				t.Fatal("who floods did not wait")
			}
		}
	})
}

func TestNamesOfRefusedCallsAreNotKept(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	ctx := context.Background()
	for what, call := range map[string]func(name string) error{
		"get":  func(name string) error { _, err := b.GetQueue(ctx, bob, name); return err },
		"send": func(name string) error { _, err := b.Send(ctx, bob, SendRequest{Queue: name}); return err },
	} {
		name := strings.Repeat("x", 1<<20)
		kept := weak.Make(unsafe.StringData(name))
		if err := call(name); reason.Of(err) != reason.InvalidArgument {
			t.Fatal(err)
		}
		name = ""
		runtime.GC()
		if kept.Value() != nil {
			t.Errorf("%s: the name of a refused call is in memory still", what)
		}
	}
}

// Calls that are denied on the queue of somebody else are not about the same queue as his.
func TestDeniedCallsAreHeldUpWhateverQueueTheyName(t *testing.T) {
	inWorld(t, func(w *world) {
		w.createAs(bob, "/bob", 0o600)
		for what, call := range map[string]func() error{
			"send":        func() error { return w.sendAs(loud, "/bob") },
			"receive":     func() error { _, err := w.Receive(w.ctx, loud, ReceiveRequest{Queue: "/bob"}); return err },
			"transaction": func() error { return w.transactAs(loud, "/bob") },
			"get":         func() error { _, err := w.GetQueue(w.ctx, loud, "/bob"); return err },
		} {
			w.fair = newFair()
			w.must(w.sendAs(bob, "/bob"))
			w.flooded(loud)
			began := time.Now()
			w.wants(call(), reason.AccessDenied)
			if time.Since(began) == 0 {
				t.Errorf("%s: it was refused at once, as often as one likes", what)
			}
		}
	})
}

// Who is held up meanwhile loses access, and his call comes too late.
func TestAccessIsAskedForAgainAfterTheWait(t *testing.T) {
	inWorld(t, func(w *world) {
		w.createAs(loud, "/loud", 0o600)
		w.createAs(alice, "/alice", 0o602)
		w.createAs(bob, "/bob", 0o600)
		mode := func(mode uint32) {
			_, err := w.UpdateQueue(w.ctx, alice, "/alice", func(s *queue.Settings) error { s.Mode = mode; return nil })
			w.must(err)
		}
		for _, call := range []func() error{
			func() error { return w.sendAs(loud, "/alice") },
			func() error { return w.transactAs(loud, "/alice") },
		} {
			w.fair = newFair()
			mode(0o602)
			w.must(w.sendAs(bob, "/bob"))
			w.flooded(loud)
			done := make(chan error)
			go func() { done <- call() }()
			pass(time.Millisecond)
			mode(0o600)
			w.wants(<-done, reason.AccessDenied)
		}
	})
}

// A consumer is not slowed for the sake of the producer of the same queue, even if it settles and passes on.
func TestConsumerIsNotSlowedForItsProducer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.createAs(bob, "/jobs", 0o666)
		w.createAs(loud, "/loud", 0o600)
		var got []queue.Delivery
		for _, call := range []struct {
			name string
			do   func() error
		}{
			{"receive", func() (err error) {
				got, err = w.Receive(w.ctx, loud, ReceiveRequest{Queue: "/jobs", Max: 2})
				return err
			}},
			{"settle", func() error {
				_, err := w.Settle(w.ctx, loud, []Settlement{{Receipt: got[0].Receipt, Verdict: Verdict{Outcome: Ack}}})
				return err
			}},
			{"transaction", func() error { return w.transactAs(loud, "/loud", got[1].Receipt) }},
		} {
			w.fair = newFair()
			for range 2 {
				w.must(w.sendAs(bob, "/jobs"))
			}
			w.flooded(loud)
			if d := w.waits(call.do); d != 0 {
				t.Errorf("%s: waited %v", call.name, d)
			}
		}
		w.must(w.sendAs(bob, "/jobs"))
		w.flooded(loud)
		if d := w.waits(func() error { return w.sendAs(loud, "/loud") }); d == 0 {
			t.Error("on a queue of its own it waited for nobody")
		}
	})
}

func TestSettlementsAreNeverHeldUpUnlessTheyMakeNoRoom(t *testing.T) {
	inWorld(t, func(w *world) {
		w.createAs(loud, "/loud", 0o600)
		w.createAs(bob, "/bob", 0o600)
		w.must(w.sendAs(loud, "/loud"))
		got, err := w.Receive(w.ctx, loud, ReceiveRequest{Queue: "/loud"})
		w.must(err)
		w.must(w.sendAs(bob, "/bob"))
		w.flooded(loud)
		settle := func() error {
			_, err := w.Settle(w.ctx, loud, []Settlement{{Receipt: got[0].Receipt, Verdict: Verdict{Outcome: Ack}}})
			return err
		}
		if d := w.waits(settle); d != 0 {
			t.Errorf("waited %v", d)
		}
		if d := w.waits(settle); d == 0 {
			t.Error("what is settled can be settled again as often as one likes")
		}
	})
}

func TestOperatorsDoNotWaitBehindTheirOwnUsersLoad(t *testing.T) {
	daemon := identity.Identity{Kind: identity.Unix, UID: 77, GID: 77}
	for _, id := range []identity.Identity{root, daemon} {
		inWorldWith(t, Options{Access: access.New(access.Policy{DaemonUID: daemon.UID}, nil)}, func(w *world) {
			w.createAs(id, "/own", 0o600)
			w.createAs(bob, "/bob", 0o600)
			w.must(w.sendAs(bob, "/bob"))
			w.flooded(id)
			d := w.waits(func() error {
				_, get := w.GetQueue(w.ctx, id, "/bob")
				_, list := w.ListQueues(w.ctx, id, "")
				_, peek := w.Peek(w.ctx, id, PeekRequest{Queue: "/bob"})
				_, pause := w.PauseQueue(w.ctx, id, "/bob", false)
				_, update := w.UpdateQueue(w.ctx, id, "/bob", func(s *queue.Settings) error { s.MaxMessages++; return nil })
				_, _, kick := w.Kick(w.ctx, id, SelectRequest{Queue: "/bob"})
				_, _, purge := w.Purge(w.ctx, id, SelectRequest{Queue: "/bob"})
				w.createAs(id, "/new", 0o600)
				_, _, move := w.Move(w.ctx, id, MoveRequest{From: "/bob", To: "/new"})
				_, redrive := w.Redrive(w.ctx, id, RedriveRequest{Queue: "/bob"})
				_, remove := w.DeleteQueue(w.ctx, id, "/new")
				return errors.Join(get, list, peek, pause, update, kick, purge, move, redrive, remove)
			})
			if d != 0 {
				t.Errorf("%v waited %v", id, d)
			}
			if d := w.waits(func() error { return w.sendAs(id, "/own") }); d == 0 {
				t.Errorf("%v floods as nobody else may", id)
			}
		})
	}
}

// Whoever may write to a kernel queue is unknown: what comes that way uses up nobody's share.
func TestWhatComesThroughDoorsIsNotItsOwnersDoing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.createAs(loud, "/loud", 0o600)
		w.createAs(bob, "/bob", 0o600)
		s, err := w.lookup("/loud")
		w.must(err)
		w.must(w.sendAs(bob, "/bob"))
		d := w.waits(func() error {
			for range 20_000 {
				room, err := (*lane)(s).Reserve(w.ctx, 1, 1)
				if err != nil {
					return err
				}
				room.Release()
			}
			return w.sendAs(loud, "/loud")
		})
		if d != 0 {
			t.Errorf("the owner waited %v", d)
		}
	})
}

func TestEveryCallCounts(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	ctx := t.Context()
	id := identity.Identity{Kind: identity.Unix, UID: 1001}
	var c *Consumer
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"CreateQueue", func() error {
			_, _, err := b.CreateQueue(ctx, id, "/q", func(*queue.Settings) error { return nil }, false)
			return err
		}},
		{"CreateQueue", func() error {
			_, _, err := b.CreateQueue(ctx, id, "/q2", func(*queue.Settings) error { return nil }, false)
			return err
		}},
		{"UpdateQueue", func() error {
			_, err := b.UpdateQueue(ctx, id, "/q", func(s *queue.Settings) error { s.MaxMessages++; return nil })
			return err
		}},
		{"GetQueue", func() error { _, err := b.GetQueue(ctx, id, "/q"); return err }},
		{"ListQueues", func() error { _, err := b.ListQueues(ctx, id, ""); return err }},
		{"PauseQueue", func() error { _, err := b.PauseQueue(ctx, id, "/q", false); return err }},
		{"Send", func() error {
			_, err := b.Send(ctx, id, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}})
			return err
		}},
		{"Transact", func() error {
			_, err := b.Transact(ctx, id, TransactRequest{Sends: []TransactSend{{Queue: "/q", Messages: []queue.Message{{Type: 1}}}}})
			return err
		}},
		{"Peek", func() error { _, err := b.Peek(ctx, id, PeekRequest{Queue: "/q"}); return err }},
		{"Receive", func() error { _, err := b.Receive(ctx, id, ReceiveRequest{Queue: "/q"}); return err }},
		{"Next", func() (err error) {
			if c, err = b.Consume(ctx, id, ConsumeRequest{Queue: "/q"}); err != nil {
				return err
			}
			if err = c.Credit(1, 0); err == nil {
				_, err = c.Next(ctx)
			}
			return err
		}},
		{"Consumer.Settle", func() error {
			_, _, err := c.Settle([]TagSettlement{{First: 1, Last: 1, Verdict: Verdict{Outcome: Ack}}})
			return err
		}},
		{"Settle", func() error { _, err := b.Settle(ctx, id, nil); return err }},
		{"Kick", func() error { _, _, err := b.Kick(ctx, id, SelectRequest{Queue: "/q"}); return err }},
		{"Purge", func() error { _, _, err := b.Purge(ctx, id, SelectRequest{Queue: "/q"}); return err }},
		{"Import", func() error {
			_, err := b.Import(ctx, id, ImportRequest{Queue: "/q", Messages: []queue.Peeked{{Delivery: queue.Delivery{Message: queue.Message{Type: 1}}}}})
			return err
		}},
		{"Redrive", func() error { _, err := b.Redrive(ctx, id, RedriveRequest{Queue: "/q"}); return err }},
		{"Move", func() error {
			_, _, err := b.Move(ctx, id, MoveRequest{From: "/q", To: "/q2", DryRun: true})
			return err
		}},
		{"DeleteQueue", func() error { _, err := b.DeleteQueue(ctx, id, "/q"); return err }},
	} {
		// Nobody else is there, so that it goes at once, and only it is counted.
		b.fair = newFair()
		if err := call.do(); err != nil {
			t.Fatalf("%s: %v", call.name, err)
		}
		if u := b.fair.uses[id.Principal()]; u == nil || u.work < float64(callWork) {
			t.Errorf("%s counts for nothing", call.name)
		}
	}
}
