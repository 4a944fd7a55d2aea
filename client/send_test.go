package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func body(s string) Message { return Message{Body: []byte(s)} }

func TestSendReturnsWhatWasStored(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("jobs")
	if _, err := q.Send(t.Context(), Message{Body: []byte("a"), DedupID: "x"}); err != nil {
		t.Fatal(err)
	}
	sent, err := q.Send(t.Context(), body("b"), Message{Body: []byte("c"), DedupID: "x"}, body("d"))
	if err != nil {
		t.Fatal(err)
	}
	var sequences []uint64
	for i, s := range sent {
		sequences = append(sequences, s.Sequence)
		if s.Duplicate != (i == 1) || s.SentAt.IsZero() {
			t.Errorf("message %d: %+v", i, s)
		}
	}
	if !slices.Equal(sequences, []uint64{2, 1, 3}) {
		t.Errorf("sequences %v, want 2, the first one's 1, and 3", sequences)
	}
}

func TestARefusalNamesTheMessage(t *testing.T) {
	f := startFake(t)
	_, err := f.dial(t).Queue("/jobs").Send(t.Context(), body("a"), body(strings.Repeat("x", 101)))
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrMessageTooLarge) || e.Index != 1 || e.Queue != "/jobs" {
		t.Errorf("%#v", err)
	}
}

// SEMANTICS 9: the nasty moment is after the store and before the answer.
func TestABatchWhoseAnswerWasLostIsStoredOnce_S9(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{afterStore: func(n int) {
		if n <= 2 { // the first try and the first repeat
			f.cut()
		}
	}})
	sent, err := f.dial(t).Queue("/jobs").Send(t.Context(), body("a"), body("b"))
	if err != nil {
		t.Fatal(err)
	}
	if sent[0].Sequence != 1 || sent[1].Sequence != 2 {
		t.Errorf("%+v, want the sequences of the first store", sent)
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("stored %q, want each once", got)
	}
}

func TestABatchLostOnItsWayIsStored_S9(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{beforeStore: func(n int) error {
		if n == 1 {
			f.cut()
			return reason.New(reason.Internal, "nobody hears this")
		}
		return nil
	}})
	if _, err := f.dial(t).Queue("/jobs").Send(t.Context(), body("a")); err != nil {
		t.Fatal(err)
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("stored %q", got)
	}
}

// The daemon that could tell is gone.
func TestAfterARestartTheOutcomeIsUnknown_S9(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{afterStore: func(n int) {
		if n == 1 {
			go f.stopAndStart(t, "second")
			f.cut()
		}
	}})
	c := f.dial(t)
	_, err := c.Queue("/jobs").Send(t.Context(), body("a"))
	if !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("%v, want ErrOutcomeUnknown", err)
	}
	if got := f.bodies("/jobs"); len(got) != 1 {
		t.Errorf("stored %q, want it once", got)
	}
	if _, err := c.Queue("/jobs").Send(t.Context(), body("b")); err != nil {
		t.Errorf("the next send: %v", err)
	}
}

// stopAndStart restarts the daemon under a new instance; the queues stay.
func (f *fake) stopAndStart(t testing.TB, instance string) {
	f.stop()
	if err := f.start(instance); err != nil {
		t.Error(err)
	}
}

func TestABatchThatWasNeverSentFollowsTheDaemonToItsNextRun_S9(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if _, err := c.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The instance changes behind the client's back, between its question and its batch.
	asked := 0
	f.setHooks(hooks{beforeStore: func(n int) error {
		if n == 1 {
			f.mu.Lock()
			f.instance = "second"
			f.mu.Unlock()
		}
		return nil
	}, getInfo: func() { asked++ }})
	if _, err := c.Queue("/jobs").Send(t.Context(), body("a")); err != nil {
		t.Fatal(err)
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("stored %q", got)
	}
	if _, err := c.Queue("/jobs").Send(t.Context(), body("b")); err != nil {
		t.Fatal(err)
	}
	if asked != 2 {
		t.Errorf("asked for the instance %d times, want 2: at first and when it proved wrong", asked)
	}
}

func TestAContextThatEndsInFlightLeavesTheOutcomeUnknown_S9(t *testing.T) {
	f := startFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	f.setHooks(hooks{afterStore: func(int) {
		cancel()
		<-release
	}})
	defer close(release)
	_, err := f.dial(t).Queue("/jobs").Send(ctx, body("a"))
	if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want ErrOutcomeUnknown because of context.Canceled", err)
	}
}

func TestAContextThatEndedBeforeSendsNothing(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if _, err := c.Queue("/jobs").Send(t.Context(), body("a")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Queue("/jobs").Send(ctx, body("b"))
	if errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrCancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want ErrCancelled: it is sure that nothing was sent", err)
	}
}

// Beyond the window the daemon may have forgotten the batch and would store it twice.
func TestABatchIsNotRepeatedBeyondTheDaemonsMemory_S9(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{afterStore: func(int) { f.cut() }})
	c := f.dial(t)
	c.resendWindow = 0
	_, err := c.Queue("/jobs").Send(t.Context(), body("a"))
	if !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("%v, want ErrOutcomeUnknown", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.batches != 1 {
		t.Errorf("the batch came %d times, want once", f.batches)
	}
}

// Each lane has one batch on its way, so batch ids rise in the order of arrival.
func TestBatchIDsRisePerProducer_S9(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 20 {
				if _, err := q.Send(context.Background(), body("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	last := map[string]int{}
	for _, s := range f.seen {
		var producer string
		var batch, of int
		if _, err := fmt.Sscanf(s, "batch %s %d of %d", &producer, &batch, &of); err != nil {
			t.Fatal(err)
		}
		if batch != last[producer]+1 {
			t.Fatalf("producer %s: batch %d after %d", producer, batch, last[producer])
		}
		last[producer] = batch
	}
	if len(last) > 8 {
		t.Errorf("%d producers for 8 senders", len(last))
	}
}

func TestSendRefusesWhatNoDaemonTakes(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	for name, batch := range map[string][]Message{
		"no messages":    nil,
		"too many":       make([]Message, limits.BatchMessages+1),
		"too large":      {{Body: make([]byte, limits.BatchBytes+1)}},
		"not text":       {{DedupID: "\xff"}},
		"header no text": {{Headers: map[string][]byte{"\xff": nil}}},
	} {
		if _, err := q.Send(t.Context(), batch...); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v, want ErrInvalidArgument", name, err)
		}
	}
}
