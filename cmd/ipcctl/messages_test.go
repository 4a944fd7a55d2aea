package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const (
	binaryJSON = `{"queue":"/q","sequence":1,"type":7,"type_name":"created","priority":3,"body_base64":"/xtb","headers":{"k":"v\u001b"},` +
		`"headers_base64":{"raw":"/w=="},"content_type":"x/y","correlation_id":"c","reply_to":"/r","dedup_id":"d","send_time":"2026-01-02T03:04:05.000000006Z",` +
		`"attempts":2,"lease_expire_time":"2126-01-02T03:04:05.000000000Z","receipt":"1.1.1.1.x"}`
	emptyJSON = `{"queue":"/q","sequence":2,"type":1,"priority":0,"body":"","headers":{},"send_time":"2026-01-02T03:04:05.000000006Z",` +
		`"attempts":0,"lease_expire_time":"2126-01-02T03:04:05.000000000Z","receipt":"1.1.2.1.x"}`
)

// odd is a queue with a message that has everything and one that has nothing.
func odd(t *testing.T) *fake {
	f := startFake(t)
	q := f.add("/q")
	q.put(&ipcdv1.Message{Type: 7, Priority: 3, Body: []byte("\xff\x1b["), Headers: map[string][]byte{"k": []byte("v\x1b"), "raw": {0xff}},
		ContentType: "x/y", CorrelationId: "c", ReplyTo: "/r", DedupId: "d"})
	q.put(&ipcdv1.Message{Type: 1})
	q.messages[0].Attempts = 2
	return f
}

func TestRecvWritesJSONThatStaysAsItIs(t *testing.T) {
	r := odd(t).ctl(t, "", "recv", "q", "-n", "5", "-o", "json")
	if want := "{\"messages\":[\n" + binaryJSON + ",\n" + emptyJSON + "\n]}\n"; r.exit != 0 || r.out != want {
		t.Errorf("exit %d, stdout:\n%s\nwant:\n%s", r.exit, r.out, want)
	}
	if !strings.HasSuffix(r.err, "; when done: ipcctl ack 1.1.1.1.x 1.1.2.1.x\n") || !strings.HasPrefix(r.err, "leased for ") {
		t.Errorf("stderr: %s", r.err)
	}
	r = odd(t).ctl(t, "", "recv", "q", "-n", "5", "-o", "jsonl")
	if want := binaryJSON + "\n" + emptyJSON + "\n"; r.exit != 0 || r.out != want {
		t.Errorf("exit %d, stdout:\n%s\nwant:\n%s", r.exit, r.out, want)
	}
}

func TestConsumedMessagesShowNoReceipt(t *testing.T) {
	f := startFake(t)
	f.add("/q", "a")
	f.ctl(t, "", "recv", "q", "--ack", "-o", "jsonl").want(t, 0,
		`{"queue":"/q","sequence":1,"type":1,"priority":0,"body":"a","headers":{},"send_time":"2026-01-02T03:04:05.000000006Z","attempts":0}`+"\n", "")
}

func TestPeekWritesJSONThatStaysAsItIs(t *testing.T) {
	f := odd(t)
	m := f.queues["/q"].messages[1]
	m.State, m.BuryReason, m.ExpireTime = ipcdv1.MessageState_MESSAGE_STATE_BURIED, "why", timestamppb.New(leaseEnds)
	r := f.ctl(t, "", "peek", "q", "--state", "all", "-o", "jsonl")
	want := `{"queue":"/q","sequence":2,"state":"buried","type":1,"priority":0,"body":"","headers":{},"send_time":"2026-01-02T03:04:05.000000006Z",` +
		`"attempts":0,"expire_time":"2126-01-02T03:04:05.000000000Z","bury_reason":"why"}`
	if lines := strings.Split(r.out, "\n"); r.exit != 0 || len(lines) != 3 || lines[1] != want {
		t.Errorf("exit %d, stdout:\n%s\nwant the second line:\n%s", r.exit, r.out, want)
	}
	if got := f.states("/q"); got != "1 ready, 2 buried" {
		t.Errorf("peek left %s", got)
	}
}

func TestTextShowsWhatActsOnATerminalAsEscapes(t *testing.T) {
	f := odd(t)
	f.queues["/q"].put(&ipcdv1.Message{Type: 1, Body: []byte("one\n#99  type 1\x1b]0;title\a\u202e")})
	r := f.ctl(t, "", "peek", "q")
	for _, want := range []string{
		"#1  ready  type created (7)  priority 3  sent 2026-01-0", "  2 failed attempts", "    header k: v\\x1b\n", "    header raw: \\xff\n", "    \\xff\\x1b[\n",
		"    content type: x/y\n", "    (empty)\n", "    one\n    #99  type 1\\x1b]0;title\\x07\\u202e\n",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing in:\n%s", want, r.out)
		}
	}
	if escapeText(r.out, "") != r.out || strings.ContainsAny(r.out, "\x1b\a") {
		t.Errorf("stdout acts on a terminal: %q", r.out)
	}
}

func TestTextCutsLongBodiesWithANote(t *testing.T) {
	f := startFake(t)
	f.add("/q", strings.Repeat("日", 1000))
	r := f.ctl(t, "", "peek", "q")
	if want := "    " + strings.Repeat("日", 682) + "\n    (2046 of 3000 bytes; -o raw, hex or json shows all)\n"; !strings.HasSuffix(r.out, want) {
		t.Errorf("stdout:\n%s", r.out)
	}
	if r := f.ctl(t, "", "peek", "q", "-o", "raw"); r.out != strings.Repeat("日", 1000)+"\n" {
		t.Errorf("raw gave %d bytes", len(r.out))
	}
}

func TestRawWritesBodiesWithADelimiter(t *testing.T) {
	f := startFake(t)
	f.add("/q", "a\x00", "b")
	for delimiter, want := range map[string]string{"\n": "a\x00\nb\n", `\0`: "a\x00\x00b\x00", "": "a\x00b"} {
		f.ctl(t, "", "peek", "q", "-o", "raw", "--delimiter", delimiter).want(t, 0, want, "")
	}
	if r := f.ctl(t, "", "peek", "q", "--delimiter", "x"); r.exit != 2 {
		t.Errorf("a delimiter without raw exits %d", r.exit)
	}
	if r := f.ctl(t, "", "peek", "q", "-o", "hex"); !strings.Contains(r.out, "00000000  61 00     ") {
		t.Errorf("stdout:\n%s", r.out)
	}
}

func TestRecvSaysThatTheQueueIsPaused(t *testing.T) {
	f := startFake(t)
	f.add("/q")
	f.ctl(t, "", "pause", "q")
	f.ctl(t, "", "recv", "q").want(t, 6, "", "ipcctl: /q is paused; ipcctl resume /q lets deliveries go on\n")
}

func TestRecvOfNothingExits6(t *testing.T) {
	f := startFake(t)
	f.add("/q")
	f.ctl(t, "", "recv", "q").want(t, 6, "", "ipcctl: no message is ready in /q; --wait 5s waits for one\n")
	f.ctl(t, "", "recv", "q", "--wait", "1s", "--type", "failed", "-o", "json").want(t, 6, "{\"messages\":[]}\n", "ipcctl: no message of type failed came to /q within 1s\n")
	got := seen[*ipcdv1.ReceiveRequest](t, f)
	if got.GetSelector().GetType() != 8 || got.SettleMode != ipcdv1.SettleMode_SETTLE_MODE_LEASE {
		t.Errorf("sent %v", got)
	}
	f.ctl(t, "", "recv", "none").want(t, 3, "", "ipcctl: /none: there is no queue of this name; create it first\n")
}

func TestRecvLeavesLeasedOrWithAckConsumes(t *testing.T) {
	f := startFake(t)
	f.add("/q", "a", "b", "c")
	if r := f.ctl(t, "", "recv", "q", "-o", "raw"); r.out != "a\n" || f.states("/q") != "1 leased, 2 ready, 3 ready" {
		t.Errorf("got %q, left %s", r.out, f.states("/q"))
	}
	f.ctl(t, "", "recv", "q", "-n", "9", "--ack", "-o", "raw").want(t, 0, "b\nc\n", "")
	if got := f.states("/q"); got != "1 leased" {
		t.Errorf("left %s", got)
	}
}

func TestABrokenPipeLosesNothingThatWasNotPrinted(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"recv", "/q", "-n", "5", "--ack"}, "3 ready, 4 ready"},
		{[]string{"recv", "/q", "--follow", "--ack", "-o", "json"}, "3 ready, 4 ready"},
		{[]string{"recv", "/q", "-n", "5", "-o", "raw"}, "1 leased, 2 leased, 3 ready, 4 ready"},
	} {
		f := startFake(t)
		f.add("/q", "a", "b", "c", "d")
		exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: &brokenPipe{writes: 2}, err: io.Discard}, c.args...)
		if got := f.states("/q"); exit != 0 || got != c.want {
			t.Errorf("%v: exit %d, left %s, want %s", c.args, exit, got, c.want)
		}
	}
}

func TestAFailedAckIsReportedEvenOnABrokenPipe(t *testing.T) {
	f := startFake(t)
	q := f.add("/q", "a", "b")
	out := &leaseStealer{brokenPipe{writes: 1}, func() {
		f.mu.Lock()
		q.messages[0].State = ipcdv1.MessageState_MESSAGE_STATE_READY
		f.mu.Unlock()
	}}
	var errOut bytes.Buffer
	exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: out, err: &errOut}, "recv", "/q", "-n", "2", "--ack")
	if exit != 1 || !strings.HasPrefix(errOut.String(), "ipcctl: 1 printed message will come again") {
		t.Errorf("exit %d, stderr %s", exit, errOut.String())
	}
}

// leaseStealer does something before each write.
type leaseStealer struct {
	brokenPipe
	before func()
}

func (l *leaseStealer) Write(p []byte) (int, error) {
	l.before()
	return l.brokenPipe.Write(p)
}

func TestAnInterruptedFollowGivesBackWhatWasNotPrinted(t *testing.T) {
	for _, ack := range []bool{true, false} {
		f := startFake(t)
		f.add("/q", "a", "b", "c")
		ctx, interrupt := context.WithCancel(t.Context())
		out := &countingWriter{after: 2, do: interrupt}
		args, want := []string{"recv", "/q", "--follow", "-o", "raw"}, "1 leased, 2 leased, 3 ready"
		if ack {
			args, want = append(args, "--ack"), "3 ready"
		}
		exit := f.run(ctx, streams{in: strings.NewReader(""), out: out, err: io.Discard}, args...)
		if got := f.states("/q"); exit != 0 || out.got.String() != "a\nb\n" || got != want {
			t.Errorf("ack %v: exit %d, printed %q, left %s, want %s", ack, exit, out.got.String(), got, want)
		}
		interrupt()
	}
}

func TestAPrintedMessageWhoseLeaseEndedIsReported(t *testing.T) {
	f := startFake(t)
	q := f.add("/q", "a", "b")
	out := &countingWriter{after: 2, do: func() { // as if the lease of the first had run out meanwhile
		f.mu.Lock()
		q.messages[0].State = ipcdv1.MessageState_MESSAGE_STATE_READY
		f.mu.Unlock()
	}}
	var errOut bytes.Buffer
	exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: out, err: &errOut}, "recv", "/q", "-n", "2", "--ack", "-o", "raw")
	if exit != 1 || !strings.HasPrefix(errOut.String(), "ipcctl: 1 printed message will come again") || f.states("/q") != "1 ready" {
		t.Errorf("exit %d, left %s, stderr %s", exit, f.states("/q"), errOut.String())
	}
}

func TestSettlingEachReceiptForItself(t *testing.T) {
	f := startFake(t)
	f.add("/q", "a", "b", "c", "d", "e")
	f.ctl(t, "", "recv", "q", "-n", "5")
	f.ctl(t, "", "ack", "1.1.1.1.x", "9.9.9.9.x").want(t, 1, "", "ipcctl: 9.9.9.9.x: the delivery is over\nacked 1 message\n")
	f.ctl(t, "", "nack", "1.1.2.1.x", "--delay", "5s", "--reason", "bad").want(t, 0, "", "nacked 1 message\n")
	if got := seen[*ipcdv1.SettleRequest](t, f).Settlements[0].GetNack(); got.GetDelay().AsDuration() != 5*time.Second || got.Reason != "bad" {
		t.Errorf("sent %v", got)
	}
	f.ctl(t, "", "release", "1.1.3.1.x").want(t, 0, "", "released 1 message\n")
	f.ctl(t, "", "bury", "1.1.4.1.x", "--reason", "odd").want(t, 0, "", "buried 1 message\n")
	f.ctl(t, "", "touch", "1.1.5.1.x", "--lease", "1m").want(t, 0, "1.1.5.1.x leased until 2126-01-02T03:04:05.000000000Z\n", "")
	if got := seen[*ipcdv1.SettleRequest](t, f).Settlements[0].GetTouch().GetLease().AsDuration(); got != time.Minute {
		t.Errorf("touched for %v", got)
	}
	f.ctl(t, "", "touch", "1.1.1.1.x").want(t, 1, "", "ipcctl: 1.1.1.1.x: the delivery is over\n")
	if got := f.states("/q"); got != "2 ready, 3 ready, 4 buried, 5 leased" {
		t.Errorf("left %s", got)
	}
	f.ctl(t, "", "kick", "q").want(t, 0, "", "kicked 1 message in /q\n")
}

func TestSendPrintsTheSequence(t *testing.T) {
	f := startFake(t)
	f.add("/q", "first")
	f.ctl(t, "", "send", "q", "hello", "--type", "created", "--priority", "3", "--header", "k=v", "--header", "e=", "--ttl", "1h", "--delay", "5s",
		"--correlation-id", "c", "--reply-to", "/r", "--content-type", "x/y", "--dedup-id", "new").want(t, 0, "2\n", "")
	want := `{"type":"7","priority":3,"body":"aGVsbG8=","headers":{"e":"","k":"dg=="},"delay":"5s","ttl":"3600s","dedupId":"new","correlationId":"c","replyTo":"/r","contentType":"x/y"}`
	if got := protoJSON(t, seen[*ipcdv1.SendRequest](t, f).Messages[0]); got != want {
		t.Errorf("sent %s", got)
	}
	f.ctl(t, "", "send", "q", "x", "--dedup-id", "seen").want(t, 0, "1\n", "a duplicate: stored before, with sequence 1\n")
	f.ctl(t, "from\nstdin\xff", "send", "q", "-", "-o", "json").want(t, 0,
		"{\"messages\":[\n{\"queue\":\"/q\",\"sequence\":3,\"duplicate\":false,\"send_time\":\"2026-01-02T03:04:05.000000006Z\"}\n]}\n", "")
	if got := string(seen[*ipcdv1.SendRequest](t, f).Messages[0].Body); got != "from\nstdin\xff" {
		t.Errorf("sent %q", got)
	}
	if r := f.ctl(t, "", "send", "q", "x", "--type", "creatd"); r.exit != 2 || !strings.Contains(r.err, "did you mean created?") {
		t.Errorf("exit %d, stderr %s", r.exit, r.err)
	}
	f.ctl(t, "", "send", "none", "x").want(t, 3, "", "ipcctl: /none: there is no queue of this name; create it first\n")
}

func TestLinesAreMessages(t *testing.T) {
	f := startFake(t)
	f.add("/q")
	f.ctl(t, "one\n\ntwo\r\nlast", "send", "q", "--lines", "--type", "failed").want(t, 0, "", "sent 4 messages to /q\n")
	var bodies []string
	for _, m := range f.queues["/q"].messages {
		bodies = append(bodies, fmt.Sprintf("%q", m.Message.Body))
		if m.Message.Type != 8 {
			t.Errorf("type %d", m.Message.Type)
		}
	}
	if got, want := strings.Join(bodies, " "), `"one" "" "two\r" "last"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	f.ctl(t, "", "send", "q", "--lines").want(t, 0, "", "sent 0 messages to /q\n")
	if r := f.ctl(t, "a\nb\n", "send", "q", "--lines", "-o", "jsonl"); strings.Count(r.out, "\n") != 2 || !strings.HasPrefix(r.out, `{"queue":"/q","sequence":5,`) {
		t.Errorf("stdout:\n%s", r.out)
	}
}

func TestAFailingLineIsNamedAndTheOthersCounted(t *testing.T) {
	f := startFake(t)
	f.add("/q")
	r := f.ctl(t, "a\nb\n"+strings.Repeat("x", 65)+"\nc\n", "send", "q", "--lines")
	if r.exit != 1 || r.err != "sent 2 messages to /q\nipcctl: line 3: it is longer than the 64 bytes that /q takes in one message; raise its max message size (up to 16777216), or send less\n" {
		t.Errorf("exit %d, stderr:\n%s", r.exit, r.err)
	}
	r = f.ctl(t, strings.Repeat("x", 64)+"\nrefuse this\n", "send", "q", "--lines")
	if r.exit != 1 || r.err != "sent 1 message to /q\nipcctl: line 2: /q: the queue is full\n" {
		t.Errorf("exit %d, stderr:\n%s", r.exit, r.err)
	}
}

func TestInterruptedLinesAreCounted(t *testing.T) {
	f := startFake(t)
	f.add("/q")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	in, feed := io.Pipe()
	out := &countingWriter{after: 2, do: interrupt}
	go func() { _, _ = feed.Write([]byte("a\nb\n")) }() // and then nothing more
	var errOut bytes.Buffer
	exit := f.run(ctx, streams{in: in, out: out, err: &errOut}, "send", "/q", "--lines", "-o", "jsonl")
	_ = feed.CloseWithError(errors.New("done"))
	if exit != 1 || errOut.String() != "sent 2 messages to /q\nipcctl: interrupted\n" {
		t.Errorf("exit %d, stderr %q", exit, errOut.String())
	}
}

func FuzzLinesComeWholeOrAreRefused(f *testing.F) {
	f.Add("a\nb\n\nc", uint8(3))
	f.Add(strings.Repeat("x", 70000)+"\n", uint8(255))
	f.Fuzz(func(t *testing.T, text string, most uint8) {
		lines := make(chan line, strings.Count(text, "\n")+2)
		readLines(t.Context(), strings.NewReader(text), int(most), errors.New("too long"), lines)
		want := strings.Split(text, "\n")
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		n := 0
		for l := range lines {
			if l.err != nil {
				if len(want[n]) <= int(most) {
					t.Fatalf("line %d of %d bytes was refused", l.number, len(want[n]))
				}
				return
			}
			if string(l.body) != want[n] || l.number != n+1 || len(l.body) > int(most) {
				t.Fatalf("line %d is %q, want %q", l.number, l.body, want[n])
			}
			n++
		}
		if n != len(want) {
			t.Fatalf("%d lines came, want %d", n, len(want))
		}
	})
}

func TestTimeoutsExit6(t *testing.T) {
	f := startFake(t)
	f.add("/q")
	r := f.ctl(t, "", "recv", "q", "--follow", "--timeout", "100ms")
	if r.exit != 6 || !strings.Contains(r.err, "--timeout allows more") {
		t.Errorf("exit %d, stderr %s", r.exit, r.err)
	}
}
