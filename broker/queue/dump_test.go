package queue

import (
	"fmt"
	"strings"
)

// dump writes all of a queue that its records determine. Ids and producers that were to be forgotten
// by a time are left out: forgetting is not recorded.
func dump(q *Queue, idsBefore, producersBefore int64) string {
	var b strings.Builder
	stats := q.stats
	stats.Duplicates, stats.Peeked = 0, 0
	fmt.Fprintf(&b, "number %d next %d published %d paused %v\n%+v\n%+v\n", q.number, q.nextSeq, q.published, q.paused, q.settings, stats)
	eachSlot(q, func(n uint32, s *slot) {
		var d Delivery
		q.fill(&d, s, &bodyBuffer{}, 1, 0)
		var t timer
		if s.timer != 0 {
			t = *q.timers.at(s.timer)
		}
		why, lease := "", uint32(0)
		switch s.state {
		case Buried:
			if t.due != 0 {
				why, t.due = q.reasons.all[t.due].text, 0
			}
		case Leased:
			lease = s.left
		}
		fmt.Fprintf(&b, "%d %v delivery %d due %d expires %d lease %d charge %d why %q: %+v\n",
			s.seq, s.state, s.delivery, t.due, t.expires, lease, s.ref.charge(), why, d)
	})
	b.WriteString("order")
	q.scanReady(ReadyCursor{}, 0, q.published, 1<<40, func(n uint32, s *slot) bool {
		fmt.Fprintf(&b, " %d", s.seq)
		return true
	})
	b.WriteString("\nids")
	old := true
	for place := q.ids.start; place < q.ids.end; place++ {
		e := q.ids.entry(place)
		if old = old && e.at < idsBefore; !old {
			fmt.Fprintf(&b, " %x=%d@%d", e.digest[:4], e.seq, e.at)
		}
	}
	b.WriteString("\n")
	old = true
	for p := q.producers.oldest; p != nil; p = p.next {
		if old = old && p.sentAt < producersBefore; !old {
			fmt.Fprintf(&b, "producer %q %d %+v\n", p.id, p.sentAt, p.answers)
		}
	}
	return b.String()
}
