package ring

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// Options is what Rings need from outside.
type Options struct {
	Logger *zap.Logger     // nil: silent
	Dir    string          // the state directory: definitions are in rings.json, the key of tokens in rings.key
	FS     vfs.FS          // nil: vfs.OS
	Access *access.Control // who may do what; nil: by modes only, and root and this process's user may do everything
	Quotas *quota.Table    // rings are charged to their owners; nil: one with the defaults
	// Memory bounds the bytes that all lanes and consumers take; 0: limits.RingMemoryDefault. A quarter of the daemon's memory cgroup bounds
	// it too.
	Memory int64
	// MemoryPerUID bounds those that one uid attached, root and the daemon's own included; 0: limits.RingMemoryUIDDefault.
	MemoryPerUID int64
	FDStore      FDStore       // keeps lanes over a restart; nil: nobody does
	Stored       []StoredFD    // what it has kept; Open closes them in any case
	BootID       string        // "": the kernel's
	Root         string        // where proc and sys are; "": /
	AdoptWindow  time.Duration // 0: limits.RingAdoptWindow
}

// Rings owns all rings. It is safe for concurrent use.
type Rings struct {
	log    *zap.Logger
	fs     vfs.FS
	dir    string
	access *access.Control
	quotas *quota.Table
	bootID string
	run    uint64 // of the daemon on this state directory, from 1
	key    []byte // of tokens
	budget budget
	store  FDStore // nil: there is none
	shelf  shelf

	// admin serialises what makes, changes and removes rings, and the writing of definitions. It is taken before any other
	// lock.
	admin    sync.Mutex
	lastID   uint64      // of a ring; guarded by admin
	attached atomic.Bool // the file says that members may be attached; written under admin

	// mu guards the names.
	mu     sync.RWMutex
	byName map[string]*ring

	lastMember atomic.Uint64
	lastEnded  atomic.Uint64 // numbers the lanes that were stored
	window     chan struct{} // closed when members of the earlier run have had the time to come back

	lingerMu  sync.Mutex
	lingering []*memory // disposed of, and still written by somebody

	stopping atomic.Bool
	stopped  chan struct{} // closed once stopping is set
	quit     chan struct{}
	running  sync.WaitGroup
	closing  sync.Once
}

// Open reads the definitions and begins a new run. What it cannot understand it leaves untouched, and says so. Close
// ends it.
func Open(o Options) (*Rings, error) {
	r, err := open(&o)
	if err != nil {
		for _, s := range o.Stored {
			s.File.Close() // the next start may understand what this one did not
		}
		return nil, err
	}
	return r, nil
}

func open(o *Options) (*Rings, error) {
	r := &Rings{
		log: o.Logger, fs: o.FS, dir: o.Dir, access: o.Access, quotas: o.Quotas, bootID: o.BootID, store: o.FDStore,
		budget: budget{limit: o.Memory, perUID: o.MemoryPerUID, accounts: map[identity.Principal]*account{}},
		byName: map[string]*ring{}, window: make(chan struct{}), stopped: make(chan struct{}), quit: make(chan struct{}),
	}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	if r.fs == nil {
		r.fs = vfs.OS{}
	}
	if r.access == nil {
		r.access = access.New(access.Policy{DaemonUID: uint32(os.Geteuid())}, r.log)
	}
	if r.quotas == nil {
		r.quotas = quota.New(uint32(os.Geteuid()), quota.Config{})
	}
	if o.Root == "" {
		o.Root = "/"
	}
	if r.bootID == "" {
		id, err := bootID(o.Root)
		if err != nil {
			return nil, err
		}
		r.bootID = id
	}
	if r.budget.limit == 0 {
		r.budget.limit = limits.RingMemoryDefault
	}
	if r.budget.perUID == 0 {
		r.budget.perUID = limits.RingMemoryUIDDefault
	}
	if limit := memoryLimit(o.Root); limit > 0 && limit/4 < r.budget.limit {
		r.log.Warn("rings get a quarter of the memory cgroup's limit", zap.Int64("cgroup_bytes", limit), zap.Int64("ring_memory", r.budget.limit))
		r.budget.limit = limit / 4
	}
	back, err := r.load()
	if err != nil {
		return nil, err
	}
	r.restore(o.Stored)
	r.running.Go(r.watch)
	if back {
		window := o.AdoptWindow
		if window == 0 {
			window = limits.RingAdoptWindow
		}
		r.running.Go(func() { r.endWindow(window) })
	} else {
		close(r.window)
	}
	return r, nil
}

// Stop refuses new members, and ends calls of Publish and Subscription.Next with SHUTTING_DOWN. From now on
// Member.Leave leaves the ring as it is: members that hang up because the daemon stops are still there for the next
// one. So it is to be called before the attach socket is closed.
func (r *Rings) Stop() {
	if !r.stopping.CompareAndSwap(false, true) {
		return
	}
	close(r.stopped)
	for _, rg := range r.all() {
		for _, h := range rg.handles() {
			h.Close()
		}
	}
}

// Close ends it; the doors must be closed. Members' memory stays as it is: they go on, and the next daemon adopts
// them.
func (r *Rings) Close() {
	r.closing.Do(r.close)
}

func (r *Rings) close() {
	r.Stop()
	close(r.quit)
	r.running.Wait()
	r.admin.Lock()
	defer r.admin.Unlock()
	members := false
	for _, rg := range r.all() {
		members = rg.close() || members
	}
	if err := r.save(func(f *file) { f.Attached = members }); err != nil {
		r.log.Error("whether members are attached could not be written: the next start waits for them", zap.Error(err))
	}
	r.lingerMu.Lock()
	defer r.lingerMu.Unlock()
	for _, m := range r.lingering {
		m.close()
	}
	r.lingering = nil
}

// close lets go of the ring's memory. It reports whether there were members outside the daemon.
func (rg *ring) close() (members bool) {
	rg.mu.Lock()
	var all []*Member
	var memories []*memory
	for _, role := range []Role{Producer, Consumer} {
		for _, m := range rg.table(role) {
			if m == nil || m.state == joining { // who is about to join finds out, and gives up
				continue
			}
			members = members || m.state == live && !m.daemon
			all = append(all, m)
			memories = append(memories, rg.dropLocked(m))
		}
	}
	rg.closePageLocked()
	rg.mu.Unlock()
	for i, m := range all {
		if m.handle != nil {
			m.handle.Close()
		}
		closeAll(m.own, m.page)
		memories[i].close()
	}
	return members
}

// handles returns those of the daemon's own members.
func (rg *ring) handles() []handle {
	rg.mu.Lock()
	defer rg.mu.Unlock()
	var all []handle
	for _, role := range []Role{Producer, Consumer} {
		for _, m := range rg.table(role) {
			if m != nil && m.handle != nil {
				all = append(all, m.handle)
			}
		}
	}
	return all
}

// watch looks each second at memory that was still written, and how fast members are.
func (r *Rings) watch() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-r.quit:
			return
		case <-ticker.C:
		}
		r.disposeLingering()
		for _, rg := range r.all() {
			rg.sample()
		}
	}
}

// all returns the rings by name.
func (r *Rings) all() []*ring {
	r.mu.RLock()
	defer r.mu.RUnlock()
	rings := make([]*ring, 0, len(r.byName))
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		rings = append(rings, r.byName[name])
	}
	return rings
}

// nextMember returns an id that no member had before, in whatever run.
func (r *Rings) nextMember() uint64 { return r.run<<32 + r.lastMember.Add(1) }

// Totals is what all rings take together.
type Totals struct {
	Rings       int
	Lanes       int // ended ones included
	Consumers   int
	Bytes       int64 // of memory
	MemoryLimit int64 // bytes
}

// Totals sums up all rings.
func (r *Rings) Totals() Totals {
	t := Totals{Bytes: r.budget.total(), MemoryLimit: r.budget.limit}
	for _, rg := range r.all() {
		t.Rings++
		rg.mu.Lock()
		for _, role := range []Role{Producer, Consumer} {
			for _, m := range rg.table(role) {
				switch {
				case m == nil || m.state == joining:
				case role == Producer:
					t.Lanes++
				default:
					t.Consumers++
				}
			}
		}
		rg.mu.Unlock()
	}
	return t
}

func shuttingDown() error {
	return reason.New(reason.ShuttingDown, "the daemon is stopping: try again when it is back")
}

// internalError is an error of the system's, with the reason that a caller may act upon.
func internalError(err error, doing string) *reason.Error {
	why := reason.Internal
	switch {
	case errors.Is(err, syscall.ENOSPC):
		why = reason.DiskFull
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		why = reason.QuotaExceeded
	}
	return reason.New(why, "%s", fmt.Errorf("%s: %w", doing, err))
}
