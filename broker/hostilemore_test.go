package broker

import (
	"fmt"
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/quota"
)

// Default segment size: one Settle of 65536 buries with reasons of their own.
func TestBuryReasonsFitFrames(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		w.create("/q")
		var all []Settlement
		for range 4 {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: func() (m []queue.Message) {
				for range 16384 {
					m = append(m, queue.Message{Type: 1})
				}
				return m
			}()})
			w.must(err)
			for _, got := range w.receive("/q", 16384) {
				all = append(all, Settlement{Receipt: got.Receipt, Verdict: Verdict{Outcome: Bury, Reason: fmt.Sprintf("%256d", len(all))}})
			}
		}
		_, err := w.Settle(w.ctx, alice, all)
		w.alive(fmt.Sprintf("a settle of %d", len(all)))
		t.Log(err)
	})
}

// A copy that there is quota for is not skipped.
func TestSpareCopiesAreChargedOnce(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.QueuedBytes: 130}), func(w *world) {
		w.create("/src")
		w.create("/to")
		w.bind("/src", "/to", skip)
		body := make([]byte, 40)
		_, err := w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{
			{Queue: "/src", Messages: []queue.Message{{Type: 1, Body: body}}},
			{Queue: "/to", Messages: []queue.Message{{Type: 1, Body: body}}},
		}})
		w.must(err)
		if s := w.bindStatus("/src", "/to"); s.Skipped != 0 {
			t.Errorf("120 of 130 bytes would be used, and the copy was skipped: %s", s.Problem)
		}
	})
}

// What reasons take is counted.
func TestReasonsOfImportsAreCounted(t *testing.T) {
	w := &world{t, New(Options{}), t.Context()}
	defer w.Close()
	w.create("/q")
	before := heapNow()
	for k := range 8 {
		all := make([]queue.Peeked, 4096)
		for i := range all {
			all[i] = queue.Peeked{State: queue.Buried, BuryReason: fmt.Sprintf("%1024d", k*4096+i)}
			all[i].Type = 1
		}
		_, err := w.Import(w.ctx, alice, ImportRequest{Queue: "/q", Messages: all})
		w.must(err)
	}
	grew := heapNow() - before
	t.Logf("%d messages hold %d KiB; totals.memory says %d KiB, the quota %d bytes", w.stats("/q").Buried, grew>>10, w.totals.memory.Load()>>10, w.stats("/q").Bytes)
	if grew > 4*w.totals.memory.Load() {
		t.Error("neither max_memory nor the quota knows of the reasons")
	}
}

// A copy that may be skipped does not keep a large message from its own queue.
func TestSkippedCopiesDoNotMakeASendTooLarge(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start() // segments of 64 KiB
		defer w.Close()
		w.create("/src")
		w.create("/to")
		m := []queue.Message{{Type: 1, Body: make([]byte, 30<<10)}}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: m})
		w.must(err)
		w.bind("/src", "/to", skip)
		if _, err = w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: m}); err != nil {
			t.Errorf("with a bind that skips: %v", err)
		}
	})
}

// Default segment size: dead letters whose bytes are in headers are never cut.
func TestDeadLettersWithHeadersFitFrames(t *testing.T) {
	onDisk(t, func(d *disk) {
		d.o.Journal.SegmentBytes = 32 << 20
		w := d.start()
		defer w.Close()
		w.create("/dead")
		w.create("/q", func(s *queue.Settings) { s.DeadLetter = "/dead"; s.MaxAttempts = 1 })
		var all []Settlement
		for range 2 {
			m := make([]queue.Message, 300)
			for i := range m {
				m[i] = queue.Message{Type: 1, Headers: []queue.Header{{Key: "k", Value: make([]byte, 60<<10)}}}
			}
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: m})
			w.must(err)
			for _, got := range w.receive("/q", 300) {
				all = append(all, Settlement{Receipt: got.Receipt, Verdict: Verdict{Outcome: Nack}})
			}
		}
		_, err := w.Settle(w.ctx, alice, all)
		w.alive(fmt.Sprintf("a settle of %d", len(all)))
		t.Log(err, w.stats("/dead").Ready)
	})
}
