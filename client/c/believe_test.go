//go:build linux

package c_test

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestHostileLaneDoesNoHarm has strangers write anything into a lane, before and while it is read, by a reader that is compiled to notice
// each access that is out of bounds. It ends with the lane given up, or with nothing to read; and other lanes are read on.
func TestHostileLaneDoesNoHarm(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	for round := range 24 {
		r := newRing(t, round%2 == 1)
		r.flags = []string{"-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"}
		c, bad, good := r.consumer(1), r.lane(2), r.lane(3)
		goPublish(t, bad.goWriter(), 1, 100, 600*(1-round%2)+40)
		goPublish(t, good.goWriter(), 1, 100, 20)
		b := bad.memory.Bytes()
		scribble := func() {
			at := 8192 + 32*random.IntN(capacity/32) + 8*random.IntN(4) // a word of a header, or of a payload
			if random.IntN(4) == 0 {
				at = 4096 + 128*random.IntN(10) // a word of the cursors
			}
			words := []uint64{random.Uint64(), random.Uint64() % capacity, uint64(random.IntN(300)), 1 << 32, get(b, 4096), get(b, 4096) + 32, get(b, 4096+128) + 64}
			put(b, at, words[random.IntN(len(words))])
		}
		for range random.IntN(20) {
			scribble()
		}
		reader := c.cConsumer([]string{"start=1"}, bad, good)
		reader.tell("read %s 2000 0", []string{"next", "view", "small"}[round%3])
		for range 1000 {
			scribble()
		}
		seen := 0
		count := func(messages []message) {
			for _, m := range messages {
				if m.lane == good.id {
					seen++
				}
			}
		}
		messages, result := reader.read()
		count(messages)
		for range 20 {
			if result == -int64(unix.EAGAIN) && seen == 20 {
				break
			}
			reader.tell("read next 2000 0")
			messages, result = reader.read()
			count(messages)
		}
		if seen != 20 {
			t.Errorf("round %d: %d of the 20 messages of the good lane came", round, seen)
		}
	}
}

// TestCorruptLaneIsGivenUp damages one of two lanes in every way that a reader can tell: it is told once, and the other lane is read on.
func TestCorruptLaneIsGivenUp(t *testing.T) {
	for name, damage := range map[string]func(b []byte){
		"published is odd":         func(b []byte) { put(b, 4096, get(b, 4096)+8) },
		"published goes back":      func(b []byte) { put(b, 4096, 32) },
		"published is too far":     func(b []byte) { put(b, 4096, get(b, 4096)+capacity+32) },
		"oldest is past published": func(b []byte) { put(b, 4096+128, get(b, 4096)+64); grow(b, 32) },
		"a sequence goes back":     func(b []byte) { put(b, int(8192+get(b, 4096)), 1); put32(b, int(8192+get(b, 4096)+8), 0); grow(b, 32) },
		"a sequence is 0":          func(b []byte) { put(b, int(8192+get(b, 4096)), 0); grow(b, 32) },
		"a frame is too long": func(b []byte) {
			put(b, int(8192+get(b, 4096)), 5)
			put32(b, int(8192+get(b, 4096)+8), 0xffffffff)
			grow(b, 64)
		},
		"a frame is unpublished": func(b []byte) { put(b, int(8192+get(b, 4096)), 5); put32(b, int(8192+get(b, 4096)+8), 33); grow(b, 64) },
		"a PAD is unpublished":   func(b []byte) { put32(b, int(8192+get(b, 4096)+12), 1); grow(b, 64) },
		"a type is 0":            func(b []byte) { put(b, int(8192+get(b, 4096)), 5); put(b, int(8192+get(b, 4096)+16), 0); grow(b, 32) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, false)
			c, bad, good := r.consumer(1), r.lane(2), r.lane(3)
			badWriter, goodWriter := bad.cProducer(c), good.cProducer(c)
			reader := c.cConsumer(nil, bad, good)
			badWriter.tell("publish plain 1 40 4 0")
			badWriter.published()
			reader.tell("read next 4 0")
			messages, _ := reader.read()
			expectRun(t, messages, 1, 1, 40, 4)
			damage(bad.memory.Bytes())
			goodWriter.tell("publish plain 1 40 4 0")
			goodWriter.published()
			told := 0
			messages = nil
			for range 3 {
				reader.tell("read next 100 0")
				more, result := reader.read()
				messages = append(messages, more...)
				if result == -int64(unix.EBADMSG) {
					told++
				} else if result != -int64(unix.EAGAIN) {
					t.Fatalf("read: %d", result)
				}
			}
			if told != 1 {
				t.Errorf("told %d times", told)
			}
			expectRun(t, messages, 1, 1, 40, 4)
			if s := reader.stats(); s["corrupt"] != 1 || s["lanes"] != 1 {
				t.Errorf("stats %v", s)
			}
		})
	}
}

func get(b []byte, at int) uint64 { return *(*uint64)(unsafe.Pointer(&b[at])) }

func put(b []byte, at int, v uint64) { *(*uint64)(unsafe.Pointer(&b[at])) = v }

func put32(b []byte, at int, v uint32) { *(*uint32)(unsafe.Pointer(&b[at])) = v }

func grow(b []byte, by uint64) { put(b, 4096, get(b, 4096)+by) }
