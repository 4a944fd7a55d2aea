package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

func TestWhatIsStuckIsLookedAtOnce(t *testing.T) {
	var looks atomic.Int32
	stuck := make(chan struct{})
	p := probe{look: func() error {
		looks.Add(1)
		<-stuck
		return nil
	}}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if err := p.do(impatient); !errors.Is(err, context.Canceled) {
			t.Errorf("said %v", err)
		}
	}
	p.mu.Lock()
	under := p.under
	p.mu.Unlock()
	close(stuck)
	<-under.done
	if n := looks.Load(); n != 1 {
		t.Errorf("%d looks are stuck", n)
	}
	if err := p.do(t.Context()); err != nil {
		t.Error(err)
	}
}
