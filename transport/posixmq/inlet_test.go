package posixmq

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

// roomy returns a lane that never fills.
func roomy() *lanetest.Lane { return lanetest.New(1<<30, 1<<40, 1<<20) }

func startInlet(t *testing.T, m *MQ, lane *lanetest.Lane, k queue.KernelQueue) *Inlet {
	t.Helper()
	if k.Type == 0 {
		k.Type = 1
	}
	in := NewInlet(m, lane, k, quiet())
	in.Start()
	t.Cleanup(func() {
		in.Stop()
		lane.Check(t)
	})
	return in
}

func TestNativeSenderReachesTheQueue_S29(t *testing.T) {
	m, lane := newMQ(t, 4, 64), roomy()
	in := startInlet(t, m, lane, queue.KernelQueue{Type: 7})
	c := startNative(t, "mqsend", m.Name())
	largest := letters(64)
	for _, line := range []string{"0 ", "32767 highest", "5 " + largest} {
		c.say("%s", line)
		c.expect("sent")
	}
	c.say("0 %sx", largest)
	c.expect("mq_send: Message too long")
	lane.AwaitCount(t, lanetest.Ready, 3)
	got := map[string]uint16{}
	for _, e := range lane.Entries() {
		if e.Type != 7 {
			t.Errorf("type %d, want the door's 7", e.Type)
		}
		got[string(e.Body)] = e.Priority
	}
	if want := map[string]uint16{"": 0, "highest": 32767, largest: 5}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	in.Stop()
	if in.Passed() != 3 || in.Skipped() != 0 || in.Problem() != "" {
		t.Errorf("passed %d, skipped %d, problem %q", in.Passed(), in.Skipped(), in.Problem())
	}
}

// A queue with room for 3 before a kernel queue of 2: the sixth mq_send does not return until room is made.
func TestFullQueueMakesNativeSenderWait_S29(t *testing.T) {
	m, lane := newMQ(t, 2, 8), lanetest.New(3, 1<<20, 8)
	startInlet(t, m, lane, queue.KernelQueue{})
	c := startNative(t, "mqsend", m.Name())
	for i := range 5 {
		c.say("0 %d", i)
		c.expect("sent")
	}
	lane.AwaitCount(t, lanetest.Ready, 3)
	if n, err := m.Current(); err != nil || n != 2 {
		t.Fatalf("the kernel queue holds %d, %v; want 2", n, err)
	}
	c.say("0 5")
	lane.AwaitReserveWaiting(t)
	if n := lane.Count(lanetest.Ready); n != 3 {
		t.Fatalf("%d messages in a queue of 3", n)
	}
	if _, ok := lane.Consume(); !ok {
		t.Fatal("nothing to consume")
	}
	c.expect("sent")
	lane.AwaitCount(t, lanetest.Ready, 3)
	for i := range 5 {
		lane.AwaitCount(t, lanetest.Ready, min(3, 5-i))
		if got, ok := lane.Consume(); !ok || string(got.Body) != fmt.Sprint(i+1) {
			t.Fatalf("consumed %q, want %d", got.Body, i+1)
		}
	}
}

// The largest messages that could come have no room, but there is some: it is used.
func TestQueueSmallerThanABatchIsFilledOneByOne_S29(t *testing.T) {
	m, lane := newMQ(t, 8, 10), lanetest.New(100, 25, 10)
	startInlet(t, m, lane, queue.KernelQueue{})
	native := reopen(t, m)
	for range 8 {
		if err := native.Send([]byte("0123456789"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		lane.AwaitCount(t, lanetest.Ready, min(2, 8-i))
		lane.Consume()
	}
}

func TestQueueTooSmallForOneMessageIsReported_S29(t *testing.T) {
	m, lane := newMQ(t, 1, 10), lanetest.New(100, 5, 10)
	in := startInlet(t, m, lane, queue.KernelQueue{})
	if err := reopen(t, m).Send([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(15 * time.Second); in.Problem() == ""; runtime.Gosched() { // there is no other sign of it
		if time.Now().After(deadline) {
			t.Fatal("no problem is reported")
		}
	}
	if n, _ := m.Current(); n != 1 {
		t.Errorf("the message was taken without room for it")
	}
}

func TestRefusedMessagesAreCounted_S29(t *testing.T) {
	m, lane := newMQ(t, 3, 10), lanetest.New(100, 1000, 5)
	native := reopen(t, m)
	for _, body := range []string{"a", "too large", "b"} {
		native.Send([]byte(body), 0)
	}
	in := startInlet(t, m, lane, queue.KernelQueue{})
	lane.AwaitCount(t, lanetest.Ready, 2)
	in.Stop()
	if in.Passed() != 2 || in.Skipped() != 1 {
		t.Errorf("passed %d, skipped %d", in.Passed(), in.Skipped())
	}
}

func TestTypePrefix_S29(t *testing.T) {
	m, lane := newMQ(t, 6, 16), roomy()
	native := reopen(t, m)
	prefixed := func(typ int64, body string) string {
		return string(binary.NativeEndian.AppendUint64(nil, uint64(typ))) + body
	}
	for _, c := range []struct {
		sent, body, problem string
		typ                 int64
	}{
		{prefixed(42, "hello"), "hello", "", 42},
		{prefixed(math.MaxInt64, ""), "", "", math.MaxInt64},
		{prefixed(0, "zero"), prefixed(0, "zero"), "type 0", 9},
		{prefixed(-3, "minus"), prefixed(-3, "minus"), "type -3", 9},
		{"short", "short", "too short", 9},
		{"", "", "too short", 9},
	} {
		t.Run(c.problem, func(t *testing.T) {
			if err := native.Send([]byte(c.sent), 1); err != nil {
				t.Fatal(err)
			}
			in := startInlet(t, m, lane, queue.KernelQueue{Type: 9, TypePrefix: true})
			lane.AwaitCount(t, lanetest.Ready, 1)
			got, _ := lane.Consume()
			in.Stop()
			if got.Type != c.typ || string(got.Body) != c.body || got.Priority != 1 {
				t.Errorf("got type %d, priority %d, %q", got.Type, got.Priority, got.Body)
			}
			switch {
			case c.problem == "" && len(got.Headers) == 0 && in.Skipped() == 0:
			case c.problem != "" && len(got.Headers) == 1 && got.Headers[0].Key == ProblemHeader &&
				strings.Contains(string(got.Headers[0].Value), c.problem) && in.Skipped() == 1:
			default:
				t.Errorf("headers %s, skipped %d; want problem %q", got.Headers, in.Skipped(), c.problem)
			}
		})
	}
}

func TestStopLeavesMessagesAndRestTakesThem_S29(t *testing.T) {
	m, lane := newMQ(t, 4, 8), lanetest.New(3, 100, 8)
	in := startInlet(t, m, lane, queue.KernelQueue{})
	in.Stop()
	for range 4 {
		if err := m.Send([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := lane.Count(lanetest.Ready); n != 0 {
		t.Fatalf("%d came in after Stop", n)
	}
	if left := in.Rest(); left != 1 || lane.Count(lanetest.Ready) != 3 {
		t.Errorf("%d left, %d taken in; the queue has room for 3", left, lane.Count(lanetest.Ready))
	}
}

func TestDeletedQueueEndsTheInlet_S29(t *testing.T) {
	m, lane := newMQ(t, 2, 8), lanetest.New(1, 100, 8)
	lane.Put(queue.Message{Body: []byte("full")})
	in := startInlet(t, m, lane, queue.KernelQueue{})
	m.Send([]byte("x"), 0)
	lane.AwaitReserveWaiting(t)
	lane.Delete()
	in.flow.Wait()
	if n, _ := m.Current(); n != 1 {
		t.Errorf("a message was taken for a deleted queue")
	}
}

// Floods from two programs that are killed in the middle of it; then a well-behaved one is served.
func TestFloodAndDeathOfSendersDoNoHarm_S29(t *testing.T) {
	m, lane := newMQ(t, 4, 64), lanetest.New(1000, 1<<20, 64)
	startInlet(t, m, lane, queue.KernelQueue{})
	a, b := startNative(t, "mqflood", m.Name(), "64"), startNative(t, "mqflood", m.Name(), "0")
	lane.AwaitCount(t, lanetest.Ready, 1000)
	lane.AwaitReserveWaiting(t)
	a.kill()
	b.kill()
	c := startNative(t, "mqsend", m.Name())
	c.say("3 after the flood")
	for deadline := time.Now().Add(15 * time.Second); ; {
		got, ok := lane.Consume()
		if string(got.Body) == "after the flood" && got.Priority == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the message after the flood did not come")
		}
		if !ok {
			runtime.Gosched()
		}
	}
	c.expect("sent")
}
