package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

func (w *world) bind(from, to string, edits ...func(*queue.Bind)) {
	w.Helper()
	bind := queue.Bind{To: to}
	for _, edit := range edits {
		edit(&bind)
	}
	_, err := w.Bind(w.ctx, alice, from, bind)
	w.must(err)
}

func skip(b *queue.Bind) { b.Skip = true }

func only(t int64) func(*queue.Bind) {
	return func(b *queue.Bind) { b.Selector = queue.Selector{Kind: queue.TypeIs, Type: t} }
}

// holds fails unless the queue has those bodies ready, in order. It looks only.
func (w *world) holds(name string, bodies ...string) {
	w.Helper()
	page, err := w.Peek(w.ctx, alice, PeekRequest{Queue: name, Max: 200})
	w.must(err)
	var have []string
	for _, m := range page.Messages {
		have = append(have, string(m.Body))
	}
	if !slices.Equal(have, bodies) {
		w.Fatalf("%s holds %q, want %q", name, have, bodies)
	}
}

func (w *world) bindStatus(from, to string) BindStatus {
	w.Helper()
	info, err := w.GetQueue(w.ctx, alice, from)
	w.must(err)
	i := slices.IndexFunc(info.Binds, func(b BindStatus) bool { return b.To == to })
	if i < 0 {
		w.Fatalf("%s is not bound to %s: %+v", from, to, info.Binds)
	}
	return info.Binds[i]
}

func TestWhatIsSentIsAlsoStoredInBoundQueues(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"/src", "/all", "/sevens", "/behind"} {
			w.create(name)
		}
		w.bind("/src", "/all")
		w.bind("/src", "/sevens", only(7))
		w.bind("/sevens", "/behind")
		headers := []queue.Header{{Key: "k", Value: []byte("v")}}
		stored, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: []queue.Message{
			{Type: 7, Body: []byte("a"), Priority: 3, Headers: headers, ReplyTo: "/r", CorrelationID: "c", ContentType: "x/y"},
			{Type: 8, Body: []byte("b")},
		}})
		w.must(err)
		if stored.First != 1 || stored.Count != 2 {
			t.Errorf("stored %+v", stored)
		}
		w.holds("/src", "a", "b")
		w.holds("/all", "a", "b")
		w.holds("/sevens", "a")
		w.holds("/behind", "a")
		d := w.receiveOne("/behind")
		if d.Type != 7 || d.Priority != 3 || d.ReplyTo != "/r" || d.CorrelationID != "c" || d.ContentType != "x/y" || len(d.Headers) != 1 || d.SentAt != stored.SentAt {
			t.Errorf("the copy is %+v", d)
		}
		if s := w.bindStatus("/src", "/all"); s.Copied != 2 || s.Skipped != 0 {
			t.Errorf("%+v", s)
		}
		if s := w.bindStatus("/src", "/sevens"); s.Copied != 1 {
			t.Errorf("%+v", s)
		}
		_, err = w.Unbind(w.ctx, alice, "/src", "/all")
		w.must(err)
		w.send("/src", "c")
		w.holds("/all", "a", "b")
	})
}

func TestQueueThatIsReachedByTwoWaysGetsOneCopy(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"/d", "/c", "/b", "/a"} { // locks are taken in the order of making
			w.create(name)
		}
		w.bind("/a", "/b")
		w.bind("/a", "/c")
		w.bind("/b", "/d", skip)
		w.bind("/c", "/d")
		w.send("/a", "x", "y")
		w.holds("/d", "x", "y")
	})
}

func TestCircleOfBindsIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"/a", "/b", "/c"} {
			w.create(name)
		}
		w.bind("/a", "/b")
		w.bind("/b", "/c")
		for from, to := range map[string]string{"/c": "/a", "/b": "/a", "/a": "/a"} {
			_, err := w.Bind(w.ctx, alice, from, queue.Bind{To: to})
			w.wants(err, reason.BindCycle)
		}
		_, err := w.Bind(w.ctx, alice, "/c", queue.Bind{To: "/a"})
		if !strings.Contains(err.Error(), "/c -> /a -> /b -> /c") {
			t.Error(err)
		}
		_, err = w.Bind(w.ctx, alice, "/a", queue.Bind{To: "/nowhere"})
		w.wants(err, reason.QueueNotFound)
		_, err = w.UpdateQueue(w.ctx, alice, "/c", func(s *queue.Settings) error { s.Binds = []queue.Bind{{To: "/b"}}; return nil })
		w.wants(err, reason.BindCycle)
	})
}

// Binds between many queues, each of a large set of types, are made in reasonable time: whoever makes them holds up all who make,
// change and remove queues.
func TestManyBindsAreCheckedInTime(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	w := &world{t, b, t.Context()}
	set := queue.Selector{Kind: queue.TypeIn}
	for i := range 1024 {
		set.Types = append(set.Types, int64(i+1))
	}
	const queues = 200
	name := func(i int) string { return fmt.Sprintf("/q%d", i) }
	for i := range queues {
		w.create(name(i))
	}
	for i := range queues - 1 {
		_, err := w.UpdateQueue(w.ctx, alice, name(i), func(s *queue.Settings) error {
			for to := i + 1; to < min(queues, i+1+64); to++ {
				s.Binds = append(s.Binds, queue.Bind{To: name(to), Selector: set})
			}
			return nil
		})
		w.must(err)
	}
	_, err := w.Bind(w.ctx, alice, name(queues-1), queue.Bind{To: name(0)})
	w.wants(err, reason.BindCycle)
	w.send(name(0), "a")
	w.holds(name(queues-1), "a")
}

func TestFullTargetRefusesTheSendOrGoesWithout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		w.create("/small", func(s *queue.Settings) { s.MaxMessages, s.MaxMessageSize = 3, 10 })
		w.create("/other")
		w.bind("/src", "/other")
		w.bind("/src", "/small")
		w.send("/src", "a", "b")
		_, err := w.trySend("/src", "c", "d")
		w.wants(err, reason.QueueFull)
		if e := err.(*reason.Error); e.Queue != "/small" || e.RetryAfter == 0 || e.Index != reason.Whole { // one of them alone would fit
			t.Errorf("%+v", e)
		}
		_, err = w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: []queue.Message{{Type: 1, Body: []byte("fits")}, {Type: 1, Body: []byte("is too large")}}})
		w.wants(err, reason.MessageTooLarge)
		if e := err.(*reason.Error); e.Queue != "/small" || e.Index != 1 {
			t.Errorf("%+v", e)
		}
		for _, name := range []string{"/src", "/other", "/small"} { // nothing of it is anywhere
			w.holds(name, "a", "b")
		}
		w.bind("/src", "/small", skip)
		w.send("/src", "is too large", "c", "d", "e")
		w.holds("/src", "a", "b", "is too large", "c", "d", "e")
		w.holds("/other", "a", "b", "is too large", "c", "d", "e")
		w.holds("/small", "a", "b", "c") // full to the message
		s := w.bindStatus("/src", "/small")
		if s.Skipped != 3 || s.Copied != 3 || !strings.Contains(s.Problem, "room for 1 of 3 copies") {
			t.Errorf("%+v", s)
		}
		w.must(w.settle(w.receiveOne("/small"), Verdict{}))
		w.send("/src", "f")
		w.holds("/small", "b", "c", "f")
	})
}

func TestWhatATargetSkipsDoesNotReachThoseBehindIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		w.create("/mid", func(s *queue.Settings) { s.MaxMessages = 1 })
		w.create("/end")
		w.bind("/src", "/mid", skip)
		w.bind("/mid", "/end")
		w.send("/src", "a", "b")
		w.holds("/mid", "a")
		w.holds("/end", "a")
	})
}

func TestDropOldestTargetDropsItsOwn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		w.create("/last", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 2, queue.DropOldest })
		w.bind("/src", "/last")
		w.send("/src", "a", "b")
		w.send("/src", "c")
		w.holds("/last", "b", "c")
	})
}

func TestDuplicateIsNotCopiedAgain_S8(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		w.create("/dst")
		w.create("/end")
		w.create("/all", func(s *queue.Settings) { s.DedupWindow = 0 }) // it takes what it is given
		w.bind("/src", "/all")
		w.bind("/src", "/dst")
		w.bind("/dst", "/end")
		send := func(name string, ids ...string) queue.Stored {
			r := SendRequest{Queue: name, Wait: -1}
			for _, id := range ids {
				r.Messages = append(r.Messages, queue.Message{Type: 1, Body: []byte(id), DedupID: id})
			}
			stored, err := w.Send(w.ctx, alice, r)
			w.must(err)
			return stored
		}
		send("/src", "1", "2")
		if s := send("/src", "2", "3", "3"); len(s.Duplicates) != 2 {
			t.Errorf("%+v", s)
		}
		w.holds("/dst", "1", "2", "3")
		w.holds("/all", "1", "2", "3")
		send("/dst", "4", "1")
		send("/src", "4")
		w.holds("/src", "1", "2", "3", "4")
		w.holds("/dst", "1", "2", "3", "4") // by its own ids
		w.holds("/all", "1", "2", "3", "4")
		w.holds("/end", "1", "2", "3", "4")
	})
}

func TestRepeatedBatchIsNotCopiedAgain_S9(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		w.create("/dst")
		w.bind("/src", "/dst")
		for range 2 {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: messages("a"), Producer: "p", Batch: 1})
			w.must(err)
		}
		w.holds("/src", "a")
		w.holds("/dst", "a")
	})
}

func TestCreatingAgainLeavesBindsAlone_S1(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		w.create("/dst")
		w.bind("/src", "/dst")
		w.create("/src")
		w.create("/src", func(s *queue.Settings) { s.Binds = []queue.Bind{{To: "/dst"}} })
		_, _, err := w.CreateQueue(w.ctx, alice, "/src", func(s *queue.Settings) error {
			s.Binds = []queue.Bind{{To: "/dst", Skip: true}}
			return nil
		}, false)
		w.wants(err, reason.QueueExists)
	})
}

func TestDeletedTargetIsUnbound(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		w.create("/dst")
		w.bind("/src", "/dst")
		_, err := w.DeleteQueue(w.ctx, alice, "/dst")
		w.must(err)
		w.send("/src", "a")
		w.create("/dst") // another one
		w.send("/src", "b")
		w.holds("/dst")
		info, err := w.GetQueue(w.ctx, alice, "/src")
		w.must(err)
		if len(info.Binds)+len(info.Settings.Binds) != 0 {
			t.Errorf("%+v", info)
		}
	})
}

func TestBindNeedsTheRightToSend(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src")
		_, _, err := w.CreateQueue(w.ctx, bob, "/bobs", func(s *queue.Settings) error { s.Mode = 0o602; return nil }, false)
		w.must(err)
		w.bind("/src", "/bobs")
		w.send("/src", "a")
		mode := func(m uint32) {
			_, err := w.UpdateQueue(w.ctx, bob, "/bobs", func(s *queue.Settings) error { s.Mode = m; return nil })
			w.must(err)
		}
		mode(0o600)
		_, err = w.trySend("/src", "b")
		w.wants(err, reason.AccessDenied)
		w.holds("/src", "a")
		_, err = w.Bind(w.ctx, alice, "/src", queue.Bind{To: "/bobs", Skip: true})
		w.wants(err, reason.AccessDenied)
		mode(0o602)
		w.bind("/src", "/bobs", skip)
		mode(0o600)
		w.send("/src", "c")
		if s := w.bindStatus("/src", "/bobs"); s.Skipped != 1 || !strings.Contains(s.Problem, "owner") {
			t.Errorf("%+v", s)
		}
		_, err = w.Bind(w.ctx, bob, "/src", queue.Bind{To: "/bobs"})
		w.wants(err, reason.AccessDenied)
	})
}

func TestCopiesAreChargedToTheirQueuesOwner(t *testing.T) {
	o := quotas(bob, quota.Limits{quota.QueuedBytes: 10})
	inFreshWorlds(t, o, func(w *world) {
		w.create("/src")
		_, _, err := w.CreateQueue(w.ctx, bob, "/bobs", func(s *queue.Settings) error { s.Mode = 0o602; return nil }, false)
		w.must(err)
		w.bind("/src", "/bobs", skip)
		w.send("/src", "1234", "5678", "90", "x")
		page, err := w.Peek(w.ctx, bob, PeekRequest{Queue: "/bobs", Max: 9})
		w.must(err)
		if len(page.Messages) != 3 {
			t.Errorf("%d messages are in /bobs", len(page.Messages))
		}
		w.bind("/src", "/bobs")
		_, err = w.trySend("/src", "y")
		w.wants(err, reason.QuotaExceeded)
	})
}

func TestBlockedSenderOfABoundQueueWaitsItsTurn_S7(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/src", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 2, queue.Block })
		w.create("/dst")
		w.send("/src", "a", "b")
		var order []string
		var mu sync.Mutex
		var waiting sync.WaitGroup
		send := func(bodies ...string) {
			waiting.Go(func() {
				if _, err := w.trySend("/src", bodies...); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, bodies[0])
				mu.Unlock()
			})
			synctest.Wait()
		}
		send("c", "d") // before there is a bind
		w.bind("/src", "/dst")
		send("e")
		if n := w.stats("/src").BlockedSenders; n != 2 {
			t.Fatalf("%d wait", n)
		}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: messages("z"), Wait: 0})
		w.wants(err, reason.QueueFull)
		_, err = w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: messages("z"), Wait: time.Second})
		w.wants(err, reason.TimedOut)
		w.must(w.settle(w.receiveOne("/src"), Verdict{}))
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%q overtook", order)
		}
		w.must(w.settle(w.receiveOne("/src"), Verdict{}))
		synctest.Wait()
		w.holds("/src", "c", "d")
		w.must(w.settle(w.receiveOne("/src"), Verdict{}))
		waiting.Wait()
		w.holds("/src", "d", "e")
		w.holds("/dst", "c", "d", "e")
		if fmt.Sprint(order) != "[c e]" {
			t.Error(order)
		}
		// What waits is ended with its queue.
		send2 := make(chan error, 1)
		go func() {
			_, err := w.trySend("/src", "f")
			send2 <- err
		}()
		synctest.Wait()
		_, err = w.DeleteQueue(w.ctx, alice, "/src")
		w.must(err)
		w.wants(<-send2, reason.QueueDeleted)
	})
}

func TestTransactionCopiesToo_S24(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"/a", "/b", "/both", "/in"} {
			w.create(name)
		}
		w.create("/tiny", func(s *queue.Settings) { s.MaxMessages = 1 })
		w.bind("/a", "/both")
		w.bind("/b", "/both")
		w.bind("/b", "/in")
		w.bind("/a", "/tiny", skip)
		w.send("/in", "old")
		stored, err := w.Transact(w.ctx, alice, TransactRequest{
			Acks:  receipts(w.receive("/in", 1)),
			Sends: []TransactSend{{"/both", messages("own")}, {"/a", messages("x", "y")}, {"/b", messages("z")}},
		})
		w.must(err)
		if stored[0].Count != 1 || stored[1].Count != 2 || stored[2].First != 1 {
			t.Errorf("%+v", stored)
		}
		w.holds("/both", "own", "x", "y", "z")
		w.holds("/in", "z")
		w.holds("/tiny", "x")
		w.bind("/a", "/tiny")
		_, err = w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{{"/b", messages("n")}, {"/a", messages("n")}}})
		w.wants(err, reason.QueueFull)
		if e := err.(*reason.Error); e.Index != 1 || e.Queue != "/tiny" {
			t.Errorf("%+v", e)
		}
		w.holds("/b", "z")
	})
}

func TestBindFromJournalToMemoryIsRefused(t *testing.T) {
	inJournaledWorld(t, Options{}, func(w *world) {
		memory := func(s *queue.Settings) { s.Durability = queue.Memory }
		w.create("/journal")
		w.create("/memory", memory)
		w.create("/memory2", memory)
		_, err := w.Bind(w.ctx, alice, "/journal", queue.Bind{To: "/memory"})
		w.wants(err, reason.DurabilityMismatch)
		w.bind("/memory", "/journal")
		w.bind("/memory", "/memory2")
		w.send("/memory", "a")
		w.holds("/journal", "a")
		w.holds("/memory2", "a")
	})
}

func TestNativeSenderWaitsForThoseWhoMustHaveCopies_S29(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/src", func(s *queue.Settings) { s.MaxMessageSize = 50 })
		w.create("/must", func(s *queue.Settings) { s.MaxMessages, s.MaxMessageSize = 2, 20 })
		w.create("/may", func(s *queue.Settings) { s.MaxMessages = 1 })
		w.bind("/src", "/must")
		w.bind("/must", "/may", skip)
		lane := f.opened["/src"].spec.Lane
		room, err := lane.Reserve(w.ctx, 2, 60)
		w.must(err)
		_, err = w.trySend("/must", "b")
		w.wants(err, reason.QueueFull)
		refused, err := room.Send(append(messages("x"), queue.Message{Type: -1}))
		w.wants(err, reason.InvalidArgument)
		if refused != 1 {
			t.Errorf("%d refused", refused)
		}
		room.Release()
		w.holds("/src", "x")
		w.holds("/must", "x")
		w.holds("/may", "x")
		w.send("/must", "b")
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		if _, err := lane.Reserve(ctx, 1, 10); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		w.must(w.settle(w.receiveOne("/must"), Verdict{}))
		room, err = lane.Reserve(w.ctx, 1, 50)
		w.must(err)
		_, err = room.Send(messages("this is more than /must takes"))
		w.must(err)
		room.Release()
		if s := w.bindStatus("/src", "/must"); s.Skipped != 1 {
			t.Errorf("%+v", s)
		}
		w.send("/must", "c")
		w.holds("/must", "b", "c")
	})
}

// What a kernel door has taken must not become more than the journal takes at once: nobody could be told.
func TestNativeMessagesAndTheirCopiesFitTheJournal_S29(t *testing.T) {
	f := &fakeDoors{}
	onDisk(t, func(d *disk) {
		d.o.Doors = f
		d.o.Journal.SegmentBytes = 256 << 10
		w := d.start()
		defer w.Close()
		w.create("/src")
		for i := range 4 {
			w.create(fmt.Sprintf("/dst%d", i))
			w.bind("/src", fmt.Sprintf("/dst%d", i))
		}
		w.OpenDoors(f)
		lane := f.opened["/src"].spec.Lane
		body := func(n int) string { return strings.Repeat("x", n) }
		for _, bodies := range [][]string{{body(30 << 10), body(30 << 10), body(30 << 10)}, {body(60 << 10)}} {
			room, err := lane.Reserve(w.ctx, len(bodies), 120<<10)
			w.must(err)
			refused, err := room.Send(messages(bodies...))
			w.must(err)
			if refused != 0 {
				t.Errorf("%d refused", refused)
			}
			room.Release()
		}
		w.must(w.Failure())
		w.counts("/src", 4, 0, 0, 0)
		w.counts("/dst0", 3, 0, 0, 0)
		if s := w.bindStatus("/src", "/dst3"); s.Copied != 3 || s.Skipped != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestBindsAndCopiesSurviveAPowerCut_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/src")
		w.create("/dst")
		w.bind("/src", "/dst", only(1), skip)
		w.send("/src", "a")
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		w.send("/src", "b")
		w.holds("/src", "a", "b")
		w.holds("/dst", "a", "b")
		info, err := w.GetQueue(w.ctx, alice, "/src")
		w.must(err)
		if b := info.Settings.Binds; len(b) != 1 || b[0].To != "/dst" || !b[0].Skip || b[0].Selector.Type != 1 {
			t.Errorf("%+v", b)
		}
	})
}

// A message and its copies are there all, or none is.
func TestCopiesAreWholeAfterACrash_S25(t *testing.T) {
	body := strings.Repeat("t", 2000) // several sectors
	outcomes := map[int]int{}
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{T: t, fs: vfs.NewCrash(rand.New(rand.NewPCG(seed, 1)))}
			d.o.Journal = &JournalOptions{FS: d.fs, Dir: "/state/journal", SegmentBytes: 64 << 10}
			w := d.start()
			names := []string{"/a", "/b", "/c"}
			for i, name := range names {
				w.create(name)
				if i > 0 {
					w.bind(names[i-1], name)
				}
			}
			pass(time.Second)
			d.fs.CrashAfter(1 + int(seed%3))
			_, err := w.trySend("/a", body)
			d.fs = d.fs.CrashWith(vfs.SomeLost, rand.New(rand.NewPCG(seed, 2)))
			w.Close()
			w = d.start()
			defer w.Close()
			total := 0
			for _, name := range names {
				total += len(w.receive(name, 9))
			}
			if total != 0 && total != 3 || err == nil && total == 0 {
				t.Errorf("seed %d: %d of 3 are there; the send said %v", seed, total, err)
			}
			outcomes[total]++
		})
	}
	if outcomes[3] == 0 || outcomes[0] == 0 {
		t.Errorf("not both outcomes were seen: %v", outcomes)
	}
}

// Senders, binds that come and go, and queues that are full, all at once: what a queue has got is what the others stored.
func TestCopiesAddUpWhileBindsComeAndGo(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	w := &world{t, b, t.Context()}
	w.create("/dst", func(s *queue.Settings) { s.MaxMessages = 300 })
	for i := range 3 {
		w.create(fmt.Sprintf("/src%d", i), func(s *queue.Settings) { s.Overflow, s.MaxMessages = queue.Block, 50 })
	}
	w.bind("/src1", "/src0", skip)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	var stored [3]uint64
	for i := range 3 {
		name := fmt.Sprintf("/src%d", i)
		all.Go(func() {
			for n := range 300 {
				_, err := w.Send(ctx, alice, SendRequest{Queue: name, Messages: messages(fmt.Sprint(n), "x"), Wait: -1})
				switch {
				case err == nil:
					stored[i] += 2
				case reason.Of(err) != reason.QueueFull:
					t.Error(err)
					return
				}
			}
		})
		all.Go(func() {
			for n := range 100 {
				var err error
				if n%2 == 0 {
					_, err = w.Bind(ctx, alice, name, queue.Bind{To: "/dst", Skip: n%4 == 0})
				} else {
					_, err = w.Unbind(ctx, alice, name, "/dst")
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var drain sync.WaitGroup
	for _, name := range []string{"/src0", "/src1", "/src2", "/dst"} {
		drain.Go(func() {
			for {
				_, err := w.Receive(ctx, alice, ReceiveRequest{Queue: name, Max: 7, Consume: true, Wait: 10 * time.Millisecond})
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	all.Wait()
	close(stop)
	drain.Wait()
	checkCharges(t, b)
	for _, name := range []string{"/src0", "/src2"} {
		if s := w.stats(name); s.BlockedSenders != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	copies := w.bindStatus("/src1", "/src0")
	if sent := w.stats("/src0").Sent; copies.Copied+copies.Skipped != stored[1] || sent != stored[0]+copies.Copied {
		t.Errorf("%d messages came to /src0; %v were sent, %+v", sent, stored, copies)
	}
}

func TestPlanOfASendIsGivenUpWhereBindsHaveChanged(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"/src", "/dst", "/behind", "/other"} {
			w.create(name)
		}
		all := messages("a")
		plan := func() *flow {
			f := newFlow(w.Broker, true)
			s, err := w.lookup("/src")
			w.must(err)
			p := &part{s: s}
			f.add(p, 0, all)
			w.must(f.plan(map[uint64]*part{s.id: p}))
			return f
		}
		holds := func(f *flow) bool {
			f.lock()
			defer f.unlock()
			return f.current()
		}
		f := plan()
		w.bind("/other", "/behind") // far from it
		if !holds(f) {
			t.Error("a send without copies is planned again for the sake of others' binds")
		}
		for _, change := range []func(){
			func() { w.bind("/src", "/dst") },
			func() { w.bind("/dst", "/behind", skip) },
			func() { _, err := w.Unbind(w.ctx, alice, "/dst", "/behind"); w.must(err) },
			func() { _, err := w.DeleteQueue(w.ctx, alice, "/dst"); w.must(err) },
		} {
			f := plan()
			if !holds(f) {
				t.Error("a plan does not hold although nothing changed")
			}
			if change(); holds(f) {
				t.Error("a plan holds although binds have changed")
			}
		}
	})
}
