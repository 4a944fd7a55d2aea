package queue

import (
	"fmt"
	"strings"
)

// dump writes all of a queue that its records determine. Ids and producers of before a time, which may
// have been forgotten, are left out: forgetting is not recorded.
func dump(q *Queue, t *tape, idsBefore, producersBefore int64) string {
	var b strings.Builder
	stats := q.stats
	stats.Duplicates, stats.Peeked = 0, 0
	fmt.Fprintf(&b, "%s %d epoch %d secret %d number %d next %d published %d reserved %d live bytes %d paused %v\n%+v\n%+v\n",
		q.name, q.CreatedAt, q.epoch, q.secret, q.number, q.nextSeq, q.published, q.reserved, q.liveBytes, q.paused, q.settings, stats)
	fmt.Fprintf(&b, "schemas %+v %d %d\n", q.schemas.all, q.schemas.last, q.schemas.bytes)
	eachSlot(q, func(n uint32, s *slot) {
		payload, ok := q.payload(s)
		if !ok {
			payload = t.payloads[s.ref.place()]
		}
		var d Delivery
		q.fill(&d, s, payload, &bodyBuffer{}, 1, 0)
		due, why, lease := q.dueOf(s), "", uint32(0)
		switch s.state {
		case Buried:
			if due != 0 {
				why, due = q.reasons.all[due].text, 0
			}
		case Leased:
			lease = s.left
		}
		fmt.Fprintf(&b, "%d %v delivery %d due %d expires %d lease %d charge %d damaged %v why %q: %+v\n",
			s.seq, s.state, s.delivery, due, q.expiresOf(s), lease, s.ref.charge(), s.flags&flagDamaged != 0, why, normal(d))
	})
	b.WriteString("order")
	q.scanReady(ReadyCursor{}, 0, q.published, 1<<40, func(n uint32, s *slot) bool {
		fmt.Fprintf(&b, " %d", s.seq)
		return true
	})
	b.WriteString("\nids")
	for place := q.ids.start; place < q.ids.end; place++ {
		if e := q.ids.entry(place); e.at >= idsBefore {
			fmt.Fprintf(&b, " %x=%d@%d", e.digest[:4], e.seq, e.at)
		}
	}
	b.WriteString("\n")
	for p := q.producers.oldest; p != nil; p = p.next {
		if p.sentAt >= producersBefore {
			fmt.Fprintf(&b, "producer %q %d %d:", p.id, p.sentAt, p.sentIn)
			for _, a := range p.answers {
				if a.stored.SentAt >= producersBefore {
					fmt.Fprintf(&b, " %+v", a)
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
