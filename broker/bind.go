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
		return old != nil && slices.ContainsFunc(old.Binds, func(y queue.Bind) bool { return x.String() == y.String() })
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
			return reason.New(reason.BindCycle, "a queue can not hand on to itself").On(name)
		case to == nil:
			return reason.New(reason.QueueNotFound, "there is no such queue, to which %s is to hand on: create it first", name).On(bind.To)
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

// checkBindPaths refuses circles, and binds that would let one send reach too many queues.
func (b *Broker) checkBindPaths(name string, s *queue.Settings) error {
	bindsOf := func(of string) []queue.Bind {
		if of == name {
			return s.Binds
		}
		if to := b.byName[of]; to != nil {
			return to.settings.Load().Binds
		}
		return nil
	}
	// behind visits all queues that copies reach, each with the way there.
	behind := func(start string, visit func(path []string) bool) {
		seen := map[string]bool{}
		var walk func(path []string) bool
		walk = func(path []string) bool {
			for _, bind := range bindsOf(path[len(path)-1]) {
				next := append(path[:len(path):len(path)], bind.To)
				if seen[bind.To] {
					continue
				}
				seen[bind.To] = true
				if !visit(next) || !walk(next) {
					return false
				}
			}
			return true
		}
		walk([]string{start})
	}
	var circle []string
	behind(name, func(path []string) bool {
		if path[len(path)-1] == name {
			circle = path
		}
		return circle == nil
	})
	if circle != nil {
		return reason.New(reason.BindCycle, "copies would go in a circle: %s", strings.Join(circle, " -> ")).On(name)
	}
	for start := range b.byName { // those before it reach more too
		reached, through := 1, start == name
		behind(start, func(path []string) bool {
			reached++
			through = through || path[len(path)-1] == name
			return true
		})
		if through && reached > limits.BindTargets {
			return reason.New(reason.QuotaExceeded, "a send to %s would reach %d queues: it may reach %d", start, reached, limits.BindTargets).On(name)
		}
	}
	return nil
}

// unbindAll ends all binds to a queue that is about to be deleted. The broker's admin lock is held.
func (b *Broker) unbindAll(name string) {
	var sources []*served
	b.mu.RLock()
	for _, s := range b.byName { // temporary queues end often, and few have any
		if slices.ContainsFunc(s.settings.Load().Binds, func(x queue.Bind) bool { return x.To == name }) {
			sources = append(sources, s)
		}
	}
	b.mu.RUnlock()
	for _, s := range sources {
		settings := *s.settings.Load()
		settings.Binds = without(settings.Binds, name)
		s.mu.Lock()
		now := b.now()
		s.configureLocked(now, &settings)
		s.afterLocked(now)
		s.mu.Unlock()
	}
}

// configureLocked puts settings into force.
func (s *served) configureLocked(now queue.Instant, settings *queue.Settings) {
	s.q.Configure(now, *settings)
	if !s.durable {
		s.defineLocked(now)
	}
	s.settings.Store(settings)
	s.b.bindsVersion.Add(1)
	for to := range s.bounds {
		if !slices.ContainsFunc(settings.Binds, func(x queue.Bind) bool { return x.To == to }) {
			delete(s.bounds, to)
		}
	}
}
