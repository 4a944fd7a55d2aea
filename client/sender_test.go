package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/reason"
)

func newSender(t *testing.T, q *Queue, o SenderOptions) *Sender {
	t.Helper()
	s, err := q.Sender(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func numbers(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// sendNumbers sends n messages, one by one, and returns what is pending.
func sendNumbers(t *testing.T, s *Sender, n int) []*Pending {
	t.Helper()
	var all []*Pending
	for _, text := range numbers(n) {
		p, err := s.Send(t.Context(), body(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestSenderKeepsTheOrder(t *testing.T) {
	f := startFake(t)
	s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{})
	pending := sendNumbers(t, s, 500)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, p := range pending {
		sent, err := p.Wait(t.Context())
		if err != nil || len(sent) != 1 || sent[0].Sequence != uint64(i+1) {
			t.Fatalf("message %d: %v, %v", i, sent, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, numbers(500)) {
		t.Errorf("stored %q", got)
	}
	if _, err := s.Send(t.Context(), body("late")); !errors.Is(err, ErrCancelled) {
		t.Errorf("Send after Close: %v, want ErrCancelled", err)
	}
}

// While the daemon is slow what comes is put together.
func TestSenderPutsSendsTogether(t *testing.T) {
	f := startFake(t)
	gate := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(int) error { <-gate; return nil }})
	s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{BatchMessages: 100})
	sendNumbers(t, s, 500)
	close(gate)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.batches > senderBatches+5 {
		t.Errorf("%d batches for 500 messages", f.batches)
	}
	for _, seen := range f.seen {
		if strings.HasSuffix(seen, "of 101") {
			t.Error(seen)
		}
	}
}

// SEMANTICS 9: break the connection after every third store, before the answer.
func TestSenderStoresOnceOverBrokenStreams_S9(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{afterStore: func(n int) {
		if n%3 == 0 && n < 15 {
			f.cut()
		}
	}})
	s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{BatchMessages: 5})
	pending := sendNumbers(t, s, 300)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, p := range pending {
		if sent, err := p.Wait(t.Context()); err != nil || sent[0].Sequence != uint64(i+1) {
			t.Fatalf("message %d: %v, %v", i, sent, err)
		}
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, numbers(300)) {
		t.Errorf("stored %q", got)
	}
}

func TestSenderSaysWhatARestartLeavesUnknown_S9(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{afterStore: func(n int) {
		if n == 1 {
			go f.stopAndStart(t, "second")
			f.cut()
		}
	}})
	s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{})
	p, err := s.Send(t.Context(), body("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("%v, want ErrOutcomeUnknown", err)
	}
	p, err = s.Send(t.Context(), body("b"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(t.Context()); err != nil {
		t.Errorf("a message that was not sent before: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("Close: %v, want the first error", err)
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("stored %q", got)
	}
}

// A daemon that says it stops has not stored the batch: it goes to the next one.
func TestSenderOutlivesAGracefulRestart_S9(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{beforeStore: func(n int) error {
		if n == 2 {
			f.mu.Lock()
			f.instance = "second"
			f.mu.Unlock()
			return reason.New(reason.ShuttingDown, "stopping")
		}
		return nil
	}})
	s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{BatchMessages: 1})
	sendNumbers(t, s, 50)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, numbers(50)) {
		t.Errorf("stored %q", got)
	}
}

func TestARefusedSendDoesNotTakeOthersWithIt(t *testing.T) {
	f := startFake(t)
	gate := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(int) error { <-gate; return nil }})
	s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{})
	sendNumbers(t, s, 20)
	large, err := s.Send(t.Context(), body("fits"), body(strings.Repeat("x", 101)))
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.Send(t.Context(), body("last"))
	if err != nil {
		t.Fatal(err)
	}
	close(gate)
	var e *Error
	if _, err := large.Wait(t.Context()); !errors.As(err, &e) || !errors.Is(err, ErrMessageTooLarge) || e.Index != 1 {
		t.Errorf("%#v, want ErrMessageTooLarge at 1", err)
	}
	if _, err := last.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); !errors.Is(err, ErrMessageTooLarge) {
		t.Errorf("Close: %v, want the first error", err)
	}
	got := f.bodies("/jobs")
	slices.Sort(got)
	want := append(numbers(20), "last")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("stored %q", got)
	}
}

// What shares a batch is not refused for the room it would need together.
func TestAQueueIsFilledToTheLastMessage_S3(t *testing.T) {
	f := startFake(t)
	f.mu.Lock()
	f.addQueue("/small", 37)
	f.mu.Unlock()
	gate := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(int) error { <-gate; return nil }})
	s := newSender(t, f.dial(t).Queue("/small"), SenderOptions{})
	pending := sendNumbers(t, s, 100)
	close(gate)
	if err := s.Close(); !errors.Is(err, ErrQueueFull) {
		t.Errorf("Close: %v, want ErrQueueFull", err)
	}
	stored := 0
	for _, p := range pending {
		if _, err := p.Wait(t.Context()); err == nil {
			stored++
		} else if !errors.Is(err, ErrQueueFull) {
			t.Error(err)
		}
	}
	if got := f.bodies("/small"); stored != 37 || len(got) != 37 {
		t.Errorf("%d sends succeeded, the queue holds %d, want 37", stored, len(got))
	}
}

// A batch may be too large only because of the copies that it causes: as many of them as fit go out at once.
func TestWhatIsTooMuchTogetherIsSentInParts(t *testing.T) {
	f := startFake(t)
	f.mu.Lock()
	f.batchMost = 3
	f.mu.Unlock()
	gate := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(int) error { <-gate; return nil }})
	for _, inOrder := range []bool{false, true} {
		s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{InOrder: inOrder})
		pending := sendNumbers(t, s, 100)
		if !inOrder {
			close(gate)
		}
		if err := s.Close(); err != nil {
			t.Errorf("in order %v: %v", inOrder, err)
		}
		for i, p := range pending {
			if _, err := p.Wait(t.Context()); err != nil {
				t.Errorf("in order %v, message %d: %v", inOrder, i, err)
			}
		}
	}
	got := f.bodies("/jobs")
	if len(got) != 200 || !slices.Equal(got[100:], numbers(100)) {
		t.Errorf("stored %q", got)
	}
}

func TestSenderInOrderStoresNothingAfterARefusedSend(t *testing.T) {
	for name, spoil := range map[string]struct {
		bodies []string
		want   error
	}{
		"full queue":     {numbers(100), ErrQueueFull},
		"too large body": {append(append(numbers(37), strings.Repeat("x", 101)), numbers(62)...), ErrMessageTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t)
			f.mu.Lock()
			f.addQueue("/small", 37)
			f.mu.Unlock()
			gate := make(chan struct{})
			f.setHooks(hooks{beforeStore: func(int) error { <-gate; return nil }})
			s := newSender(t, f.dial(t).Queue("/small"), SenderOptions{InOrder: true})
			var pending []*Pending
			for _, text := range spoil.bodies {
				p, err := s.Send(t.Context(), body(text))
				if err != nil {
					t.Fatal(err)
				}
				pending = append(pending, p)
			}
			close(gate)
			if err := s.Close(); !errors.Is(err, spoil.want) {
				t.Errorf("Close: %v, want %v", err, spoil.want)
			}
			for i, p := range pending {
				_, err := p.Wait(t.Context())
				switch {
				case i < 37 && err != nil, i == 37 && !errors.Is(err, spoil.want), i > 37 && !errors.Is(err, ErrCancelled):
					t.Errorf("message %d: %v", i, err)
				}
			}
			if got := f.bodies("/small"); !slices.Equal(got, numbers(37)) {
				t.Errorf("stored %q", got)
			}
			if _, err := s.Send(t.Context(), body("x")); !errors.Is(err, ErrCancelled) {
				t.Errorf("a later Send: %v, want ErrCancelled", err)
			}
		})
	}
}

func TestSenderHoldsBackWhenTooMuchIsUnderWay(t *testing.T) {
	f := startFake(t)
	gate := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(int) error { <-gate; return nil }})
	for name, o := range map[string]SenderOptions{"messages": {MaxMessages: 10}, "bytes": {MaxBytes: 10}} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, f.dial(t).Queue("/jobs"), o)
			sendNumbers(t, s, 10)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.Send(ctx, body("x")); !errors.Is(err, context.Canceled) {
				t.Errorf("the 11th: %v, want that it waits until its context ends", err)
			}
			waiting := make(chan error)
			go func() {
				_, err := s.Send(context.Background(), body("x"))
				waiting <- err
			}()
			gate <- struct{}{}
			if err := <-waiting; err != nil {
				t.Error(err)
			}
			closed := make(chan error)
			go func() { closed <- s.Close() }()
			for {
				select {
				case gate <- struct{}{}:
					continue
				case err := <-closed:
					if err != nil {
						t.Error(err)
					}
				}
				break
			}
		})
	}
}

func TestAMissingQueueFailsTheSender(t *testing.T) {
	f := startFake(t)
	s := newSender(t, f.dial(t).Queue("/none"), SenderOptions{})
	p, err := s.Send(t.Context(), body("x"))
	if err == nil {
		_, err = p.Wait(t.Context())
	}
	if !errors.Is(err, ErrQueueNotFound) {
		t.Errorf("%v, want ErrQueueNotFound", err)
	}
	<-s.ended
	if _, err := s.Send(t.Context(), body("x")); !errors.Is(err, ErrQueueNotFound) {
		t.Errorf("a later Send: %v, want ErrQueueNotFound", err)
	}
	_ = s.Close()
}

func TestTheContextEndsASender(t *testing.T) {
	f := startFake(t)
	entered := make(chan struct{}, 1)
	gate := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(int) error { entered <- struct{}{}; <-gate; return nil }})
	defer close(gate)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := f.dial(t).Queue("/jobs").Sender(ctx, SenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Send(t.Context(), body("x"))
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	cancel()
	if _, err := p.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want ErrOutcomeUnknown because of context.Canceled", err)
	}
	if err := s.Close(); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("Close: %v", err)
	}
}

func TestCloseDoesNotWaitForeverForADaemonThatIsGone(t *testing.T) {
	f := startFake(t)
	entered := make(chan struct{}, 1)
	gate := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(int) error { entered <- struct{}{}; <-gate; return nil }})
	c := f.dial(t)
	c.resendWindow = 0
	s := newSender(t, c.Queue("/jobs"), SenderOptions{BatchMessages: 1})
	sent, err := s.Send(t.Context(), body("x"))
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	go f.stop()
	f.cut()
	close(gate)
	if err := s.Close(); err == nil {
		t.Error("Close: no error")
	}
	if _, err := sent.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("%v, want ErrOutcomeUnknown", err)
	}
}

func TestManyMayUseOneSender(t *testing.T) {
	f := startFake(t)
	s := newSender(t, f.dial(t).Queue("/jobs"), SenderOptions{MaxMessages: 7})
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 25 {
				p, err := s.Send(context.Background(), body("x"), body("y"))
				if err != nil {
					t.Error(err)
					return
				}
				if sent, err := p.Wait(context.Background()); err != nil || sent[1].Sequence != sent[0].Sequence+1 {
					t.Errorf("%v, %v: not together", sent, err)
				}
			}
		})
	}
	senders.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := f.bodies("/jobs"); len(got) != 400 {
		t.Errorf("%d messages, want 400", len(got))
	}
}
