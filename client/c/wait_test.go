//go:build linux

package c_test

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/ipcd/ipcd/internal/shm"
	"golang.org/x/sys/unix"
)

// TestSleepingConsumerIsWoken has a message come to a consumer that sleeps, many times, and nobody needs the backstop.
func TestSleepingConsumerIsWoken(t *testing.T) {
	const rounds = 100
	for _, side := range sides {
		t.Run(side.name, func(t *testing.T) {
			r := newRing(t, false)
			c, l := r.consumer(17), r.lane(2)
			var writer *member
			var goWriter *shm.Writer
			if side.goes {
				goWriter = l.goWriter(c)
			} else {
				writer = l.cProducer(c)
			}
			var reader *member
			var goReader *shm.Reader
			if side.reads {
				goReader = c.goReader(shm.Newest, l)
			} else {
				reader = c.cConsumer(nil, l)
			}
			for i := range rounds {
				got := make(chan []message, 1)
				if side.reads {
					go func() { got <- goReadQuietly(goReader, 1) }()
				} else {
					reader.tell("read next 1 %d", int64(hang))
				}
				eventually(t, "the consumer sleeps", func() bool { return shm.ReadConsumer(c.memory, c.slot).Parked })
				if side.goes {
					goPublish(t, goWriter, int64(i+1), 10, 1)
				} else {
					writer.tell("publish plain %d 10 1 0", i+1)
					if result := writer.published(); result != 0 {
						t.Fatalf("publish: %d", result)
					}
				}
				var messages []message
				if side.reads {
					messages = <-got
				} else {
					messages, _ = reader.read()
				}
				expectRun(t, messages, int64(i+1), uint64(i+1), 10, 1)
			}
			if s := shm.ReadConsumer(c.memory, c.slot); s.Parks == 0 {
				t.Error("it never slept")
			} else if s.Backstops != 0 && !side.reads {
				t.Errorf("%d times only the backstop ended its sleep", s.Backstops)
			}
			if s := shm.ReadLane(l.memory); s.Wakes == 0 {
				t.Error("it was never woken")
			}
		})
	}
}

// TestKernelsWithoutFutexWaitvPoll has members do what sleeping ones do where the system call is missing.
func TestKernelsWithoutFutexWaitvPoll(t *testing.T) {
	r := newRing(t, true)
	r.flags = []string{"-DIPCD_RING_FUTEX_WAITV=100000"}
	c, l := r.consumer(1), r.lane(2)
	writer, reader := l.cProducer(c), c.cConsumer(nil, l)
	for i := range 10 {
		reader.tell("read next 1 %d", int64(hang))
		eventually(t, "the consumer polls", func() bool { return shm.ReadConsumer(c.memory, c.slot).Parked })
		writer.tell("publish plain %d 10 1 0", i+1)
		writer.published()
		messages, _ := reader.read()
		expectRun(t, messages, int64(i+1), uint64(i+1), 10, 1)
	}
	n := 2 * capacity / 1024
	writer.tell("publish plain 1 992 %d %d", n, int64(hang))
	eventually(t, "the producer polls", func() bool { return shm.ReadLane(l.memory).Blocked })
	reader.tell("read next %d %d", n, int64(hang))
	messages, _ := reader.read()
	expectRun(t, messages, 1, 11, 992, n)
	if result := writer.published(); result != 0 {
		t.Errorf("publish: %d", result)
	}
	if s := reader.stats(); s["backstops"] != 0 {
		t.Errorf("stats %v", s)
	}
}

// TestBlockedProducerIsWoken fills a lossless lane, sees the producer sleep, and has it woken by reading.
func TestBlockedProducerIsWoken(t *testing.T) {
	for _, side := range sides {
		t.Run(side.name, func(t *testing.T) {
			r := newRing(t, true)
			c, l := r.consumer(1), r.lane(2)
			n := 2 * capacity / 1024
			published := make(chan error, 1)
			var writer *member
			if side.goes {
				w := l.goWriter(c)
				go func() { published <- publishQuietly(w, 992, n) }()
			} else {
				writer = l.cProducer(c)
				writer.tell("publish plain 1 992 %d %d", n, int64(hang))
			}
			eventually(t, "the producer sleeps", func() bool { return shm.ReadLane(l.memory).Blocked })
			var messages []message
			if side.reads {
				messages = goRead(t, c.goReader(shm.Newest, l), n)
			} else {
				reader := c.cConsumer(nil, l)
				reader.tell("read next %d %d", n, int64(hang))
				messages, _ = reader.read()
			}
			expectRun(t, messages, 1, 1, 992, n)
			if side.goes {
				if err := <-published; err != nil {
					t.Error(err)
				}
			} else if result := writer.published(); result != 0 {
				t.Errorf("publish: %d", result)
			}
			if *(*uint32)(unsafe.Pointer(&c.memory.Bytes()[2176])) == 0 {
				t.Error("the consumer never woke the producer")
			}
			if s := shm.ReadLane(l.memory); s.Blocks == 0 || s.Evictions != 0 {
				t.Errorf("blocks and evictions: %+v", s)
			}
		})
	}
}

// TestSlowConsumerIsEvicted has a lossless consumer hold its producer up for too long: the producer goes on, the consumer is told once,
// and from then on what it lost is counted.
func TestSlowConsumerIsEvicted(t *testing.T) {
	for _, side := range sides {
		t.Run(side.name, func(t *testing.T) {
			r := newRing(t, true)
			r.stall = 20_000_000
			c, l := r.consumer(1), r.lane(2)
			var reader *member
			var goReader *shm.Reader
			if side.reads {
				goReader = c.goReader(shm.Newest, l)
			} else {
				reader = c.cConsumer(nil, l)
			}
			n := 2 * capacity / 1024
			if side.goes {
				goPublish(t, l.goWriter(c), 1, 992, n)
			} else {
				writer := l.cProducer(c)
				writer.tell("publish plain 1 992 %d %d", n, int64(hang))
				if result := writer.published(); result != 0 {
					t.Fatalf("publish: %d", result)
				}
			}
			if id := shm.Evicted(l.memory, c.slot); id != c.id {
				t.Fatalf("%d was evicted, not %d", id, c.id)
			}
			first := int(firstSequence(l))
			var messages []message
			if side.reads {
				if _, err := goReader.Next(t.Context()); !errors.Is(err, shm.ErrEvicted) {
					t.Fatalf("Next: %v", err)
				}
				messages = goRead(t, goReader, n-first+1)
			} else {
				reader.tell("read next 1 0")
				if none, result := reader.read(); result != -int64(unix.EPIPE) || len(none) != 0 {
					t.Fatalf("read: %d, %v", result, none)
				}
				reader.tell("read next %d %d", n-first+1, int64(hang))
				messages, _ = reader.read()
			}
			if messages[0].lost != uint64(first-1) {
				t.Errorf("%d were lost, not %d", messages[0].lost, first-1)
			}
			messages[0].lost = 0
			expectRun(t, messages, int64(first), uint64(first), 992, n-first+1)
		})
	}
}

func TestTryPublishDoesNotWait(t *testing.T) {
	r := newRing(t, true)
	c, l := r.consumer(1), r.lane(2)
	writer, reader := l.cProducer(c), c.cConsumer(nil, l)
	writer.tell("publish plain 1 992 1000 0")
	if result := writer.published(); result != -int64(unix.EAGAIN) {
		t.Fatalf("publish: %d", result)
	}
	n := int(shm.ReadLane(l.memory).Sequence)
	if n < capacity/1024-2 || n > capacity/1024 {
		t.Errorf("%d messages fitted", n)
	}
	writer.tell("publish plain 1 992 1 %d", 1_000_000)
	if result := writer.published(); result != -int64(unix.ETIMEDOUT) {
		t.Fatalf("publish with a timeout: %d", result)
	}
	reader.tell("read next %d 0", n)
	messages, _ := reader.read()
	expectRun(t, messages, 1, 1, 992, n)
	reader.tell("read next 1 0")
	if _, result := reader.read(); result != -int64(unix.EAGAIN) {
		t.Fatalf("read: %d", result)
	}
	reader.tell("read next 1 1000000")
	if _, result := reader.read(); result != -int64(unix.ETIMEDOUT) {
		t.Fatalf("read with a timeout: %d", result)
	}
	writer.tell("publish plain 1 992 1 0")
	if result := writer.published(); result != 0 {
		t.Fatalf("publish into the room: %d", result)
	}
}
