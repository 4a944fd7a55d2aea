package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/vfs"
)

// realTime runs a test with a broker on the real clock, in memory and with a journal.
func realTime(t *testing.T, test func(t *testing.T, b *Broker)) {
	t.Run("memory", func(t *testing.T) {
		defer goleak.VerifyNone(t)
		b := New(Options{})
		defer b.Close()
		test(t, b)
	})
	t.Run("journal", func(t *testing.T) {
		defer goleak.VerifyNone(t)
		b, err := Open(Options{Journal: &JournalOptions{FS: vfs.NewCrash(rand.New(rand.NewPCG(1, 2))), Dir: "/state/journal", SegmentBytes: 8 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		test(t, b)
	})
}

// TestSeveralQueuesLoseNoWakeUp has each sender wait until its message was acked, so that receivers are mostly just about to
// wait when something comes. A wake-up that is lost ends it.
func TestSeveralQueuesLoseNoWakeUp(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, c := range []struct{ queues, senders, patient, hasty, rounds int }{
		{2, 1, 1, 0, 3000},
		{3, 2, 1, 0, 1500},
		{4, 4, 6, 3, 500},
	} {
		t.Run(fmt.Sprintf("%d queues, %d senders", c.queues, c.senders), func(t *testing.T) {
			realTime(t, func(t *testing.T, b *Broker) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				var names []string
				for i := range c.queues {
					names = append(names, fmt.Sprint("/q", i))
					edit := func(s *queue.Settings) error { s.Lease = time.Hour; return nil }
					if _, _, err := b.CreateQueue(ctx, alice, names[i], edit, false); err != nil {
						t.Fatal(err)
					}
				}
				acks := make([]chan struct{}, c.senders)
				for i := range acks {
					acks[i] = make(chan struct{}, 16)
				}
				var acked atomic.Int64
				receive := func(rng *rand.Rand, wait func() (context.Context, time.Duration)) {
					for ctx.Err() == nil {
						queues := append([]string{}, names...)
						rng.Shuffle(len(queues), func(i, j int) { queues[i], queues[j] = queues[j], queues[i] })
						call, wait := wait()
						got, err := b.Receive(call, alice, ReceiveRequest{Queues: queues, Max: 1 + rng.IntN(3), Wait: wait, Consume: rng.IntN(8) == 0})
						if err != nil && !errors.Is(err, context.Canceled) {
							t.Error(err)
							return
						}
						for _, d := range got {
							if d.Attempts != 0 {
								t.Errorf("%s %d was leased %d times", d.Queue, d.Sequence, d.Attempts+1)
							}
							if d.Receipt != (queue.Receipt{}) {
								out, err := b.Settle(context.Background(), alice, []Settlement{{Receipt: d.Receipt}})
								if err != nil || len(out.Failures) > 0 {
									t.Errorf("%s %d: %v %+v", d.Queue, d.Sequence, err, out.Failures)
								}
							}
							acked.Add(1)
							acks[d.Body[0]] <- struct{}{} // it has room for two rounds: more came twice
						}
					}
				}
				var working, sending sync.WaitGroup
				for i := range c.patient {
					working.Go(func() {
						receive(rand.New(rand.NewPCG(seed, uint64(i))), func() (context.Context, time.Duration) { return ctx, time.Hour })
					})
				}
				for i := range c.hasty { // they go away while they wait, or just when something comes
					working.Go(func() {
						rng := rand.New(rand.NewPCG(seed, 100+uint64(i)))
						receive(rng, func() (context.Context, time.Duration) {
							if rng.IntN(2) == 0 {
								return ctx, time.Duration(rng.IntN(200)) * time.Microsecond
							}
							short, stop := context.WithCancel(ctx)
							time.AfterFunc(time.Duration(rng.IntN(200))*time.Microsecond, stop)
							return short, time.Hour
						})
					})
				}
				sent := atomic.Int64{}
				for i := range c.senders {
					sending.Go(func() {
						rng := rand.New(rand.NewPCG(seed, 200+uint64(i)))
						for range c.rounds {
							one := []queue.Message{{Type: 1 + rng.Int64N(3), Body: []byte{byte(i)}}}
							r := TransactRequest{Sends: []TransactSend{{Queue: names[rng.IntN(c.queues)], Messages: one}}}
							if rng.IntN(3) == 0 { // several have something at the same moment
								r.Sends = append(r.Sends, TransactSend{Queue: names[rng.IntN(c.queues)], Messages: one})
							}
							if _, err := b.Transact(ctx, alice, r); err != nil {
								t.Error(err)
								return
							}
							for range r.Sends {
								sent.Add(1)
								select {
								case <-acks[i]:
								case <-time.After(30 * time.Second):
									t.Errorf("%d sent, %d acked: somebody still waits for what is ready: %+v", sent.Load(), acked.Load(), b.Totals())
									cancel()
									return
								}
							}
						}
					})
				}
				sending.Wait()
				cancel()
				working.Wait()
				if sent.Load() != acked.Load() {
					t.Errorf("%d messages sent, %d acked", sent.Load(), acked.Load())
				}
				if left := b.Totals().Messages; left != 0 {
					t.Errorf("%d messages are left", left)
				}
				for _, name := range names {
					info, err := b.GetQueue(context.Background(), alice, name)
					if err != nil || info.Stats.Leased != 0 || info.Stats.Receivers != 0 {
						t.Errorf("%s: %+v, %v", name, info.Stats, err)
					}
				}
			})
		})
	}
}

// TestTapsAccountForEveryMessage lets taps of different speed look on while messages are sent and consumed: what each was
// given and what it was told it missed is all there was, in order.
func TestTapsAccountForEveryMessage(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const senders, batches, perBatch, size = 3, 60, 50, 2000 // 9,000 messages, 18 MB: more than a tap keeps
	realTime(t, func(t *testing.T, b *Broker) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if _, _, err := b.CreateQueue(ctx, alice, "/q", func(*queue.Settings) error { return nil }, false); err != nil {
			t.Fatal(err)
		}
		type watcher struct {
			tap     *Tap
			filter  queue.Filter
			pace    func(n int) // before its n-th read
			copied  map[int64]int
			skipped uint64
		}
		half := make(chan struct{})
		all := make(chan struct{})
		watchers := []*watcher{
			{pace: func(int) {}},
			{pace: func(n int) {
				if n == 0 {
					<-half
				}
			}},
			{pace: func(int) { <-all }},
			{pace: func(int) {}, filter: queue.Filter{Selector: queue.Selector{Kind: queue.TypeIs, Type: 2}}},
		}
		var watching, consuming, sending sync.WaitGroup
		for i, v := range watchers {
			tap, err := b.Tap(ctx, alice, TapRequest{Queue: "/q", Filter: v.filter, MaxBody: 1500})
			if err != nil {
				t.Fatal(err)
			}
			defer tap.Close()
			v.tap, v.copied = tap, map[int64]int{}
			watching.Go(func() {
				last := uint64(0)
				for n := 0; ; n++ {
					v.pace(n)
					got, err := tap.Next(ctx)
					if err != nil {
						return
					}
					v.skipped += got.Skipped
					if v.filter.Selector.Kind == queue.Any {
						last += got.Skipped
					}
					for j := range got.Messages {
						m := &got.Messages[j]
						if m.Sequence <= last || v.filter.Selector.Kind == queue.Any && m.Sequence != last+1 {
							t.Errorf("tap %d: message %d comes after %d", i, m.Sequence, last)
						}
						last = m.Sequence
						if len(m.Body) != 1500 || m.TruncatedFrom != size || binary.LittleEndian.Uint64(m.Body) != uint64(m.Type) {
							t.Errorf("tap %d: message %d has a body of %d, cut from %d", i, m.Sequence, len(m.Body), m.TruncatedFrom)
						}
						v.copied[m.Type]++
					}
				}
			})
		}
		consuming.Go(func() {
			var err error
			for err == nil { // until the queue is deleted
				_, err = b.Receive(ctx, alice, ReceiveRequest{Queue: "/q", Max: 100, Wait: time.Hour, Consume: true})
			}
		})
		var sent [3]atomic.Int64 // by type
		for i := range senders {
			sending.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for n := range batches {
					if i == 0 && n == batches/2 {
						close(half)
					}
					r := SendRequest{Queue: "/q"}
					for range perBatch {
						m := queue.Message{Type: 1 + rng.Int64N(2), Body: make([]byte, size)}
						binary.LittleEndian.PutUint64(m.Body, uint64(m.Type))
						if rng.IntN(2) == 0 {
							m.Headers = []queue.Header{{Key: "k", Value: make([]byte, 100)}}
						}
						sent[m.Type].Add(1)
						r.Messages = append(r.Messages, m)
					}
					if _, err := b.Send(ctx, alice, r); err != nil {
						t.Error(err)
					}
				}
			})
		}
		sending.Wait()
		close(all)
		if _, err := b.DeleteQueue(ctx, alice, "/q"); err != nil { // taps hand out what they have, and end
			t.Fatal(err)
		}
		watching.Wait()
		cancel()
		consuming.Wait()
		total := sent[1].Load() + sent[2].Load()
		for i, v := range watchers {
			want, got := total, v.copied[1]+v.copied[2]
			if v.filter.Selector.Kind == queue.TypeIs {
				want = sent[2].Load()
				if v.copied[1] > 0 {
					t.Errorf("tap %d: %d messages of another type", i, v.copied[1])
				}
			}
			t.Logf("tap %d: %d copies and %d skipped of %d", i, got, v.skipped, want)
			if int64(got)+int64(v.skipped) != want {
				t.Errorf("tap %d: %d copies and %d skipped of %d", i, got, v.skipped, want)
			}
		}
		if watchers[2].skipped == 0 {
			t.Error("who read nothing until the end missed nothing")
		}
		if held := watchers[0].tap.account.bytes.Load(); held != 0 {
			t.Errorf("%d bytes of copies are still accounted for", held)
		}
	})
}
