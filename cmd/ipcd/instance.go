package main

import (
	"context"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

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
	health      probe
	sick        atomic.Pointer[error] // what the last look at the health found, nil: nothing

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
	out.Warnings = next.Warnings
	for _, w := range next.Warnings {
		d.log.Warn("configuration", zap.String("warning", w))
	}
	renewed := false
	if d.tls != nil && next.TLS.On() { // the files may be other ones under the same names
		if renewed, err = d.tls.Reload(tlsConfig(next)); err != nil {
			return out, err
		}
	}
	out.Applied, _ = config.Changes(&d.current, &next)
	_, out.NeedRestart = config.Changes(&d.started, &next)
	unserved := next.TLS.On() != (d.tls != nil) // TCP gets TLS, or loses it, with its listener
	if unserved {
		out.NeedRestart = append(out.NeedRestart, "tls")
	}
	if renewed && !slices.Contains(out.Applied, "tls") {
		out.Applied = append(out.Applied, "tls: certificates were renewed")
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
