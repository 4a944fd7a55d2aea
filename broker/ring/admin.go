package ring

import (
	"context"
	"path"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
	"github.com/ipcd/ipcd/internal/units"
)

// Create makes a ring with the default settings as changed by edit. If it exists with the same settings and exclusive
// is false, created is false. The definition is on disk when it returns.
func (r *Rings) Create(_ context.Context, id identity.Identity, name string, edit Edit, exclusive bool) (info Info, created bool, err error) {
	defer r.access.Tell(id, &err)
	if err := checkName(name); err != nil {
		return Info{}, false, err
	}
	r.admin.Lock()
	defer r.admin.Unlock()
	if r.stopping.Load() {
		return Info{}, false, shuttingDown()
	}
	r.mu.RLock()
	existing, count := r.byName[name], len(r.byName)
	r.mu.RUnlock()
	if existing != nil {
		info, err := r.same(id, existing, edit, exclusive)
		return info, false, err
	}
	if err := localUser(id, "create rings", name); err != nil {
		return Info{}, false, err
	}
	if count >= limits.Rings {
		return Info{}, false, reason.New(reason.QuotaExceeded, "there are %d rings, all that there may be: remove one", count).On(name)
	}
	s := Default(id.UID, id.GID)
	if err := edit(&s); err != nil {
		return Info{}, false, err
	}
	if err := r.checkSettings(id, name, &s, nil); err != nil {
		return Info{}, false, err
	}
	if lane, most := shm.LaneSize(uint64(s.Capacity)), min(r.budget.limit, r.budget.perUID); lane > most {
		return Info{}, false, reason.New(reason.QuotaExceeded, "no producer could attach: a lane of capacity %s takes more than the %s that ring_memory_per_uid and ring_memory (never above a quarter of the daemon's memory cgroup) allow; ask for less, or raise them",
			units.FormatSize(s.Capacity), units.FormatSize(most)).On(name)
	}
	owner := identity.User(s.OwnerUID)
	if err := r.quotas.Take(owner, quota.Rings, 1); err != nil {
		return Info{}, false, err
	}
	rg := newRing(r, name, r.lastID+1, time.Now().Round(0), s)
	if err := r.save(func(f *file) {
		f.LastID = rg.id
		f.Rings = append(f.Rings, rg.definition(&s))
	}); err != nil {
		r.quotas.Give(owner, quota.Rings, 1)
		return Info{}, false, err
	}
	r.lastID = rg.id
	r.mu.Lock()
	r.byName[name] = rg
	r.mu.Unlock()
	r.log.Info("ring created", zap.String("ring", name), zap.Stringer("by", id))
	return rg.info(), true, nil
}

// same answers the creation of a ring that is there.
func (r *Rings) same(id identity.Identity, rg *ring, edit Edit, exclusive bool) (Info, error) {
	if exclusive {
		return Info{}, reason.New(reason.RingExists, "the ring exists already").On(rg.name)
	}
	if err := r.access.Denial(id, rg.object(), access.Look); err != nil {
		return Info{}, err
	}
	have := *rg.settings.Load()
	want := Default(have.OwnerUID, have.GroupGID)
	if err := edit(&want); err != nil {
		return Info{}, err
	}
	if err := want.Check(); err != nil {
		return Info{}, err
	}
	if diff := have.Diff(&want); diff != "" {
		return Info{}, reason.New(reason.RingExists, "the ring exists with other settings: %s; update it, or create it with the same", diff).On(rg.name)
	}
	return rg.info(), nil
}

// checkSettings holds new settings against who sets them. old is nil for a new ring.
func (r *Rings) checkSettings(id identity.Identity, name string, s, old *Settings) error {
	if err := s.Check(); err != nil {
		return err
	}
	if old != nil {
		for _, fixed := range []struct {
			field   string
			changed bool
		}{
			{"capacity_bytes", s.Capacity != old.Capacity},
			{"max_message_bytes", s.MaxMessage != old.MaxMessage},
			{"policy", s.Policy != old.Policy},
		} {
			if fixed.changed {
				return reason.Invalid("settings."+fixed.field, "%s can not be changed: create another ring", fixed.field).On(name)
			}
		}
	}
	if r.access.Admin(id) {
		return nil
	}
	if old == nil && s.OwnerUID != id.UID || old != nil && s.OwnerUID != old.OwnerUID {
		return reason.New(reason.AccessDenied, "owner_uid %d: only admins may give a ring to somebody else", s.OwnerUID).On(name)
	}
	if (old == nil || s.GroupGID != old.GroupGID) && !id.InGroup(s.GroupGID) {
		return reason.New(reason.AccessDenied, "group_gid %d: %v is not in this group", s.GroupGID, id).On(name)
	}
	return nil
}

// Get tells about a ring.
func (r *Rings) Get(_ context.Context, id identity.Identity, name string) (_ Info, err error) {
	defer r.access.Tell(id, &err)
	rg, err := r.find(id, name, access.Look)
	if err != nil {
		return Info{}, err
	}
	return rg.info(), nil
}

// List tells about the rings that the caller may look at, by name. glob is a pattern of path.Match over the name
// without its slash; "" matches all.
func (r *Rings) List(ctx context.Context, id identity.Identity, glob string) ([]Info, error) {
	if _, err := path.Match(glob, ""); err != nil {
		return nil, reason.Invalid("glob", "pattern %.220q is malformed: use * ? and [a-z]", glob)
	}
	var out []Info
	for _, rg := range r.all() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		matched := glob == ""
		if !matched {
			matched, _ = path.Match(glob, rg.name[1:])
		}
		if matched && r.access.Allows(id, rg.object(), access.Look) {
			out = append(out, rg.info())
		}
	}
	return out, nil
}

// Update changes mode, owner, group, retain and stall. Members that may not be members any more are thrown out. What a
// consumer has mapped it can go on reading: memory that was handed out cannot be taken back.
func (r *Rings) Update(_ context.Context, id identity.Identity, name string, edit Edit) (_ Info, err error) {
	defer r.access.Tell(id, &err)
	r.admin.Lock()
	defer r.admin.Unlock()
	if r.stopping.Load() {
		return Info{}, shuttingDown()
	}
	rg, err := r.find(id, name, access.Manage)
	if err != nil {
		return Info{}, err
	}
	old := *rg.settings.Load()
	s := old
	if err := edit(&s); err != nil {
		return Info{}, err
	}
	if err := r.checkSettings(id, name, &s, &old); err != nil {
		return Info{}, err
	}
	if err := r.save(func(f *file) {
		i := slices.IndexFunc(f.Rings, func(d definition) bool { return d.ID == rg.id })
		f.Rings[i] = rg.definition(&s)
	}); err != nil {
		return Info{}, err
	}
	if s.OwnerUID != old.OwnerUID { // by an admin, whom quotas do not stop
		r.quotas.Give(identity.User(old.OwnerUID), quota.Rings, 1)
		r.quotas.Add(identity.User(s.OwnerUID), quota.Rings, 1)
	}
	rg.enforce(&s)
	r.log.Info("ring updated", zap.String("ring", name), zap.Stringer("by", id), zap.String("changes", s.Diff(&old)))
	return rg.info(), nil
}

// enforce throws out who may not be a member any more, and what is not retained any more. changed are new settings to
// put into force, or nil.
func (rg *ring) enforce(changed *Settings) {
	rg.mu.Lock()
	if changed != nil {
		rg.settings.Store(changed)
	}
	var after []func()
	for _, role := range []Role{Producer, Consumer} {
		for _, m := range rg.table(role) {
			if m == nil || m.state != live {
				continue
			}
			if err := m.withdrawnLocked(); err != nil {
				after = append(after, m.failLocked(err))
			}
		}
	}
	dead := rg.retainLocked()
	if len(after)+len(dead) > 0 {
		rg.raiseLocked()
	}
	rg.mu.Unlock()
	for _, f := range after {
		f()
	}
	rg.rings.dispose(dead...)
}

// Delete removes a ring and throws its members out. It tells how many there were, lanes whose producers had left
// included.
func (r *Rings) Delete(_ context.Context, id identity.Identity, name string) (members int, err error) {
	defer r.access.Tell(id, &err)
	r.admin.Lock()
	defer r.admin.Unlock()
	if r.stopping.Load() {
		return 0, shuttingDown()
	}
	rg, err := r.find(id, name, access.Manage)
	if err != nil {
		return 0, err
	}
	if err := r.save(func(f *file) {
		f.Rings = slices.DeleteFunc(f.Rings, func(d definition) bool { return d.ID == rg.id })
	}); err != nil {
		return 0, err
	}
	r.mu.Lock()
	delete(r.byName, name)
	r.mu.Unlock()
	members = rg.remove()
	r.quotas.Give(identity.User(rg.settings.Load().OwnerUID), quota.Rings, 1)
	r.log.Info("ring deleted", zap.String("ring", name), zap.Int("members", members), zap.Stringer("by", id))
	return members, nil
}

// remove throws everybody out. Those that are about to join find out when they are ready.
func (rg *ring) remove() (members int) {
	rg.mu.Lock()
	rg.deleted = true
	var after []func()
	for _, role := range []Role{Producer, Consumer} {
		for _, m := range rg.table(role) {
			if m != nil && m.state != joining {
				after = append(after, m.failLocked(rg.goneError()))
			}
		}
	}
	rg.raiseLocked()
	rg.closePageLocked()
	rg.mu.Unlock()
	for _, f := range after {
		f()
	}
	return len(after)
}
