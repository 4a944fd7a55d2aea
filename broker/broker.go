package broker

import (
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

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// Options is what a Broker needs from outside.
type Options struct {
	Logger   *zap.Logger // nil: silent
	Doors    Doors       // nil: queues have no kernel doors
	Instance string      // identifies this run; "": a random one
	// AdminUID may do everything, as root may: the uid that the daemon runs as. 0 adds nobody.
	AdminUID uint32
}

// Broker owns all queues. It is safe for concurrent use.
type Broker struct {
	log      *zap.Logger
	doors    Doors
	instance string
	adminUID uint32
	started  time.Time

	// admin serialises what makes, changes and removes queues. It is taken before any other lock.
	admin  sync.Mutex
	lastID uint64 // guarded by admin

	// mu guards the names. Queues' locks are taken after it, or without it.
	mu     sync.RWMutex
	byName map[string]*served
	byID   map[uint64]*served

	stopping  atomic.Bool
	leaseEnds chan struct{} // told, while stopping, when a queue has no lease left
	quit      chan struct{}
	running   sync.WaitGroup // timers' functions and the clock watcher
}

// New returns a Broker without queues. Close ends it.
func New(o Options) *Broker {
	b := &Broker{
		log: o.Logger, doors: o.Doors, instance: o.Instance, adminUID: o.AdminUID, started: time.Now(),
		byName: map[string]*served{}, byID: map[uint64]*served{},
		leaseEnds: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	if b.log == nil {
		b.log = zap.NewNop()
	}
	if b.instance == "" {
		b.instance = rand.Text()
	}
	b.running.Go(b.watchClock)
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
func (b *Broker) find(id identity.Identity, name string, want access) (*served, error) {
	if err := queue.CheckName(name); err != nil {
		return nil, err
	}
	b.mu.RLock()
	s := b.byName[name]
	b.mu.RUnlock()
	if s == nil {
		return nil, notFound(name)
	}
	if err := b.check(id, s, want); err != nil {
		return nil, err
	}
	return s, nil
}

func notFound(name string) error {
	return reason.New(reason.QueueNotFound, "there is no such queue: create it first").On(name)
}

// all returns the queues by name.
func (b *Broker) all() []*served {
	b.mu.RLock()
	defer b.mu.RUnlock()
	queues := make([]*served, 0, len(b.byName))
	for _, name := range slices.Sorted(maps.Keys(b.byName)) {
		queues = append(queues, b.byName[name])
	}
	return queues
}

// Totals sums up all queues.
func (b *Broker) Totals() Totals {
	var t Totals
	for _, s := range b.all() {
		s.mu.Lock()
		t.Queues++
		t.Messages += s.q.Len()
		t.Bytes += s.q.Bytes()
		s.mu.Unlock()
	}
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

// Close ends the broker. Nothing of it is running when it returns.
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
