package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// withQueues adds empty queues to the daemon.
func (f *fake) withQueues(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		f.addQueue(name, 1000)
	}
}

func TestReceiveAnyTellsFromWhichQueueEachCame(t *testing.T) {
	f := startFake(t)
	f.withQueues("/a", "/b")
	c := f.dial(t)
	f.send(t, c.Queue("/a"), "1")
	f.send(t, c.Queue("/b"), "2", "3")
	all, err := c.ReceiveAny(t.Context(), []string{"b", "/a"}, 3, ReceiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range all {
		got = append(got, d.Queue+" "+string(d.Body))
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"/b 2", "/b 3", "/a 1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := c.ReceiveAny(t.Context(), []string{"/a", "/gone"}, 1, ReceiveOptions{}); !errors.Is(err, ErrQueueNotFound) {
		t.Errorf("%v, want ErrQueueNotFound", err)
	}
}

func TestNamesOfSeveralQueuesAreChecked(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	many := make([]string, limits.ReceiveQueues+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for _, queues := range [][]string{nil, many, {"/a", "a"}} {
		if _, err := c.ReceiveAny(t.Context(), queues, 1, ReceiveOptions{}); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("receive: %v, want ErrInvalidArgument", err)
		}
		if err := c.ConsumeAny(t.Context(), queues, nil, ConsumeOptions{}); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("consume: %v, want ErrInvalidArgument", err)
		}
	}
	if err := c.ConsumeAny(t.Context(), []string{"/a"}, nil, ConsumeOptions{Concurrency: -1}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("options: %v, want ErrInvalidArgument", err)
	}
}

// consumingAny is consuming for several queues.
func consumingAny(t *testing.T, c *Client, queues []string, h Handler, o ConsumeOptions) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.ConsumeAny(ctx, queues, h, o) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestConsumeAnyConsumesAllQueues(t *testing.T) {
	f := startFake(t)
	f.withQueues("/a", "/b", "/c")
	c := f.dial(t)
	f.send(t, c.Queue("/a"), numbers(30)...)
	f.send(t, c.Queue("/b"), "b")
	f.send(t, c.Queue("/c"), "c")
	var mu sync.Mutex
	seen := map[string]int{}
	stop := consumingAny(t, c, []string{"a", "/b", "/c"}, func(_ context.Context, d *Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		seen[d.Queue]++
		return nil
	}, ConsumeOptions{Prefetch: 6})
	f.await(t, "all acks", func() bool { return f.sawLocked("ack ") == 32 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if seen["/a"] != 30 || seen["/b"] != 1 || seen["/c"] != 1 {
		t.Errorf("seen %v", seen)
	}
}

// A queue with much to do does not keep the others waiting.
func TestTheLinesOfABacklogTakeTurns(t *testing.T) {
	b := newBacklog()
	lines := map[string]*lineUp{"a": b.lineUp(), "b": b.lineUp(), "c": b.lineUp()}
	add := func(line string, names ...string) {
		var items []*held
		for _, name := range names {
			items = append(items, &held{Delivery: Delivery{Queue: name}})
		}
		lines[line].add(items)
	}
	add("a", "a1", "a2", "a3", "a4")
	add("b", "b1")
	add("c", "c1", "c2")
	add("c")
	var got []string
	take := func(n int) {
		for range n {
			got = append(got, b.take().Queue)
		}
	}
	take(5) // a1 b1 c1 a2 c2
	add("b", "b2", "b3")
	take(2) // a3 b2
	if left := lines["a"].takeAll(); len(left) != 1 || left[0].Queue != "a4" || lines["a"].takeAll() != nil {
		t.Errorf("left %v", left)
	}
	add("a", "a5")
	take(2)
	b.close()
	if b.take() != nil {
		t.Error("an empty backlog that is closed gave something")
	}
	if want := "a1 b1 c1 a2 c2 a3 b2 b3 a5"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestConsumeAnyKeepsToItsConcurrency(t *testing.T) {
	f := startFake(t)
	f.withQueues("/a", "/b")
	c := f.dial(t)
	f.send(t, c.Queue("/a"), numbers(20)...)
	f.send(t, c.Queue("/b"), numbers(20)...)
	var running, most, done atomic.Int64
	gate := make(chan struct{})
	stop := consumingAny(t, c, []string{"/a", "/b"}, func(context.Context, *Delivery) error {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-gate
		running.Add(-1)
		done.Add(1)
		return nil
	}, ConsumeOptions{Concurrency: 3, Prefetch: 4})
	for range 40 {
		gate <- struct{}{}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if most.Load() > 3 || done.Load() != 40 {
		t.Errorf("%d at the same time, %d done; want at most 3, and 40", most.Load(), done.Load())
	}
}

func TestConsumeAnyEndsAsAWholeWhenAQueueIsDeleted(t *testing.T) {
	f := startFake(t)
	f.withQueues("/a", "/b")
	c := f.dial(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	f.send(t, c.Queue("/b"), "slow", "rest")
	ended := make(chan error, 1)
	go func() {
		ended <- c.ConsumeAny(context.Background(), []string{"/a", "/b"}, func(context.Context, *Delivery) error {
			close(begun)
			<-finish
			return nil
		}, ConsumeOptions{})
	}()
	<-begun
	f.await(t, "both streams", func() bool { return f.sawLocked("consume") == 2 })
	f.mu.Lock()
	delete(f.queues, "/a")
	f.changedLocked()
	f.mu.Unlock()
	f.await(t, "the rest is given back", func() bool { return f.sawLocked("release rest") == 1 })
	close(finish)
	select {
	case err := <-ended:
		if !errors.Is(err, ErrQueueDeleted) {
			t.Errorf("%v, want ErrQueueDeleted", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if f.sawLocked("ack slow") != 1 {
		t.Errorf("what was begun was not finished: %q", f.seen)
	}
}
