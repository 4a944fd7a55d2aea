package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

const (
	// killGrace is how long a command that was told to end (SIGTERM) may take before it is killed.
	killGrace = 5 * time.Second
	// outputGrace is how long what a command has left running may keep its output open.
	outputGrace = time.Second
)

// commandResult is what came of a command.
type commandResult struct {
	failure string // "": it exited with 0
	output  []byte // what it wrote, where that is the reply
}

// run runs the command for a message. An error says that it could not even be started.
func (w *worker) run(ctx context.Context, d *client.Delivery) (commandResult, error) {
	var output boundedBuffer
	stderr := lastLine{w: w.err}
	cmd := exec.Command(w.path, w.argv[1:]...)
	cmd.Args[0] = w.argv[0]
	cmd.Stdin = bytes.NewReader(d.Body)
	cmd.Stderr = &stderr
	switch file, isFile := w.a.out.(*os.File); {
	case w.options.reply:
		cmd.Stdout = &output
	case isFile:
		cmd.Stdout = file
	default:
		cmd.Stdout = w.out
	}
	cmd.Env = append(w.environ[:len(w.environ):len(w.environ)], messageEnv(d, w.names[d.Queue])...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it starts can be killed with it, and Ctrl-C is ours alone
	cmd.WaitDelay = outputGrace
	if err := cmd.Start(); err != nil {
		return commandResult{}, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	why, err := w.await(ctx, cmd.Process.Pid, exited)
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it exited with 0, and something that it started goes on
	}
	result := commandResult{output: output.Bytes(), failure: why}
	switch {
	case why != "":
	case err != nil:
		result.failure = endText(err)
		if line := stderr.text(); line != "" {
			result.failure += ": " + line
		}
	case output.overflowed:
		result.failure = fmt.Sprintf("its reply has more than the %d bytes that a message may have", limits.MessageSizeMax)
	}
	return result, nil
}

// await waits for a command. Should it take too long, or not be wanted any more, it is killed with all that it started.
func (w *worker) await(ctx context.Context, pid int, exited <-chan error) (why string, err error) {
	var late <-chan time.Time
	if w.options.timeout > 0 {
		timer := time.NewTimer(w.options.timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case err := <-exited:
		return "", err
	case <-late:
		why = fmt.Sprintf("it took longer than %v", w.options.timeout)
	case <-w.kill:
		signalGroup(pid, syscall.SIGKILL)
		return "killed", <-exited
	case <-ctx.Done():
		why = "the lease was lost"
	}
	signalGroup(pid, syscall.SIGTERM)
	grace := time.NewTimer(killGrace)
	defer grace.Stop()
	select {
	case err = <-exited:
	case <-grace.C:
		signalGroup(pid, syscall.SIGKILL)
		err = <-exited
	}
	signalGroup(pid, syscall.SIGKILL) // what it has left; its number is not given to others while that is there
	return why, err
}

// signalGroup signals a command and all that it started and that has not left its process group.
func signalGroup(pid int, s syscall.Signal) { _ = syscall.Kill(-pid, s) }

// endText says how a command failed.
func endText(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err.Error()
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit %d", exit.ExitCode())
}

// environment names what a message says; a command must not take what it inherits for it.
const environment = "IPCD_"

// kept are the variables of that kind which commands inherit: how to reach the daemon.
var kept = []string{"IPCD_ADDRESS", "IPCD_TLS_CERT", "IPCD_TLS_KEY", "IPCD_TLS_CA", "IPCD_TLS_SERVER_NAME"}

// inherited returns our environment, without what messages say, and with the daemon's address.
func (w *worker) inherited() []string {
	var env []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, environment) || slices.Contains(kept, name) {
			env = append(env, pair)
		}
	}
	if w.a.address != "" {
		env = append(env, "IPCD_ADDRESS="+w.a.address)
	}
	return env
}

// messageEnv says what a message says, but for its body.
func messageEnv(d *client.Delivery, names map[int64]string) []string {
	var env []string
	set := func(name, value string) {
		if !strings.Contains(value, "\x00") {
			env = append(env, environment+name+"="+value)
		}
	}
	set("QUEUE", d.Queue)
	set("SEQUENCE", strconv.FormatUint(d.Sequence, 10))
	set("TYPE", strconv.FormatInt(d.Type, 10))
	set("PRIORITY", strconv.Itoa(int(d.Priority)))
	set("ATTEMPTS", strconv.Itoa(d.Attempts))
	set("SEND_TIME", machineTime(d.SentAt))
	set("RECEIPT", string(d.Receipt))
	for _, optional := range [...]struct{ name, value string }{
		{"TYPE_NAME", names[d.Type]}, {"CORRELATION_ID", d.CorrelationID}, {"REPLY_TO", d.ReplyTo}, {"DEDUP_ID", d.DedupID}, {"CONTENT_TYPE", d.ContentType},
	} {
		if optional.value != "" {
			set(optional.name, optional.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		set("HEADER_"+variableName(name), string(d.Headers[name]))
	}
	return env
}

// variableName turns a header's name into part of a variable's.
func variableName(header string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, header)
}

// lastLine passes on what is written and keeps the beginning of the last line that says something.
type lastLine struct {
	w          *lockedWriter
	line, last []byte
}

func (l *lastLine) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		if room := limits.ReasonLength - len(l.line); room > 0 {
			l.line = append(l.line, part[:min(len(part), room)]...)
		}
		if ended {
			l.end()
		}
		rest = after
	}
	return l.w.Write(p)
}

func (l *lastLine) end() {
	if len(bytes.TrimSpace(l.line)) > 0 {
		l.last, l.line = l.line, l.last
	}
	l.line = l.line[:0]
}

// text returns the line. The command has ended.
func (l *lastLine) text() string {
	l.end()
	return strings.TrimSpace(strings.ToValidUTF8(string(l.last), "?"))
}

// boundedBuffer holds as much as a message may have.
type boundedBuffer struct {
	bytes.Buffer
	overflowed bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > limits.MessageSizeMax {
		b.overflowed = true
		return len(p), nil // the command goes on as if it were taken
	}
	return b.Buffer.Write(p)
}
