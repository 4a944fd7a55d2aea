package ring

import (
	"context"
	"testing"

	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// recorder is a handle that remembers what it is told.
type recorder struct {
	memory  *shm.Memory
	offered []uint64 // epochs
	closed  int
}

func (r *recorder) Offer(m shm.Members) {
	r.offered = append(r.offered, m.Epoch)
	giveBack(m)
}

func (r *recorder) Close() {
	r.closed++
	if r.closed == 1 {
		r.memory.Release()
	}
}

func giveBack(m shm.Members) {
	m.Page.Release()
	for _, l := range m.Lanes {
		l.Memory.Release()
	}
	for _, c := range m.Consumers {
		c.Memory.Release()
	}
}

// enter makes a producer of the daemon's own whose handle is a recorder. meanwhile is called while the handle is made.
func (w *world) enter(meanwhile func()) (*recorder, *Member, error) {
	w.Helper()
	rg := w.byName["/r"]
	m, err := rg.newMember(alice, Producer, false)
	if err != nil {
		w.Fatal(err)
	}
	r := &recorder{}
	err = rg.enterOwn(m, alice.Principal(), func(_ Header, memory *shm.Memory, others shm.Members) handle {
		r.memory = memory
		giveBack(others)
		meanwhile()
		return r
	})
	return r, m, err
}

func TestDaemonsOwnMembersMissNoChange(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	var c *process
	r, _, err := w.enter(func() { c = w.consumer(alice, "/r") })
	if err != nil {
		t.Fatal(err)
	}
	last := func() {
		t.Helper()
		if n := len(r.offered); n == 0 || r.offered[n-1] != w.info("/r").Epoch {
			t.Errorf("offered %v, and the epoch is %d", r.offered, w.info("/r").Epoch)
		}
	}
	last()
	c.Leave("test")
	last()
	w.producer(alice, "/r")
	last()
}

func TestDaemonsOwnMembersEndWithWhatHappensMeanwhile(t *testing.T) {
	for what, c := range map[string]struct {
		meanwhile func(*world)
		why       reason.Reason
	}{
		"delete": {func(w *world) {
			if _, err := w.Delete(context.Background(), alice, "/r"); err != nil {
				t.Error(err)
			}
		}, reason.RingDeleted},
		"stop": {func(w *world) { w.Stop() }, reason.ShuttingDown},
	} {
		w := newWorld(t, Options{})
		w.create(alice, "/r", small)
		r, _, err := w.enter(func() { c.meanwhile(w) })
		wants(t, err, c.why)
		if r.closed != 1 {
			t.Errorf("%s: the handle was closed %d times", what, r.closed)
		}
	}
}

func TestAccessIsCheckedWhenItIsAPublishersTurn(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	turn := w.byName["/r"].turn
	turn <- struct{}{} // as another publish would hold it
	ctx := &watched{Context: context.Background(), asked: make(chan struct{})}
	published := make(chan error)
	go func() {
		_, _, err := w.Publish(ctx, bob, "/r", messages(1))
		published <- err
	}()
	<-ctx.asked
	if _, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error { s.Mode = 0o600; return nil }); err != nil {
		t.Fatal(err)
	}
	<-turn
	wants(t, <-published, reason.AccessDenied)
	if n := len(w.info("/r").Lanes); n != 0 {
		t.Errorf("%d lanes were made for it", n)
	}
}
