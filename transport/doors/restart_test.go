package doors

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport/posixmq"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

func always(string) bool { return true }

func TestLeftoversOfGoneQueuesAreUnlinked_S28(t *testing.T) {
	w, name, kept := newWorld(t), newName(), newName()
	w.open(spec(name, queue.KernelBoth, roomy()))
	w.open(spec(kept, queue.KernelIn, roomy()))
	w.exists = func(queue string) bool { return queue == kept }
	w.restart()
	if !gone(name) || !gone(name+".out") {
		t.Error("kernel queues of a queue that is gone are left")
	}
	if gone(kept) {
		t.Error("the kernel queue of a queue that is there was unlinked")
	}
}

func TestInDoorIsTakenOverWithItsMessages_S29(t *testing.T) {
	w, name, lane := newWorld(t), newName(), roomy()
	w.exists = always
	w.open(spec(name, queue.KernelIn, lane))
	native := object(t, name)
	if err := native.Send([]byte("before"), 0); err != nil {
		t.Fatal(err)
	}
	w.restart()
	door := w.open(spec(name, queue.KernelIn, lane))
	door.Start()
	lane.AwaitCount(t, lanetest.Ready, 1)
	if err := native.Send([]byte("after"), 0); err != nil { // on the old descriptor: it is the same object
		t.Fatal(err)
	}
	lane.AwaitCount(t, lanetest.Ready, 2)
}

func TestOutDoorIsTakenOverDrained_S30(t *testing.T) {
	w, name, lane := newWorld(t), newName(), roomy()
	w.exists = always
	w.open(spec(name, queue.KernelOut, lane))
	native := object(t, name+".out")
	for range 2 { // as a daemon that was killed leaves it
		if err := native.Send([]byte("old"), 0); err != nil {
			t.Fatal(err)
		}
	}
	w.restart()
	lane.Put(queue.Message{Body: []byte("old")})
	w.open(spec(name, queue.KernelOut, lane)).Start()
	awaitCurrent(t, native, 1) // the one that is ready in the queue
	lane.AwaitCount(t, lanetest.Leased, 1)
}

func TestOtherGeometryOfATakenOverDoorIsShown_S28(t *testing.T) {
	w, name := newWorld(t), newName()
	w.exists = always
	w.open(spec(name, queue.KernelIn, roomy()))
	w.restart()
	s := spec(name, queue.KernelIn, roomy())
	s.Kernel.MaxMessages = 2
	if got := w.open(s).Status()[0]; !got.Open || got.MaxMessages != 3 || !strings.Contains(got.Problem, "not 2 of 32") {
		t.Errorf("%+v", got)
	}
}

// A kernel queue of the recorded name but another inode, or of another boot, is a stranger's.
func TestStrangerUnderARecordedNameIsLeftAlone_S28(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(w *world, o record) record
	}{
		{"inode", func(_ *world, o record) record { o.Inode++; return o }},
		{"boot", func(w *world, o record) record { w.bootID = "boot-2"; return o }},
		{"intent", func(_ *world, o record) record { o.Inode = 0; return o }},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, exists := range []func(string) bool{nil, always} {
				w, name := newWorld(t), newName()
				stranger := foreign(t, name)
				st, err := stranger.Stat()
				if err != nil {
					t.Fatal(err)
				}
				o := c.change(w, record{Name: name, Queue: name, Direction: "in", Inode: st.Inode, Mark: newMark()})
				if err := w.doors.registry.put(o); err != nil {
					t.Fatal(err)
				}
				w.exists = exists
				w.restart()
				if _, err := w.doors.Open(spec(name, queue.KernelIn, roomy())); reason.Of(err) != reason.KernelNameTaken {
					t.Errorf("got %v", err)
				}
				w.restart()
				checkUntouched(t, stranger)
			}
		})
	}
}

// A daemon dies after mq_open and the mark, before it could write the inode down.
func TestMarkTellsAnObjectThatWasNotYetRecorded_S28(t *testing.T) {
	for _, still := range []bool{true, false} {
		w, name := newWorld(t), newName()
		o := record{Name: name, Queue: name, Direction: "in", Mark: newMark()}
		if err := w.doors.registry.put(o); err != nil {
			t.Fatal(err)
		}
		mq, err := posixmq.Create(name, posixmq.Geometry{MaxMessages: 3, MessageSize: 32})
		if err != nil {
			t.Fatal(err)
		}
		defer mq.Close()
		if err := mq.Mark(o.Mark); err != nil {
			t.Fatal(err)
		}
		w.exists = func(string) bool { return still }
		w.restart()
		if gone(name) == still {
			t.Errorf("queue exists: %v, kernel queue gone: %v", still, gone(name))
		}
		if still {
			mq.Send([]byte("x"), 0) // the mark is gone, the inode is recorded now
			w.restart()
			lane := roomy()
			w.open(spec(name, queue.KernelIn, lane)).Start()
			lane.AwaitCount(t, lanetest.Ready, 1)
		}
	}
}

func TestRegistrySurvivesRestartAndForgetsOtherBoots_S28(t *testing.T) {
	dir := t.TempDir()
	r, err := openRegistry(dir, "boot-1")
	if err != nil {
		t.Fatal(err)
	}
	o := record{Name: "/x", Queue: "/x", Direction: "in", Inode: 7, Mark: newMark()}
	if err := r.put(o); err != nil {
		t.Fatal(err)
	}
	o.BootID = "boot-1"
	if r, err = openRegistry(dir, "boot-1"); err != nil || len(r.all()) != 1 || r.all()[0] != o {
		t.Errorf("%+v, %v", r.all(), err)
	}
	if r, err = openRegistry(dir, "boot-2"); err != nil || len(r.all()) != 0 {
		t.Errorf("%+v, %v", r.all(), err)
	}
}

func TestDamagedOrNewerRegistryIsRefusedUntouched_S28(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2,"kernel_queues":[]}`, `{"version":1,"kernel_queues":7}`, `[]`} {
		dir := t.TempDir()
		path := filepath.Join(dir, registryFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(dir, zap.NewNop(), nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			t.Errorf("%q became %q, %v", text, now, err)
		}
	}
}

// When the record cannot be written nothing is made: it could not be told to be ours.
func TestNothingIsMadeThatCannotBeRecorded_S28(t *testing.T) {
	w, name := newWorld(t), newName()
	path := w.doors.registry.path
	w.doors.registry.path = filepath.Join(w.stateDir, "missing", registryFile)
	if _, err := w.doors.Open(spec(name, queue.KernelIn, roomy())); err == nil {
		t.Error("no error")
	}
	if !gone(name) {
		t.Error("a kernel queue was made")
	}
	w.doors.registry.path = path
}

func TestNewOpensAndCloses(t *testing.T) {
	d, err := New(t.TempDir(), zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(spec(newName(), queue.KernelAuto, roomy())); reason.Of(err) != reason.ShuttingDown {
		t.Errorf("open after Close: %v", err)
	}
}
