package broker

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// move moves all that a request means, call by call.
func (w *world) move(r MoveRequest) (total int64) {
	w.Helper()
	for {
		n, cursor, err := w.Move(w.ctx, alice, r)
		w.must(err)
		total += n
		if r.Cursor = cursor; cursor == "" {
			return total
		}
	}
}

// all shows all messages of a queue by sequence.
func (w *world) all(name string) (out []queue.Peeked) {
	w.Helper()
	r := PeekRequest{Queue: name, BySequence: true, Filter: queue.Filter{States: []queue.State{queue.Ready, queue.Delayed, queue.Leased, queue.Buried}}}
	for {
		page, err := w.Peek(w.ctx, alice, r)
		w.must(err)
		out = append(out, page.Messages...)
		if r.Cursor = page.Cursor; r.Cursor == "" {
			return out
		}
	}
}

func peekedBodies(all []queue.Peeked) string {
	text := ""
	for i := range all {
		text += string(all[i].Body) + " "
	}
	return text
}

// everyState puts a message in each state into a queue: ready, mortal, delayed, leased, buried.
func (w *world) everyState(name string) (leased queue.Delivery) {
	w.Helper()
	_, err := w.Send(w.ctx, alice, SendRequest{Queue: name, Messages: []queue.Message{
		{Type: 1, Priority: 9, Body: []byte("buried")},
		{Type: 1, Priority: 8, Body: []byte("leased")},
		{Type: 2, Priority: 3, Body: []byte("ready"), Headers: []queue.Header{{Key: "k", Value: []byte("v")}}, CorrelationID: "c", DedupID: "id"},
		{Type: 1, Body: []byte("mortal"), TTL: time.Hour},
		{Type: 1, Body: []byte("delayed"), Delay: time.Minute, TTL: 2 * time.Hour},
	}})
	w.must(err)
	w.must(w.settle(w.receiveOne(name), Verdict{Outcome: Bury, Reason: "why"}))
	return w.receiveOne(name)
}

func TestMoveKeepsAllButAttemptsAndTheGrave(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		leased := w.everyState("/a")
		before := map[string]queue.Peeked{}
		for _, p := range w.all("/a") {
			before[string(p.Body)] = p
		}
		w.send("/b", "first")
		pass(time.Second)
		if n := w.move(MoveRequest{From: "/a", To: "/b", DryRun: true}); n != 4 {
			w.Fatalf("%d would be moved, want 4", n)
		}
		if n := w.move(MoveRequest{From: "/a", To: "/b"}); n != 4 {
			w.Fatalf("%d moved, want 4", n)
		}
		w.counts("/a", 0, 0, 1, 0)
		w.counts("/b", 4, 1, 0, 0)
		if n := w.move(MoveRequest{From: "/a", To: "/b", Filter: queue.Filter{States: []queue.State{queue.Leased}}}); n != 1 {
			w.Fatalf("%d leased ones moved, want 1", n)
		}
		w.wants(w.settle(leased, Verdict{Outcome: Ack}), reason.StaleReceipt)
		after := w.all("/b")
		if text := peekedBodies(after); text != "first buried ready mortal delayed leased " {
			w.Fatalf("moved: %s", text)
		}
		for _, p := range after[1:] {
			was := before[string(p.Body)]
			if p.SentAt != was.SentAt || p.Expires != was.Expires || p.Due != was.Due || p.Type != was.Type || p.Priority != was.Priority || p.Attempts != 0 ||
				p.DedupID != was.DedupID || p.CorrelationID != was.CorrelationID || fmt.Sprint(p.Headers) != fmt.Sprint(was.Headers) || p.TTL != was.TTL {
				w.Errorf("moved %+v, which was %+v", p, was)
			}
		}
		if a, b := w.stats("/a"), w.stats("/b"); a.Moved != 5 || a.Purged != 0 || a.Consumed != 0 || b.Sent != 6 {
			w.Errorf("statistics %+v, %+v", a, b)
		}
		pass(time.Minute)
		w.counts("/b", 6, 0, 0, 0)
		pass(time.Hour)
		w.counts("/b", 5, 0, 0, 0)
	})
}

func TestMoveWakesWhoWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		w.send("/a", "x")
		got := make(chan []queue.Delivery)
		go func() {
			out, _ := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/b", Wait: time.Hour})
			got <- out
		}()
		pass(time.Second)
		w.move(MoveRequest{From: "/a", To: "/b"})
		if out := <-got; bodiesOf(out) != "x " {
			w.Errorf("received %q", bodiesOf(out))
		}
	})
}

func TestMovedDedupIDIsCarriedAndNotRemembered(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		send := func(name string) queue.Stored {
			stored, err := w.Send(w.ctx, alice, SendRequest{Queue: name, Messages: []queue.Message{{Type: 1, DedupID: "id"}}})
			w.must(err)
			return stored
		}
		send("/a")
		send("/b")
		w.move(MoveRequest{From: "/a", To: "/b"})
		w.counts("/b", 2, 0, 0, 0)
		if d := w.all("/b")[1]; d.DedupID != "id" {
			w.Errorf("moved with dedup id %q", d.DedupID)
		}
		w.create("/c")
		w.move(MoveRequest{From: "/b", To: "/c"})
		if again := send("/c"); len(again.Duplicates) != 0 {
			w.Error("the id of a moved message counts as sent")
		}
	})
}

func TestMoveMeansWhatTheFilterSays(t *testing.T) {
	inWorld(t, func(w *world) {
		for name, f := range map[string]queue.Filter{
			"3":   {MinSequence: 3, MaxSequence: 3},
			"2 4": {Selector: queue.Selector{Kind: queue.TypeIs, Type: 2}},
			"4":   {Headers: []queue.Header{{Key: "n", Value: []byte("4")}}},
			"1 2": {MaxSequence: 2},
		} {
			w.create("/a")
			w.create("/b")
			for i := range 5 {
				_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/a", Messages: []queue.Message{{
					Type: int64(i%2 + 1), Body: fmt.Append(nil, i+1), Headers: []queue.Header{{Key: "n", Value: fmt.Append(nil, i+1)}},
				}}})
				w.must(err)
			}
			w.move(MoveRequest{From: "/a", To: "/b", Filter: f})
			if got := strings.TrimSpace(peekedBodies(w.all("/b"))); got != name {
				w.Errorf("moved %q, want %q", got, name)
			}
			for _, q := range []string{"/a", "/b"} {
				_, err := w.DeleteQueue(w.ctx, alice, q)
				w.must(err)
			}
		}
	})
}

func TestMoveInStepsWithALimitAndACursor(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		const n = 3*limits.MoveMessages + 7
		r := SendRequest{Queue: "/a"}
		for i := range n {
			r.Messages = append(r.Messages, queue.Message{Type: 1, Body: fmt.Append(nil, i)})
		}
		_, err := w.Send(w.ctx, alice, r)
		w.must(err)
		moved, cursor, err := w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b", Max: 300})
		w.must(err)
		if moved != 300 || cursor == "" {
			w.Fatalf("%d moved, cursor %q", moved, cursor)
		}
		if rest := w.move(MoveRequest{From: "/a", To: "/b", Cursor: cursor}); rest != n-300 {
			w.Fatalf("%d moved then, want %d", rest, n-300)
		}
		for i, p := range w.all("/b") {
			if string(p.Body) != fmt.Sprint(i) {
				w.Fatalf("place %d has %q", i, p.Body)
			}
		}
		for _, cursor := range []string{"x", "0", "-1"} {
			_, _, err = w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b", Cursor: cursor})
			w.wants(err, reason.InvalidArgument)
		}
		_, _, err = w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b", Max: -1})
		w.wants(err, reason.InvalidArgument)
	})
}

func TestMoveStopsWhereTheDestinationIsFull(t *testing.T) {
	for _, overflow := range []queue.Overflow{queue.Reject, queue.Block, queue.DropOldest} {
		inWorld(t, func(w *world) {
			w.create("/a")
			w.create("/b", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 3, overflow })
			w.send("/a", "1", "2", "3", "4")
			w.send("/b", "old")
			moved, cursor, err := w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b"})
			w.must(err)
			if moved != 2 || cursor == "" {
				w.Fatalf("%d moved, cursor %q", moved, cursor)
			}
			if moved, _, err = w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b", Cursor: cursor}); moved != 0 {
				w.Fatalf("%d moved into a full queue", moved)
			}
			w.wants(err, reason.QueueFull)
			if text := peekedBodies(w.all("/b")); text != "old 1 2 " {
				w.Errorf("/b has %q", text)
			}
			if text := peekedBodies(w.all("/a")); text != "3 4 " {
				w.Errorf("/a has %q", text)
			}
		})
	}
}

// Senders that wait for room come before what is moved.
func TestMoveDoesNotOvertakeBlockedSenders(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b", func(s *queue.Settings) { s.MaxBytes, s.Overflow = 10, queue.Block })
		w.send("/a", "1")
		w.send("/b", "12345")
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan error)
		go func() {
			_, err := w.Send(ctx, alice, SendRequest{Queue: "/b", Wait: -1, Messages: messages("123456")})
			done <- err
		}()
		pass(time.Second)
		_, _, err := w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b"})
		w.wants(err, reason.QueueFull)
		cancel()
		<-done
		w.move(MoveRequest{From: "/a", To: "/b"})
	})
}

func TestMoveStopsBeforeWhatIsTooLarge(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b", func(s *queue.Settings) { s.MaxMessageSize = 3 })
		w.send("/a", "1", "large", "2")
		moved, cursor, err := w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b"})
		if w.must(err); moved != 1 {
			w.Fatalf("%d moved, want 1", moved)
		}
		_, _, err = w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/b", Cursor: cursor})
		if w.wants(err, reason.MessageTooLarge); !strings.Contains(err.Error(), "message 2:") {
			w.Errorf("%v does not name the message", err)
		}
		w.move(MoveRequest{From: "/a", To: "/b", Filter: queue.Filter{MinSequence: 3}})
		if text := peekedBodies(w.all("/a")); text != "large " {
			w.Errorf("/a has %q", text)
		}
	})
}

// One message may be larger than what is moved in a step.
func TestMoveOfALargeMessage(t *testing.T) {
	inWorld(t, func(w *world) {
		large := func(s *queue.Settings) { s.MaxMessageSize = limits.MessageSizeMax }
		w.create("/a", large)
		w.create("/b", large)
		body := strings.Repeat("x", limits.MoveBytes+1)
		w.send("/a", "1", body, "2")
		if n := w.move(MoveRequest{From: "/a", To: "/b"}); n != 3 {
			w.Fatalf("%d moved", n)
		}
		if all := w.all("/b"); len(all[1].Body) != len(body) {
			w.Errorf("%d bytes of %d came", len(all[1].Body), len(body))
		}
	})
}

// A segment that takes less than a step asks for smaller steps.
func TestMoveWithSmallSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := Open(Options{Journal: &JournalOptions{FS: vfs.NewCrash(rand.New(rand.NewPCG(1, 2))), Dir: "/state/journal", SegmentBytes: 64 << 10}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		w := &world{t, b, t.Context()}
		w.create("/a")
		w.create("/b")
		for range 20 {
			w.send("/a", slices.Repeat([]string{strings.Repeat("x", 500)}, 30)...)
		}
		w.send("/a", strings.Repeat("y", 40_000))
		if n := w.move(MoveRequest{From: "/a", To: "/b"}); n != 601 {
			w.Fatalf("%d moved", n)
		}
		w.counts("/b", 601, 0, 0, 0)
		w.must(w.Failure())
	})
}

func TestMoveLeavesWhatHasExpired(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/dead")
		w.create("/a", func(s *queue.Settings) { s.DeadLetter, s.DeadLetterExpired = "/dead", true })
		w.create("/b")
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/a", Messages: []queue.Message{{Type: 1, Body: []byte("x"), TTL: time.Second}}})
		w.must(err)
		d := w.receiveOne("/a") // while it is leased its TTL ends unseen
		pass(2 * time.Second)
		if n := w.move(MoveRequest{From: "/a", To: "/b", Filter: queue.Filter{States: []queue.State{queue.Leased}}}); n != 0 {
			w.Fatalf("%d moved", n)
		}
		w.must(w.settle(d, Verdict{Outcome: Release}))
		w.counts("/dead", 1, 0, 0, 0)
	})
}

func TestMoveNeedsBothRights(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/mine")
		w.create("/drop", func(s *queue.Settings) { s.Mode = 0o622 }) // others may send
		w.create("/take", func(s *queue.Settings) { s.Mode = 0o666 }) // others may receive too
		move := func(from, to string) error {
			_, _, err := w.Move(w.ctx, bob, MoveRequest{From: from, To: to})
			return err
		}
		w.wants(move("/mine", "/drop"), reason.AccessDenied)
		w.wants(move("/take", "/mine"), reason.AccessDenied)
		w.wants(move("/drop", "/take"), reason.AccessDenied)
		w.must(move("/take", "/drop"))
		w.wants(move("/take", "/none"), reason.QueueNotFound)
		w.wants(move("/none", "/drop"), reason.QueueNotFound)
		_, _, err := w.Move(w.ctx, alice, MoveRequest{From: "/mine", To: "/mine"})
		w.wants(err, reason.InvalidArgument)
	})
}

func TestMoveFromJournalToMemoryIsRefused(t *testing.T) {
	inJournaledWorld(t, Options{}, func(w *world) {
		w.create("/j")
		w.create("/m", func(s *queue.Settings) { s.Durability = queue.Memory })
		w.send("/m", "x")
		_, _, err := w.Move(w.ctx, alice, MoveRequest{From: "/j", To: "/m"})
		w.wants(err, reason.DurabilityMismatch)
		w.move(MoveRequest{From: "/m", To: "/j"})
		w.counts("/j", 1, 0, 0, 0)
	})
}

// What moves between queues of one owner costs nothing; what goes to somebody else is charged to them.
func TestMoveIsChargedToTheDestinationsOwner(t *testing.T) {
	both := quota.Limits{quota.QueuedBytes: 10}
	limit := func() Options {
		return Options{Quotas: quota.New(0, quota.Config{Of: map[identity.Principal]quota.Limits{alice.Principal(): both, bob.Principal(): both}})}
	}
	inFreshWorlds(t, limit, func(w *world) {
		w.create("/a", func(s *queue.Settings) { s.Mode = 0o666 })
		w.create("/b")
		_, _, err := w.CreateQueue(w.ctx, bob, "/bobs", func(s *queue.Settings) error { s.Mode = 0o666; return nil }, false)
		w.must(err)
		w.send("/a", "12345678")
		w.move(MoveRequest{From: "/a", To: "/b"})
		w.move(MoveRequest{From: "/b", To: "/a"})
		_, err = w.Send(w.ctx, bob, SendRequest{Queue: "/bobs", Messages: messages("1234")})
		w.must(err)
		_, _, err = w.Move(w.ctx, alice, MoveRequest{From: "/a", To: "/bobs"})
		w.wants(err, reason.QuotaExceeded)
		w.counts("/a", 1, 0, 0, 0)
		if used := w.quotas.Account(bob.Principal()).Used(quota.QueuedBytes); used != 4 {
			w.Errorf("%d bytes are charged", used)
		}
	})
}

// die sends bodies to a queue and lets each of them become a dead letter.
func (w *world) die(name string, bodies ...string) {
	w.Helper()
	w.send(name, bodies...)
	for range bodies {
		w.must(w.settle(w.receiveOne(name), Verdict{Outcome: Nack, Reason: "no"}))
	}
}

func toDead(s *queue.Settings) { s.DeadLetter, s.MaxAttempts = "/dead", 1 }

func redrivenText(all []Redriven) (text string) {
	for _, r := range all {
		text += fmt.Sprintf("%s %d %s; ", r.Queue, r.Messages, reason.Of(r.Err))
	}
	return text
}

func TestRedriveReturnsDeadLettersToTheirQueues(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/dead")
		for _, name := range []string{"/a", "/b", "/gone"} {
			w.create(name, toDead)
		}
		w.die("/a", "a1", "a2")
		w.die("/b", "b1")
		w.die("/gone", "g1")
		w.die("/a", "a3")
		w.send("/dead", "plain")
		_, err := w.DeleteQueue(w.ctx, alice, "/gone")
		w.must(err)
		redrive := func(r RedriveRequest) string {
			r.Queue = "/dead"
			out, err := w.Redrive(w.ctx, alice, r)
			w.must(err)
			return redrivenText(out)
		}
		if got := redrive(RedriveRequest{DryRun: true}); got != "/a 3 ; /b 1 ; /gone 0 QUEUE_NOT_FOUND; " {
			w.Fatalf("a dry run: %s", got)
		}
		w.counts("/dead", 6, 0, 0, 0)
		if got := redrive(RedriveRequest{Filter: queue.Filter{MaxSequence: 1}}); got != "/a 1 ; " {
			w.Fatalf("the first: %s", got)
		}
		if got := redrive(RedriveRequest{Max: 1}); got != "/a 1 ; " {
			w.Fatalf("at most one: %s", got)
		}
		if got := redrive(RedriveRequest{}); got != "/a 1 ; /b 1 ; /gone 0 QUEUE_NOT_FOUND; " {
			w.Fatalf("the rest: %s", got)
		}
		if text := peekedBodies(w.all("/dead")); text != "g1 plain " {
			w.Errorf("/dead has %q", text)
		}
		back := w.all("/a")
		if text := peekedBodies(back); text != "a1 a2 a3 " || len(back[0].Headers) != 0 || back[0].Attempts != 0 {
			w.Errorf("/a has %q: %+v", text, back[0])
		}
	})
}

func TestRedriveStopsAtAFullQueueOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/dead")
		w.create("/a", toDead, func(s *queue.Settings) { s.MaxMessages = 2 })
		w.create("/b", toDead)
		for range 3 {
			w.die("/a", "a")
			w.die("/b", "b")
		}
		out, err := w.Redrive(w.ctx, alice, RedriveRequest{Queue: "/dead"})
		w.must(err)
		if got := redrivenText(out); got != "/a 2 QUEUE_FULL; /b 3 ; " {
			w.Errorf("redriven: %s", got)
		}
		w.counts("/dead", 1, 0, 0, 0)
	})
}

// A queue with more dead letters than are looked at together.
func TestRedriveOfMany(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/dead")
		const queues, each = 7, 200
		for i := range queues {
			w.create(fmt.Sprint("/q", i), toDead)
		}
		for range each {
			for i := range queues {
				w.die(fmt.Sprint("/q", i), "x")
			}
		}
		out, err := w.Redrive(w.ctx, alice, RedriveRequest{Queue: "/dead", Max: queues * each / 2})
		w.must(err)
		sum := int64(0)
		for _, r := range out {
			sum += r.Messages
		}
		if sum != queues*each/2 {
			w.Errorf("%d redriven, want %d", sum, queues*each/2)
		}
		_, err = w.Redrive(w.ctx, alice, RedriveRequest{Queue: "/dead"})
		w.must(err)
		w.counts("/dead", 0, 0, 0, 0)
		w.counts("/q3", each, 0, 0, 0)
	})
}

func TestRedriveOverlooksForeignHeaders(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/dead")
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/dead", Messages: []queue.Message{
			{Type: 1, Headers: []queue.Header{{Key: queue.HeaderDeadQueue, Value: []byte("no queue's name")}}},
			{Type: 1, Headers: []queue.Header{{Key: queue.HeaderDeadQueue, Value: []byte("/dead")}}},
		}})
		w.must(err)
		out, err := w.Redrive(w.ctx, alice, RedriveRequest{Queue: "/dead"})
		w.must(err)
		if got := redrivenText(out); got != "/dead 0 INVALID_ARGUMENT; " {
			w.Errorf("redriven: %s", got)
		}
	})
}

func TestImportOfWhatPeekShowedIsExact(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		w.everyState("/a")
		w.must(w.settle(w.receiveOne("/a"), Verdict{Outcome: Nack}))
		exported := w.all("/a")
		pass(time.Second)
		stored, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/b", Messages: exported})
		w.must(err)
		if stored.First != 1 || stored.Count != len(exported) {
			w.Fatalf("stored %+v", stored)
		}
		for i, p := range w.all("/b") {
			was := exported[i]
			was.Sequence, was.LeaseEnds = p.Sequence, 0
			if was.State == queue.Leased {
				was.State = queue.Ready
			}
			if got, want := fmt.Sprintf("%+v", p), fmt.Sprintf("%+v", was); got != want {
				w.Errorf("imported\n%s, which was\n%s", got, want)
			}
		}
	})
}

func TestImportMendsAPastThatCanNotBe(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		now := time.Now().UnixNano()
		old := queue.Message{Type: 1, Body: []byte("x")}
		dead := old
		for i := range limits.Headers {
			dead.Headers = append(dead.Headers, queue.Header{Key: fmt.Sprint(i)})
		}
		dead.Headers = append(dead.Headers, queue.Header{Key: queue.HeaderDeadQueue, Value: []byte("/a")}, queue.Header{Key: queue.HeaderDeadReason})
		_, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/a", Messages: []queue.Peeked{
			{Delivery: queue.Delivery{Message: old, SentAt: now + int64(time.Hour)}},
			{Delivery: queue.Delivery{Message: old, Attempts: math.MaxInt}, State: queue.Buried, BuryReason: strings.Repeat("é", limits.ImportReasonLength)},
			{Delivery: queue.Delivery{Message: old, SentAt: now - int64(time.Hour)}, State: queue.Delayed, Due: now - 1},
			{Delivery: queue.Delivery{Message: dead, SentAt: now - int64(time.Hour)}, State: queue.Leased},
		}})
		w.must(err)
		all := w.all("/a")
		if all[0].SentAt != now || all[0].State != queue.Ready {
			w.Errorf("sent in the future: %+v", all[0])
		}
		if all[1].Attempts != limits.MaxAttemptsMax || all[1].State != queue.Buried || len(all[1].BuryReason) != limits.ImportReasonLength || all[1].SentAt != now {
			w.Errorf("buried: %+v", all[1])
		}
		if all[2].State != queue.Ready || all[3].State != queue.Ready || len(all[3].Headers) != limits.Headers+2 {
			w.Errorf("due before, and leased: %+v", all[2:])
		}
	})
}

// A message whose TTL has ended is stored, and expires as any other.
func TestImportOfWhatHasExpired(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/dead")
		w.create("/a", func(s *queue.Settings) { s.DeadLetter, s.DeadLetterExpired = "/dead", true })
		now := time.Now().UnixNano()
		_, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/a", Messages: []queue.Peeked{
			{Delivery: queue.Delivery{Message: queue.Message{Type: 1}, SentAt: now - int64(time.Hour)}, Expires: now - 1},
		}})
		w.must(err)
		pass(time.Second)
		w.counts("/a", 0, 0, 0, 0)
		w.counts("/dead", 1, 0, 0, 0)
	})
}

func TestImportRefusesWhatMakesNoSense(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 2, queue.Block })
		good := queue.Peeked{Delivery: queue.Delivery{Message: queue.Message{Type: 1, Body: []byte("x")}}}
		for name, spoil := range map[string]func(p *queue.Peeked){
			"cut":       func(p *queue.Peeked) { p.TruncatedFrom = 9 },
			"state":     func(p *queue.Peeked) { p.State = queue.Buried + 1 },
			"type":      func(p *queue.Peeked) { p.Type = 0 },
			"send time": func(p *queue.Peeked) { p.SentAt = -1 },
			"due time":  func(p *queue.Peeked) { p.Due = -1 },
			"expiry":    func(p *queue.Peeked) { p.SentAt, p.Expires = 9, 9 },
			"attempts":  func(p *queue.Peeked) { p.Attempts = -1 },
			"TTL":       func(p *queue.Peeked) { p.TTL = limits.DelayMax + 1 },
			"delay":     func(p *queue.Peeked) { p.Delay = -1 },
			"headers":   func(p *queue.Peeked) { p.Headers = make([]queue.Header, limits.Headers+1) },
			"dead headers": func(p *queue.Peeked) {
				p.Headers = slices.Repeat([]queue.Header{{Key: queue.HeaderDeadQueue, Value: []byte("/a")}}, 6)
			},
			"long dead value": func(p *queue.Peeked) {
				p.Headers = []queue.Header{{Key: queue.HeaderDeadQueue, Value: []byte("/a")}, {Key: queue.HeaderDeadDetail, Value: make([]byte, 4<<10)}}
			},
		} {
			bad := good
			spoil(&bad)
			_, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/a", Messages: []queue.Peeked{good, bad}})
			if reason.Of(err) != reason.InvalidArgument {
				w.Errorf("%s: %v", name, err)
			}
		}
		w.counts("/a", 0, 0, 0, 0)
		_, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/a"})
		w.wants(err, reason.InvalidArgument)
		_, err = w.Import(w.ctx, alice, ImportRequest{Queue: "/a", Messages: []queue.Peeked{good, good, good}})
		w.wants(err, reason.QueueFull)
		_, err = w.Import(w.ctx, bob, ImportRequest{Queue: "/a", Messages: []queue.Peeked{good}})
		w.wants(err, reason.AccessDenied)
	})
}

func TestImportOfABatchTwiceStoresItOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		r := ImportRequest{Queue: "/a", Producer: "p", Batch: 1, Messages: []queue.Peeked{{Delivery: queue.Delivery{Message: queue.Message{Type: 1, DedupID: "id"}}}}}
		first, err := w.Import(w.ctx, alice, r)
		w.must(err)
		again, err := w.Import(w.ctx, alice, r)
		w.must(err)
		if first.First != again.First || w.stats("/a").Ready != 1 {
			w.Errorf("stored %+v and then %+v", first, again)
		}
		r.Batch++ // a dedup id that is carried is not held against another batch
		if _, err = w.Import(w.ctx, alice, r); err != nil || w.stats("/a").Ready != 2 {
			w.Errorf("another batch: %v, %+v", err, w.stats("/a"))
		}
		r.Batch++
		r.Instance = "another"
		_, err = w.Import(w.ctx, alice, r)
		if w.journal == nil {
			w.wants(err, reason.OutcomeUnknown)
		} else {
			w.must(err)
		}
	})
}

// A message is in exactly one of the two queues, also after a crash, since both learn of it in one frame.
func TestStepOfAMoveIsOneFrame(t *testing.T) {
	inJournaledWorld(t, Options{}, func(w *world) {
		w.create("/a")
		w.create("/b")
		for _, way := range [][2]string{{"/a", "/b"}, {"/b", "/a"}} {
			w.send(way[0], "1", "2", "3")
			before := w.journal.Appended()
			w.move(MoveRequest{From: way[0], To: way[1]})
			if frames := w.journal.Appended() - before; frames != 1 {
				w.Errorf("%d frames from %s to %s", frames, way[0], way[1])
			}
		}
	})
}

// What was set aside for a stream of deliveries and not handed out yet is not handed out after it was moved.
func TestMovedMessagesAreNotDelivered(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/a"})
		w.must(err)
		defer c.Close(true)
		w.must(c.Credit(10, 0))
		w.send("/a", "1", "2")
		w.counts("/a", 0, 0, 2, 0)
		if n := w.move(MoveRequest{From: "/a", To: "/b", Filter: queue.Filter{States: []queue.State{queue.Leased}, MaxSequence: 1}}); n != 1 {
			w.Fatalf("%d moved", n)
		}
		d, err := c.Next(w.ctx)
		w.must(err)
		if bodiesOf(d.Deliveries) != "2 " {
			w.Errorf("delivered: %s", bodiesOf(d.Deliveries))
		}
	})
}

func TestMoveTakesBackWhatTheDoorHolds(t *testing.T) {
	inWorldWith(t, Options{Doors: &fakeDoors{}}, func(w *world) {
		w.create("/q", out)
		w.create("/b")
		w.send("/q", "a", "b", "c")
		synctest.Wait()
		w.counts("/q", 1, 0, 2, 0)
		if n := w.move(MoveRequest{From: "/q", To: "/b", DryRun: true}); n != 1 {
			w.Fatalf("%d would be moved beside what the door holds", n)
		}
		if n := w.move(MoveRequest{From: "/q", To: "/b"}); n != 3 {
			w.Fatalf("%d moved", n)
		}
		w.send("/q", "d")
		synctest.Wait()
		w.counts("/q", 0, 0, 1, 0)
	})
}

// Payloads that are not in memory are read for it, those of dead letters too.
func TestMoveAndRedriveAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Journal: &JournalOptions{FS: vfs.NewCrash(rand.New(rand.NewPCG(1, 2))), Dir: "/state/journal", SegmentBytes: 1 << 20}}
		var w *world
		start := func() {
			b, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			w = &world{t, b, t.Context()}
		}
		start()
		defer func() { w.Close() }()
		w.create("/dead")
		w.create("/a", toDead)
		w.create("/b")
		want := ""
		for i := range 600 {
			body := fmt.Sprint(i, strings.Repeat("x", i))
			w.die("/a", body)
			want += body + " "
		}
		restart := func() { w.Close(); start() }
		restart()
		w.move(MoveRequest{From: "/dead", To: "/b"})
		restart()
		out, err := w.Redrive(w.ctx, alice, RedriveRequest{Queue: "/b"})
		w.must(err)
		if len(out) != 1 || out[0].Messages != 0 || reason.Of(out[0].Err) != reason.AccessDenied { // what headers say is not enough
			t.Fatalf("redriven: %s", redrivenText(out))
		}
		_, err = w.UpdateQueue(w.ctx, alice, "/a", func(s *queue.Settings) error { s.DeadLetter = "/b"; return nil })
		w.must(err)
		out, err = w.Redrive(w.ctx, alice, RedriveRequest{Queue: "/b"})
		w.must(err)
		if got := redrivenText(out); got != "/a 600 ; " {
			t.Fatalf("redriven: %s", got)
		}
		restart()
		if got := peekedBodies(w.all("/a")); got != want {
			t.Errorf("%d bytes came home of %d", len(got), len(want))
		}
		w.counts("/dead", 0, 0, 0, 0)
		w.counts("/b", 0, 0, 0, 0)
	})
}

// A move that went after what arrives meanwhile, or after what another one moves back, might never end.
func TestMoveEndsAtWhatWasThereWhenItBegan(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.send("/a", "1", "2")
		for _, c := range []struct{ asked, want uint64 }{{0, 2}, {1, 1}, {2, 2}, {9, 2}} {
			if f := w.byName["/a"].until(queue.Filter{MaxSequence: c.asked}); f.MaxSequence != c.want {
				w.Errorf("up to %d of 2 messages: %d", c.asked, f.MaxSequence)
			}
		}
	})
}

// What is moved, or imported, arrives like anything else, and is neither handed on nor held against a schema.
func TestMovedAndImportedMessagesAreTappedAndNotHandedOn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/copies")
		w.create("/b", func(s *queue.Settings) { s.Binds = []queue.Bind{{To: "/copies"}} })
		w.register("/b", orderSet(0, "id"), validated)
		tap := w.tap(TapRequest{Queue: "/b"})
		defer tap.Close()
		no := queue.Message{Type: 7, Body: []byte("no order")}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/a", Messages: []queue.Message{no}})
		w.must(err)
		w.move(MoveRequest{From: "/a", To: "/b"})
		w.sayNext(tap, "0: no order")
		_, err = w.Import(w.ctx, alice, ImportRequest{Queue: "/b", Messages: []queue.Peeked{{Delivery: queue.Delivery{Message: no}}}})
		w.must(err)
		w.sayNext(tap, "0: no order")
		w.counts("/b", 2, 0, 0, 0)
		w.counts("/copies", 0, 0, 0, 0)
	})
}
