package shmring

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestStopLeavesMembersAsTheyAre(t *testing.T) {
	s, rings, path := start(t, nil)
	before := openDescriptors(t) - 1 // without the listener
	member, joins, idle := dial(t, path), dial(t, path), dial(t, path)
	member.join(attach.Producer)
	member.pull()
	joins.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	expect[attach.Memory](joins)
	for s.Connections() < 3 { // who waits in the kernel's backlog is told nothing
		runtime.Gosched()
	}
	s.Stop()
	for _, c := range []client{member, joins, idle} {
		c.refused(reason.ShuttingDown)
		c.sock.Close()
	}
	rings.mu.Lock()
	defer rings.mu.Unlock()
	if len(rings.members) != 1 || len(rings.left) != 0 || rings.joining != 0 {
		t.Errorf("%d members, %d joining, left %v", len(rings.members), rings.joining, rings.left)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	descriptorsAre(t, before)
}

func TestStopEndsWhatWaitsInTheBroker(t *testing.T) {
	s, rings, path := start(t, nil)
	waiting := make(chan struct{})
	rings.delay(func(ctx context.Context) error {
		close(waiting)
		<-ctx.Done()
		return ctx.Err()
	})
	c := dial(t, path)
	c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	<-waiting
	s.Stop()
	c.refused(reason.ShuttingDown)
	s.Stop() // again is nothing
}

func TestAHangUpEndsWhatWaitsInTheBroker(t *testing.T) {
	_, rings, path := start(t, nil)
	waiting, over := make(chan struct{}), make(chan struct{})
	rings.delay(func(ctx context.Context) error {
		close(waiting)
		<-ctx.Done()
		close(over)
		return ctx.Err()
	})
	c := dial(t, path)
	c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
	<-waiting
	c.sock.Close()
	<-over
}

func TestStopDoesNotWaitForWhoNeverReads(t *testing.T) {
	s, rings, path := start(t, nil)
	rings.mu.Lock()
	rings.others = 30
	rings.mu.Unlock()
	c := dial(t, path)
	c.join(attach.Consumer)
	c.pull()
	stopped := make(chan struct{})
	pull := bytesOf(t, attach.Pull{})
	go func() {
		defer close(stopped)
		for range 200 { // more replies than fit
			if _, err := c.sock.Write(pull); err != nil {
				return
			}
		}
	}()
	// Its replies fill the socket at some point; Stop comes before, at or after it.
	s.Stop()
	<-stopped
}

func TestServeAfterStopServesNothing(t *testing.T) {
	s := New(Options{Rings: newFakeRings(t), Logger: zaptest.NewLogger(t)})
	s.Stop()
	l, err := Listen(filepath.Join(t.TempDir(), "attach.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(l.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// Serve tells when it cannot go on, and Stop works all the same.
func TestAListenerThatIsClosedEndsServe(t *testing.T) {
	s := New(Options{Rings: newFakeRings(t), Logger: zaptest.NewLogger(t)})
	l, err := Listen(filepath.Join(t.TempDir(), "attach.sock"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	dial(t, l.Path()).join(attach.Producer)
	l.Close()
	if err := <-served; err == nil {
		t.Error("Serve ended without an error")
	}
	s.Stop()
}
