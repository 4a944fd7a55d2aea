package doors

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport/posixmq"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(servantState); dir != "" {
		if err := serve(dir, os.Stdin, os.Stdout); err != nil && err != io.EOF {
			fmt.Fprintln(os.Stderr, "daemon:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// world is a state directory, and the daemons that run on it one after the other.
type world struct {
	t        *testing.T
	stateDir string
	bootID   string
	ticks    chan time.Time
	exists   func(queue string) bool
	doors    *Doors
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, stateDir: t.TempDir(), bootID: "boot-1", ticks: make(chan time.Time)}
	m, err := posixmq.Create(newName(), posixmq.Geometry{MaxMessages: 1, MessageSize: 1})
	if err == unix.ENOSYS {
		t.Skip("this kernel has no POSIX message queues")
	}
	if err != nil {
		t.Fatal(err)
	}
	m.Unlink()
	m.Close()
	w.restart()
	t.Cleanup(func() { // what a test leaves behind
		w.exists = nil
		w.restart()
		w.doors.Close()
	})
	return w
}

// restart ends the daemon as kill -9 would as far as kernel objects go, and starts another.
func (w *world) restart() {
	w.t.Helper()
	if w.doors != nil {
		w.doors.Close()
	}
	var err error
	if w.doors, err = newDoors(w.stateDir, zap.NewNop(), w.exists, w.bootID, w.ticks); err != nil {
		w.t.Fatal(err)
	}
}

// tick lets the doors try again, and waits until they have.
func (w *world) tick() {
	w.ticks <- time.Time{}
	w.ticks <- time.Time{} // taken when the round of the first is over
}

// eventually waits for what comes about by itself.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !happened(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func newName() string { return fmt.Sprintf("/ipcd-test-%d-%x", os.Getpid(), rand.Uint64()) }

// spec is that of a small queue of the test's user.
func spec(name string, mode queue.KernelMode, lane broker.DoorQueue) broker.DoorSpec {
	return broker.DoorSpec{
		Queue:          name,
		ID:             1,
		Kernel:         queue.KernelQueue{Mode: mode, MaxMessages: 3, Type: 1},
		MaxMessageSize: 32,
		Mode:           0o600,
		OwnerUID:       uint32(os.Geteuid()),
		GroupGID:       uint32(os.Getegid()),
		Lane:           lane,
	}
}

func roomy() *lanetest.Lane { return lanetest.New(1<<30, 1<<40, 1<<20) }

func (w *world) open(s broker.DoorSpec) broker.Door {
	w.t.Helper()
	door, err := w.doors.Open(s)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { door.Close(true) })
	return door
}

// object opens a kernel queue as a stranger would.
func object(t *testing.T, name string) *posixmq.MQ {
	t.Helper()
	m, err := posixmq.Open(name)
	if err != nil {
		t.Fatalf("mq_open %s: %v", name, err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// foreign makes a kernel queue that is not ours, with one message.
func foreign(t *testing.T, name string) *posixmq.MQ {
	t.Helper()
	m, err := posixmq.Create(name, posixmq.Geometry{MaxMessages: 3, MessageSize: 32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Unlink()
		m.Close()
	})
	if err := m.Send([]byte("foreign"), 0); err != nil {
		t.Fatal(err)
	}
	return m
}

// awaitCurrent waits until a kernel queue holds so many messages.
func awaitCurrent(t *testing.T, m *posixmq.MQ, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages in %s", want, m.Name()), func() bool {
		n, err := m.Current()
		return err == nil && n == want
	})
}

func checkUntouched(t *testing.T, m *posixmq.MQ) {
	t.Helper()
	st, err := m.Stat()
	n, _ := m.Current()
	if err != nil || !st.Linked || st.Mode != 0o600 || n != 1 {
		t.Errorf("a foreign kernel queue was touched: %+v, %d messages, %v", st, n, err)
	}
}

func gone(name string) bool {
	m, err := posixmq.Inspect(name)
	if err == nil {
		m.Close()
	}
	return err == unix.ENOENT
}

func TestNamesAndGeometry_S28(t *testing.T) {
	w, name := newWorld(t), newName()
	door := w.open(spec(name, queue.KernelBoth, roomy()))
	status := door.Status()
	for i, want := range []broker.DoorStatus{{Direction: "in", Name: name, Mode: 0o600}, {Direction: "out", Name: name + ".out", Mode: 0o600}} {
		want.Open, want.MaxMessages, want.MessageSize = true, 3, 32
		want.UID, want.GID = uint32(os.Geteuid()), uint32(os.Getegid())
		if status[i] != want {
			t.Errorf("got %+v, want %+v", status[i], want)
		}
		if g := object(t, want.Name).Geometry(); g.MaxMessages != 3 || g.MessageSize != 32 {
			t.Errorf("%s: %+v", want.Name, g)
		}
	}
	door.Close(true)
	if !gone(name) || !gone(name+".out") {
		t.Error("kernel queues are left after Close(true)")
	}
	if d := w.open(spec(name, queue.KernelNone, nil)); len(d.Status()) != 0 {
		t.Error("a queue without kernel queues has one")
	}
	if d := w.open(spec(name, queue.KernelAuto, roomy())); len(d.Status()) != 1 || d.Status()[0].Direction != "in" {
		t.Error("auto opens the ingress door")
	}
}

func TestMessagesFlowAfterStart_S29_S30(t *testing.T) {
	w, name, lane := newWorld(t), newName(), roomy()
	door := w.open(spec(name, queue.KernelBoth, lane))
	if err := object(t, name).Send([]byte("hello"), 3); err != nil {
		t.Fatal(err)
	}
	if len(lane.Entries()) != 0 {
		t.Error("a message flowed before Start")
	}
	door.Start()
	awaitCurrent(t, object(t, name+".out"), 1) // came in, and went to the out queue
	buffer := make([]byte, 32)
	n, priority, err := object(t, name+".out").Receive(buffer)
	if err != nil || string(buffer[:n]) != "hello" || priority != 3 {
		t.Fatalf("received %q, %d, %v", buffer[:n], priority, err)
	}
	lane.AwaitCount(t, lanetest.Consumed, 1)
	lane.Put(queue.Message{Body: []byte("back")})
	lane.AwaitCount(t, lanetest.Leased, 1)
	lane.Pause(true)
	if err := door.Recall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := lane.Count(lanetest.Ready); n != 1 {
		t.Errorf("%d ready after the recall, want 1", n)
	}
	for _, s := range door.Status() {
		if s.Passed != 1 || s.Skipped != 0 || s.Problem != "" || s.Current != 0 {
			t.Errorf("%+v", s)
		}
	}
	door.Close(true)
	lane.Check(t)
}

func TestForeignNameIsNeverTouched_S28(t *testing.T) {
	w, name := newWorld(t), newName()
	in, out := foreign(t, name), foreign(t, name+".out")
	for _, mode := range []queue.KernelMode{queue.KernelIn, queue.KernelOut, queue.KernelBoth} {
		if _, err := w.doors.Open(spec(name, mode, roomy())); reason.Of(err) != reason.KernelNameTaken {
			t.Errorf("mode %d: %v, want KERNEL_NAME_TAKEN", mode, err)
		}
	}
	door := w.open(spec(name, queue.KernelAuto, roomy()))
	door.Start()
	if s := door.Status()[0]; s.Open || !strings.Contains(s.Problem, name) {
		t.Errorf("%+v", s)
	}
	w.tick()
	w.restart()
	door.Close(true)
	checkUntouched(t, in)
	checkUntouched(t, out)
}

// Both: the in door is possible, the out door is not; nothing is left behind.
func TestFailedOpenLeavesNothing_S31(t *testing.T) {
	w, name := newWorld(t), newName()
	foreign(t, name+".out")
	_, err := w.doors.Open(spec(name, queue.KernelBoth, roomy()))
	var e *reason.Error
	if !errors.As(err, &e) || e.Reason != reason.KernelNameTaken || e.Queue != name {
		t.Errorf("got %v", err)
	}
	if !gone(name) {
		t.Error("the in door was left behind")
	}
	if len(w.doors.live) != 0 || len(w.doors.owners) != 0 {
		t.Error("the doors remember a failed open")
	}
}

func TestTypePrefixNeedsRoom_S29(t *testing.T) {
	w, s := newWorld(t), spec(newName(), queue.KernelBoth, roomy())
	s.Kernel.TypePrefix, s.Kernel.MessageSize = true, 7
	if _, err := w.doors.Open(s); reason.Of(err) != reason.InvalidArgument || !strings.Contains(err.Error(), "at least 8") {
		t.Errorf("got %v", err)
	}
	s.Kernel.MessageSize = 8
	w.open(s)
}

// The out door of /x and the in door of /x.out want the same name.
func TestOwnDoorsDoNotShareAName_S28(t *testing.T) {
	w, name := newWorld(t), newName()
	first := w.open(spec(name, queue.KernelOut, roomy()))
	_, err := w.doors.Open(spec(name+".out", queue.KernelIn, roomy()))
	if reason.Of(err) != reason.KernelNameTaken || !strings.Contains(err.Error(), "out door of queue "+name) {
		t.Fatalf("got %v", err)
	}
	second := w.open(spec(name+".out", queue.KernelAuto, roomy()))
	if s := second.Status()[0]; s.Open || !strings.Contains(s.Problem, name) {
		t.Fatalf("%+v", s)
	}
	first.Close(true)
	w.tick()
	if s := second.Status()[0]; !s.Open || s.Problem != "" {
		t.Errorf("the name is free now: %+v", s)
	}
}

// A queue that loses its in door keeps what natives had sent already, as far as it has room.
func TestRemovedInDoorHandsOverWhatItHolds_S29(t *testing.T) {
	w, name, lane := newWorld(t), newName(), lanetest.New(2, 1<<20, 32)
	door := w.open(spec(name, queue.KernelIn, lane))
	for range 2 {
		object(t, name).Send([]byte("x"), 0)
	}
	door.Close(true)
	if n := lane.Count(lanetest.Ready); n != 2 || !gone(name) {
		t.Errorf("%d messages were taken in, want 2; kernel queue gone: %v", n, gone(name))
	}
	lane.Check(t)
}

// curiousLane asks for the door's status whenever the door settles, as a broker may that holds the queue's lock.
type curiousLane struct {
	*lanetest.Lane
	door  broker.Door
	asked atomic.Int32
}

func (l *curiousLane) Settle(consumed, released []queue.Receipt) {
	if len(l.door.Status()) == 2 {
		l.asked.Add(1)
	}
	l.Lane.Settle(consumed, released)
}

func TestStatusWaitsForNobody_S30(t *testing.T) {
	w, name, lane := newWorld(t), newName(), &curiousLane{Lane: roomy()}
	lane.door = w.open(spec(name, queue.KernelBoth, lane))
	lane.door.Start()
	lane.Put(queue.Message{Body: []byte("x")})
	lane.AwaitCount(t, lanetest.Leased, 1)
	if err := lane.door.Recall(t.Context()); err != nil {
		t.Fatal(err)
	}
	lane.AwaitCount(t, lanetest.Leased, 1)
	lane.door.Close(true)
	if n := lane.asked.Load(); n != 2 {
		t.Errorf("the status was asked for %d times, want at the recall and at the close", n)
	}
}
