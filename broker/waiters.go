package broker

import (
	"container/heap"

	"github.com/ipcd/ipcd/broker/queue"
)

// waiters are those who wait for messages. Who wants exactly one type stands in a line of that type, the
// others in one of their own: a message is not held against everybody whom it does not concern. Tickets
// make one order of all lines.
type waiters struct {
	byType  map[int64]*line[*receiver]
	others  line[*receiver]
	len     int
	tickets uint64
	heads   fronts // scratch
}

// push puts a receiver at the back.
func (w *waiters) push(n *waiting[*receiver]) {
	l := &w.others
	if sel := n.value.selector(); sel.Kind == queue.TypeIs {
		if l = w.byType[sel.Type]; l == nil {
			l = new(line[*receiver])
			if w.byType == nil {
				w.byType = map[int64]*line[*receiver]{}
			}
			w.byType[sel.Type] = l
		}
	}
	w.tickets++
	n.ticket = w.tickets
	l.push(n)
	w.len++
}

// remove takes a receiver out, if it is in.
func (w *waiters) remove(n *waiting[*receiver]) {
	if !n.in {
		return
	}
	w.len--
	sel := n.value.selector()
	if sel.Kind != queue.TypeIs {
		w.others.remove(n)
		return
	}
	l := w.byType[sel.Type]
	l.remove(n)
	if l.len == 0 {
		delete(w.byType, sel.Type)
	}
}

// each visits all; visit may remove the one it is at.
func (w *waiters) each(visit func(n *waiting[*receiver])) {
	walk := func(l *line[*receiver]) {
		for n := l.first(); n != nil; {
			next := n.next
			visit(n)
			n = next
		}
	}
	for _, l := range w.byType {
		walk(l)
	}
	walk(&w.others)
}

// candidates returns the first of each line for which the queue may have something.
func (w *waiters) candidates(q *queue.Queue) *fronts {
	w.heads = w.heads[:0]
	if len(w.byType) <= q.Types() {
		for typ, l := range w.byType {
			if q.HasReady(typ) {
				w.heads = append(w.heads, l.first())
			}
		}
	} else {
		q.EachReadyType(func(typ int64) {
			if l := w.byType[typ]; l != nil {
				w.heads = append(w.heads, l.first())
			}
		})
	}
	if n := w.others.first(); n != nil {
		w.heads = append(w.heads, n)
	}
	heap.Init(&w.heads)
	return &w.heads
}

// fronts is a heap of receivers in different lines, by ticket.
type fronts []*waiting[*receiver]

func (f fronts) Len() int           { return len(f) }
func (f fronts) Less(i, j int) bool { return f[i].ticket < f[j].ticket }
func (f fronts) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }

// Push is for heap.Interface.
func (f *fronts) Push(n any) { *f = append(*f, n.(*waiting[*receiver])) }

// Pop is for heap.Interface.
func (f *fronts) Pop() any {
	last := len(*f) - 1
	n := (*f)[last]
	(*f)[last] = nil
	*f = (*f)[:last]
	return n
}

// serveReceiversLocked hands ready messages to those who wait, each in turn as long as there is
// something for somebody.
func (s *served) serveReceiversLocked(now queue.Instant) {
	if s.b.stopping.Load() {
		return
	}
	for s.q.ReadyLen() > 0 && !s.q.Paused() && s.receivers.len > 0 {
		if !s.serveRoundLocked(now) {
			return
		}
	}
}

// serveRoundLocked gives everybody who waits one turn, in order, and reports whether somebody got
// something. Who goes to the back meanwhile has a later ticket and waits for the next round.
func (s *served) serveRoundLocked(now queue.Instant) (served bool) {
	last := s.receivers.tickets
	fronts := s.receivers.candidates(s.q)
	for fronts.Len() > 0 && s.q.ReadyLen() > 0 {
		n := (*fronts)[0]
		next := n.next
		sel := n.value.selector()
		switch {
		case n.ticket > last, sel.Kind == queue.TypeIs && !s.q.HasReady(sel.Type):
			next = nil // nothing for the rest of this line
		case s.serveLocked(n, now):
			served = true
		}
		if next != nil {
			(*fronts)[0] = next
			heap.Fix(fronts, 0)
		} else {
			heap.Pop(fronts)
		}
	}
	clear(*fronts)
	return served
}

// serveLocked serves one who waits and reports whether it got something.
func (s *served) serveLocked(n *waiting[*receiver], now queue.Instant) bool {
	r := n.value
	if r.consumer != nil {
		return r.consumer.serveLocked(n, now)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by != nil { // another queue was first, and it is about to leave
		s.receivers.remove(n)
		return false
	}
	got, err := s.q.Lease(now, r.want, nil)
	if len(got) == 0 && err == nil {
		return false
	}
	s.receivers.remove(n)
	r.endLocked(s, got, on(s, err))
	return true
}
