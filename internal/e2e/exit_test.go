//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/client"
)

func TestExitCodesOfIpcctl(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages = 1 }))
	send(t, q, text("full")...)
	empty := create(t, d.dial(t), memory())
	nowhere := filepath.Join(shortDir(t), "nobody")
	deaf := deafSocket(t)
	internal := internalErrors(t)
	for _, c := range []struct {
		exit      int
		arguments string
		says      string
	}{
		{0, "ls", ""},
		{0, "info", ""},
		{0, "version", ""},
		{0, "completion bash", ""},
		{0, "--help", ""},
		{1, "create " + q.Name() + " --exclusive --mqueue none", "exists"},
		{1, "send " + q.Name() + " x", "try again"},
		{1, "ack 1.1.1.1.1", "1.1.1.1.1"},
		{1, "nack 1.1.1.1.1 2.2.2.2.2", "2.2.2.2.2"},
		{2, "dance", "unknown command"},
		{2, "ls --dance", "unknown flag"},
		{2, "recv", "queue"},
		{2, "recv " + q.Name() + " --lease x", "duration"},
		{2, "send " + q.Name(), "payload"},
		{2, "send " + q.Name() + " x --type zero", "positive number"},
		{2, "recv " + q.Name() + " --ack --lease 1s", "exclude"},
		{2, "rm " + q.Name(), "--force"},
		{2, "create /a/b", "queue name"},
		{2, "--address relative/path ls", "address"},
		{3, "stat /e2e.missing", "/e2e.missing"},
		{3, "recv /e2e.missing", "/e2e.missing"},
		{3, "send /e2e.missing x", "/e2e.missing"},
		{3, "rm --force /e2e.missing", "/e2e.missing"},
		{3, "stat " + q.Name() + " /e2e.missing", "/e2e.missing"}, // of several objects, the worst
		{4, "--address " + nowhere + " ls", "no ipcd answers"},
		{4, "--address 127.0.0.1:1 --insecure ls", "no ipcd answers"},
		{6, "recv " + empty.Name(), "no message"},
		{6, "recv " + empty.Name() + " --wait 10ms", "no message"},
		{6, "recv " + empty.Name() + " --wait 1h --timeout 100ms", "100ms"},
		{4, "--address " + deaf + " ls --timeout 200ms", "200ms"},
		{70, "--address " + internal + " info", "defect"},
	} {
		t.Run(fmt.Sprint(c.exit, " ", strings.Fields(c.arguments)[0]), func(t *testing.T) {
			r := d.ctl(t, strings.Fields(c.arguments)...)
			if r.exit != c.exit || c.says != "" && !strings.Contains(r.err, c.says) {
				t.Errorf("ipcctl %s: exit %d, want %d and %q; stderr:\n%s", c.arguments, r.exit, c.exit, c.says, r.err)
			}
			if c.exit != 0 && c.exit != 3 && r.out != "" {
				t.Errorf("ipcctl %s: words on stdout: %s", c.arguments, r.out)
			}
		})
	}
	if out := d.ctl(t, "stat", "/e2e.missing", q.Name()).exits(t, 3).out; !strings.Contains(out, q.Name()) {
		t.Errorf("what is there is not shown: %q", out)
	}
}

// deafSocket returns a socket that is never accepted from.
func deafSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "deaf")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path
}

// internalErrors returns the socket of a daemon that answers everything with an error of its own.
func internalErrors(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "broken")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Error(codes.Internal, "a defect")
	}))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return path
}

func TestReaderThatGoesAwayLosesNothing(t *testing.T) {
	t.Parallel()
	d := start(t)
	const messages = 300
	for _, ack := range []string{"", " --ack"} {
		t.Run("recv"+ack, func(t *testing.T) {
			q := create(t, d.dial(t), memory())
			batch := make([]client.Message, messages) // more than a pipe of 64 KiB holds
			for i := range batch {
				batch[i].Body = fmt.Appendf(nil, "%d%s", i, strings.Repeat(" ", 4000))
			}
			send(t, q, batch...)
			shell := exec.CommandContext(within(t), "bash", "-c", `"$0" recv "$1" -n 300 -o raw`+ack+` | head -1; exit ${PIPESTATUS[0]}`, filepath.Join(bin, "ipcctl"), q.Name())
			shell.Env = environment("IPCD_ADDRESS=" + d.socket)
			if out := finish(t, shell).ok(t); strings.TrimSpace(out) != "0" {
				t.Errorf("head -1 printed %q", out)
			}
			s := info(t, q).Stats
			if s.Ready+s.Leased+s.ConsumedTotal != messages || s.Ready == 0 || s.Leased+s.ConsumedTotal == 0 {
				t.Errorf("%+v: all must be printed or back", s)
			}
			if ack != "" && s.Leased != 0 || ack == "" && s.ConsumedTotal != 0 {
				t.Errorf("%+v: printed ones are consumed with --ack, else leased", s)
			}
			for _, m := range receive(t, q, messages, client.ReceiveOptions{}) {
				if m.Attempts != 0 {
					t.Errorf("message %d came back with %d attempts", m.Sequence, m.Attempts)
				}
			}
		})
	}
}

func TestSignalEndsIpcctlInOrder(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	follower := background(t, d.command(within(t), "ipcctl", "recv", q.Name(), "--follow", "--ack", "-o", "raw"))
	send(t, q, text("a", "b")...)
	eventually(t, "both are printed", func() bool { return follower.out.String() == "a\nb\n" })
	_ = follower.cmd.Process.Signal(syscall.SIGINT)
	follower.wait().exits(t, 0)
	send(t, q, text("for the next")...)
	if s := info(t, q).Stats; s.Ready != 1 || s.ConsumedTotal != 2 || s.Receivers != 0 {
		t.Errorf("afterwards %+v", s)
	}
	receive(t, q, 1, client.ReceiveOptions{AtOnce: true})

	waiting := background(t, d.command(within(t), "ipcctl", "recv", q.Name(), "--wait", "1h"))
	awaitStats(t, q, "it waits", func(s client.QueueStats) bool { return s.Receivers == 1 })
	_ = waiting.cmd.Process.Signal(syscall.SIGTERM)
	waiting.wait().exits(t, 1).says(t, "interrupted")
	awaitStats(t, q, "nobody waits", func(s client.QueueStats) bool { return s.Receivers == 0 })
}

func TestLinesBecomeMessages_S6(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessageSize = new(10) }))
	d.ctlWith(t, "a\n\nlast", "send", q.Name(), "--lines", "--type", "7").exits(t, 0).says(t, "3 messages")
	if got := peeked(t, q, client.PeekOptions{Filter: client.Filter{Selector: client.Type(7)}}); strings.Join(got, "|") != "a||last" {
		t.Errorf("sent %q", got)
	}
	d.ctlWith(t, "fine\nfar too long\nnever\n", "send", q.Name(), "--lines").exits(t, 1).says(t, "line 2", "10 bytes", "1 message")
	d.ctlWith(t, "\x00\xff", "send", q.Name(), "-").ok(t)
	if got := peeked(t, q, client.PeekOptions{}); got[len(got)-1] != "\x00\xff" {
		t.Errorf("stdin as it is came as %q", got[len(got)-1])
	}
	if r := d.ctlWith(t, "x\ny\n", "send", q.Name(), "--lines", "-o", "jsonl"); strings.Count(r.ok(t), `"sequence"`) != 2 {
		t.Errorf("send -o jsonl printed %q", r.out)
	}
}
