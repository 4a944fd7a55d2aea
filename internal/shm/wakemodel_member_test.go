package shm_test

import (
	"fmt"
	"slices"
)

// producer publishes in its lane. capacity is in messages; 0: nobody holds it back.
func producer(v *variant, lane, capacity uint8) program {
	slot := func(consumer uint8) uint8 {
		if v.slotGeneration {
			return 0
		}
		return consumer
	}
	order := v.order(v.publishing, publishing)
	if capacity > 0 {
		order = append(v.order(v.makingRoom, makingRoom), order...)
	}
	explicit := slices.ContainsFunc(order, func(name string) bool { return name == "note woken" || name == "note parked" })
	nobody := func(p *process) bool { return !p.need && (!p.newer || v.quietEpoch) }
	holding := func(p *process, cursor uint8) bool { return cursor != noCursor && p.published+1-cursor > capacity }
	g := program{name: fmt.Sprintf("producer %d", lane), awake: "blocked+1 again"}
	g.blocks = pick([]block{
		{"published", func(x *step) {
			v.store(x, "published", publishedWord(lane), x.p.published+1)
			x.p.published++
			x.p.left--
		}, nil},
		{"load epoch", v.lookAtEpoch, nil},
		{"look at parked", func(x *step) {
			x.each(x.p.mapped.set, func(c uint8) { noteGeneration(x.p, slot(c), x.load(parkedWord(c))) })
		}, func(p *process) bool { return p.newer && !v.quietEpoch || p.mapped.set == 0 }},
		{"wake+1", func(x *step) {
			x.p.own++
			x.store(wakeWord(lane), x.p.own)
		}, nobody},
		{"note woken", func(x *step) {
			noteWoken(x.p)
			x.p.need = true // the wake follows
		}, func(p *process) bool { return !p.need }},
		{"FUTEX_WAKE", func(x *step) {
			x.futexWake(wakeWord(lane))
			if !explicit {
				noteWoken(x.p)
			}
		}, nobody},
		{"note parked", func(x *step) { // what parked shows after the wake
			x.each(x.p.mapped.set, func(c uint8) { x.p.last[c] = x.load(parkedWord(c)) })
			if !x.stay {
				x.p.seen, x.p.need = [modelPeers]uint8{}, false
			}
		}, func(p *process) bool { return !p.need }},
		{"fetch members", fetchNow, v.upToDate},
		{"fetch members as woken", func(x *step) { // takes whom it has just mapped for woken
			fetchNow(x)
			for c := range uint8(modelPeers) {
				x.p.last[c] = x.load(parkedWord(c))
			}
		}, func(p *process) bool { return !p.newer }},

		{"fetch members for room", fetchNow, v.upToDate},
		{"adopt", adopt, nil},
		{"look at epoch", func(x *step) {
			if v.lookAtEpoch(x); x.p.newer && !v.helped {
				x.goTo("fetch members for room")
			}
		}, nil},
		{"look for room", func(x *step) {
			if x.p.at == 0 {
				x.p.holds = 0
			}
			x.each(x.p.mapped.set, func(c uint8) {
				if holding(x.p, x.load(cursorWord(c, lane))) {
					x.p.holds |= 1 << c
				}
			})
			// With members that are not those of the epoch it waits for these.
			if !x.stay && x.p.holds == 0 && !x.p.newer {
				x.goTo("published")
			}
		}, nil},
		{"remember epoch", func(x *step) { x.p.epoch = x.load(x.p.page) }, nil},
		{"remember private", func(x *step) { x.p.private = x.load(private(x.who)) }, nil},
		{"remember room words", func(x *step) {
			x.each(x.p.holds, func(c uint8) { x.p.wake[c] = x.load(roomWord(c)) })
		}, func(p *process) bool { return p.holds == 0 }},
		{"blocked+1", func(x *step) {
			x.p.generation++
			v.store(x, "blocked+1", blockedWord(lane), x.p.generation)
		}, func(p *process) bool { return v.sameGeneration && p.generation%2 == 1 }},
		{"look for room again", func(x *step) {
			x.each(x.p.holds, func(c uint8) {
				if !holding(x.p, x.load(cursorWord(c, lane))) {
					x.goTo("blocked+1 again")
				}
			})
		}, func(p *process) bool { return p.holds == 0 }},
		{"look at epoch again", func(x *step) {
			if v.epochPassed(x) {
				x.goTo("blocked+1 again")
			}
		}, nil},
		{"look at offers again", func(x *step) {
			if x.p.offered.epoch > x.p.mapped.epoch {
				x.goTo("blocked+1 again")
			}
		}, nil},
		{"wait for room", func(x *step) { waitOn(x, x.p.holds, roomWord, v.helped) }, nil},
		{"blocked+1 again", func(x *step) {
			if !v.sameGeneration {
				x.p.generation++
				x.store(blockedWord(lane), x.p.generation)
			}
			x.p.holds, x.p.wake, x.p.private = 0, [modelPeers]uint8{}, 0
			x.target = 0
		}, nil},
	}, order)
	g.wrap = func(p *process) {
		p.newer, p.need, p.seen = false, false, [modelPeers]uint8{}
		if p.left == 0 {
			p.pc = pcDone
		}
	}
	return g
}

// consumer reads all lanes for ever. lossless: it holds producers back.
func consumer(v *variant, me uint8, lossless bool) program {
	order := v.order(v.reading, reading)
	if lossless {
		order = append(order, v.order(v.telling, telling)...)
	}
	order = append(order, v.order(v.parking, parking)...)
	unchanged := func(p *process) bool { return p.changed == 0 }
	g := program{name: fmt.Sprintf("consumer %d", me), awake: "parked+1 again"}
	g.blocks = pick([]block{
		{"fetch members", fetchNow, v.upToDate},
		{"adopt", adopt, nil},
		{"read", func(x *step) {
			if x.p.at == 0 {
				x.p.changed = 0
			}
			x.each(x.p.mapped.set, func(l uint8) {
				if until := x.load(publishedWord(l)); until != x.p.next[l] {
					x.p.next[l] = until
					x.p.changed |= 1 << l
				}
			})
		}, func(p *process) bool { return p.mapped.set == 0 }},

		{"store cursor", func(x *step) {
			x.each(x.p.changed, func(l uint8) { v.store(x, "store cursor", cursorWord(me, l), x.p.next[l]) })
		}, unchanged},
		{"look at blocked", func(x *step) {
			x.each(x.p.changed, func(l uint8) { noteGeneration(x.p, l, x.load(blockedWord(l))) })
		}, unchanged},
		{"room+1", func(x *step) {
			x.p.own++
			x.store(roomWord(me), x.p.own)
		}, func(p *process) bool { return !p.need }},
		{"FUTEX_WAKE", func(x *step) {
			x.futexWake(roomWord(me))
			noteWoken(x.p)
		}, func(p *process) bool { return !p.need }},

		{"look at epoch", func(x *step) {
			if v.lookAtEpoch(x); x.p.newer && !v.helped {
				x.goTo("fetch members")
			}
		}, nil},
		{"remember epoch", func(x *step) { x.p.epoch = x.load(x.p.page) }, nil},
		{"remember private", func(x *step) { x.p.private = x.load(private(x.who)) }, nil},
		{"remember wake words", func(x *step) {
			x.each(x.p.mapped.set, func(l uint8) { x.p.wake[l] = x.load(wakeWord(l)) })
		}, func(p *process) bool { return p.mapped.set == 0 }},
		{"parked+1", func(x *step) {
			x.p.generation++
			v.store(x, "parked+1", parkedWord(me), x.p.generation)
		}, func(p *process) bool { return v.sameGeneration && p.generation%2 == 1 }},
		{"look at lanes again", func(x *step) {
			x.each(x.p.mapped.set, func(l uint8) {
				if x.load(publishedWord(l)) != x.p.next[l] {
					x.goTo("parked+1 again")
				}
			})
		}, func(p *process) bool { return p.mapped.set == 0 }},
		{"look at epoch again", func(x *step) {
			if v.epochPassed(x) {
				x.goTo("parked+1 again")
			}
		}, nil},
		{"look at offers again", func(x *step) {
			if x.p.offered.epoch > x.p.mapped.epoch {
				x.goTo("parked+1 again")
			}
		}, nil},
		{"wait", func(x *step) { waitOn(x, x.p.mapped.set, wakeWord, v.helped) }, nil},
		{"parked+1 again", func(x *step) {
			if !v.sameGeneration {
				x.p.generation++
				x.store(parkedWord(me), x.p.generation)
			}
			x.p.wake, x.p.private = [modelPeers]uint8{}, 0
			x.target = 0
		}, nil},
	}, order)
	return g
}

// announcement is a member that comes or goes.
type announcement struct {
	what   string
	when   func(s *state) bool // nil: at any time
	change func(table uint8) uint8
	joins  int // the process that begins then; negative: none
	again  int // the process that is a member again then, and fetches the members; negative: none
}

// daemon announces one after the other.
func daemon(v *variant, all []announcement) program {
	g := program{name: "daemon", wrap: func(p *process) { p.pc = pcDone }}
	for _, a := range all {
		order := v.order(v.announcing, announcing)
		begin := func(x *step, name string) { // the reply, after both
			if a.joins >= 0 && slices.Index(order, name) == max(slices.Index(order, "change members"), slices.Index(order, "raise epoch")) {
				q := &x.s.processes[a.joins]
				q.pc, q.newer = 0, true
				x.m.programs[a.joins].pass(q)
			}
			if a.again >= 0 && slices.Index(order, name) == 1 {
				x.s.processes[a.again].asked = true
			}
		}
		for i, b := range pick([]block{
			{"change members", func(x *step) {
				x.s.table = a.change(x.s.table)
				begin(x, "change members")
			}, nil},
			{"raise epoch", func(x *step) {
				x.storeFenced(epochWord, x.s.words[epochWord]+1)
				begin(x, "raise epoch")
			}, nil},
			{"FUTEX_WAKE", func(x *step) { x.futexWake(epochWord) }, nil},
		}, order) {
			run := b.run
			b.name = a.what + ": " + b.name
			if i == 0 && a.when != nil {
				b.run = func(x *step) {
					if x.stuck = !a.when(x.s); !x.stuck {
						run(x)
					}
				}
			}
			g.blocks = append(g.blocks, b)
		}
	}
	return g
}
