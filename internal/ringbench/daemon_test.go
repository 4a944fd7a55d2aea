//go:build linux

package ringbench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// patience is how long anything may take that is not measured.
const patience = 30 * time.Second

// binaries is where the daemon was built, once; TestMain removes it.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "ringbench"); err != nil {
		return "", err
	}
	built = dir
	build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "ipcd"), "./cmd/ipcd")
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ipcd: %w\n%s", err, output)
	}
	return dir, nil
})

var built string // the directory of binaries, if they were built

// startDaemon runs a daemon until the benchmark ends, makes the rings /left and /right in it, and returns the path of its attach socket.
func startDaemon(b testing.TB, o rigOptions) string {
	b.Helper()
	bin, err := binaries()
	if err != nil {
		b.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ringbench") // a socket's path has at most 107 bytes: TempDir's may be longer
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, attach := filepath.Join(dir, "s"), filepath.Join(dir, "a")
	cmd := exec.Command(filepath.Join(bin, "ipcd"), "--socket", socket, "--attach-socket", attach, "--state-dir", filepath.Join(dir, "state"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	started, ready, exited := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the parent death signal is that of this thread
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		defer close(exited)
		isReady := false
		for lines := bufio.NewScanner(said); lines.Scan(); {
			if !isReady && strings.Contains(lines.Text(), "ipcd started") {
				isReady = true
				close(ready)
			}
		}
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill() // nothing of it is to be kept
		<-exited
	})
	select {
	case <-ready:
	case <-exited:
		b.Fatalf("the daemon is gone: %v", cmd.ProcessState)
	case <-time.After(patience):
		b.Fatal("the daemon does not start")
	}
	makeRings(b, socket, o)
	return attach
}

func makeRings(b testing.TB, socket string, o rigOptions) {
	b.Helper()
	c, err := client.Dial(socket)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s := client.RingSettings{CapacityBytes: int64(o.Capacity), Policy: client.RingOverwrite}
	if o.Lossless {
		s.Policy, s.Stall = client.RingLossless, 10*time.Second
	}
	for _, name := range []string{"/left", "/right"} {
		if _, err := c.CreateRing(ctx, name, s); err != nil {
			b.Fatal(err)
		}
	}
}
