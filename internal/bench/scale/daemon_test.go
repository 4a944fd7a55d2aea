//go:build linux

// Package scale measures what many of everything cost a real daemon that does nothing with them: queues, connections, waiting
// receivers. What the engine does at scale is measured in broker/queue, what one client does to others in internal/bench/flood.
//
//	go test -run '^$' -bench . -benchtime 1x ./internal/bench/scale
package scale

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// bin holds the programs that are measured.
var bin string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	if len(os.Args) > 1 && !slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.bench=") && a != "-test.bench=" }) {
		return m.Run() // nothing is to be measured
	}
	dir, err := os.MkdirTemp("", "scale")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin+"/", "./cmd/ipcd", "./cmd/ipcctl")
	build.Dir = filepath.Join("..", "..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, output)
		return 1
	}
	return m.Run()
}

// daemon is a process of ipcd.
type daemon struct {
	socket string
	pid    int
}

// start runs a daemon until the benchmark ends.
func start(b *testing.B) *daemon {
	b.Helper()
	dir, err := os.MkdirTemp("", "scale")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{socket: filepath.Join(dir, "s")}
	cmd := exec.Command(filepath.Join(bin, "ipcd"), "--socket", d.socket, "--state-dir", filepath.Join(dir, "state"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread() // for Pdeathsig: the thread must outlive the child
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		runtime.UnlockOSThread()
	})
	d.pid = cmd.Process.Pid
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"ipcd started"`) {
			go func() { // or it would wait for somebody to read its log
				for lines.Scan() {
				}
			}()
			return d
		}
	}
	b.Fatal("the daemon did not start")
	return nil
}

func (d *daemon) dial(b *testing.B) *client.Client {
	b.Helper()
	c, err := client.Dial(d.socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// create makes queues that are not on disk, numbered from 0.
func create(b *testing.B, c *client.Client, n int) {
	b.Helper()
	todo, failed := make(chan int), make(chan error, 16)
	for range cap(failed) {
		go func() {
			var first error
			for i := range todo {
				_, err := c.CreateQueue(context.Background(), queueName(i), client.QueueSettings{
					Durability: client.DurabilityMemory, Mqueue: client.KernelQueue{Mode: client.KernelNone},
				})
				if err != nil && first == nil {
					first = err
				}
			}
			failed <- first
		}()
	}
	for i := range n {
		todo <- i
	}
	close(todo)
	for range cap(failed) {
		if err := <-failed; err != nil {
			b.Fatal(err)
		}
	}
}

func queueName(i int) string { return fmt.Sprintf("/scale.%05d", i) }

// resident is the daemon's memory in bytes, once it does not change any more.
func (d *daemon) resident(b *testing.B) float64 {
	b.Helper()
	last := d.status(b, "VmRSS:")
	for range 20 {
		time.Sleep(500 * time.Millisecond) // the runtime gives memory back in the background
		now := d.status(b, "VmRSS:")
		if now == last {
			break
		}
		last = now
	}
	return last * 1024
}

// status is a number of /proc/PID/status.
func (d *daemon) status(b *testing.B, name string) float64 {
	b.Helper()
	return number(b, fmt.Sprintf("/proc/%d/status", d.pid), name)
}

func number(b *testing.B, file, name string) float64 {
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("%s has no %s", file, name)
	return 0
}

// eachThread adds up something of the daemon's threads.
func (d *daemon) eachThread(b *testing.B, of func(dir string) float64) (sum float64) {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", d.pid))
	if err != nil || len(threads) == 0 {
		b.Fatal("the daemon has no threads: ", err)
	}
	for _, dir := range threads {
		sum += of(dir)
	}
	return sum
}

// processor is the time that the daemon has been on a processor.
func (d *daemon) processor(b *testing.B) time.Duration {
	return time.Duration(d.eachThread(b, func(dir string) float64 {
		text, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if err != nil {
			b.Fatal(err)
		}
		n, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}))
}

// sleeps is how often a thread of the daemon has gone to sleep: once for each time that it was woken.
func (d *daemon) sleeps(b *testing.B) float64 {
	return d.eachThread(b, func(dir string) float64 {
		return number(b, filepath.Join(dir, "status"), "voluntary_ctxt_switches:")
	})
}

// median of so many measurements, in ms.
func median(n int, measure func()) float64 {
	all := make([]time.Duration, n)
	for i := range all {
		began := time.Now()
		measure()
		all[i] = time.Since(began)
	}
	slices.Sort(all)
	return float64(all[n/2].Microseconds()) / 1000
}
