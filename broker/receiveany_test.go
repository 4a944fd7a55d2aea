package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

func memory(s *queue.Settings) { s.Durability = queue.Memory }

// receiveAny receives in the background.
func (w *world) receiveAny(ctx context.Context, r ReceiveRequest) <-chan anyOutcome {
	out := make(chan anyOutcome, 1)
	go func() {
		got, err := w.Receive(ctx, alice, r)
		out <- anyOutcome{got, err}
	}()
	synctest.Wait()
	return out
}

type anyOutcome struct {
	got []queue.Delivery
	err error
}

// perQueue is how many deliveries came from each queue.
func perQueue(got []queue.Delivery) map[string]int {
	out := map[string]int{}
	for i := range got {
		out[got[i].Queue]++
	}
	return out
}

func TestReceiveFromSeveralTakesFromEach(t *testing.T) {
	inWorld(t, func(w *world) {
		names := []string{"/a", "/b", "/c", "/empty"}
		for _, name := range names {
			w.create(name)
		}
		for i, n := range []int{100, 100, 3} {
			w.send(names[i], make([]string, n)...)
		}
		got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: names, Max: 40})
		w.must(err)
		// Each gives a quarter first, and one of the two that have more what is missing.
		from := perQueue(got)
		if from["/c"] != 3 || from["/empty"] != 0 || from["/a"]+from["/b"] != 37 || min(from["/a"], from["/b"]) != 10 {
			t.Errorf("received %v", from)
		}
		last := map[string]uint64{}
		for i := range got {
			if got[i].Sequence <= last[got[i].Queue] {
				t.Errorf("%s: message %d comes after %d", got[i].Queue, got[i].Sequence, last[got[i].Queue])
			}
			last[got[i].Queue] = got[i].Sequence
			w.must(w.settle(got[i], Verdict{}))
		}
		got, err = w.Receive(w.ctx, alice, ReceiveRequest{Queues: []string{"/empty", "/c"}, Max: 40})
		w.must(err)
		if len(got) != 0 {
			t.Errorf("received %v", perQueue(got))
		}
		w.counts("/a", int64(100-from["/a"]), 0, 0, 0)
	})
}

// TestReceiveFromSeveralIsFair: one at a time, queues that have something give as many each, whatever stands beside them.
func TestReceiveFromSeveralIsFair(t *testing.T) {
	inWorld(t, func(w *world) {
		names := []string{"/empty1", "/empty2", "/few", "/many"}
		for _, name := range names {
			w.create(name, memory)
		}
		const calls = 400
		w.send("/few", make([]string, calls)...)
		w.send("/many", make([]string, 10*calls)...)
		from := map[string]int{}
		for range calls {
			got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: names, Consume: true})
			w.must(err)
			from[got[0].Queue]++
		}
		// 200 with a deviation of 10: this fails once in 10^12 runs.
		if from["/few"] < 130 || from["/few"] > 270 {
			t.Errorf("received %v", from)
		}
	})
}

func TestReceiveFromSeveralIsBoundedByBytes(t *testing.T) {
	inWorld(t, func(w *world) {
		var names []string
		body := string(make([]byte, 7<<20))
		for i := range 5 {
			names = append(names, fmt.Sprint("/q", i))
			w.create(names[i], memory, func(s *queue.Settings) { s.MaxMessageSize = 7 << 20 })
			w.send(names[i], body)
		}
		got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: names, Max: 100})
		w.must(err)
		if len(got) != limits.ReceiveBytes/(7<<20) {
			t.Errorf("%d messages of 7 MiB", len(got))
		}
	})
}

func TestReceiveFromSeveralWaitsAtAll(t *testing.T) {
	inWorld(t, func(w *world) {
		names := []string{"/a", "/b", "/c"}
		for _, name := range names {
			w.create(name)
		}
		for _, name := range names {
			out := w.receiveAny(w.ctx, ReceiveRequest{Queues: names, Wait: time.Hour, Selector: queue.Selector{Kind: queue.TypeIs, Type: 1}})
			for _, at := range names {
				if got := w.stats(at).Receivers; got != 1 {
					t.Errorf("%s has %d receivers, want 1", at, got)
				}
			}
			w.send(name, "x")
			o := <-out
			w.must(o.err)
			if len(o.got) != 1 || o.got[0].Queue != name {
				t.Fatalf("received %v", perQueue(o.got))
			}
			for _, at := range names {
				if got := w.stats(at).Receivers; got != 0 {
					t.Errorf("%s has %d receivers still", at, got)
				}
			}
			w.must(w.settle(o.got[0], Verdict{}))
		}
		out := w.receiveAny(w.ctx, ReceiveRequest{Queues: names, Wait: time.Minute})
		pass(time.Minute)
		if o := <-out; len(o.got) > 0 || o.err != nil {
			t.Errorf("after the wait: %+v", o)
		}
		w.send("/b", "left")
		w.counts("/b", 1, 0, 0, 0)
	})
}

// TestOnlyOneQueueAnswers: two queues have something at the same moment. What the one that comes second has is for who
// waits there next.
func TestOnlyOneQueueAnswers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		first := w.receiveAny(w.ctx, ReceiveRequest{Queues: []string{"/b", "/a"}, Max: 10, Wait: time.Hour})
		next := w.receiveAny(w.ctx, ReceiveRequest{Queue: "/b", Max: 10, Wait: time.Hour})
		one := []queue.Message{{Type: 1}}
		_, err := w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{{Queue: "/a", Messages: one}, {Queue: "/b", Messages: one}}})
		w.must(err)
		for want, out := range map[string]<-chan anyOutcome{"/a": first, "/b": next} {
			if o := <-out; o.err != nil || len(o.got) != 1 || o.got[0].Receipt.Queue != w.byName[want].id {
				t.Errorf("received %+v, want one of %s", o, want)
			}
		}
	})
}

func TestReceiveFromSeveralEndsWithOneOfThem(t *testing.T) {
	inWorld(t, func(w *world) {
		bobs := func(s *queue.Settings) { s.Mode = 0o666 }
		for _, name := range []string{"/a", "/b", "/c"} {
			w.create(name, bobs)
		}
		r := ReceiveRequest{Queues: []string{"/a", "/b", "/c"}, Wait: time.Hour}
		out := w.receiveAny(w.ctx, r)
		_, err := w.DeleteQueue(w.ctx, alice, "/c")
		w.must(err)
		o := <-out
		w.wants(o.err, reason.QueueDeleted)
		if e := o.err.(*reason.Error); e.Queue != "/c" {
			t.Errorf("it names %s", e.Queue)
		}
		_, err = w.Receive(w.ctx, alice, r)
		w.wants(err, reason.QueueNotFound)

		r.Queues = r.Queues[:2]
		denied := make(chan error)
		go func() {
			_, err := w.Receive(w.ctx, bob, r)
			denied <- err
		}()
		synctest.Wait()
		_, err = w.UpdateQueue(w.ctx, alice, "/b", func(s *queue.Settings) error { s.Mode = 0o600; return nil })
		w.must(err)
		w.wants(<-denied, reason.AccessDenied)
		_, err = w.Receive(w.ctx, bob, r)
		w.wants(err, reason.AccessDenied)

		out = w.receiveAny(w.ctx, r)
		w.must(w.Stop(w.ctx))
		w.wants((<-out).err, reason.ShuttingDown)
	})
}

func TestReceiveFromSeveralIsChecked(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.Receivers: 2}), func(w *world) {
		var names []string
		for i := range 10 {
			names = append(names, fmt.Sprint("/q", i))
			w.create(names[i], memory)
		}
		many := make([]string, limits.ReceiveQueues+1)
		for i := range many {
			many[i] = "/q0"
		}
		for say, r := range map[string]ReceiveRequest{
			"both queue and queues": {Queue: "/q1", Queues: names},
			"257 queues":            {Queues: many},
			"/q3 is named twice":    {Queues: []string{"/q3", "/q4", "/q3"}},
			"max_messages -1":       {Queues: names, Max: -1},
			"wait -1":               {Queues: names, Wait: -1},
		} {
			_, err := w.Receive(w.ctx, alice, r)
			w.wants(err, reason.InvalidArgument)
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%q does not say %q", err, say)
			}
		}
		_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: []string{"/q1", "/none"}})
		w.wants(err, reason.QueueNotFound)

		// However many queues it waits at, a call is one receiver.
		ctx, cancel := context.WithCancel(w.ctx)
		r := ReceiveRequest{Queues: names, Wait: time.Hour}
		one, two := w.receiveAny(ctx, r), w.receiveAny(ctx, r)
		_, err = w.Receive(w.ctx, alice, r)
		w.wants(err, reason.QuotaExceeded)
		cancel()
		for _, out := range []<-chan anyOutcome{one, two} {
			if o := <-out; o.err != context.Canceled {
				t.Errorf("a caller that is gone: %+v", o)
			}
		}
		got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: names, Wait: time.Second})
		w.must(err)
		if len(got) > 0 {
			t.Errorf("received %v", perQueue(got))
		}
	})
}

func TestReceiveFromSeveralHonoursItsBuffer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/large")
		w.create("/small")
		names := []string{"/large", "/small"}
		w.send("/large", "too large")
		_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: names, MaxBody: 4, Wait: time.Hour})
		w.wants(err, reason.BufferTooSmall)
		if e := err.(*reason.Error); e.Queue != "/large" {
			t.Errorf("it names %s", e.Queue)
		}
		w.send("/small", "fits")
		got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: names, MaxBody: 4, Max: 10, Consume: true})
		w.must(err)
		if bodiesOf(got) != "fits " {
			t.Errorf("received %q", bodiesOf(got))
		}
		out := w.receiveAny(w.ctx, ReceiveRequest{Queues: []string{"/small"}, MaxBody: 4, Wait: time.Hour})
		w.send("/small", "too large")
		w.wants((<-out).err, reason.BufferTooSmall)
		w.counts("/small", 1, 0, 0, 0)
	})
}

// TestCallerThatIsGoneLeavesNoLeaseAnywhere: it got something from several queues, or waited at them.
func TestCallerThatIsGoneLeavesNoLeaseAnywhere(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		w.send("/a", "1", "2", "3")
		w.send("/b", "4", "5", "6")
		gone, cancel := context.WithCancel(w.ctx)
		cancel()
		r := ReceiveRequest{Queues: []string{"/a", "/b"}, Max: 5, Wait: time.Hour}
		if got, err := w.Receive(gone, alice, r); err != context.Canceled || len(got) > 0 {
			t.Errorf("it got %v, %v", perQueue(got), err)
		}
		w.counts("/a", 3, 0, 0, 0)
		w.counts("/b", 3, 0, 0, 0)
		got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: r.Queues, Max: 6})
		w.must(err)
		for i := range got {
			if got[i].Attempts != 0 {
				t.Errorf("%s %d counts %d attempts", got[i].Queue, got[i].Sequence, got[i].Attempts)
			}
		}
	})
}

func TestReceiveFromSeveralReadsBackWhatLeftMemory(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.PayloadMemory = 1
		d.o.Journal.SegmentBytes = 8 << 20
		w := d.start()
		defer w.Close()
		names := []string{"/a", "/b"}
		want := map[string]string{}
		for _, name := range names {
			w.create(name)
			for i := range 60 {
				body := name + fmt.Sprint(i) + strings.Repeat("x", 40000)
				want[name] += body + " "
				w.send(name, body)
			}
		}
		if w.totals.payloads.Load() > 4<<20 {
			t.Fatal("nothing left memory")
		}
		got := map[string]string{}
		for range 120 {
			batch, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: names, Max: 7, Consume: true})
			w.must(err)
			for i := range batch {
				got[batch[i].Queue] += string(batch[i].Body) + " "
			}
		}
		for _, name := range names {
			if got[name] != want[name] {
				t.Errorf("%s gave %d bytes, want %d", name, len(got[name]), len(want[name]))
			}
		}
	})
}

func TestReceiveFromSeveralTakesBackWhatDoorsHold(t *testing.T) {
	doors := &fakeDoors{}
	inFreshWorlds(t, func() Options { *doors = fakeDoors{}; return Options{Doors: doors} }, func(w *world) {
		w.create("/plain", func(s *queue.Settings) { s.Kernel.Mode = queue.KernelNone })
		w.create("/door", func(s *queue.Settings) { s.Kernel.Mode = queue.KernelOut })
		for _, wait := range []time.Duration{0, time.Hour} {
			w.send("/door", "x")
			pass(time.Millisecond)
			if held := len(doors.opened["/door"].held); held != 1 {
				t.Fatalf("the door holds %d", held)
			}
			got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queues: []string{"/plain", "/door"}, Wait: wait})
			w.must(err)
			if len(got) != 1 || got[0].Queue != "/door" {
				t.Fatalf("received %v", perQueue(got))
			}
			w.must(w.settle(got[0], Verdict{}))
		}
	})
}

// TestNobodyWaitsForWhatIsReady lets receivers with random queues and selectors come, time out and go, while messages come
// and return. Whenever all is quiet no receiver waits for a message that is ready, and each message is where it should be.
func TestNobodyWaitsForWhatIsReady(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	names := []string{"/a", "/b", "/c", "/d"}
	type call struct {
		queues []string
		sel    queue.Selector
		out    <-chan anyOutcome
		cancel context.CancelFunc
	}
	inWorld(t, func(w *world) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for i, name := range names {
			w.create(name, func(s *queue.Settings) {
				s.Lease = time.Hour
				if i%2 == 0 {
					s.Durability = queue.Memory
				}
			})
		}
		var calls []call
		var leased []queue.Delivery
		sent, acked := 0, 0
		for range 1500 {
			switch rng.IntN(5) {
			case 0, 1:
				ctx, cancel := context.WithCancel(w.ctx)
				c := call{queues: slices.Clone(names), cancel: cancel}
				rng.Shuffle(len(names), func(i, j int) { c.queues[i], c.queues[j] = c.queues[j], c.queues[i] })
				c.queues = c.queues[:1+rng.IntN(len(names))]
				if rng.IntN(2) == 0 {
					c.sel = queue.Selector{Kind: queue.TypeIs, Type: 1 + rng.Int64N(3)}
				}
				c.out = w.receiveAny(ctx, ReceiveRequest{Queues: c.queues, Selector: c.sel, Max: 1 + rng.IntN(3), Wait: time.Duration(1+rng.IntN(20)) * time.Minute})
				calls = append(calls, c)
			case 2, 3:
				typ := 1 + rng.Int64N(3)
				if rng.IntN(2) == 0 {
					w.must(second(w.Send(w.ctx, alice, SendRequest{Queue: names[rng.IntN(4)], Messages: []queue.Message{{Type: typ}}})))
					sent++
					break
				}
				pair := rng.IntN(2) // two queues have something at the same moment
				w.must(second(w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{
					{Queue: names[pair], Messages: []queue.Message{{Type: typ}}}, {Queue: names[pair+2], Messages: []queue.Message{{Type: typ}, {Type: 1}}}}})))
				sent += 3
			case 4:
				if len(leased) > 0 {
					i := rng.IntN(len(leased))
					outcome := []Outcome{Ack, Ack, Ack, Nack, Release}[rng.IntN(5)]
					w.must(w.settle(leased[i], Verdict{Outcome: outcome}))
					if outcome == Ack {
						acked++
					}
					leased = slices.Delete(leased, i, i+1)
				}
				if len(calls) > 0 && rng.IntN(4) == 0 {
					calls[rng.IntN(len(calls))].cancel()
				}
			}
			pass(time.Second)
			calls = slices.DeleteFunc(calls, func(c call) bool {
				select {
				case o := <-c.out:
					c.cancel()
					leased = append(leased, o.got...)
					return true
				default:
					return false
				}
			})
			held := int64(0)
			waits := map[string]int{}
			for _, c := range calls {
				for _, name := range c.queues {
					waits[name]++
					s := w.byName[name]
					s.mu.Lock()
					got, err := s.q.Lease(w.now(), queue.LeaseRequest{Selector: c.sel, Max: 1, MaxBytes: 1}, nil)
					s.mu.Unlock()
					if len(got) > 0 || err != nil {
						t.Fatalf("somebody waits at %s with %v, where %d is ready; %v", name, c.sel, got[0].Type, err)
					}
				}
			}
			ready := int64(0)
			for _, name := range names {
				stats := w.stats(name)
				held += stats.Leased
				ready += stats.Ready
				if stats.Receivers != waits[name] {
					t.Fatalf("%s has %d receivers, want %d", name, stats.Receivers, waits[name])
				}
			}
			if held != int64(len(leased)) || ready != int64(sent-acked-len(leased)) {
				t.Fatalf("%d leases and %d ready of %d sent and %d acked; %d were handed out", held, ready, sent, acked, len(leased))
			}
		}
		for _, c := range calls {
			c.cancel()
			<-c.out
		}
	})
}
