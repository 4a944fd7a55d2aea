package c_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// traced is a C member that is run instruction by instruction. All calls must come from the goroutine that began it, which is locked
// to its thread.
type traced struct {
	t     *testing.T
	cmd   *exec.Cmd
	pid   int
	steps int
	done  bool // past the second mark
}

// trace runs a member with its commands up to the first mark.
func trace(t *testing.T, cmd *exec.Cmd, commands ...string) *traced {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	in, out, err := os.Pipe() // so that no goroutine is needed to feed it
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	if _, err := out.WriteString(strings.Join(commands, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &traced{t: t, cmd: cmd, pid: cmd.Process.Pid}
	if s := p.wait(); !s.Stopped() {
		t.Fatalf("after exec: %v", s)
	}
	p.check(syscall.PtraceSetOptions(p.pid, 0x100000)) // PTRACE_O_EXITKILL: it must not outlive the test
	p.check(syscall.PtraceCont(p.pid, 0))
	if s := p.wait(); !s.Stopped() || s.StopSignal() != syscall.SIGUSR1 {
		t.Fatalf("before the first mark: %#x", s)
	}
	return p
}

func (p *traced) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("after %d instructions: %v", p.steps, err)
	}
}

func (p *traced) wait() (s syscall.WaitStatus) {
	p.t.Helper()
	_, err := syscall.Wait4(p.pid, &s, syscall.WALL, nil)
	p.check(err)
	return s
}

// System calls that sleep and wake.
const (
	futex      = 202
	futexWaitv = 449
)

// calls reports whether the next instruction is that system call.
func (p *traced) calls(number uint64) bool {
	var regs syscall.PtraceRegs
	p.check(syscall.PtraceGetRegs(p.pid, &regs))
	if regs.Rax != number {
		return false
	}
	var code [2]byte
	_, err := syscall.PtracePeekText(p.pid, uintptr(regs.Rip), code[:])
	p.check(err)
	return code == [2]byte{0x0f, 0x05}
}

// step runs one instruction. One that falls asleep is left to itself: then step returns asleep, and awake waits for its end.
func (p *traced) step() (asleep bool) {
	p.t.Helper()
	mayBlock := p.calls(futexWaitv)
	p.check(syscall.PtraceSingleStep(p.pid))
	p.steps++
	if mayBlock {
		eventually(p.t, "the process sleeps, or has slept", func() bool {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
			_, state, _ := strings.Cut(string(text), ") ")
			asleep = strings.HasPrefix(state, "S")
			return err == nil && (asleep || strings.HasPrefix(state, "t"))
		})
	}
	if !asleep {
		p.awake()
	}
	return asleep
}

func (p *traced) awake() {
	p.t.Helper()
	s := p.wait()
	if !s.Stopped() {
		p.t.Fatalf("after %d instructions: %#x", p.steps, s)
	}
	if s.StopSignal() == syscall.SIGUSR1 {
		p.done = true
	}
}

// finish lets it run on, up to the second mark.
func (p *traced) finish() {
	p.t.Helper()
	if p.done {
		return
	}
	p.check(syscall.PtraceCont(p.pid, 0))
	if p.awake(); !p.done {
		p.t.Fatalf("after %d instructions: it stopped before the second mark", p.steps)
	}
}

// kill kills it where it is.
func (p *traced) kill() {
	p.t.Helper()
	p.check(syscall.Kill(p.pid, syscall.SIGKILL))
	for {
		if s := p.wait(); s.Signaled() || s.Exited() {
			break
		}
	}
	_ = p.cmd.Wait() // it was waited for above: this closes files
}
