//go:build linux

package crash

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/checker"
)

// cyclesVariable lengthens TestKilledDaemonKeepsItsPromises; seedVariable repeats one.
const (
	cyclesVariable = "IPCD_CRASH_CYCLES"
	seedVariable   = "IPCD_CRASH_SEED"
)

// number reads a variable of the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, text, err)
	}
	return n
}

func TestKilledDaemonKeepsItsPromises(t *testing.T) {
	cycles := int(number(t, cyclesVariable, 50))
	seed := number(t, seedVariable, rand.Uint64())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	h := newHome(t, append([]string{"stop_timeout: 500ms"}, smallSegments...)...)
	d := h.start()
	l := startLoad(t, h, seed)
	for cycle := 1; cycle <= cycles; cycle++ {
		pause(nil, time.Duration(50+rng.IntN(350))*time.Millisecond)
		l.checker.Crashing()
		if cycle%10 == 5 {
			d.stop() // in good order, once in a while
		} else {
			d.kill()
		}
		l.checker.Crashed()
		if cycle%10 == 0 {
			h.clean()
		}
		d = h.start()
		if t.Failed() || l.checker.Broke() {
			t.Errorf("seed %d: broken in cycle %d", seed, cycle)
			break
		}
	}
	l.StopSending()
	l.Drain()
	l.Check(checker.Counts{
		Batches: 20 * cycles, Acked: 30 * cycles, Delivered: 30 * cycles, Consumed: 15 * cycles, Settled: 15 * cycles,
		Redelivered: cycles, Unknown: 1, Duplicates: 1, Transactions: 1 * cycles, Crashes: cycles,
	})
	if used, sent := bytesOf(t, h.journal()), l.bytes.Load(); sent < 2*used && cycles >= 50 {
		t.Errorf("seed %d: %d bytes were sent and the journal has %d: its segments did not go round", seed, sent, used)
	}
	d.stop()
	h.clean()
}

// bytesOf is how many bytes the files of a directory have.
func bytesOf(t *testing.T, dir string) (total int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}
