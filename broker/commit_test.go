package broker

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/vfs"
)

// slowDisk is a world whose disk does not sync until it is told to.
type slowDisk struct {
	*world
	gate atomic.Pointer[chan struct{}] // nil: syncs go through
}

func onSlowDisk(t *testing.T, test func(d *slowDisk)) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		fs := vfs.NewFault(vfs.NewCrash(rand.New(rand.NewPCG(1, 1))), func(op vfs.Op) vfs.Verdict {
			if gate := d.gate.Load(); op.Kind == vfs.OpSync && gate != nil {
				<-*gate
			}
			return vfs.Pass()
		})
		b, err := Open(Options{Journal: &JournalOptions{FS: fs, Dir: "/state/journal", SegmentBytes: 64 << 10}})
		if err != nil {
			t.Fatal(err)
		}
		d.world = &world{t, b, t.Context()}
		test(d)
		d.Close()
	})
}

// hold lets syncs wait. Everything is quiet when it returns.
func (d *slowDisk) hold() {
	pass(time.Second)
	gate := make(chan struct{})
	d.gate.Store(&gate)
}

func (d *slowDisk) release() {
	close(*d.gate.Swap(nil))
}

// after runs a call that must not return before the disk has synced.
func (d *slowDisk) after(what string, call func() error) {
	d.Helper()
	d.hold()
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	synctest.Wait()
	select {
	case err := <-ended:
		d.Errorf("%s is answered (%v) before it is on disk", what, err)
		d.release()
		return
	default:
	}
	d.release()
	d.must(<-ended)
}

func TestNothingIsToldBeforeItIsOnDisk_S6_S25(t *testing.T) {
	onSlowDisk(t, func(d *slowDisk) {
		d.after("a new queue", func() error {
			_, _, err := d.CreateQueue(d.ctx, alice, "/q", func(*queue.Settings) error { return nil }, false)
			return err
		})
		d.after("a send", func() error { _, err := d.trySend("/q", "a", "b", "c", "d", "e"); return err })
		got := d.receive("/q", 3)
		d.after("an ack", func() error { return d.settle(got[0], Verdict{Outcome: Ack}) })
		d.after("a nack", func() error { return d.settle(got[1], Verdict{Outcome: Nack}) })
		d.after("a transaction", func() error {
			_, err := d.Transact(d.ctx, alice, TransactRequest{Acks: receipts(got[2:])})
			return err
		})
		d.after("a message that is consumed at once", func() error {
			_, err := d.Receive(d.ctx, alice, ReceiveRequest{Queue: "/q", Consume: true})
			return err
		})
		d.after("a pause", func() error { _, err := d.PauseQueue(d.ctx, alice, "/q", true); return err })
		d.after("an update", func() error {
			_, err := d.UpdateQueue(d.ctx, alice, "/q", func(s *queue.Settings) error { s.DeadLetter = "/other"; return nil })
			return err
		})
		d.after("a purge", func() error { _, _, err := d.Purge(d.ctx, alice, SelectRequest{Queue: "/q", Max: 1}); return err })
		d.create("/other")
		d.after("an import", func() error {
			_, err := d.Import(d.ctx, alice, ImportRequest{Queue: "/other", Messages: []queue.Peeked{{Delivery: queue.Delivery{Message: queue.Message{
				Type: 1, Headers: []queue.Header{{Key: queue.HeaderDeadQueue, Value: []byte("/q")}},
			}}}}})
			return err
		})
		d.after("a move", func() error {
			_, _, err := d.Move(d.ctx, alice, MoveRequest{From: "/q", To: "/other", Max: 1})
			return err
		})
		d.after("a redrive", func() error { _, err := d.Redrive(d.ctx, alice, RedriveRequest{Queue: "/other"}); return err })
		d.after("a delete", func() error { _, err := d.DeleteQueue(d.ctx, alice, "/q"); return err })
	})
}

func TestDuplicateIsNotAnsweredBeforeTheFirstIsOnDisk_S8(t *testing.T) {
	onSlowDisk(t, func(d *slowDisk) {
		d.create("/q")
		r := SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1, DedupID: "x"}}}
		d.hold()
		ended := make(chan error, 2)
		for range 2 {
			go func() { _, err := d.Send(d.ctx, alice, r); ended <- err }()
			synctest.Wait()
		}
		if len(ended) > 0 {
			t.Error("a duplicate is answered before the first is on disk")
		}
		d.release()
		d.must(<-ended)
		d.must(<-ended)
	})
}

func TestMessagesAreInvisibleUntilTheyAreOnDisk_S6(t *testing.T) {
	onSlowDisk(t, func(d *slowDisk) {
		d.create("/q")
		d.hold()
		sent := make(chan error, 1)
		go func() { _, err := d.trySend("/q", "a"); sent <- err }()
		synctest.Wait()
		if got := d.receive("/q", 1); len(got) > 0 {
			t.Error("received before it is on disk")
		}
		if page, err := d.Peek(d.ctx, alice, PeekRequest{Queue: "/q"}); err != nil || len(page.Messages) > 0 {
			t.Errorf("peek shows %+v, %v", page.Messages, err)
		}
		waited := make(chan int, 1)
		go func() {
			got, _ := d.Receive(d.ctx, alice, ReceiveRequest{Queue: "/q", Wait: time.Hour})
			waited <- len(got)
		}()
		synctest.Wait()
		if len(waited) > 0 {
			t.Error("a waiting receiver got it before it is on disk")
		}
		d.release()
		d.must(<-sent)
		if n := <-waited; n != 1 {
			t.Error("the waiting receiver got nothing")
		}
	})
}

// TestLeasesDoNotWaitForTheDisk: a delivery costs no sync.
func TestLeasesDoNotWaitForTheDisk(t *testing.T) {
	onSlowDisk(t, func(d *slowDisk) {
		d.create("/q")
		d.send("/q", "a")
		d.hold()
		if got := d.receive("/q", 1); len(got) != 1 {
			t.Error("nothing received")
		}
		d.release()
	})
}

func TestCallerThatIsGoneDoesNotWaitForTheDisk(t *testing.T) {
	onSlowDisk(t, func(d *slowDisk) {
		d.create("/q")
		d.hold()
		go func() { _, _ = d.trySend("/q", "a") }() // performs the commit
		synctest.Wait()
		ctx, cancel := context.WithTimeout(d.ctx, time.Second)
		defer cancel()
		if _, err := d.Send(ctx, alice, SendRequest{Queue: "/q", Messages: messages("b")}); err == nil || ctx.Err() == nil {
			t.Errorf("it ends with %v", err)
		}
		d.release()
	})
}

// TestOneSyncServesAllWhoWait_S25 counts: a hundred senders at once cost no hundred syncs.
func TestOneSyncServesAllWhoWait(t *testing.T) {
	onSlowDisk(t, func(d *slowDisk) {
		d.create("/q")
		d.hold()
		before := d.journal.Stats().Syncs
		ended := make(chan error, 100)
		for range 100 {
			go func() { _, err := d.trySend("/q", "a"); ended <- err }()
		}
		synctest.Wait()
		d.release()
		for range 100 {
			d.must(<-ended)
		}
		if n := d.journal.Stats().Syncs - before; n > 3 {
			t.Errorf("%d syncs for 100 senders", n)
		}
	})
}
