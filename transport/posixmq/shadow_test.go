package posixmq

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/ipcd/ipcd/broker/queue"
)

func sequences(all []held) (s []uint64) {
	for _, h := range all {
		s = append(s, h.receipt.Sequence)
	}
	return s
}

// Natives receive before and after each put, unseen. Whatever put says has left has left, and it only
// gives up when the count fits another story as well.
func TestPutTellsOnlyWhatHasLeft_S30(t *testing.T) {
	doubts := 0
	rapid.Check(t, func(t *rapid.T) {
		var known, kernel shadow
		priorities := rapid.IntRange(0, 4)
		for i := range rapid.IntRange(1, 20).Draw(t, "puts") {
			h := held{receipt: queue.Receipt{Sequence: uint64(i)}, priority: uint16(priorities.Draw(t, "priority"))}
			before := slices.Clone(known)
			early := rapid.IntRange(0, len(kernel)).Draw(t, "early")
			gone := kernel.leave(early)
			place := kernel.place(h.priority)
			kernel = slices.Insert(kernel, place, h)
			late := rapid.IntRange(0, len(kernel)).Draw(t, "late")
			gone = append(gone, kernel.leave(late)...)

			left, sure := known.put(h, len(kernel))
			if !sure {
				doubts++
				if k := early + late; k <= before.place(h.priority) || len(kernel) == 0 {
					t.Fatalf("gave up on %d gone of %d, place %d", k, len(before)+1, before.place(h.priority))
				}
				known = slices.Clone(kernel) // as after a drain
				continue
			}
			a, b := sequences(left), sequences(gone)
			slices.Sort(a)
			slices.Sort(b)
			if !slices.Equal(a, b) {
				t.Fatalf("says %v left; it was %v", a, b)
			}
			if !slices.Equal(sequences(known), sequences(kernel)) {
				t.Fatalf("shadow %v, kernel %v", sequences(known), sequences(kernel))
			}
		}
	})
	if doubts == 0 {
		t.Error("no doubtful case was met")
	}
}

func TestCountBelowZeroIsDoubtful_S30(t *testing.T) {
	var s shadow
	if _, known := s.put(held{}, 2); known {
		t.Error("one message was put in, two are there: somebody else's must be among them")
	}
}

// What a drain brings out is told from what had left, with strangers in between.
func TestMatchFindsWhatIsStillThere_S30(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s shadow
		for i := range rapid.IntRange(0, 12).Draw(t, "messages") {
			s.insert(held{
				receipt:  queue.Receipt{Sequence: uint64(i)},
				priority: uint16(rapid.IntRange(0, 2).Draw(t, "priority")),
				body:     fmt.Appendf(nil, "%d", rapid.IntRange(0, 2).Draw(t, "body")),
			})
		}
		gone := rapid.IntRange(0, len(s)).Draw(t, "gone")
		var all []drained
		strangers := 0
		for _, h := range s[gone:] {
			if rapid.Bool().Draw(t, "stranger") {
				all = append(all, drained{h.priority, []byte("stranger")})
				strangers++
			}
			all = append(all, drained{h.priority, h.body})
		}
		found, missing, n := s.match(all)
		if !slices.Equal(sequences(found), sequences(s[gone:])) || !slices.Equal(sequences(missing), sequences(s[:gone])) || n != strangers {
			t.Fatalf("of %v, %d gone: found %v, missing %v, %d strangers; want %d", sequences(s), gone, sequences(found), sequences(missing), n, strangers)
		}
	})
}
