package queue

import "math/bits"

const (
	wheelLevels = 7  // 64^7 ticks are 146 years
	tickBits    = 20 // a tick is 2^20 ns, about a millisecond
	wheelEnd    = 1<<(6*wheelLevels) - 1
)

// wheel keeps slots by deadline: a hierarchical timing wheel (Varghese and Lauck, 1987). Level 0 has a
// bucket for each of the next 64 ticks, level 1 one for each 64 ticks, and so on. A slot stands at the
// level of the highest group of 6 bits in which its tick differs from now, so that its bucket can be
// told from its deadline at any time.
type wheel struct {
	now      uint64 // tick up to which all is done
	occupied [wheelLevels]uint64
	heads    [wheelLevels][64]uint32
	count    int
	stalled  bool // what is due waits for payloads to be read, see Missing
}

// tickOf rounds up: nothing is early.
func tickOf(ns int64) uint64 {
	if ns <= 0 {
		return 0
	}
	return min((uint64(ns)+1<<tickBits-1)>>tickBits, wheelEnd)
}

// bucket tells where a deadline stands.
func (w *wheel) bucket(tick uint64) (level, place int) {
	tick = max(tick, w.now)
	if diff := tick ^ w.now; diff != 0 {
		level = (bits.Len64(diff) - 1) / 6
	}
	return level, int(tick >> (6 * level) & 63)
}

// wheelInsert makes a slot a member of a wheel. While a queue is loaded there are none.
func (q *Queue) wheelInsert(w *wheel, n uint32, deadline int64) {
	if q.loading != nil {
		return
	}
	level, place := w.bucket(tickOf(deadline))
	head := &w.heads[level][place]
	t := q.timerOf(n)
	t.prev, t.next = 0, *head
	if *head != 0 {
		q.timerOf(*head).prev = n
	}
	*head = n
	w.occupied[level] |= 1 << place
	w.count++
	q.rescheduled = true
}

func (q *Queue) wheelRemove(w *wheel, n uint32, deadline int64) {
	if q.loading != nil {
		return
	}
	t := q.timerOf(n)
	if t.next != 0 {
		q.timerOf(t.next).prev = t.prev
	}
	if t.prev != 0 {
		q.timerOf(t.prev).next = t.next
	} else {
		level, place := w.bucket(tickOf(deadline))
		w.heads[level][place] = t.next
		if t.next == 0 {
			w.occupied[level] &^= 1 << place
		}
	}
	t.next, t.prev = 0, 0
	w.count--
}

// earliest is the first tick at which something may be due; ok is false if the wheel is empty.
func (w *wheel) earliest() (tick uint64, level int, ok bool) {
	for level := range wheelLevels {
		position := w.now >> (6 * level) & 63
		if level > 0 {
			position++ // its own bucket was spread over the levels below
		}
		if position > 63 {
			continue
		}
		if ahead := w.occupied[level] >> position << position; ahead != 0 {
			place := uint64(bits.TrailingZeros64(ahead))
			above := w.now >> (6 * (level + 1)) << (6 * (level + 1))
			return above | place<<(6*level), level, true
		}
	}
	return 0, 0, false
}

// wheelDue moves the wheel on to now (ns), or to the first bucket before it that holds something, and
// appends up to limit slots of that bucket to due. They stay members of the wheel: the caller makes each
// leave it and asks again.
func (q *Queue) wheelDue(w *wheel, now int64, limit int, deadline func(n uint32) int64, due []uint32) []uint32 {
	to := min(uint64(max(now, 0))>>tickBits, wheelEnd)
	for {
		tick, level, ok := w.earliest()
		if !ok || tick > to {
			w.now = max(w.now, to)
			return due
		}
		w.now = max(w.now, tick)
		place := int(tick >> (6 * level) & 63)
		n := w.heads[level][place]
		if level == 0 {
			for ; n != 0 && len(due) < limit; n = q.timerOf(n).next {
				due = append(due, n)
			}
			return due
		}
		// Spread the bucket over the levels below.
		w.heads[level][place] = 0
		w.occupied[level] &^= 1 << place
		for n != 0 {
			next := q.timerOf(n).next
			w.count--
			q.wheelInsert(w, n, deadline(n))
			n = next
		}
	}
}

// wheelRewind sets the wheel back to now (ns), after the clock was: rare, and it visits all.
func (q *Queue) wheelRewind(w *wheel, now int64, deadline func(n uint32) int64) {
	var all []uint32
	q.wheelEach(w, func(n uint32) { all = append(all, n) })
	*w = wheel{now: uint64(max(now, 0)) >> tickBits}
	for _, n := range all {
		q.wheelInsert(w, n, deadline(n))
	}
}

// wheelEach visits all slots of the wheel, in no order.
func (q *Queue) wheelEach(w *wheel, visit func(n uint32)) {
	for level := range w.heads {
		for _, n := range w.heads[level] {
			for n != 0 {
				next := q.timerOf(n).next
				visit(n)
				n = next
			}
		}
	}
}
