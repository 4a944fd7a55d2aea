package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// Options is what a Broker needs from outside.
type Options struct {
	Logger   *zap.Logger     // nil: silent
	Doors    Doors           // nil: queues have no kernel doors
	Instance string          // identifies this run; "": a random one
	Access   *access.Control // nil: owners, groups and modes alone decide, and root may do everything
	Quotas   *quota.Table    // nil: the defaults
	// Journal is where durable queues live; nil: there is no journal, and all queues are memory queues.
	Journal *JournalOptions
	// MaxMemory bounds the bytes that all messages together take in memory, 0: it does not.
	MaxMemory int64
	// PayloadMemory is bytes of payloads from which on those of deep backlogs of durable queues stay in the journal
	// only; 0: limits.PayloadMemoryDefault.
	PayloadMemory int64
}

// Broker owns all queues. It is safe for concurrent use.
type Broker struct {
	log      *zap.Logger
	doors    Doors
	instance string
	access   *access.Control
	quotas   *quota.Table
	started  time.Time

	journal       *journal.Journal // nil: there is none
	maxFrame      int64            // bytes of what is appended to it at once
	quarantine    bool             // what is damaged becomes read-only, instead of ending the daemon
	damage        string           // what was found damaged at the start
	maxMemory     int64
	payloadMemory int64
	totals        sharedTotals
	lateReplies   atomic.Uint64 // see late
	tapped        tapAccounts
	compactor     *compactor
	failure       atomic.Pointer[error]
	failed        chan struct{}

	// dirtyMu guards the queues that have something to publish. It is taken after a queue's lock.
	dirtyMu           sync.Mutex
	dirty, dirtySpare []*served

	bindsVersion atomic.Uint64 // rises when binds change, under the lock of the queue that has them

	fair *fair // who waits for whom, before any lock

	// admin serialises what makes, changes and removes queues. It is taken before any other lock.
	admin   sync.Mutex
	lastID  atomic.Uint64      // of a queue; written under admin
	binders map[string]*served // queues that have binds, by name

	// mu guards the names. Queues' locks are taken after it, or without it.
	mu     sync.RWMutex
	byName map[string]*served
	byID   map[uint64]*served

	stopping  atomic.Bool
	leaseEnds chan struct{} // told, while stopping, when a queue has no lease left
	quit      chan struct{}
	running   sync.WaitGroup // timers' functions and the clock watcher
}

// New returns a Broker without queues and without a journal. Close ends it.
func New(o Options) *Broker {
	b := newBroker(o)
	b.running.Go(b.watchClock)
	return b
}

func newBroker(o Options) *Broker {
	b := &Broker{
		log: o.Logger, doors: o.Doors, instance: o.Instance, access: o.Access, quotas: o.Quotas, started: time.Now(),
		maxMemory: o.MaxMemory, payloadMemory: o.PayloadMemory, failed: make(chan struct{}),
		byName: map[string]*served{}, byID: map[uint64]*served{}, binders: map[string]*served{},
		leaseEnds: make(chan struct{}, 1), quit: make(chan struct{}), fair: newFair(),
	}
	if b.log == nil {
		b.log = zap.NewNop()
	}
	if b.access == nil {
		b.access = access.New(access.Policy{}, b.log)
	}
	if b.quotas == nil {
		b.quotas = quota.New(0, quota.Config{})
	}
	if b.instance == "" {
		b.instance = rand.Text()
	}
	if b.payloadMemory == 0 {
		b.payloadMemory = limits.PayloadMemoryDefault
	}
	return b
}

// now is the present, as queues count it.
func (b *Broker) now() queue.Instant {
	t := time.Now()
	return queue.Instant{Wall: t.UnixNano(), Mono: int64(t.Sub(b.started)) + 1}
}

// Instance identifies this run of the daemon.
func (b *Broker) Instance() string { return b.instance }

// find returns the queue of that name, if the caller may use it so.
func (b *Broker) find(id identity.Identity, name string, want access.Right) (*served, error) {
	s, err := b.lookup(name)
	if err != nil {
		return nil, err
	}
	if err := b.check(id, s, want); err != nil {
		return nil, err
	}
	return s, nil
}

// lookup returns the queue of that name, for whomever.
func (b *Broker) lookup(name string) (*served, error) {
	if err := queue.CheckName(name); err != nil {
		return nil, err
	}
	b.mu.RLock()
	s := b.byName[name]
	b.mu.RUnlock()
	if s == nil {
		return nil, notFound(name)
	}
	return s, nil
}

func notFound(name string) error {
	return reason.New(reason.QueueNotFound, "there is no such queue: create it first").On(name)
}

// all returns the queues by name.
func (b *Broker) all() []*served {
	b.mu.RLock()
	queues := slices.AppendSeq(make([]*served, 0, len(b.byName)), maps.Values(b.byName))
	b.mu.RUnlock()
	slices.SortFunc(queues, func(x, y *served) int { return cmp.Compare(x.name, y.name) })
	return queues
}

// Totals sums up all queues.
func (b *Broker) Totals() Totals {
	var t Totals
	for _, s := range b.all() {
		s.mu.Lock()
		t.Queues++
		if s.temporary {
			t.Temporary++
		}
		t.Messages += s.q.Len()
		t.Bytes += s.q.Bytes()
		s.mu.Unlock()
	}
	t.LateReplies = b.lateReplies.Load()
	return t
}

// watchClock looks once a second whether the wall clock was set: deadlines that are wall times may
// then be due earlier or later than the timers think.
func (b *Broker) watchClock() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	before := b.now()
	for {
		select {
		case <-b.quit:
			return
		case <-ticker.C:
		}
		now := b.now()
		step := (now.Wall - before.Wall) - (now.Mono - before.Mono)
		before = now
		if step > int64(time.Second/2) || step < -int64(time.Second/2) {
			b.log.Info("the wall clock was set", zap.Duration("by", time.Duration(step)))
			for _, s := range b.all() {
				s.expire(0)
			}
		}
	}
}

// Stop stops deliveries and sends and waits until no lease is left, or the context ends. Kernel doors
// are closed. What is waiting ends with SHUTTING_DOWN.
func (b *Broker) Stop(ctx context.Context) error {
	b.admin.Lock()
	b.stopping.Store(true)
	for _, s := range b.all() {
		s.stop()
	}
	b.admin.Unlock()
	for {
		leased := int64(0)
		for _, s := range b.all() { // none is made any more, but they may be deleted
			s.mu.Lock()
			leased += s.q.LeasedLen()
			s.mu.Unlock()
		}
		if leased == 0 {
			return nil
		}
		select {
		case <-b.leaseEnds:
		case <-ctx.Done():
			return fmt.Errorf("%d leases were not settled: %w", leased, ctx.Err())
		}
	}
}

// leasesEnded tells Stop that a queue has no lease left.
func (b *Broker) leasesEnded() {
	if b.stopping.Load() {
		select {
		case b.leaseEnds <- struct{}{}:
		default:
		}
	}
}

// Close ends the broker. Nothing of it is running when it returns. What was decided is on disk, unless the
// journal has failed.
func (b *Broker) Close() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = b.Stop(ended) // without waiting
	for _, s := range b.all() {
		s.mu.Lock()
		s.timer.Stop()
		s.closed = true
		s.mu.Unlock()
	}
	close(b.quit)
	b.running.Wait()
	b.closeJournal()
}

func shuttingDown() error {
	return reason.New(reason.ShuttingDown, "the daemon is stopping: try again when it is back")
}

// randomWord returns 64 random bits.
func randomWord() uint64 {
	var word [8]byte
	_, _ = rand.Read(word[:]) // it never fails: see its documentation
	return binary.LittleEndian.Uint64(word[:])
}

// randomIdentity is that of a new journal.
func randomIdentity() (id [16]byte) {
	_, _ = rand.Read(id[:])
	return id
}
