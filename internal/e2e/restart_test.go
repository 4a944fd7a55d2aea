//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := startIn(t, dir)
	d.kill()
	if _, err := os.Stat(d.socket); err != nil {
		t.Fatalf("the killed daemon left no socket: %v", err)
	}
	next := startIn(t, dir)
	next.ctl(t, "info").ok(t)
}

func TestSecondDaemonIsRefusedByNameOfTheFirst(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	first := startIn(t, dir)
	second := launch(t, dir)
	if code := second.awaitExit(t); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	if want := fmt.Sprintf("pid %d", first.cmd.Process.Pid); !strings.Contains(second.log.String(), want) {
		t.Errorf("the second says %q, want %s named", second.log.String(), want)
	}
	first.ctl(t, "info").ok(t)
}

func TestLiveSocketAndOtherFilesAreNeverReplaced(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	first := startIn(t, dir)
	other := launch(t, shortDir(t), "--socket", first.socket)
	if code := other.awaitExit(t); code != 1 || !strings.Contains(other.log.String(), "another process listens") {
		t.Errorf("exit %d: %s", code, other.log)
	}
	first.ctl(t, "info").ok(t)

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := launch(t, shortDir(t), "--socket", file)
	if code := third.awaitExit(t); code != 1 {
		t.Errorf("exit %d, want 1: %s", code, third.log)
	}
	if left, err := os.ReadFile(file); err != nil || string(left) != "precious" {
		t.Errorf("the file has %q, %v", left, err)
	}
}

func TestMistakesOnTheCommandLineExit2(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	config := filepath.Join(dir, "ipcd.yaml")
	if err := os.WriteFile(config, []byte("stop_timeout: 1s\nsokket: /tmp/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arguments []string
		says      string
	}{
		{[]string{"--listen", "0.0.0.0:0"}, "loopback"},
		{[]string{"--insecure=false"}, "--insecure"},
		{[]string{"--log-level", "loud"}, "debug"},
		{[]string{"--config", config}, "sokket"},
		{[]string{"--config", filepath.Join(dir, "missing")}, "missing"},
		{[]string{"--nonsense"}, "--help"},
		{[]string{"dance"}, "dance"},
	} {
		d := launch(t, dir, c.arguments...)
		if code := d.awaitExit(t); code != 2 || !strings.Contains(d.log.String(), c.says) {
			t.Errorf("%q: exit %d, want 2, and %q in: %s", c.arguments, code, c.says, d.log)
		}
	}
}

func TestStoppingDaemonWaitsForAcks_S27(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	conn := d.conn(t)
	messages := ipcdv1.NewMessageServiceClient(conn)
	send(t, q, text("held", "prefetched")...)
	begun, release, ended := make(chan struct{}, 2), make(chan struct{}), make(chan error, 1)
	ctx, stop := context.WithCancel(within(t))
	go func() {
		ended <- q.Consume(ctx, func(context.Context, *client.Delivery) error {
			begun <- struct{}{}
			<-release
			return nil
		}, client.ConsumeOptions{
			OnError:     func(_ *client.Delivery, err error) { t.Errorf("settle: %v", err) },
			OnReconnect: func(error) { stop() },
		})
	}()
	<-begun
	awaitStats(t, q, "both are delivered", func(s client.QueueStats) bool { return s.Leased == 2 })
	send(t, q, client.Message{Type: 2, Delay: time.Hour})
	d.signal(syscall.SIGTERM)
	eventually(t, "health says that it stops", func() bool {
		h, err := grpc_health_v1.NewHealthClient(conn).Check(within(t), &grpc_health_v1.HealthCheckRequest{})
		return err == nil && h.Status == grpc_health_v1.HealthCheckResponse_NOT_SERVING
	})
	if _, err := messages.Receive(within(t), &ipcdv1.ReceiveRequest{Queue: q.Name(), MaxMessages: 1}); status.Code(err) != codes.Unavailable {
		t.Errorf("a receive from a stopping daemon: %v, want UNAVAILABLE", err)
	}
	close(release)
	if code := d.awaitExit(t); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	if log := d.log.String(); strings.Contains(log, "not settled") {
		t.Errorf("the daemon did not wait for the acks")
	}
	if err := <-ended; err != nil {
		t.Errorf("the consumer ended with %v", err)
	}
	if _, err := os.Stat(d.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after a clean stop: %v, want it gone", err)
	}
}

func TestReceiptIsGoodWhileTheDaemonStops_S27(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	send(t, q, text("m")...)
	m := receiveOne(t, q)
	d.signal(syscall.SIGTERM)
	d.log.await(t, d, "ipcd stops")
	d.ctl(t, "touch", string(m.Receipt)).ok(t)
	d.ctl(t, "ack", string(m.Receipt)).ok(t)
	if code := d.awaitExit(t); code != 0 || strings.Contains(d.log.String(), "not settled") {
		t.Errorf("exit %d, want 0 once the last message is acked", code)
	}
}

func TestStopIsBounded_S27(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(d *daemon){
		"by its timeout":     func(*daemon) {},
		"by a second signal": func(d *daemon) { d.signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			config := filepath.Join(dir, "ipcd.yaml")
			timeout := "30m"
			if strings.Contains(name, "timeout") {
				timeout = "100ms"
			}
			if err := os.WriteFile(config, []byte("stop_timeout: "+timeout+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := startIn(t, dir, "--config", config)
			q := create(t, d.dial(t), memory())
			send(t, q, text("m")...)
			receiveOne(t, q)
			d.signal(syscall.SIGTERM)
			d.log.await(t, d, "ipcd stops")
			stop(d)
			if code := d.awaitExit(t); code != 0 || !strings.Contains(d.log.String(), "not settled") {
				t.Errorf("exit %d, want 0 and a word about what was not settled", code)
			}
		})
	}
}

func TestKilledDaemonTakesItsKernelQueuesOver_S28_S30(t *testing.T) {
	dir := shortDir(t)
	d := startIn(t, dir)
	name := unique()
	d.ctl(t, "create", name, "--mqueue", "both", "--mqueue-messages", "4", "--mqueue-size", "64").ok(t)
	kernelNames := []string{name, name + ".out"}
	t.Cleanup(func() { unlinkKernel(kernelNames...) })
	finish(t, d.command(within(t), "producer", name, "3", "hello")).ok(t)
	awaitStats(t, d.dial(t).Queue(name), "the message is in, and out", func(s client.QueueStats) bool { return s.SentTotal == 1 && s.Leased == 1 })
	d.kill()
	before, err := statKernel(name)
	if err != nil {
		t.Fatalf("%s after the kill: %v", name, err)
	}
	next := startIn(t, dir)
	if after, err := statKernel(name); err != nil || after.inode != before.inode {
		t.Errorf("after the restart %s is %+v, %v: want that of before, %+v, which native programs have open", name, after, err, before)
	}
	q := next.dial(t).Queue(name)
	awaitStats(t, q, "the message is back, and on its way out again", func(s client.QueueStats) bool { return s.Leased == 1 })
	finish(t, next.command(within(t), "producer", name, "3", "again")).ok(t)
	awaitStats(t, q, "native programs go on", func(s client.QueueStats) bool { return s.Leased == 2 })
	next.ctl(t, "rm", name, "--force").ok(t)
	for _, n := range kernelNames {
		if _, err := statKernel(n); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s after rm: %v, want it gone", n, err)
		}
	}
}

func TestLogIsJSONOffATerminal(t *testing.T) {
	t.Parallel()
	d := start(t, "--log-level", "debug")
	d.signal(syscall.SIGTERM)
	if code := d.awaitExit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	for line := range strings.Lines(d.log.String()) {
		var entry struct {
			Level, Msg string
			Time       time.Time
		}
		unmarshal(t, line, &entry)
		if entry.Level == "" || entry.Msg == "" || entry.Time.IsZero() {
			t.Errorf("log entry %s", line)
		}
	}
}
