package queue

import (
	"cmp"
	"fmt"
	"math/bits"
)

// checkInvariants looks into every part of a queue and returns what contradicts itself.
func checkInvariants(q *Queue) error {
	for _, check := range []func(*Queue) error{
		indexInvariants, slotInvariants, classInvariants, tournamentInvariants, wheelInvariants, buriedInvariants,
		slabInvariants, fetchInvariants, dedupInvariants, producerInvariants,
	} {
		if err := check(q); err != nil {
			return err
		}
	}
	return nil
}

func arenaInvariants[T any](name string, a *arena[T]) error {
	used, linked := 0, map[uint32]bool{}
	for c, prev := a.partial, uint32(0); c != 0; c = a.chunks[c-1].next {
		if linked[c] || a.chunks[c-1].prev != prev {
			return fmt.Errorf("%s: broken links at chunk %d", name, c-1)
		}
		linked[c], prev = true, c
	}
	for c, block := range a.chunks {
		if block.items == nil {
			if block.free != 0 || linked[uint32(c)+1] {
				return fmt.Errorf("%s: dropped chunk %d is linked", name, c)
			}
			continue
		}
		used += arenaChunk - bits.OnesCount64(block.free)
		if (block.free != 0) != linked[uint32(c)+1] {
			return fmt.Errorf("%s: chunk %d with free items %#x, linked: %v", name, c, block.free, linked[uint32(c)+1])
		}
	}
	if used != a.live {
		return fmt.Errorf("%s: %d items in use, live says %d", name, used, a.live)
	}
	return nil
}

func indexInvariants(q *Queue) error {
	x := &q.slots
	if len(x.keys) != len(x.ids) || x.first > len(x.keys) {
		return fmt.Errorf("index: %d keys, %d ids, first %d", len(x.keys), len(x.ids), x.first)
	}
	dropped, pages := 0, 0
	for i := x.first; i < len(x.keys); i++ {
		if i > x.first && x.keys[i] <= x.keys[i-1] {
			return fmt.Errorf("index: key %d after %d", x.keys[i], x.keys[i-1])
		}
		if x.ids[i] == 0 {
			dropped++
			if i == x.first {
				return fmt.Errorf("index: the first entry was dropped")
			}
			continue
		}
		pages++
		p := x.pages[x.ids[i]]
		live := 0
		for j := range p.slots {
			if seq := p.slots[j].seq; seq != 0 {
				live++
				if seq != x.keys[i]*pageSlots+uint64(j) {
					return fmt.Errorf("index: sequence %d at place %d of page %d", seq, j, x.keys[i])
				}
			}
		}
		if said := int(x.live[x.ids[i]]); live != said || live == 0 && i != len(x.keys)-1 {
			return fmt.Errorf("index: page %d has %d live slots and says %d", x.keys[i], live, said)
		}
	}
	for _, id := range x.vacant {
		if x.pages[id] != nil || x.live[id] != 0 {
			return fmt.Errorf("index: the vacant page %d is in use", id)
		}
	}
	if said := max(0, len(x.pages)-1-len(x.vacant)); dropped != x.dropped || pages != said {
		return fmt.Errorf("index: %d dropped (says %d), %d pages (says %d)", dropped, x.dropped, pages, said)
	}
	return nil
}

// eachSlot visits all messages by sequence.
func eachSlot(q *Queue, visit func(n uint32, s *slot)) {
	q.slots.scan(0, 1<<63, 1<<40, func(n uint32, s *slot) bool {
		visit(n, s)
		return true
	})
}

func slotInvariants(q *Queue) error {
	var counts [numStates]int64
	var charged, live int64
	timers, longTimers := 0, 0
	var err error
	fail := func(format string, args ...any) {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
	}
	eachSlot(q, func(n uint32, s *slot) {
		counts[s.state]++
		charged += int64(s.ref.charge())
		live += s.ref.liveBytes()
		if q.slots.find(s.seq) != n {
			fail("sequence %d is not found", s.seq)
		}
		if s.seq >= q.nextSeq || (s.state == uncommitted) != (s.seq > q.published) {
			fail("sequence %d is %v: published %d, next %d", s.seq, s.state, q.published, q.nextSeq)
		}
		switch s.flags & flagsBoth {
		case flagsBoth:
			longTimers++
		case flagDue, flagExpires:
			timers++
		}
		if times := s.flags & flagsBoth; (times != 0) != (s.timer != 0) || (times&flagExpires != 0) != (q.expiresOf(s) != 0) {
			fail("%v %d has timer %d, flags %x, and expires at %d", s.state, s.seq, s.timer, times, q.expiresOf(s))
		}
		switch s.state {
		case Ready:
			if s.flags&flagDue != 0 {
				fail("ready %d is due at %d", s.seq, q.dueOf(s))
			}
		case Delayed, Leased, Buried:
			if s.flags&flagDue == 0 {
				fail("%v %d is never due", s.state, s.seq)
			}
		}
		if s.state != Ready && s.flags&flagInTree != 0 {
			fail("%v %d is in a class's tree", s.state, s.seq)
		}
	})
	if err != nil {
		return err
	}
	st := &q.stats
	if said := [numStates]int64{st.Uncommitted, st.Ready, st.Delayed, st.Leased, st.Buried}; counts != said {
		return fmt.Errorf("messages by state %v, counters %v", counts, said)
	}
	if charged != st.Bytes {
		return fmt.Errorf("messages of %d bytes, counter %d", charged, st.Bytes)
	}
	if live != q.liveBytes {
		return fmt.Errorf("%d live bytes, counter %d", live, q.liveBytes)
	}
	if timers != q.timers.live || longTimers != q.longTimers.live {
		return fmt.Errorf("%d and %d messages have timers and long ones, %d and %d exist", timers, longTimers, q.timers.live, q.longTimers.live)
	}
	return cmp.Or(arenaInvariants("timers", &q.timers), arenaInvariants("long timers", &q.longTimers))
}

// treeSlots returns the members of a treap in order, or what is wrong with its shape.
func treeSlots(x *index, root uint32) (members []uint32, err error) {
	var walk func(n uint32)
	walk = func(n uint32) {
		if n == 0 || len(members) > 1<<22 {
			return
		}
		s := x.at(n)
		for _, child := range []uint32{s.left, s.right} {
			if child != 0 && weight(x.at(child).seq) > weight(s.seq) {
				err = fmt.Errorf("treap: %d is above the heavier %d", s.seq, x.at(child).seq)
			}
		}
		walk(s.left)
		if len(members) > 0 && x.at(members[len(members)-1]).seq >= s.seq {
			err = fmt.Errorf("treap: %d out of order", s.seq)
		}
		members = append(members, n)
		walk(s.right)
	}
	walk(root)
	return members, err
}

func classInvariants(q *Queue) error {
	classRefs, kindRefs := map[uint32]int{}, map[uint32]int{}
	eachSlot(q, func(n uint32, s *slot) {
		classRefs[s.class]++
		kindRefs[q.classes.at(s.class).kind]++
	})
	idle, classes := 0, 0
	open := map[uint16]map[uint32]bool{} // classes that should stand in each level
	for typ, number := range q.kindOf {
		k := &q.kinds[number]
		if k.typ != typ || number == 0 {
			return fmt.Errorf("type %d has number %d, which is of type %d", typ, number, k.typ)
		}
		if k.refs != kindRefs[number] {
			return fmt.Errorf("type %d has %d messages, counter %d", typ, kindRefs[number], k.refs)
		}
		if k.refs == 0 {
			idle++
		}
		ready, at := 0, 0
		var best, worst key
		for i, n := range k.classes {
			c := q.classes.at(n)
			classes++
			if c.kind != number || i > 0 && q.classes.at(k.classes[i-1]).priority <= c.priority {
				return fmt.Errorf("type %d: class %d (type number %d, priority %d) is out of place", typ, n, c.kind, c.priority)
			}
			if c.refs != classRefs[n] {
				return fmt.Errorf("type %d priority %d has %d messages, counter %d", typ, c.priority, classRefs[n], c.refs)
			}
			members, err := classMembers(q, n, c)
			if err != nil {
				return err
			}
			if members != c.ready {
				return fmt.Errorf("type %d priority %d has %d ready, counter %d", typ, c.priority, members, c.ready)
			}
			ready += c.ready
			if c.ready == 0 {
				continue
			}
			if at >= len(k.open) || k.open[at] != n {
				return fmt.Errorf("type %d: class of priority %d is not open", typ, c.priority)
			}
			at++
			if open[c.priority] == nil {
				open[c.priority] = map[uint32]bool{}
			}
			open[c.priority][n] = true
			worst = q.classHead(c)
			if best.slot == 0 {
				best = worst
			}
		}
		if at != len(k.open) || ready != k.ready || best != k.best {
			return fmt.Errorf("type %d: %d classes open of %d, %d ready of %d, best %+v instead of %+v", typ, len(k.open), at, k.ready, ready, k.best, best)
		}
		if q.settings.Overflow == DropOldest && worst != k.worst {
			return fmt.Errorf("type %d: worst %+v instead of %+v", typ, k.worst, worst)
		}
	}
	if idle != q.idleKinds || len(q.kindOf)+len(q.vacantKinds)+1 != len(q.kinds) {
		return fmt.Errorf("%d idle types (counter %d), %d used, %d vacant of %d", idle, q.idleKinds, len(q.kindOf), len(q.vacantKinds), len(q.kinds))
	}
	if classes != q.classes.live {
		return fmt.Errorf("%d classes, arena says %d", classes, q.classes.live)
	}
	if len(open) != len(q.levels) {
		return fmt.Errorf("%d levels, there should be %d", len(q.levels), len(open))
	}
	for i, l := range q.levels {
		if i > 0 && q.levels[i-1].priority <= l.priority {
			return fmt.Errorf("levels out of order at %d", l.priority)
		}
		prev, count := uint32(0), 0
		for n := l.classes; n != 0; n = q.classes.at(n).levelNext {
			if c := q.classes.at(n); !open[l.priority][n] || c.levelPrev != prev || count > len(open[l.priority]) {
				return fmt.Errorf("level %d: class %d is out of place", l.priority, n)
			}
			prev = n
			count++
		}
		if count != len(open[l.priority]) {
			return fmt.Errorf("level %d has %d classes instead of %d", l.priority, count, len(open[l.priority]))
		}
	}
	return arenaInvariants("classes", &q.classes)
}

// classMembers counts the messages in a class's list and tree.
func classMembers(q *Queue, number uint32, c *class) (count int, err error) {
	prev := uint32(0)
	for n := c.head; n != 0; n = q.slots.at(n).right {
		s := q.slots.at(n)
		if s.state != Ready || s.class != number || s.flags&flagInTree != 0 || s.left != prev || prev != 0 && q.slots.at(prev).seq >= s.seq {
			return 0, fmt.Errorf("class %d: %v message %d is wrong in its list", number, s.state, s.seq)
		}
		prev = n
		count++
	}
	if c.tail != prev {
		return 0, fmt.Errorf("class %d: tail %d instead of %d", number, c.tail, prev)
	}
	members, err := treeSlots(&q.slots, c.root)
	for _, n := range members {
		if s := q.slots.at(n); s.state != Ready || s.class != number || s.flags&flagInTree == 0 {
			return 0, fmt.Errorf("class %d: %v message %d is wrong in its tree", number, s.state, s.seq)
		}
	}
	return count + len(members), err
}

func tournamentInvariants(q *Queue) error {
	for name, t := range map[string]*tournament{"ranks": &q.ranks, "lowest": &q.lowest, "victims": &q.victims} {
		if name == "victims" && q.settings.Overflow != DropOldest {
			continue
		}
		if len(q.kinds) > 1 && t.size < len(q.kinds) {
			return fmt.Errorf("%s: %d types in a tournament of %d", name, len(q.kinds), t.size)
		}
		for p := range t.size {
			want := uint32(0)
			if p > 0 && q.playsRank(uint32(p)) {
				want = uint32(p)
			}
			if got := t.winner[t.size+p]; got != want {
				return fmt.Errorf("%s: leaf %d is %d", name, p, got)
			}
		}
		for i := t.size - 1; i > 0; i-- {
			if t.winner[i] != t.better(t.winner[2*i], t.winner[2*i+1]) {
				return fmt.Errorf("%s: match %d was won by %d", name, i, t.winner[i])
			}
		}
	}
	return nil
}

func wheelInvariants(q *Queue) error {
	for _, w := range []struct {
		name     string
		wheel    *wheel
		deadline func(uint32) int64
		member   func(s *slot) bool
	}{
		{"leases", &q.leases, q.leaseDeadline, func(s *slot) bool { return s.state == Leased }},
		{"delays", &q.delays, q.delayDeadline, func(s *slot) bool { return s.state == Delayed }},
		{"ttls", &q.ttls, q.ttlDeadline, func(s *slot) bool { return s.state == Ready && s.flags&flagExpires != 0 }},
	} {
		in := map[uint32]bool{}
		for level := range w.wheel.heads {
			for place, head := range w.wheel.heads[level] {
				if (head != 0) != (w.wheel.occupied[level]>>place&1 == 1) {
					return fmt.Errorf("%s: bucket %d/%d is marked wrongly", w.name, level, place)
				}
				prev := uint32(0)
				for n := head; n != 0; n = q.timerOf(n).next {
					l, p := w.wheel.bucket(tickOf(w.deadline(n)))
					if l != level || p != place || q.timerOf(n).prev != prev || in[n] {
						return fmt.Errorf("%s: %d stands in bucket %d/%d instead of %d/%d", w.name, q.slots.at(n).seq, level, place, l, p)
					}
					in[n], prev = true, n
				}
			}
		}
		var err error
		eachSlot(q, func(n uint32, s *slot) {
			if w.member(s) != in[n] {
				err = fmt.Errorf("%s: %v %d is a member: %v", w.name, s.state, s.seq, in[n])
			}
		})
		if err != nil {
			return err
		}
		if len(in) != w.wheel.count {
			return fmt.Errorf("%s: %d members, counter %d", w.name, len(in), w.wheel.count)
		}
	}
	return nil
}

func buriedInvariants(q *Queue) error {
	members, err := treeSlots(&q.slots, q.buried)
	if err != nil {
		return err
	}
	refs := map[uint32]int{}
	for _, n := range members {
		s := q.slots.at(n)
		if s.state != Buried {
			return fmt.Errorf("%v %d stands among the buried", s.state, s.seq)
		}
		if number := uint32(q.dueOf(s)); number != 0 {
			refs[number]++
		}
	}
	eachSlot(q, func(_ uint32, s *slot) {
		if s.flags&flagBury == 0 {
			return
		}
		if s.state != uncommitted {
			err = fmt.Errorf("%v %d is still to be buried", s.state, s.seq)
		}
		if s.left != 0 {
			refs[s.left]++
		}
	})
	if err != nil {
		return err
	}
	if int64(len(members)) != q.stats.Buried {
		return fmt.Errorf("%d buried, counter %d", len(members), q.stats.Buried)
	}
	if len(refs) != len(q.reasons.byText) {
		return fmt.Errorf("%d reasons in use, %d kept", len(refs), len(q.reasons.byText))
	}
	for text, number := range q.reasons.byText {
		if r := q.reasons.all[number]; r.text != text || r.refs != refs[number] {
			return fmt.Errorf("reason %q: %d users, counter %d", text, refs[number], r.refs)
		}
	}
	return nil
}

func slabInvariants(q *Queue) error {
	p := &q.payloads
	live := make([]int, len(p.all))
	var err error
	eachSlot(q, func(n uint32, s *slot) {
		if s.ref.onDisk() {
			return
		}
		id := s.ref.slab()
		if int(id) >= len(p.all) || id == 0 || p.all[id].buf == nil {
			err = fmt.Errorf("payload of %d lies in slab %d, which there is not", s.seq, id)
			return
		}
		b := p.all[id].buf[s.ref.offset():]
		if owner := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24; owner != n {
			err = fmt.Errorf("payload of %d (slot %d) belongs to slot %d", s.seq, n, owner)
		}
		live[id] += entryBytes(len(p.load(s.ref)))
	})
	if err != nil {
		return err
	}
	total, sum := 0, 0
	for id, b := range p.all {
		if b.live != live[id] || b.used > len(b.buf) {
			return fmt.Errorf("slab %d: %d bytes live, counter %d, %d of %d used", id, live[id], b.live, b.used, len(b.buf))
		}
		if b.buf != nil && b.live == 0 && uint32(id) != p.current {
			return fmt.Errorf("slab %d is dead and still there", id)
		}
		total += len(b.buf)
		sum += b.live
	}
	if total != p.total || sum != p.live {
		return fmt.Errorf("slabs: %d bytes (counter %d), %d live (counter %d)", total, p.total, sum, p.live)
	}
	return nil
}

// fetchInvariants checks that what is cached and asked for has messages.
func fetchInvariants(q *Queue) error {
	places := map[Place]uint64{}
	var err error
	eachSlot(q, func(n uint32, s *slot) {
		if !s.ref.onDisk() {
			return
		}
		p := s.ref.place()
		if other, taken := places[p]; taken && p != 0 {
			err = fmt.Errorf("the payloads of %d and %d both lie at place %d", other, s.seq, p)
		}
		places[p] = s.seq
	})
	f := &q.fetch
	size := 0
	for p, payload := range f.cache {
		if places[p] == 0 {
			err = fmt.Errorf("place %d is cached and has no message", p)
		}
		size += len(payload) + cacheEntry
	}
	if size != f.cacheBytes || size > cacheBytes && len(f.cache) > 1 {
		err = fmt.Errorf("%d bytes are cached, counter %d", size, f.cacheBytes)
	}
	for p, asked := range f.pending {
		if places[p] != asked.seq {
			err = fmt.Errorf("place %d is asked for %d, and belongs to %d", p, asked.seq, places[p])
		}
	}
	return err
}

func dedupInvariants(q *Queue) error {
	d := &q.ids
	used := 0
	for i := range d.tables {
		n := 0
		for _, p := range d.tables[i].places {
			if p != 0 {
				n++
			}
		}
		if n != d.tables[i].used || 2*n > len(d.tables[i].places) {
			return fmt.Errorf("dedup: table %d has %d of %d, counter %d", i, n, len(d.tables[i].places), d.tables[i].used)
		}
		used += n
	}
	if used != d.len() || d.base > d.start || d.start > d.end {
		return fmt.Errorf("dedup: %d ids in tables, %d in order", used, d.len())
	}
	end := uint64(0)
	for i, e := range d.extents {
		if e.end <= end || e.end > d.end || i > 0 && e.gen == d.extents[i-1].gen {
			return fmt.Errorf("dedup: extents %+v of places %d to %d", d.extents, d.start, d.end)
		}
		end = e.end
	}
	for place := d.start; place < d.end; place++ {
		e := d.entry(place)
		if seq, ok := d.find(e.digest); !ok || seq != e.seq {
			return fmt.Errorf("dedup: id of sequence %d is found as %d, %v", e.seq, seq, ok)
		}
	}
	return nil
}

func producerInvariants(q *Queue) error {
	p := &q.producers
	count, duplicates := 0, 0
	var prev *producer
	for x := p.oldest; x != nil; x = x.next {
		if x.prev != prev || p.byID[x.id] != x || p.table[x.number] != x {
			return fmt.Errorf("producers: %q is linked wrongly", x.id)
		}
		for i, a := range x.answers {
			if i > 0 && x.answers[i-1].batch >= a.batch {
				return fmt.Errorf("producers: %q has batch %d after %d", x.id, a.batch, x.answers[i-1].batch)
			}
			duplicates += len(a.stored.Duplicates)
		}
		prev = x
		count++
	}
	if len(p.table) != count+len(p.vacant) {
		return fmt.Errorf("producers: %d in a table of %d with %d vacant", count, len(p.table), len(p.vacant))
	}
	if prev != p.newest || count != len(p.byID) || duplicates != p.duplicates {
		return fmt.Errorf("producers: %d linked, %d known, %d duplicates (counter %d)", count, len(p.byID), duplicates, p.duplicates)
	}
	return nil
}
