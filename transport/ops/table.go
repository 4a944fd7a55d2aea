package ops

import (
	"cmp"
	"maps"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// other is the label of what has no series of its own, taken together. Names of queues and rings begin with a slash.
const other = "other"

// figure is one number that each queue, or each ring, has.
type figure[T any] struct {
	each  *family // the first label is the name
	all   *family // of all together, without that label; nil: there is none
	label string  // value of the second label, if each has one
	// value returns the number; ok false: this one has none.
	value   func(*T) (v float64, ok bool)
	largest bool // of a gauge: several are worth their largest, not their sum
	place   int  // of a counter: where it is in counts; of a gauge -1
	second  []*dto.LabelPair
}

// counts are the counters of a queue, a ring or a member of a ring, each at a place of its own.
type counts [20]float64

// table turns things of one kind into samples. The first so many have series of their own, and what is left is one more.
// Counters of the others, and of all, are sums of what each has grown by since the daemon began, from scrape to scrape:
// they do not fall when a queue is removed, and a daemon that is started again begins at 0, as whoever computes rates
// expects of it.
type table[T any] struct {
	figures []figure[T]
	name    func(*T) string
	id      func(*T) uint64 // never used again; the lowest have series of their own
	most    int             // series for each figure, and one

	grown  growth[uint64]
	others counts
	all    counts
	beyond bool // there were others once
}

// newTable returns a table of figures that are not to be changed.
func newTable[T any](most int, name func(*T) string, id func(*T) uint64, figures []figure[T]) *table[T] {
	t := &table[T]{figures: figures, name: name, id: id, most: most}
	place := 0
	for n := range figures {
		f := &figures[n]
		f.place = -1
		if f.each.kind == dto.MetricType_COUNTER {
			f.place = place
			place++
		}
		if f.label != "" {
			f.second = []*dto.LabelPair{pair(f.each.labels[1], f.label)}
		}
	}
	return t
}

// begin remembers what things have counted before the daemon began.
func (t *table[T]) begin(things []T) {
	for i := range things {
		now := t.counts(&things[i])
		t.grown.begin(t.id(&things[i]), &now)
	}
}

func (t *table[T]) counts(thing *T) (now counts) {
	for n := range t.figures {
		if f := &t.figures[n]; f.place >= 0 {
			now[f.place], _ = f.value(thing)
		}
	}
	return now
}

// collect writes samples of all things, which it sorts. It returns how many have no series of their own.
func (t *table[T]) collect(to *samples, things []T) int {
	slices.SortFunc(things, func(a, b T) int { return cmp.Compare(t.id(&a), t.id(&b)) })
	all, others := make([]float64, len(t.figures)), make([]float64, len(t.figures)) // of gauges
	for i := range things {
		thing, own := &things[i], i < t.most
		name := pair(t.figures[0].each.labels[0], t.name(thing))
		for n := range t.figures {
			f := &t.figures[n]
			v, ok := f.value(thing)
			if !ok {
				continue
			}
			if own {
				f.sample(to, v, name)
			}
			if f.place >= 0 {
				continue
			}
			f.join(&all[n], v)
			if !own {
				f.join(&others[n], v)
			}
		}
		now := t.counts(thing)
		grown := t.grown.since(t.id(thing), &now)
		t.all.add(&grown)
		if !own {
			t.others.add(&grown)
		}
	}
	t.grown.next()
	t.beyond = t.beyond || len(things) > t.most
	for n := range t.figures {
		f, all, others := &t.figures[n], all[n], others[n]
		if f.place >= 0 {
			all, others = t.all[f.place], t.others[f.place]
		}
		if f.all != nil {
			to.sample(f.all, all).labels(f.second...)
		}
		if t.beyond {
			f.sample(to, others, pair(f.each.labels[0], other))
		}
	}
	return max(0, len(things)-t.most)
}

// sample writes the figure of what has that name.
func (f *figure[T]) sample(to *samples, v float64, name *dto.LabelPair) {
	if f.second == nil {
		to.sample(f.each, v).labels(name)
	} else {
		to.sample(f.each, v).labels(name, f.second[0])
	}
}

// join adds one gauge to those of several.
func (f *figure[T]) join(to *float64, v float64) {
	if f.largest {
		*to = max(*to, v)
	} else {
		*to += v
	}
}

func (c *counts) add(grown *counts) {
	for n, v := range grown {
		c[n] += v
	}
}

// growth remembers counters from one scrape to the next. The zero growth remembers nothing.
type growth[K comparable] struct {
	round uint64
	seen  map[K]*remembered
}

type remembered struct {
	round  uint64
	counts counts
}

// begin remembers counters, unless it does already: growth is from there.
func (g *growth[K]) begin(key K, now *counts) *remembered {
	if g.seen == nil {
		g.seen = map[K]*remembered{}
	}
	r := g.seen[key]
	if r == nil {
		r = &remembered{g.round, *now}
		g.seen[key] = r
	}
	return r
}

// since returns what counters have grown by since the scrape before: all that they count, if they are new. One that
// fell was reset.
func (g *growth[K]) since(key K, now *counts) (grown counts) {
	before := g.begin(key, &counts{})
	for n, v := range now {
		grown[n] = v
		if v >= before.counts[n] {
			grown[n] = v - before.counts[n]
		}
	}
	before.round, before.counts = g.round, *now
	return grown
}

// next ends a scrape: what was not in it is gone.
func (g *growth[K]) next() {
	maps.DeleteFunc(g.seen, func(_ K, r *remembered) bool { return r.round != g.round })
	g.round++
}
