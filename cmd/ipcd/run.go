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
	"github.com/ipcd/ipcd/internal/config"
	"github.com/ipcd/ipcd/internal/version"
	"github.com/ipcd/ipcd/internal/vfs"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/doors"
	"github.com/ipcd/ipcd/transport/rpc"
)

// run is the daemon's life: take the state directory, open the queues, serve, and on a signal give
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

	// The lock comes first: who does not get it must not touch the socket or a kernel queue.
	listeners, err := listen(cfg)
	if err != nil {
		return err
	}
	b, err := openBroker(cfg, logger)
	if err != nil {
		closeAll(listeners)
		return err
	}
	defer b.Close()
	kernel, err := doors.New(cfg.StateDir, logger, b.HasQueue)
	if err != nil {
		closeAll(listeners)
		return fmt.Errorf("kernel queues: %w", err)
	}
	defer kernel.Close()
	b.OpenDoors(kernel)

	server := rpc.New(rpc.Options{Broker: transport.Over(b), Logger: logger, Version: version.Version, StateDir: cfg.StateDir})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listeners...) }()
	logger.Info("ipcd started", zap.Strings("addresses", addresses(listeners)), zap.String("state_dir", cfg.StateDir),
		zap.String("version", version.Version), zap.Int("pid", os.Getpid()))

	select {
	case s := <-signals:
		logger.Info("ipcd stops", zap.Stringer("signal", s), zap.Duration("stop_timeout", cfg.StopTimeout))
	case err = <-served:
		// Without a signal Serve returns only because a listener broke.
		err = fmt.Errorf("serve: %w", err)
		logger.Error("ipcd stops", zap.Error(err))
	case <-b.Failed():
		// Nothing can be acknowledged any more, so there is nothing to wait for.
		return b.Failure()
	}
	stop(cfg.StopTimeout, signals, server, b, logger)
	return err
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

// journalDir is where the journal is in the state directory.
const journalDir = "journal"

// callsTimeout is how long calls may take to end once the waiting for acks is over.
const callsTimeout = time.Second

// stop ends deliveries, waits for what is delivered to be settled, for the timeout at most, and ends
// the calls. A further signal ends all waiting.
func stop(timeout time.Duration, signals <-chan os.Signal, server *rpc.Server, b *broker.Broker, logger *zap.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case s := <-signals:
			logger.Warn("ipcd stops at once", zap.Stringer("signal", s))
			cancel()
		case <-finished:
		}
	}()
	server.Drain()
	acks, cancelAcks := context.WithTimeout(ctx, timeout)
	defer cancelAcks()
	if err := b.Stop(acks); err != nil {
		logger.Warn("stopping without waiting longer", zap.Error(err))
	}
	calls, cancelCalls := context.WithTimeout(ctx, callsTimeout)
	defer cancelCalls()
	server.Stop(calls)
	logger.Info("ipcd stopped")
}

// listen opens the sockets: all or none.
func listen(cfg config.Config) ([]net.Listener, error) {
	var listeners []net.Listener
	if cfg.Listen != "" {
		l, err := rpc.ListenTCP(cfg.Listen, cfg.Insecure)
		var refused rpc.AddressError
		if errors.As(err, &refused) {
			return nil, usageError{err}
		}
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	l, err := rpc.ListenUnix(cfg.Socket)
	if err != nil {
		closeAll(listeners)
		return nil, err
	}
	return append([]net.Listener{l}, listeners...), nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func addresses(listeners []net.Listener) []string {
	list := make([]string, len(listeners))
	for i, l := range listeners {
		list[i] = rpc.Address(l)
	}
	return list
}
