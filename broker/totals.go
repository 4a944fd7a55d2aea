package broker

import "sync/atomic"

// totals is what a queue, or all queues, take.
type totals struct {
	memory   int64 // bytes in memory: payloads and what is kept of each message
	payloads int64 // bytes of payloads in memory
	live     int64 // bytes in the journal that are needed
}

type sharedTotals struct{ memory, payloads, live atomic.Int64 }

const (
	messageMemory = 64      // bytes in memory that a message takes beside its payload
	baseBytes     = 512     // bytes in the journal that a queue's definition takes, about
	idBytes       = 40      // and a dedup id
	countStep     = 4 << 10 // bytes by which a queue may have changed before it is counted again
)

// countLocked brings the broker's totals up to date, if the queue has changed enough.
func (s *served) countLocked() {
	now := totals{payloads: s.q.ResidentBytes()}
	now.memory = now.payloads + s.q.Len()*messageMemory + s.q.SchemaBytes() + s.q.ReasonBytes()
	if s.durable {
		now.live = s.q.LiveBytes() + baseBytes + s.q.IDs()*idBytes
	}
	if s.b.journal != nil && !s.temporary {
		now.live += s.q.SchemaBytes()
	}
	if near(now.memory, s.counted.memory) && near(now.live, s.counted.live) || s.deleted {
		return
	}
	s.countAs(now)
}

func near(a, b int64) bool { return a != 0 && a-b < countStep && b-a < countStep || a == b }

// uncountLocked takes the queue out of the totals: it is deleted.
func (s *served) uncountLocked() { s.countAs(totals{}) }

func (s *served) countAs(now totals) {
	t := &s.b.totals
	t.memory.Add(now.memory - s.counted.memory)
	t.payloads.Add(now.payloads - s.counted.payloads)
	t.live.Add(now.live - s.counted.live)
	s.counted = now
}
