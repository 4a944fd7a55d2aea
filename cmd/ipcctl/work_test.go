package main

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const durationOf30s = 30 * time.Second

func TestWorkAcksWhatExitsWith0AndNacksTheRestWithTheReason(t *testing.T) {
	f := startFake(t)
	f.add("/q", "good", "bad", "dead")
	r := f.ctl(t, "", "work", "q", "-n", "3", "--", "sh", "-c", `read -r b
case $b in good) echo "done $b";; bad) printf 'first\nthe cause\n\n' >&2; exit 3;; *) kill -9 $$;; esac`)
	r.want(t, 1, "done good\n", "first\nthe cause\n\nipcctl: /q #2: nacked, exit 3: the cause\nipcctl: /q #3: nacked, killed by SIGKILL\n"+
		"worked on 3 messages: 1 acked, 2 nacked\n")
	if got := f.states("/q"); got != "2 delayed, 3 delayed" {
		t.Errorf("left %s", got)
	}
	if got := f.queues["/q"].messages[0].BuryReason; got != "exit 3: the cause" {
		t.Errorf("the reason is %q", got)
	}
}

func TestWorkTellsTheCommandAllOfTheMessage(t *testing.T) {
	t.Setenv("IPCD_HEADER_STALE", "inherited")
	f := startFake(t)
	f.add("/q").put(&ipcdv1.Message{Type: 7, Priority: 3, Body: []byte("\x00\xff\nbody"), Headers: map[string][]byte{"trace-id": []byte("a b"), "nul": {0}},
		ContentType: "x/y", CorrelationId: "c", ReplyTo: "/r", DedupId: "d"})
	f.queues["/q"].messages[0].Attempts = 2
	r := f.ctl(t, "", "work", "q", "--once", "--", "sh", "-c", "env | grep ^IPCD_ | sort; cat")
	want := "IPCD_ADDRESS=" + f.address + `
IPCD_ATTEMPTS=2
IPCD_CONTENT_TYPE=x/y
IPCD_CORRELATION_ID=c
IPCD_DEDUP_ID=d
IPCD_HEADER_TRACE_ID=a b
IPCD_PRIORITY=3
IPCD_QUEUE=/q
IPCD_RECEIPT=1.1.1.1.x
IPCD_REPLY_TO=/r
IPCD_SEND_TIME=2026-01-02T03:04:05.000000006Z
IPCD_SEQUENCE=1
IPCD_TYPE=7
IPCD_TYPE_NAME=created
` + "\x00\xff\nbody"
	r.want(t, 0, want, "worked on 1 message: 1 acked, 0 nacked\n")
}

func TestACommandThatCannotBeStartedStopsTheWorkAndCostsNoAttempt(t *testing.T) {
	f := startFake(t)
	f.add("/q", "a", "b")
	if r := f.ctl(t, "", "work", "q", "--", "./no-such-command"); r.exit != 1 || !strings.Contains(r.err, "cannot run the command") {
		t.Errorf("exit %d, stderr %s", r.exit, r.err)
	}
	script := filepath.Join(t.TempDir(), "vanishes")
	if err := os.WriteFile(script, []byte("#!/nonexistent/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := f.ctl(t, "", "work", "q", "--", script); r.exit != 1 || !strings.Contains(r.err, "worked on 0 messages") || !strings.Contains(r.err, "cannot run the command") {
		t.Errorf("exit %d, stderr %s", r.exit, r.err)
	}
	if got := f.states("/q"); got != "1 ready, 2 ready" {
		t.Errorf("left %s", got)
	}
}

func TestACommandThatTakesTooLongIsKilledWithAllThatItStarted(t *testing.T) {
	f := startFake(t)
	f.add("/q", "a")
	pids := filepath.Join(t.TempDir(), "pids")
	r := f.ctl(t, "", "work", "q", "-n", "1", "--timeout", "300ms", "--nack-delay", "7s", "--", "sh", "-c", "trap 'echo told >&2' TERM; sleep 600 & echo $! >"+pids+"; wait")
	if r.exit != 1 || !strings.Contains(r.err, "told\n") || !strings.Contains(r.err, "nacked, it took longer than 300ms") {
		t.Errorf("exit %d, stderr %s", r.exit, r.err)
	}
	settled := seen[*ipcdv1.Settlements](t, f).Settlements[0].GetNack()
	if settled.GetDelay().AsDuration() != 7*time.Second {
		t.Errorf("nacked with %v", settled)
	}
	goneBy(t, readText(t, pids))
}

// Else a command that fails at once would use up all of a message's attempts at once.
func TestWorkBacksOffWhereTheQueueDoesNot(t *testing.T) {
	f := startFake(t)
	f.add("/q", "a")
	f.ctl(t, "", "work", "q", "-n", "1", "--", "false")
	if nack := seen[*ipcdv1.Settlements](t, f).Settlements[0].GetNack(); nack.GetDelay().AsDuration() != time.Second {
		t.Errorf("nacked with %v", nack)
	}
	for attempts, want := range map[int]time.Duration{0: time.Second, 3: 8 * time.Second, 6: time.Minute, 60000: time.Minute} {
		if got := backoff(attempts); got != want {
			t.Errorf("after %d attempts %v, want %v", attempts, got, want)
		}
	}
}

func TestTheFirstSignalFinishesAndTheSecondKills(t *testing.T) {
	for _, second := range []bool{false, true} {
		f := startFake(t)
		f.add("/q", "a", "b")
		dir := t.TempDir()
		ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
		var out bytes.Buffer
		stderr := &watched{until: "finishing what runs", seen: make(chan struct{})}
		exit := make(chan int, 1)
		go func() {
			exit <- f.run(ctx, streams{in: strings.NewReader(""), out: &out, err: stderr}, "work", "q", "--", "sh", "-c",
				"echo $$ >"+dir+"/pid; mv "+dir+"/pid "+dir+"/begun; until test -e "+dir+"/go; do sleep 0.01; done; echo done")
		}()
		pid := readText(t, dir+"/begun")
		raise := func() {
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		raise()
		<-stderr.seen
		if second {
			raise()
		} else if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		code := <-exit
		stop()
		wantOut, wantLeft, wantExit := "done\n", "2 ready", 0
		if second {
			wantOut, wantLeft, wantExit = "", "1 ready, 2 ready", 1
			goneBy(t, pid)
		}
		if got := f.states("/q"); code != wantExit || out.String() != wantOut || got != wantLeft {
			t.Errorf("second signal %v: exit %d, stdout %q, left %s, stderr:\n%s", second, code, out.String(), got, stderr.text())
		}
	}
}

// A message whose lease was lost is not one of those that -n asks for.
func TestLostLeasesAreNoWorkDone(t *testing.T) {
	for number, want := range map[string]string{"1": "worked on 0 messages: 0 acked, 0 nacked; the leases of 1 more were lost", "2": "worked on 2 messages: 2 acked, 0 nacked; the leases of 1 more"} {
		f := startFake(t)
		f.add("/q", "a", "b")
		breaks := make(chan struct{})
		f.breakConsume = breaks
		begun := filepath.Join(t.TempDir(), "begun")
		go func() {
			defer close(breaks)
			_ = readText(t, begun)
		}()
		r := f.ctl(t, "", "work", "q", "-n", number, "--", "sh", "-c", "test -e "+begun+" || { echo $$ >"+begun+".new; mv "+begun+".new "+begun+"; sleep 600; }")
		if (r.exit == 0) != (number == "2") || !strings.Contains(r.err, "the lease was lost, it comes again") || !strings.Contains(r.err, want) {
			t.Errorf("-n %s: exit %d, stderr:\n%s", number, r.exit, r.err)
		}
	}
}

func TestWorkSendsWhatTheCommandWritesAsReply(t *testing.T) {
	f := startFake(t)
	f.add("/r")
	q := f.add("/q")
	q.put(&ipcdv1.Message{Type: 1, Body: []byte("2+3\n"), ReplyTo: "/r", CorrelationId: "c1"})
	q.put(&ipcdv1.Message{Type: 1, Body: []byte("x"), ReplyTo: "/tmp.gone"})
	q.put(&ipcdv1.Message{Type: 1, Body: []byte("x")})
	f.ctl(t, "", "work", "q", "-n", "3", "--reply", "--", "sh", "-c", "echo answer; echo note >&2").want(t, 0, "",
		"note\nnote\nipcctl: /q #2: nobody waits for its reply any more\nnote\nipcctl: /q #3: it names no queue for replies; what the command wrote is dropped\nworked on 3 messages: 3 acked, 0 nacked\n")
	if got := f.queues["/r"].messages; len(got) != 1 || string(got[0].Message.Body) != "answer\n" || got[0].Message.CorrelationId != "c1" {
		t.Errorf("the replies are %v", got)
	}
	q.put(&ipcdv1.Message{Type: 1, Body: []byte("x"), ReplyTo: "/nope"})
	r := f.ctl(t, "", "work", "q", "--once", "--reply", "--", "true")
	if r.exit != 1 || !strings.Contains(r.err, "nacked, the reply could not be sent: /nope: ") || !strings.Contains(r.err, "0 acked, 1 nacked") {
		t.Errorf("a queue for replies that is a mistake: exit %d, stderr:\n%s", r.exit, r.err)
	}
}

func TestWorkNeedsAQueueAndACommand(t *testing.T) {
	f := startFake(t)
	for args, want := range map[string]string{
		"work /q":                   "put the command behind --",
		"work -- true":              "name a queue before the --",
		"work /q --":                "give a command behind the --",
		"work /q --once -n 2 -- ls": "--once and --number exclude each other",
	} {
		if r := f.ctl(t, "", strings.Fields(args)...); r.exit != 2 || !strings.Contains(r.err, want) {
			t.Errorf("%s: exit %d, stderr %s", args, r.exit, r.err)
		}
	}
}

// watched is a writer that tells when a text has been written.
type watched struct {
	lockedWriter
	all   bytes.Buffer
	until string
	seen  chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.all.String(), w.until)
	w.all.Write(p)
	if !before && strings.Contains(w.all.String(), w.until) {
		close(w.seen)
	}
	return len(p), nil
}

func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// patience bounds how long a test waits for what must come.
func patience(t *testing.T, what string, came func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !came() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not come", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// readText waits for a file and returns its text.
func readText(t *testing.T, path string) (text string) {
	t.Helper()
	patience(t, path, func() bool {
		b, err := os.ReadFile(path)
		text = strings.TrimSpace(string(b))
		return err == nil && text != ""
	})
	return text
}

// goneBy waits until there is no process of that number, or only what is left of it.
func goneBy(t *testing.T, pid string) {
	t.Helper()
	patience(t, "the end of process "+pid, func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
