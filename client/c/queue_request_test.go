//go:build linux

package c_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

func TestReceiveFromSeveralQueues(t *testing.T) {
	d := startDaemon(t)
	a := d.queue("/a", client.QueueSettings{})
	d.queue("/b", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("send /a type=1 count=3")
	c.good("send /b type=2 count=3")
	queues := c.good("receive queues=/a,/b n=6 consume=1").all("message", "queue")
	slices.Sort(queues)
	expect(t, "queues", queues, "/a", "/a", "/a", "/b", "/b", "/b")
	c.tell("receive queues=/a,/b wait=-1")
	eventually(t, "the receiver waits", func() bool { info, err := a.Info(t.Context()); return err == nil && info.Stats.Receivers == 1 })
	if _, err := d.client().Queue("/b").Send(t.Context(), client.Message{Type: 5}); err != nil {
		t.Fatal(err)
	}
	r := c.answer()
	expect(t, "queue", r.all("message", "queue"), "/b")
	c.good("settle 0:%s", r.lines[0]["receipt"])
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "receive queues=/a,/a")
	c.bad(syscall.ENOENT, "QUEUE_NOT_FOUND", "receive queues=/a,/c")
}

func TestRequestGetsItsAnswer(t *testing.T) {
	d := startDaemon(t)
	d.queue("/ask", client.QueueSettings{})
	asks, answers := drive(t, d.socket), drive(t, d.socket)
	for i := range 3 {
		asks.tell("request /ask type=4 body=question%d", i)
		r := answers.good("receive /ask wait=-1")
		if f := r.lines[0]; f["body"] != fmt.Sprint("question", i) || f["reply_to"] == "" || f["correlation"] == "" || f.number("ttl") <= 0 {
			t.Errorf("the request: %v", f)
		}
		answers.good("reply body=answer%d type=9", i)
		answers.good("settle 0:%s", r.lines[0]["receipt"])
		r = asks.answer()
		if r.n != 1 || r.lines[0]["body"] != fmt.Sprint("answer", i) || r.lines[0]["type"] != "9" {
			t.Errorf("the answer: %v %v", r, r.lines)
		}
	}
	temporary := 0
	for q, err := range d.client().Queues(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(q.Name, "/tmp.") {
			temporary++
		}
	}
	if temporary != 1 {
		t.Errorf("%d temporary queues for three requests of one client", temporary)
	}
	answers.good("send /ask")
	answers.good("receive /ask")
	answers.bad(syscall.EINVAL, "INVALID_ARGUMENT", "reply body=nobody")
	asks.bad(syscall.ENOENT, "QUEUE_NOT_FOUND", "request /none body=x")
}

func TestALateAnswerIsNotTakenForAnother(t *testing.T) {
	d := startDaemon(t)
	d.queue("/ask", client.QueueSettings{})
	asks, answers := drive(t, d.socket), drive(t, d.socket)
	asks.tell("timeout 200")
	asks.tell("request /ask body=first ttl=60000")
	answers.good("receive /ask wait=-1")
	if r := asks.answer(); r.n != -int64(syscall.ETIMEDOUT) || r.reason != "TIMED_OUT" {
		t.Fatalf("%v", r)
	}
	answers.good("reply body=late")
	asks.tell("timeout -1")
	asks.tell("request /ask body=second")
	answers.good("receive /ask wait=-1 select=type type=1")
	answers.good("reply body=prompt")
	expect(t, "answers", asks.answer().all("message", "body"), "prompt")
}

func TestARequestWhoseDaemonGoesSaysSo(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/ask", client.QueueSettings{})
	asks := drive(t, d.socket)
	asks.tell("request /ask body=lost")
	eventually(t, "the request is there", func() bool { info, err := q.Info(t.Context()); return err == nil && info.Stats.Ready == 1 })
	d.kill()
	if r := asks.answer(); r.n != -int64(syscall.ECONNRESET) || r.reason != "OUTCOME_UNKNOWN" {
		t.Errorf("%v", r)
	}
	d.start()
	if _, err := q.Receive(t.Context(), 1, client.ReceiveOptions{AtOnce: true}); err != nil {
		t.Fatal(err)
	}
	answers := drive(t, d.socket)
	asks.tell("request /ask body=again")
	answers.good("receive /ask wait=-1")
	answers.good("reply body=there")
	expect(t, "answers", asks.answer().all("message", "body"), "there")
}

func TestASignalEndsARequest(t *testing.T) {
	d := startDaemon(t)
	d.queue("/ask", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("alarm every=50000")
	c.bad(syscall.EINTR, "CANCELLED", "request /ask body=x")
	c.good("alarm every=0")
}

func TestTheProgramInTheReadmeRuns(t *testing.T) {
	d := startDaemon(t)
	d.queue("/jobs", client.QueueSettings{})
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, source, _ := strings.Cut(string(text), "```c\n")
	source, _, _ = strings.Cut(source, "```")
	path := filepath.Join(t.TempDir(), "app.c")
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, path, "ipcd.c", "-O0", "-lnghttp2"))
	cmd.Env = append(cmd.Environ(), "IPCD_ADDRESS="+d.socket)
	if output, err := cmd.CombinedOutput(); err != nil || string(output) != "hello\n" {
		t.Errorf("it says %q: %v", output, err)
	}
	if _, err := d.client().DeleteQueue(t.Context(), "/jobs"); err != nil {
		t.Fatal(err)
	}
	again := exec.Command(cmd.Path)
	again.Env = cmd.Env
	if output, err := again.CombinedOutput(); err == nil || !strings.HasPrefix(string(output), "/jobs: ") {
		t.Errorf("without the queue it says %q: %v", output, err)
	}
}

func TestExamplesDoWhatTheySay(t *testing.T) {
	d := startDaemon(t)
	d.queue("/lines", client.QueueSettings{})
	d.queue("/upper", client.QueueSettings{})
	run := func(input, name string, args ...string) *exec.Cmd {
		cmd := exec.Command(program(t, "example_"+name+".c", "ipcd.c", "-O0", "-lnghttp2"), args...)
		cmd.Env = append(cmd.Environ(), "IPCD_ADDRESS="+d.socket)
		cmd.Stdin = strings.NewReader(input)
		return cmd
	}
	output := func(cmd *exec.Cmd) string {
		t.Helper()
		watchdog := time.AfterFunc(hang, func() { _ = cmd.Process.Kill() })
		defer watchdog.Stop()
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", cmd.Args, err, text)
		}
		return string(text)
	}
	var lines, want strings.Builder
	for i := range 150 {
		fmt.Fprintln(&lines, i)
		fmt.Fprintln(&want, 7, i)
	}
	if got := output(run(lines.String()+"the last", "send", "/lines", "7")); got != "" {
		t.Errorf("example_send says %q", got)
	}
	if got := output(run("", "recv", "/lines", "10")); got != want.String()+"7 the last\n" {
		t.Errorf("example_recv says %q", got)
	}
	serving := run("", "request", "-serve", "/upper", "1")
	if err := serving.Start(); err != nil {
		t.Fatal(err)
	}
	if got := output(run("", "request", "/upper", "hello")); got != "HELLO\n" {
		t.Errorf("example_request says %q", got)
	}
	if err := serving.Wait(); err != nil {
		t.Errorf("example_request -serve: %v", err)
	}
}
