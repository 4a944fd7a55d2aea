package doors

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

// Who takes part: a daemon that is not root, and those it serves.
const (
	servantUID = 54320
	aliceUID   = 54321
	bobUID     = 54322
	jobsGID    = 54330
)

// servantState makes a process of the test program the daemon, with that state directory.
const servantState = "IPCD_TEST_SERVANT_STATE"

// order is what the daemon is told to do, one JSON object a line.
type order struct {
	Do     string // open, protect, close, remove or status
	Name   string
	Mode   queue.KernelMode
	Bits   uint32
	UID    uint32
	GID    uint32
	Queues []string // those that exist, at the start
}

// answer is what came of it.
type answer struct {
	Error  string
	Reason reason.Reason
	Status []broker.DoorStatus
}

// serve is the daemon.
func serve(stateDir string, orders io.Reader, answers io.Writer) error {
	read, write := json.NewDecoder(orders), json.NewEncoder(answers)
	var o order
	if err := read.Decode(&o); err != nil {
		return err
	}
	there := make(map[string]bool)
	for _, name := range o.Queues {
		there[name] = true
	}
	d, err := New(stateDir, zap.NewNop(), func(name string) bool { return there[name] })
	if err != nil {
		return err
	}
	open := make(map[string]broker.Door)
	for {
		var a answer
		if door := open[o.Name]; door != nil {
			switch o.Do {
			case "protect":
				door.Protect(o.Bits, o.UID, o.GID)
			case "close", "remove":
				door.Close(o.Do == "remove")
			}
			a.Status = door.Status()
		} else if o.Do == "open" {
			s := spec(o.Name, o.Mode, roomy())
			s.Mode, s.OwnerUID, s.GroupGID = o.Bits, o.UID, o.GID
			if door, err := d.Open(s); err != nil {
				a.Error, a.Reason = err.Error(), reason.Of(err)
			} else {
				door.Start()
				open[o.Name], a.Status = door, door.Status()
			}
		}
		if err := write.Encode(a); err != nil {
			return err
		}
		o = order{}
		if err := read.Decode(&o); err != nil {
			return err
		}
	}
}

// servant is the daemon, as the tests see it.
type servant struct {
	t        *testing.T
	stateDir string
	mounted  bool // it finds kernel queues in /dev/mqueue
	as       *syscall.SysProcAttr
	process  *exec.Cmd
	orders   *json.Encoder
	answers  *json.Decoder
}

// newServant starts a daemon that is not root and has CAP_CHOWN and nothing else.
func newServant(t *testing.T, mounted bool) *servant {
	t.Helper()
	return newServantAs(t, mounted, &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: servantUID, Gid: servantUID},
		AmbientCaps: []uintptr{unix.CAP_CHOWN},
	})
}

func newServantAs(t *testing.T, mounted bool, as *syscall.SysProcAttr) *servant {
	t.Helper()
	if os.Geteuid() != 0 || !readPowers().give {
		t.Skip("only root can start a daemon of another user")
	}
	dir, err := os.MkdirTemp("", "doors") // t.TempDir is for its maker alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, servantUID, servantUID); err != nil {
		t.Fatal(err)
	}
	s := &servant{t: t, stateDir: dir, mounted: mounted, as: as}
	s.start()
	t.Cleanup(func() { // what a failed test leaves behind goes with the queues
		s.mounted = true
		s.crash()
		s.kill()
	})
	return s
}

// start starts the daemon. The queues named are there.
func (s *servant) start(queues ...string) {
	s.t.Helper()
	s.process = exec.Command("/proc/self/exe")
	s.process.Env = append(os.Environ(), servantState+"="+s.stateDir)
	s.process.Stderr = os.Stderr
	s.process.SysProcAttr = s.as
	in, err := s.process.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := s.process.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.orders, s.answers = json.NewEncoder(in), json.NewDecoder(out)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the mounts are this thread's and its children's, and end with them
		err := lanetest.PrivateDev(s.mounted)
		if err == nil {
			err = s.process.Start()
		}
		started <- err
	}()
	if err := <-started; errors.Is(err, unix.EPERM) {
		s.t.Skip(err) // a container's root may not mount
	} else if err != nil {
		s.t.Fatal(err)
	}
	s.tell(order{Queues: queues})
}

// kill ends the daemon without a farewell.
func (s *servant) kill() {
	s.process.Process.Kill()
	s.process.Wait()
}

// crash kills the daemon and starts another.
func (s *servant) crash(queues ...string) {
	s.t.Helper()
	s.kill()
	s.start(queues...)
}

func (s *servant) tell(o order) (a answer) {
	s.t.Helper()
	if err := s.orders.Encode(o); err != nil {
		s.t.Fatal(err)
	}
	if err := s.answers.Decode(&a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// open opens the in door of a queue of alice's with mode 0600.
func (s *servant) open(name string) broker.DoorStatus {
	s.t.Helper()
	a := s.tell(order{Do: "open", Name: name, Mode: queue.KernelIn, Bits: 0o600, UID: aliceUID, GID: aliceUID})
	if a.Error != "" {
		s.t.Fatal(a.Error)
	}
	return a.Status[0]
}

// programs compiles the C programs that use kernel queues, and returns where they are.
func programs(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "doors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	for _, program := range []string{"mqsend", "mqreceive"} {
		if text, err := exec.Command("gcc", "-O1", "-o", filepath.Join(dir, program), "../posixmq/testdata/"+program+".c").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	return dir
}

// native runs one of the programs as somebody.
func native(dir string, uid, gid uint32, args ...string) string {
	c := exec.Command(filepath.Join(dir, args[0]), args[1:]...)
	c.Stdin = strings.NewReader("0 \n")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	text, _ := c.Output()
	return strings.TrimSpace(string(text))
}

const (
	sent    = "sent"
	refused = "mq_open: Permission denied"
)

func checkSend(t *testing.T, dir string, uid, gid uint32, name, want string) {
	t.Helper()
	if got := native(dir, uid, gid, "mqsend", name); got != want {
		t.Errorf("mq_send of uid %d, gid %d: %q, want %q", uid, gid, got, want)
	}
}

func checkObject(t *testing.T, name string, uid, gid, mode uint32) {
	t.Helper()
	st, err := object(t, name).Stat()
	if got, want := (permissions{st.UID, st.GID, st.Mode}), (permissions{uid, gid, mode}); err != nil || got != want {
		t.Errorf("the kernel queue is %v, want %v; %v", got, want, err)
	}
}

func checkNoProblem(t *testing.T, status ...broker.DoorStatus) {
	t.Helper()
	for _, one := range status {
		if !one.Open || one.Problem != "" {
			t.Errorf("%+v", one)
		}
	}
}
