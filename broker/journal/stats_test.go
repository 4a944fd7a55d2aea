package journal

import (
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/vfs"
)

func TestSyncsAreCountedByHowLongTheyTook(t *testing.T) {
	var times SyncTimes
	for i, bound := range SyncBounds {
		if i > 0 && bound <= SyncBounds[i-1] {
			t.Fatalf("bound %v does not rise", bound)
		}
		times.count(bound)     // still in its class
		times.count(bound + 1) // in the next
	}
	times.count(time.Hour)
	for i, n := range times {
		want := uint64(2)
		if i == 0 {
			want = 1
		}
		if n != want {
			t.Errorf("class %d has %d syncs instead of %d", i, n, want)
		}
	}
}

func TestEverySyncOfACommitIsInTheHistogram(t *testing.T) {
	o := small(vfs.NewCrash(random(1)))
	j, err := Open(o, func(Entry) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for key := range uint64(5) {
		app(j, content{key: key})
		if err := j.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	s, all := j.Stats(), uint64(0)
	for _, n := range s.SyncTimes {
		all += n
	}
	if s.Syncs < 5 || all != uint64(s.Syncs) {
		t.Errorf("%d syncs are in the histogram, of %d", all, s.Syncs)
	}
}
