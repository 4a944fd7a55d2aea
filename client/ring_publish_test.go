package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// publisher is one of a new ring /ticks.
func publisher(t *testing.T, f *fake) (*Client, *RingPublisher) {
	t.Helper()
	c := f.dial(t)
	p, err := f.ring(t, c, "/ticks").Publisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return c, p
}

func (f *fake) published(ring string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all strings.Builder
	for _, m := range f.rings[ring].log {
		all.Write(m.GetPayload())
	}
	return all.String()
}

func TestWhatIsNoMessageIsNotPublished(t *testing.T) {
	f := startFake(t)
	_, p := publisher(t, f)
	for name, m := range map[string][]RingMessage{
		"none":          nil,
		"too many":      make([]RingMessage, limits.RingPublishMessages+1),
		"negative type": {{Type: 1}, {Type: -1}},
		"too large":     {{Payload: make([]byte, limits.BatchBytes)}, {Payload: []byte("x")}},
	} {
		if _, err := p.Publish(t.Context(), m...); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v, want ErrInvalidArgument", name, err)
		}
	}
	if _, err := p.Publish(t.Context(), RingMessage{Payload: []byte("a")}); err != nil || f.published("/ticks") != "a" {
		t.Errorf("%v, published %q", err, f.published("/ticks"))
	}
}

func TestPublishersGoOnAfterARefusal(t *testing.T) {
	f := startFake(t)
	_, p := publisher(t, f)
	f.setHooks(hooks{publish: func(n int) error {
		if n == 2 {
			return statusOf(reason.New(reason.MessageTooLarge, "too large").On("/ticks").At(1))
		}
		return nil
	}})
	if _, err := p.Publish(t.Context(), RingMessage{Payload: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := p.Publish(t.Context(), RingMessage{Payload: []byte("b")}); !errors.As(err, &e) || !errors.Is(err, ErrMessageTooLarge) || e.Index != 1 {
		t.Errorf("%v, want ErrMessageTooLarge about message 1", err)
	}
	if got, err := p.Publish(t.Context(), RingMessage{Payload: []byte("c")}); err != nil || got.FirstSequence != 2 || f.published("/ticks") != "ac" {
		t.Errorf("%+v, %v, published %q", got, err, f.published("/ticks"))
	}
}

func TestAConnectionThatBreaksLeavesOpenWhatWasPublished(t *testing.T) {
	f := startFake(t)
	_, p := publisher(t, f)
	f.setHooks(hooks{publish: func(n int) error {
		if n == 1 {
			f.cut()
		}
		return nil
	}})
	if _, err := p.Publish(t.Context(), RingMessage{Payload: []byte("a")}); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("%v, want ErrOutcomeUnknown", err)
	}
	f.await(t, "the first request", func() bool { return len(f.rings["/ticks"].log) == 1 })
	if got, err := p.Publish(t.Context(), RingMessage{Payload: []byte("b")}); err != nil || got.FirstSequence != 2 {
		t.Errorf("on a new connection: %+v, %v", got, err)
	}
	if n := f.published("/ticks"); n != "ab" {
		t.Errorf("published %q, want each once", n)
	}
}

func TestOfCallsUnderWayOnlyTheFirstIsToBlame(t *testing.T) {
	f := startFake(t)
	_, p := publisher(t, f)
	goOn := make(chan struct{})
	f.setHooks(hooks{publish: func(n int) error {
		<-goOn
		return statusOf(reason.New(reason.AccessDenied, "no").On("/ticks").At(0))
	}})
	results := make(chan error, 2)
	publish := func() {
		_, err := p.Publish(t.Context(), RingMessage{Type: 1})
		results <- err
	}
	go publish()
	f.await(t, "the first request", func() bool { return f.sawLocked("publish 1") == 1 })
	go publish()
	p.await(t, 2)
	close(goOn)
	blamed := 0
	for range 2 {
		var e *Error
		if err := <-results; !errors.As(err, &e) || !errors.Is(err, ErrAccessDenied) {
			t.Errorf("%v, want ErrAccessDenied", err)
		} else if e.Index == 0 {
			blamed++
		}
	}
	if blamed != 1 {
		t.Errorf("%d calls have the index of the failed message, want 1", blamed)
	}
}

// await waits until so many calls are under way.
func (p *RingPublisher) await(t *testing.T, n int) {
	t.Helper()
	for range 10_000_000 {
		p.turn <- struct{}{}
		s := p.stream
		s.mu.Lock()
		waiting := len(s.waiting)
		s.mu.Unlock()
		<-p.turn
		if waiting == n {
			return
		}
	}
	t.Fatalf("in vain waited for %d calls", n)
}

func TestGivingUpEndsTheWaitAtTheDaemon(t *testing.T) {
	f := startFake(t)
	_, p := publisher(t, f)
	goOn := make(chan struct{})
	f.setHooks(hooks{publish: func(n int) error {
		if n == 1 {
			<-goOn
			return errors.New("the caller is gone")
		}
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := p.Publish(ctx, RingMessage{Payload: []byte("a")})
		result <- err
	}()
	f.await(t, "the request", func() bool { return f.sawLocked("publish 1") == 1 })
	cancel()
	if err := <-result; !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want ErrOutcomeUnknown because of context.Canceled", err)
	}
	close(goOn)
	if _, err := p.Publish(ctx, RingMessage{}); !errors.Is(err, ErrCancelled) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("with a context that ended before: %v, want ErrCancelled", err)
	}
	if _, err := p.Publish(t.Context(), RingMessage{Payload: []byte("b")}); err != nil || f.published("/ticks") != "b" {
		t.Errorf("%v, published %q", err, f.published("/ticks"))
	}
}

// The daemon may be the first to see that the time is over. Its word does not say how many messages are in the ring.
func TestADeadlineThatTheDaemonSeesLeavesOpenWhatWasPublished(t *testing.T) {
	f := startFake(t)
	_, p := publisher(t, f)
	for _, r := range []reason.Reason{reason.TimedOut, reason.Cancelled} {
		f.setHooks(hooks{publish: func(int) error { return statusOf(reason.New(r, "over").On("/ticks")) }})
		_, err := p.Publish(t.Context(), RingMessage{}, RingMessage{})
		if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, &Error{Reason: string(r)}) {
			t.Errorf("%v, want ErrOutcomeUnknown because of %s", err, r)
		}
	}
}

func TestAPublisherWhoseContextEndsSaysWhy(t *testing.T) {
	f := startFake(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	p, err := f.ring(t, f.dial(t), "/ticks").Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	<-p.ctx.Done()
	p.turn <- struct{}{}
	_, e := p.open(ctx) // as if that had been just before
	<-p.turn
	if !errors.Is(e, ErrTimedOut) {
		t.Errorf("%v, want ErrTimedOut", e)
	}
}

func TestAClosedPublisherSaysSo(t *testing.T) {
	f := startFake(t)
	c, p := publisher(t, f)
	goOn := make(chan struct{})
	f.setHooks(hooks{publish: func(int) error { <-goOn; return nil }})
	result := make(chan error, 1)
	go func() {
		_, err := p.Publish(t.Context(), RingMessage{Payload: []byte("a")})
		result <- err
	}()
	f.await(t, "the request", func() bool { return f.sawLocked("publish 1") == 1 })
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	close(goOn)
	if err := <-result; !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("under way: %v, want ErrOutcomeUnknown", err)
	}
	if _, err := p.Publish(t.Context(), RingMessage{}); !errors.Is(err, ErrCancelled) {
		t.Errorf("afterwards: %v, want ErrCancelled", err)
	}
	f.stop()
	if _, err := c.Ring("/ticks").Publisher(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without a daemon: %v, want ErrUnreachable", err)
	}
}

func TestTheFirstPublishTellsThatThereIsNoRing(t *testing.T) {
	f := startFake(t)
	p, err := f.dial(t).Ring("none").Publisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 2 {
		if _, err := p.Publish(t.Context(), RingMessage{}); !errors.Is(err, ErrRingNotFound) {
			t.Errorf("%v, want ErrRingNotFound", err)
		}
	}
}

func TestManyGoroutinesShareAPublisher(t *testing.T) {
	f := startFake(t)
	_, p := publisher(t, f)
	const goroutines, each = 8, 50
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for range goroutines {
		all.Go(func() {
			last := uint64(0)
			for i := range each {
				got, err := p.Publish(t.Context(), RingMessage{Payload: fmt.Append(nil, i)})
				if err != nil || got.FirstSequence <= last {
					t.Errorf("%+v after %d, %v", got, last, err)
					return
				}
				last = got.FirstSequence
				mu.Lock()
				seen[last] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(seen) != goroutines*each {
		t.Errorf("%d answers, want %d", len(seen), goroutines*each)
	}
}
