//go:build linux

package linear

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ipcd/ipcd/client"
)

// clock tells wall time in ns, as the daemon does, but never goes back. Deadlines are compared with it, so it must not
// drift away from what others see: see agrees.
type clock struct{ start time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() int64 { return c.start.UnixNano() + time.Since(c.start).Nanoseconds() }

// clockSlack is how far the wall clock may be set while a history is recorded.
const clockSlack = 5 * time.Millisecond

func (c clock) agrees() bool {
	return time.Duration(time.Now().UnixNano()-c.now()).Abs() < clockSlack
}

// record is what was done to one queue.
type record struct {
	mu         sync.Mutex
	clock      clock
	operations []porcupine.Operation
	life       int   // which life of the daemon it is
	lives      []int // of each operation
	// Deliveries by their numbers.
	deliveries []delivery
	sends      int     // messages that anybody tried to send
	kills      []int64 // when the daemon's lives ended by being killed
	lease      time.Duration
}

// delivery is a lease that a client knows of.
type delivery struct {
	receipt client.Receipt
	message int
	until   int64
	life    int
}

// call is an operation under way.
type call struct {
	in    input
	began int64
	life  int
}

func newRecord(lease time.Duration) *record {
	return &record{clock: newClock(), lease: lease}
}

func (r *record) begin(in input) call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return call{in, r.clock.now(), r.life}
}

// end records what an operation was answered, or that it was not.
func (r *record) end(who int, c call, out output, unknown bool) {
	ended := r.clock.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	c.in.unknown, c.in.number = unknown, len(r.operations)
	r.operations = append(r.operations, porcupine.Operation{ClientId: who, Input: c.in, Call: c.began, Output: out, Return: ended})
	r.lives = append(r.lives, c.life)
}

// messageNumber numbers a message that is to be sent.
func (r *record) messageNumber() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sends++
	return r.sends - 1
}

// deliveryNumber numbers a delivery.
func (r *record) deliveryNumber(d delivery) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliveries = append(r.deliveries, d)
	return len(r.deliveries) - 1
}

// anyDelivery chooses among all that there were, nobody if there were none.
func (r *record) anyDelivery(random *rand.Rand) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.deliveries) == 0 {
		return nobody
	}
	return random.IntN(len(r.deliveries))
}

func (r *record) receipt(hand int) client.Receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deliveries[hand].receipt
}

// killed notes that the daemon is gone, and restarted that the next one serves. In between no operation begins.
func (r *record) killed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kills = append(r.kills, r.clock.now())
	r.life++
}

func (r *record) restarted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operations = append(r.operations, porcupine.Operation{
		Input: input{kind: crash, number: len(r.operations)}, Call: r.kills[len(r.kills)-1], Output: output{}, Return: r.clock.now(),
	})
	r.lives = append(r.lives, r.life)
}

// history is the record with what time did, as the checker takes it.
func (r *record) history(rules rules) []porcupine.Operation {
	all := slices.Clone(r.operations)
	for i := range all {
		// What the daemon's life that ended did, it did before it ended.
		if life := r.lives[i]; life < len(r.kills) {
			all[i].Return = min(all[i].Return, r.kills[life]-1)
			all[i].Call = min(all[i].Call, all[i].Return)
		}
	}
	chains := r.chains(all)
	return append(all, append(r.expiries(all, chains, rules), r.ends(all, chains, rules)...)...)
}

// link is one time that a message was handed out.
type link struct {
	hand, life, attempts int
	granted              int64 // orders the links of a life: the first end of the lease, or the end of time
	known                int64 // when the call returned
}

// chains are the links of each message, in order. All leases of a queue are equally long, so that their first ends tell
// which was granted first; nothing follows where a message was consumed at once.
func (r *record) chains(all []porcupine.Operation) map[int][]link {
	chains := map[int][]link{}
	for i, o := range all {
		for _, g := range o.Output.(output).got {
			l := link{g.hand, r.lives[i], g.attempts, g.deadline, o.Return}
			if g.hand == nobody {
				l.granted = math.MaxInt64
			}
			chains[g.message] = append(chains[g.message], l)
		}
	}
	for _, c := range chains {
		slices.SortFunc(c, func(a, b link) int { return cmp.Or(cmp.Compare(a.life, b.life), cmp.Compare(a.granted, b.granted)) })
	}
	return chains
}

// after returns a delivery and the one that followed.
func after(chain []link, hand int) (this, next link, followed bool) {
	i := slices.IndexFunc(chain, func(l link) bool { return l.hand == hand })
	if i+1 < len(chain) {
		return chain[i], chain[i+1], true
	}
	return chain[i], link{}, false
}

// expiries are the ends of leases that nobody settled: at any time after the deadline, never before, and not after somebody
// was told. Where nobody was told in the life of a daemon it makes no difference.
func (r *record) expiries(all []porcupine.Operation, chains map[int][]link, rules rules) (expiries []porcupine.Operation) {
	until := make([]int64, len(r.deliveries))
	told := make([]int64, len(r.deliveries)) // when somebody knew that the lease was over
	settled := make([]bool, len(r.deliveries))
	unsure := make([]bool, len(r.deliveries))
	for i, d := range r.deliveries {
		until[i], told[i] = d.until, math.MaxInt64
	}
	add := func(in input, from, to int64) {
		if from <= to {
			in.kind, in.number = expire, len(all)+len(expiries)
			expiries = append(expiries, porcupine.Operation{Input: in, Call: from, Output: output{}, Return: to})
		}
	}
	for i, o := range all {
		switch in, out := o.Input.(input), o.Output.(output); in.kind {
		case ack, nack, touch, release, bury:
			switch {
			case in.unknown:
				unsure[in.hand] = true
			case out.stale && r.lives[i] == r.deliveries[in.hand].life:
				told[in.hand] = min(told[in.hand], o.Return)
			case out.stale:
			case in.kind == touch:
				until[in.hand] = out.deadline // who touches does so one after the other
			default:
				settled[in.hand] = true
			}
		case receive:
			if ends := o.Call + r.lease.Nanoseconds(); in.unknown && !in.atOnce {
				add(input{hand: unknownHand(in.number), unknown: true}, ends, r.kills[r.lives[i]]-1)
			}
		}
	}
	for i, d := range r.deliveries {
		if settled[i] {
			continue
		}
		this, next, followed := after(chains[d.message], i)
		if followed && next.life == d.life {
			told[i] = min(told[i], next.known)
		}
		from, last := until[i]-clockSlack.Nanoseconds(), d.life == len(r.kills)
		switch {
		case told[i] < math.MaxInt64 || last:
			add(input{hand: i, deadline: until[i], unknown: unsure[i]}, from, told[i])
		case rules.durable && followed && next.attempts > this.attempts: // the next daemon knew
			add(input{hand: i, deadline: until[i], unknown: true}, from, r.kills[d.life]-1)
		}
	}
	return expiries
}

// ends are the ends of delays, alike.
func (r *record) ends(all []porcupine.Operation, chains map[int][]link, rules rules) (ends []porcupine.Operation) {
	for i, o := range all {
		in := o.Input.(input)
		if in.delay == 0 || o.Output.(output).stale {
			continue
		}
		add := func(message int, next link, followed bool) {
			died := !rules.durable && r.lives[i] < len(r.kills) && (!followed || next.life > r.lives[i])
			from, to := o.Call+in.delay.Nanoseconds()-clockSlack.Nanoseconds(), int64(math.MaxInt64)
			if followed {
				to = next.known
			}
			if !died && (followed || !in.unknown) {
				ends = append(ends, porcupine.Operation{
					Input: input{kind: due, number: len(all) + 1000 + len(ends), message: message, delayed: in.number, unknown: in.unknown}, Call: from, Output: output{}, Return: max(from, to),
				})
			}
		}
		if in.kind == send {
			for _, m := range in.messages {
				if chain := chains[m.message]; len(chain) > 0 {
					add(m.message, chain[0], true)
				} else {
					add(m.message, link{}, false)
				}
			}
			continue
		}
		message := r.deliveries[in.hand].message
		if this, next, followed := after(chains[message], in.hand); this.attempts+1 < rules.maxAttempts { // else it is buried
			add(message, next, followed)
		}
	}
	return ends
}

// print lists a history by the times of its calls.
func print(history []porcupine.Operation) string {
	sorted := slices.SortedFunc(slices.Values(history), func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var b strings.Builder
	for _, o := range sorted {
		fmt.Fprintf(&b, "%8d", (o.Call-sorted[0].Call)/1000)
		if o.Return == math.MaxInt64 {
			b.WriteString("        -")
		} else {
			fmt.Fprintf(&b, " %8d", (o.Return-sorted[0].Call)/1000)
		}
		fmt.Fprintf(&b, " us, client %d: %s\n", o.ClientId, describe(o.Input.(input), o.Output.(output)))
	}
	return b.String()
}
