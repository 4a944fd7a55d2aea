package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/service"
	"github.com/ipcd/ipcd/internal/shm"
	"github.com/ipcd/ipcd/internal/version"
	"github.com/ipcd/ipcd/internal/vfs"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/doors"
	"github.com/ipcd/ipcd/transport/ops"
	"github.com/ipcd/ipcd/transport/rpc"
	"github.com/ipcd/ipcd/transport/shmring"
)

// run is the daemon's life: take the state directory, open the queues and rings, serve, and on a signal give
// all of it back in the opposite order. load reads the configuration, at the start and again for each reload.
func run(load loader) error {
	// From here on a signal is answered by the steps below; two of them may wait.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	manager := service.Connect()
	given, err := service.Inherit()
	if err != nil {
		return usageError{err}
	}
	cfg, err := load(atStart)
	if err != nil {
		given.Close()
		return usageError{err}
	}
	level, logger, err := newLogger(cfg.LogLevel)
	if err != nil {
		given.Close()
		return usageError{err}
	}
	defer logger.Sync()
	for _, w := range cfg.Warnings {
		logger.Warn("configuration", zap.String("warning", w))
	}

	lock, err := lockStateDir(cfg.StateDir)
	if err != nil {
		given.Close()
		return err
	}
	defer lock.Close()

	// The lock comes first: who does not get it must not touch the sockets or a kernel queue.
	s, err := listen(cfg, given, logger)
	if err != nil {
		return err
	}
	d := &instance{load: load, started: cfg, current: cfg, level: level, log: logger, manager: manager, tls: s.tls}
	d.stopTimeout.Store(int64(cfg.StopTimeout))
	d.health.look = d.look
	starting := d.begin()
	defer starting.end()
	if err := d.open(cfg, s, given.Stored); err != nil {
		s.close()
		return err
	}
	defer d.close()

	served := make(chan error, 3)
	d.serve(s, served)
	starting.end()
	d.run.Go(d.watch)
	logger.Info("ipcd started", zap.Strings("addresses", s.addresses()), zap.String("attach_socket", s.attach.Path()), zap.String("http", cfg.HTTP),
		zap.String("state_dir", cfg.StateDir), zap.String("version", version.Version), zap.Int("pid", os.Getpid()), zap.Strings("files", cfg.Files))
	reloads, cancel := context.WithCancel(context.Background())
	defer d.run.Wait()
	defer d.quit()
	defer cancel()

	for {
		select {
		case <-hangups:
			d.run.Go(func() { _, _ = d.Reload(reloads) }) // it logs what came of it
			continue
		case sig := <-signals:
			timeout := time.Duration(d.stopTimeout.Load())
			logger.Info("ipcd stops", zap.Stringer("signal", sig), zap.Duration("stop_timeout", timeout))
			d.stop(timeout, signals)
			return nil
		case err = <-served:
			// Without a signal Serve returns only because a listener broke.
			err = fmt.Errorf("serve: %w", err)
			logger.Error("ipcd stops", zap.Error(err))
			d.stop(time.Duration(d.stopTimeout.Load()), signals)
			return err
		case <-d.broker.Failed():
			// Nothing can be acknowledged any more, so there is nothing to wait for. Members of rings go on.
			_ = manager.Status("the journal has failed: %v", d.broker.Failure())
			d.release()
			return d.broker.Failure()
		}
	}
}

// open reads what is on disk, and makes all rooms of the house. What it has made when it fails is closed.
func (d *instance) open(cfg config.Config, s *sockets, stored []service.StoredFile) (err error) {
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	uid := uint32(os.Geteuid())
	policy := cfg.Access
	policy.DaemonUID = uid
	d.access = access.New(policy, d.log)
	if d.quotas, err = quota.Open(vfs.OS{}, cfg.StateDir, uid, cfg.Quotas); err != nil {
		return err
	}
	if d.broker, err = openBroker(cfg, d); err != nil {
		return err
	}
	if d.rings, err = openRings(cfg, d, stored); err != nil {
		return err
	}
	if d.kernel, err = doors.New(cfg.StateDir, d.log, d.broker.HasQueue); err != nil {
		return fmt.Errorf("kernel queues: %w", err)
	}
	d.broker.OpenDoors(d.kernel)

	b, r := transport.Over(d.broker), transport.OverRings(d.rings)
	d.ops = ops.New(ops.Options{Broker: b, Rings: r, Access: d.access, Quotas: d.quotas, Connections: d.connections,
		Health: d.health.do, Ready: d.ready, Version: version.Version, Logger: d.log})
	d.rpc = rpc.New(rpc.Options{Broker: b, Rings: r, Access: d.access, Quotas: d.quotas, System: d, TLS: d.tls, Calls: d.ops, Logger: d.log,
		Version: version.Version, StateDir: cfg.StateDir, AttachSocket: s.attach.Path()})
	d.attach = shmring.New(shmring.Options{Rings: shmring.Over(d.rings), Quotas: d.quotas, Logger: d.log})

	// What is declared is there before the first caller comes.
	made, refused := declare(context.Background(), b, r, d.identity(), cfg.Queues, cfg.Rings)
	if len(made) > 0 {
		d.log.Info("declared queues and rings were made or changed", zap.Strings("applied", made))
	}
	for _, why := range refused {
		d.log.Error("a declaration could not be applied", zap.String("why", why))
	}
	return nil
}

// identity is that of the daemon itself.
func (d *instance) identity() identity.Identity {
	return identity.Identity{Kind: identity.Unix, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// openBroker reads the journal and opens the queues that are in it.
func openBroker(cfg config.Config, d *instance) (*broker.Broker, error) {
	began := time.Now()
	b, err := broker.Open(broker.Options{
		Logger: d.log, Access: d.access, Quotas: d.quotas,
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
	d.log.Info("journal read", zap.Int("queues", totals.Queues), zap.Int64("messages", totals.Messages), zap.Duration("took", time.Since(began)))
	return b, nil
}

// openRings reads the definitions of the rings, and takes the lanes that the service manager kept. Where members of
// the daemon's last run are still attached, they have a few seconds to come back.
func openRings(cfg config.Config, d *instance, stored []service.StoredFile) (*ring.Rings, error) {
	kept := make([]ring.StoredFD, len(stored))
	for i, f := range stored {
		kept[i] = ring.StoredFD{Name: f.Name, File: f.File}
	}
	rings, err := ring.Open(ring.Options{
		Logger: d.log, Dir: cfg.StateDir, FS: vfs.OS{}, Access: d.access, Quotas: d.quotas,
		Memory: cfg.RingMemory, MemoryPerUID: cfg.RingMemoryPerUID, FDStore: d.manager, Stored: kept,
	})
	if err != nil {
		return nil, fmt.Errorf("rings: %w", err)
	}
	warnOfPolling(d.log, shm.SleepsOnFutexes())
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

// serve opens the doors.
func (d *instance) serve(s *sockets, served chan<- error) {
	go func() { served <- d.rpc.Serve(s.rpc...) }()
	go func() { served <- d.attach.Serve(s.attach) }()
	if s.http != nil {
		go func() { served <- d.ops.Serve(s.http) }()
	}
}

// release lets go of the members of rings, which keep their memory and go on. The rings are told first, or it would
// look as if all members had left.
func (d *instance) release() {
	d.rings.Stop()
	d.attach.Stop()
}

// stop ends deliveries, waits for what is delivered to be settled, for the timeout at most, and ends
// the calls. A further signal ends all waiting.
func (d *instance) stop(timeout time.Duration, signals <-chan os.Signal) {
	d.stopping.Store(true)
	_ = d.manager.Stopping()
	_ = d.manager.Status("stopping: waiting up to %v for what is delivered to be settled", timeout)
	_ = d.manager.Extend(timeout + 2*callsTimeout + stopMargin)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case s := <-signals:
			d.log.Warn("ipcd stops at once", zap.Stringer("signal", s))
			cancel()
		case <-finished:
		}
	}()
	d.release()
	d.rpc.Drain()
	acks, cancelAcks := context.WithTimeout(ctx, timeout)
	defer cancelAcks()
	if err := d.broker.Stop(acks); err != nil {
		d.log.Warn("stopping without waiting longer", zap.Error(err))
	}
	calls, cancelCalls := context.WithTimeout(ctx, callsTimeout)
	defer cancelCalls()
	d.rpc.Stop(calls)
	d.ops.Stop(calls)
	d.log.Info("ipcd stopped")
}

// stopMargin is for what a stop does besides waiting: it writes leases down, and closes files.
const stopMargin = 10 * time.Second

// close gives back what open has made, in the opposite order.
func (d *instance) close() {
	if d.kernel != nil {
		d.kernel.Close()
	}
	if d.rings != nil && d.broker.Failure() == nil { // else the disk cannot be relied on, and nothing more is written
		d.rings.Close()
	}
	if d.broker != nil {
		d.broker.Close()
	}
}

// connections are counted by door.
func (d *instance) connections() map[string]int {
	doors := d.rpc.Connections()
	doors["attach"] = d.attach.Connections()
	return doors
}
