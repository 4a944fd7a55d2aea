package shm

import (
	"context"
	"errors"
	"testing"
	"time"
)

// fillLane publishes until the lane is full.
func fillLane(t *testing.T, w *Writer) (n int) {
	t.Helper()
	for {
		err := w.TryPublish(1, make([]byte, 1000))
		if errors.Is(err, ErrFull) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > 1000 {
			t.Fatal("the lane is never full")
		}
	}
}

func TestLosslessLaneIsFullUntilItIsRead(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{Lossless: true})
	ring.reader(ReaderConfig{}) // who may lose something holds nobody up
	w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
	for round := range 5 {
		n := fillLane(t, w)
		if n < 50 && round == 0 {
			t.Errorf("only %d of 1000 bytes fit 64 KiB", n)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := w.Publish(ctx, 1, make([]byte, 1000)); !errors.Is(err, context.Canceled) {
			t.Errorf("publishing into a full lane: %v", err)
		}
		for range n {
			if m, ok, err := rd.TryNext(); !ok || err != nil || m.Lost != 0 {
				t.Fatalf("%v, %v, lost %d", ok, err, m.Lost)
			}
		}
		if _, ok, err := rd.TryNext(); ok || err != nil {
			t.Error(ok, err)
		}
	}
}

func TestBlockedProducerGoesOnWhenTheLaneIsRead(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{Lossless: true})
	w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
	n := fillLane(t, w)
	done := make(chan error)
	go func() { done <- w.Publish(context.Background(), 1, make([]byte, 1000)) }()
	for !ReadLane(w.memory).Blocked { // until it sleeps
		time.Sleep(time.Millisecond)
	}
	for range n {
		if _, err := rd.Next(forever); err != nil {
			t.Fatal(err)
		}
	}
	_, _, _ = rd.TryNext() // sees that there is nothing, and says how far it has read
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := w.Stats(); s.Blocks == 0 || s.Evictions != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhoHoldsTheProducerUpForTooLongIsEvictedAndTold(t *testing.T) {
	ring := newRing(t, true)
	slow := ring.reader(ReaderConfig{Lossless: true})
	w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true, stall: 20 * time.Millisecond})
	n := fillLane(t, w)
	for range 200 {
		if err := w.Publish(forever, 1, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.Stats(); s.Evictions != 1 || s.Blocks == 0 || s.BlockedNanos == 0 {
		t.Errorf("%+v", s)
	}
	if Evicted(w.memory, 0) != 200 {
		t.Error("the consumer's slot does not say so")
	}
	_, err := slow.Next(forever)
	var evicted *EvictedError
	if !errors.Is(err, ErrEvicted) || !errors.As(err, &evicted) || evicted.Lane != 100 {
		t.Fatalf("%v", err)
	}
	m, err := slow.Next(forever)
	if err != nil || m.Lost == 0 || m.Sequence != m.Lost+1 {
		t.Errorf("%d, lost %d, %v", m.Sequence, m.Lost, err)
	}
	rest := 1
	for {
		_, ok, err := slow.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		rest++
	}
	if uint64(rest)+m.Lost != uint64(n+200) {
		t.Errorf("%d read and %d lost of %d", rest, m.Lost, n+200)
	}
}

func TestConsumerThatLeavesFreesTheProducer(t *testing.T) {
	ring := newRing(t, true)
	ring.reader(ReaderConfig{Lossless: true})
	w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
	fillLane(t, w)
	done := make(chan error)
	go func() { done <- w.Publish(context.Background(), 1, make([]byte, 1000)) }()
	for !ReadLane(w.memory).Blocked {
		time.Sleep(time.Millisecond)
	}
	ring.epoch++
	w.Offer(Members{Epoch: ring.epoch, Partial: true}) // it may only not be back yet
	for ReadLane(w.memory).Seen != ring.epoch {
		time.Sleep(time.Millisecond)
	}
	for !ReadLane(w.memory).Blocked { // it has looked, and sleeps again
		time.Sleep(time.Millisecond)
	}
	ring.epoch++
	w.Offer(Members{Epoch: ring.epoch})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNewConsumerOfABusyLosslessLaneLosesNothingOnceItIsKnown(t *testing.T) {
	for round := range 50 {
		ring := newRing(t, false)
		w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
		stop := make(chan struct{})
		done := make(chan error)
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if err := w.Publish(context.Background(), 1, make([]byte, 100)); err != nil {
					done <- err
					return
				}
			}
		}()
		rd := ring.reader(ReaderConfig{Lossless: true, Start: Oldest})
		last, gaps := uint64(0), 0
		for range 20_000 {
			m, err := rd.Next(forever)
			if err != nil {
				t.Fatal(err)
			}
			if m.Lost != 0 {
				t.Fatalf("round %d: %d lost", round, m.Lost)
			}
			if last != 0 && m.Sequence != last+1 {
				gaps++ // its start moves, before it is known
			}
			last = m.Sequence
		}
		if gaps > 3 {
			t.Errorf("round %d: its start moved %d times", round, gaps)
		}
		close(stop)
		rd.Close() // or the producer waits for it
		ring.epoch++
		w.Offer(Members{Epoch: ring.epoch})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
}

func TestCloseEndsWhoWaits(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{Lossless: true})
	w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
	fillLane(t, w)
	other := newRing(t, true)
	idle := other.reader(ReaderConfig{})
	published, read := make(chan error), make(chan error)
	go func() { published <- w.Publish(forever, 1, make([]byte, 1000)) }()
	go func() { _, err := idle.Next(forever); read <- err }()
	for !ReadLane(w.memory).Blocked || !ReadConsumer(idle.memory, 0).Parked {
		time.Sleep(time.Millisecond)
	}
	if _, err := idle.Next(forever); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("a second goroutine: %v", err)
	}
	w.Close()
	idle.Close()
	rd.Close()
	rd.Close()
	if err := <-published; !errors.Is(err, ErrClosed) {
		t.Errorf("publish: %v", err)
	}
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Errorf("next: %v", err)
	}
	if err := w.Publish(forever, 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("publish after close: %v", err)
	}
	if _, err := idle.Next(forever); !errors.Is(err, ErrClosed) {
		t.Errorf("next after close: %v", err)
	}
}

func TestContextEndsWaiting(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	for range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { _, err := rd.Next(ctx); done <- err }()
		for !ReadConsumer(rd.memory, 0).Parked {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := w.Publish(forever, 1, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := rd.Next(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestEndedContextEndsReadingWhileThereAreMessages(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	publishEmpty(t, ring.writer(laneOptions{capacity: CapacityMin}), 10)
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := rd.Next(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := rd.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
	if _, err := rd.NextBatch(ctx, make([]Message, 3)); !errors.Is(err, context.Canceled) {
		t.Errorf("NextBatch: %v", err)
	}
	if _, err := rd.View(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("View: %v", err)
	}
	if n := count(t, rd); n != 9 {
		t.Errorf("%d messages are left", n)
	}
}

func TestEndedLaneIsReadToItsEndAndDropped(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	for range 5 {
		if err := w.Publish(forever, 1, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	ring.lanes[0].Ended = true
	ring.epoch++
	ring.announce()
	for seq := uint64(1); seq <= 5; seq++ {
		if m, ok, err := rd.TryNext(); !ok || err != nil || m.Sequence != seq {
			t.Fatal(m.Sequence, ok, err)
		}
	}
	if _, ok, err := rd.TryNext(); ok || err != nil {
		t.Error(ok, err)
	}
	if len(rd.lanes) != 0 {
		t.Error("the lane is still there")
	}
	ring.epoch++
	ring.announce() // it is listed again, and must not be read again
	if m, ok, err := rd.TryNext(); ok || err != nil || len(rd.lanes) != 0 {
		t.Error(m.Sequence, ok, err)
	}
}

// The daemon may die just after it raised the epoch: nobody can tell then who the new members are.
func TestUnknownMembersHoldTheProducerUpOnlyOnce(t *testing.T) {
	ring := newRing(t, true)
	w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
	ring.page.Raise(ring.epoch + 1)
	refused := 0
	for n := 0; n < 1000; {
		switch err := w.TryPublish(1, make([]byte, 1000)); {
		case err == nil:
			n++
		case errors.Is(err, ErrFull):
			refused++
			time.Sleep(time.Millisecond)
		default:
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("it did not wait for the new members at all")
	}
	if refused > 10*int(membersPatience/time.Millisecond) {
		t.Errorf("it was refused %d times", refused)
	}
}

// A slot that one lane had may be given to another while a consumer still reads the first.
func TestSlotOfALaneMayBeGivenToAnotherWhileItIsRead(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{Lossless: true})
	first := ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
	for range 1000 { // so that a cursor of this lane is far beyond any of the other
		if err := first.Publish(forever, 1, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := rd.Next(forever); err != nil {
			t.Fatal(err)
		}
	}
	total := fillLane(t, first)
	was := ring.lanes[0]
	ring.lanes = nil
	second := ring.writer(laneOptions{capacity: CapacityMin, lossless: true, id: 555}) // in slot 0 as well, and alone in the list
	was.Memory.Release()
	if second.config.Slot != first.config.Slot {
		t.Fatal("the slots differ")
	}
	read := map[uint64]int{}
	published := 0
	for {
		m, ok, err := rd.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if m.Lost != 0 {
			t.Fatalf("lost %d", m.Lost)
		}
		read[m.Lane]++
		if published < 500 {
			published += fillLane(t, second)
		}
		if unread := published - read[second.config.LaneID]; unread > CapacityMin/1000 {
			t.Fatalf("%d messages of 1000 bytes, of which nothing was read, are in a lane of %d", unread, CapacityMin)
		}
	}
	if read[first.config.LaneID] != total || read[second.config.LaneID] != published {
		t.Errorf("%d and %d were published, and read: %v", total, published, read)
	}
}
