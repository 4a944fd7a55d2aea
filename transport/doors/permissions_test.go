package doors

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

func TestModeAndOwner_S28(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a kernel queue away")
	}
	w, name := newWorld(t), newName()
	s := spec(name, queue.KernelBoth, roomy())
	s.OwnerUID, s.GroupGID, s.Mode = 12345, 23456, 0o764
	door := w.open(s)
	for i, mode := range []uint32{0o220, 0o444} {
		st := door.Status()[i]
		if st.UID != 12345 || st.GID != 23456 || st.Mode != mode || st.Problem != "" {
			t.Errorf("%+v, want mode %04o", st, mode)
		}
	}
	s = spec(newName(), queue.KernelBoth, roomy())
	s.Mode = 0o662 // the daemon's own queue: it keeps its own bits
	door = w.open(s)
	for i, mode := range []uint32{0o622, 0o640} {
		if st := door.Status()[i]; st.Mode != mode || st.Problem != "" {
			t.Errorf("%+v, want mode %04o", st, mode)
		}
	}
	if err := object(t, s.Queue).Chmod(0o666); err != nil {
		t.Fatal(err)
	}
	if p := door.Status()[0].Problem; !strings.Contains(p, "0666") {
		t.Errorf("a changed mode is not shown: %q", p)
	}
}

// C programs of other users: the kernel decides.
func TestKernelDecidesAccess_S28(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run programs as somebody else")
	}
	dir, err := os.MkdirTemp("", "doors")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	for _, program := range []string{"mqsend", "mqreceive"} {
		if text, err := exec.Command("gcc", "-O1", "-o", filepath.Join(dir, program), "../posixmq/testdata/"+program+".c").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	run := func(uid, gid uint32, input string, args ...string) string {
		c := exec.Command(filepath.Join(dir, args[0]), args[1:]...)
		c.Stdin = strings.NewReader(input)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		text, _ := c.Output()
		return strings.TrimSpace(string(text))
	}
	w, name, lane := newWorld(t), newName(), roomy()
	s := spec(name, queue.KernelBoth, lane)
	s.OwnerUID, s.GroupGID, s.Mode = 12345, 23456, 0o620 // the owner sends and receives, the group sends
	w.open(s).Start()
	lane.Put(queue.Message{Type: 2, Body: []byte("for you")})
	lane.AwaitCount(t, lanetest.Leased, 1)
	const refused = "mq_open: Permission denied"
	for _, c := range []struct {
		uid, gid uint32
		args     []string
		want     string
	}{
		{12345, 1, []string{"mqsend", name}, "sent"},
		{12346, 23456, []string{"mqsend", name}, "sent"},
		{12346, 1, []string{"mqsend", name}, refused},
		{12345, 1, []string{"mqreceive", name, "1"}, refused},
		{12345, 1, []string{"mqsend", name + ".out"}, refused},
		{12346, 23456, []string{"mqreceive", name + ".out", "1"}, refused},
		{12345, 1, []string{"mqreceive", name + ".out", "1"}, "0 7 for you"},
	} {
		if got := run(c.uid, c.gid, "0 \n", c.args...); got != c.want {
			t.Errorf("uid %d, gid %d, %v: %q, want %q", c.uid, c.gid, c.args, got, c.want)
		}
	}
	lane.AwaitCount(t, lanetest.Consumed, 1)
}
