package posixmq

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

func startOutlet(t *testing.T, m *MQ, lane *lanetest.Lane, k queue.KernelQueue) *Outlet {
	t.Helper()
	out, _ := NewOutlet(m, lane, k, quiet())
	out.Start()
	t.Cleanup(func() {
		out.Stop()
		lane.Check(t)
	})
	return out
}

func put(lane *lanetest.Lane, body string, priority uint16) uint64 {
	return lane.Put(queue.Message{Body: []byte(body), Priority: priority})
}

func TestNativeReaderConsumes_S30(t *testing.T) {
	m, lane := newMQ(t, 3, 64), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	for i := range 5 {
		put(lane, fmt.Sprint("m", i), 2)
	}
	lane.AwaitCount(t, lanetest.Leased, 3)
	c := startNative(t, "mqreceive", m.Name(), "2")
	c.expect("2 2 m0")
	c.expect("2 2 m1")
	lane.AwaitCount(t, lanetest.Consumed, 2)
	lane.AwaitCount(t, lanetest.Leased, 3)
	c = startNative(t, "mqreceive", m.Name(), "3")
	for i := 2; i < 5; i++ {
		c.expect(fmt.Sprint("2 2 m", i))
	}
	lane.AwaitCount(t, lanetest.Consumed, 5)
	if out.Passed() != 5 {
		t.Errorf("passed %d, want 5", out.Passed())
	}
}

// A reader that waits in mq_receive gets the message handed over without its ever being counted.
func TestWaitingReaderIsServed_S30(t *testing.T) {
	m, lane := newMQ(t, 3, 64), roomy()
	c := startNative(t, "mqreceive", m.Name(), "4")
	startOutlet(t, m, lane, queue.KernelQueue{})
	for i, body := range []string{"", letters(64), "a", "b"} {
		put(lane, body, 32767)
		c.expect(fmt.Sprintf("32767 %d %s", len(body), body))
		lane.AwaitCount(t, lanetest.Consumed, i+1)
	}
}

func TestReaderThatNeverReadsHoldsNoMoreThanTheDepth_S30(t *testing.T) {
	m, lane := newMQ(t, 2, 8), roomy()
	startOutlet(t, m, lane, queue.KernelQueue{})
	for i := range 100 {
		put(lane, fmt.Sprint(i), 0)
	}
	lane.AwaitCount(t, lanetest.Leased, 2)
	if n := lane.Count(lanetest.Ready); n != 98 {
		t.Errorf("%d ready, want 98", n)
	}
}

func TestRecallGivesBackWhatWasNotReceived_S30(t *testing.T) {
	m, lane := newMQ(t, 3, 8), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	for i := range 3 {
		put(lane, fmt.Sprint(i), uint16(i)) // the last goes first
	}
	awaitCurrent(t, m, 3)
	c := startNative(t, "mqreceive", m.Name(), "1")
	c.expect("2 1 2")
	lane.Want(true)
	if err := out.Recall(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []lanetest.State{lanetest.Ready, lanetest.Ready, lanetest.Consumed} {
		if got := lane.Entries()[i].State; got != want {
			t.Errorf("message %d is in state %d, want %d", i, got, want)
		}
	}
	if n, _ := m.Current(); n != 0 {
		t.Errorf("%d left in the kernel queue", n)
	}
	lane.AwaitLeaseWaiting(t)
	lane.Want(false)
	lane.AwaitCount(t, lanetest.Leased, 2)
}

// slowLane hands leased messages over only once the caller has given up.
type slowLane struct {
	*lanetest.Lane
	decided chan struct{} // a token for each Lease that is about to hand over
}

func (l *slowLane) Lease(ctx context.Context, s queue.Selector, most, maxBody int) ([]queue.Delivery, int, error) {
	deliveries, skipped, err := l.Lane.Lease(ctx, s, most, maxBody)
	if err == nil {
		l.decided <- struct{}{}
		<-ctx.Done()
	}
	return deliveries, skipped, err
}

// A recall finds also what is on its way into the kernel queue: it ends the Lease call that is under way.
func TestRecallFindsWhatIsOnItsWay_S30(t *testing.T) {
	m, lane := newMQ(t, 3, 8), &slowLane{Lane: roomy(), decided: make(chan struct{}, 1)}
	out, _ := NewOutlet(m, lane, queue.KernelQueue{}, quiet())
	out.Start()
	defer out.Stop()
	for range 5 {
		put(lane.Lane, "x", 0)
		<-lane.decided // leased, and in nobody's hands
		lane.Want(true)
		if err := out.Recall(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := lane.Count(lanetest.Leased); n != 0 {
			t.Fatalf("%d leased after a recall that another receiver asked for", n)
		}
		lane.Consume()
		lane.Want(false)
	}
}

func TestRecallGivesUpWithItsContext_S30(t *testing.T) {
	m, lane := newMQ(t, 3, 8), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	lane.AwaitLeaseWaiting(t)
	// A recall that is told to give up before the Lease call is over may win or lose that race; either
	// way the door goes on afterwards.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := out.Recall(ctx); err != nil && err != context.Canceled {
		t.Errorf("got %v", err)
	}
	put(lane, "x", 0)
	lane.AwaitCount(t, lanetest.Leased, 1)
}

func TestTooLargeIsPassedOverAndCountedOnce_S30(t *testing.T) {
	m, lane := newMQ(t, 3, 8), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	put(lane, "nine byte", 9)
	put(lane, "eight by", 0)
	lane.AwaitCount(t, lanetest.Leased, 1)
	put(lane, "more", 0)
	lane.AwaitCount(t, lanetest.Leased, 2)
	if out.Skipped() != 1 || lane.Entries()[0].State != lanetest.Ready {
		t.Errorf("skipped %d, state %d", out.Skipped(), lane.Entries()[0].State)
	}
}

func TestSelectorAndTypePrefixGoOut_S30(t *testing.T) {
	m, lane := newMQ(t, 3, 12), roomy()
	startOutlet(t, m, lane, queue.KernelQueue{TypePrefix: true, OutSelector: queue.Selector{Kind: queue.TypeIs, Type: 5}})
	lane.Put(queue.Message{Type: 4, Body: []byte("not")})
	lane.Put(queue.Message{Type: 5, Body: []byte("five")})
	lane.Put(queue.Message{Type: 5, Body: []byte("large")})
	awaitCurrent(t, m, 1)
	buffer := make([]byte, 12)
	n, _, err := reopen(t, m).Receive(buffer)
	if err != nil || n != 12 || binary.NativeEndian.Uint64(buffer) != 5 || string(buffer[8:]) != "five" {
		t.Errorf("received %q, %v", buffer[:n], err)
	}
	lane.AwaitCount(t, lanetest.Consumed, 1)
}

// Higher priorities are put in front of what is there, and a native reads in between: the count does not
// tell which one left, and the door finds out. lease and put are done by hand, so that it is certain.
func TestDoubtIsResolvedByDraining_S30(t *testing.T) {
	m, lane := newMQ(t, 4, 8), roomy()
	out, _ := NewOutlet(m, lane, queue.KernelQueue{}, quiet())
	fill := func() []held {
		deliveries, _, err := lane.Lease(context.Background(), queue.Selector{}, 4, 8)
		if err != nil {
			t.Fatal(err)
		}
		var all []held
		for _, d := range deliveries {
			all = append(all, held{d.Receipt, d.Priority, d.Body})
		}
		return all
	}
	put(lane, "low", 1)
	put(lane, "lower", 0)
	out.mu.Lock()
	defer out.mu.Unlock()
	out.putAll(fill())
	put(lane, "high", 5)
	high := fill()
	native := reopen(t, m)
	// Unseen by the door: "low" leaves before "high" comes in.
	if n, _, err := native.Receive(make([]byte, 8)); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	out.putAll(high)
	if len(out.shadow) != 2 && !out.doubt {
		t.Fatalf("shadow %v without doubt", sequences(out.shadow))
	}
	out.review()
	if out.doubt || fmt.Sprint(sequences(out.shadow)) != "[3 2]" {
		t.Errorf("shadow %v, doubt %v; want high and lower", sequences(out.shadow), out.doubt)
	}
	if lane.Entries()[0].State != lanetest.Consumed || lane.Count(lanetest.Consumed) != 1 {
		t.Errorf("%d consumed", lane.Count(lanetest.Consumed))
	}
	out.takeBack()
	if lane.Count(lanetest.Ready) != 2 {
		t.Errorf("%d ready after the recall, want 2", lane.Count(lanetest.Ready))
	}
	lane.Check(t)
}

func TestStrangersMessagesAreDiscardedAndCounted_S30(t *testing.T) {
	m, lane := newMQ(t, 4, 16), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	put(lane, "ours", 3)
	lane.AwaitCount(t, lanetest.Leased, 1)
	c := startNative(t, "mqsend", m.Name()) // root, or the daemon's own user
	c.say("9 stranger")
	c.expect("sent")
	for deadline := time.Now().Add(15 * time.Second); out.Skipped() == 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the stranger's message was not noticed")
		}
	}
	reader := startNative(t, "mqreceive", m.Name(), "1")
	reader.expect("3 4 ours")
	lane.AwaitCount(t, lanetest.Consumed, 1)
}

func TestOldContentsAreDrained_S30(t *testing.T) {
	m, lane := newMQ(t, 4, 16), roomy()
	for range 3 {
		m.Send([]byte("old"), 0)
	}
	if _, dropped := NewOutlet(m, lane, queue.KernelQueue{}, quiet()); dropped != 3 {
		t.Errorf("dropped %d, want 3", dropped)
	}
	if n, _ := m.Current(); n != 0 {
		t.Errorf("%d left", n)
	}
}

func TestStopReleasesAndDeathOfReadersDoesNoHarm_S30(t *testing.T) {
	m, lane := newMQ(t, 4, 16), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	waiting := startNative(t, "mqreceive", m.Name(), "100")
	put(lane, "one", 0)
	waiting.expect("0 3 one")
	waiting.kill()
	put(lane, "two", 0)
	lane.AwaitCount(t, lanetest.Leased, 1)
	out.Stop()
	if lane.Count(lanetest.Ready) != 1 || lane.Count(lanetest.Consumed) != 1 {
		t.Errorf("%d ready, %d consumed", lane.Count(lanetest.Ready), lane.Count(lanetest.Consumed))
	}
}

func TestDeletedQueueEndsFilling_S30(t *testing.T) {
	m, lane := newMQ(t, 4, 16), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	lane.AwaitLeaseWaiting(t)
	lane.Delete()
	out.Stop()
	if strings.Contains(out.Problem(), "deleted") {
		t.Errorf("a deleted queue is no problem of the door: %q", out.Problem())
	}
}

// Root can write to the outgoing kernel queue, and fills it without end. That holds up nothing but the
// native readers, and nothing is lost by it.
func TestFloodIntoTheOutgoingQueueDoesNoHarm_S30(t *testing.T) {
	m, lane := newMQ(t, 4, 16), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	flood := startNative(t, "mqflood", m.Name(), "5")
	for i := 0; i < 50 || out.Skipped() == 0; i++ {
		put(lane, fmt.Sprint("ours", i), uint16(min(i, 49)))
		if err := out.Recall(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	flood.kill()
	if err := out.Recall(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := lane.Count(lanetest.Consumed); n != 0 {
		t.Errorf("%d consumed, and nobody has received any", n)
	}
	awaitCurrent(t, m, 4)
	reader := startNative(t, "mqreceive", m.Name(), "1")
	reader.expect("49 6 ours49")
	lane.AwaitCount(t, lanetest.Consumed, 1)
}
