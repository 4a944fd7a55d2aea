package shm

import (
	"context"
	"errors"
	"testing"
	"time"
)

// leave takes the ring's only lane out of everybody's list.
func (r *ringForTest) leave() {
	r.lanes[0].Memory.Release()
	r.lanes, r.writers = nil, nil
	r.epoch++
	r.announce()
}

func publishEmpty(t *testing.T, w *Writer, n int) {
	t.Helper()
	for range n {
		if err := w.Publish(forever, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// count reads what is there.
func count(t *testing.T, rd *Reader) (n int) {
	t.Helper()
	for {
		_, ok, err := rd.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return n
		}
		n++
	}
}

// A producer that was thrown out may go on writing what it has mapped. Nobody reads it.
func TestWhatIsPublishedAfterTheEndIsNotRead(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	publishEmpty(t, w, 5)
	if n := count(t, rd); n != 5 {
		t.Errorf("%d messages", n)
	}
	publishEmpty(t, w, 3)
	ring.leave()
	n := 0
	for range 100 { // each time there is something new when it looks
		if _, ok, err := rd.TryNext(); err != nil {
			t.Fatal(err)
		} else if ok {
			n++
		}
		publishEmpty(t, w, 1)
	}
	if n != 3 || len(rd.lanes) != 0 {
		t.Errorf("%d messages were read, and %d lanes are left", n, len(rd.lanes))
	}
	w.Close()
}

func TestCorruptLanesAreGivenBackWhenTheirProducersLeave(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	for i := range 20 {
		w := ring.writer(laneOptions{capacity: CapacityMin, id: 1000 + uint64(i)})
		w.published.Store(1)
		if _, _, err := rd.TryNext(); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		memory := w.memory
		ring.leave()
		w.Close()
		if count(t, rd) != 0 || len(rd.lanes) != 0 || memory.users.Load() != 0 {
			t.Fatalf("%d lanes, %d users of the memory are left", len(rd.lanes), memory.users.Load())
		}
	}
}

// Before a reader's first look a producer may take back what it published.
func TestPositionThatGoesBackBeforeTheFirstLookIsNoticed(t *testing.T) {
	ring := newRing(t, true)
	w := ring.writer(laneOptions{capacity: CapacityMin})
	publishEmpty(t, w, 2)
	rd := ring.reader(ReaderConfig{})
	w.published.Store(32)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := rd.Next(ctx); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

// A lane may come and go between two calls of a reader: its members were offered twice.
func TestLaneThatCameAndWentIsRead(t *testing.T) {
	ring := newRing(t, true)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	publishEmpty(t, w, 20)
	memory := w.memory
	ring.leave()
	w.Close()
	if n := count(t, rd); n != 20 {
		t.Errorf("%d of 20 messages were read", n)
	}
	if len(rd.lanes) != 0 || memory.users.Load() != 0 {
		t.Errorf("%d lanes, %d users of the memory are left", len(rd.lanes), memory.users.Load())
	}
}

// What was copied before Close may turn out to make no sense after it.
func TestNonsenseFoundAfterCloseTouchesNothing(t *testing.T) {
	ring := newRing(t, false)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	publishEmpty(t, w, 2)
	word64(w.memory.Bytes(), LaneData+32).Store(0) // no sequence
	if _, err := rd.Next(forever); err != nil {
		t.Fatal(err)
	}
	ring.peers[0].Memory.Release() // no other mapping is to stand there
	ring.writers = nil
	w.Close()
	rd.Close()
	if _, err := rd.Next(forever); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Stop ends the use of a handle, and leaves what was lent.
func TestStoppedHandlesKeepWhatTheyLent(t *testing.T) {
	ring := newRing(t, false)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	if err := w.Publish(forever, 1, []byte("lent")); err != nil {
		t.Fatal(err)
	}
	v, err := rd.View(forever)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := w.Claim(forever, 100)
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	rd.Stop()
	claim[0] = 1
	if string(v.Payload) != "lent" || !v.Valid() {
		t.Errorf("the view is %q, valid: %v", v.Payload, v.Valid())
	}
	if err := w.Commit(1, 100); !errors.Is(err, ErrClosed) {
		t.Errorf("commit: %v", err)
	}
	if _, err := rd.Next(forever); !errors.Is(err, ErrClosed) {
		t.Errorf("next: %v", err)
	}
	w.Close()
	rd.Close()
	if w.memory.users.Load() > 1 || rd.memory.users.Load() > 1 { // the ring of this test holds one
		t.Error("Close after Stop does not give the memory back")
	}
}
