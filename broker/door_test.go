package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// fakeDoors hands out doors that lease what fits into a tiny kernel queue, as outgoing doors do.
type fakeDoors struct {
	opened map[string]*fakeDoor
	refuse error
}

type fakeDoor struct {
	spec    DoorSpec
	room    int
	maxBody int
	held    []queue.Delivery
	skipped int
	stop    context.CancelFunc
	ended   chan struct{}
	recalls int
	closed  bool
}

func (f *fakeDoors) Open(spec DoorSpec) (Door, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	d := &fakeDoor{spec: spec, room: 2, maxBody: 4}
	if f.opened == nil {
		f.opened = map[string]*fakeDoor{}
	}
	f.opened[spec.Queue] = d
	return d, nil
}

func (d *fakeDoor) Start() {
	if d.ended != nil || d.spec.Kernel.Mode != queue.KernelOut {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop, d.ended = cancel, make(chan struct{})
	go func() {
		defer close(d.ended)
		for len(d.held) < d.room {
			got, skipped, err := d.spec.Lane.Lease(ctx, d.spec.Kernel.OutSelector, d.room-len(d.held), d.maxBody)
			if err != nil {
				return
			}
			d.held = append(d.held, got...)
			d.skipped += skipped
		}
		<-ctx.Done()
	}()
}

func (d *fakeDoor) halt() {
	if d.ended != nil {
		d.stop()
		<-d.ended
		d.ended = nil
	}
}

func (d *fakeDoor) Protect(mode, uid, gid uint32) {
	d.spec.Mode, d.spec.OwnerUID, d.spec.GroupGID = mode, uid, gid
}

func (d *fakeDoor) Recall(context.Context) error {
	d.recalls++
	d.halt()
	var all []queue.Receipt
	for i := range d.held {
		all = append(all, d.held[i].Receipt)
	}
	d.held = nil
	d.spec.Lane.Settle(nil, all)
	d.Start()
	return nil
}

// take is what a native reader does: the first message leaves the kernel queue.
func (d *fakeDoor) take() string {
	d.halt()
	first := d.held[0]
	d.held = d.held[1:]
	d.spec.Lane.Settle([]queue.Receipt{first.Receipt}, nil)
	d.Start()
	return string(first.Body)
}

func (d *fakeDoor) Close(bool) {
	d.closed = true
	d.halt()
	var all []queue.Receipt
	for i := range d.held {
		all = append(all, d.held[i].Receipt)
	}
	d.spec.Lane.Settle(nil, all)
}

func (d *fakeDoor) Status() []DoorStatus { return []DoorStatus{{Direction: "out", Open: true}} }

func out(s *queue.Settings) { s.Kernel.Mode = queue.KernelOut }

func TestOutgoingDoorHoldsWhatNobodyElseWants_S30(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/q", out)
		door := f.opened["/q"]
		w.send("/q", "too large", "a", "b", "c")
		synctest.Wait()
		w.counts("/q", 2, 0, 2, 0)
		if got := bodiesOf(door.held); got != "a b " || door.skipped != 1 {
			t.Fatalf("the door holds %q and skipped %d", got, door.skipped)
		}
		if got := door.take(); got != "a" {
			t.Fatal(got)
		}
		synctest.Wait()
		if got := bodiesOf(door.held); got != "b c " || door.skipped != 1 {
			t.Fatalf("the door holds %q and skipped %d", got, door.skipped)
		}
		if s := w.stats("/q"); s.Consumed != 1 {
			t.Fatal("what left the kernel queue does not count as consumed")
		}
	})
}

func TestReceiverGetsBackWhatTheDoorHolds_S30(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/q", out)
		w.send("/q", "a", "b")
		synctest.Wait()
		w.counts("/q", 0, 0, 2, 0)
		d := w.receiveOne("/q") // without a wait
		if string(d.Body) != "a" || d.Attempts != 0 {
			t.Fatalf("%s with %d attempts", d.Body, d.Attempts)
		}
		synctest.Wait()
		if got := bodiesOf(f.opened["/q"].held); got != "b " {
			t.Fatalf("the door holds %q", got)
		}
		c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q"})
		w.must(err)
		defer c.Close(true)
		w.must(c.Credit(10, 0))
		got, err := c.Next(w.ctx)
		w.must(err)
		if bodiesOf(got.Deliveries) != "b " {
			t.Fatal(bodiesOf(got.Deliveries))
		}
		// A receiver that waits comes before the door.
		w.send("/q", "c")
		if got, err = c.Next(w.ctx); err != nil || bodiesOf(got.Deliveries) != "c " {
			t.Fatal(err, bodiesOf(got.Deliveries))
		}
	})
}

func TestPurgeAndPauseTakeBackWhatTheDoorHolds_S30(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/q", out)
		w.send("/q", "a", "b", "c")
		synctest.Wait()
		_, err := w.PauseQueue(w.ctx, alice, "/q", true)
		w.must(err)
		synctest.Wait()
		w.counts("/q", 3, 0, 0, 0)
		_, err = w.PauseQueue(w.ctx, alice, "/q", false)
		w.must(err)
		synctest.Wait()
		w.counts("/q", 1, 0, 2, 0)
		n, _, err := w.Purge(w.ctx, alice, SelectRequest{Queue: "/q"})
		w.must(err)
		if n != 3 {
			t.Fatalf("%d purged", n)
		}
		w.send("/q", "d")
		synctest.Wait()
		w.counts("/q", 0, 0, 1, 0)
		_, err = w.DeleteQueue(w.ctx, alice, "/q")
		w.must(err)
		if !f.opened["/q"].closed {
			t.Fatal("the door stays open")
		}
	})
}

func TestDoorThatCannotOpenRefusesTheQueue_S31(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		f.refuse = reason.New(reason.KernelLimit, "no")
		_, _, err := w.CreateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { out(s); return nil }, false)
		w.wants(err, reason.KernelLimit)
		_, err = w.GetQueue(w.ctx, alice, "/q")
		w.wants(err, reason.QueueNotFound)
		f.refuse = nil
		w.create("/q", out)
		f.refuse = errors.New("broken")
		_, err = w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Mode, s.Kernel.MaxMessages = 0o666, 9; return nil })
		if err == nil {
			t.Fatal("updated without a door")
		}
		if info, _ := w.GetQueue(w.ctx, alice, "/q"); info.Settings.Mode != limits.ModeDefault {
			t.Fatalf("mode %o after a refused update", info.Settings.Mode)
		}
	})
}

func TestReservedRoomIsNobodyElses_S29(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages, s.MaxBytes, s.MaxMessageSize = 3, 100, 50 })
		lane := f.opened["/q"].spec.Lane
		room, err := lane.Reserve(w.ctx, 2, 60)
		w.must(err)
		w.send("/q", "a")
		_, err = w.trySend("/q", "b")
		w.wants(err, reason.QueueFull)
		refused, err := room.Send([]queue.Message{{Type: 1, Body: []byte("n")}})
		w.must(err)
		if refused != 0 {
			t.Fatal(refused)
		}
		_, err = w.trySend("/q", "b")
		w.wants(err, reason.QueueFull)
		room.Release()
		room.Release()
		w.send("/q", "b")
		_, err = lane.Reserve(w.ctx, 4, 1)
		w.wants(err, reason.QueueFull)
		_, err = lane.Reserve(w.ctx, 1, 101)
		w.wants(err, reason.QueueFull)
		// Nothing is left: the door waits, as its native senders then do.
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		if _, err = lane.Reserve(ctx, 1, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		granted := make(chan Reservation, 1)
		go func() {
			r, _ := lane.Reserve(w.ctx, 1, 1)
			granted <- r
		}()
		synctest.Wait()
		w.must(w.settle(w.receiveOne("/q"), Verdict{}))
		r := <-granted
		w.counts("/q", 2, 0, 0, 0)
		_, err = w.trySend("/q", "c")
		w.wants(err, reason.QueueFull)
		refused, err = r.Send([]queue.Message{{Type: -1}})
		if refused != 1 {
			t.Fatal("a message without a type was taken")
		}
		w.wants(err, reason.InvalidArgument)
		r.Release()
		w.send("/q", "c")
	})
}

func TestDoorsKeepTheirKernelQueueWhereOnlyPermissionsChange_S28(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/q", out)
		before := f.opened["/q"]
		edit := func(edit func(*queue.Settings)) {
			_, err := w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { edit(s); return nil })
			w.must(err)
		}
		edit(func(s *queue.Settings) { s.Mode, s.Lease = 0o666, time.Minute })
		if before.closed || f.opened["/q"] != before || before.spec.Mode != 0o666 {
			t.Fatalf("closed %v, mode %o", before.closed, before.spec.Mode)
		}
		edit(func(s *queue.Settings) { s.MaxMessageSize = 10 })
		if !before.closed || f.opened["/q"] == before {
			t.Fatal("the door was not made anew for another size")
		}
	})
}
