package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// binary is the ipcd that TestMain built.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ipcd-test")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "ipcd")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// daemon is a running ipcd.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	socket string
	log    *bufio.Scanner
	start  logLine
}

type logLine struct {
	Level     string   `json:"level"`
	Msg       string   `json:"msg"`
	Addresses []string `json:"addresses"`
	StateDir  string   `json:"state_dir"`
	Version   string   `json:"version"`
	PID       int      `json:"pid"`
}

// start runs ipcd in dir with more arguments, and returns when it says that it started.
func start(t *testing.T, dir string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, socket: filepath.Join(dir, "run", "ipcd.sock")}
	d.cmd = exec.Command(binary, append([]string{"--socket", d.socket, "--state-dir", filepath.Join(dir, "state")}, args...)...)
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			d.cmd.Process.Kill()
			d.cmd.Wait()
		}
	})
	d.log = bufio.NewScanner(stderr)
	d.start = d.until("ipcd started")
	return d
}

// until reads the log up to a line with the message msg.
func (d *daemon) until(msg string) logLine {
	d.t.Helper()
	for d.log.Scan() {
		var line logLine
		if err := json.Unmarshal(d.log.Bytes(), &line); err != nil {
			d.t.Fatalf("a line of the log is no JSON: %s", d.log.Text())
		}
		if line.Msg == msg {
			return line
		}
	}
	d.t.Fatalf("the log ended without %q", msg)
	return logLine{}
}

// wait returns the exit code.
func (d *daemon) wait() int {
	d.t.Helper()
	for d.log.Scan() {
	}
	d.cmd.Wait()
	return d.cmd.ProcessState.ExitCode()
}

func (d *daemon) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) dial(target string) *grpc.ClientConn {
	d.t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	return conn
}

// fails runs ipcd with arguments that must not let it start, and returns the exit code and what it said.
func fails(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command(binary, args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("ipcd %q: %v: %s", args, err, out)
	}
	return exit.ExitCode(), string(out)
}

func TestDaemonServesUnixAndTCP(t *testing.T) {
	d := start(t, t.TempDir(), "run", "--listen", "127.0.0.1:0", "--insecure")
	if d.start.PID != d.cmd.Process.Pid || d.start.StateDir != filepath.Join(d.dir, "state") || d.start.Version == "" || len(d.start.Addresses) != 2 {
		t.Errorf("the first line of the log says %+v", d.start)
	}
	for i, kind := range []string{"unix", "anonymous"} {
		conn := d.dial(d.start.Addresses[i])
		info, err := ipcdv1.NewSystemServiceClient(conn).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if info.Caller.Kind != kind || int(info.Pid) != d.cmd.Process.Pid || info.StateDir != d.start.StateDir {
			t.Errorf("over %s: %v", d.start.Addresses[i], info)
		}
		health, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health over %s: %v, %v", d.start.Addresses[i], health, err)
		}
	}
	for path, want := range map[string]os.FileMode{d.socket: os.ModeSocket | 0o666, filepath.Dir(d.socket): os.ModeDir | 0o755, d.start.StateDir: os.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestSIGTERMStopsCleanly(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d := start(t, t.TempDir())
		d.signal(s)
		if code := d.wait(); code != 0 {
			t.Errorf("%v: exit code %d, want 0", s, code)
		}
		if _, err := os.Lstat(d.socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v left the socket: %v", s, err)
		}
	}
}

// leaseOne makes a queue with a message, and leases it.
func leaseOne(t *testing.T, conn *grpc.ClientConn) (receipt string) {
	t.Helper()
	memory := &ipcdv1.QueueSettings{Durability: ipcdv1.Durability_DURABILITY_MEMORY, Mqueue: &ipcdv1.KernelQueue{Mode: ipcdv1.KernelQueueMode_KERNEL_QUEUE_MODE_NONE}}
	if _, err := ipcdv1.NewQueueAdminServiceClient(conn).CreateQueue(t.Context(), &ipcdv1.CreateQueueRequest{Name: "/q", Settings: memory}); err != nil {
		t.Fatal(err)
	}
	messages := ipcdv1.NewMessageServiceClient(conn)
	if _, err := messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{Body: []byte("hello")}}}); err != nil {
		t.Fatal(err)
	}
	r, err := messages.Receive(t.Context(), &ipcdv1.ReceiveRequest{Queue: "/q"})
	if err != nil || len(r.Deliveries) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	return r.Deliveries[0].Receipt
}

func TestStopWaitsForAcks_S27(t *testing.T) {
	d := start(t, t.TempDir())
	conn := d.dial(d.start.Addresses[0])
	receipt := leaseOne(t, conn)
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", r, err)
	}
	d.signal(syscall.SIGTERM)
	if r, err := watch.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("%v, %v", r, err)
	}
	r, err := ipcdv1.NewMessageServiceClient(conn).Settle(t.Context(), &ipcdv1.SettleRequest{Settlements: []*ipcdv1.Settlement{
		{Target: &ipcdv1.Settlement_Receipt{Receipt: receipt}, Outcome: &ipcdv1.Settlement_Ack{Ack: &ipcdv1.Ack{}}},
	}})
	if err != nil || len(r.Failures) != 0 {
		t.Fatalf("ack while stopping: %v, %v", r, err)
	}
	if code := d.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestASecondSignalStopsAtOnce(t *testing.T) {
	dir := t.TempDir()
	cfg := filepath.Join(dir, "ipcd.yaml")
	if err := os.WriteFile(cfg, []byte("stop_timeout: 1h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir, "--config", cfg)
	leaseOne(t, d.dial(d.start.Addresses[0])) // and never settles it
	d.signal(syscall.SIGTERM)
	d.until("ipcd stops")
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestASecondDaemonOnTheStateDirectoryIsRefused(t *testing.T) {
	d := start(t, t.TempDir())
	code, said := fails(t, "--socket", filepath.Join(d.dir, "other.sock"), "--state-dir", filepath.Join(d.dir, "state"))
	if code != 1 || !strings.Contains(said, fmt.Sprintf("pid %d", d.cmd.Process.Pid)) {
		t.Errorf("exit code %d, said %q; want 1 and the holder's pid %d", code, said, d.cmd.Process.Pid)
	}
	if _, err := os.Lstat(filepath.Join(d.dir, "other.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the daemon that was refused made a socket")
	}
}

func TestALiveSocketIsNeverReplaced(t *testing.T) {
	d := start(t, t.TempDir())
	code, said := fails(t, "--socket", d.socket, "--state-dir", filepath.Join(d.dir, "other"))
	if code != 1 || !strings.Contains(said, d.socket) {
		t.Errorf("exit code %d, said %q; want 1 and the socket", code, said)
	}
	if _, err := ipcdv1.NewSystemServiceClient(d.dial(d.start.Addresses[0])).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{}); err != nil {
		t.Errorf("the first daemon was disturbed: %v", err)
	}
}

func TestAKilledDaemonsPlacesAreTakenOver(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	first.signal(syscall.SIGKILL)
	first.wait()
	if _, err := os.Lstat(first.socket); err != nil {
		t.Fatalf("no stale socket to take over: %v", err)
	}
	second := start(t, dir)
	if _, err := ipcdv1.NewSystemServiceClient(second.dial(second.start.Addresses[0])).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{}); err != nil {
		t.Error(err)
	}
}

func TestMistakesAreExplained(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := []string{"--socket", filepath.Join(dir, "s"), "--state-dir", filepath.Join(dir, "state")}
	full := filepath.Join(dir, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	file("full/precious", "")
	for name, test := range map[string]struct {
		args []string
		code int
		say  []string
	}{
		"flag":                  {[]string{"--frobnicate"}, 2, []string{"--frobnicate", "--help"}},
		"argument":              {[]string{"walk"}, 2, []string{`"walk"`, "--help"}},
		"argument of run":       {[]string{"run", "fast"}, 2, []string{`"fast"`, "--help"}},
		"log level":             {append(base, "--log-level", "loud"), 2, []string{`"loud"`, "debug, info, warn or error"}},
		"TCP without insecure":  {append(base, "--listen", "127.0.0.1:0"), 2, []string{"--insecure", "loopback"}},
		"TCP for everybody":     {append(base, "--listen", "0.0.0.0:0", "--insecure"), 2, []string{"loopback"}},
		"TCP without a host":    {append(base, "--listen", ":7475", "--insecure"), 2, []string{"loopback"}},
		"TCP without a port":    {append(base, "--listen", "127.0.0.1", "--insecure"), 2, []string{"port"}},
		"missing config":        {append(base, "--config", filepath.Join(dir, "none.yaml")), 2, []string{"none.yaml"}},
		"unknown key":           {append(base, "--config", file("a.yaml", "log_level: info\nsokket: /x\n")), 2, []string{"a.yaml:2", "sokket", "stop_timeout"}},
		"value of another kind": {append(base, "--config", file("b.yaml", "insecure: [1]\n")), 2, []string{"b.yaml:1"}},
		"no directory":          {[]string{"--socket", filepath.Join(dir, "a.yaml", "s"), "--state-dir", filepath.Join(dir, "state")}, 1, []string{"not a directory"}},
		"no socket":             {[]string{"--socket", file("plain", "text"), "--state-dir", filepath.Join(dir, "state")}, 1, []string{"no socket"}},
		"long socket":           {[]string{"--socket", filepath.Join(dir, strings.Repeat("x", 110)), "--state-dir", filepath.Join(dir, "state")}, 2, []string{"unix(7)"}},
		"somebody's directory":  {[]string{"--socket", filepath.Join(dir, "s"), "--state-dir", full}, 1, []string{"holds other things"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, said := fails(t, test.args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, say := range test.say {
				if !strings.Contains(said, say) {
					t.Errorf("said %q, want %q in it", said, say)
				}
			}
		})
	}
	if text, err := os.ReadFile(filepath.Join(dir, "plain")); err != nil || string(text) != "text" {
		t.Errorf("a file in the socket's place was touched: %q, %v", text, err)
	}
	if info, err := os.Stat(full); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("somebody's directory was touched: %v, %v", info, err)
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	dir := t.TempDir()
	cfg := filepath.Join(dir, "ipcd.yaml")
	text := fmt.Sprintf("socket: %s/file.sock\nstate_dir: %s/file-state\nlisten: 127.0.0.1:0\ninsecure: true\nlog_level: error\n", dir, dir)
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir, "--config", cfg, "--log-level", "info") // and start names socket and state directory
	if len(d.start.Addresses) != 2 || d.start.Addresses[0] != "unix://"+d.socket || d.start.StateDir != filepath.Join(dir, "state") {
		t.Errorf("started with %+v", d.start)
	}
}

func TestVersionAndHelp(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--help"}, {"run", "--help"}} {
		out, err := exec.Command(binary, args...).Output()
		if err != nil || !strings.Contains(string(out), "ipcd") {
			t.Errorf("ipcd %q: %v, %q", args, err, out)
		}
	}
}

// What strangers send instead of HTTP/2 harms nobody.
func TestGarbageDoesNoHarm(t *testing.T) {
	d := start(t, t.TempDir())
	for _, garbage := range []string{"", "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff", strings.Repeat("\x00", 1<<16)} {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, garbage)
		conn.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	if _, err := ipcdv1.NewSystemServiceClient(d.dial(d.start.Addresses[0])).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{}); err != nil {
		t.Error(err)
	}
}
