package doors

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

// limitMsgQueue sets the soft RLIMIT_MSGQUEUE until the test ends, or undo is called.
func limitMsgQueue(t *testing.T, bytes uint64) (undo func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MSGQUEUE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &unix.Rlimit{Cur: bytes, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	undo = func() { unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &before) }
	t.Cleanup(undo)
	return undo
}

func TestAutoTriesAgainWhenTheLimitIsRaised_S31(t *testing.T) {
	w, name, lane := newWorld(t), newName(), roomy()
	undo := limitMsgQueue(t, 0)
	_, err := w.doors.Open(spec(newName(), queue.KernelIn, roomy()))
	if reason.Of(err) != reason.KernelLimit || !strings.Contains(err.Error(), "RLIMIT_MSGQUEUE, which is 0") {
		t.Fatalf("explicit: %v", err)
	}
	door := w.open(spec(name, queue.KernelAuto, lane))
	door.Start()
	w.tick()
	s := door.Status()[0]
	if s.Open || !strings.Contains(s.Problem, "RLIMIT_MSGQUEUE, which is 0") || s.MaxMessages != 3 || s.MessageSize != 32 {
		t.Fatalf("%+v", s)
	}
	undo()
	w.tick()
	if s := door.Status()[0]; !s.Open || s.Problem != "" {
		t.Fatalf("%+v", s)
	}
	if err := object(t, name).Send([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	lane.AwaitCount(t, lanetest.Ready, 1)
}

func TestClosedDoorMakesRoomForAnother_S31(t *testing.T) {
	w := newWorld(t)
	first := w.open(spec(newName(), queue.KernelIn, roomy()))
	undo := limitMsgQueue(t, 0)
	second := w.open(spec(newName(), queue.KernelAuto, roomy()))
	if second.Status()[0].Open {
		t.Fatal("open beyond the limit")
	}
	undo() // as if the first door had been all that there was room for
	first.Close(true)
	eventually(t, "the second door opens, with no tick of the clock", func() bool { return second.Status()[0].Open })
}

func TestExplicitGeometryBeyondTheKernelIsAnError_S31(t *testing.T) {
	w, name := newWorld(t), newName()
	s := spec(name, queue.KernelIn, roomy())
	s.Kernel.MaxMessages, s.Kernel.MessageSize = 65536, 16<<20
	if _, err := w.doors.Open(s); reason.Of(err) != reason.KernelLimit {
		t.Errorf("got %v", err)
	}
	if !gone(name) {
		t.Error("left behind")
	}
}

func TestUnlinkedByAStrangerIsMadeAnew_S28(t *testing.T) {
	for _, mode := range []queue.KernelMode{queue.KernelIn, queue.KernelAuto, queue.KernelOut} {
		w, name, lane := newWorld(t), newName(), roomy()
		s := spec(name, mode, lane)
		door := w.open(s)
		door.Start()
		kernelName := door.Status()[0].Name
		if mode == queue.KernelOut {
			lane.Put(queue.Message{Body: []byte("x")})
			lane.AwaitCount(t, lanetest.Leased, 1)
		}
		if ours, err := object(t, kernelName).Unlink(); !ours || err != nil {
			t.Fatal(ours, err)
		}
		if s := door.Status()[0]; !strings.Contains(s.Problem, "unlinked") {
			t.Errorf("%+v", s)
		}
		w.tick()
		if s := door.Status()[0]; !s.Open || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		if mode == queue.KernelOut {
			awaitCurrent(t, object(t, kernelName), 1)
			if _, _, err := object(t, kernelName).Receive(make([]byte, 32)); err != nil {
				t.Error(err)
			}
			lane.AwaitCount(t, lanetest.Consumed, 1)
		} else {
			object(t, kernelName).Send([]byte("x"), 0)
			lane.AwaitCount(t, lanetest.Ready, 1)
		}
	}
}

// A stranger unlinks ours and puts his own in its place: Close leaves it alone, and so does a renewal.
func TestReplacedByAStrangerIsLeftAlone_S28(t *testing.T) {
	w, name := newWorld(t), newName()
	door := w.open(spec(name, queue.KernelIn, roomy()))
	door.Start()
	object(t, name).Unlink()
	stranger := foreign(t, name)
	w.tick()
	if s := door.Status()[0]; s.Open || !strings.Contains(s.Problem, "did not make") {
		t.Errorf("%+v", s)
	}
	door.Close(true)
	w.restart()
	checkUntouched(t, stranger)
}
