package c_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/shm"
)

// TestMessageAtEachInstructionOfFallingAsleep publishes while a C consumer stands at its n-th instruction of looking, falling asleep,
// and being asleep. Whatever n is, it gets the message, and never by the backstop.
func TestMessageAtEachInstructionOfFallingAsleep(t *testing.T) {
	instructions(t, 9, func(t *testing.T, n int) (past bool) {
		r := newRing(t, false)
		r.flags = []string{"-DIPCD_RING_SPINS=0"}
		c, l := r.consumer(1), r.lane(2)
		w := l.goWriter(c)
		p := trace(t, c.cConsumerCommand(nil, l), fmt.Sprintf("read stepped 1 %d", int64(hang)))
		asleep := false
		for i := 0; i < n && !asleep; i++ {
			asleep = p.step()
		}
		goPublish(t, w, 1, 10, 1)
		if asleep {
			p.awake()
		}
		p.finish()
		p.kill()
		if s := shm.ReadConsumer(c.memory, c.slot); s.Backstops != 0 {
			t.Errorf("published after %d instructions: the backstop had to wake it", n)
		}
		w.Close()
		return asleep
	})
}

// TestConsumerFallsAsleepAtEachInstructionOfPublish has a Go consumer look and fall asleep while a C producer stands at the n-th
// instruction of a publish. Whatever n is, the consumer gets the message, and never by the backstop.
func TestConsumerFallsAsleepAtEachInstructionOfPublish(t *testing.T) {
	instructions(t, 9, func(t *testing.T, n int) (past bool) {
		r := newRing(t, false)
		c, l := r.consumer(1), r.lane(2)
		reader := c.goReader(shm.Newest, l)
		p := trace(t, l.cProducerCommand(c), "publish stepped 1 10 1 0")
		for i := 0; i < n && !p.done; i++ {
			p.step()
		}
		past = p.done
		got := make(chan []message, 1)
		go func() { got <- goReadQuietly(reader, 1) }()
		var messages []message
		eventually(t, "the consumer sleeps or has the message", func() bool {
			select {
			case messages = <-got:
				return true
			default:
				return shm.ReadConsumer(c.memory, c.slot).Parked
			}
		})
		p.finish()
		p.kill()
		if messages == nil {
			select {
			case messages = <-got:
			case <-time.After(hang):
				t.Fatalf("stopped after %d instructions: the consumer sleeps on", n)
			}
		}
		expectRun(t, messages, 1, 1, 10, 1)
		if s := shm.ReadConsumer(c.memory, c.slot); s.Backstops != 0 {
			t.Errorf("stopped after %d instructions: the backstop had to wake the consumer", n)
		}
		reader.Close()
		return past
	})
}

// TestRoomAtEachInstructionOfBlocking has a Go consumer read a full lossless lane while a C producer stands at the n-th instruction of
// waiting for it. Whatever n is, the producer goes on, and never by the backstop.
func TestRoomAtEachInstructionOfBlocking(t *testing.T) {
	instructions(t, 13, func(t *testing.T, n int) (past bool) {
		r := newRing(t, true)
		r.flags = []string{"-DIPCD_RING_SPINS=0"}
		c, l := r.consumer(1), r.lane(2)
		reader := c.goReader(shm.Newest, l)
		full := capacity / 1024
		p := trace(t, l.cProducerCommand(c), fmt.Sprintf("publish plain 1 992 %d 0", full), fmt.Sprintf("publish stepped %d 992 1 %d", full+1, int64(hang)))
		asleep := false
		for i := 0; i < n && !asleep && !p.done; i++ {
			asleep = p.step()
		}
		messages := goRead(t, reader, full)
		for range 2 { // until there is nothing more: then it says how far it has read
			if m, ok, err := reader.TryNext(); ok {
				messages = append(messages, goMessage(m))
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if asleep {
			p.awake()
		}
		p.finish()
		p.kill()
		if len(messages) == full {
			messages = append(messages, goRead(t, reader, 1)...)
		}
		expectRun(t, messages, 1, 1, 992, full+1)
		if s := shm.ReadLane(l.memory); s.Backstops != 0 || s.Evictions != 0 {
			t.Errorf("read after %d instructions: %+v", n, s)
		}
		reader.Close()
		return asleep
	})
}
