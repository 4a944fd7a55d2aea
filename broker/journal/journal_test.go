package journal

import (
	"testing"

	"github.com/ipcd/ipcd/internal/vfs"
)

func TestFramesComeBackInOrder(t *testing.T) {
	fs := vfs.NewCrash(random(1))
	o := small(fs)
	j, found := mustOpen(t, o)
	if len(found) != 0 {
		t.Fatalf("a new journal has %d frames", len(found))
	}
	rng := random(2)
	var want []stored
	for round := range 5 {
		for range 100 {
			want = append(want, app(j, makeContent(rng, uint64(len(want)), 2000)))
			if rng.IntN(3) == 0 {
				must(t, j.Wait(background, j.Appended()))
			}
			must(t, readBack(j, want[max(0, len(want)-20):]))
		}
		must(t, j.Sync())
		must(t, readBack(j, want))
		must(t, j.Close())
		j, found = mustOpen(t, o)
		if err := sameFrames(found, want); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		must(t, readBack(j, want))
	}
	if s := j.Stats(); s.Segments < 5 {
		t.Errorf("%d segments, too few to have tried the passage from one to the next", s.Segments)
	}
	must(t, j.Close())
}
