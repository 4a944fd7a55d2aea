package shm

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scribble writes values into words of b until stop, as a member that wants to do harm: any value, and those that
// nearly make sense.
func scribble(b []byte, words []int, stop *atomic.Bool, rng *rand.Rand) {
	for !stop.Load() {
		at := words[rng.IntN(len(words))]
		near := word64(b, words[rng.IntN(len(words))]).Load()
		var v uint64
		switch rng.IntN(6) {
		case 0:
			v = rng.Uint64()
		case 1:
			v = near + FrameAlign*uint64(rng.IntN(5)) - 2*FrameAlign
		case 2:
			v = near
		case 3:
			v = uint64(rng.IntN(1 << 17))
		case 4:
			v = ^uint64(0) - uint64(rng.IntN(64))
		case 5:
			v = uint64(rng.IntN(100))<<32 | uint64(rng.IntN(5000))
		}
		word64(b, at).Store(v)
	}
}

// A producer writes any value into any word of its lane. The reader gives the lane up, or hands out what is within
// its bounds; the other lane is read on.
func TestReaderSurvivesAnyValueInAnyWordOfALane(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	corrupt, messages, good := 0, 0, uint64(0)
	for round := range 400 {
		ring := newRing(t, false)
		rd := ring.reader(ReaderConfig{Lossless: round%2 == 0})
		bad := ring.writer(laneOptions{capacity: CapacityMin, lossless: round%3 == 0, stall: 20 * time.Millisecond})
		honest := ring.writer(laneOptions{capacity: CapacityMin})
		for range rng.IntN(100) {
			if err := bad.Publish(forever, 1, make([]byte, rng.IntN(2000))); err != nil {
				t.Fatal(err)
			}
		}
		words := []int{publishedAt, oldestAt, publishedAt, oldestAt, seenAt, evictedAt, laneWakeAt, blockedAt, sequenceAt, 0, 48}
		for range 20 {
			words = append(words, LaneData+8*rng.IntN(CapacityMin/8))
		}
		for at := LaneData; at < LaneData+4096; at += 8 {
			words = append(words, at)
		}
		var stop atomic.Bool
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			scribble(bad.memory.Bytes(), words, &stop, rand.New(rand.NewPCG(seed, uint64(round))))
		}()
		sent := uint64(0)
		for range 300 {
			if err := honest.Publish(forever, 7, payloadOf(sent+1, 100)); err != nil {
				t.Fatal(err)
			}
			sent++
			var m Message
			var ok bool
			var err error
			if rng.IntN(4) == 0 {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				var v View
				if v, err = rd.View(ctx); err == nil {
					m, ok = v.Message, true
				} else if errors.Is(err, context.Canceled) {
					err = nil
				}
			} else {
				m, ok, err = rd.TryNext()
			}
			if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrEvicted) {
				t.Fatal(err)
			}
			if errors.Is(err, ErrCorrupt) {
				corrupt++
			}
			if ok && m.Lane == honest.config.LaneID {
				good++
				if !checkPayload(m.Payload, m.Sequence) || m.Lost != 0 {
					t.Fatalf("the other lane's message %d, lost %d", m.Sequence, m.Lost)
				}
			} else if ok {
				messages++
				if len(m.Payload) > bad.config.MaxPayload() || m.Type <= 0 {
					t.Fatalf("%d bytes of type %d", len(m.Payload), m.Type)
				}
			}
		}
		stop.Store(true)
		<-stopped
		for { // all that the honest producer sent arrives
			m, ok, err := rd.TryNext()
			if err != nil {
				continue
			}
			if !ok {
				break
			}
			if m.Lane == honest.config.LaneID {
				good++
			}
			if good > 1<<30 {
				t.Fatal("it never ends")
			}
		}
		if good != sent {
			t.Fatalf("round %d: %d of %d of the honest producer's messages arrived", round, good, sent)
		}
		good = 0
		bad.Close()
		honest.Close()
		rd.Close()
		ring.readers, ring.writers = nil, nil
	}
	t.Logf("%d lanes given up, %d messages taken from scribbled lanes", corrupt, messages)
	if corrupt < 50 {
		t.Errorf("only %d lanes were given up", corrupt)
	}
}

// A consumer writes any value into its pages. The producer goes on, after the stall at the latest.
func TestWriterSurvivesAnyValueInAnyWordOfAConsumer(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range 20 {
		ring := newRing(t, false)
		rd := ring.reader(ReaderConfig{Lossless: true})
		w := ring.writer(laneOptions{capacity: CapacityMin, lossless: true, stall: 5 * time.Millisecond})
		words := []int{0, 32, 40, parkedAt(0), parkedAt(0) - 8, consumerWakeAt, cursorsAt, cursorsAt + lineCursor, cursorsAt + lineCursor, cursorsAt + lineSequence}
		var stop atomic.Bool
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			scribble(rd.memory.Bytes(), words, &stop, rand.New(rand.NewPCG(seed, uint64(round))))
		}()
		for range 3000 {
			if err := w.Publish(forever, 1, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		stop.Store(true)
		<-stopped
		if w.Sequence() != 3000 {
			t.Errorf("%d published", w.Sequence())
		}
	}
}

// Who may map a word read-only may still move its sleepers to another word. That delays them, by the time limit of a
// sleep at most, and they notice.
func TestRequeuedSleepersWakeUpByThemselves(t *testing.T) {
	ring := newRing(t, false)
	rd := ring.reader(ReaderConfig{})
	w := ring.writer(laneOptions{capacity: CapacityMin})
	var trap atomic.Uint32
	const total = 5
	done := make(chan error, 1)
	go func() {
		for range total {
			if _, err := rd.Next(forever); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range total {
		for range 1000 { // until it sleeps, and a little longer
			if ReadConsumer(rd.memory, 0).Parked {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		for range 3 {
			time.Sleep(time.Millisecond)
			const futexRequeue = 3
			_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w.words.wake)), futexRequeue, 0, 1<<30, uintptr(unsafe.Pointer(&trap)), 0)
		}
		if err := w.Publish(forever, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%+v", rd.Stats())
}
