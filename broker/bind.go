package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// bound is how a bind fares. The lock of the queue that has it guards it.
type bound struct {
	from            *served
	copied, skipped uint64
	problem         string // of the last copy that was skipped
}

// copy counts a copy that was stored.
func (x *bound) copy() {
	x.copied++
	x.from.copied++
}

// skip counts a copy that the destination went without.
func (x *bound) skip(why error) {
	x.skipped++
	x.from.copiesSkipped++
	x.problem = why.Error()
}

// boundLocked is how the bind to a queue fares.
func (s *served) boundLocked(to string) *bound {
	x := s.bounds[to]
	if x == nil {
		x = &bound{from: s}
		if s.bounds == nil {
			s.bounds = map[string]*bound{}
		}
		s.bounds[to] = x
	}
	return x
}

// bindStatusLocked tells how the queue's binds fare.
func (s *served) bindStatusLocked() []BindStatus {
	binds := s.q.Settings().Binds
	out := make([]BindStatus, len(binds))
	for i, bind := range binds {
		out[i] = BindStatus{To: bind.To}
		if x := s.bounds[bind.To]; x != nil {
			out[i].Copied, out[i].Skipped, out[i].Problem = x.copied, x.skipped, x.problem
		}
	}
	return out
}

// Bind lets a queue hand on copies. See transport.Broker.
func (b *Broker) Bind(ctx context.Context, id identity.Identity, source string, bind queue.Bind) (Info, error) {
	return b.UpdateQueue(ctx, id, source, func(s *queue.Settings) error {
		s.Binds = append(without(s.Binds, bind.To), bind)
		return nil
	})
}

// Unbind ends a bind. See transport.Broker.
func (b *Broker) Unbind(ctx context.Context, id identity.Identity, source, destination string) (Info, error) {
	return b.UpdateQueue(ctx, id, source, func(s *queue.Settings) error {
		s.Binds = without(s.Binds, destination)
		return nil
	})
}

// without returns the binds but the one to a queue.
func without(binds []queue.Bind, to string) []queue.Bind {
	return slices.DeleteFunc(slices.Clone(binds), func(b queue.Bind) bool { return b.To == to })
}

// checkBinds refuses binds to queues that are not there, that the caller or the owner may not send to, or that would lose what
// the source keeps; and circles of them. Those that were there before are not looked at again.
func (b *Broker) checkBinds(id identity.Identity, name string, s, old *queue.Settings) error {
	fresh := slices.DeleteFunc(slices.Clone(s.Binds), func(x queue.Bind) bool {
		return old != nil && slices.ContainsFunc(old.Binds, x.Equal)
	})
	if len(fresh) == 0 {
		return nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, bind := range fresh {
		to := b.byName[bind.To]
		switch {
		case bind.To == name:
			return reason.New(reason.BindCycle, "a queue cannot hand on to itself: name another").On(name)
		case to == nil:
			return reason.New(reason.QueueNotFound, "there is no queue %s, to which %s is to hand on: create it first", bind.To, name).On(bind.To)
		}
		if err := b.forbids(id, to, access.Send); err != nil {
			return err
		}
		if !b.ownerMaySend(s, to) {
			return reason.New(reason.AccessDenied, "uid %d, the owner of %s, may not send to it, and copies go on the owner's behalf", s.OwnerUID, name).On(bind.To)
		}
		if s.Durability == queue.Journal && to.settings.Load().Durability == queue.Memory {
			return reason.New(reason.DurabilityMismatch, "copies from a journal queue would go to %s, which is kept in memory: name a journal queue, or watch %s with a tap", bind.To, name).On(name)
		}
	}
	return b.checkBindPaths(name, s)
}

// checkBindPaths refuses circles, and binds that would let one send reach too many queues. The broker's admin lock is held.
func (b *Broker) checkBindPaths(name string, s *queue.Settings) error {
	before := map[string][]string{} // who is bound to each
	for from, q := range b.binders {
		for _, bind := range q.settings.Load().Binds {
			if from != name {
				before[bind.To] = append(before[bind.To], from)
			}
		}
	}
	behind := func(of string) []queue.Bind {
		if of == name {
			return s.Binds
		}
		if q := b.binders[of]; q != nil {
			return q.settings.Load().Binds
		}
		return nil
	}
	if circle := circleOf(name, behind); circle != nil {
		return reason.New(reason.BindCycle, "copies would go in a circle: %s", strings.Join(circle, " -> ")).On(name)
	}
	// Those whose copies come here reach what is behind it too.
	starts, known := []string{name}, map[string]bool{name: true}
	for i := 0; i < len(starts); i++ {
		reached := []string{starts[i]}
		seen := map[string]bool{starts[i]: true}
		for j := 0; j < len(reached) && len(reached) <= limits.BindTargets; j++ {
			for _, bind := range behind(reached[j]) {
				if !seen[bind.To] {
					seen[bind.To] = true
					reached = append(reached, bind.To)
				}
			}
		}
		if len(reached) > limits.BindTargets {
			return reason.New(reason.QuotaExceeded, "a send to %s would reach more than %d queues: end a bind, or bind to one that hands on less", starts[i], limits.BindTargets).On(name)
		}
		for _, from := range before[starts[i]] {
			if !known[from] {
				known[from] = true
				starts = append(starts, from)
			}
		}
	}
	return nil
}

// circleOf returns a way from a queue back to itself, nil if there is none.
func circleOf(name string, behind func(of string) []queue.Bind) []string {
	cameFrom := map[string]string{}
	all := []string{name}
	for i := 0; i < len(all); i++ {
		for _, bind := range behind(all[i]) {
			if bind.To == name {
				circle := []string{name}
				for at := all[i]; at != name; at = cameFrom[at] {
					circle = append(circle, at)
				}
				slices.Reverse(circle[1:])
				return append(circle, name)
			}
			if _, seen := cameFrom[bind.To]; !seen {
				cameFrom[bind.To] = all[i]
				all = append(all, bind.To)
			}
		}
	}
	return nil
}

// noteBinds keeps binders true. The broker's admin lock is held.
func (b *Broker) noteBinds(s *served) {
	if len(s.settings.Load().Binds) > 0 {
		b.binders[s.name] = s
	} else {
		delete(b.binders, s.name)
	}
}

// unbindAll ends all binds to a queue that is about to be deleted. The broker's admin lock is held.
func (b *Broker) unbindAll(name string) {
	for _, s := range b.binders { // temporary queues end often, and few have any
		settings := *s.settings.Load()
		if settings.Binds = without(settings.Binds, name); len(settings.Binds) == len(s.settings.Load().Binds) {
			continue
		}
		s.mu.Lock()
		now := b.now()
		s.configureLocked(now, &settings)
		s.afterLocked(now)
		s.mu.Unlock()
		b.noteBinds(s)
	}
}

// configureLocked puts settings into force.
func (s *served) configureLocked(now queue.Instant, settings *queue.Settings) {
	s.q.Configure(now, *settings)
	if !s.durable {
		s.defineLocked(now)
	}
	same := slices.EqualFunc(s.settings.Load().Binds, settings.Binds, queue.Bind.Equal)
	s.settings.Store(settings)
	if same {
		return
	}
	s.b.bindsVersion.Add(1) // after it: who reads this version reads those binds too
	for to := range s.bounds {
		if !slices.ContainsFunc(settings.Binds, func(x queue.Bind) bool { return x.To == to }) {
			delete(s.bounds, to)
		}
	}
}
