package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

func (w *world) tap(r TapRequest) *Tap {
	w.Helper()
	t, err := w.Tap(w.ctx, alice, r)
	w.must(err)
	return t
}

// next is what a tap hands out, as text: how many were skipped, and the bodies.
func (w *world) next(t *Tap) string {
	w.Helper()
	got, err := t.Next(w.ctx)
	w.must(err)
	text := fmt.Sprintf("%d:", got.Skipped)
	for i := range got.Messages {
		text += " " + string(got.Messages[i].Body)
	}
	return text
}

// nothing fails if a tap has something to hand out.
func (w *world) nothing(t *Tap) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Second)
	defer cancel()
	if got, err := t.Next(ctx); err != context.DeadlineExceeded {
		w.Fatalf("a tap with nothing to hand out gives %+v, %v", got, err)
	}
}

func (w *world) sayNext(t *Tap, want string) {
	w.Helper()
	if got := w.next(t); got != want {
		w.Fatalf("the tap gives %q, want %q", got, want)
	}
}

func TestTapCopiesWhatArrivesFromNowOn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.send("/q", "before")
		all := w.tap(TapRequest{Queue: "/q"})
		defer all.Close()
		twos := w.tap(TapRequest{Queue: "/q", Filter: queue.Filter{
			Selector: queue.Selector{Kind: queue.TypeIs, Type: 2},
			Headers:  []queue.Header{{Key: "k", Value: []byte("v")}},
			// What only a message that is there has does not count.
			States: []queue.State{queue.Buried}, MinSequence: 1 << 40, SentBefore: 1,
		}})
		defer twos.Close()
		if got := w.stats("/q").Taps; got != 2 {
			t.Errorf("%d taps, want 2", got)
		}
		head := []queue.Header{{Key: "a", Value: []byte("b")}, {Key: "k", Value: []byte("v")}}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{
			{Type: 1, Body: []byte("one"), Headers: head},
			{Type: 2, Body: []byte("two")},
			{Type: 2, Body: []byte("three"), Headers: head, Priority: 3, CorrelationID: "c", ReplyTo: "/r", TTL: time.Hour, Delay: time.Minute},
		}})
		w.must(err)
		w.sayNext(all, "0: one two three")
		got, err := twos.Next(w.ctx)
		w.must(err)
		if len(got.Messages) != 1 || got.Skipped != 0 {
			t.Fatalf("the tap gives %+v", got)
		}
		m := got.Messages[0]
		if string(m.Body) != "three" || m.State != queue.Delayed || m.Due != m.SentAt+time.Minute.Nanoseconds() || m.Expires != m.SentAt+time.Hour.Nanoseconds() ||
			m.Priority != 3 || m.Sequence != 4 || m.CorrelationID != "c" || m.ReplyTo != "/r" || len(m.Headers) != 2 || m.TTL != time.Hour {
			t.Errorf("the copy is %+v", m)
		}
		w.receive("/q", 3)
		pass(2 * time.Minute) // what becomes ready does not arrive again; nor what comes back
		w.receive("/q", 3)
		w.nothing(all)
		w.nothing(twos)
		all.Close()
		all.Close()
		w.send("/q", "after")
		if got := w.stats("/q").Taps; got != 1 {
			t.Errorf("%d taps, want 1", got)
		}
		if _, err := all.Next(w.ctx); err == nil {
			t.Error("a closed tap goes on")
		}
	})
}

// TestTapSeesWhatIsConsumedAtOnce: whoever waits for a message does not take it from under the tap.
func TestTapSeesWhatIsConsumedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		tap := w.tap(TapRequest{Queue: "/q", MaxBody: 3})
		defer tap.Close()
		consumed := make(chan string)
		go func() {
			got, _ := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Wait: time.Hour, Consume: true})
			consumed <- bodiesOf(got)
		}()
		pass(time.Millisecond)
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{
			{Type: 1, Body: []byte("whole"), Headers: []queue.Header{{Key: "k", Value: []byte("v")}}}, {Type: 1, Body: []byte("plain")}, {Type: 1, Body: []byte("abc")}}})
		w.must(err)
		if got := <-consumed; got != "whole " {
			t.Errorf("received %q", got)
		}
		got, err := tap.Next(w.ctx)
		w.must(err)
		for i, want := range []string{"who 5", "pla 5", "abc 0"} {
			if m := got.Messages[i]; fmt.Sprint(string(m.Body), " ", m.TruncatedFrom) != want {
				t.Errorf("message %d is %q, cut from %d; want %s", i, m.Body, m.TruncatedFrom, want)
			}
		}
	})
}

func TestTapSeesDeadLettersArrive(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/dead")
		w.create("/q", func(s *queue.Settings) { s.DeadLetter = "/dead"; s.MaxAttempts = 1 })
		tap := w.tap(TapRequest{Queue: "/dead"})
		defer tap.Close()
		w.send("/q", "x")
		w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Nack}))
		w.sayNext(tap, "0: x")
	})
}

// TestSlowTapSkipsAndCounts: who does not read misses messages, and learns how many, and where.
func TestSlowTapSkipsAndCounts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessageSize = limits.MessageSizeMax })
		tap := w.tap(TapRequest{Queue: "/q"})
		defer tap.Close()
		for range 4 {
			w.send("/q", make([]string, limits.TapMessages/4)...)
		}
		w.send("/q", "lost", "lost")
		w.send("/q", "lost")
		got, err := tap.Next(w.ctx)
		w.must(err)
		if len(got.Messages) != limits.TapMessages || got.Skipped != 0 || got.Messages[limits.TapMessages-1].Sequence != limits.TapMessages {
			t.Fatalf("first %d messages and %d skipped", len(got.Messages), got.Skipped)
		}
		w.send("/q", "kept")
		w.sayNext(tap, "3: kept")

		// The same for bytes: what is smaller finds room behind what did not.
		half, large := strings.Repeat("x", limits.TapBytes/2-tapMessage), strings.Repeat("y", limits.TapBytes/2-tapMessage)
		w.send("/q", half)
		w.send("/q", large+"!")
		w.send("/q", half)
		w.send("/q", "z")
		w.send("/q", "")
		w.sayNext(tap, "0: "+half)
		w.sayNext(tap, "1: "+half)
		w.sayNext(tap, "2:")
		w.nothing(tap)
	})
}

func TestTapsOfOneIdentityHoldABoundedShare(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) {
			s.MaxMessageSize = limits.TapBytes
			s.Mode, s.Durability = 0o644, queue.Memory
		})
		const full = limits.TapBytesOfOne / limits.TapBytes
		var taps []*Tap
		for range full + 1 {
			taps = append(taps, w.tap(TapRequest{Queue: "/q"}))
		}
		bobs, err := w.Tap(w.ctx, bob, TapRequest{Queue: "/q"})
		w.must(err)
		defer bobs.Close()
		w.send("/q", string(make([]byte, limits.TapBytes-tapMessage)))
		check := func(tap *Tap, messages int, skipped uint64) {
			t.Helper()
			got, err := tap.Next(w.ctx)
			w.must(err)
			if len(got.Messages) != messages || got.Skipped != skipped {
				t.Errorf("%d messages and %d skipped, want %d and %d", len(got.Messages), got.Skipped, messages, skipped)
			}
		}
		check(taps[full], 0, 1)
		check(bobs, 1, 0)
		check(taps[0], 1, 0) // read, and
		taps[1].Close()      // closed: there is room again
		w.receive("/q", 1)
		w.send("/q", string(make([]byte, limits.TapBytes-tapMessage)))
		check(taps[0], 1, 0)
		check(taps[full], 1, 0)
		for _, tap := range taps {
			tap.Close()
		}
		if n := len(w.tapped.all); n != 1 {
			t.Errorf("%d identities are accounted for, want bob alone", n)
		}
	})
}

func TestTapEndsWithItsQueue(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		tap := w.tap(TapRequest{Queue: "/q"})
		defer tap.Close()
		w.send("/q", "last")
		_, err := w.DeleteQueue(w.ctx, alice, "/q")
		w.must(err)
		w.sayNext(tap, "0: last")
		_, err = tap.Next(w.ctx)
		w.wants(err, reason.QueueDeleted)
	})
	inWorld(t, func(w *world) {
		w.create("/q")
		tap := w.tap(TapRequest{Queue: "/q"})
		defer tap.Close()
		ended := make(chan error)
		go func() {
			_, err := tap.Next(w.ctx)
			ended <- err
		}()
		pass(time.Millisecond)
		w.must(w.Stop(w.ctx))
		w.wants(<-ended, reason.ShuttingDown)
		_, err := w.Tap(w.ctx, alice, TapRequest{Queue: "/q"})
		w.wants(err, reason.ShuttingDown)
	})
}

func TestTapEndsWhenAccessIsWithdrawn(t *testing.T) {
	control := access.New(access.Policy{Rules: []access.Rule{{Queues: []string{"q"}, Anonymous: true, Allow: access.Look}}}, nil)
	inFreshWorlds(t, func() Options { return Options{Access: control} }, func(w *world) {
		control.Set(access.Policy{Rules: []access.Rule{{Queues: []string{"q"}, Anonymous: true, Allow: access.Look}}})
		w.create("/q", func(s *queue.Settings) { s.Mode = 0o644 })
		bobs, err := w.Tap(w.ctx, bob, TapRequest{Queue: "/q"})
		w.must(err)
		defer bobs.Close()
		nemos, err := w.Tap(w.ctx, nemo, TapRequest{Queue: "/q"})
		w.must(err)
		defer nemos.Close()
		alices := w.tap(TapRequest{Queue: "/q"})
		defer alices.Close()
		w.send("/q", "secret")
		_, err = w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Mode = 0o622; return nil })
		w.must(err)
		control.Set(access.Policy{})
		w.AccessChanged()
		for _, tap := range []*Tap{bobs, nemos} {
			got, err := tap.Next(w.ctx)
			w.wants(err, reason.AccessDenied)
			if len(got.Messages) > 0 {
				t.Error("what was copied is handed out still")
			}
		}
		w.send("/q", "more")
		w.sayNext(alices, "0: secret more")
		_, err = w.Tap(w.ctx, bob, TapRequest{Queue: "/q"})
		w.wants(err, reason.AccessDenied)
	})
}

func TestTapsAreBounded(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.Receivers: limits.Taps + 1}), func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.Mode = 0o644 })
		w.create("/r")
		for range limits.Taps {
			defer w.tap(TapRequest{Queue: "/q"}).Close()
		}
		_, err := w.Tap(w.ctx, bob, TapRequest{Queue: "/q"})
		w.wants(err, reason.QuotaExceeded)
		last := w.tap(TapRequest{Queue: "/r"})
		_, err = w.Tap(w.ctx, alice, TapRequest{Queue: "/r"})
		w.wants(err, reason.QuotaExceeded)
		last.Close()
		w.tap(TapRequest{Queue: "/r"}).Close()

		_, err = w.Tap(w.ctx, alice, TapRequest{Queue: "/r", MaxBody: -1})
		w.wants(err, reason.InvalidArgument)
		_, err = w.Tap(w.ctx, alice, TapRequest{Queue: "/r", Filter: queue.Filter{Selector: queue.Selector{Kind: queue.TypeIs, Type: -1}}})
		w.wants(err, reason.InvalidArgument)
		_, err = w.Tap(w.ctx, alice, TapRequest{Queue: "/none"})
		w.wants(err, reason.QueueNotFound)
	})
}

// TestTapSkipsWhatIsOnDiskAlone: nothing is read back for a tap.
func TestTapSkipsWhatIsOnDiskAlone(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.PayloadMemory = 1
		d.o.Journal.SegmentBytes = 8 << 20
		w := d.start()
		defer w.Close()
		w.create("/q")
		w.send("/q", string(make([]byte, 60000)))
		for range 30 {
			w.send("/q", string(make([]byte, 60000)))
		}
		tap := w.tap(TapRequest{Queue: "/q"})
		defer tap.Close()
		w.send("/q", "on disk", "on disk")
		w.sayNext(tap, "2:")
		headers := w.tap(TapRequest{Queue: "/q", Filter: queue.Filter{Headers: []queue.Header{{Key: "k"}}}})
		defer headers.Close()
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}, {Type: 1, Headers: []queue.Header{{Key: "other"}}}}})
		w.must(err)
		w.sayNext(headers, "1:") // it may have been meant; the first has no headers at all
	})
}
