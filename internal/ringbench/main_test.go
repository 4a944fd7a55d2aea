//go:build linux

// Package ringbench measures rings between two processes, beside what they are made of: a bare ring in shared memory, bare
// futexes, spinning on two words, kernel message queues and memcpy. Absolute figures drift, so every figure of ours comes with
// ratios to baselines that ran in between in the same process; all are medians of several short rounds.
package ringbench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// roleVariable tells a re-executed test binary that it is a child, and what it shall be.
const roleVariable = "IPCD_RINGBENCH_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := beChild(role); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// job is what a child does on request. It calls ready when its partner may begin, and returns what it measured.
type job func(n int, ready func()) ([]int64, error)

// beChild does the jobs that it reads from its standard input, one to a line: a number and a name. It answers each with a line
// "ready" and then a line of numbers.
func beChild(role string) error {
	jobs, err := newJobs(role)
	if err != nil {
		return err
	}
	fmt.Println("attached")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		number, name, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		j, ok := jobs[name]
		if !ok {
			return fmt.Errorf("no job %q", name)
		}
		numbers, err := j(n, func() { fmt.Println("ready") })
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Println(strings.Trim(fmt.Sprint(numbers), "[]"))
	}
	return lines.Err()
}

// child is a process that does jobs.
type child struct {
	b      testing.TB
	cmd    *exec.Cmd
	lines  chan string // what it says; closed when it is gone
	errors bytes.Buffer
	exited chan struct{}
	in     io.WriteCloser
}

// startChild re-executes the test binary. cpu is the only processor it may run on; negative: any. files become its
// descriptors from 3 on.
func startChild(b testing.TB, role string, cpu int, files []*os.File, before ...string) *child {
	b.Helper()
	arguments := append(before, os.Args[0], "-test.run=^$")
	c := &child{b: b, cmd: exec.Command(arguments[0], arguments[1:]...), lines: make(chan string, 16), exited: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	c.cmd.ExtraFiles = files
	c.cmd.Stderr = &c.errors
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	started := make(chan error)
	go func() {
		// The parent death signal is that of this thread, and the child inherits its affinity. It ends with the goroutine.
		runtime.LockOSThread()
		if cpu >= 0 {
			var one unix.CPUSet
			one.Set(cpu)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				started <- err
				return
			}
		}
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- lines.Text()
		}
		close(c.lines)
		_ = c.cmd.Wait()
		close(c.exited)
	}()
	if err := <-started; err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = c.cmd.Process.Kill()
		for range c.lines {
		}
		<-c.exited
	})
	c.in = in
	c.expect("attached")
	return c
}

// line is the next thing it says.
func (c *child) line() string {
	c.b.Helper()
	l, ok := <-c.lines
	if !ok {
		<-c.exited
		c.b.Fatalf("a child is gone (%v): %s", c.cmd.ProcessState, c.errors.String())
	}
	return l
}

func (c *child) expect(line string) {
	c.b.Helper()
	if l := c.line(); l != line {
		c.b.Fatalf("a child says %q, want %q", l, line)
	}
}

// begin starts a job and returns once the partner may begin.
func (c *child) begin(name string, n int) {
	c.b.Helper()
	if _, err := fmt.Fprintln(c.in, n, name); err != nil {
		c.b.Fatal(err, c.errors.String())
	}
	c.expect("ready")
}

// end waits until the job is done and returns what it measured.
func (c *child) end() []int64 {
	c.b.Helper()
	var numbers []int64
	for f := range strings.FieldsSeq(c.line()) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			c.b.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// do does a job that has no partner.
func (c *child) do(name string, n int) []int64 {
	c.b.Helper()
	c.begin(name, n)
	return c.end()
}
