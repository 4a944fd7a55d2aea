package shm_test

import (
	"fmt"
	"testing"
)

// scenario is who is there, and what happens.
type scenario struct {
	name      string
	messages  [modelPeers]uint8 // that each lane's producer publishes; 0: there is no such producer
	consumers int
	late      string // who joins later: "p1" the second producer, "c0", "c1" a consumer
	dies      string // who may die at any moment: "p0", "c0"
	replaced  bool   // the late consumer joins when the first has died
	capacity  uint8  // of a lossless lane, in messages
	spurious  uint8  // waits that may return without a reason
	buffered  bool
	exact     bool // see model
	restarted bool // the daemon was, and the first producer is not a member again yet
}

// model puts a scenario together, of processes that follow a variant of the protocol.
func (c scenario) model(v *variant) *model {
	m := &model{name: c.name, restarted: c.restarted, quietOffer: v.quietOffer, buffered: c.buffered, exact: c.exact || v.slotGeneration}
	m.start.spurious = c.spurious
	var news []announcement
	add := func(g program, p process, name string, bit uint8, loss func(uint8) uint8) {
		who := len(m.programs)
		p.pending = noWord
		if g.mortal = c.dies == name; g.mortal && !v.silentDeath {
			news = append(news, announcement{g.name + " died", func(s *state) bool { return s.processes[who].pc == pcDead }, loss, -1, -1})
		}
		if c.restarted && name == "p0" {
			p.page = oldEpochWord
			news = append(news, announcement{g.name + " is adopted", nil, func(table uint8) uint8 { return table | bit }, -1, who})
		} else if c.late == name {
			p.pc = pcAbsent
			join := announcement{g.name + " joins", nil, func(table uint8) uint8 { return table | bit }, who, -1}
			if c.replaced {
				news = append(news, join)
			} else {
				news = append([]announcement{join}, news...)
			}
		} else {
			m.start.table |= bit
		}
		m.programs = append(m.programs, g)
		m.start.processes[who] = p
	}
	var producers, consumers []int
	for lane, n := range c.messages {
		if n > 0 {
			producers = append(producers, len(m.programs))
			add(producer(v, uint8(lane), c.capacity), process{role: roleProducer, me: uint8(lane), left: n}, fmt.Sprint("p", lane), 1<<lane,
				func(table uint8) uint8 { return table })
		}
	}
	for i := range c.consumers {
		consumers = append(consumers, len(m.programs))
		bit := uint8(1) << (4 + i)
		add(consumer(v, uint8(i), c.capacity > 0), process{role: roleConsumer, me: uint8(i)}, fmt.Sprint("c", i), bit,
			func(table uint8) uint8 { return table &^ bit })
		for lane := range c.messages {
			if c.late == fmt.Sprint("c", i) {
				m.start.words[cursorWord(uint8(i), uint8(lane))] = noCursor
			}
		}
	}
	for i := len(m.programs); i < modelProcesses; i++ {
		m.start.processes[i].pending = noWord
	}
	if len(news) > 0 {
		who := len(m.programs)
		m.programs = append(m.programs, daemon(v, news))
		m.start.processes[who].pending = noWord
	}
	for _, who := range producers {
		if m.start.processes[who].page == epochWord {
			m.start.processes[who].mapped.set = m.start.table >> 4
		}
	}
	for _, who := range consumers {
		m.start.processes[who].mapped.set = m.start.table & 0xf
	}
	m.fetch = func(s *state, who int) members {
		if who < len(producers) {
			return members{s.words[epochWord], s.table >> 4}
		}
		return members{s.words[epochWord], s.table & 0xf}
	}
	m.invariant = func(s *state) string { return c.overrun(s, consumers) }
	m.finally = func(s *state) string { return c.unfinished(s, producers, consumers) }
	return m
}

// overrun says which message was overwritten although a consumer held it.
func (c scenario) overrun(s *state, consumers []int) string {
	if c.capacity == 0 {
		return ""
	}
	for i, who := range consumers {
		for lane := range uint8(modelPeers) {
			if s.processes[who].pc != pcDead && s.words[cursorWord(uint8(i), lane)] != noCursor && c.late != fmt.Sprint("c", i) &&
				s.words[publishedWord(lane)]-s.words[cursorWord(uint8(i), lane)] > c.capacity {
				return fmt.Sprintf("lane %d overwrote what consumer %d has not read", lane, i)
			}
		}
	}
	return ""
}

// unfinished says who has work but will never do it.
func (c scenario) unfinished(s *state, producers, consumers []int) string {
	for lane, who := range producers {
		switch p := &s.processes[who]; p.pc {
		case pcDone, pcDead:
		case pcAsleep:
			return fmt.Sprintf("producer %d sleeps for ever", lane)
		default:
			return fmt.Sprintf("producer %d cannot go on", lane)
		}
	}
	for i, who := range consumers {
		p := &s.processes[who]
		switch p.pc {
		case pcDead, pcAbsent: // absent: it would have taken the place of one that did not die
			continue
		case pcAsleep:
		default:
			return fmt.Sprintf("consumer %d cannot go on", i)
		}
		for lane := range uint8(modelPeers) {
			if s.table>>lane&1 != 0 && p.next[lane] != s.words[publishedWord(lane)] {
				return fmt.Sprintf("lost wake-up: consumer %d sleeps for ever and has not read all of lane %d", i, lane)
			}
		}
	}
	return ""
}

// scenarios are those in which the protocol must hold.
var scenarios = []scenario{
	{name: "one producer, one consumer", messages: [2]uint8{5}, consumers: 1, spurious: always},
	{name: "two producers", messages: [2]uint8{2, 2}, consumers: 1, spurious: always},
	{name: "two consumers", messages: [2]uint8{2}, consumers: 2},
	{name: "a consumer joins", messages: [2]uint8{4}, consumers: 1, late: "c0", spurious: always},
	{name: "a second consumer joins", messages: [2]uint8{1}, consumers: 2, late: "c1"},
	{name: "a producer joins", messages: [2]uint8{1, 2}, consumers: 1, late: "p1", spurious: always},
	{name: "a producer dies", messages: [2]uint8{2, 1}, consumers: 1, dies: "p0"},
	{name: "a producer joins, another dies", messages: [2]uint8{1, 1}, consumers: 1, late: "p1", dies: "p0"},
	{name: "a consumer dies and another takes its slot", messages: [2]uint8{3}, consumers: 2, late: "c1", dies: "c0", replaced: true},
	{name: "lossless, one producer, one consumer", messages: [2]uint8{4}, consumers: 1, capacity: 1, spurious: always},
	{name: "lossless, two messages fit", messages: [2]uint8{5}, consumers: 1, capacity: 2, spurious: always},
	{name: "lossless, two consumers", messages: [2]uint8{2}, consumers: 2, capacity: 1},
	{name: "lossless, two producers", messages: [2]uint8{2, 1}, consumers: 1, capacity: 1},
	{name: "lossless, a consumer dies", messages: [2]uint8{3}, consumers: 1, dies: "c0", capacity: 1, spurious: always},
	{name: "lossless, a consumer joins", messages: [2]uint8{3}, consumers: 1, late: "c0", capacity: 1, spurious: always},
	{name: "lossless, a producer joins", messages: [2]uint8{1, 1}, consumers: 1, late: "p1", capacity: 1},
}

func TestWakeProtocolLosesNoWakeUp(t *testing.T) {
	for _, c := range scenarios {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.model(&variant{}).mustHold(t)
		})
	}
}

// Members are fetched by a goroutine of their own, which offers them and wakes who waits.
func TestWakeProtocolHoldsWhenMembersAreOffered(t *testing.T) {
	for _, c := range []scenario{
		{name: "a consumer joins", messages: [2]uint8{2}, consumers: 1, late: "c0"},
		{name: "a producer joins", messages: [2]uint8{0, 2}, consumers: 1, late: "p1"},
		{name: "a producer dies", messages: [2]uint8{2}, consumers: 1, dies: "p0"},
		restartScenario,
		{name: "lossless, a consumer dies", messages: [2]uint8{3}, consumers: 1, dies: "c0", capacity: 1},
		{name: "lossless, a consumer joins", messages: [2]uint8{2}, consumers: 1, late: "c0", capacity: 1},
		{name: "lossless, a producer joins", messages: [2]uint8{0, 2}, consumers: 1, late: "p1", capacity: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.model(&offered).mustHold(t)
		})
	}
}

// The processors' store buffers hold back what is stored without a fence: all but the words for which the protocol asks for
// sequential consistency.
func TestWakeProtocolHoldsWithStoreBuffers(t *testing.T) {
	for _, c := range []scenario{
		{name: "one producer, one consumer", messages: [2]uint8{3}, consumers: 1, spurious: 1},
		{name: "two consumers", messages: [2]uint8{1}, consumers: 2},
		{name: "a consumer joins", messages: [2]uint8{3}, consumers: 1, late: "c0"},
		{name: "a producer dies", messages: [2]uint8{2}, consumers: 1, dies: "p0"},
		{name: "lossless, one producer, one consumer", messages: [2]uint8{3}, consumers: 1, capacity: 1, spurious: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.buffered = true
			c.model(&variant{}).mustHold(t)
		})
	}
}

// Everybody comes to an end, however the others run: here counters keep their values, and whoever went round in circles
// would make ever new states.
func TestWakeProtocolComesToAnEnd(t *testing.T) {
	for _, c := range []scenario{
		{name: "one producer, one consumer", messages: [2]uint8{3}, consumers: 1, spurious: 1},
		{name: "a consumer joins", messages: [2]uint8{2}, consumers: 1, late: "c0", spurious: 1},
		{name: "lossless, one producer, one consumer", messages: [2]uint8{2}, consumers: 1, capacity: 1},
		{name: "lossless, a consumer dies", messages: [2]uint8{2}, consumers: 1, dies: "c0", capacity: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.exact = true
			c.model(&variant{}).mustHold(t)
		})
	}
}
