package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

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
		err := d.health.do(ctx)
		cancel()
		d.examined(err)
		line := "not well: "
		if err == nil {
			line = d.status()
			if watchdog > 0 {
				_ = d.manager.Alive()
			}
		} else {
			line += err.Error()
		}
		if line != status && !d.stopping.Load() {
			_ = d.manager.Status("%s", line)
			status = line
		}
		select {
		case <-d.ending:
			return
		case <-ticker.C:
		}
	}
}

// look takes every lock, and waits until what was decided is on disk.
func (d *instance) look() error {
	d.rings.Totals()
	return d.broker.Probe()
}

// examined tells those who ask for the daemon's health what the last look has found.
func (d *instance) examined(err error) {
	if err == nil {
		if d.sick.Swap(nil) != nil {
			d.log.Info("the daemon moves again")
		}
	} else {
		d.sick.Store(&err)
		d.log.Error("the daemon is not well", zap.Error(err))
	}
	if !d.stopping.Load() {
		d.rpc.SetServing(err == nil)
	}
}

// ready is nil while calls are served.
func (d *instance) ready() error {
	if d.stopping.Load() {
		return errors.New("the daemon is stopping")
	}
	if err := d.sick.Load(); err != nil {
		return *err
	}
	return nil
}
