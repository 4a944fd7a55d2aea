package main

import (
	"errors"
	"testing"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/rpc"
)

func TestReadinessFollowsWhatTheLastLookHasFound(t *testing.T) {
	b := broker.New(broker.Options{})
	defer b.Close()
	d := &instance{log: zap.NewNop(), rpc: rpc.New(rpc.Options{Broker: transport.Over(b)})}
	if err := d.ready(); err != nil {
		t.Error(err)
	}
	stuck := errors.New("a lock is stuck")
	d.examined(stuck)
	if err := d.ready(); !errors.Is(err, stuck) {
		t.Errorf("not well, and yet ready: %v", err)
	}
	d.examined(nil)
	if err := d.ready(); err != nil {
		t.Errorf("well again, and yet %v", err)
	}
	d.stopping.Store(true)
	if d.ready() == nil {
		t.Error("stopping, and yet ready")
	}
}
