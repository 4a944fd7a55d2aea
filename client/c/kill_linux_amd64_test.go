package c_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/shm"
)

// everyInstruction makes the tests below kill at each instruction, which takes some minutes; without it at a part of them.
var everyInstruction = os.Getenv("IPCD_KILL_EVERYWHERE") != ""

// instructions calls try for 0, 1, 2 and so on instructions until try reports that this was past the end. Far ones are passed over
// unless everyInstruction.
func instructions(t *testing.T, stride int, try func(t *testing.T, n int) (past bool)) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if everyInstruction {
		stride = 1
	}
	killed := 0
	n := 0
	for ; !try(t, n); n += stride {
		killed++
		if t.Failed() {
			t.Fatalf("killed after %d instructions", n)
		}
	}
	t.Logf("killed at %d of some %d instructions", killed, n)
	if n < 50 {
		t.Errorf("only %d instructions: that cannot be all", n)
	}
}

// TestProducerKilledAtEachInstruction kills a C producer after n instructions of a publish while a consumer sleeps. Whatever n is, readers
// see exactly the messages before, and the last one whole or not at all, and the sleeper finds it. Some kills must come where that is
// hardest: when the message is published, and nobody has been woken for it.
func TestProducerKilledAtEachInstruction(t *testing.T) {
	cases := []struct {
		name   string
		before int // messages of 1000 bytes
		size   int // of the last one
		stride int
	}{
		// Payloads stay below what memcpy copies with one instruction that counts as many.
		{"first", 0, 24, 11}, {"plain", 5, 200, 11}, {"empty", 5, 0, 17}, {"wrapAndPad", capacity/1024 - 1, 1000, 7}, {"room", 3*capacity/1024 - 7, 1000, 11},
	}
	for _, woken := range []string{"byEpoch", "byBackstop"} {
		t.Run(woken, func(t *testing.T) {
			ran, unwoken := 0, 0
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					ran++
					stride := c.stride
					if woken == "byBackstop" {
						stride = 4*c.stride + 1
					}
					instructions(t, stride, func(t *testing.T, n int) bool {
						past, between := killProducer(t, n, c.before, c.size, woken == "byEpoch")
						if between {
							unwoken++
						}
						return past
					})
				})
			}
			t.Logf("killed %d times between publishing and waking", unwoken)
			if ran == len(cases) && unwoken == 0 {
				t.Error("no kill came between publishing and waking")
			}
		})
	}
}

// killProducer also reports whether the kill came when the message was published, and before the system call that wakes.
func killProducer(t *testing.T, n, before, size int, raise bool) (past, between bool) {
	r := newRing(t, false)
	sleeper, late, l := r.consumer(1), r.consumer(2), r.lane(2)
	sleeping := sleeper.goReader(shm.Newest, l)
	p := trace(t, l.cProducerCommand(sleeper, late), fmt.Sprintf("publish plain 1 992 %d 0", before), fmt.Sprintf("publish stepped %d %d 1 0", before+1, size))

	// The sleeper has read what was published before and sleeps, while the producer is at the mark.
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	next := uint64(1)
	for next <= uint64(before) {
		m, err := sleeping.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		next = m.Sequence + 1
	}
	type outcome struct {
		m   message
		err error
	}
	got := make(chan outcome, 1)
	go func() {
		m, err := sleeping.Next(ctx)
		got <- outcome{goMessage(m), err}
	}()
	eventually(t, "the consumer sleeps", func() bool { return shm.ReadConsumer(sleeper.memory, sleeper.slot).Parked })

	published := shm.ReadLane(l.memory).Published
	wakes := false
	for range n {
		wakes = wakes || p.calls(futex)
		if p.step(); p.done {
			break
		}
	}
	past = p.done
	p.kill()

	state := shm.ReadLane(l.memory)
	is := state.Published != published
	between = is && !wakes
	if raise { // the daemon says that a member is gone
		r.raise()
	}
	if is {
		select {
		case o := <-got:
			want := message{typ: int64(before + 1), sequence: uint64(before + 1), size: size, good: true, lane: l.id}
			if o.err != nil || o.m != want {
				t.Errorf("killed after %d instructions: the sleeper got %+v, %v, not %+v", n, o.m, o.err, want)
			}
		case <-time.After(hang):
			t.Errorf("killed after %d instructions: the sleeper sleeps on", n)
		}
	}
	if past && !is {
		t.Error("the publish ended, but nothing is published")
	}
	cancel()
	if !is {
		if o := <-got; !errors.Is(o.err, context.Canceled) {
			t.Errorf("killed after %d instructions: the sleeper got %+v, %v, but nothing is published", n, o.m, o.err)
		}
	}

	// Who reads all of it now, and the bytes themselves.
	last := before
	if is {
		last++
	}
	frames := framesOf(l.memory.Bytes(), state.Oldest, state.Published)
	if len(frames) > 0 && frames[len(frames)-1].sequence != uint64(last) || len(frames) == 0 && last != 0 {
		t.Errorf("killed after %d instructions: %d frames, the last should be %d", n, len(frames), last)
	}
	reader := late.goReader(shm.Oldest, l)
	for i, f := range frames {
		if string(f.payload) != string(pattern(f.typ, len(f.payload))) || f.typ != int64(f.sequence) || f.sequence != frames[0].sequence+uint64(i) {
			t.Errorf("killed after %d instructions: frame %d is damaged", n, i)
		}
		m, ok, err := reader.TryNext()
		if err != nil || !ok || m.Sequence != f.sequence || string(m.Payload) != string(f.payload) {
			t.Errorf("killed after %d instructions: message %d: %v %v", n, i, ok, err)
			break
		}
	}
	if _, ok, err := reader.TryNext(); ok || err != nil {
		t.Errorf("killed after %d instructions: something comes after the last message: %v", n, err)
	}
	reader.Close()
	sleeping.Close()
	return past, between
}

// TestConsumerKilledAtEachInstruction kills a C consumer after n instructions of a read, or of falling asleep and being woken. The producer
// goes on: at once in a lane that overwrites, and in a lossless one when it has evicted the consumer.
func TestConsumerKilledAtEachInstruction(t *testing.T) {
	for _, lossless := range []bool{false, true} {
		for _, c := range []struct {
			name   string
			ready  int // messages that are there before
			stride int
		}{
			{"read", 1, 9}, {"sleep", 0, 37},
		} {
			t.Run(fmt.Sprint(c.name, "/lossless=", lossless), func(t *testing.T) {
				instructions(t, c.stride, func(t *testing.T, n int) bool { return killConsumer(t, n, c.ready, lossless) })
			})
		}
	}
}

func killConsumer(t *testing.T, n, ready int, lossless bool) (past bool) {
	r := newRing(t, lossless)
	r.stall = 10 * time.Millisecond
	r.flags = []string{"-DIPCD_RING_SPINS=0"} // thousands of instructions that do nothing
	c, l := r.consumer(1), r.lane(2)
	w := l.goWriter(c)
	goPublish(t, w, 1, 300, ready)
	p := trace(t, c.cConsumerCommand([]string{"start=1"}, l), fmt.Sprintf("read stepped 1 %d", int64(hang)))
	typ := int64(ready)
	publish := func(size int) {
		typ++
		if err := w.Publish(t.Context(), typ, pattern(typ, size)); err != nil {
			t.Fatalf("killed after %d instructions: publish: %v", n, err)
		}
	}
	for i := range n {
		asleep := p.step()
		if asleep && i == n-1 {
			break // it is killed asleep
		}
		if asleep {
			publish(300)
			p.awake()
		}
		if p.done {
			break
		}
	}
	past = p.done
	p.kill()

	for range 2 * capacity / 4096 {
		publish(4000)
	}
	s := shm.ReadLane(l.memory)
	if s.Sequence != uint64(typ) {
		t.Errorf("killed after %d instructions: %d of %d messages are published", n, s.Sequence, typ)
	}
	evicted := uint64(0)
	if lossless {
		evicted = 1
	}
	if s.Evictions != evicted {
		t.Errorf("killed after %d instructions: %d consumers are evicted, not %d", n, s.Evictions, evicted)
	}
	// What the dead consumer left tells how far it came, at most.
	if _, cursor, sequence, _ := shm.ReadCursor(c.memory, l.slot); cursor > s.Published || sequence > uint64(typ) || cursor%shm.FrameAlign != 0 {
		t.Errorf("killed after %d instructions: cursor %d, sequence %d", n, cursor, sequence)
	}
	w.Close()
	return past
}
