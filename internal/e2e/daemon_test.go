//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ipcd/ipcd/client"
)

// patience is how long anything may take that must happen. Nothing waits for it to pass unless it fails.
const patience = 30 * time.Second

// daemon is a process of ipcd with a socket and a state directory of its own.
type daemon struct {
	socket string
	attach string // where programs attach to rings
	state  string
	tcp    string // where it listens on TCP
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{} // closed when the process is gone
}

// start runs a daemon until the test ends, on the unix socket and on TCP.
func start(t *testing.T, arguments ...string) *daemon {
	t.Helper()
	return startIn(t, shortDir(t), arguments...)
}

// startIn runs a daemon with the socket and state of dir.
func startIn(t *testing.T, dir string, arguments ...string) *daemon {
	t.Helper()
	d := launch(t, dir, arguments...)
	d.started(t)
	return d
}

// started waits until a launched daemon serves, and notes its address on TCP.
func (d *daemon) started(t *testing.T) {
	t.Helper()
	entry := d.log.await(t, d, "ipcd started")
	var started struct{ Addresses []string }
	if err := json.Unmarshal([]byte(entry), &started); err != nil {
		t.Fatal(err)
	}
	for _, address := range started.Addresses {
		if !strings.HasPrefix(address, "unix:") {
			d.tcp = address
		}
	}
}

// launch starts the process and waits for nothing.
func launch(t *testing.T, dir string, arguments ...string) *daemon {
	t.Helper()
	return launchWith(t, dir, nil, arguments...)
}

// launchWith is launch of a process that prepare, which may be nil, changes before it starts.
func launchWith(t *testing.T, dir string, prepare func(*exec.Cmd), arguments ...string) *daemon {
	t.Helper()
	d := &daemon{
		socket: filepath.Join(dir, "s"),
		attach: filepath.Join(dir, "attach.sock"),
		state:  filepath.Join(dir, "state"),
		log:    new(logBuffer),
		exited: make(chan struct{}),
	}
	arguments = append([]string{"--socket", d.socket, "--state-dir", d.state, "--listen", "127.0.0.1:0", "--insecure", "--config", openConfig(t, dir)}, arguments...)
	d.cmd = exec.Command(filepath.Join(bin, "ipcd"), arguments...)
	d.cmd.Env = environment()
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if prepare != nil {
		prepare(d.cmd)
	}
	startProcess(t, d.cmd, d.exited)
	t.Cleanup(func() {
		// The first stops it, the second keeps it from waiting for what a test has left leased. They differ
		// because equal signals that are pending are one; see signal(7).
		d.signal(syscall.SIGTERM)
		d.signal(syscall.SIGINT)
		select {
		case <-d.exited:
		case <-time.After(patience):
			d.kill()
			t.Errorf("the daemon did not stop")
		}
		log := d.log.String()
		for _, bad := range []string{"DATA RACE", "panic", "internal error"} {
			if strings.Contains(log, bad) {
				t.Errorf("the daemon's log has %q", bad)
			}
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", log)
		}
	})
	return d
}

// startProcess starts a child and closes exited when it has gone. The thread that starts a child with a
// parent death signal must outlive it, so it waits for it too; see PR_SET_PDEATHSIG(2const).
func startProcess(t *testing.T, cmd *exec.Cmd, exited chan struct{}) {
	t.Helper()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
}

func (d *daemon) signal(s syscall.Signal) {
	select {
	case <-d.exited:
	default:
		_ = d.cmd.Process.Signal(s)
	}
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() {
	d.signal(syscall.SIGKILL)
	<-d.exited
}

// awaitExit returns the daemon's exit code.
func (d *daemon) awaitExit(t *testing.T) int {
	t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		t.Fatal("the daemon does not exit")
	}
	return d.cmd.ProcessState.ExitCode()
}

// dial returns a client on the unix socket.
func (d *daemon) dial(t *testing.T) *client.Client {
	t.Helper()
	return dial(t, d.socket)
}

func dial(t *testing.T, target string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Dial(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// conn returns a bare gRPC connection, for requests that the client would not make.
func (d *daemon) conn(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+d.socket, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1<<30)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// logBuffer gathers what a process says.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await returns the first line that contains text.
func (l *logBuffer) await(t *testing.T, d *daemon, text string) (line string) {
	t.Helper()
	eventually(t, "log "+text, func() bool {
		for l := range strings.Lines(l.String()) {
			if strings.Contains(l, text) && strings.HasSuffix(l, "\n") {
				line = l
				return true
			}
		}
		select {
		case <-d.exited:
			t.Fatalf("the daemon is gone (%v); its log:\n%s", d.cmd.ProcessState, l)
		default:
		}
		return false
	})
	return line
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about: %s", what)
		}
	}
}

// shortDir returns a temporary directory that everybody may enter and whose name leaves room for a
// socket's: a socket's path has at most 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unlinkLeft(dir)
		os.RemoveAll(dir)
	})
	return dir
}

// unlinkLeft unlinks the kernel queues that a daemon with its state below dir has left for its next run.
func unlinkLeft(dir string) {
	var left struct {
		Records []struct{ Name string } `json:"kernel_queues"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "state", "kernel-queues.json"))
	if err != nil || json.Unmarshal(text, &left) != nil {
		return
	}
	for _, r := range left.Records {
		unlinkKernel(r.Name)
	}
}

// environment is that of every process: nothing that would send it to another daemon, and a race
// detector that does not wait a second at the end.
func environment(more ...string) []string {
	var kept []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "IPCD_"), strings.HasPrefix(name, "XDG_"), name == "GORACE", name == "NO_COLOR":
		default:
			kept = append(kept, v)
		}
	}
	return append(append(kept, "GORACE=atexit_sleep_ms=0", "TZ=UTC"), more...)
}

var names atomic.Int64

// unique returns a name for a queue that no other run uses: kernel queues are shared by the whole host.
func unique() string { return fmt.Sprintf("/e2e.%d.%d", os.Getpid(), names.Add(1)) }

// within is a context for calls that must come to an end.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// memory is a queue without kernel queues.
func memory(change ...func(*client.QueueSettings)) client.QueueSettings {
	s := client.QueueSettings{Durability: client.DurabilityMemory, Mqueue: client.KernelQueue{Mode: client.KernelNone}}
	for _, c := range change {
		c(&s)
	}
	return s
}

// create makes a queue and returns it.
func create(t *testing.T, c *client.Client, s client.QueueSettings) *client.Queue {
	t.Helper()
	return createNamed(t, c, unique(), s)
}

func createNamed(t *testing.T, c *client.Client, name string, s client.QueueSettings) *client.Queue {
	t.Helper()
	if _, err := c.CreateQueue(within(t), name, s); err != nil {
		t.Fatal(err)
	}
	return c.Queue(name)
}

// info returns a queue as it is now.
func info(t *testing.T, q *client.Queue) client.QueueInfo {
	t.Helper()
	i, err := q.Info(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// awaitStats waits until a queue's statistics are as said.
func awaitStats(t *testing.T, q *client.Queue, what string, holds func(client.QueueStats) bool) {
	t.Helper()
	eventually(t, what, func() bool { return holds(info(t, q).Stats) })
}

// send sends messages and returns their sequences.
func send(t *testing.T, q *client.Queue, messages ...client.Message) []client.Sent {
	t.Helper()
	sent, err := q.Send(within(t), messages...)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// text returns messages with these bodies.
func text(bodies ...string) []client.Message {
	messages := make([]client.Message, len(bodies))
	for i, b := range bodies {
		messages[i].Body = []byte(b)
	}
	return messages
}

// receive takes up to n messages, waiting for the first.
func receive(t *testing.T, q *client.Queue, n int, o client.ReceiveOptions) []*client.Delivery {
	t.Helper()
	if o.Wait == 0 {
		o.Wait = patience
	}
	deliveries, err := q.Receive(within(t), n, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(deliveries) == 0 {
		t.Fatal("nothing came")
	}
	return deliveries
}

// receiveOne takes one message.
func receiveOne(t *testing.T, q *client.Queue) *client.Delivery {
	t.Helper()
	return receive(t, q, 1, client.ReceiveOptions{})[0]
}

// none fails if something is ready.
func none(t *testing.T, q *client.Queue, o client.ReceiveOptions) {
	t.Helper()
	deliveries, err := q.Receive(within(t), 10, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(deliveries) > 0 {
		t.Fatalf("received %q, want nothing", bodies(deliveries))
	}
}

// bodies are the bodies of deliveries.
func bodies(deliveries []*client.Delivery) []string {
	all := make([]string, len(deliveries))
	for i, d := range deliveries {
		all[i] = string(d.Body)
	}
	return all
}
