package ring

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestListsArePartialAndNewMembersWaitForTheWindow(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", small)
	a, b := w.producer(alice, "/r").keep(t, alice, "/r"), w.producer(alice, "/r").keep(t, alice, "/r")
	c := w.consumer(bob, "/r").keep(t, bob, "/r")
	w.restart()
	w.back(a)
	w.back(c)
	if l := c.members(t); !l.Partial || !slices.Equal(l.ids(), []uint64{a.ID()}) {
		t.Errorf("in the window: %+v", l)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	q := AttachRequest{Name: "/r", Role: Producer}
	if _, err := w.Attach(ended, alice, q); err != context.Canceled {
		t.Errorf("who attaches in the window got %v", err)
	}
	if _, err := w.Subscribe(ended, alice, "/r", SubscribeOptions{}); err != context.Canceled {
		t.Errorf("who subscribes in the window got %v", err)
	}
	if _, _, err := w.Publish(ended, alice, "/r", []shm.Message{{Type: 1}}); err != context.Canceled {
		t.Errorf("who publishes in the window got %v", err)
	}
	_, err := w.Attach(ended, alice, AttachRequest{Name: "/none", Role: Producer})
	wants(t, err, reason.RingNotFound) // which needs no waiting
	waiting := make(chan error, 1)
	ctx := &watched{Context: context.Background(), asked: make(chan struct{})}
	go func() {
		j, err := w.Attach(ctx, alice, q)
		if err == nil {
			j.Abandon()
		}
		waiting <- err
	}()
	<-ctx.asked
	w.Stop()
	wants(t, <-waiting, reason.ShuttingDown)
	w.Close()
	w.start()
	w.back(b)
	w.Close()

	// With a window that ends.
	w.o.AdoptWindow = time.Nanosecond
	w.start()
	j, err := w.Attach(context.Background(), alice, q)
	if err != nil {
		t.Fatal(err)
	}
	j.Abandon()
	soon(t, "the epoch rises with the end of the window", func() bool { return w.info("/r").Epoch == w.run<<32+1 })
	w.back(a) // late, but its slot is free
	w.back(c)
	if l := c.members(t); l.Partial || !slices.Equal(l.ids(), []uint64{a.ID()}) {
		t.Errorf("after the window: %+v", l)
	}
}

func TestWindowOpensOnlyWhereMembersMayBeAlive(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: hour})
	expect := func(what string, open bool) {
		t.Helper()
		if w.inWindow() != open {
			t.Fatalf("%s: the window is open: %v", what, !open) // or attaching would wait for it
		}
	}
	crash := func() { // what is on disk stays, Close writes nothing
		t.Helper()
		name := filepath.Join(w.o.Dir, definitionsName)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
	}
	expect("first start", false)
	w.create(alice, "/r", small)
	w.restart()
	expect("nobody was attached", false)
	w.consumer(alice, "/r").Leave("test")
	w.restart()
	expect("nobody was any more", false)
	if _, _, err := w.Publish(context.Background(), alice, "/r", []shm.Message{{Type: 1}}); err != nil {
		t.Fatal(err)
	}
	w.restart()
	expect("the daemon itself was", false)
	p := w.producer(alice, "/r").keep(t, alice, "/r")
	w.restart()
	expect("one was attached", true)
	crash()
	expect("one was, and the daemon crashed before it came back", true)
	w.back(p)
	w.Stop()
	p.Leave("hang-up, since the daemon stops")
	w.restart()
	expect("it was told that the daemon stops", true)
	w.back(p)
	w.o.BootID = "another boot"
	w.restart()
	expect("the machine was started anew", false)
	w.consumer(alice, "/r").Leave("test")
	crash()
	expect("one may have been attached when the daemon crashed", true)
}

func TestCloseLeavesMembersMemoryAlone(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	before := descriptors(t)
	p, c := w.producer(alice, "/r"), w.consumer(bob, "/r")
	page, err := shm.Map(p.Page(), shm.MembersSize, false)
	if err != nil {
		t.Fatal(err)
	}
	epoch := shm.NewPage(page)
	defer epoch.Release()
	was := epoch.Epoch()
	text := slices.Clone(p.memory.Bytes())
	j, _ := w.begin(alice, AttachRequest{Name: "/r", Role: Producer})
	w.Stop()
	p.Leave("hang-up")
	c.Leave("hang-up")
	w.Close()
	if _, err := j.Ready(); err == nil {
		t.Error("joined after the end")
	}
	p.Leave("hang-up")
	if now := epoch.Epoch(); now != was || !slices.Equal(text, p.memory.Bytes()) || p.isGone() {
		t.Errorf("epoch %d, %d before; gone: %v", now, was, p.isGone())
	}
	p.memory.Bytes()[limits.RingCapacityMin] = 1 // still writable
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}
