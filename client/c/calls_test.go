//go:build linux

package c_test

import (
	"errors"
	"testing"

	"github.com/ipcd/ipcd/internal/shm"
	"golang.org/x/sys/unix"
)

// TestBorrowedViewHoldsOrSaysItWent borrows a message and fills the lane: in a lossless ring the message stays where it is, in the other kind
// the view says that it is gone.
func TestBorrowedViewHoldsOrSaysItWent(t *testing.T) {
	for _, lossless := range []bool{true, false} {
		r := newRing(t, lossless)
		c, l := r.consumer(1), r.lane(2)
		w, reader := l.goWriter(c), c.cConsumer(nil, l)
		goPublish(t, w, 1, 992, 2)
		for i := range 2 { // the second view gives the first one back
			reader.tell("read hold 1 0")
			messages, _ := reader.read()
			expectRun(t, messages, int64(i+1), uint64(i+1), 992, 1)
		}
		var err error
		for i := 0; err == nil && i < 2*capacity/1024; i++ {
			err = w.TryPublish(9, pattern(9, 992))
		}
		if errors.Is(err, shm.ErrFull) != lossless {
			t.Errorf("lossless %v: the producer got %v", lossless, err)
		}
		reader.tell("valid")
		if valid := reader.result("valid", nil) == 1; valid != lossless {
			t.Errorf("lossless %v: the view is valid: %v", lossless, valid)
		}
		if at := shm.ReadLane(l.memory).Oldest; lossless && at > 1024 {
			t.Errorf("oldest went to %d, past the view at 1024", at)
		}
		if s := reader.stats(); s["lost"] != uint64(1-flag(lossless)) || s["received"] != uint64(1+flag(lossless)) {
			t.Errorf("lossless %v: stats %v", lossless, s)
		}
		reader.tell("read next 1 0")
		if messages, _ := reader.read(); len(messages) != 1 || !messages[0].good {
			t.Errorf("lossless %v: after the view came %+v", lossless, messages)
		}
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	r := newRing(t, false)
	l := r.lane(2)
	writer := l.cProducer()
	for _, c := range []struct {
		how        string
		typ, size  int
		wantResult unix.Errno
	}{
		{"plain", 1, maxFrame - shm.FrameHeader, 0}, {"plain", 1, maxFrame - shm.FrameHeader + 1, unix.EMSGSIZE},
		{"claim", 1, maxFrame - shm.FrameHeader + 1, unix.EMSGSIZE}, {"gather", 1, maxFrame - shm.FrameHeader + 1, unix.EMSGSIZE},
		{"plain", 0, 1, unix.EINVAL}, {"plain", -1, 1, unix.EINVAL}, {"gather", 0, 1, unix.EINVAL}, {"claim", 0, 1, unix.EINVAL},
	} {
		writer.tell("publish %s %d %d 1 0", c.how, c.typ, c.size)
		if result := writer.published(); result != -int64(c.wantResult) {
			t.Errorf("%s of type %d, %d bytes: %d, not %d", c.how, c.typ, c.size, result, -int64(c.wantResult))
		}
	}
}

func TestAbortedClaimLeavesNoTrace(t *testing.T) {
	r := newRing(t, false)
	c, l := r.consumer(1), r.lane(2)
	writer, reader := l.cProducer(c), c.goReader(shm.Newest, l)
	for i := range 500 { // past the end of the data, so that some claims have written a PAD
		writer.tell("publish abort 1 %d 1 0", 300*(i%50))
		if result := writer.published(); result != 0 {
			t.Fatalf("abort: %d", result)
		}
		writer.tell("publish plain %d 300 1 0", i+1)
		if result := writer.published(); result != 0 {
			t.Fatalf("publish: %d", result)
		}
		expectRun(t, goRead(t, reader, 1), int64(i+1), uint64(i+1), 300, 1)
	}
}

func TestBatchIsPublishedWithOneWake(t *testing.T) {
	r := newRing(t, false)
	c, l := r.consumer(1), r.lane(2)
	writer, reader := l.cProducer(c), c.goReader(shm.Newest, l)
	got := make(chan []message, 1)
	go func() { got <- goReadQuietly(reader, 100) }()
	eventually(t, "the consumer sleeps", func() bool { return shm.ReadConsumer(c.memory, c.slot).Parked })
	before := shm.ReadLane(l.memory)
	writer.tell("batch 1 64 100 0")
	if result := writer.result("batch", nil); result != 100 {
		t.Fatalf("batch: %d", result)
	}
	expectRun(t, <-got, 1, 1, 64, 100)
	if after := shm.ReadLane(l.memory); after.Wakes-before.Wakes > 1 {
		t.Errorf("%d wakes", after.Wakes-before.Wakes)
	}
	// More than a lane holds, in pieces of a quarter of it.
	writer.tell("batch 1 1000 200 0")
	if result := writer.result("batch", nil); result != 200 {
		t.Fatalf("long batch: %d", result)
	}
	if s := shm.ReadLane(l.memory); s.Sequence != 300 || s.Published-s.Oldest > capacity {
		t.Errorf("%+v", s)
	}
}

func TestConsumerStartsWhereItIsTold(t *testing.T) {
	r := newRing(t, false)
	l := r.lane(2)
	c := []*consumer{r.consumer(1), r.consumer(2), r.consumer(3), r.consumer(4)}
	writer := l.cProducer(c...)
	writer.tell("publish plain 1 40 100 0")
	writer.published()
	readers := []*member{
		c[0].cConsumer([]string{"start=0"}, l), c[1].cConsumer([]string{"start=1"}, l), c[2].cConsumer([]string{"start=2", "sequence=90"}, l),
		c[3].cConsumer([]string{"start=1", "type=7", "type=105", "type=50"}, l),
	}
	writer.tell("publish plain 101 40 10 0")
	writer.published()
	for i, first := range []int{101, 1, 90} {
		readers[i].tell("read next 1000 0")
		messages, _ := readers[i].read()
		expectRun(t, messages, int64(first), uint64(first), 40, 110-first+1)
	}
	readers[3].tell("read next 1000 0")
	messages, _ := readers[3].read()
	if len(messages) != 3 || messages[0].typ != 7 || messages[1].typ != 50 || messages[2].typ != 105 || messages[2].lost != 0 {
		t.Errorf("the filter let through %+v", messages)
	}
}
