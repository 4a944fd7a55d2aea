package client

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/ipcd/ipcd/internal/reason"
)

// startTwo starts a daemon with /jobs, which holds a message of each body, and /out.
func startTwo(t *testing.T, bodies ...string) (*fake, *Client) {
	f := startFake(t)
	f.addQueue("/out", 3)
	c := f.dial(t)
	for _, b := range bodies {
		if _, err := c.Queue("/jobs").Send(t.Context(), body(b)); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	f.batches = 0
	f.mu.Unlock()
	return f, c
}

func receive(t *testing.T, c *Client, n int) []*Delivery {
	t.Helper()
	deliveries, err := c.Queue("/jobs").Receive(t.Context(), n, ReceiveOptions{})
	if err != nil || len(deliveries) != n {
		t.Fatalf("received %d, %v", len(deliveries), err)
	}
	return deliveries
}

func TestTransactIsOneCallThatSendsAndAcks_S24(t *testing.T) {
	f, c := startTwo(t, "a", "b")
	var tx *Tx
	err := c.Transact(t.Context(), func(t2 *Tx) error {
		tx = t2
		tx.Ack(receive(t, c, 2)...)
		tx.Send("out", body("x"), body("y"))
		tx.Send("/jobs", body("z"))
		if f.batches != 0 || tx.Stored() != nil {
			t.Error("something was done before the function returned")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if jobs, out := f.bodies("/jobs"), f.bodies("/out"); !slices.Equal(jobs, []string{"z"}) || !slices.Equal(out, []string{"x", "y"}) || f.batches != 1 {
		t.Errorf("jobs %q, out %q, %d calls", jobs, out, f.batches)
	}
	var sequences []uint64
	for _, s := range tx.Stored() {
		sequences = append(sequences, s.Sequence)
	}
	if !slices.Equal(sequences, []uint64{1, 2, 3}) {
		t.Errorf("sequences %v, want 1 and 2 of /out and 3 of /jobs", sequences)
	}
	tx.Send("/out", body("late"))
	tx.Ack(&Delivery{})
	if len(tx.sends) != 2 || len(tx.receipts) != 2 || tx.failed != nil {
		t.Error("what is said after the end counts")
	}
}

func TestATransactionOfNothingIsNoCall(t *testing.T) {
	f, c := startTwo(t)
	if err := c.Transact(t.Context(), func(*Tx) error { return nil }); err != nil || f.batches != 0 {
		t.Errorf("%v, %d calls", err, f.batches)
	}
}

func TestTheFunctionsErrorLeavesEverythingAlone_S24(t *testing.T) {
	f, c := startTwo(t, "a")
	failed := errors.New("no")
	err := c.Transact(t.Context(), func(tx *Tx) error {
		tx.Send("/out", body("x"))
		tx.Send("/out") // wrong too, but the function's error is what counts
		tx.Ack(receive(t, c, 1)...)
		return failed
	})
	if err != failed || f.batches != 0 || len(f.bodies("/out")) != 0 || len(f.bodies("/jobs")) != 1 {
		t.Errorf("%v, %d calls", err, f.batches)
	}
}

func TestARefusedTransactionNamesWhatWasInTheWay_S24(t *testing.T) {
	f, c := startTwo(t, "a")
	d := receive(t, c, 1)
	refused := func(want error, index int, queue string, fill func(*Tx)) {
		t.Helper()
		var kept *Tx
		err := c.Transact(t.Context(), func(tx *Tx) error {
			kept = tx
			tx.Send("/jobs", body("x"))
			fill(tx)
			return nil
		})
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, want) || e.Index != index || e.Queue != queue || kept.Stored() != nil {
			t.Errorf("%#v, want %v at %d of %q", err, want, index, queue)
		}
	}
	refused(ErrQueueFull, 1, "/out", func(tx *Tx) { tx.Send("/out", make([]Message, 4)...) })
	refused(ErrQueueNotFound, 1, "/none", func(tx *Tx) { tx.Send("none", body("y")) })
	refused(ErrStaleReceipt, 2, "", func(tx *Tx) { tx.Ack(d[0], &Delivery{Receipt: "1.1.9.9.x"}) })
	// These are wrong without asking.
	calls := f.batches
	refused(ErrInvalidArgument, 1, "/out", func(tx *Tx) { tx.Send("/out") })
	refused(ErrInvalidArgument, 1, "/out", func(tx *Tx) { tx.Send("out", body("y"), Message{DedupID: "\xff"}) })
	refused(ErrInvalidArgument, Whole, "/q", func(tx *Tx) { tx.Ack(&Delivery{Queue: "/q"}) })
	if f.batches != calls || len(f.bodies("/jobs")) != 1 {
		t.Errorf("%d calls, want %d", f.batches, calls)
	}
}

func TestATransactionWhoseAnswerWasLostIsDoneOnce_S9(t *testing.T) {
	f, c := startTwo(t, "a")
	f.setHooks(hooks{afterStore: func(n int) {
		if n <= 2 {
			f.cut()
		}
	}})
	var kept *Tx
	err := c.Transact(t.Context(), func(tx *Tx) error {
		kept = tx
		tx.Ack(receive(t, c, 1)...)
		tx.Send("/out", body("x"))
		return nil
	})
	if err != nil || len(kept.Stored()) != 1 || kept.Stored()[0].Sequence != 1 {
		t.Fatalf("%v, stored %v", err, kept.Stored())
	}
	if jobs, out := f.bodies("/jobs"), f.bodies("/out"); len(jobs) != 0 || !slices.Equal(out, []string{"x"}) || f.batches != 3 {
		t.Errorf("jobs %q, out %q, %d calls", jobs, out, f.batches)
	}
	// Its lane goes on.
	if err := c.Transact(t.Context(), func(tx *Tx) error { tx.Send("/out", body("y")); return nil }); err != nil {
		t.Error(err)
	}
	if c.lanes.made != 1 {
		t.Errorf("%d lanes, want 1", c.lanes.made)
	}
}

func TestAcksAloneWhoseAnswerWasLostAreUnknown_S9(t *testing.T) {
	f, c := startTwo(t, "a")
	f.setHooks(hooks{afterStore: func(n int) {
		if n == 1 {
			f.cut()
		}
	}})
	d := receive(t, c, 1)
	err := c.Transact(t.Context(), func(tx *Tx) error { tx.Ack(d...); return nil })
	if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrStaleReceipt) || len(f.bodies("/jobs")) != 0 {
		t.Errorf("%v, want ErrOutcomeUnknown because of ErrStaleReceipt", err)
	}
	// Stale at once is no question.
	err = c.Transact(t.Context(), func(tx *Tx) error { tx.Ack(d...); return nil })
	if errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrStaleReceipt) {
		t.Errorf("%v, want ErrStaleReceipt", err)
	}
}

func TestAcksAloneThatWereLostOnTheirWayAreDone_S9(t *testing.T) {
	f, c := startTwo(t, "a")
	f.setHooks(hooks{beforeStore: func(n int) error {
		if n == 1 {
			f.cut()
			return reason.New(reason.Internal, "nobody hears this")
		}
		return nil
	}})
	d := receive(t, c, 1)
	if err := c.Transact(t.Context(), func(tx *Tx) error { tx.Ack(d...); return nil }); err != nil || len(f.bodies("/jobs")) != 0 {
		t.Error(err)
	}
}

func TestAfterARestartATransactionsOutcomeIsUnknown_S9(t *testing.T) {
	f, c := startTwo(t)
	f.setHooks(hooks{afterStore: func(n int) {
		if n == 1 {
			go f.stopAndStart(t, "second")
			f.cut()
		}
	}})
	err := c.Transact(t.Context(), func(tx *Tx) error { tx.Send("/out", body("x")); return nil })
	if !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("%v, want ErrOutcomeUnknown", err)
	}
}

// UNHEALTHY is what the daemon says when the disk failed with the outcome on its way there.
func TestAnUnhealthyDaemonLeavesTheOutcomeOpen_S9(t *testing.T) {
	send := func(ctx context.Context, c *Client) error {
		_, err := c.Queue("/jobs").Send(ctx, body("a"))
		return err
	}
	for name, do := range map[string]func(context.Context, *Client) error{
		"send": send,
		"transact": func(ctx context.Context, c *Client) error {
			return c.Transact(ctx, func(tx *Tx) error { tx.Send("/jobs", body("a")); return nil })
		},
		"sender": func(ctx context.Context, c *Client) error {
			s, err := c.Queue("/jobs").Sender(ctx, SenderOptions{})
			if err != nil {
				return err
			}
			p, err := s.Send(ctx, body("a"))
			if err == nil {
				_, err = p.Wait(ctx)
			}
			_ = s.Close() // says the same
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t)
			c := f.dial(t)
			c.resendWindow = 0
			f.setHooks(hooks{beforeStore: func(int) error { return reason.New(reason.Unhealthy, "the disk failed") }})
			if err := do(t.Context(), c); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrUnhealthy) {
				t.Errorf("%v, want ErrOutcomeUnknown because of ErrUnhealthy", err)
			}
		})
	}
	t.Run("the next one knows", func(t *testing.T) {
		f := startFake(t)
		f.setHooks(hooks{beforeStore: func(n int) error {
			if n == 1 {
				return reason.New(reason.Unhealthy, "the disk failed")
			}
			return nil
		}})
		if err := send(t.Context(), f.dial(t)); err != nil {
			t.Error(err)
		}
	})
}

func TestAHandlerMayAckInATransaction(t *testing.T) {
	f, c := startTwo(t, "a", "b")
	ctx, stop := context.WithCancel(t.Context())
	var failures []error
	err := c.Queue("/jobs").Consume(ctx, func(ctx context.Context, d *Delivery) error {
		err := c.Transact(ctx, func(tx *Tx) error {
			tx.Send("/out", d.Message)
			tx.Ack(d)
			return nil
		})
		if string(d.Body) == "b" {
			stop()
			return errors.New("what it returns counts for nothing")
		}
		return err
	}, ConsumeOptions{Receipts: true, OnError: func(_ *Delivery, err error) { failures = append(failures, err) }})
	if err != nil || len(failures) > 0 {
		t.Errorf("%v, failures %v", err, failures)
	}
	if jobs, out := f.bodies("/jobs"), f.bodies("/out"); len(jobs) != 0 || !slices.Equal(out, []string{"a", "b"}) {
		t.Errorf("jobs %q, out %q", jobs, out)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.sawLocked("settlements"); n != 0 {
		t.Errorf("%d frames of settlements, want none", n)
	}
}
