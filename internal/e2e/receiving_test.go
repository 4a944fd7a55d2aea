//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

func TestSelectorsOfIpcctl_S10_S11(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.TypeNames = map[string]int64{"created": 7, "failed": 9} }))
	// Bodies tell the type and the order of sending among those of the type.
	for _, m := range []client.Message{
		{Type: 9, Body: []byte("9a")}, {Type: 7, Body: []byte("7a")}, {Type: 3, Body: []byte("3a")},
		{Type: 7, Priority: 5, Body: []byte("7urgent")}, {Type: 3, Body: []byte("3b")}, {Type: 20, Body: []byte("20a")},
	} {
		send(t, q, m)
	}
	for _, c := range []struct{ selector, want string }{
		{"any", "7urgent 9a 7a 3a 3b 20a"},
		{"7", "7urgent 7a"},
		{"created", "7urgent 7a"},
		{"upto:8", "3a 3b 7urgent 7a"},
		{"<=3", "3a 3b"},
		{"upto:2", ""},
		{"not:7", "9a 3a 3b 20a"},
		{"!7", "9a 3a 3b 20a"},
		{"not:created", "9a 3a 3b 20a"},
		{"3,20", "3a 3b 20a"},
		{"failed,3", "9a 3a 3b"},
		{"12345", ""},
	} {
		t.Run(c.selector, func(t *testing.T) {
			r := d.ctl(t, "recv", q.Name(), "--type", c.selector, "-n", "10", "-o", "jsonl")
			if c.want == "" {
				r.exits(t, 6)
				return
			}
			var got, receipts []string
			for line := range strings.Lines(r.ok(t)) {
				var m messageJSON
				unmarshal(t, line, &m)
				got, receipts = append(got, *m.Body), append(receipts, m.Receipt)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("received %q, want %q", got, c.want)
			}
			d.ctl(t, append([]string{"release"}, receipts...)...).ok(t)
		})
	}
	for _, bad := range []string{"0", "-1", "upto:", "not:x", "1,,2", "unknown", "9223372036854775808"} {
		d.ctl(t, "recv", q.Name(), "--type", bad).exits(t, 2).says(t, "positive number")
	}
	d.ctl(t, "recv", q.Name(), "--type", "").exits(t, 2).says(t, "any") // as a script's unset variable makes it
}

func TestReceiveWaitsForWhatMatches_S12(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, _ *daemon, q *client.Queue) {
		none(t, q, client.ReceiveOptions{})
		none(t, q, client.ReceiveOptions{Wait: 20 * time.Millisecond})
		got := make(chan []*client.Delivery, 1)
		go func() {
			deliveries, err := q.Receive(within(t), 10, client.ReceiveOptions{Selector: client.Type(2), Wait: client.WaitForever})
			if err != nil {
				t.Error(err)
			}
			got <- deliveries
		}()
		awaitStats(t, q, "the receiver waits", func(s client.QueueStats) bool { return s.Receivers == 1 })
		send(t, q, client.Message{Type: 1, Body: []byte("another type")})
		send(t, q, client.Message{Type: 2, Body: []byte("a")}, client.Message{Type: 2, Body: []byte("b")})
		if b := bodies(<-got); len(b) != 2 || b[0] != "a" || b[1] != "b" {
			t.Errorf("received %q, want all of the batch that matches", b)
		}
	})
}

func TestWaitingReceiversAreServedInOrder_S12(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	served := make(chan string, 4)
	wait := func(name string, s client.Selector, waiting int) {
		go func() {
			got, err := q.Receive(within(t), 10, client.ReceiveOptions{Selector: s, Wait: client.WaitForever})
			if err != nil || len(got) != 1 {
				t.Errorf("%s received %d messages, %v", name, len(got), err)
				return
			}
			served <- name + " got " + string(got[0].Body)
		}()
		awaitStats(t, q, name+" waits", func(s client.QueueStats) bool { return s.Receivers == waiting })
	}
	wait("first", client.Selector{}, 1)
	wait("typed", client.Type(7), 2)
	wait("second", client.Selector{}, 3)
	for _, m := range []client.Message{{Type: 1, Body: []byte("1")}, {Type: 1, Body: []byte("2")}, {Type: 7, Body: []byte("3")}} {
		send(t, q, m)
		want := map[string]string{"1": "first got 1", "2": "second got 2", "3": "typed got 3"}[string(m.Body)]
		if got := <-served; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestReceiverThatGivesUpHoldsNothing_S12(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		_, err := q.Receive(ctx, 1, client.ReceiveOptions{Wait: client.WaitForever})
		ended <- err
	}()
	awaitStats(t, q, "the receiver waits", func(s client.QueueStats) bool { return s.Receivers == 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	awaitStats(t, q, "nobody waits", func(s client.QueueStats) bool { return s.Receivers == 0 })
	send(t, q, text("for the next")...)
	if got := receiveOne(t, q); got.Attempts != 0 || string(got.Body) != "for the next" {
		t.Errorf("received %+v", got)
	}
}

func TestCallerThatIsGoneLeavesNoLease_S12(t *testing.T) {
	t.Parallel()
	d := start(t)
	direct := create(t, d.dial(t), memory())
	p := startProxy(t, d)
	behind := dial(t, p.socket).Queue(direct.Name())
	none(t, behind, client.ReceiveOptions{}) // the connection is there
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = behind.Receive(ctx, 1, client.ReceiveOptions{Wait: client.WaitForever}) // it is given up
	}()
	awaitStats(t, direct, "the receiver waits", func(s client.QueueStats) bool { return s.Receivers == 1 })
	p.cut()
	cancel()
	<-ended
	awaitStats(t, direct, "nobody waits", func(s client.QueueStats) bool { return s.Receivers == 0 })
	send(t, direct, text("m")...)
	if m := receiveOne(t, direct); m.Attempts != 0 {
		t.Errorf("%d attempts, want none", m.Attempts)
	}
}

func TestReceiptSettlesOneDeliveryOnce_S13_S14(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	q, other := create(t, c, memory()), create(t, c, memory())
	verbs := []string{"ack", "nack", "touch", "release", "bury"}
	for _, verb := range verbs {
		send(t, q, text("message")...)
		m := receiveOne(t, q)
		none(t, q, client.ReceiveOptions{})
		if err := m.Release(within(t)); err != nil {
			t.Fatal(err)
		}
		again := receiveOne(t, q)
		for _, stale := range verbs {
			d.ctl(t, stale, string(m.Receipt)).exits(t, 1).says(t, string(m.Receipt))
		}
		d.ctl(t, verb, string(again.Receipt)).ok(t)
		if verb != "touch" {
			d.ctl(t, verb, string(again.Receipt)).exits(t, 1)
		}
		d.ctl(t, "purge", q.Name(), "--state", "all", "--force").ok(t)
	}

	// A receipt is bound to its queue too, and to what the daemon handed out.
	send(t, q, text("a")...)
	send(t, other, text("b")...)
	here, there := receiveOne(t, q), receiveOne(t, other)
	d.ctl(t, "rm", other.Name(), "--force").ok(t)
	forged := []string{string(there.Receipt), "x", "", strings.Repeat("9", 5000), string(here.Receipt) + "0", "1.1.1.1.1", "-1.0.0.0.0"}
	if i := strings.LastIndex(string(here.Receipt), "."); i > 0 {
		forged = append(forged, string(here.Receipt)[:i])
	}
	for _, receipt := range forged {
		err := c.Settle(within(t), client.Settlement{Receipt: client.Receipt(receipt)})
		if !errors.Is(err, client.ErrStaleReceipt) && !errors.Is(err, client.ErrInvalidArgument) {
			t.Errorf("receipt %.40q: %v", receipt, err)
		}
	}
	// Each is settled for itself: the good one among bad ones is done.
	err := c.Settle(within(t), client.Settlement{Receipt: there.Receipt}, client.Settlement{Receipt: here.Receipt}, client.Settlement{Receipt: here.Receipt})
	var some *client.SettleError
	if !errors.As(err, &some) || len(some.Failures) != 2 || some.Failures[0].Index != 0 || some.Failures[1].Index != 2 {
		t.Errorf("settling stale, good, and the same again: %v", err)
	}
	if s := info(t, q).Stats; s.Messages() != 0 {
		t.Errorf("left %+v", s)
	}
}

func TestReceiptsAreStaleAfterACrash_S13(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := startIn(t, dir)
	q := create(t, d.dial(t), memory())
	send(t, q, text("lost with the daemon")...)
	receipt := receiveOne(t, q).Receipt
	d.kill()
	d = startIn(t, dir)
	again := d.dial(t)
	if _, err := again.CreateQueue(within(t), q.Name(), memory()); err != nil {
		t.Fatal(err)
	}
	send(t, again.Queue(q.Name()), text("of the next run")...)
	m := receiveOne(t, again.Queue(q.Name()))
	if m.Receipt == receipt {
		t.Errorf("two runs gave out the same receipt %s", receipt)
	}
	if err := again.Settle(within(t), client.Settlement{Receipt: receipt}); !errors.Is(err, client.ErrStaleReceipt) {
		t.Errorf("a receipt of the earlier run: %v, want STALE_RECEIPT", err)
	}
	if err := m.Ack(within(t)); err != nil {
		t.Error(err)
	}
}

func TestConsumedAtOnceNeedsNoSettling_S13(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, _ *daemon, q *client.Queue) {
		send(t, q, text("m")...)
		m := receive(t, q, 1, client.ReceiveOptions{AtOnce: true})[0]
		if m.Receipt != "" || !m.LeaseExpires.IsZero() {
			t.Errorf("received %+v, want neither receipt nor lease", m)
		}
		if s := info(t, q).Stats; s.Messages() != 0 || s.ConsumedTotal != 1 {
			t.Errorf("left %+v", s)
		}
	})
}

func TestLeaseEndsUnlessTouched_S14_S16(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.Lease = 3 * time.Second }))
	send(t, q, text("kept", "left")...)
	kept, left := receiveOne(t, q), receiveOne(t, q)
	if end, err := kept.Touch(within(t), time.Hour); err != nil || end.Before(left.LeaseExpires.Add(50*time.Minute)) {
		t.Errorf("touched for an hour: until %v, %v", end, err)
	}
	again := receiveOne(t, q)
	if again.Sequence != left.Sequence || again.Attempts != 1 {
		t.Errorf("received %+v, want the one that was left, with one attempt", again)
	}
	if err := left.Ack(within(t)); !errors.Is(err, client.ErrStaleReceipt) {
		t.Errorf("ack after the lease ended: %v", err)
	}
	if err := kept.Ack(within(t)); err != nil {
		t.Errorf("ack of the touched one: %v", err)
	}
	if s := info(t, q).Stats; s.LeaseExpiredTotal != 1 {
		t.Errorf("%d leases expired, want 1", s.LeaseExpiredTotal)
	}
}

func TestMessageLargerThanTheBufferStays_S19(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, _ *daemon, q *client.Queue) {
		send(t, q, text("0123456789")...)
		if _, err := q.Receive(within(t), 1, client.ReceiveOptions{MaxBodyBytes: 9}); !errors.Is(err, client.ErrBufferTooSmall) || !strings.Contains(err.Error(), "10") {
			t.Errorf("a buffer of 9 bytes: %v", err)
		}
		if s := info(t, q).Stats; s.Ready != 1 || s.NackedTotal+s.LeaseExpiredTotal != 0 {
			t.Errorf("%+v, want it ready as before", s)
		}
		m := receive(t, q, 1, client.ReceiveOptions{MaxBodyBytes: 9, Truncate: true})[0]
		if string(m.Body) != "012345678" || m.TruncatedFrom != 10 || m.Attempts != 0 {
			t.Errorf("truncated to %q of %d, %d attempts", m.Body, m.TruncatedFrom, m.Attempts)
		}
		if err := m.Release(within(t)); err != nil {
			t.Fatal(err)
		}
		if m := receive(t, q, 1, client.ReceiveOptions{MaxBodyBytes: 10})[0]; string(m.Body) != "0123456789" || m.TruncatedFrom != 0 {
			t.Errorf("a buffer that is just large enough: %q of %d", m.Body, m.TruncatedFrom)
		}
	})
}

func TestConcurrentConsumersShareWithoutRepeating_S14(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	const messages, consumers = 600, 4
	batch := make([]client.Message, messages)
	for i := range batch {
		batch[i].Body = fmt.Append(nil, i)
	}
	send(t, q, batch...)
	ctx, stop := context.WithCancel(within(t))
	taken := make(chan int, messages)
	errs := make(chan error, consumers)
	for range consumers {
		own := d.dial(t).Queue(q.Name())
		go func() {
			errs <- own.Consume(ctx, func(_ context.Context, m *client.Delivery) error {
				n, err := strconv.Atoi(string(m.Body))
				taken <- n
				return err
			}, client.ConsumeOptions{Concurrency: 3, Prefetch: 20})
		}()
	}
	seen := map[int]bool{}
	for range messages {
		n := <-taken
		if seen[n] {
			t.Errorf("message %d was delivered twice", n)
		}
		seen[n] = true
	}
	stop()
	for range consumers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if s := info(t, q).Stats; s.Messages() != 0 || s.ConsumedTotal != messages {
		t.Errorf("afterwards %+v", s)
	}
}
