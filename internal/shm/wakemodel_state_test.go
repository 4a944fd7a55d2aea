package shm_test

import "slices"

// The states of a model, and what one step of one process makes of them.

const (
	modelPeers     = 2 // lanes, and consumers, of a model
	modelProcesses = 4
	modelWords     = 20        // see wordName
	modelStates    = 3_000_000 // a model that has more is taken for one that never ends
	noWord         = 255       // an empty store buffer
	noCursor       = 255       // a cursor that was not stored yet
	always         = 255       // as often as it likes
)

// members is what a member knows of the others: their epoch, and a bit for each.
type members struct{ epoch, set uint8 }

// process is what one process knows by itself: its registers.
type process struct {
	role, me   uint8             // which lane's producer or which consumer it is
	pc, at     uint8             // the block it is in, and the peer that block is at
	left       uint8             // messages still to publish
	published  uint8             // messages it has published
	page       uint8             // the word of the epoch in the members page that it has mapped
	mapped     members           // those it goes by
	newer      bool              // there is a newer epoch
	epoch      uint8             // the epoch, as it remembers it for its wait
	private    uint8             // its private word, likewise
	wake       [modelPeers]uint8 // its peers' wake words, likewise
	holds      uint8             // a bit for each consumer that leaves it no room
	changed    uint8             // a bit for each lane of which it has read something just now
	next       [modelPeers]uint8 // messages of each lane that it has read
	generation uint8             // odd while it sleeps or is about to
	own        uint8             // its wake word
	seen, last [modelPeers]uint8 // generations of its peers: odd ones just seen, and those it woke last
	need       bool              // somebody is to be woken
	queued     uint32            // the futexes it is queued on: a bit for each word
	woken      bool              // a wake met it since it was queued
	pulled     uint8             // the epoch for which it asked its helper last
	asked      bool              // its helper is to fetch the members
	helper     uint8             // how far its helper is
	fetched    members           // what the helper was answered
	offered    members           // what the helper has offered
	pending    uint8             // its store buffer, of one entry: the word
	value      uint8             // and the value
}

// state is a model at one moment. It has no pointers, so that it can be the key of a map.
type state struct {
	words     [modelWords]uint8
	table     uint8 // of the daemon: a bit for each lane, and from bit 4 on for each consumer
	spurious  uint8 // how many waits may still return without a reason
	processes [modelProcesses]process
}

// Roles.
const (
	roleDaemon = iota
	roleProducer
	roleConsumer
)

// Program counters that are no block's.
const (
	pcAbsent = 250 + iota // did not join yet
	pcAsleep
	pcDone
	pcDead
)

// block is one access to shared memory, or one for each peer.
type block struct {
	name string
	run  func(x *step)
	skip func(p *process) bool // nothing to do here, not even an access
}

// program is what a process does: its blocks in order, and then again from the first.
type program struct {
	name   string
	blocks []block
	awake  string           // the block after a wait
	wrap   func(p *process) // runs before the first block comes again
	mortal bool             // may die anywhere
}

// index returns the block of that name.
func (g *program) index(name string) uint8 {
	i := slices.IndexFunc(g.blocks, func(b block) bool { return b.name == name })
	if i < 0 {
		panic("no block " + name)
	}
	return uint8(i)
}

// step is one step of one process, under way.
type step struct {
	m      *model
	s      *state
	p      *process
	who    int
	stuck  bool // it cannot be made now
	stay   bool // the block goes on with its next peer
	target int  // the block to go on with; negative: the next one
}

// load reads a word, or what waits for it in the own store buffer.
func (x *step) load(word uint8) uint8 {
	if x.p.pending == word {
		return x.p.value
	}
	return x.s.words[word]
}

// storeFenced is a store that no later access overtakes, such as XCHG.
func (x *step) storeFenced(word, value uint8) {
	if x.drained() {
		x.s.words[word] = value
	}
}

// store is a store that later loads may overtake.
func (x *step) store(word, value uint8) {
	switch {
	case !x.m.buffered:
		x.s.words[word] = value
	case x.drained():
		x.p.pending, x.p.value = word, value
	}
}

// drained says whether the store buffer is empty. The step cannot be made before it is.
func (x *step) drained() bool {
	x.stuck = x.stuck || x.p.pending != noWord
	return !x.stuck
}

// futexWake is FUTEX_WAKE of all that sleep on a word. The kernel has a full barrier there.
func (x *step) futexWake(word uint8) {
	if x.drained() {
		x.s.futexWake(word)
	}
}

func (s *state) futexWake(word uint8) {
	for i := range s.processes {
		if q := &s.processes[i]; q.queued&(1<<word) != 0 {
			q.queued, q.woken = 0, true
		}
	}
}

// compareAndQueue is what futex_waitv does for one of its words. The kernel has a full barrier there.
// It says whether the word was as expected.
func (x *step) compareAndQueue(word, expected uint8) bool {
	if !x.drained() {
		return true
	}
	if x.s.words[word] != expected {
		x.p.queued, x.p.woken = 0, false
		return false
	}
	if !x.p.woken {
		x.p.queued |= 1 << word
	}
	return true
}

// each runs one access for the next peer of a set, in one step, and stays while there are more.
func (x *step) each(set uint8, access func(peer uint8)) {
	if set>>x.p.at == 0 {
		return
	}
	for set>>x.p.at&1 == 0 {
		x.p.at++
	}
	access(x.p.at)
	x.p.at++
	x.stay = set>>x.p.at != 0
}

func (x *step) goTo(name string) { x.target = int(x.m.programs[x.who].index(name)) }

// advance makes one step of a process, if it can make one.
func (m *model) advance(s *state, who int) bool {
	x := step{m: m, s: s, p: &s.processes[who], who: who, target: -1}
	g := &m.programs[who]
	pc := x.p.pc
	g.blocks[pc].run(&x)
	switch {
	case x.stuck:
		return false
	case x.p.pc != pc: // it sleeps, or has ended
		x.p.at = 0
		return true
	case x.target >= 0:
		x.p.pc, x.p.at = uint8(x.target), 0
	case !x.stay:
		g.next(x.p)
	}
	g.pass(x.p)
	return true
}

// next goes to the next block.
func (g *program) next(p *process) {
	p.pc, p.at = p.pc+1, 0
	if int(p.pc) == len(g.blocks) {
		p.pc = 0
		if g.wrap != nil {
			g.wrap(p)
		}
	}
}

// pass goes past blocks that have nothing to do.
func (g *program) pass(p *process) {
	for p.pc < pcAbsent && g.blocks[p.pc].skip != nil && g.blocks[p.pc].skip(p) {
		g.next(p)
	}
}

// How far a helper is.
const (
	helperIdle = iota
	helperAnswered
	helperOffered
	helperChanged
	helperInterrupted // and further only with a new members page
	helperWoke
)

// help makes one step of a process's helper: it asks the daemon for the members, offers them, changes the private
// word and wakes who sleeps on it. A producer's then wakes the lane's sleepers, if the page is another one: the epoch of
// the old one rose no more, whoever came meanwhile.
func (m *model) help(s *state, who int) string {
	p := &s.processes[who]
	p.helper++
	switch p.helper {
	case helperAnswered:
		p.asked, p.fetched = false, m.fetch(s, who)
		return "its helper is told the members"
	case helperOffered:
		p.offered, p.fetched = p.fetched, members{}
		return "its helper offers them"
	case helperChanged:
		s.words[private(who)]++
		return "its helper changes the private word"
	case helperInterrupted:
		s.futexWake(private(who))
		if p.role != roleProducer || !m.restarted || m.quietOffer {
			p.helper = helperIdle
		}
		return "its helper wakes it"
	case helperWoke:
		p.own++
		s.words[wakeWord(p.me)] = p.own
		return "its helper changes the lane's wake word"
	default:
		p.helper = helperIdle
		s.futexWake(wakeWord(p.me))
		return "its helper wakes the lane's sleepers"
	}
}
