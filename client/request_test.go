package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// responding runs Respond until the test ends, or the function that it returns is called.
func responding(t *testing.T, q *Queue, h Responder, o ConsumeOptions) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Respond(ctx, h, o) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func shout(_ context.Context, d *Delivery) (Message, error) {
	return Message{Body: []byte(strings.ToUpper(string(d.Body)))}, nil
}

func TestARequestGetsItsReply(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	stop := responding(t, f.dial(t).Queue("/jobs"), shout, ConsumeOptions{})
	d, err := c.Request(t.Context(), "jobs", Message{Body: []byte("hello")})
	if err != nil || string(d.Body) != "HELLO" {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := d.Ack(t.Context()); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("ack of a reply: %v: there is nothing to settle", err)
	}
	f.await(t, "the request's ack", func() bool { return f.sawLocked("ack hello") == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestManyRequestsShareAQueueAndEachGetsItsOwnReply(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	responding(t, f.dial(t).Queue("/jobs"), shout, ConsumeOptions{Concurrency: 8})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			text := fmt.Sprintf("r%d", i)
			if d, err := c.Request(t.Context(), "/jobs", body(text)); err != nil || string(d.Body) != strings.ToUpper(text) {
				t.Errorf("%s: %+v, %v", text, d, err)
			}
		})
	}
	all.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.temporaries != 1 {
		t.Errorf("%d temporary queues, want 1", f.temporaries)
	}
}

func TestARequestLivesAsLongAsSomebodyWaitsForIt(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	for name, test := range map[string]struct {
		timeout, ttl, most time.Duration
	}{
		"default":  {0, 0, requestPatience},
		"deadline": {time.Hour, 0, time.Hour},
		"its own":  {time.Hour, time.Minute, time.Minute},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if test.timeout > 0 {
			ctx, cancel = context.WithTimeout(t.Context(), test.timeout)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := c.Request(ctx, "/jobs", Message{TTL: test.ttl})
			ended <- err
		}()
		d := receiveOne(t, c.Queue("/jobs"), ReceiveOptions{Wait: WaitForever})
		if d.TTL <= test.most-10*time.Second || d.TTL > test.most || d.ReplyTo == "" || d.CorrelationID == "" {
			t.Errorf("%s: TTL %v, reply to %q, correlation id %q", name, d.TTL, d.ReplyTo, d.CorrelationID)
		}
		cancel()
		if err := <-ended; !errors.Is(err, ErrCancelled) {
			t.Errorf("%s: %v, want ErrCancelled", name, err)
		}
	}
}

func TestAReplyThatComesTooLateIsCounted(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Request(ctx, "/jobs", body("slow"))
		ended <- err
	}()
	d := receiveOne(t, c.Queue("/jobs"), ReceiveOptions{Wait: WaitForever})
	cancel()
	<-ended
	for i := range 2 { // late, and unknown
		if _, err := c.Queue(d.ReplyTo).Send(t.Context(), Message{CorrelationID: fmt.Sprint(d.CorrelationID, strings.Repeat("x", i))}); err != nil {
			t.Fatal(err)
		}
	}
	// A third one has nobody waiting either; and one that has shows that the two before were looked at.
	responding(t, c.Queue("/jobs"), shout, ConsumeOptions{})
	if _, err := c.Request(t.Context(), "/jobs", body("next")); err != nil {
		t.Fatal(err)
	}
	if n := c.LateReplies(); n != 2 {
		t.Errorf("%d late replies, want 2", n)
	}
}

func TestTheTTLOfARequestIsOneThatTheDaemonTakes(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*limits.DelayMax)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Request(ctx, "/jobs", body("slow"))
		ended <- err
	}()
	if d := receiveOne(t, c.Queue("/jobs"), ReceiveOptions{Wait: WaitForever}); d.TTL != limits.DelayMax {
		t.Errorf("TTL %v, want %v", d.TTL, limits.DelayMax)
	}
	cancel()
	<-ended
}

func TestARequestThatNobodyAnswersTimesOut(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(300*time.Millisecond))
	defer cancel()
	_, err := c.Request(ctx, "/jobs", body("a"))
	if !errors.Is(err, ErrTimedOut) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want ErrTimedOut", err)
	}
}

func TestRequestsWhoseReplyQueueIsLostFailAndTheNextOpensAnother(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	other := f.dial(t).Queue("/jobs")
	var all sync.WaitGroup
	var failed atomic.Int64
	for range 3 {
		all.Go(func() {
			_, err := c.Request(t.Context(), "/jobs", body("a"))
			if !errors.Is(err, ErrReplyLost) || !errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("%v, want ErrReplyLost and ErrOutcomeUnknown", err)
			}
			failed.Add(1)
		})
	}
	for range 3 { // each is sent, and its answer has come
		receiveOne(t, other, ReceiveOptions{Wait: WaitForever})
	}
	f.awaitWaiting(t, c, 3)
	f.cut()
	all.Wait()
	responding(t, f.dial(t).Queue("/jobs"), shout, ConsumeOptions{})
	if d, err := c.Request(t.Context(), "/jobs", body("b")); err != nil || string(d.Body) != "B" {
		t.Errorf("the next request: %+v, %v", d, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.temporaries != 2 {
		t.Errorf("%d temporary queues, want 2", f.temporaries)
	}
}

// awaitWaiting waits until so many requests of the client wait for their reply.
func (f *fake) awaitWaiting(t *testing.T, c *Client, n int) {
	t.Helper()
	f.await(t, "requests", func() bool {
		c.replies.mu.Lock()
		defer c.replies.mu.Unlock()
		return c.replies.box != nil && len(c.replies.box.waiting) == n
	})
}

func TestARequestThatCannotBeSentSaysWhy(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if _, err := c.Request(t.Context(), "/gone", body("a")); !errors.Is(err, ErrQueueNotFound) {
		t.Errorf("%v, want ErrQueueNotFound", err)
	}
	for _, m := range []Message{{ReplyTo: "/r"}, {CorrelationID: "c"}} {
		if _, err := c.Request(t.Context(), "/jobs", m); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%+v: %v, want ErrInvalidArgument", m, err)
		}
	}
	f.awaitWaiting(t, c, 0)
	f.stop()
	nobody, err := Dial("unix://" + f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	if _, err := nobody.Request(t.Context(), "/jobs", body("a")); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no daemon: %v, want ErrUnreachable", err)
	}
}

func TestCloseEndsRequests(t *testing.T) {
	f := startFake(t)
	c, err := Dial("unix://" + f.path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Request(context.Background(), "/jobs", body("a"))
		ended <- err
	}()
	receiveOne(t, f.dial(t).Queue("/jobs"), ReceiveOptions{Wait: WaitForever})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("a request outlived its client")
	}
	if _, err := c.Request(t.Context(), "/jobs", body("a")); !errors.Is(err, ErrCancelled) {
		t.Errorf("after Close: %v, want ErrCancelled", err)
	}
}

func TestRespondAcksAfterTheReplyIsStored(t *testing.T) {
	f := startFake(t)
	f.withQueues("/replies")
	q := f.dial(t).Queue("/jobs")
	if _, err := q.Send(t.Context(), Message{Body: []byte("a"), ReplyTo: "replies", CorrelationID: "17"}, body("no reply wanted")); err != nil {
		t.Fatal(err)
	}
	var handled atomic.Int64
	responding(t, f.dial(t).Queue("/jobs"), func(ctx context.Context, d *Delivery) (Message, error) {
		handled.Add(1)
		return shout(ctx, d)
	}, ConsumeOptions{})
	f.await(t, "both acks", func() bool { return f.sawLocked("ack ") == 2 })
	f.mu.Lock()
	defer f.mu.Unlock()
	replies := f.queues["/replies"].messages
	if len(replies) != 1 || string(replies[0].m.GetBody()) != "A" || replies[0].m.GetCorrelationId() != "17" || handled.Load() != 2 {
		t.Errorf("replies %v, %d handled", replies, handled.Load())
	}
}

func TestRespondNacksWhatCouldNotBeAnswered(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	// The first has nowhere to go, and that queue may yet be made; the second's handler fails.
	if _, err := q.Send(t.Context(), Message{Body: []byte("a"), ReplyTo: "/later"}, Message{Body: []byte("b"), ReplyTo: "/later"}); err != nil {
		t.Fatal(err)
	}
	stop := responding(t, f.dial(t).Queue("/jobs"), func(_ context.Context, d *Delivery) (Message, error) {
		switch {
		case string(d.Body) == "b" && d.Attempts == 0:
			return Message{}, errors.New("this is bad")
		case d.Attempts > 0:
			f.withQueues("/later")
		}
		return Message{}, nil
	}, ConsumeOptions{})
	f.await(t, "both in the end", func() bool { return f.sawLocked("ack ") == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if f.sawLocked("nack a") != 1 || f.sawLocked("nack b backoff this is bad") != 1 {
		t.Errorf("the daemon saw %q", f.seen)
	}
}

func TestRespondAcksAndCountsWhereTheRequesterHasGone(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if _, err := c.Queue("/jobs").Send(t.Context(), Message{Body: []byte("a"), ReplyTo: "/tmp.gone"}); err != nil {
		t.Fatal(err)
	}
	stop := responding(t, c.Queue("/jobs"), shout, ConsumeOptions{})
	f.await(t, "the ack", func() bool { return f.sawLocked("ack a") == 1 })
	if err := stop(); err != nil || c.LateReplies() != 1 {
		t.Errorf("%v, %d late replies; want 1", err, c.LateReplies())
	}
}

// A mistyped queue is not taken for one that has ended: its requests are not lost.
func TestRespondNacksWhereTheQueueForRepliesIsAMistake(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if _, err := c.Queue("/jobs").Send(t.Context(), Message{Body: []byte("a"), ReplyTo: "/nope"}); err != nil {
		t.Fatal(err)
	}
	stop := responding(t, c.Queue("/jobs"), shout, ConsumeOptions{})
	f.await(t, "the nack", func() bool { return f.sawLocked("nack a") >= 1 })
	if err := stop(); err != nil || c.LateReplies() != 0 {
		t.Errorf("%v, %d late replies; want none", err, c.LateReplies())
	}
	if _, err := c.Reply(t.Context(), &Delivery{Queue: "/jobs", Sequence: 7}, body("x")); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a reply to a message that asks for none: %v", err)
	}
}

func TestARequestWaitsForTheDaemonThatComesNext(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{temporary: func(n int) error {
		switch n {
		case 1, 2:
			return reason.New(reason.ShuttingDown, "the daemon is stopping")
		case 4:
			return reason.New(reason.QuotaExceeded, "too many")
		}
		return nil
	}})
	c := f.dial(t)
	responding(t, f.dial(t).Queue("/jobs"), shout, ConsumeOptions{})
	if d, err := c.Request(t.Context(), "/jobs", body("a")); err != nil || string(d.Body) != "A" {
		t.Errorf("%v", err)
	}
	if _, err := f.dial(t).Request(t.Context(), "/jobs", body("a")); !errors.Is(err, ErrQuotaExceeded) {
		t.Errorf("refused for good: %v, want ErrQuotaExceeded", err)
	}
}

// A daemon that is stopping has stored nothing: with a deadline, the send waits for the next one.
func TestASendToAStoppingDaemonGoesToTheNextWithinItsDeadline(t *testing.T) {
	f := startFake(t)
	refused := make(chan struct{})
	f.setHooks(hooks{beforeStore: func(n int) error {
		if n == 4 {
			close(refused)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.instance == "first" {
			return reason.New(reason.ShuttingDown, "the daemon is stopping")
		}
		return nil
	}})
	go func() {
		<-refused
		f.mu.Lock()
		server := f.server
		f.mu.Unlock()
		server.GracefulStop() // what came is answered
		if err := f.start("second"); err != nil {
			t.Error(err)
		}
	}()
	c := f.dial(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Queue("/jobs").Send(ctx, body("a")); err != nil {
		t.Fatal(err)
	}
	if got := f.bodies("/jobs"); len(got) != 1 {
		t.Errorf("stored %q, want it once", got)
	}
}

func TestASendToAStoppingDaemonWithoutDeadlineIsToldAtOnce(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{beforeStore: func(int) error { return reason.New(reason.ShuttingDown, "the daemon is stopping") }})
	c := f.dial(t)
	if _, err := c.Queue("/jobs").Send(t.Context(), body("a")); !errors.Is(err, ErrShuttingDown) || f.batches != 1 {
		t.Errorf("%v after %d tries, want ErrShuttingDown after 1", err, f.batches)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Queue("/jobs").Send(ctx, body("a")); !errors.Is(err, ErrShuttingDown) {
		t.Errorf("at its deadline: %v, want ErrShuttingDown", err)
	}
}

// That the daemon may come back is no reason to wait: the reply queue does not.
func TestARequestFailsAtOnceWhenTheDaemonEnds(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Request(context.Background(), "/jobs", body("a"))
		ended <- err
	}()
	receiveOne(t, f.dial(t).Queue("/jobs"), ReceiveOptions{Wait: WaitForever})
	start := time.Now()
	f.stop()
	if err := <-ended; !errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrTimedOut) {
		t.Errorf("%v after %v, want ErrReplyLost", err, time.Since(start))
	}
}
