//go:build linux

package c_test

import (
	"context"
	"fmt"
	"testing"
	"unsafe"

	"github.com/ipcd/ipcd/internal/shm"
	"golang.org/x/sys/unix"
)

// sides are who writes and who reads.
var sides = []struct {
	name         string
	goes, reads  bool // the writer is Go, the reader is
	ways, howsIn []string
}{
	{name: "CToGo", reads: true, ways: []string{"plain", "claim", "gather"}, howsIn: []string{"next"}},
	{name: "GoToC", goes: true, ways: []string{"plain"}, howsIn: []string{"next", "into", "small", "view"}},
	{name: "CToC", ways: []string{"plain"}, howsIn: []string{"next", "view"}},
}

// TestEverySizeArrives sends payloads of 0 to 1000 bytes, several times what a lane holds: the lossless producer waits for
// the consumer, each message is whole, in order, and there once.
func TestEverySizeArrives(t *testing.T) {
	for _, side := range sides {
		for _, way := range side.ways {
			for _, how := range side.howsIn {
				t.Run(side.name+"/"+way+"/"+how, func(t *testing.T) {
					r := newRing(t, true)
					c, l := r.consumer(1), r.lane(2)
					const n = 1001
					got := make(chan []message, 1)
					var reader *member
					if side.reads {
						goReader := c.goReader(shm.Newest, l)
						go func() { got <- goReadQuietly(goReader, n) }()
					} else {
						reader = c.cConsumer(nil, l)
						reader.tell("read %s %d %d", how, n, int64(hang))
					}
					if side.goes {
						goPublish(t, l.goWriter(c), 1, -1, n)
					} else {
						writer := l.cProducer(c)
						writer.tell("publish %s 1 -1 %d %d", way, n, int64(hang))
						if result := writer.published(); result != 0 {
							t.Fatalf("publish: %d", result)
						}
					}
					var messages []message
					if side.reads {
						messages = <-got
					} else {
						var result int64
						if messages, result = reader.read(); result != 0 {
							t.Fatalf("read: %d", result)
						}
					}
					expectRun(t, messages, 1, 1, -1, n)
					if state := shm.ReadLane(l.memory); state.Evictions != 0 {
						t.Errorf("%d consumers were evicted", state.Evictions)
					}
				})
			}
		}
	}
}

func goReadQuietly(r *shm.Reader, n int) (got []message) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	for range n {
		m, err := r.Next(ctx)
		if err != nil {
			return got
		}
		got = append(got, goMessage(m))
	}
	return got
}

// TestLappedReaderKnowsWhatItLost has a lane overwritten several times before anybody reads: what comes is the newest part without
// a gap, and what does not come is counted exactly.
func TestLappedReaderKnowsWhatItLost(t *testing.T) {
	for _, side := range sides {
		for _, size := range []int{0, 1, 100, 1000, 5000, maxFrame - shm.FrameHeader} {
			t.Run(fmt.Sprint(side.name, "/", size), func(t *testing.T) {
				r := newRing(t, false)
				c, l := r.consumer(1), r.lane(2)
				n := 3*capacity/int(shm.FrameSize(size)) + 5
				if side.goes {
					goPublish(t, l.goWriter(c), 1, size, n)
				} else {
					writer := l.cProducer(c)
					writer.tell("publish plain 1 %d %d 0", size, n)
					if result := writer.published(); result != 0 {
						t.Fatalf("publish: %d", result)
					}
				}
				first := int(firstSequence(l))
				if kept := (n - first + 1) * int(shm.FrameSize(size)); kept < capacity/3 {
					t.Errorf("only %d of %d bytes are kept", kept, capacity)
				}
				var messages []message
				if side.reads {
					messages = goRead(t, c.goReader(shm.Newest, l), n-first+1)
				} else {
					reader := c.cConsumer(nil, l)
					reader.tell("read next 1000000 0")
					var result int64
					if messages, result = reader.read(); result != -int64(unix.EAGAIN) {
						t.Fatalf("read: %d", result)
					}
					if s := reader.stats(); s["lost"] != uint64(first-1) || s["received"] != uint64(n-first+1) || s["lag"] != 0 || s["lagbytes"] != 0 {
						t.Errorf("stats %v, but %d were lost", s, first-1)
					}
				}
				if messages[0].lost != uint64(first-1) {
					t.Errorf("%d were lost, not %d", messages[0].lost, first-1)
				}
				messages[0].lost = 0
				expectRun(t, messages, int64(first), uint64(first), size, n-first+1)
			})
		}
	}
}

// firstSequence reads the frame at oldest, past a PAD.
func firstSequence(l *lane) uint64 {
	at := shm.ReadLane(l.memory).Oldest
	frames := framesOf(l.memory.Bytes(), at, shm.ReadLane(l.memory).Published)
	return frames[0].sequence
}

// TestReaderUnderAWriterThatNeverWaits lets one side write at full speed over what the other reads: nothing that comes is torn, sequences
// rise, and what is missing is what is said to be lost.
func TestReaderUnderAWriterThatNeverWaits(t *testing.T) {
	const n = 50_000
	for _, side := range sides {
		for _, how := range side.howsIn {
			t.Run(side.name+"/"+how, func(t *testing.T) {
				r := newRing(t, false)
				c, l := r.consumer(1), r.lane(2)
				// Both are made before either begins, and the reader's output is read meanwhile.
				var goReader *shm.Reader
				var reader, writer *member
				if side.reads {
					goReader = c.goReader(shm.Newest, l)
				} else {
					reader = c.cConsumer(nil, l)
					reader.tell("read %s %d %d", how, n, int64(3e8)) // ends 300 ms after the last
				}
				published := make(chan error, 1)
				if side.goes {
					w := l.goWriter(c)
					go func() { published <- publishQuietly(w, 200, n) }()
				} else {
					writer = l.cProducer(c)
					writer.tell("publish plain 1 200 %d 0", n)
				}
				var messages []message
				if side.reads {
					messages = untilLast(goReader, n)
				} else {
					messages, _ = reader.read()
				}
				if side.goes {
					if err := <-published; err != nil {
						t.Fatal(err)
					}
				} else if result := writer.published(); result != 0 {
					t.Fatalf("publish: %d", result)
				}
				next := uint64(1)
				for i, m := range messages {
					if m.sequence != next+m.lost || m.typ != int64(m.sequence) || m.size != 200 {
						t.Fatalf("message %d is %+v after sequence %d", i, m, next-1)
					}
					if !m.good && (m.torn || how != "view") { // a view may become invalid, and says so
						t.Fatalf("message %d is torn: %+v", i, m)
					}
					next = m.sequence + 1
				}
				if next != n+1 {
					t.Errorf("the last sequence is %d of %d", next-1, n)
				}
				t.Logf("%d of %d came", len(messages), n)
			})
		}
	}
}

func publishQuietly(w *shm.Writer, size, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	for i := range n {
		if err := w.Publish(ctx, int64(i+1), pattern(int64(i+1), size)); err != nil {
			return err
		}
	}
	return nil
}

func untilLast(r *shm.Reader, last uint64) (got []message) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	for {
		m, err := r.Next(ctx)
		if err != nil {
			return got
		}
		got = append(got, goMessage(m))
		if m.Sequence == last {
			return got
		}
	}
}

// TestReaderAtFullSpeed is the same without a word between messages: many more laps, and reads that are overtaken.
func TestReaderAtFullSpeed(t *testing.T) {
	const n = 500_000
	for _, goes := range []bool{true, false} {
		for _, how := range []string{"next", "view"} {
			t.Run(fmt.Sprintf("go=%v/%s", goes, how), func(t *testing.T) {
				r := newRing(t, false)
				c, l := r.consumer(1), r.lane(2)
				reader := c.cConsumer(nil, l)
				reader.tell("drain %s %d %d", how, n, int64(hang))
				if goes {
					if err := publishQuietly(l.goWriter(c), 50, n); err != nil {
						t.Fatal(err)
					}
				} else {
					writer := l.cProducer(c)
					writer.tell("publish plain 1 50 %d 0", n)
					if result := writer.published(); result != 0 {
						t.Fatalf("publish: %d", result)
					}
				}
				if result := reader.result("drained", nil); result <= 0 {
					t.Fatalf("drain: %d", result)
				}
				s := reader.stats()
				if s["received"]+s["lost"] != n || s["corrupt"] != 0 || s["lag"] != 0 {
					t.Errorf("stats %v", s)
				}
				t.Logf("%d of %d came", s["received"], n)
			})
		}
	}
}

// frame is what a lane holds, read without any of the code under test.
type frame struct {
	sequence uint64
	typ      int64
	payload  []byte
}

// framesOf walks the frames between two positions.
func framesOf(b []byte, from, to uint64) (frames []frame) {
	for at := from; at < to; {
		i := int(8192 + at%capacity)
		length := uint64(*(*uint32)(unsafe.Pointer(&b[i+8])))
		if b[i+12]&1 != 0 {
			at += capacity - at%capacity
			continue
		}
		frames = append(frames, frame{get(b, i), int64(get(b, i+16)), b[i+32 : i+32+int(length)]})
		at += shm.FrameSize(int(length))
	}
	return frames
}
