package main

import (
	"context"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/service"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/doors"
	"github.com/ipcd/ipcd/transport/ops"
	"github.com/ipcd/ipcd/transport/rpc"
	"github.com/ipcd/ipcd/transport/shmring"
)

// loader reads the configuration from file and flags.
type loader func(when) (config.Config, error)

// when is why the configuration is read.
type when bool

const (
	atStart  when = false // what can be left out without harm is left out, with a warning
	onReload when = true  // every mistake is one
)

// instance is all rooms of the house. It is a transport.System.
type instance struct {
	load    loader
	log     *zap.Logger
	level   zap.AtomicLevel
	manager *service.Manager
	tls     *rpc.TLS // or nil

	access *access.Control
	quotas *quota.Table
	broker *broker.Broker
	rings  *ring.Rings
	kernel *doors.Doors
	ops    *ops.Server
	rpc    *rpc.Server
	attach *shmring.Server

	stopTimeout atomic.Int64 // how long a stop waits for acks, ns
	stopping    atomic.Bool

	reloading sync.Mutex // held by a reload; guards current
	started   config.Config
	current   config.Config // what is in force of it

	run     sync.WaitGroup // watch
	ending  chan struct{}  // closed by quit
	endOnce sync.Once
}

// WriteMetrics is for transport.System.
func (d *instance) WriteMetrics(w io.Writer) error { return d.ops.WriteMetrics(w) }

// Clients is for transport.System.
func (d *instance) Clients() []transport.Client { return d.attach.Clients() }

// Reload reads the configuration again. See transport.System.
func (d *instance) Reload(ctx context.Context) (transport.Reloaded, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.stopping.Load() {
		return transport.Reloaded{}, reason.New(reason.ShuttingDown, "the daemon is stopping")
	}
	_ = d.manager.Reloading()
	defer d.manager.Ready()
	out, err := d.reload(ctx)
	if err != nil {
		d.log.Error("the configuration was not reloaded, and the one before stays in force", zap.Error(err))
		return out, reason.New(reason.ConfigInvalid, "%v", err)
	}
	d.log.Info("the configuration was reloaded", zap.Strings("applied", out.Applied), zap.Strings("need_restart", out.NeedRestart), zap.Strings("refused", out.Refused))
	return out, nil
}

func (d *instance) reload(ctx context.Context) (out transport.Reloaded, err error) {
	next, err := d.load(onReload)
	if err != nil {
		return out, err
	}
	for _, w := range next.Warnings {
		d.log.Warn("configuration", zap.String("warning", w))
	}
	if d.tls != nil && next.TLS.On() { // the files may be other ones under the same names
		if err := d.tls.Reload(tlsConfig(next)); err != nil {
			return out, err
		}
	}
	out.Applied, _ = config.Changes(&d.current, &next)
	_, out.NeedRestart = config.Changes(&d.started, &next)
	unserved := next.TLS.On() != (d.tls != nil) // TCP gets TLS, or loses it, with its listener
	if unserved {
		out.NeedRestart = append(out.NeedRestart, "tls")
	}
	out.Applied = slices.DeleteFunc(out.Applied, func(key string) bool {
		return key == "tls" && unserved || key == "queues" || key == "rings" // each of them tells for itself
	})
	if err := d.level.UnmarshalText([]byte(next.LogLevel)); err != nil {
		return out, err
	}
	d.stopTimeout.Store(int64(next.StopTimeout))
	d.quotas.Configure(next.Quotas)
	policy := next.Access
	policy.DaemonUID = uint32(os.Geteuid())
	d.access.Set(policy)
	d.broker.AccessChanged()
	d.rings.AccessChanged()
	d.current = next
	made, refused := declare(ctx, transport.Over(d.broker), transport.OverRings(d.rings), d.identity(), next.Queues, next.Rings)
	out.Applied = append(out.Applied, made...)
	out.Refused = refused
	return out, nil
}

// quit ends watch.
func (d *instance) quit() { d.endOnce.Do(func() { close(d.ending) }) }

// Times of what the service manager is told.
const (
	startExtension = time.Minute      // a start that takes longer asks for more time
	startInterval  = 10 * time.Second // between two such requests
	statusInterval = 10 * time.Second
	probeShare     = 3 // looks in each interval of the watchdog
)

// starting is a start that is under way.
type starting struct {
	d    *instance
	once sync.Once
	done chan struct{}
	all  sync.WaitGroup
}

// begin tells the service manager that starting takes as long as it takes: a journal of many gigabytes is no hang.
func (d *instance) begin() *starting {
	d.ending = make(chan struct{})
	s := &starting{d: d, done: make(chan struct{})}
	began := time.Now()
	_ = d.manager.Status("reading the journal")
	s.all.Go(func() {
		ticker := time.NewTicker(startInterval)
		defer ticker.Stop()
		for {
			_ = d.manager.Extend(startExtension)
			select {
			case <-s.done:
				return
			case <-ticker.C:
				_ = d.manager.Status("reading the journal for %v", time.Since(began).Round(time.Second))
			}
		}
	})
	return s
}

// end is the end of the start, for whatever reason.
func (s *starting) end() {
	s.once.Do(func() { close(s.done) })
	s.all.Wait()
}

// watch tells the service manager that the daemon serves, how it is doing, and that it is alive for as long as it is:
// its locks can be had, and what is decided reaches the disk. Where that is not so, watch says nothing, or is stuck
// itself, and the service manager starts the daemon anew.
func (d *instance) watch() {
	if err := d.manager.Ready(); err != nil {
		d.log.Warn("the service manager was not told that the daemon is ready", zap.Error(err))
	}
	interval := statusInterval
	watchdog := d.manager.WatchdogInterval()
	if watchdog > 0 {
		interval = min(interval, watchdog/probeShare)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	status := ""
	for {
		ctx, cancel := context.WithTimeout(context.Background(), interval)
		err := d.broker.Probe(ctx)
		cancel()
		if err == nil {
			if line := d.status(); line != status && !d.stopping.Load() {
				_ = d.manager.Status("%s", line)
				status = line
			}
			if watchdog > 0 {
				_ = d.manager.Alive()
			}
		} else {
			d.log.Error("the daemon does not move", zap.Error(err))
		}
		select {
		case <-d.ending:
			return
		case <-ticker.C:
		}
	}
}
