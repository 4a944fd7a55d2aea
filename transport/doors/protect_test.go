package doors

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport/posixmq"
)

// TestProtectKeepsTheKernelQueue_S28: what a native program had open before stays the queue's door.
func TestProtectKeepsTheKernelQueue_S28(t *testing.T) {
	w := newWorld(t)
	lane := roomy()
	s := spec(newName(), queue.KernelBoth, lane)
	door := w.open(s)
	door.Start()
	native, err := posixmq.Open(s.Queue)
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()
	door.Protect(0o666, s.OwnerUID, s.GroupGID)
	for i, want := range []uint32{0o622, 0o644} { // the daemon keeps its own bits
		if st := door.Status()[i]; st.Mode != want || st.Problem != "" || !st.Open {
			t.Errorf("%s: mode %o, problem %q; want mode %o", st.Direction, st.Mode, st.Problem, want)
		}
	}
	if err := native.Send([]byte("x"), 0); err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	eventually(t, "a message through the old descriptor", func() bool { return door.Status()[0].Passed == 1 })
}
