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
	requeue := func() (sleepers uintptr) {
		const futexRequeue = 3
		n, _, _ := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w.words.wake)), futexRequeue, 0, 1<<30, uintptr(unsafe.Pointer(&trap)), 0)
		return n
	}
	read := make(chan error)
	go func() {
		for {
			_, err := rd.Next(forever)
			read <- err
			if err != nil {
				return
			}
		}
	}()
	for range 100 { // a machine that is busy may hide it for a while
		for requeue() == 0 { // until it sleeps, and is moved
			time.Sleep(10 * time.Microsecond)
		}
		if err := w.Publish(forever, 1, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		if rd.Stats().Backstops > 0 {
			break
		}
	}
	s := rd.Stats()
	t.Logf("%+v", s)
	if s.Backstops == 0 {
		t.Error("no sleep ended only because of its time limit: the sleepers were not moved, or it was not noticed")
	}
	rd.Close()
	<-read
}

// What makes no sense is given up at once, once, in whichever way it is read, and the other lane is read on.
func TestEveryKindOfNonsenseIsGivenUp(t *testing.T) {
	const frames, size = 10, 160 // of 128 bytes each
	last := LaneData + (frames-1)*size
	put64 := func(at int, v uint64) func([]byte) {
		return func(b []byte) { word64(b, at).Store(v) }
	}
	for name, spoil := range map[string]func(b []byte){
		"a length that goes beyond what was published": put64(last+8, 129),
		"a length beyond the largest frame":            put64(last+8, 20_000),
		"the largest length":                           put64(last+8, 0xffffffff),
		"an unknown flag":                              put64(last+8, 128|2<<32),
		"padding beyond what was published":            put64(last+8, 128|framePad<<32),
		"no sequence":                                  put64(last, 0),
		"a sequence again":                             put64(last, 3),
		"type 0":                                       put64(last+16, 0),
		"a negative type":                              put64(last+16, 1<<63),
		"published that is no multiple of 32":          put64(publishedAt, frames*size+8),
		"published that goes back":                     put64(publishedAt, 32),
		"published beyond the capacity":                put64(publishedAt, 3*CapacityMin),
		"oldest beyond published":                      put64(oldestAt, 1<<40),
		"oldest that is no multiple of 32":             put64(oldestAt, frames*size-8),
	} {
		for how, read := range map[string]func(*Reader) (Message, bool, error){
			"Next": func(rd *Reader) (Message, bool, error) { return rd.TryNext() },
			"View": func(rd *Reader) (Message, bool, error) {
				v, err := rd.View(never)
				if err == errNothing {
					return Message{}, false, nil
				}
				return v.Message, err == nil, err
			},
		} {
			ring := newRing(t, false)
			rd := ring.reader(ReaderConfig{})
			bad, good := ring.writer(laneOptions{capacity: CapacityMin}), ring.writer(laneOptions{capacity: CapacityMin})
			publish := func(w *Writer, n int) {
				for range n {
					if err := w.Publish(forever, 1, make([]byte, 128)); err != nil {
						t.Fatal(err)
					}
				}
			}
			publish(bad, frames-1)
			for range frames - 1 {
				if _, ok, err := read(rd); !ok || err != nil {
					t.Fatal(ok, err)
				}
			}
			publish(bad, 1)
			publish(good, 5)
			spoil(bad.memory.Bytes())
			corrupt, honest := 0, 0
			for range 20 {
				m, ok, err := read(rd)
				switch {
				case errors.Is(err, ErrCorrupt):
					corrupt++
				case err != nil:
					t.Fatal(err)
				case ok && m.Lane == good.config.LaneID:
					honest++
				case ok:
					t.Errorf("%s, %s: it hands out message %d of %d bytes", name, how, m.Sequence, len(m.Payload))
				}
			}
			if corrupt != 1 || honest != 5 {
				t.Errorf("%s, %s: given up %d times, %d messages of the other lane", name, how, corrupt, honest)
			}
		}
	}
}
