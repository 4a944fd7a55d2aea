package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

func asIs(*queue.Settings) error { return nil }

// temporary opens a temporary queue of alice's.
func (w *world) temporary() (name string, end func()) {
	w.Helper()
	info, end, err := w.OpenTemporary(w.ctx, alice, asIs)
	w.must(err)
	return info.Name, end
}

func TestTemporaryQueueEndsWithItsSession(t *testing.T) {
	inWorld(t, func(w *world) {
		info, end, err := w.OpenTemporary(w.ctx, alice, func(s *queue.Settings) error { s.MaxMessages = 10; return nil })
		w.must(err)
		name := info.Name
		if !info.Temporary || !strings.HasPrefix(name, limits.TemporaryPrefix) || len(name) != len(limits.TemporaryPrefix)+26 || info.ID < temporaryID {
			t.Errorf("opened %+v", info)
		}
		if s := info.Settings; s.Durability != queue.Memory || s.Kernel.Mode != queue.KernelNone || s.Mode != 0o622 || s.MaxMessages != 10 || s.OwnerUID != alice.UID {
			t.Errorf("settings %+v", s)
		}
		if totals := w.Totals(); totals.Queues != 1 || totals.Temporary != 1 {
			t.Errorf("totals %+v", totals)
		}
		reply := SendRequest{Queue: name, Messages: []queue.Message{{Type: 1, Body: []byte("reply")}}}
		_, err = w.Send(w.ctx, bob, reply)
		w.must(err)
		_, err = w.Receive(w.ctx, bob, ReceiveRequest{Queue: name})
		w.wants(err, reason.AccessDenied)
		if got := w.receiveOne(name); string(got.Body) != "reply" {
			t.Errorf("received %q", got.Body)
		}
		waits := make(chan error)
		go func() {
			_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: name, Wait: time.Hour})
			waits <- err
		}()
		pass(time.Millisecond)
		end()
		w.wants(<-waits, reason.QueueDeleted)
		_, err = w.GetQueue(w.ctx, alice, name)
		w.wants(err, reason.QueueNotFound)
		end() // again: it is nothing
	})
}

func TestLateRepliesAreToldAndCounted(t *testing.T) {
	inWorld(t, func(w *world) {
		name, end := w.temporary()
		w.create("/jobs", func(s *queue.Settings) { s.Durability = queue.Memory })
		blocked, endBlocked, err := w.OpenTemporary(w.ctx, alice, func(s *queue.Settings) error {
			s.MaxMessages, s.Overflow = 1, queue.Block
			return nil
		})
		w.must(err)
		w.send(blocked.Name, "1")
		late := make(chan error)
		go func() {
			_, err := w.trySend(blocked.Name, "2")
			late <- err
		}()
		pass(time.Millisecond)
		end()
		endBlocked()
		check := func(err error, want uint64) {
			t.Helper()
			w.wants(err, reason.QueueNotFound)
			if !strings.Contains(err.Error(), "nobody waits for this reply any more") {
				t.Errorf("it says %q", err)
			}
			if got := w.Totals().LateReplies; got != want {
				t.Errorf("%d late replies, want %d", got, want)
			}
		}
		check(<-late, 1) // it waited for room
		_, err = w.trySend(name, "late")
		check(err, 2)
		one := []queue.Message{{Type: 1}}
		_, err = w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{{Queue: "/jobs", Messages: one}, {Queue: name, Messages: one}}})
		check(err, 3)
		if e := err.(*reason.Error); e.Index != 1 || e.Queue != name {
			t.Errorf("it is about %s, send %d", e.Queue, e.Index)
		}
		w.counts("/jobs", 0, 0, 0, 0)
		_, err = w.trySend("/gone", "x") // that is no reply
		w.wants(err, reason.QueueNotFound)
		if _, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: name}); strings.Contains(err.Error(), "reply") {
			t.Errorf("a receive is told %q", err)
		}
		if got := w.Totals().LateReplies; got != 3 {
			t.Errorf("%d late replies, want 3", got)
		}
	})
}

func TestTemporaryQueueRefusesWhatWouldOutliveIt(t *testing.T) {
	inWorld(t, func(w *world) {
		for field, edit := range map[string]func(*queue.Settings){
			"settings.durability":  func(s *queue.Settings) { s.Durability = queue.Journal },
			"settings.mqueue.mode": func(s *queue.Settings) { s.Kernel.Mode = queue.KernelIn },
			"settings.lease":       func(s *queue.Settings) { s.Lease = -1 },
		} {
			_, _, err := w.OpenTemporary(w.ctx, alice, func(s *queue.Settings) error { edit(s); return nil })
			w.wants(err, reason.InvalidArgument)
			if got := err.(*reason.Error).Field; got != field {
				t.Errorf("%s is refused, want %s", got, field)
			}
		}
		_, _, err := w.OpenTemporary(w.ctx, nemo, asIs)
		w.wants(err, reason.AccessDenied)
		_, _, err = w.OpenTemporary(w.ctx, alice, func(s *queue.Settings) error { s.OwnerUID = bob.UID; return nil })
		w.wants(err, reason.AccessDenied)

		name, end := w.temporary()
		defer end()
		_, err = w.UpdateQueue(w.ctx, alice, name, func(s *queue.Settings) error { s.Kernel.Mode = queue.KernelAuto; return nil })
		w.wants(err, reason.InvalidArgument)
		_, err = w.UpdateQueue(w.ctx, alice, name, func(s *queue.Settings) error { s.Mode = 0o600; s.DeadLetter = name + "x"; return nil })
		w.must(err)
		_, err = w.Send(w.ctx, bob, SendRequest{Queue: name, Messages: []queue.Message{{Type: 1}}})
		w.wants(err, reason.AccessDenied)

		for _, taken := range []string{name, limits.TemporaryPrefix + "mine"} {
			_, _, err = w.CreateQueue(w.ctx, alice, taken, asIs, false)
			w.wants(err, reason.InvalidArgument)
		}
		for _, dead := range []string{name, limits.TemporaryPrefix + "mine"} {
			_, _, err = w.CreateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.DeadLetter = dead; s.Durability = queue.Memory; return nil }, false)
			w.wants(err, reason.InvalidArgument)
		}
	})
}

func TestTemporaryQueuesAreCountedAgainstTheirOwner(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.Queues: 2}), func(w *world) {
		_, end := w.temporary()
		name, endNext := w.temporary()
		_, _, err := w.OpenTemporary(w.ctx, alice, asIs)
		w.wants(err, reason.QuotaExceeded)
		end()
		_, end = w.temporary()
		defer end()
		_, err = w.DeleteQueue(w.ctx, alice, name) // its owner's right, as of any queue
		w.must(err)
		endNext()
		w.create("/q")
	})
}

// TestJournalKnowsNothingOfTemporaryQueues uses them in all ways in which queues in memory leave records.
func TestJournalKnowsNothingOfTemporaryQueues(t *testing.T) {
	restore := sequenceBlock
	sequenceBlock = 8
	defer func() { sequenceBlock = restore }()
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/before")
		pass(time.Second) // what is written behind
		before := w.journal.Stats().BytesWritten
		dead, end := w.temporary()
		name, _ := w.temporary()
		w.must(second(w.UpdateQueue(w.ctx, alice, name, func(s *queue.Settings) error { s.DeadLetter = dead; s.MaxAttempts = 1; return nil })))
		for range 30 {
			w.send(name, "a", "b")
		}
		w.must(w.settle(w.receiveOne(name), Verdict{Outcome: Nack}))
		w.counts(dead, 1, 0, 0, 0)
		w.must(second(w.PauseQueue(w.ctx, alice, name, true)))
		_, _, err := w.Purge(w.ctx, alice, SelectRequest{Queue: dead})
		w.must(err)
		end()
		pass(time.Second)
		if wrote := w.journal.Stats().BytesWritten - before; wrote != 0 {
			t.Errorf("%d bytes were written", wrote)
		}
		w.create("/after")
		w.Close()

		w = d.start()
		defer w.Close()
		all, err := w.ListQueues(w.ctx, root, "")
		w.must(err)
		if len(all) != 2 || all[0].Name != "/after" || all[1].Name != "/before" || all[0].ID != all[1].ID+1 {
			t.Errorf("after a restart there are %+v", all)
		}
		checkCharges(t, w.Broker)
	})
}

func TestCompactionPassesTemporaryQueuesBy(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		name, end := w.temporary()
		defer end()
		w.send(name, "kept")
		w.create("/old")
		w.send("/old", "old")
		w.create("/q")
		body := strings.Repeat("d", 1000)
		for range 500 {
			w.send("/q", body)
			_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Consume: true})
			w.must(err)
			pass(time.Millisecond)
		}
		if w.compactor.freed.Load() == 0 {
			t.Fatal("nothing was compacted")
		}
		if got := w.receiveOne(name); string(got.Body) != "kept" {
			t.Errorf("received %q", got.Body)
		}
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		all, err := w.ListQueues(w.ctx, root, "")
		w.must(err)
		if len(all) != 2 || all[0].Name != "/old" || all[1].Name != "/q" {
			t.Errorf("after a restart there are %+v", all)
		}
		w.counts("/old", 1, 0, 0, 0)
	})
}

func TestBindsToTemporaryQueuesEndWithThem(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/events", func(s *queue.Settings) { s.Durability = queue.Memory })
		w.create("/rest", func(s *queue.Settings) { s.Durability = queue.Memory })
		w.must(second(w.Bind(w.ctx, alice, "/events", queue.Bind{To: "/rest"})))
		binds := func(want int) {
			t.Helper()
			info, err := w.GetQueue(w.ctx, alice, "/events")
			w.must(err)
			if got := len(info.Settings.Binds); got != want {
				t.Fatalf("%d binds, want %d: %v", got, want, info.Settings.Binds)
			}
		}
		name, end := w.temporary()
		w.must(second(w.Bind(w.ctx, alice, "/events", queue.Bind{To: name})))
		w.send("/events", "1")
		w.counts(name, 1, 0, 0, 0)
		end()
		binds(1)
		w.send("/events", "2")

		name, _ = w.temporary()
		w.must(second(w.Bind(w.ctx, alice, "/events", queue.Bind{To: name})))
		binds(2)
		for range 2 { // what is ended is ended for good
			d.powerCut(w)
			w = d.start()
			binds(1)
			w.send("/events", "3")
			w.counts("/rest", 1, 0, 0, 0)
		}
		w.Close()
	})
}

func second[T any](_ T, err error) error { return err }
