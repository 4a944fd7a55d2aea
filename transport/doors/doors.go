package doors

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport/posixmq"
)

// Doors opens kernel doors. It implements broker.Doors.
type Doors struct {
	logger   *zap.Logger
	registry *registry
	powers   powers
	attempts chan struct{} // one token: try again to open what could not be opened
	stop     chan struct{}
	ticker   *time.Ticker // nil in tests that bring their own
	retrying sync.WaitGroup

	mu     sync.Mutex            // guards the maps and closed
	live   map[*direction]bool   // all that Open returned and Close did not end yet
	owners map[string]*direction // by name of the kernel queue that is open, or being opened
	closed bool
}

// New reads from the state directory which kernel queues an earlier run has left behind, and unlinks
// those whose queue is gone; exists says which queues are still there, nil means none. The others are
// taken over when Open is called for their queue. The caller holds the state directory's lock.
func New(stateDir string, logger *zap.Logger, exists func(queue string) bool) (*Doors, error) {
	bootID, err := readBootID()
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(limits.KernelRetry)
	d, err := newDoors(stateDir, logger, exists, bootID, ticker.C)
	if err != nil {
		ticker.Stop()
		return nil, err
	}
	d.ticker = ticker
	return d, nil
}

func newDoors(stateDir string, logger *zap.Logger, exists func(queue string) bool, bootID string, ticks <-chan time.Time) (*Doors, error) {
	r, err := openRegistry(stateDir, bootID)
	if err != nil {
		return nil, err
	}
	d := &Doors{
		logger:   logger,
		registry: r,
		powers:   readPowers(),
		attempts: make(chan struct{}, 1),
		stop:     make(chan struct{}),
		live:     make(map[*direction]bool),
		owners:   make(map[string]*direction),
	}
	if err := d.reconcile(exists); err != nil {
		return nil, err
	}
	d.retrying.Go(func() { d.retry(ticks) })
	return d, nil
}

// reconcile unlinks what is ours and no longer has a queue.
func (d *Doors) reconcile(exists func(queue string) bool) error {
	all := d.registry.all()
	for _, o := range all {
		if o.Inode != 0 && exists != nil && exists(o.Queue) {
			continue
		}
		log := d.logger.With(zap.String("kernel_queue", o.Name), zap.String("queue", o.Queue))
		mq, err := d.powers.reopen(o, posixmq.Inspect)
		switch {
		case err == unix.ENOENT:
			d.registry.forget(o.Name)
			continue
		case err != nil:
			log.Warn("an old kernel queue could not be looked at; it stays recorded", zap.Error(err))
			continue
		}
		d.reconcileOne(o, mq, exists != nil && exists(o.Queue), log)
		mq.Close()
	}
	if len(all) == 0 {
		return nil
	}
	return d.registry.save()
}

func (d *Doors) reconcileOne(o record, mq *posixmq.MQ, wanted bool, log *zap.Logger) {
	st, err := mq.Stat()
	switch {
	case err != nil:
		log.Warn("an old kernel queue could not be looked at; it stays recorded", zap.Error(err))
		return
	case !o.describes(st):
		if o.Inode == 0 {
			log.Warn("a kernel queue stands where ipcd was about to make one when it died; it may be a stranger's and is left alone; if it is nobody's, mq_unlink it")
		}
		d.registry.forget(o.Name)
		return
	case wanted: // an intent that was carried out
		o.Inode = st.Inode
		d.registry.confirm(o)
		return
	}
	current, _ := mq.Current()
	ours, err := d.powers.unlink(mq)
	if err != nil {
		log.Warn("an old kernel queue could not be unlinked; it stays recorded", zap.Error(err))
		return
	}
	d.registry.forget(o.Name)
	log.Info("unlinked an old kernel queue whose queue is gone", zap.Int("messages", current), zap.Bool("ours", ours))
}

// Open opens the doors that the spec asks for. See broker.Doors.
func (d *Doors) Open(spec broker.DoorSpec) (broker.Door, error) {
	door := &Door{}
	auto := spec.Kernel.Mode == queue.KernelAuto
	switch spec.Kernel.Mode {
	case queue.KernelAuto, queue.KernelIn:
		door.directions = []*direction{newDirection(d, spec, in)}
	case queue.KernelOut:
		door.directions = []*direction{newDirection(d, spec, out)}
	case queue.KernelBoth:
		door.directions = []*direction{newDirection(d, spec, in), newDirection(d, spec, out)}
	}
	for i, one := range door.directions {
		err := d.enter(one)
		if err == nil {
			err = one.open()
		}
		if err == nil || auto && reason.Of(err) != reason.ShuttingDown {
			continue
		}
		one.close(false)
		for _, opened := range door.directions[:i] {
			opened.close(!opened.adopted)
		}
		var known *reason.Error
		if !errors.As(err, &known) {
			known = reason.New(reason.Internal, "%v", err)
		}
		return nil, known.On(spec.Queue)
	}
	return door, nil
}

// enter makes a direction one that is tried again.
func (d *Doors) enter(one *direction) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return reason.New(reason.ShuttingDown, "the daemon is stopping")
	}
	d.live[one] = true
	return nil
}

// leave undoes enter.
func (d *Doors) leave(one *direction) {
	d.mu.Lock()
	delete(d.live, one)
	d.mu.Unlock()
}

// claim makes a direction the owner of its kernel queue's name among our own doors.
func (d *Doors) claim(one *direction) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if owner := d.owners[one.name]; owner != nil && owner != one {
		return reason.New(reason.KernelNameTaken, "the kernel queue %s is the %s door of queue %s: choose another name, or close that door", one.name, owner.way, owner.spec.Queue)
	}
	d.owners[one.name] = one
	return nil
}

// unclaim undoes claim, and lets others try: a name and a share of the kernel's limits may be free now.
func (d *Doors) unclaim(one *direction, freed bool) {
	d.mu.Lock()
	if d.owners[one.name] == one {
		delete(d.owners, one.name)
	}
	d.mu.Unlock()
	if freed {
		select {
		case d.attempts <- struct{}{}:
		default:
		}
	}
}

// retry tries again what could not be opened, when one of our doors was closed and every now and then,
// and renews what was unlinked by somebody else.
func (d *Doors) retry(ticks <-chan time.Time) {
	for {
		select {
		case <-d.stop:
			return
		case <-d.attempts:
		case <-ticks:
		}
		d.mu.Lock()
		all := make([]*direction, 0, len(d.live))
		for one := range d.live {
			all = append(all, one)
		}
		d.mu.Unlock()
		// Where one did not fit, another that is no smaller will not: it need not try.
		var refused []posixmq.Geometry
		for _, one := range all {
			if limited, g := one.renew(refused); limited {
				refused = append(refused, g)
			}
		}
	}
}

// Close closes every door that is still open, leaving the kernel objects for the next run, and waits
// for the goroutine that tries again.
func (d *Doors) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	all := make([]*direction, 0, len(d.live))
	for one := range d.live {
		all = append(all, one)
	}
	d.mu.Unlock()
	close(d.stop)
	d.retrying.Wait()
	if d.ticker != nil {
		d.ticker.Stop()
	}
	for _, one := range all {
		one.close(false)
	}
	return d.registry.save()
}
