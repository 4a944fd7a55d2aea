package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// checkCharges holds what owners are charged against what is in their queues, and everybody else against nothing.
func checkCharges(t *testing.T, b *Broker) {
	t.Helper()
	type sums struct{ queues, bytes int64 }
	want := map[identity.Principal]sums{}
	for _, s := range b.all() {
		s.mu.Lock()
		owner := identity.User(s.settings.Load().OwnerUID)
		w := want[owner]
		want[owner] = sums{w.queues + 1, w.bytes + s.q.Bytes() + s.q.ReservedBytes() + s.q.SchemaBytes()}
		s.mu.Unlock()
	}
	for _, u := range b.quotas.All() {
		got := sums{u.Entries[quota.Queues].Used, u.Entries[quota.QueuedBytes].Used}
		if got != want[u.Who] {
			t.Errorf("%v is charged %+v (queues, bytes), and has %+v", u.Who, got, want[u.Who])
		}
		delete(want, u.Who)
	}
	if len(want) > 0 {
		t.Errorf("not charged: %v", want)
	}
}

func quotas(of identity.Identity, l quota.Limits) func() Options {
	return func() Options {
		return Options{Quotas: quota.New(0, quota.Config{Of: map[identity.Principal]quota.Limits{of.Principal(): l}})}
	}
}

func TestQueuesAreCountedAgainstTheirOwner(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.Queues: 2}), func(w *world) {
		w.create("/a")
		w.create("/b")
		_, _, err := w.CreateQueue(w.ctx, alice, "/c", func(*queue.Settings) error { return nil }, false)
		w.wants(err, reason.QuotaExceeded)
		for _, say := range []string{"uid 1000", "2 queues", "quota of 2", "ipcctl quota set"} {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%q is not in %q", say, err)
			}
		}
		w.create("/a") // it is there
		_, err = w.DeleteQueue(w.ctx, alice, "/a")
		w.must(err)
		w.create("/c")
		_, err = w.UpdateQueue(w.ctx, root, "/c", func(s *queue.Settings) error { s.OwnerUID = bob.UID; return nil })
		w.must(err)
		w.create("/d") // /c is bob's now
	})
}

func TestQueuedBytesAreExactToTheByte(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.QueuedBytes: 10}), func(w *world) {
		w.create("/a", func(s *queue.Settings) { s.Mode = 0o666 })
		w.create("/b")
		w.send("/a", "1234")
		w.send("/b", "12345")
		_, err := w.trySend("/a", "12")
		w.wants(err, reason.QuotaExceeded)
		_, err = w.Send(w.ctx, bob, SendRequest{Queue: "/a", Messages: []queue.Message{{Type: 1, Body: []byte("12")}}})
		w.wants(err, reason.QuotaExceeded) // it is the owner who pays
		w.send("/a", "1")
		_, err = w.trySend("/b", "1")
		w.wants(err, reason.QuotaExceeded)
		w.must(w.settle(w.receiveOne("/b"), Verdict{Outcome: Ack}))
		w.send("/a", "12345")
	})
}

func TestTransactionsPayForWhatTheyAdd(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.QueuedBytes: 10}), func(w *world) {
		w.create("/a")
		w.create("/b")
		w.send("/a", "1234567890")
		d := w.receiveOne("/a")
		transact := func(acks []queue.Receipt, sends ...string) error {
			r := TransactRequest{Acks: acks}
			for i := 0; i < len(sends); i += 2 {
				r.Sends = append(r.Sends, TransactSend{Queue: sends[i], Messages: []queue.Message{{Type: 1, Body: []byte(sends[i+1])}}})
			}
			_, err := w.Transact(w.ctx, alice, r)
			return err
		}
		w.wants(transact(nil, "/a", "1"), reason.QuotaExceeded)
		w.wants(transact(nil, "/b", "1", "/a", "1"), reason.QuotaExceeded)
		checkCharges(t, w.Broker) // nothing is left of what was taken
		w.must(transact([]queue.Receipt{d.Receipt}, "/a", "abcdefghij"))
	})
}

func TestChargesComeBackWithTheJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &JournalOptions{FS: vfs.NewCrash(rand.New(rand.NewPCG(1, 2))), Dir: "/state/journal", SegmentBytes: 8 << 20}
		for run := range 2 {
			b, err := Open(Options{Journal: disk})
			if err != nil {
				t.Fatal(err)
			}
			w := &world{t, b, t.Context()}
			if run == 0 {
				w.create("/a")
				w.send("/a", "1234")
			}
			checkCharges(t, b)
			if used := b.quotas.Usage(alice.Principal()).Entries; used[quota.Queues].Used != 1 || used[quota.QueuedBytes].Used != 4 {
				t.Errorf("run %d: %+v", run, used)
			}
			b.Close()
		}
	})
}

func TestReservedRoomIsCharged(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.QueuedBytes: 10}), func(w *world) {
		w.create("/a")
		s, err := w.lookup("/a")
		w.must(err)
		r, err := (*lane)(s).Reserve(w.ctx, 2, 8)
		w.must(err)
		_, err = w.trySend("/a", "123")
		w.wants(err, reason.QuotaExceeded)
		checkCharges(t, w.Broker)
		got := make(chan error, 1)
		go func() {
			r, err := (*lane)(s).Reserve(w.ctx, 1, 4)
			if err == nil {
				r.Release()
			}
			got <- err
		}()
		synctest.Wait() // a native sender waits rather than be refused
		if refused, err := r.Send([]queue.Message{{Type: 1, Body: []byte("12")}}); refused > 0 || err != nil {
			t.Fatal(refused, err)
		}
		r.Release()
		w.must(<-got)
	})
}

func TestReceiversAreCountedAgainstTheCaller(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.Receivers: 2}), func(w *world) {
		w.create("/a", func(s *queue.Settings) { s.Mode = 0o666 })
		c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/a"})
		w.must(err)
		ctx, cancel := context.WithCancel(w.ctx)
		var waiting sync.WaitGroup
		waiting.Go(func() { _, _ = w.Receive(ctx, alice, ReceiveRequest{Queue: "/a", Wait: time.Hour}) })
		synctest.Wait()
		_, err = w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/a", Wait: time.Hour})
		w.wants(err, reason.QuotaExceeded)
		_, err = w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/a"})
		w.wants(err, reason.QuotaExceeded)
		_, err = w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/a"}) // one that does not wait is none
		w.must(err)
		_, err = w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/a", Wait: time.Second})
		w.must(err)
		cancel()
		waiting.Wait()
		c.Close(true)
		c.Close(true)
		if used := w.quotas.Usage(alice.Principal()).Entries[quota.Receivers].Used; used != 0 {
			t.Errorf("%d receivers are still counted", used)
		}
	})
}

func TestQuotaHoldsForManyAtOnce(t *testing.T) {
	const limit = 1000
	o := quotas(alice, quota.Limits{quota.QueuedBytes: limit})
	b := New(o())
	defer b.Close()
	w := &world{t, b, t.Context()}
	var senders sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprintf("/q%d", i)
		w.create(name)
		senders.Go(func() {
			for range 200 {
				_, _ = w.trySend(name, "1234567")
			}
		})
	}
	senders.Wait()
	if used := b.quotas.Usage(alice.Principal()).Entries[quota.QueuedBytes].Used; used > limit || used <= limit-7 {
		t.Errorf("%d bytes are queued, of %d", used, limit)
	}
	checkCharges(t, b)
}

func TestQuotaConcernsWhatIsAdded(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.QueuedBytes: 10}), func(w *world) {
		w.create("/a")
		once := SendRequest{Queue: "/a", Messages: []queue.Message{{Type: 1, Body: []byte("12345"), DedupID: "1"}}}
		first, err := w.Send(w.ctx, alice, once)
		w.must(err)
		again, err := w.Send(w.ctx, alice, once) // nothing more is stored
		if err != nil || len(again.Duplicates) != 1 || again.Duplicates[0].Sequence != first.First {
			t.Errorf("a duplicate at the quota: %+v, %v", again, err)
		}
		_, err = w.DeleteQueue(w.ctx, alice, "/a")
		w.must(err)
		w.create("/b", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 1, queue.DropOldest })
		w.send("/b", "123456")
		w.send("/b", "abcdef") // in the place of the one before
		_, err = w.trySend("/b", "12345678901")
		w.wants(err, reason.QuotaExceeded)
		w.counts("/b", 1, 0, 0, 0) // and nothing was dropped for it
	})
}

func TestDeadLettersBeyondTheirQueuesQuotaAreBuried(t *testing.T) {
	inFreshWorlds(t, quotas(bob, quota.Limits{quota.QueuedBytes: 1000}), func(w *world) {
		_, _, err := w.CreateQueue(w.ctx, bob, "/dead", func(s *queue.Settings) error { s.Mode = 0o622; return nil }, false)
		w.must(err)
		w.create("/a", func(s *queue.Settings) { s.DeadLetter, s.MaxAttempts = "/dead", 1 })
		for range 3 {
			w.send("/a", strings.Repeat("x", 400))
		}
		for _, d := range w.receive("/a", 3) {
			w.must(w.settle(d, Verdict{Outcome: Nack}))
		}
		used := w.quotas.Usage(bob.Principal()).Entries[quota.QueuedBytes].Used
		if used > 1000 || used == 0 {
			t.Errorf("bob is charged %d bytes, of 1000", used)
		}
		if s := w.stats("/a"); s.Buried == 0 || s.Buried == 3 {
			t.Errorf("%d are buried", s.Buried)
		}
	})
}

func TestGroupOfAQueueMakesItsOwnerNoAdmin(t *testing.T) {
	inFreshWorlds(t, withPolicy(access.Policy{AdminGroups: []uint32{27}}), func(w *world) {
		w.create("/a", func(s *queue.Settings) { s.DeadLetter, s.MaxAttempts = "/secret", 1 })
		_, err := w.UpdateQueue(w.ctx, root, "/a", func(s *queue.Settings) error { s.GroupGID = 27; return nil })
		w.must(err)
		_, _, err = w.CreateQueue(w.ctx, root, "/secret", func(*queue.Settings) error { return nil }, false)
		w.must(err)
		w.send("/a", "m")
		w.must(w.settle(w.receiveOne("/a"), Verdict{Outcome: Nack}))
		w.counts("/a", 0, 0, 0, 1)
	})
}
