package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Outcome says what a crash takes with it.
type Outcome int

const (
	// SomeLost is a power cut: each thing that was not synced is there or not.
	SomeLost Outcome = iota
	// AllLost is a power cut that leaves only what was synced.
	AllLost
	// NoneLost is the end of the process alone, as by kill -9. What was not
	// synced is still not durable, and the next power cut may take it.
	NoneLost
)

// Crash returns the file system as it is found after a crash whose outcome
// chance decides: SomeLost in half of the cases, else AllLost or NoneLost.
// The old one is dead from then on, with all its files; crashing it once more
// returns the same as the first time. The new one takes rng over.
func (c *Crash) Crash(rng *rand.Rand) *Crash {
	outcome := []Outcome{SomeLost, SomeLost, AllLost, NoneLost}[rng.IntN(4)]
	return c.CrashWith(outcome, rng)
}

// CrashWith is Crash with a given outcome.
func (c *Crash) CrashWith(outcome Outcome, rng *rand.Rand) *Crash {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		return c.next
	}
	c.down = true
	// The old one's files cannot reach the directories and inodes any more,
	// so that they need not be copied.
	c.next = &Crash{rng: rng, dirs: c.dirs, capacity: c.capacity}
	c.dirs = nil
	if outcome != NoneLost {
		l := newLottery(rng)
		l.lose = outcome == AllLost
		c.next.settle(l)
	}
	c.next.recount()
	return c.next
}

// settle decides about everything that is not durable. It goes through all in
// a fixed order, so that a seed says what happens.
func (c *Crash) settle(l lottery) {
	for _, path := range slices.Sorted(maps.Keys(c.dirs)) {
		d := c.dirs[path]
		d.settle(l.upTo(len(d.log)))
		for _, name := range slices.Sorted(maps.Keys(d.entries)) {
			d.entries[name].settle(l)
		}
	}
}

// recount finds out what space is used and by whom; nothing is open.
func (c *Crash) recount() {
	for _, d := range c.dirs {
		// An entry that only a lost remove or rename hid has come back.
		for _, op := range d.log {
			if op.create != nil {
				op.create.linked, op.create.handles = false, 0
			}
		}
		for _, f := range d.durable {
			f.linked, f.handles = false, 0
		}
		for _, f := range d.entries {
			f.linked, f.handles = true, 0
			c.used += f.pagesUsed()
		}
	}
}

// settle leaves the file as a power cut does.
func (f *inode) settle(l lottery) {
	f.now = f.settleExtent(l)
	f.older = nil
	slices.Sort(f.dirty)
	for _, i := range f.dirty {
		f.pages[i].settle(l)
	}
	f.dirty = nil
	f.cut()
}

// settleExtent decides about the size.
func (f *inode) settleExtent(l lottery) extent {
	all := append(f.older, f.now)
	durable := all[0]
	e := all[l.pick(len(f.older))]
	if e.size > durable.size && l.rng.IntN(2) == 0 {
		// The file system was not done growing the file.
		part := durable.size + l.rng.Int64N(e.size-durable.size)
		e.size = min(e.size, (part+sectorSize-1)/sectorSize*sectorSize)
		e.reserved = min(e.reserved, pagesOf(e.size))
	}
	return e
}

// settle decides about each sector.
func (pg *page) settle(l lottery) {
	for s, older := range pg.older {
		version := l.pick(len(older))
		if len(older) == 0 || version == len(older) {
			continue
		}
		if pg.data == nil {
			pg.data = new([pageSize]byte)
		}
		sector := pg.sector(s)
		clear(sector)
		copy(sector, older[version])
	}
	pg.older, pg.stuck = nil, 0
}

// cut removes what lies behind the size, and sets which pages are charged.
func (f *inode) cut() {
	for i, pg := range f.pages {
		at := i * pageSize
		switch {
		case at >= f.now.size:
			delete(f.pages, i)
			continue
		case pg.data != nil && at+pageSize > f.now.size:
			clear(pg.data[f.now.size-at:])
		}
		pg.charged = i >= f.now.reserved && (pg.charged || pg.data != nil)
		f.dropIfEmpty(i, pg)
	}
}

// lottery decides what a power cut leaves. That some cuts lose nearly all and
// some nearly nothing finds more than if each took half.
type lottery struct {
	rng  *rand.Rand
	kept float64 // the probability with which a thing is not the durable version
	lose bool    // nothing is kept
}

func newLottery(rng *rand.Rand) lottery { return lottery{rng: rng, kept: rng.Float64()} }

// pick chooses a version: 0 is the durable one and n the present one.
func (l lottery) pick(n int) int {
	if n == 0 || l.lose || l.rng.Float64() >= l.kept {
		return 0
	}
	return 1 + l.rng.IntN(n)
}

// upTo chooses how many of n changes in a row took place.
func (l lottery) upTo(n int) int {
	if n == 0 || l.lose {
		return 0
	}
	return l.rng.IntN(n + 1)
}
