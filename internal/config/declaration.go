package config

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// QueueDeclaration is a queue that is to exist, with those settings that the configuration names. The others are nil.
type QueueDeclaration struct {
	Name              string // with its slash
	MaxMessages       *int64
	MaxBytes          *int64
	MaxMessageSize    *int // bytes
	Lease             *time.Duration
	MaxAttempts       *int
	DeadLetter        *string // a queue's name, or ""
	DeadLetterExpired *bool
	Overflow          *string // reject, block or drop-oldest
	Durability        *string // journal or memory
	BackoffInitial    *time.Duration
	BackoffMax        *time.Duration
	DedupWindow       *time.Duration
	MaxDedupIDs       *int64
	TypeNames         map[string]int64
	Binds             []BindDeclaration
	Kernel            KernelDeclaration
	Mode              *uint32 // permission bits
	OwnerUID          *uint32
	GroupGID          *uint32
}

// BindDeclaration is where a queue hands copies on.
type BindDeclaration struct {
	To       string // a queue's name
	Type     *string
	Selector SelectorDeclaration // what Type says
	Overflow *string             // refuse or skip
}

// SelectorDeclaration chooses messages by type.
type SelectorDeclaration struct {
	Word  string  // "": any of Types; "upto": the lowest up to the one there is; "not": all but that
	Types []int64 // none: all messages
}

// KernelDeclaration is what is said of a queue's POSIX message queues.
type KernelDeclaration struct {
	Mode        *string // auto, in, out, both or none
	MaxMessages *int
	MessageSize *int // bytes
	Type        *int64
	TypePrefix  *bool
}

// RingDeclaration is a ring that is to exist, with those settings that the configuration names. The others are nil.
type RingDeclaration struct {
	Name       string // with its slash
	Capacity   *int64 // bytes
	MaxMessage *int64 // bytes; 0: as large as the capacity allows
	Policy     *string
	Retain     *int64 // bytes
	Stall      *time.Duration
	Mode       *uint32 // permission bits
	OwnerUID   *uint32
	GroupGID   *uint32
}

// ringFrameHeader is the bytes before each message in a lane, as in the layout of rings.
const ringFrameHeader = 32

// number is the default of a key that is a number.
func number(n int64) string { return strconv.FormatInt(n, 10) }

func enterQueue(l *loader, p *place, name string) (*place, func()) {
	d := &QueueDeclaration{Name: name}
	return &place{queue: d}, l.declare("queue", name, d.check, func() { p.config.Queues = append(p.config.Queues, *d) })
}

func enterRing(l *loader, p *place, name string) (*place, func()) {
	d := &RingDeclaration{Name: name}
	return &place{ring: d}, l.declare("ring", name, d.check, func() { p.config.Rings = append(p.config.Rings, *d) })
}

// declare begins the declaration of a thing. What it returns is called when the settings were read: it checks what they
// mean together, and adds the declaration. If its owner or group is not known it is left out as a whole: with another owner
// or group, others might have access.
func (l *loader) declare(thing, name string, check func(problem func(key, format string, args ...any)), add func()) (done func()) {
	path, good := join(thing+"s", name), goodName(name)
	if !good {
		l.problem(path, "%s", badName(thing, name))
	}
	problems, leftOut := len(l.problems), l.leftOut
	return func() {
		if len(l.problems) == problems {
			check(func(key, format string, args ...any) { l.problem(join(path, key), format, args...) })
		}
		switch {
		case !good:
		case l.leftOut == leftOut:
			add()
		case l.lenient:
			l.unknown(path, "its owner or group is not known, and without them others might have access")
		}
	}
}

func putTypeName(l *loader, p *place, name string, v any) {
	path := join(join("queues", p.queue.Name)+".type_names", name)
	if !typeNamePattern.MatchString(name) {
		l.problem(path, "type name %s: it must be a letter or _ and then up to %d of A-Z a-z 0-9 . _ -", quote(name), limits.TypeNameLength-1)
		return
	}
	for other, t := range p.queue.TypeNames {
		if t == v.(int64) {
			l.problem(path, "%s stands for %d too: a type has one name", other, t)
			return
		}
	}
	if len(p.queue.TypeNames) == limits.TypeNames {
		l.problem(path, "a queue may have %d type names", limits.TypeNames)
		return
	}
	store(&p.queue.TypeNames, name, v)
}

func enterBind(l *loader, p *place, name string) (*place, func()) {
	path, queue := join(join("queues", p.queue.Name)+".binds", name), p.queue
	switch {
	case !goodName(name):
		l.problem(path, "%s", badName("queue", name))
		return nil, nil
	case name == queue.Name:
		l.problem(path, "a queue can not hand on to itself: name another")
		return nil, nil
	}
	d := &BindDeclaration{To: name}
	return &place{queue: queue, bind: d}, func() {
		queue.Binds = append(queue.Binds, *d)
	}
}

// parseSelector reads what is said by types, or names for them.
func parseSelector(text string, names map[string]int64) (s SelectorDeclaration, wrong string) {
	rest := text
	for _, word := range []string{"upto", "not"} {
		if after, ok := strings.CutPrefix(text, word+":"); ok {
			s.Word, rest = word, after
		}
	}
	for part := range strings.SplitSeq(rest, ",") {
		part = strings.TrimSpace(part)
		t, known := names[part]
		if !known {
			var err error
			if t, err = strconv.ParseInt(part, 10, 64); err != nil || t <= 0 {
				return s, fmt.Sprintf("%s is no type: it must be a number from 1 on, or a name of the queue's type_names%s", quote(part), didYouMean(part, slices.Sorted(maps.Keys(names))))
			}
		}
		s.Types = append(s.Types, t)
	}
	switch {
	case s.Word != "" && len(s.Types) > 1:
		return s, fmt.Sprintf("%s: takes one type", s.Word)
	case len(s.Types) > limits.SelectorTypes:
		return s, fmt.Sprintf("%d types: there may be %d", len(s.Types), limits.SelectorTypes)
	}
	return s, ""
}

// check says what is wrong with settings that depend on each other.
func (d *QueueDeclaration) check(problem func(key, format string, args ...any)) {
	for i := range d.Binds {
		bind := &d.Binds[i]
		if bind.Type == nil {
			continue
		}
		var wrong string
		if bind.Selector, wrong = parseSelector(*bind.Type, d.TypeNames); wrong != "" {
			problem("binds."+bind.To+".type", "%s", wrong)
		}
	}
	if or(d.DeadLetterExpired, false) && or(d.DeadLetter, "") == "" {
		problem("dead_letter_expired", "it needs a dead_letter: name a queue")
	}
	if or(d.DeadLetter, "") == d.Name {
		problem("dead_letter", "dead letters would go in a circle: name another queue")
	}
	if initial, most := or(d.BackoffInitial, 0), or(d.BackoffMax, 0); most < initial {
		problem("backoff_max", "%s is less than backoff_initial, %s: it must be %s to %s", durationText(most), durationText(initial), durationText(initial), durationText(limits.DelayMax))
	}
}

func (d *RingDeclaration) check(problem func(key, format string, args ...any)) {
	capacity := or(d.Capacity, limits.RingCapacityDefault)
	if bits.OnesCount64(uint64(capacity)) != 1 {
		below := int64(1) << (bits.Len64(uint64(capacity)) - 1)
		problem("capacity", "%s: it must be a power of two, such as %s or %s", sizeText(capacity), sizeText(below), sizeText(2*below))
		return
	}
	if largest := capacity/4 - ringFrameHeader; or(d.MaxMessage, 0) > largest {
		problem("max_message", "%s: with a capacity of %s it must be 0 to %d bytes: a quarter of that, less %d", sizeText(*d.MaxMessage), sizeText(capacity), largest, ringFrameHeader)
	}
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// finish puts the declarations in order, and checks them against each other.
func (l *loader) finish() {
	c := l.config
	slices.SortFunc(c.Queues, func(a, b QueueDeclaration) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Rings, func(a, b RingDeclaration) int { return strings.Compare(a.Name, b.Name) })
	byName := map[string]*QueueDeclaration{}
	for i := range c.Queues {
		byName[c.Queues[i].Name] = &c.Queues[i]
	}
	for i := range c.Queues {
		d := &c.Queues[i]
		if wrong := wrongDeadLetters(byName, d); wrong != "" {
			path := join("queues", d.Name) + ".dead_letter"
			at := c.origins[path]
			l.problems = append(l.problems, Problem{at.file, at.line, path, wrong})
		}
	}
	for i := range c.Queues {
		d := &c.Queues[i]
		for _, bind := range d.Binds {
			if wrong := wrongBind(byName, d, bind.To); wrong != "" {
				path := join(join("queues", d.Name)+".binds", bind.To)
				at := c.origins[path]
				l.problems = append(l.problems, Problem{at.file, at.line, path, wrong})
			}
		}
	}
	if len(c.Access.AdminGroups) == 0 {
		c.AdminGroup = ""
	}
}

// wrongBind follows a queue's copies through the declarations.
func wrongBind(byName map[string]*QueueDeclaration, d *QueueDeclaration, to string) string {
	next := byName[to]
	if next != nil && or(d.Durability, "journal") == "journal" && or(next.Durability, "journal") == "memory" {
		return fmt.Sprintf("copies from a journal queue would go to %s, which is kept in memory: name a journal queue", next.Name)
	}
	seen := map[string]bool{}
	var circle func(way, at string) string
	circle = func(way, at string) string {
		way += " -> " + at
		if at == d.Name {
			return "copies would go in a circle: " + way
		}
		if q := byName[at]; q != nil && !seen[at] {
			seen[at] = true
			for _, bind := range q.Binds {
				if wrong := circle(way, bind.To); wrong != "" {
					return wrong
				}
			}
		}
		return ""
	}
	return circle(d.Name, to)
}

// wrongDeadLetters follows a queue's dead letters through the declarations.
func wrongDeadLetters(byName map[string]*QueueDeclaration, d *QueueDeclaration) string {
	way := d.Name
	if or(d.DeadLetter, "") == d.Name {
		return "" // it was said before
	}
	for next, depth := byName[or(d.DeadLetter, "")], 1; next != nil; next, depth = byName[or(next.DeadLetter, "")], depth+1 {
		way += " -> " + next.Name
		if depth == 1 && or(d.Durability, "journal") == "journal" && or(next.Durability, "journal") == "memory" {
			return fmt.Sprintf("dead letters of a journal queue would go to %s, which is kept in memory: name a journal queue, or make this one a memory queue too", next.Name)
		}
		if next == d {
			return "dead letters would go in a circle: " + way
		}
		if depth > limits.DeadLetterDepth {
			return fmt.Sprintf("more than %d dead-letter queues behind each other, or a circle: %s", limits.DeadLetterDepth, way)
		}
	}
	return ""
}
