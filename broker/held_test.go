package broker

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
)

func heapNow() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// What a tap that nobody reads holds, and what is counted of it.
func TestTapsHoldNoMoreThanIsCounted(t *testing.T) {
	w := &world{t, New(Options{}), t.Context()}
	defer w.Close()
	w.create("/q")
	const taps = 16
	for range taps {
		tap, err := w.Tap(w.ctx, alice, TapRequest{Queue: "/q"})
		w.must(err)
		defer tap.Close()
	}
	var headers []queue.Header
	for range 64 {
		headers = append(headers, queue.Header{Key: "k"})
	}
	all := make([]queue.Message, 4096)
	for i := range all {
		all[i] = queue.Message{Type: 1, Headers: headers}
	}
	before := heapNow()
	_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: all})
	w.must(err)
	grew := heapNow() - before
	counted := w.tapped.all[alice.Principal()].bytes.Load()
	if grew > 4*counted {
		t.Errorf("%d taps hold %d KiB each, counted are %d KiB each", taps, grew/taps>>10, counted/taps>>10)
	}
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
