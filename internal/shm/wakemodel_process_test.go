package shm_test

import (
	"fmt"
	"slices"
)

// The processes of the wake protocol, one access to shared memory to a block. What a process alone can see happens along
// with an access.

// The words. A lane's producer writes the lane's, a consumer its own, the daemon the epoch, a helper its process's private one. The
// old epoch is in the members page of a daemon that is gone.
const (
	epochWord    = 0
	oldEpochWord = 19
)

func publishedWord(lane uint8) uint8        { return 1 + lane }
func wakeWord(lane uint8) uint8             { return 3 + lane }
func blockedWord(lane uint8) uint8          { return 5 + lane }
func parkedWord(consumer uint8) uint8       { return 7 + consumer }
func roomWord(consumer uint8) uint8         { return 9 + consumer } // the consumer's wake word
func cursorWord(consumer, lane uint8) uint8 { return 11 + modelPeers*consumer + lane }
func private(who int) uint8                 { return 15 + uint8(who) }

func wordName(w uint8) string {
	switch {
	case w == epochWord:
		return "epoch"
	case w == oldEpochWord:
		return "old epoch"
	case w < 11:
		return fmt.Sprintf("%s[%d]", []string{"published", "wake", "blocked", "parked", "room"}[(w-1)/2], (w-1)%2)
	case w < 15:
		return fmt.Sprintf("cursor[%d][%d]", (w-11)/modelPeers, (w-11)%modelPeers)
	}
	return fmt.Sprintf("private[%d]", w-15)
}

// The protocol: the order in which each process does things.
var (
	// A producer, for each message. In a lossless ring it makes room first.
	publishing = []string{"published", "load epoch", "look at parked", "wake+1", "FUTEX_WAKE", "fetch members"}
	makingRoom = []string{"fetch members for room", "look at epoch", "look for room", "remember room words", "blocked+1",
		"look for room again", "look at epoch again", "wait for room", "blocked+1 again"}
	// A consumer, for ever. In a lossless ring it tells how far it has read.
	reading = []string{"fetch members", "read"}
	telling = []string{"store cursor", "look at blocked", "room+1", "FUTEX_WAKE"}
	parking = []string{"look at epoch", "remember wake words", "parked+1", "look at lanes again", "look at epoch again", "wait", "parked+1 again"}
	// The daemon, when a member comes or goes.
	announcing = []string{"change members", "raise epoch", "FUTEX_WAKE"}

	// The same with a helper that fetches members meanwhile, and offers them.
	offered = variant{
		publishing: []string{"published", "adopt", "load epoch", "look at parked", "wake+1", "FUTEX_WAKE"},
		makingRoom: []string{"fetch members for room", "adopt", "look at epoch", "look for room", "remember epoch", "remember private",
			"remember room words", "blocked+1",
			"look at offers again", "look for room again", "look at epoch again", "wait for room", "blocked+1 again"},
		reading: []string{"fetch members", "adopt", "look at epoch", "read"},
		parking: []string{"remember epoch", "remember private", "remember wake words", "parked+1",
			"look at offers again", "look at epoch again", "look at lanes again", "wait", "parked+1 again"},
		helped: true,
	}
)

// variant is the protocol, or what is wrong about it.
type variant struct {
	publishing, makingRoom, reading, telling, parking, announcing []string // other orders; nil: the protocol's

	plain          []string // blocks whose store has no fence behind it
	sameGeneration bool     // a wait that returned goes on under the old generation
	slotGeneration bool     // a producer keeps the generation it woke last for a slot, not for a consumer
	quietEpoch     bool     // a producer that sees a newer epoch wakes none but whom it has mapped
	silentDeath    bool     // the daemon does not announce that somebody died
	helped         bool     // members are fetched by a helper and offered
	quietOffer     bool     // a producer's helper that offers another members page does not wake the lane's sleepers
}

// but is the variant with a change.
func (v variant) but(change func(v *variant)) variant {
	change(&v)
	return v
}

func (v *variant) order(own, usual []string) []string {
	if own == nil {
		own = usual
	}
	return slices.Clone(own)
}

// store is a store with a fence behind it, unless the variant forgets it.
func (v *variant) store(x *step, name string, word, value uint8) {
	if slices.Contains(v.plain, name) {
		x.store(word, value)
	} else {
		x.storeFenced(word, value)
	}
}

// upToDate says that there is nothing to fetch. Whoever has a helper fetches only when it begins.
func (v *variant) upToDate(p *process) bool { return !p.newer || v.helped && p.mapped.epoch > 0 }

// fetchNow has the daemon answer at once.
func fetchNow(x *step) {
	x.p.mapped = x.m.fetch(x.s, x.who)
	x.p.newer = false
}

// lookAtEpoch compares the epoch with the members that it has, and asks for newer ones.
func (v *variant) lookAtEpoch(x *step) {
	epoch := x.load(x.p.page)
	x.p.newer = epoch > x.p.mapped.epoch
	if v.helped && x.p.newer && epoch != x.p.pulled {
		x.p.pulled, x.p.asked = epoch, true
	}
	x.p.epoch = epoch
}

// epochPassed says whether the epoch is newer than what was seen before.
func (v *variant) epochPassed(x *step) bool {
	epoch := x.load(x.p.page)
	if v.helped {
		return epoch > max(x.p.mapped.epoch, x.p.pulled)
	}
	return epoch != x.p.epoch
}

// adopt goes by the members that were offered last.
func adopt(x *step) {
	if x.p.offered.epoch > x.p.mapped.epoch {
		x.p.mapped, x.p.page = x.p.offered, epochWord
	}
}

// noteGeneration notes the generation of a peer that must be woken.
func noteGeneration(p *process, peer, generation uint8) {
	if generation%2 == 1 && generation != p.last[peer] {
		p.seen[peer], p.need = generation, true
	}
}

// noteWoken remembers the generations that were woken.
func noteWoken(p *process) {
	for i, g := range p.seen {
		if g != 0 {
			p.last[i] = g
		}
	}
	p.seen, p.need = [modelPeers]uint8{}, false
}

// waitOn queues on one futex a step, then sleeps.
func waitOn(x *step, peers uint8, word func(peer uint8) uint8, withPrivate bool) {
	var words, values [modelPeers + 2]uint8
	n := 0
	want := func(word, value uint8) {
		words[n], values[n] = word, value
		n++
	}
	for i := range uint8(modelPeers) {
		if peers>>i&1 != 0 {
			want(word(i), x.p.wake[i])
		}
	}
	want(x.p.page, x.p.epoch)
	if withPrivate {
		want(private(x.who), x.p.private)
	}
	if !x.compareAndQueue(words[x.p.at], values[x.p.at]) {
		x.goTo(x.m.programs[x.who].awake)
		return
	}
	x.p.at++
	x.stay = true
	if int(x.p.at) == n {
		x.p.pc = pcAsleep
	}
}

// pick puts blocks in an order.
func pick(blocks []block, order []string) []block {
	picked := make([]block, 0, len(order))
	for _, name := range order {
		i := slices.IndexFunc(blocks, func(b block) bool { return b.name == name })
		if i < 0 {
			panic("no block " + name)
		}
		picked = append(picked, blocks[i])
	}
	return picked
}

// forget makes states alike that differ only in how far counters have gone: of a wake word it matters only whether it is
// still what somebody remembers, and of a generation also whether it is odd. Counters never come round in a model.
func (s *state) forget() {
	buffered := uint32(0)
	for i := range s.processes {
		if w := s.processes[i].pending; w != noWord {
			buffered |= 1 << w
		}
	}
	for i := range s.processes {
		w, p := &s.words[private(i)], &s.processes[i]
		p.private = same(p.private, *w, 1)
		*w = 1
	}
	for i := range uint8(modelPeers) {
		if buffered&(1<<wakeWord(i)|1<<blockedWord(i)) == 0 {
			s.forgetCounters(roleProducer, i, wakeWord(i), blockedWord(i))
		}
		if buffered&(1<<roomWord(i)|1<<parkedWord(i)) == 0 {
			s.forgetCounters(roleConsumer, i, roomWord(i), parkedWord(i))
		}
	}
}

// forgetCounters does it for the words of one producer or consumer.
func (s *state) forgetCounters(role, me, wake, generation uint8) {
	w, g := s.words[wake], s.words[generation]
	parity := 2 + g%2
	s.words[wake], s.words[generation] = 1, parity
	for i := range s.processes {
		p := &s.processes[i]
		switch {
		case p.pc == pcDead || p.role == roleDaemon:
		case p.role != role:
			p.wake[me] = same(p.wake[me], w, 1)
			p.last[me] = same(p.last[me], g, parity)
			if p.seen[me] != 0 {
				p.seen[me] = max(1, same(p.seen[me], g, parity))
			}
		case p.me == me:
			p.own, p.generation = 1, parity
		}
	}
}

// same is the canonical value if old is the present one, else 0.
func same(old, present, canonical uint8) uint8 {
	if old == present {
		return canonical
	}
	return 0
}
