//go:build linux

package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// invoicer is a process of demo/exactlyonce.
type invoicer struct {
	cmd *exec.Cmd
	log *logBuffer
}

func startInvoicer(t *testing.T, h *home) *invoicer {
	t.Helper()
	p := &invoicer{exec.Command(filepath.Join(bin, "exactlyonce")), new(logBuffer)}
	p.cmd.Env = environment("IPCD_ADDRESS=" + h.socket)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the program says:\n%s", p.log)
		}
	})
	return p
}

func (p *invoicer) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// TestOneInvoicePerOrderWhateverIsKilled kills the daemon, the program, or both, while orders come in.
func TestOneInvoicePerOrderWhateverIsKilled(t *testing.T) {
	const rounds, ordersARound = 24, 40
	seed := number(t, seedVariable, rand.Uint64())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	h := newHome(t, smallSegments...)
	d := h.start()
	c := h.dial()
	// The lease is what a killed program's orders wait for.
	orders := create(t, c, "/orders", func(s *client.QueueSettings) { s.Lease = 300 * time.Millisecond })
	invoices := create(t, c, "/invoices")
	p := startInvoicer(t, h)
	progress := 0 // rounds that ended with more invoices than they began with
	var had int64
	for round := range rounds {
		ended := make(chan error, 1)
		go func() {
			for i := range ordersARound {
				if err := order(t, orders, fmt.Sprintf("order %d", round*ordersARound+i)); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
		pause(nil, time.Duration(50+rng.IntN(250))*time.Millisecond)
		what := rng.IntN(3)
		if what != 0 {
			p.kill()
		}
		if what != 1 {
			d.kill()
			d = h.start()
		}
		if what != 0 {
			p = startInvoicer(t, h)
		}
		if err := <-ended; err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		info, err := invoices.Info(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if n := info.Stats.Messages(); n > had {
			had = n
			progress++
		}
	}
	eventually(t, "all orders are done", func() bool {
		info, err := orders.Info(within(t))
		if err != nil || info.Stats.Messages() != 0 {
			return false
		}
		info, err = invoices.Info(within(t)) // what was decided may not be on disk, and so not be seen, yet
		return err == nil && info.Stats.Uncommitted == 0
	})
	p.kill()
	got := map[string]int{}
	for m, err := range invoices.Peek(within(t), client.PeekOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got[string(m.Body)]++
	}
	for i := range rounds * ordersARound {
		invoice := fmt.Sprintf("invoice for order %d", i)
		if n := got[invoice]; n != 1 {
			t.Errorf("seed %d: %q is there %d times, want once", seed, invoice, n)
		}
		delete(got, invoice)
	}
	if len(got) > 0 {
		t.Errorf("seed %d: invoices for nothing: %v", seed, got)
	}
	if progress < rounds/3 {
		t.Errorf("seed %d: only %d of %d rounds had any invoices written: nothing was under way to be killed", seed, progress, rounds)
	}
	d.stop()
	h.clean()
}

// order places an order, once: its dedup id lets it be sent until the daemon says that it has it.
func order(t *testing.T, q *client.Queue, text string) error {
	ctx := within(t)
	for {
		_, err := q.Send(ctx, client.Message{Body: []byte(text), DedupID: text})
		if err == nil || ctx.Err() != nil || !transient(err) {
			return errors.Join(err, ctx.Err())
		}
		time.Sleep(5 * time.Millisecond)
	}
}
