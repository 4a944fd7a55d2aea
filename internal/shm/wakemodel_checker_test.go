package shm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A model checker for small programs that share words. It follows every order in which their accesses can
// happen, breadth first, so that what it finds is as short as it can be.

// model is what can happen, and from where on.
type model struct {
	name       string
	start      state
	programs   []program
	buffered   bool                            // stores that are not fenced wait in a buffer, as on x86
	exact      bool                            // counters keep their values: so a round that never ends is one that never ends here, too
	restarted  bool                            // the daemon was, and the first producer is not a member again yet
	quietOffer bool                            // an offer wakes none but the member itself
	invariant  func(s *state) string           // what is wrong with a state
	finally    func(s *state) string           // what is wrong with a state after which nothing need happen
	fetch      func(s *state, who int) members // what the daemon answers a process
}

// successor is a state that can come next, and what happened. What is optional need not happen, ever.
type successor struct {
	state    state
	who      int
	what     string
	optional bool
}

// successors are all that can come next. They take the place of those that the slice holds.
func (m *model) successors(s *state, all []successor) []successor {
	all = all[:0]
	add := func(who int, what string, optional bool) *successor {
		if len(all) == cap(all) {
			all = slices.Grow(all, 16)
		}
		all = all[:len(all)+1]
		c := &all[len(all)-1]
		c.state, c.who, c.what, c.optional = *s, who, what, optional
		return c
	}
	for who := range m.programs {
		g, p := &m.programs[who], &s.processes[who]
		if p.pending != noWord {
			c := add(who, "its store reaches memory", false)
			q := &c.state.processes[who]
			c.state.words[p.pending], q.pending, q.value = p.value, noWord, 0
		}
		if p.asked || p.helper != helperIdle {
			c := add(who, "", false)
			c.what = m.help(&c.state, who)
		}
		switch p.pc {
		case pcAbsent, pcDone, pcDead:
			continue
		case pcAsleep:
			m.wakeUp(who, p.woken, s.spurious, add)
		default:
			if !m.advance(&add(who, g.blocks[p.pc].name, false).state, who) {
				all = all[:len(all)-1]
			}
		}
		if g.mortal {
			q := &add(who, "dies", true).state.processes[who]
			*q = process{role: p.role, me: p.me, pc: pcDead, published: p.published, pending: p.pending, value: p.value}
		}
	}
	return all
}

// wakeUp ends a wait, for a reason or without one.
func (m *model) wakeUp(who int, woken bool, spurious uint8, add func(who int, what string, optional bool) *successor) {
	var c *successor
	switch {
	case woken:
		c = add(who, "is awake", false)
	case spurious > 0:
		c = add(who, "its wait returns without a reason", true)
		if spurious != always {
			c.state.spurious--
		}
	default:
		return
	}
	g, p := &m.programs[who], &c.state.processes[who]
	p.pc, p.queued, p.woken = g.index(g.awake), 0, false
}

// mustGoOn says whether something will happen, sooner or later.
func mustGoOn(choices []successor) bool {
	for i := range choices {
		if !choices[i].optional {
			return true
		}
	}
	return false
}

// link says how a state was come to.
type link struct {
	parent int32
	choice uint8
}

// outcome is what exploring a model came to.
type outcome struct {
	states int
	wrong  string   // empty: nothing is
	trace  []string // how it came to that
}

// explore visits every state of a model, or all up to the first in which something is wrong.
func (m *model) explore() outcome {
	type visit struct {
		state state
		at    int32
	}
	for who := range m.programs {
		m.programs[who].pass(&m.start.processes[who])
	}
	start := m.start
	if !m.exact {
		start.forget()
	}
	known := map[state]struct{}{start: {}}
	links := []link{{parent: -1}}
	level, next := []visit{{start, 0}}, []visit(nil)
	var choices []successor
	for len(level) > 0 {
		for i := range level {
			v := &level[i]
			choices = m.successors(&v.state, choices)
			wrong := m.invariant(&v.state)
			if wrong == "" && !mustGoOn(choices) {
				wrong = m.finally(&v.state)
			}
			if wrong != "" {
				return outcome{len(known), wrong, m.trace(links, v.at)}
			}
			for i := range choices {
				s := &choices[i].state
				if !m.exact {
					s.forget()
				}
				before := len(known)
				if known[*s] = struct{}{}; len(known) == before {
					continue
				}
				links = append(links, link{v.at, uint8(i)})
				next = append(next, visit{*s, int32(len(links) - 1)})
			}
		}
		if len(known) > modelStates {
			return outcome{len(known), "it never ends: somebody goes round in circles", nil}
		}
		level, next = next, level[:0]
	}
	return outcome{states: len(known)}
}

// trace goes the way to a state once more.
func (m *model) trace(links []link, at int32) []string {
	var way []uint8
	for ; links[at].parent >= 0; at = links[at].parent {
		way = append(way, links[at].choice)
	}
	lines := make([]string, 0, len(way))
	s := m.start
	for _, choice := range slices.Backward(way) {
		c := m.successors(&s, nil)[choice]
		lines = append(lines, fmt.Sprintf("%-50s %s", m.programs[c.who].name+": "+c.what, changes(&s, &c.state)))
		s = c.state
	}
	return lines
}

// changes names the words that differ.
func changes(before, after *state) string {
	var b strings.Builder
	for i := range before.words {
		if before.words[i] != after.words[i] {
			fmt.Fprintf(&b, " %s=%d", wordName(uint8(i)), after.words[i])
		}
	}
	return b.String()
}

// mustHold fails unless nothing can go wrong.
func (m *model) mustHold(t *testing.T) {
	t.Helper()
	o := m.explore()
	if o.wrong != "" {
		t.Errorf("%s: %s:\n%s", m.name, o.wrong, strings.Join(o.trace, "\n"))
	}
	t.Logf("%s: %d states", m.name, o.states)
}

// mustFail fails unless something can go wrong.
func (m *model) mustFail(t *testing.T) {
	t.Helper()
	o := m.explore()
	if o.wrong == "" || o.trace == nil {
		t.Errorf("%s: nothing goes wrong in %d states: %s", m.name, o.states, o.wrong)
		return
	}
	t.Logf("%s: %s, after %d states:\n%s", m.name, o.wrong, o.states, strings.Join(o.trace, "\n"))
}
