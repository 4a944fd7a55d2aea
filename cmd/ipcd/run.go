package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/shm"
	"github.com/ipcd/ipcd/internal/version"
	"github.com/ipcd/ipcd/internal/vfs"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/doors"
	"github.com/ipcd/ipcd/transport/rpc"
	"github.com/ipcd/ipcd/transport/shmring"
)

// run is the daemon's life: take the state directory, open the queues and rings, serve, and on a signal give
// all of it back in the opposite order.
func run(cfg config.Config) error {
	// From here on a signal is answered by the steps below; two of them may wait.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	logger, err := newLogger(cfg.LogLevel)
	if err != nil {
		return usageError{err}
	}
	defer logger.Sync()

	lock, err := lockStateDir(cfg.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()

	// The lock comes first: who does not get it must not touch the sockets or a kernel queue.
	listeners, attach, err := listen(cfg)
	if err != nil {
		return err
	}
	b, err := openBroker(cfg, logger)
	if err != nil {
		closeAll(listeners, attach)
		return err
	}
	defer b.Close()
	rings, err := openRings(cfg, logger)
	if err != nil {
		closeAll(listeners, attach)
		return err
	}
	defer func() {
		if b.Failure() == nil { // else the disk cannot be relied on, and nothing more is written
			rings.Close()
		}
	}()
	kernel, err := doors.New(cfg.StateDir, logger, b.HasQueue)
	if err != nil {
		closeAll(listeners, attach)
		return fmt.Errorf("kernel queues: %w", err)
	}
	defer kernel.Close()
	b.OpenDoors(kernel)

	d := instance{broker: b, rings: rings, logger: logger}
	d.rpc = rpc.New(rpc.Options{Broker: transport.Over(b), Rings: transport.OverRings(rings), Logger: logger,
		Version: version.Version, StateDir: cfg.StateDir, AttachSocket: cfg.AttachSocket})
	d.attach = shmring.New(shmring.Options{Rings: shmring.Over(rings), Logger: logger})
	served := make(chan error, 2)
	go func() { served <- d.rpc.Serve(listeners...) }()
	go func() { served <- d.attach.Serve(attach) }()
	logger.Info("ipcd started", zap.Strings("addresses", addresses(listeners)), zap.String("attach_socket", attach.Path()),
		zap.String("state_dir", cfg.StateDir), zap.String("version", version.Version), zap.Int("pid", os.Getpid()))

	select {
	case s := <-signals:
		logger.Info("ipcd stops", zap.Stringer("signal", s), zap.Duration("stop_timeout", cfg.StopTimeout))
	case err = <-served:
		// Without a signal Serve returns only because a listener broke.
		err = fmt.Errorf("serve: %w", err)
		logger.Error("ipcd stops", zap.Error(err))
	case <-b.Failed():
		// Nothing can be acknowledged any more, so there is nothing to wait for. Members of rings go on.
		d.release()
		return b.Failure()
	}
	d.stop(cfg.StopTimeout, signals)
	return err
}

// instance is what has to be stopped in the right order.
type instance struct {
	broker *broker.Broker
	rings  *ring.Rings
	rpc    *rpc.Server
	attach *shmring.Server
	logger *zap.Logger
}

// openBroker reads the journal and opens the queues that are in it.
func openBroker(cfg config.Config, logger *zap.Logger) (*broker.Broker, error) {
	began := time.Now()
	b, err := broker.Open(broker.Options{
		Logger: logger, AdminUID: uint32(os.Geteuid()),
		MaxMemory: cfg.MaxMemory, PayloadMemory: cfg.PayloadMemory,
		Journal: &broker.JournalOptions{
			FS: vfs.OS{}, Dir: filepath.Join(cfg.StateDir, journalDir), SegmentBytes: cfg.SegmentSize,
			MaxDisk: cfg.MaxDisk, KeepFree: cfg.KeepFree, Quarantine: cfg.OnDamage == config.Quarantine,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	totals := b.Totals()
	logger.Info("journal read", zap.Int("queues", totals.Queues), zap.Int64("messages", totals.Messages), zap.Duration("took", time.Since(began)))
	return b, nil
}

// openRings reads the definitions of the rings. Where members of the daemon's last run are still attached, they have
// a few seconds to come back.
func openRings(cfg config.Config, logger *zap.Logger) (*ring.Rings, error) {
	rings, err := ring.Open(ring.Options{
		Logger: logger, Dir: cfg.StateDir, FS: vfs.OS{}, AdminUID: uint32(os.Geteuid()),
		Memory: cfg.RingMemory, MemoryPerUID: cfg.RingMemoryPerUID,
	})
	if err != nil {
		return nil, fmt.Errorf("rings: %w", err)
	}
	warnOfPolling(logger, shm.SleepsOnFutexes())
	return rings, nil
}

// warnOfPolling says what a kernel costs that has no futex_waitv(2).
func warnOfPolling(logger *zap.Logger, sleepsOnFutexes bool) {
	if !sleepsOnFutexes {
		logger.Warn("this kernel has no futex_waitv(2): it is older than Linux 5.16, or a filter of system calls refuses it; members of rings that wait look again each millisecond instead")
	}
}

// journalDir is where the journal is in the state directory.
const journalDir = "journal"

// callsTimeout is how long calls may take to end once the waiting for acks is over.
const callsTimeout = time.Second

// release lets go of the members of rings, which keep their memory and go on. The rings are told first, or it would
// look as if all members had left.
func (d *instance) release() {
	d.rings.Stop()
	d.attach.Stop()
}

// stop ends deliveries, waits for what is delivered to be settled, for the timeout at most, and ends
// the calls. A further signal ends all waiting.
func (d *instance) stop(timeout time.Duration, signals <-chan os.Signal) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case s := <-signals:
			d.logger.Warn("ipcd stops at once", zap.Stringer("signal", s))
			cancel()
		case <-finished:
		}
	}()
	d.release()
	d.rpc.Drain()
	acks, cancelAcks := context.WithTimeout(ctx, timeout)
	defer cancelAcks()
	if err := d.broker.Stop(acks); err != nil {
		d.logger.Warn("stopping without waiting longer", zap.Error(err))
	}
	calls, cancelCalls := context.WithTimeout(ctx, callsTimeout)
	defer cancelCalls()
	d.rpc.Stop(calls)
	d.logger.Info("ipcd stopped")
}

// listen opens the sockets: all or none.
func listen(cfg config.Config) (listeners []net.Listener, attach *shmring.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(listeners, nil)
		}
	}()
	if cfg.Listen != "" {
		l, err := rpc.ListenTCP(cfg.Listen, cfg.Insecure)
		var refused rpc.AddressError
		if errors.As(err, &refused) {
			return nil, nil, usageError{err}
		}
		if err != nil {
			return nil, nil, err
		}
		listeners = append(listeners, l)
	}
	l, err := rpc.ListenUnix(cfg.Socket)
	if err != nil {
		return listeners, nil, err
	}
	listeners = append([]net.Listener{l}, listeners...)
	attach, err = shmring.Listen(cfg.AttachSocket)
	return listeners, attach, err
}

// closeAll closes what nobody serves yet. attach may be nil.
func closeAll(listeners []net.Listener, attach *shmring.Listener) {
	for _, l := range listeners {
		l.Close()
	}
	if attach != nil {
		attach.Close()
	}
}

func addresses(listeners []net.Listener) []string {
	list := make([]string, len(listeners))
	for i, l := range listeners {
		list[i] = rpc.Address(l)
	}
	return list
}
