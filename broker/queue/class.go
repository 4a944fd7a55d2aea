package queue

import (
	"cmp"
	"slices"
)

// class is the messages of one type and priority. Those that are ready stand in a list by sequence;
// those that came back, or became due, after later ones were ready stand in a tree beside it.
type class struct {
	kind       uint32 // its type's number
	priority   uint16
	head, tail uint32 // of the list
	root       uint32 // of the tree
	ready      int
	refs       int // messages in any state
	// Neighbours among the classes of this priority with ready messages.
	levelNext, levelPrev uint32
}

// level is the classes of one priority that have ready messages.
type level struct {
	priority uint16
	classes  uint32 // the first
}

// kind is a message type that is in use, and its classes.
type kind struct {
	typ     int64
	classes []uint32 // by priority, highest first
	open    []uint32 // those of them with ready messages
	refs    int      // messages in any state
	// The ready message that comes first, and the one that drop-oldest would drop first.
	best, worst key
	ready       int
}

// key is where a ready message stands in the order of receipt.
type key struct {
	slot     uint32 // 0: none
	priority uint16
	seq      uint64
}

func (k key) before(o key) bool {
	return k.priority > o.priority || k.priority == o.priority && k.seq < o.seq
}

// spareKinds is how many unused types are kept, so that a queue that is often empty does not make and
// drop them each time.
const spareKinds = 1024

// classOf returns the class of a type and priority, made if need be.
func (q *Queue) classOf(typ int64, priority uint16) uint32 {
	if q.lastClass != 0 {
		if c := q.classes.at(q.lastClass); c.priority == priority && q.kinds[c.kind].typ == typ {
			return q.lastClass
		}
	}
	k, ok := q.kindOf[typ]
	if !ok {
		k = q.newKind(typ)
	}
	at, found := q.findClass(q.kinds[k].classes, priority)
	if !found {
		n, c := q.classes.alloc()
		c.kind, c.priority = k, priority
		q.kinds[k].classes = slices.Insert(q.kinds[k].classes, at, n)
	}
	q.lastClass = q.kinds[k].classes[at]
	return q.lastClass
}

func (q *Queue) findClass(classes []uint32, priority uint16) (int, bool) {
	if len(classes) == 0 || q.classes.at(classes[0]).priority == priority { // most types have one priority
		return 0, len(classes) > 0
	}
	return slices.BinarySearchFunc(classes, priority, func(n uint32, p uint16) int {
		return cmp.Compare(p, q.classes.at(n).priority)
	})
}

func (q *Queue) newKind(typ int64) uint32 {
	if q.idleKinds > spareKinds && q.idleKinds > len(q.kindOf)/2 {
		q.dropIdleKinds()
	}
	var k uint32
	if n := len(q.vacantKinds); n > 0 {
		k = q.vacantKinds[n-1]
		q.vacantKinds = q.vacantKinds[:n-1]
	} else {
		k = uint32(len(q.kinds))
		q.kinds = append(q.kinds, kind{})
		if len(q.kinds) > q.ranks.size {
			for _, t := range []*tournament{&q.ranks, &q.lowest, &q.victims} {
				t.resize(len(q.kinds), q.playsRank)
			}
		}
	}
	q.kinds[k] = kind{typ: typ}
	q.kindOf[typ] = k
	q.idleKinds++
	return k
}

func (q *Queue) playsRank(k uint32) bool { return int(k) < len(q.kinds) && q.kinds[k].ready > 0 }

// dropIdleKinds forgets types and classes that no message has.
func (q *Queue) dropIdleKinds() {
	q.lastClass = 0
	for typ, k := range q.kindOf {
		if q.kinds[k].refs > 0 {
			continue
		}
		for _, n := range q.kinds[k].classes {
			q.classes.release(n)
		}
		q.kinds[k] = kind{}
		delete(q.kindOf, typ)
		q.vacantKinds = append(q.vacantKinds, k)
	}
	q.idleKinds = 0
}

// hold counts a message of the class; unhold takes it back.
func (q *Queue) hold(n uint32) {
	c := q.classes.at(n)
	k := &q.kinds[c.kind]
	if k.refs == 0 {
		q.idleKinds--
	}
	k.refs++
	c.refs++
}

func (q *Queue) unhold(n uint32) {
	c := q.classes.at(n)
	k := &q.kinds[c.kind]
	k.refs--
	c.refs--
	if k.refs == 0 {
		q.idleKinds++
	}
	// Many priorities of one type come and go: keep only few unused ones.
	if c.refs == 0 && len(k.classes) > 8 {
		at, _ := q.findClass(k.classes, c.priority)
		k.classes = slices.Delete(k.classes, at, at+1)
		if q.lastClass == n {
			q.lastClass = 0
		}
		q.classes.release(n)
	}
}

// pushReady puts a message into its class's order. While a queue is loaded there is none.
func (q *Queue) pushReady(n uint32) {
	if q.loading != nil {
		q.stats.Ready++
		return
	}
	s := q.slots.at(n)
	c := q.classes.at(s.class)
	k := &q.kinds[c.kind]
	c.ready++
	k.ready++
	q.stats.Ready++
	switch {
	case c.tail == 0:
		s.left, s.right = 0, 0
		c.head, c.tail = n, n
	case s.seq > q.slots.at(c.tail).seq:
		s.left, s.right = c.tail, 0
		q.slots.at(c.tail).right = n
		c.tail = n
		return // it comes last: nothing changes in front
	default:
		s.flags |= flagInTree
		c.root = q.slots.treeInsert(c.root, n)
	}
	if c.ready == 1 {
		if len(k.open) == 0 {
			k.open = append(k.open, s.class)
		} else {
			at, _ := q.findClass(k.open, c.priority)
			k.open = slices.Insert(k.open, at, s.class)
		}
		q.joinLevel(s.class, c)
	}
	q.rerank(c.kind)
}

// pullReady takes a message out of its class's order.
func (q *Queue) pullReady(n uint32) {
	if q.loading != nil {
		q.stats.Ready--
		return
	}
	s := q.slots.at(n)
	c := q.classes.at(s.class)
	if s.flags&flagInTree != 0 {
		s.flags &^= flagInTree
		c.root = q.slots.treeRemove(c.root, n)
	} else {
		if s.left != 0 {
			q.slots.at(s.left).right = s.right
		} else {
			c.head = s.right
		}
		if s.right != 0 {
			q.slots.at(s.right).left = s.left
		} else {
			c.tail = s.left
		}
		s.left, s.right = 0, 0
	}
	k := &q.kinds[c.kind]
	c.ready--
	k.ready--
	q.stats.Ready--
	if c.ready == 0 {
		if len(k.open) == 1 {
			k.open = k.open[:0]
		} else {
			at, _ := q.findClass(k.open, c.priority)
			k.open = slices.Delete(k.open, at, at+1)
		}
		q.quitLevel(c)
	}
	q.rerank(c.kind)
}

// classHead returns the first ready message of the class.
func (q *Queue) classHead(c *class) key {
	head := key{slot: c.head, priority: c.priority}
	if c.head != 0 {
		head.seq = q.slots.at(c.head).seq
	}
	if n := q.slots.treeMin(c.root); n != 0 {
		if s := q.slots.at(n); head.slot == 0 || s.seq < head.seq {
			head.slot, head.seq = n, s.seq
		}
	}
	return head
}

// rerank finds a type's first message anew and replays its matches.
func (q *Queue) rerank(number uint32) {
	k := &q.kinds[number]
	k.best, k.worst = key{}, key{}
	if k.ready > 0 {
		k.best = q.classHead(q.classes.at(k.open[0]))
	}
	if q.settings.Overflow == DropOldest {
		if k.ready > 0 {
			k.worst = q.classHead(q.classes.at(k.open[len(k.open)-1]))
		}
		q.victims.update(number, k.ready > 0)
	}
	q.ranks.update(number, k.ready > 0)
	q.lowest.update(number, k.ready > 0)
}

// startTournaments sets up who beats whom.
func (q *Queue) startTournaments() {
	q.kinds = append(q.kinds[:0], kind{}) // number 0 is nobody
	q.ranks.beats = func(a, b uint32) bool { return q.kinds[a].best.before(q.kinds[b].best) }
	q.lowest.beats = func(a, b uint32) bool { return q.kinds[a].typ < q.kinds[b].typ }
	q.victims.beats = func(a, b uint32) bool {
		x, y := q.kinds[a].worst, q.kinds[b].worst
		return x.priority < y.priority || x.priority == y.priority && x.seq < y.seq
	}
}

// Types is how many types EachReadyType looks at.
func (q *Queue) Types() int { return len(q.kinds) }

// HasReady reports whether a message of that type is ready.
func (q *Queue) HasReady(typ int64) bool {
	k, ok := q.kindOf[typ]
	return ok && q.kinds[k].ready > 0
}

// EachReadyType visits the types of which messages are ready, in no order.
func (q *Queue) EachReadyType(visit func(typ int64)) {
	for i := range q.kinds {
		if q.kinds[i].ready > 0 {
			visit(q.kinds[i].typ)
		}
	}
}

// first returns the ready message that the selector puts first, 0 if none matches.
func (q *Queue) first(sel Selector) uint32 {
	var k uint32
	switch sel.Kind {
	case Any:
		k = q.ranks.first()
	case TypeIs:
		k = q.kindOf[sel.Type]
	case LowestUpTo:
		if k = q.lowest.first(); k != 0 && q.kinds[k].typ > sel.Type {
			k = 0
		}
	case TypeIsNot:
		if but, ok := q.kindOf[sel.Type]; ok {
			k = q.ranks.firstBut(but)
		} else {
			k = q.ranks.first()
		}
	case TypeIn:
		if len(q.kinds) <= len(sel.Types) {
			for n := 1; n < len(q.kinds); n++ {
				if o := &q.kinds[n]; o.ready > 0 && (k == 0 || o.best.before(q.kinds[k].best)) && sel.Matches(o.typ) {
					k = uint32(n)
				}
			}
			break
		}
		for _, t := range sel.Types {
			if o := q.kindOf[t]; o != 0 && q.kinds[o].ready > 0 && (k == 0 || q.kinds[o].best.before(q.kinds[k].best)) {
				k = o
			}
		}
	}
	if k == 0 {
		return 0
	}
	return q.kinds[k].best.slot
}

func (q *Queue) findLevel(priority uint16) (int, bool) {
	if len(q.levels) == 0 || q.levels[0].priority == priority {
		return 0, len(q.levels) > 0
	}
	return slices.BinarySearchFunc(q.levels, priority, func(l level, p uint16) int { return cmp.Compare(p, l.priority) })
}

func (q *Queue) joinLevel(n uint32, c *class) {
	if len(q.levels) == 0 { // the common case by far: one priority is in use
		q.levels = append(q.levels, level{priority: c.priority, classes: n})
		return
	}
	at, found := q.findLevel(c.priority)
	if !found {
		q.levels = slices.Insert(q.levels, at, level{priority: c.priority})
	}
	l := &q.levels[at]
	c.levelNext, c.levelPrev = l.classes, 0
	if l.classes != 0 {
		q.classes.at(l.classes).levelPrev = n
	}
	l.classes = n
}

func (q *Queue) quitLevel(c *class) {
	if len(q.levels) == 1 && c.levelNext == 0 && c.levelPrev == 0 {
		q.levels = q.levels[:0]
		return
	}
	if c.levelNext != 0 {
		q.classes.at(c.levelNext).levelPrev = c.levelPrev
	}
	if c.levelPrev != 0 {
		q.classes.at(c.levelPrev).levelNext = c.levelNext
	} else {
		at, _ := q.findLevel(c.priority)
		q.levels[at].classes = c.levelNext
		if c.levelNext == 0 {
			q.levels = slices.Delete(q.levels, at, at+1)
		}
	}
	c.levelNext, c.levelPrev = 0, 0
}
