package ring

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

func messages(types ...int64) []shm.Message {
	var batch []shm.Message
	for _, t := range types {
		batch = append(batch, shm.Message{Type: t, Payload: binary.LittleEndian.AppendUint64(nil, uint64(t))})
	}
	return batch
}

func (w *world) subscribe(o SubscribeOptions) *Subscription {
	w.Helper()
	s, err := w.Subscribe(context.Background(), bob, "/r", o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(s.Close)
	return s
}

func (w *world) publish(types ...int64) (lane, first uint64) {
	w.Helper()
	lane, first, err := w.Publish(context.Background(), bob, "/r", messages(types...))
	if err != nil {
		w.Fatal(err)
	}
	return lane, first
}

// read reads n messages, and returns their types.
func (s *Subscription) read(t *testing.T, n int) []int64 {
	t.Helper()
	var types []int64
	batch := make([]shm.Message, 7)
	for len(types) < n {
		k, err := s.Next(context.Background(), batch[:min(len(batch), n-len(types))])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range batch[:k] {
			if binary.LittleEndian.Uint64(m.Payload) != uint64(m.Type) || m.Lost != 0 {
				t.Fatalf("read %+v", m)
			}
			types = append(types, m.Type)
		}
	}
	return types
}

func TestDaemonPublishesAndSubscribes(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	early := w.subscribe(SubscribeOptions{})
	lane, first := w.publish(1, 2, 3)
	if first != 1 {
		t.Errorf("the first sequence is %d", first)
	}
	if again, first := w.publish(4); again != lane || first != 4 {
		t.Errorf("then lane %#x, sequence %d", again, first)
	}
	oldest := w.subscribe(SubscribeOptions{Start: shm.Oldest})
	newest := w.subscribe(SubscribeOptions{Start: shm.Newest})
	third := w.subscribe(SubscribeOptions{Start: shm.FromSequence(3)})
	some := w.subscribe(SubscribeOptions{Start: shm.Oldest, Types: []int64{2, 5}})
	many := w.subscribe(SubscribeOptions{Start: shm.Oldest, Types: []int64{11, 12, 13, 14, 15, 16, 17, 18, 5, 1}})
	w.publish(5)
	for what, c := range map[string]struct {
		s    *Subscription
		want []int64
	}{
		"early": {early, []int64{1, 2, 3, 4, 5}}, "oldest": {oldest, []int64{1, 2, 3, 4, 5}}, "newest": {newest, []int64{5}},
		"sequence": {third, []int64{3, 4, 5}}, "types": {some, []int64{2, 5}}, "many types": {many, []int64{1, 5}},
	} {
		if got := c.s.read(t, len(c.want)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	i := w.info("/r")
	if len(i.Lanes) != 1 || !i.Lanes[0].Daemon || i.Lanes[0].Who.UID != alice.UID || len(i.Consumers) != 6 || !i.Consumers[0].Daemon || i.Consumers[0].Who.UID != bob.UID {
		t.Errorf("%+v", i)
	}
}

func TestDaemonAndMembersExchange(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	s := w.subscribe(SubscribeOptions{})
	p := w.producer(alice, "/r")
	out := p.writer(t)
	if err := out.Publish(context.Background(), 9, messages(9)[0].Payload); err != nil {
		t.Fatal(err)
	}
	if got := s.read(t, 1); got[0] != 9 {
		t.Errorf("the subscription read %v", got)
	}
	c := w.consumer(bob, "/r")
	in := c.reader(t, shm.Newest)
	lane, _ := w.publish(7)
	l := c.members(t)
	if e := l.Entries[1]; e.ID != lane || !e.Daemon || e.PID == 0 {
		t.Errorf("the consumer learns %+v", e)
	}
	in.Offer(c.peers(t))
	if m, err := in.Next(context.Background()); err != nil || m.Type != 7 || m.Lane != lane {
		t.Errorf("the consumer read %+v, %v", m, err)
	}
}

func TestPublishersKeepTheirOrder(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", smallLossless)
	s := w.subscribe(SubscribeOptions{Lossless: true})
	const publishers, each = 4, 2000
	var all sync.WaitGroup
	for p := range int64(publishers) {
		all.Go(func() {
			for n := int64(0); n < each; n += 4 {
				at := p*each + n
				if _, _, err := w.Publish(context.Background(), bob, "/r", messages(at+1, at+2, at+3, at+4)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var next [publishers]int64
	for _, typ := range s.read(t, publishers*each) {
		p := (typ - 1) / each
		if got := (typ - 1) % each; got != next[p] {
			t.Fatalf("publisher %d: message %d after %d", p, got, next[p]-1)
		}
		next[p]++
	}
	all.Wait()
}

func TestSenselessBatchesAreRefusedWhole(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.MaxMessage = 100; return small(s) })
	ctx := context.Background()
	for what, c := range map[string]struct {
		batch []shm.Message
		why   reason.Reason
		index int
	}{
		"none":     {nil, reason.InvalidArgument, reason.Whole},
		"too many": {make([]shm.Message, limits.RingPublishMessages+1), reason.InvalidArgument, reason.Whole},
		"too long": {[]shm.Message{{Type: 1}, {Type: 1, Payload: make([]byte, 101)}}, reason.MessageTooLarge, 1},
		"type 0":   {[]shm.Message{{Type: 1}, {Type: 1}, {}}, reason.InvalidArgument, 2},
		"type -1":  {[]shm.Message{{Type: math.MinInt64}}, reason.InvalidArgument, 0},
	} {
		_, _, err := w.Publish(ctx, alice, "/r", c.batch)
		wants(t, err, c.why)
		if got := err.(*reason.Error).Index; got != c.index {
			t.Errorf("%s: the error is about message %d", what, got)
		}
	}
	if _, first, err := w.Publish(ctx, alice, "/r", []shm.Message{{Type: math.MaxInt64, Payload: make([]byte, 100)}}); err != nil || first != 1 {
		t.Errorf("sequence %d, %v", first, err)
	}
	_, err := w.Subscribe(ctx, alice, "/r", SubscribeOptions{Types: make([]int64, limits.SelectorTypes+1)})
	wants(t, err, reason.InvalidArgument)
	_, err = w.Subscribe(ctx, alice, "/r", SubscribeOptions{Types: []int64{0}})
	wants(t, err, reason.InvalidArgument)
	_, err = w.Subscribe(ctx, alice, "/r", SubscribeOptions{Lossless: true})
	wants(t, err, reason.InvalidArgument, "policy is overwrite")
}

// large does not fit into a lane that fill has filled.
func large(typ int64) []shm.Message { return []shm.Message{{Type: typ, Payload: make([]byte, 4000)}} }

// fits is how many large messages fit into a lane.
const fits = capacity / (32 + 4000)

// fill fills the daemon's lane, so that the next large message waits for who has read nothing.
func (w *world) fill() {
	w.Helper()
	for range fits {
		if _, _, err := w.Publish(context.Background(), bob, "/r", large(1)); err != nil {
			w.Fatal(err)
		}
	}
}

// blocks waits until the daemon's lane waits for room.
func (w *world) blocks() {
	w.Helper()
	soon(w.T, "a publish waits", func() bool {
		i := w.info("/r")
		return len(i.Lanes) == 1 && i.Lanes[0].Blocked
	})
}

func TestLosslessPublishWaitsForConsumersUntilItsContextEnds(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Stall = limits.RingStallMax; return smallLossless(s) })
	s := w.subscribe(SubscribeOptions{Lossless: true})
	w.fill()
	ended, cancel := context.WithCancel(context.Background())
	published := make(chan error)
	go func() {
		_, _, err := w.Publish(ended, bob, "/r", large(1))
		published <- err
	}()
	behind := make(chan error) // waits for its turn
	go func() {
		_, _, err := w.Publish(ended, bob, "/r", large(1))
		behind <- err
	}()
	w.blocks()
	cancel()
	if err := <-published; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-behind; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() {
		_, _, err := w.Publish(context.Background(), bob, "/r", large(77))
		published <- err
	}()
	batch := make([]shm.Message, 1)
	for i := uint64(1); ; i++ {
		if _, err := s.Next(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
		if batch[0].Lost != 0 || batch[0].Sequence != i {
			t.Fatalf("message %d: %+v", i, batch[0])
		}
		if batch[0].Type == 77 {
			break
		}
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

func TestPartOfABatchIsOwnedUpTo(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Stall = limits.RingStallMax; return smallLossless(s) })
	s := w.subscribe(SubscribeOptions{Lossless: true})
	batch := make([]shm.Message, 30)
	for i := range batch {
		batch[i] = shm.Message{Type: 1, Payload: make([]byte, 4000)}
	}
	ctx, cancel := context.WithCancel(context.Background())
	published := make(chan error)
	go func() {
		_, _, err := w.Publish(ctx, bob, "/r", batch)
		published <- err
	}()
	w.blocks()
	cancel()
	if err := <-published; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "16 of 30 messages were published") {
		t.Error(err)
	}
	into := make([]shm.Message, 1)
	if _, err := s.Next(context.Background(), into); err != nil || into[0].Sequence != 1 {
		t.Errorf("%+v, %v", into, err)
	}
}

func TestBlockedCallsEndWithTheirRing(t *testing.T) {
	for what, c := range map[string]struct {
		end func(*world)
		why reason.Reason
	}{
		"delete": {func(w *world) {
			if _, err := w.Delete(context.Background(), alice, "/r"); err != nil {
				t.Error(err)
			}
		}, reason.RingDeleted},
		"stop":  {func(w *world) { w.Stop() }, reason.ShuttingDown},
		"close": {func(w *world) { w.Close() }, reason.ShuttingDown},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.create(alice, "/r", func(s *Settings) error { s.Stall = limits.RingStallMax; return smallLossless(s) })
			w.subscribe(SubscribeOptions{Lossless: true})
			w.fill()
			idle := w.subscribe(SubscribeOptions{})
			results := make(chan error, 3)
			for range 2 { // one waits for room, one for its turn
				go func() {
					_, _, err := w.Publish(context.Background(), bob, "/r", large(1))
					results <- err
				}()
			}
			go func() {
				_, err := idle.Next(context.Background(), make([]shm.Message, 1))
				results <- err
			}()
			w.blocks()
			soon(t, "a subscription waits", func() bool { return w.info("/r").Consumers[1].Parked })
			c.end(w)
			for range 3 {
				wants(t, <-results, c.why)
			}
		})
	}
}
