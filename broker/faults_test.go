package broker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// ledger is what a run was told, by body.
type ledger struct {
	sent, maybeSent, acked, maybeAcked map[string]bool
}

// workload sends and acks messages, so much that segments fill and are given up, until something fails. It
// notes what was confirmed and what may have happened.
func workload(w *world, l *ledger) error {
	_, _, err := w.CreateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Lease = time.Hour; return nil }, false)
	for i := 0; i < 50 && err == nil; i++ {
		body := fmt.Sprintf("%d %s", i, strings.Repeat("f", 5000))
		l.maybeSent[body] = true
		if _, err = w.trySend("/q", body); err != nil {
			break
		}
		l.sent[body] = true
		if i%8 == 0 {
			continue
		}
		var got []queue.Delivery
		if got, err = w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Max: 1}); err != nil || len(got) == 0 {
			break
		}
		l.maybeAcked[string(got[0].Body)] = true
		if _, err = w.Settle(w.ctx, alice, []Settlement{{Receipt: got[0].Receipt}}); err == nil {
			l.acked[string(got[0].Body)] = true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// TestEveryOperationMayFailOnce_S25 lets each operation on the file system fail, in each of several ways, once or
// from then on. Nothing that was confirmed is lost, whether the kernel lives on or the power goes.
func TestEveryOperationMayFailOnce_S25(t *testing.T) {
	faults := map[string]func(n int64) func(vfs.Op) vfs.Verdict{
		"EIO once":     func(n int64) func(vfs.Op) vfs.Verdict { return vfs.FailNth(n, syscall.EIO, false) },
		"EIO for ever": func(n int64) func(vfs.Op) vfs.Verdict { return vfs.FailNth(n, syscall.EIO, true) },
		"ENOSPC once":  func(n int64) func(vfs.Op) vfs.Verdict { return vfs.FailNth(n, syscall.ENOSPC, false) },
		"short write": func(n int64) func(vfs.Op) vfs.Verdict {
			return func(op vfs.Op) vfs.Verdict {
				if op.Index == n && op.Kind == vfs.OpWrite {
					return vfs.ShortWrite(100, nil)
				}
				return vfs.Pass()
			}
		},
	}
	operations := int64(0)
	failures, survived := 0, 0
	run := func(t *testing.T, hook func(vfs.Op) vfs.Verdict, n int64) {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{T: t, fs: vfs.NewCrash(rand.New(rand.NewPCG(uint64(n), 1)))}
			fault := vfs.NewFault(d.fs, hook)
			d.o.Journal = &JournalOptions{FS: fault, Dir: "/state/journal", SegmentBytes: 64 << 10}
			l := &ledger{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
			b, err := Open(d.o)
			if err == nil {
				w := &world{t, b, t.Context()}
				if err = workload(w, l); err == nil {
					survived++
				} else if r := reason.Of(err); r != reason.Unhealthy && r != reason.DiskFull {
					t.Errorf("it fails with %v", err)
				}
				if err != nil {
					failures++
				}
				operations = max(operations, fault.Ops())
				d.fs = d.fs.CrashWith([]vfs.Outcome{vfs.NoneLost, vfs.AllLost, vfs.SomeLost}[n%3], rand.New(rand.NewPCG(uint64(n), 2)))
				w.Close()
			}
			d.check(l)
		})
	}
	run(t, func(vfs.Op) vfs.Verdict { return vfs.Pass() }, 0)
	if survived != 1 {
		t.Fatal("it fails without a fault")
	}
	total := operations
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for n := int64(1); n <= total; n++ {
				if testing.Short() && n%7 != 0 {
					continue
				}
				if !t.Run(fmt.Sprint(n), func(t *testing.T) { run(t, fault(n), n) }) {
					return
				}
			}
		})
	}
	t.Logf("%d operations; %d runs failed, %d did not", total, failures, survived)
	if total < 100 || failures < 100 {
		t.Errorf("too little happened: %d operations, %d runs failed", total, failures)
	}
}

// check opens what is on disk, without faults, and holds it against what was confirmed.
func (d *disk) check(l *ledger) {
	d.Helper()
	if found, err := Inspect(d.Context(), InspectOptions{FS: d.fs, Dir: d.o.Journal.Dir, Verify: true}); err == nil && found.DamageError() != nil {
		d.Errorf("fsck: %v", found.DamageError())
	}
	w := d.start()
	defer w.Close()
	there := map[string]bool{}
	if w.HasQueue("/q") {
		for {
			got := w.receive("/q", 1000)
			if len(got) == 0 {
				break
			}
			for i := range got {
				body := string(got[i].Body)
				if there[body] || !l.maybeSent[body] || l.acked[body] {
					d.Errorf("message %.5s: there already %v, sent %v, acked %v", body, there[body], l.maybeSent[body], l.acked[body])
				}
				there[body] = true
			}
		}
	}
	for body := range l.sent {
		if !there[body] && !l.maybeAcked[body] {
			d.Errorf("message %.5s was acknowledged and is lost", body)
		}
	}
}
