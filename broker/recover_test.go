package broker

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// disk is a journal's file system that outlives brokers.
type disk struct {
	*testing.T
	fs *vfs.Crash
	o  Options
}

// onDisk runs a test with a disk, in a bubble with a fake clock.
func onDisk(t *testing.T, test func(d *disk)) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{T: t, fs: vfs.NewCrash(rand.New(rand.NewPCG(3, 4)))}
		d.o.Journal = &JournalOptions{FS: d.fs, Dir: "/state/journal", SegmentBytes: 64 << 10}
		test(d)
	})
}

func (d *disk) start() *world {
	d.Helper()
	d.o.Journal.FS = d.fs
	b, err := Open(d.o)
	if err != nil {
		d.Fatal(err)
	}
	return &world{d.T, b, d.Context()}
}

// powerCut ends a broker without notice; what was not synced is lost.
func (d *disk) powerCut(w *world) {
	d.fs = d.fs.CrashWith(vfs.AllLost, rand.New(rand.NewPCG(3, 4)))
	w.Close()
}

func TestAcknowledgedMessagesSurviveAPowerCut_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/q", func(s *queue.Settings) { s.Lease = time.Minute })
		w.send("/q", "a", "b", "c", "d")
		got := w.receive("/q", 3)
		w.must(w.settle(got[0], Verdict{Outcome: Ack}))
		w.must(w.settle(got[1], Verdict{Outcome: Nack}))
		d.powerCut(w)

		w = d.start()
		defer w.Close()
		w.counts("/q", 3, 0, 0, 0)
		if out := w.receive("/q", 9); bodiesOf(out) != "b c d " || out[0].Attempts != 1 || out[1].Attempts != 0 {
			t.Errorf("received %q, attempts %d and %d", bodiesOf(out), out[0].Attempts, out[1].Attempts)
		}
		w.wants(w.settle(got[2], Verdict{Outcome: Ack}), reason.StaleReceipt)
		if first := w.send("/q", "e").First; first != 5 {
			t.Errorf("the next sequence is %d, want 5", first)
		}
	})
}

func TestEverythingAboutAQueueSurvives_S8_S9_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/q", func(s *queue.Settings) {
			s.TypeNames = map[string]int64{"created": 7}
			s.MaxAttempts = 1
			s.DedupWindow = time.Hour
		})
		sent, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Producer: "p", Batch: 9, Messages: []queue.Message{
			{Type: 1, Body: []byte("delayed"), Delay: time.Minute},
			{Type: 1, Body: []byte("dies"), TTL: time.Minute},
			{Type: 1, Body: []byte("id"), DedupID: "x"},
			{Type: 7, Priority: 9, Body: []byte("headers"), Headers: []queue.Header{{Key: "k", Value: []byte("v")}}, CorrelationID: "c", ReplyTo: "/r", ContentType: "t"},
		}})
		w.must(err)
		w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Bury, Reason: "why"})) // the one with headers
		_, err = w.PauseQueue(w.ctx, alice, "/q", true)
		w.must(err)
		before, err := w.GetQueue(w.ctx, alice, "/q")
		w.must(err)
		d.powerCut(w)

		w = d.start()
		defer w.Close()
		info, err := w.GetQueue(w.ctx, alice, "/q")
		w.must(err)
		if !info.Paused || info.Settings.TypeNames["created"] != 7 || info.CreatedAt != before.CreatedAt || info.ID != before.ID || info.Stats.Sent != 4 {
			t.Errorf("the queue comes back as %+v, was %+v", info, before)
		}
		w.counts("/q", 2, 1, 0, 1)
		again, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Producer: "p", Batch: 9, Messages: messages("other"), Instance: "an earlier one"})
		w.must(err)
		if again.First != sent.First || again.Count != sent.Count {
			t.Errorf("the batch was answered with %+v, and now with %+v", sent, again)
		}
		dup, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1, DedupID: "x"}}})
		w.must(err)
		if len(dup.Duplicates) != 1 || dup.Duplicates[0].Sequence != sent.First+2 {
			t.Errorf("the dedup id was answered with %+v", dup)
		}
		page, err := w.Peek(w.ctx, alice, PeekRequest{Queue: "/q", Filter: queue.Filter{States: []queue.State{queue.Buried}}})
		w.must(err)
		p := page.Messages[0]
		if string(p.Body) != "headers" || p.BuryReason != "why" || p.Priority != 9 || p.CorrelationID != "c" || p.ReplyTo != "/r" || p.ContentType != "t" || string(p.Headers[0].Value) != "v" {
			t.Errorf("buried: %+v", p)
		}
		pass(time.Hour)
		w.counts("/q", 2, 0, 0, 1) // the delay is over, and so is the TTL
	})
}

func TestLeasesHoldOverACleanRestart_S13_S27(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/q", func(s *queue.Settings) { s.Lease = time.Minute })
		w.send("/q", "a", "b")
		got := w.receive("/q", 2)
		w.Close()
		time.Sleep(30 * time.Second)
		w = d.start()
		defer w.Close()
		w.counts("/q", 0, 0, 2, 0)
		w.must(w.settle(got[0], Verdict{Outcome: Ack}))
		pass(29 * time.Second)
		w.counts("/q", 0, 0, 1, 0)
		pass(2 * time.Second)
		w.counts("/q", 1, 0, 0, 0)
		w.wants(w.settle(got[1], Verdict{Outcome: Ack}), reason.StaleReceipt)
	})
}

func TestMemoryQueuesComeBackEmptyAndNeverRepeatASequence_S5_S26(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/m", func(s *queue.Settings) { s.Durability = queue.Memory })
		last := w.send("/m", "a", "b").First + 1
		for range 3 {
			d.powerCut(w)
			w = d.start()
			w.counts("/m", 0, 0, 0, 0)
			first := w.send("/m", "c").First
			if first <= last {
				t.Errorf("sequence %d comes after %d", first, last)
			}
			last = first
		}
		w.Close()
	})
}

func TestDeletedQueuesStayDeleted_S23_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/q")
		w.send("/q", "old")
		id := w.stats("/q")
		_, err := w.DeleteQueue(w.ctx, alice, "/q")
		w.must(err)
		d.powerCut(w)
		w = d.start()
		_, err = w.GetQueue(w.ctx, alice, "/q")
		w.wants(err, reason.QueueNotFound)
		w.create("/q")
		w.send("/q", "new")
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		if out := w.receive("/q", 9); bodiesOf(out) != "new " {
			t.Errorf("received %q; before: %+v", bodiesOf(out), id)
		}
	})
}

func TestDeadLettersMoveInOneStep_S17_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/dead")
		w.create("/q", func(s *queue.Settings) { s.MaxAttempts = 1; s.DeadLetter = "/dead" })
		w.send("/q", "a", "b")
		w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Nack, Reason: "no"}))
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		w.counts("/q", 1, 0, 0, 0)
		w.counts("/dead", 1, 0, 0, 0)
		if out := w.receiveOne("/dead"); string(out.Body) != "a" || len(out.Headers) != 5 {
			t.Errorf("the dead letter is %+v", out)
		}
	})
}

// TestOneOldMessagePinsNothing lets much traffic pass beside a message that stays: the journal keeps small,
// and the message, with all that is known of it, is still there.
func TestOneOldMessagePinsNothing_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/old", func(s *queue.Settings) { s.DedupWindow = 24 * time.Hour })
		w.create("/q")
		w.create("/m", func(s *queue.Settings) { s.Durability = queue.Memory })
		last := w.send("/m", "x").First
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/old", Producer: "p", Batch: 1, Messages: []queue.Message{
			{Type: 5, Body: []byte("old"), DedupID: "id", Headers: []queue.Header{{Key: "k", Value: []byte("v")}}}}})
		w.must(err)
		w.must(w.settle(w.receiveOne("/old"), Verdict{Outcome: Nack}))
		body := strings.Repeat("x", 1000)
		for range 1000 {
			w.send("/q", body)
			got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Max: 1, Consume: true})
			w.must(err)
			if len(got) != 1 {
				t.Fatal("nothing to consume")
			}
			pass(time.Millisecond)
		}
		if freed := w.compactor.freed.Load(); freed < 5 {
			t.Errorf("%d segments were given up", freed)
		}
		if used := w.journal.Stats().UsedBytes; used > 8*64<<10 {
			t.Errorf("the journal takes %d bytes for one message", used)
		}
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		if out := w.receiveOne("/old"); string(out.Body) != "old" || out.Attempts != 1 || out.Type != 5 || out.Sequence != 1 || string(out.Headers[0].Value) != "v" {
			t.Errorf("the old message is %+v", out)
		}
		dup, err := w.Send(w.ctx, alice, SendRequest{Queue: "/old", Messages: []queue.Message{{Type: 1, DedupID: "id"}}})
		w.must(err)
		if len(dup.Duplicates) != 1 {
			t.Error("its dedup id is forgotten")
		}
		again, err := w.Send(w.ctx, alice, SendRequest{Queue: "/old", Producer: "p", Batch: 1, Messages: messages("y")})
		w.must(err)
		if again.First != 1 {
			t.Error("its producer's batch is forgotten")
		}
		if first := w.send("/m", "y").First; first <= last {
			t.Errorf("sequence %d of a memory queue comes after %d", first, last)
		}
	})
}

// TestDeepBacklogLeavesMemory sends more than may stay in memory and gets it back in order, by peek too.
func TestDeepBacklogLeavesMemory_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.PayloadMemory = 1 << 20
		d.o.Journal.SegmentBytes = 1 << 20
		w := d.start()
		defer func() { w.Close() }()
		w.create("/q")
		body := func(i int) []byte { return append(fmt.Appendf(nil, "%d ", i), bytes.Repeat([]byte("y"), 4000)...) }
		const n = 1500
		for i := range n {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1, Body: body(i)}}})
			w.must(err)
		}
		if in := w.totals.payloads.Load(); in > 3<<20 {
			t.Errorf("%d bytes of payloads are in memory", in)
		}
		seen := 0
		for cursor := ""; ; {
			page, err := w.Peek(w.ctx, alice, PeekRequest{Queue: "/q", Cursor: cursor})
			w.must(err)
			for i := range page.Messages {
				if !bytes.Equal(page.Messages[i].Body, body(seen)) {
					t.Fatalf("message %d is shown as %.20q", seen, page.Messages[i].Body)
				}
				seen++
			}
			if cursor = page.Cursor; cursor == "" {
				break
			}
		}
		if seen != n {
			t.Errorf("%d messages are shown, want %d", seen, n)
		}
		for i := 0; i < n; {
			got := w.receive("/q", 100)
			if len(got) == 0 {
				t.Fatalf("nothing after %d messages", i)
			}
			for k := range got {
				if !bytes.Equal(got[k].Body, body(i)) {
					t.Fatalf("message %d is received as %.20q", i, got[k].Body)
				}
				w.must(w.settle(got[k], Verdict{Outcome: Ack}))
				i++
			}
			if i > n/2 && d.o.Instance == "" { // the rest after a restart
				d.o.Instance = "second"
				d.powerCut(w)
				w = d.start()
			}
		}
		w.counts("/q", 0, 0, 0, 0)
	})
}

func TestFailedSyncIsFinal_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/q")
		w.send("/q", "a")
		var fail atomic.Bool
		broken := errors.New("input/output error")
		fault := vfs.NewFault(d.fs, func(op vfs.Op) vfs.Verdict {
			if fail.Load() && op.Kind == vfs.OpSync {
				return vfs.Fail(broken)
			}
			return vfs.Pass()
		})
		w.Close()
		d.o.Journal.FS = fault
		b, err := Open(d.o)
		if err != nil {
			t.Fatal(err)
		}
		w = &world{d.T, b, d.Context()}
		fail.Store(true)
		_, err = w.trySend("/q", "b")
		w.wants(err, reason.Unhealthy)
		synctest.Wait()
		select {
		case <-w.Failed():
		default:
			t.Error("the broker does not say that it failed")
		}
		fail.Store(false) // a second try might succeed, and must not be made
		_, err = w.trySend("/q", "c")
		w.wants(err, reason.Unhealthy)
		if !errors.Is(w.Failure(), broken) {
			t.Errorf("it failed with %v", w.Failure())
		}
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		if out := bodiesOf(w.receive("/q", 9)); out != "a " && out != "a b " {
			t.Errorf("received %q", out)
		}
	})
}

func TestFullDiskRefusesSendsWhileAcksGoOn_S27(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.MaxDisk = 12 * 64 << 10
		w := d.start()
		defer w.Close()
		w.create("/q")
		body := strings.Repeat("z", 8000)
		sent := 0
		var err error
		for ; sent < 1000; sent++ {
			if _, err = w.trySend("/q", body); err != nil {
				break
			}
		}
		w.wants(err, reason.DiskFull)
		for i := 0; err == nil || i == 0; i++ { // a small one may still fit
			_, err = w.trySend("/q", "s")
			sent++
		}
		sent--
		w.wants(err, reason.DiskFull)
		if e, ok := err.(*reason.Error); !ok || e.RetryAfter == 0 {
			t.Errorf("no hint when to try again: %v", err)
		}
		if !w.Storage().Full {
			t.Error("storage does not say that it is full")
		}
		for range sent {
			w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Ack}))
		}
		for range 100 { // room comes back by itself
			pass(100 * time.Millisecond)
			if _, err = w.trySend("/q", body); err == nil {
				break
			}
		}
		w.must(err)
	})
}

func TestMemoryIsBounded_S2(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.MaxMemory = 1 << 20
		w := d.start()
		defer w.Close()
		w.create("/m", func(s *queue.Settings) { s.Durability = queue.Memory })
		body := strings.Repeat("z", 10000)
		var err error
		for range 1000 {
			if _, err = w.trySend("/m", body); err != nil {
				break
			}
		}
		w.wants(err, reason.QuotaExceeded)
		_, _, err = w.Purge(w.ctx, alice, SelectRequest{Queue: "/m"})
		w.must(err)
		w.send("/m", body)
	})
}

// TestDamageIsRefusedOrQuarantined flips a byte below what was promised.
func TestDamageIsRefusedOrQuarantined_S25(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/hit")
		w.create("/well")
		w.send("/hit", "needle in the haystack")
		w.send("/hit", "more")
		w.send("/well", "fine")
		w.Close()
		name := "/state/journal/0000.seg"
		f, err := d.fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		content := make([]byte, 64<<10)
		_, _ = f.ReadAt(content, 0)
		at := bytes.Index(content, []byte("needle"))
		if at < 0 {
			t.Fatal("the body is not in the file")
		}
		if _, err := f.WriteAt([]byte("N"), int64(at)); err != nil {
			t.Fatal(err)
		}
		d.o.Journal.FS = d.fs
		_, err = Open(d.o)
		var damage DamageError
		if !errors.As(err, &damage) || !strings.Contains(err.Error(), "0000.seg") {
			t.Fatalf("it opens with %v", err)
		}
		d.o.Journal.Quarantine = true
		w = d.start()
		defer func() { w.Close() }()
		_, err = w.trySend("/hit", "x")
		w.wants(err, reason.Damaged)
		w.send("/well", "x")
		if out := bodiesOf(w.receive("/well", 9)); out != "fine x " {
			t.Errorf("/well has %q", out)
		}
		if s := w.Storage(); len(s.Damaged) != 1 || s.Damaged[0] != "/hit" {
			t.Errorf("storage says %q is damaged", s.Damaged)
		}
		if _, err := w.Peek(w.ctx, alice, PeekRequest{Queue: "/hit"}); err != nil {
			t.Errorf("peek: %v", err)
		}
		w.Close()
		d.o.Journal.Quarantine = false
		w = d.start() // it was accepted; the queue stays as it is
		_, err = w.trySend("/hit", "x")
		w.wants(err, reason.Damaged)
		_, err = w.DeleteQueue(w.ctx, alice, "/hit")
		w.must(err)
	})
}

// TestQuarantineFindsWhoLostItsLastRecord hurts the metadata of the last frame of a queue, behind which
// there are only frames of another.
func TestQuarantineFindsWhoLostItsLastRecord(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/hit")
		w.create("/well")
		w.send("/hit", "first")
		w.send("/hit", "needle")
		w.send("/well", "fine")
		pass(time.Second)
		d.powerCut(w)
		f, err := d.fs.Open("/state/journal/0000.seg")
		if err != nil {
			t.Fatal(err)
		}
		content := make([]byte, 64<<10)
		_, _ = f.ReadAt(content, 0)
		at := int64(bytes.Index(content, []byte("needle")) - 16) // behind the sizes, in the metadata
		if _, err := f.WriteAt([]byte{content[at] ^ 1}, at); err != nil {
			t.Fatal(err)
		}
		d.o.Journal.Quarantine = true
		w = d.start()
		defer w.Close()
		_, err = w.trySend("/hit", "x")
		w.wants(err, reason.Damaged)
		w.send("/well", "x")
		w.counts("/hit", 1, 0, 0, 0)
		w.counts("/well", 2, 0, 0, 0)
	})
}

// TestTransactionIsWholeAfterACrash_S24_S25 lets the power go while a transaction is written, at every operation.
func TestTransactionIsWholeAfterACrash_S24_S25(t *testing.T) {
	body := strings.Repeat("t", 2000) // several sectors
	outcomes := map[int]int{}
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{T: t, fs: vfs.NewCrash(rand.New(rand.NewPCG(seed, 1)))}
			d.o.Journal = &JournalOptions{FS: d.fs, Dir: "/state/journal", SegmentBytes: 64 << 10}
			w := d.start()
			names := []string{"/a", "/b", "/c"}
			for _, name := range names {
				w.create(name)
			}
			w.send("/a", "ack me")
			r := TransactRequest{Acks: receipts(w.receive("/a", 1))}
			for _, name := range names {
				r.Sends = append(r.Sends, TransactSend{name, messages(body)})
			}
			pass(time.Second)
			d.fs.CrashAfter(1 + int(seed%3))
			_, err := w.Transact(w.ctx, alice, r)
			d.fs = d.fs.CrashWith(vfs.SomeLost, rand.New(rand.NewPCG(seed, 2)))
			w.Close()
			w = d.start()
			defer w.Close()
			total := 0
			for _, name := range names {
				for _, m := range w.receive(name, 9) {
					if len(m.Body) == len(body) {
						total++
					} else {
						total += 10
					}
				}
			}
			if total != 3 && total != 10 {
				t.Errorf("seed %d: %d of 3 messages were stored, and %d of 1 not acked", seed, total%10, total/10)
			}
			if err == nil && total != 3 {
				t.Errorf("seed %d: it was confirmed, and is lost", seed)
			}
			outcomes[total]++
		})
	}
	if outcomes[3] == 0 || outcomes[10] == 0 {
		t.Errorf("not both outcomes were seen: %v", outcomes)
	}
}

// TestBlockedSendersLeaveTheReserveAlone fills the disk, lets senders wait for room in the queue, and purges it:
// what waited must not use up the room that acks need.
func TestBlockedSendersLeaveTheReserveAlone_S7_S27(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.MaxDisk = 12 * 64 << 10
		w := d.start()
		defer w.Close()
		w.create("/full", func(s *queue.Settings) { s.Overflow = queue.Block; s.MaxMessages = 1 })
		w.create("/q")
		w.send("/full", "first")
		body := strings.Repeat("z", 8000)
		ended := make(chan error, 100)
		for range 100 { // 800 kB: more than there is
			go func() { _, err := w.trySend("/full", body); ended <- err }()
		}
		synctest.Wait()
		var err error
		for err == nil {
			_, err = w.trySend("/q", body)
		}
		w.wants(err, reason.DiskFull)
		_, err = w.UpdateQueue(w.ctx, alice, "/full", func(s *queue.Settings) error { s.MaxMessages = 1000; return nil })
		if err != nil {
			w.wants(err, reason.DiskFull)
			s := w.byName["/full"]
			s.mu.Lock()
			settings := *s.q.Settings()
			settings.MaxMessages = 1000
			s.q.Configure(w.now(), settings)
			s.afterLocked(w.now())
			s.mu.Unlock()
		}
		pass(10 * time.Second)
		if err := w.Failure(); err != nil {
			t.Fatal(err)
		}
		for w.stats("/q").Ready > 0 { // acks go on
			w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Ack}))
			pass(100 * time.Millisecond)
		}
		if err := w.Failure(); err != nil {
			t.Fatal(err)
		}
		if len(ended) == 0 {
			t.Error("none of those who waited was served once there was room")
		}
	})
}
