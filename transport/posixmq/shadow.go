package posixmq

import (
	"bytes"
	"slices"

	"github.com/ipcd/ipcd/broker/queue"
)

// held is a message that was put into a kernel queue.
type held struct {
	receipt  queue.Receipt
	priority uint16
	body     []byte // as it was put in, prefix included
}

// shadow is what was put into a kernel queue and is not known to have left it, in the order in which the
// kernel hands it out: highest priority first, then first in, first out (mq_overview(7)).
type shadow []held

// place returns where a message of the priority comes to stand.
func (s shadow) place(priority uint16) int {
	i, _ := slices.BinarySearchFunc(s, priority, func(h held, p uint16) int {
		if h.priority >= p {
			return -1
		}
		return 1
	})
	return i
}

// insert adds a message where it stands in the kernel queue, and returns that place.
func (s *shadow) insert(h held) int {
	p := s.place(h.priority)
	*s = slices.Insert(*s, p, h)
	return p
}

// put adds a message that was just put into the kernel queue; before, the kernel queue held all of s,
// and now it holds count messages. It returns what must have left meanwhile. known is false if that
// cannot be told, and then s holds everything that may be there still.
//
// k messages left, some before the new one went in at place p, the others after, and each was the first
// at its time. If k <= p the new one was never first, so the first k of s left. If all are gone there
// is nothing to tell apart. Otherwise either s[:k] left before the new one came, or the new one and
// s[:k-1] did, and the count is the same.
func (s *shadow) put(h held, count int) (left []held, known bool) {
	p := s.insert(h)
	k := len(*s) - count
	if k < 0 || p < k && k < len(*s) {
		return nil, false
	}
	return s.leave(k), true
}

// leave removes the first k and returns them.
func (s *shadow) leave(k int) []held {
	left := slices.Clone((*s)[:k])
	*s = slices.Delete(*s, 0, k)
	return left
}

// drained is a message as it was taken back out of a kernel queue.
type drained struct {
	priority uint16
	body     []byte
}

// match tells which of s are among all, everything that a drain brought out, in order; missing are
// those that had left before, and strangers those in all that are not of s. Both stand in the kernel's
// order, so one walk from the end finds the pairs. Of messages alike in priority and body the last ones
// are taken to be still there, since the first leave first.
func (s shadow) match(all []drained) (found, missing []held, strangers int) {
	met := make([]bool, len(s))
	end := len(s)
	for _, d := range slices.Backward(all) {
		i := end - 1
		for i >= 0 && s[i].priority <= d.priority && !(s[i].priority == d.priority && bytes.Equal(s[i].body, d.body)) {
			i--
		}
		if i < 0 || s[i].priority > d.priority {
			strangers++
			continue
		}
		met[i], end = true, i
	}
	for i, h := range s {
		if met[i] {
			found = append(found, h)
		} else {
			missing = append(missing, h)
		}
	}
	return found, missing, strangers
}

// receipts returns the receipts of all, nil if there are none.
func receipts(all []held) []queue.Receipt {
	if len(all) == 0 {
		return nil
	}
	r := make([]queue.Receipt, len(all))
	for i, h := range all {
		r[i] = h.receipt
	}
	return r
}
