//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/client/ring"
)

func TestInheritedSocketsAreServedAndKept(t *testing.T) {
	t.Parallel()
	m := manage(t)
	tcp := m.listen(t)
	early, err := net.Dial("unix", filepath.Join(m.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	waits := dial(t, filepath.Join(m.dir, "s"), client.WithDialer(func(context.Context) (net.Conn, error) { return early, nil }))
	answered, ctx := make(chan error, 1), within(t)
	go func() {
		_, err := waits.Info(ctx)
		answered <- err
	}()
	d := m.launch(t, nil)
	if err := <-answered; err != nil {
		t.Errorf("a connection from before the daemon started: %v", err)
	}
	d.started(t)
	if d.tcp != tcp {
		t.Errorf("it listens at %s, want %s alone", d.tcp, tcp)
	}
	d.ctl(t, "create", "/q.anyone", "--mqueue", "none").ok(t)
	d.ctl(t, "--address", tcp, "--insecure", "stat", "/q.anyone").ok(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB").ok(t)
	p, err := ring.NewProducer(within(t), "/r", ring.ProducerOptions{Attach: d.attach})
	if err != nil {
		t.Fatalf("attaching at an inherited socket: %v", err)
	}
	p.Close()
	m.await(t, 0, 1, "READY=1")
	m.await(t, 0, 1, "STATUS=serving 1 queue")

	d.signal(syscall.SIGTERM)
	if code := d.awaitExit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	m.await(t, 0, 1, "STOPPING=1")
	m.await(t, 0, 1, "STATUS=stopping")
	m.mu.Lock()
	ready, stopping := slices.Index(m.told, "READY=1"), slices.Index(m.told, "STOPPING=1")
	if slices.Contains(m.told[stopping:], "READY=1") || stopping < ready {
		t.Errorf("the manager is told %q", m.told)
	}
	m.mu.Unlock()
	for _, path := range []string{d.socket, d.attach} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("an inherited socket after the end: %v", err)
		}
	}
}

func TestReadyIsSaidWhenCallsAreAnswered(t *testing.T) {
	t.Parallel()
	m := manage(t)
	// What can not be read keeps it from ever being ready, although its sockets are open by then.
	wrong := writeFile(t, filepath.Join(m.dir, "state", "quotas.json"), "no JSON")
	if err := os.Chmod(filepath.Dir(wrong), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(m.dir, "state", "lock"), "")
	d := m.launch(t, nil)
	if code := d.awaitExit(t); code == 0 || !strings.Contains(d.log.String(), "quotas.json") {
		t.Errorf("exit %d: %s", code, d.log)
	}
	m.await(t, 0, 1, "STATUS=reading the journal")
	if m.count(0, "READY=1") != 0 {
		t.Error("a daemon that does not start says that it is ready")
	}
	if err := os.Remove(wrong); err != nil {
		t.Fatal(err)
	}
	d = m.launch(t, nil)
	m.await(t, 0, 1, "READY=1")
	d.ctl(t, "info").ok(t) // it does not wait for a socket

	since := m.until()
	d.ctl(t, "reload").ok(t)
	m.await(t, since, 1, "READY=1")
	m.mu.Lock()
	defer m.mu.Unlock()
	reloading := slices.Index(m.told[since:], "RELOADING=1")
	if reloading < 0 || !strings.HasPrefix(m.told[since+reloading+1], "MONOTONIC_USEC=") || slices.Index(m.told[since:], "READY=1") < reloading {
		t.Errorf("of a reload the manager is told %q", m.told[since:])
	}
}

func TestRestartOnInheritedSocketsLosesNothing(t *testing.T) {
	t.Parallel()
	m := manage(t)
	m.listen(t)
	d := m.launch(t, nil)
	d.started(t)
	c := d.dial(t)
	q := createNamed(t, c, "/q", client.QueueSettings{Mqueue: client.KernelQueue{Mode: client.KernelNone}})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	acked := make(chan uint64, 1<<20)
	var senders sync.WaitGroup
	for range 2 {
		senders.Go(func() {
			for ctx.Err() == nil {
				sent, err := q.Send(within(t), text("m")...)
				if errors.Is(err, client.ErrShuttingDown) { // nothing was stored
					continue
				}
				if err != nil {
					t.Errorf("a send over restarts: %v", err)
					return
				}
				acked <- sent[0].Sequence
			}
		})
	}
	received, redelivered := make(chan uint64, 1<<20), make(chan uint64, 1<<20)
	consumed := make(chan error, 1)
	go func() {
		consumed <- q.Consume(ctx, func(_ context.Context, m *client.Delivery) error {
			received <- m.Sequence
			if m.Attempts > 0 {
				redelivered <- m.Sequence
			}
			return nil
		}, client.ConsumeOptions{})
	}()
	for range 3 {
		many := len(acked) + 50
		eventually(t, "messages go through", func() bool { return len(acked) > many && len(received) > many })
		d.signal(syscall.SIGTERM)
		if code := d.awaitExit(t); code != 0 {
			t.Fatalf("exit %d", code)
		}
		d = m.launch(t, nil)
		d.started(t)
	}
	many := len(acked) + 50
	eventually(t, "messages go through", func() bool { return len(acked) > many })
	eventually(t, "nothing is left", func() bool {
		return len(received) >= len(acked) && len(acked) > many || t.Failed()
	})
	stop()
	senders.Wait()
	if err := <-consumed; err != nil {
		t.Error(err)
	}
	close(acked)
	close(received)
	got := map[uint64]int{}
	for s := range received {
		got[s]++
	}
	for _, m := range drain(t, q) {
		got[m]++
	}
	lost := 0
	for s := range acked {
		if got[s] == 0 {
			lost++
		}
	}
	if lost > 0 || len(redelivered) > 0 {
		t.Errorf("%d messages that were acknowledged are lost, %d were delivered again", lost, len(redelivered))
	}
}

// drain takes all that is ready.
func drain(t *testing.T, q *client.Queue) (sequences []uint64) {
	t.Helper()
	for {
		deliveries, err := q.Receive(within(t), 1000, client.ReceiveOptions{AtOnce: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(deliveries) == 0 {
			return sequences
		}
		for _, m := range deliveries {
			sequences = append(sequences, m.Sequence)
		}
	}
}

func TestInheritedDescriptorsThatAreNoListenersAreRefused(t *testing.T) {
	t.Parallel()
	file := func(fd int, err error) (*os.File, error) { return os.NewFile(uintptr(fd), "socket"), err }
	for name, c := range map[string]struct {
		open func(m *manager) (*os.File, error)
		says string
	}{
		"a pipe": {func(*manager) (*os.File, error) {
			r, w, err := os.Pipe()
			w.Close()
			return r, err
		}, "pipe"},
		"a regular file": {func(m *manager) (*os.File, error) { return os.Create(filepath.Join(m.dir, "file")) }, "file"},
		"a UDP socket": {func(*manager) (*os.File, error) {
			return file(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
		}, "socket of domain 2"},
		"a netlink socket": {func(*manager) (*os.File, error) {
			return file(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0))
		}, "socket of domain 16"},
		"a datagram socket": {func(*manager) (*os.File, error) {
			return file(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
		}, "socket of domain 1"},
		"one that does not listen": {func(*manager) (*os.File, error) {
			return file(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		}, "does not listen"},
		"a directory": {func(m *manager) (*os.File, error) { return os.Open(m.dir) }, "no socket"},
	} {
		t.Run(name, func(t *testing.T) {
			m := manage(t)
			m.listen(t)
			f, err := c.open(m)
			m.give(t, "odd", f, err)
			d := m.launch(t, nil)
			if code := d.awaitExit(t); code != 2 {
				t.Errorf("exit %d, want 2", code)
			}
			for _, word := range []string{"descriptor 6", `"odd"`, c.says, "must be a socket that listens"} {
				if !strings.Contains(d.log.String(), word) {
					t.Errorf("it does not say %q: %s", word, d.log)
				}
			}
		})
	}
	for name, c := range map[string]struct{ environment, says string }{
		"more than there are": {"LISTEN_FDS=5", "descriptor 6"},
		"no number":           {"LISTEN_FDS=many", "LISTEN_FDS"},
	} {
		t.Run(name, func(t *testing.T) {
			m := manage(t)
			m.listen(t)
			d := m.launch(t, []string{c.environment})
			if code := d.awaitExit(t); code != 2 || !strings.Contains(d.log.String(), c.says) {
				t.Errorf("exit %d, want 2 and %q: %s", code, c.says, d.log)
			}
		})
	}
	t.Run("TCP beyond loopback without TLS", func(t *testing.T) {
		m := manage(t)
		l, err := net.Listen("tcp", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		m.give(t, "tcp", f, err)
		d := m.launch(t, nil)
		if code := d.awaitExit(t); code != 2 || !strings.Contains(d.log.String(), "loopback") {
			t.Errorf("exit %d: %s", code, d.log)
		}
	})
	t.Run("for another process", func(t *testing.T) {
		m := manage(t)
		m.listen(t)
		if err := errors.Join(os.Remove(filepath.Join(m.dir, "s")), os.Remove(filepath.Join(m.dir, "attach.sock"))); err != nil {
			t.Fatal(err)
		}
		d := launchWith(t, m.dir, func(cmd *exec.Cmd) {
			cmd.ExtraFiles, cmd.Env = m.files, append(cmd.Env, "LISTEN_PID=1", "LISTEN_FDS=3")
		})
		d.started(t)
		d.ctl(t, "info").ok(t) // at a socket that it made itself
	})
}

func TestWatchdogIsFedWhileTheDaemonMoves(t *testing.T) {
	t.Parallel()
	const interval = "WATCHDOG_USEC=900000"
	m, clock := manage(t), manage(t)
	d, ticks := m.launch(t, []string{interval}), clock.launch(t, []string{interval})
	d.started(t)
	ticks.started(t)
	m.await(t, 0, 4, "WATCHDOG=1") // without a watchdog the next word would come after ten seconds
	clock.await(t, 0, 1, "WATCHDOG=1")
	d.signal(syscall.SIGSTOP)
	eventually(t, "it is stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	clock.await(t, clock.until(), 2, "WATCHDOG=1") // by then what was told before is read
	stopped := m.until()
	clock.await(t, clock.until(), 4, "WATCHDOG=1")
	if n := m.count(stopped, "WATCHDOG=1"); n != 0 {
		t.Errorf("a stopped daemon feeds its watchdog %d times", n)
	}
	since := m.until()
	d.signal(syscall.SIGCONT)
	m.await(t, since, 2, "WATCHDOG=1")
}
