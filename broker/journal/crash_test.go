package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ipcd/ipcd/internal/vfs"
)

// history is a journal's user that remembers what it was promised.
type history struct {
	rng   *rand.Rand
	key   uint64
	all   []stored // appended, in order
	acked int      // of all: durable
	freed int      // of all: may be gone
	j     *Journal
}

// step does something at random.
func (h *history) step() error {
	switch h.rng.IntN(10) {
	case 0, 1, 2, 3, 4:
		h.key++
		h.all = append(h.all, app(h.j, makeContent(h.rng, h.key, []int{50, 1500, 12000}[h.rng.IntN(3)])))
		return nil
	case 5, 6, 7:
		n := h.rng.IntN(len(h.all)-h.acked+1) + h.acked
		if n == h.acked {
			return nil
		}
		if err := h.j.Wait(background, h.all[n-1].number); err != nil {
			return err
		}
		h.acked = max(h.acked, n)
		return nil
	case 8:
		n := len(h.all)
		if err := h.j.Sync(); err != nil {
			return err
		}
		h.acked = n
		return nil
	default:
		return h.free()
	}
}

// free drops the oldest segment. Nothing of it is still needed.
func (h *history) free() error {
	segments := h.j.Segments()
	if len(segments) < 3 {
		return nil
	}
	for h.freed < len(h.all) && h.all[h.freed].number <= segments[0].LastNumber {
		h.freed++
	}
	n := len(h.all)
	if err := h.j.Free(segments[0].Generation); err != nil {
		return err
	}
	h.acked = n // the head frame was appended behind all of them
	return nil
}

// open recovers the journal and holds it against what was promised.
func (h *history) open(o Options) error {
	var found []stored
	j, err := Open(o, collect(&found))
	if err != nil {
		return err
	}
	h.j = j
	first := 0
	if len(found) > 0 {
		for first < len(h.all) && h.all[first].number < found[0].number {
			first++
		}
	} else {
		first = len(h.all)
		if h.acked > h.freed {
			return fmt.Errorf("nothing is left of %d frames, %d acknowledged, %d freed", len(h.all), h.acked, h.freed)
		}
	}
	if first > h.freed && len(found) > 0 {
		return fmt.Errorf("begins with frame %d, want at the latest %d", first, h.freed)
	}
	if len(found) > 0 && first+len(found) < h.acked {
		return fmt.Errorf("ends after %d frames, %d were acknowledged", first+len(found), h.acked)
	}
	if first+len(found) > len(h.all) {
		return fmt.Errorf("%d frames, only %d were appended", first+len(found), len(h.all))
	}
	if err := sameFrames(found, h.all[first:first+len(found)]); err != nil {
		return err
	}
	if err := readBack(j, found); err != nil {
		return err
	}
	h.all, h.acked, h.freed = found, len(found), 0
	return nil
}

// A crash during any operation loses no acknowledged frame, leaves no gap, and may strike again while recovering.
func TestNoCrashLosesWhatWasAcknowledged(t *testing.T) {
	const seeds = 5
	for seed := range uint64(seeds) {
		for at := 1; ; at++ {
			crashed, err := crashRun(seed, at)
			if err != nil {
				t.Fatalf("seed %d, crash at operation %d: %v", seed, at, err)
			}
			if !crashed {
				break
			}
		}
	}
}

func crashRun(seed uint64, at int) (crashed bool, err error) {
	h := &history{rng: random(seed)}
	fs := vfs.NewCrash(random(seed + 1000))
	fs.CrashAfter(at)
	if err = h.open(small(fs)); err == nil {
		for range 150 {
			if err = h.step(); err != nil {
				break
			}
		}
		if err == nil {
			err = h.j.Close()
		}
	}
	if err != nil && !errors.Is(err, vfs.ErrCrashed) {
		return false, err
	}
	crashed = err != nil
	crash := random(seed*100_003 + uint64(at))
	fs = fs.Crash(crash)
	for {
		again := crash.IntN(3) == 0
		if again {
			fs.CrashAfter(1 + crash.IntN(25))
		}
		err := h.open(small(fs))
		if err == nil && !again {
			break
		}
		if err != nil && (!again || !errors.Is(err, vfs.ErrCrashed)) {
			return false, err
		}
		fs = fs.Crash(crash)
	}
	for range 20 {
		if err := h.step(); err != nil {
			return false, fmt.Errorf("after recovery: %w", err)
		}
	}
	if err := h.j.Close(); err != nil {
		return false, err
	}
	if err := h.open(small(fs)); err != nil {
		return false, err
	}
	return crashed, h.j.Close()
}

// Many crashes in a row, with runs that leave torn tails behind each other.
func TestManyCrashesInARowLoseNothing(t *testing.T) {
	for seed := range uint64(50) {
		if err := crashOften(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func crashOften(seed uint64) error {
	h := &history{rng: random(seed)}
	fs := vfs.NewCrash(random(seed + 5000))
	for round := range 30 {
		fs.CrashAfter(1 + h.rng.IntN(120))
		err := h.open(small(fs))
		for err == nil {
			err = h.step()
		}
		if !errors.Is(err, vfs.ErrCrashed) {
			return fmt.Errorf("round %d: %w", round, err)
		}
		fs = fs.Crash(h.rng)
	}
	if err := h.open(small(fs)); err != nil {
		return err
	}
	return h.j.Close()
}
