package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestRingPubPrintsTheSequence(t *testing.T) {
	f := startFake(t)
	r := f.addRing("/ticks", "first")
	f.ctl(t, "", "ring", "pub", "ticks", "--type", "7", "hello").want(t, 0, "2\n", "")
	f.ctl(t, "from\nstdin\xff", "ring", "pub", "ticks", "-", "-o", "json").want(t, 0, "{\"messages\":[\n{\"ring\":\"/ticks\",\"lane_id\":3,\"sequence\":3}\n]}\n", "")
	if got := fmt.Sprintf("%d %q, %d %q", r.deliveries[1].Type, r.deliveries[1].Payload, r.deliveries[2].Type, r.deliveries[2].Payload); got != `7 "hello", 1 "from\nstdin\xff"` {
		t.Errorf("published %s", got)
	}
	f.ctl(t, "", "ring", "pub", "ticks", "refuse").want(t, 2, "", "ipcctl: /ticks: nobody likes it\n")
	f.ctl(t, "", "ring", "pub", "none", "x").want(t, 3, "", "ipcctl: /none: there is no ring of this name; create it first\n")
}

func TestRingPubLinesPublishesEachLine(t *testing.T) {
	f := startFake(t)
	r := f.addRing("/ticks")
	f.ctl(t, "a\n\nb", "ring", "pub", "ticks", "--lines", "--type", "2").want(t, 0, "", "published 3 messages to /ticks\n")
	var got []string
	for _, d := range r.deliveries {
		got = append(got, fmt.Sprintf("%d %q", d.Type, d.Payload))
	}
	if want := []string{`2 "a"`, `2 ""`, `2 "b"`}; !slices.Equal(got, want) {
		t.Errorf("published %q", got)
	}
	f.ctl(t, "x\ny\n", "ring", "pub", "ticks", "--lines", "-o", "jsonl").want(t, 0,
		"{\"ring\":\"/ticks\",\"lane_id\":3,\"sequence\":4}\n{\"ring\":\"/ticks\",\"lane_id\":3,\"sequence\":5}\n", "published 2 messages to /ticks\n")
	f.ctl(t, "", "ring", "pub", "ticks", "--lines", "-o", "json").want(t, 0, "{\"messages\":[]}\n", "published 0 messages to /ticks\n")
}

func TestRingPubLinesStopsAtTheFirstLineThatIsRefused(t *testing.T) {
	f := startFake(t)
	f.addRing("/ticks")
	long := strings.Repeat("x", 65)
	f.ctl(t, "a\nb\n"+long+"\nc\n", "ring", "pub", "ticks", "--lines").want(t, 1, "", "published 2 messages to /ticks\n"+
		"ipcctl: line 3: it is longer than the 64 bytes that /ticks takes in one message; create a ring with a larger --max-message, or publish less\n")
	f.ctl(t, "refuse\n", "ring", "pub", "ticks", "--lines").want(t, 2, "", "published 0 messages to /ticks\nipcctl: line 1: /ticks: nobody likes it\n")
	f.ctl(t, "a\n", "ring", "pub", "none", "--lines").want(t, 3, "", "ipcctl: /none: there is no ring of this name; create it first\n")
}

// TestRingPubLinesDoesNotWaitForMoreInput gives a line, and goes on only when that was published.
func TestRingPubLinesDoesNotWaitForMoreInput(t *testing.T) {
	f := startFake(t)
	r := f.addRing("/ticks")
	in, lines := io.Pipe()
	defer lines.Close()
	var errOut bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- f.run(t.Context(), streams{in: in, out: io.Discard, err: &errOut}, "ring", "pub", "ticks", "--lines", "--timeout", "20s")
	}()
	for i := range 3 {
		f.mu.Lock()
		more := r.more
		f.mu.Unlock()
		if _, err := fmt.Fprintf(lines, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		select {
		case <-more:
		case exit := <-ended:
			t.Fatalf("exit %d: %s", exit, errOut.String())
		}
	}
	lines.Close()
	if exit := <-ended; exit != 0 || errOut.String() != "published 3 messages to /ticks\n" {
		t.Errorf("exit %d: %s", exit, errOut.String())
	}
}

func TestRingPubLinesTakesManyAtOnceAndLosesNone(t *testing.T) {
	f := startFake(t)
	r := f.addRing("/ticks")
	var in strings.Builder
	const n = 20000
	for i := range n {
		fmt.Fprintln(&in, i)
	}
	f.ctl(t, in.String(), "ring", "pub", "ticks", "--lines").want(t, 0, "", "published 20000 messages to /ticks\n")
	if len(r.deliveries) != n || len(r.requests) > n/2 || slices.Max(r.requests) > publishAtOnce {
		t.Fatalf("%d messages came in %d requests of up to %d", len(r.deliveries), len(r.requests), slices.Max(r.requests))
	}
	for i, d := range r.deliveries {
		if string(d.Payload) != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, d.Payload)
		}
	}
}

// full is a ring that takes so many messages and then waits for consumers, in vain.
func full(t *testing.T, room int) (*fake, *fakeRing) {
	f := startFake(t)
	r := f.addRing("/trades")
	r.info.Settings.Policy = ipcdv1.RingPolicy_RING_POLICY_LOSSLESS
	r.room = room
	return f, r
}

func TestRingPubThatTimesOutExits6AndSaysWhatIsNotKnown(t *testing.T) {
	f, _ := full(t, 1)
	f.ctl(t, "", "ring", "pub", "trades", "a").want(t, 0, "1\n", "")
	r := f.ctl(t, "", "ring", "pub", "trades", "b", "--timeout", "500ms")
	if want := "ipcctl: timed out: /trades: it is not known whether the messages were published (the deadline passed"; r.exit != 6 || r.out != "" ||
		!strings.HasPrefix(r.err, want) || !strings.HasSuffix(r.err, " (the limit was 500ms; --timeout allows more)\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", r.exit, r.out, r.err)
	}
}

func TestRingPubLinesThatTimesOutCountsWhatWasPublished(t *testing.T) {
	const room = 1000
	f, ring := full(t, room)
	r := f.ctl(t, strings.Repeat(strings.Repeat("x", 32)+"\n", 5000), "ring", "pub", "trades", "--lines", "--timeout", "1s")
	var known, first, last int
	if _, err := fmt.Sscanf(r.err, "published at least %d messages to /trades\nipcctl: timed out: lines %d to %d: /trades: it is not known whether the messages were published",
		&known, &first, &last); err != nil || r.exit != 6 || !strings.HasSuffix(r.err, " (the limit was 1s; --timeout allows more)\n") {
		t.Fatalf("exit %d, stderr %q: %v", r.exit, r.err, err)
	}
	// Of a lane of 64KiB a request takes 1KiB, in which 16 such messages are.
	if known > room || first != known+1 || last < room || last-first >= 16 {
		t.Errorf("of %d that were published %d are known, and lines %d to %d are not", room, known, first, last)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if most := slices.Max(ring.requests); most > 16 {
		t.Errorf("a request had %d messages", most)
	}
}

func TestRingPubLinesThatTimesOutWithoutInputSaysSo(t *testing.T) {
	f := startFake(t)
	f.addRing("/ticks")
	in, lines := io.Pipe()
	defer lines.Close()
	var errOut bytes.Buffer
	exit := f.run(t.Context(), streams{in: in, out: io.Discard, err: &errOut}, "ring", "pub", "ticks", "--lines", "--timeout", "100ms")
	if exit != 6 || errOut.String() != "published 0 messages to /ticks\nipcctl: timed out (the limit was 100ms; --timeout allows more)\n" {
		t.Errorf("exit %d, stderr %s", exit, errOut.String())
	}
}

func TestRingPubLinesGoesOnWhenNobodyReadsItsOutput(t *testing.T) {
	for _, output := range []string{"json", "jsonl"} {
		f := startFake(t)
		r := f.addRing("/ticks")
		var errOut bytes.Buffer
		exit := f.run(t.Context(), streams{in: strings.NewReader(strings.Repeat("x\n", 10000)), out: &brokenPipe{writes: 1}, err: &errOut},
			"ring", "pub", "ticks", "--lines", "-o", output)
		if exit != 0 || errOut.String() != "published 10000 messages to /ticks\n" || len(r.deliveries) != 10000 {
			t.Errorf("%s: exit %d, stderr %q, published %d", output, exit, errOut.String(), len(r.deliveries))
		}
		errOut.Reset()
		exit = f.run(t.Context(), streams{in: strings.NewReader("x\ny\n"), out: fullDisk{}, err: &errOut}, "ring", "pub", "ticks", "--lines", "-o", output)
		if exit != 1 || !strings.Contains(errOut.String(), "cannot write the output: no space left on device") {
			t.Errorf("%s: on a full disk: exit %d, stderr %q", output, exit, errOut.String())
		}
	}
}

func TestRingHelpSaysWhatEndsWithTheDaemon(t *testing.T) {
	f := startFake(t)
	for command, want := range map[string]string{"sub": "ends with exit 4 when that stops or restarts", "pub": "is in the daemon's own lane, and is gone when that stops"} {
		if r := f.ctl(t, "", "ring", command, "--help"); !strings.Contains(r.out, want) {
			t.Errorf("%s: no %q in:\n%s", command, want, r.out)
		}
	}
}

func TestRingPubIsInterrupted(t *testing.T) {
	f := startFake(t)
	f.addRing("/ticks")
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var errOut bytes.Buffer
	in, lines := io.Pipe()
	defer lines.Close()
	exit := f.run(ctx, streams{in: in, out: io.Discard, err: &errOut}, "ring", "pub", "ticks", "--lines")
	if exit != 1 || !strings.HasSuffix(errOut.String(), "ipcctl: interrupted\n") {
		t.Errorf("exit %d, stderr %s", exit, errOut.String())
	}
}

const (
	tickJSON  = `{"ring":"/ticks","lane_id":3,"sequence":1,"type":1,"body":"a","publish_time":"2026-01-02T03:04:05.000000006Z","lost":0}`
	chunkJSON = `{"ring":"/ticks","lane_id":3,"sequence":2,"type":7,"body_base64":"/xtb","lost":12}`
)

// gap is a ring with a message, a loss, and a message that has no time and acts on a terminal.
func gap(t *testing.T) *fake {
	f := startFake(t)
	d := f.addRing("/ticks", "a").put(&ipcdv1.RingMessage{Type: 7, Payload: []byte("\xff\x1b[")})
	d.Lost, d.PublishTime = 12, nil
	return f
}

const gapWords = "lost 12 messages of /ticks, the last in lane 3; 12 in all\n"

func TestRingSubWritesJSONThatStaysAsItIs(t *testing.T) {
	f := gap(t)
	f.ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "2", "-o", "json").want(t, 0, "{\"messages\":[\n"+tickJSON+",\n"+chunkJSON+"\n]}\n", gapWords)
	f.ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "2", "-o", "jsonl").want(t, 0, tickJSON+"\n"+chunkJSON+"\n", gapWords)
}

func TestRingSubShowsWhatActsOnATerminalAsEscapes(t *testing.T) {
	r := gap(t).ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "2")
	for _, want := range []string{"#1  lane 3  type 1  published 2026-01-0", "    a\n#2  lane 3  type 7  12 lost before it\n    \\xff\\x1b[\n"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in:\n%s", want, r.out)
		}
	}
	if r.exit != 0 || escapeText(r.out, "") != r.out {
		t.Errorf("exit %d, stdout %q", r.exit, r.out)
	}
}

func TestRingSubWritesBodiesRawAndInHex(t *testing.T) {
	f := gap(t)
	f.ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "2", "-o", "raw").want(t, 0, "a\n\xff\x1b[\n", gapWords)
	f.ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "1", "-o", "raw", "--delimiter", "").want(t, 0, "a", "")
	if r := f.ctl(t, "", "ring", "sub", "ticks", "--from", "2", "-n", "1", "-o", "hex"); !strings.Contains(r.out, "00000000  ff 1b 5b ") {
		t.Errorf("stdout:\n%s", r.out)
	}
	if r := f.ctl(t, "", "ring", "sub", "ticks", "--delimiter", "x"); r.exit != 2 {
		t.Errorf("a delimiter without raw exits %d", r.exit)
	}
}

func TestRingSubAsksForWhatTheFlagsSay(t *testing.T) {
	for flags, want := range map[string]string{
		"--from oldest":                        `{"ring":"/ticks","oldest":{}}`,
		"--from 1 --lossless --type 1,7":       `{"ring":"/ticks","sequence":"1","types":["1","7"],"lossless":true}`,
		"--from oldest -t 9223372036854775807": `{"ring":"/ticks","oldest":{},"types":["9223372036854775807"]}`,
	} {
		f := startFake(t)
		f.addRing("/ticks", "a").put(&ipcdv1.RingMessage{Type: 9223372036854775807})
		r := f.ctl(t, "", append([]string{"ring", "sub", "/ticks", "-n", "1"}, strings.Fields(flags)...)...)
		if got := protoJSON(t, seen[*ipcdv1.SubscribeRequest](t, f)); r.exit != 0 || got != want {
			t.Errorf("%s: exit %d (%s), sent %s, want %s", flags, r.exit, r.err, got, want)
		}
	}
}

func TestRingSubGoesOnUntilItIsInterrupted(t *testing.T) {
	f := startFake(t)
	r := f.addRing("/ticks", "before")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &countingWriter{after: 2, do: interrupt}
	opened := &opening{f: f, ring: r}
	exit := f.run(ctx, streams{in: strings.NewReader(""), out: out, err: opened, eTTY: true}, "ring", "sub", "ticks", "-o", "raw")
	if exit != 0 || out.got.String() != "1\n2\n" || opened.got.String() != "subscribed to /ticks; Ctrl-C ends it\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", exit, out.got.String(), opened.got.String())
	}
}

// opening publishes twice once a subscriber says that it has its place.
type opening struct {
	f    *fake
	ring *fakeRing
	got  bytes.Buffer
}

func (o *opening) Write(p []byte) (int, error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	o.ring.put(&ipcdv1.RingMessage{Type: 1, Payload: []byte("1")})
	o.ring.put(&ipcdv1.RingMessage{Type: 1, Payload: []byte("2")})
	return o.got.Write(p)
}

func TestRingSubThatTimesOutExits6(t *testing.T) {
	f := startFake(t)
	f.addRing("/ticks")
	f.ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "2", "-o", "json", "--timeout", "100ms").want(t, 6,
		"{\"messages\":[]}\n", "ipcctl: after 0 messages of /ticks: timed out (the limit was 100ms; --timeout allows more)\n")
}

func TestRingSubReadsOnWhenALaneIsCorrupt(t *testing.T) {
	f := startFake(t)
	f.addRing("/ticks", "a").corrupt = true
	f.ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "1", "-o", "raw").want(t, 0, "a\n", "")
	r := f.rings["/ticks"]
	r.corrupt = true
	after := &afterWords{do: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		r.put(&ipcdv1.RingMessage{Type: 1, Payload: []byte("b")})
	}}
	var out bytes.Buffer
	exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: &out, err: after}, "ring", "sub", "ticks", "--from", "oldest", "-n", "2", "-o", "raw")
	if exit != 1 || out.String() != "a\nb\n" || after.got.String() != "ipcctl: lane 4: /ticks: a frame reaches past the end\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", exit, out.String(), after.got.String())
	}
}

// afterWords does something at each write.
type afterWords struct {
	got bytes.Buffer
	do  func()
}

func (a *afterWords) Write(p []byte) (int, error) {
	defer a.do()
	return a.got.Write(p)
}

func TestRingSubOfABrokenPipeEndsQuietly(t *testing.T) {
	f := startFake(t)
	f.addRing("/ticks", "a", "b")
	var errOut bytes.Buffer
	for _, output := range []string{"text", "json", "raw"} {
		if exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: &brokenPipe{writes: 1}, err: &errOut}, "ring", "sub", "ticks", "--from", "oldest", "-o", output); exit != 0 || errOut.Len() > 0 {
			t.Errorf("%s: exit %d, stderr %q", output, exit, errOut.String())
		}
	}
}

func TestRingDeletedUnderASubscriberExits3(t *testing.T) {
	f := startFake(t)
	f.failWith["/ticks"] = refuse(reason.RingDeleted, "the ring was deleted")
	f.ctl(t, "", "ring", "sub", "ticks").want(t, 3, "", "ipcctl: /ticks: the ring was deleted\n")
	f.failWith["/ticks"] = refuse(reason.ConsumerEvicted, "held a producer up for 1s")
	f.ctl(t, "", "ring", "sub", "ticks", "--lossless").want(t, 1, "", "ipcctl: /ticks: held a producer up for 1s\n")
}

// TestLossesAreToldAndNoneTwice counts words and losses; how many words there are depends on the time it took.
func TestLossesAreToldAndNoneTwice(t *testing.T) {
	f := startFake(t)
	r := f.addRing("/ticks")
	for range 1000 {
		r.put(&ipcdv1.RingMessage{Type: 1}).Lost = 2
	}
	got := f.ctl(t, "", "ring", "sub", "ticks", "--from", "oldest", "-n", "1000", "-o", "raw")
	told := 0
	for line := range strings.Lines(got.err) {
		var n, lane, all int
		if _, err := fmt.Sscanf(line, "lost %d messages of /ticks, the last in lane %d; %d in all", &n, &lane, &all); err != nil || all != told+n {
			t.Fatalf("%q after %d: %v", line, told, err)
		}
		told += n
	}
	if got.exit != 0 || told != 2000 {
		t.Errorf("exit %d, told of %d, want 2000", got.exit, told)
	}
}
