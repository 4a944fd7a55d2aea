//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/client/ring"
)

// ringMessageJSON is what ipcctl shows of a message of a ring.
type ringMessageJSON struct {
	Ring        string `json:"ring"`
	LaneID      uint64 `json:"lane_id"`
	Sequence    uint64 `json:"sequence"`
	Type        int64  `json:"type"`
	Body        string `json:"body"`
	PublishTime string `json:"publish_time"`
	Lost        uint64 `json:"lost"`
}

// ringJSON is what ipcctl shows of a ring.
type ringJSON struct {
	Name     string `json:"name"`
	Settings struct {
		CapacityBytes   int64  `json:"capacity_bytes"`
		MaxMessageBytes int64  `json:"max_message_bytes"`
		Policy          string `json:"policy"`
		Mode            string `json:"mode"`
	} `json:"settings"`
	MemoryBytes int64 `json:"memory_bytes"`
	Lanes       []struct {
		LaneID   uint64 `json:"lane_id"`
		Sequence uint64 `json:"sequence"`
		Daemon   bool   `json:"daemon"`
	} `json:"lanes"`
	Consumers []json.RawMessage `json:"consumers"`
}

// rings reads the output of -o json.
func (r result) rings(t *testing.T) []ringJSON {
	t.Helper()
	var document struct{ Rings []ringJSON }
	unmarshal(t, r.ok(t), &document)
	return document.Rings
}

func TestRingFromTheShell(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/ticks", "--capacity", "32MiB", "--policy", "overwrite", "--mode", "0660").says(t, "created /ticks").ok(t)
	d.ctl(t, "ring", "create", "ticks", "--capacity", "32MiB", "--policy", "overwrite", "--mode", "0660").says(t, "/ticks exists, with the same settings").ok(t)
	d.ctl(t, "create", "/ticks", "--mqueue", "none").ok(t) // queues have other names

	if got := d.ctl(t, "ring", "pub", "/ticks", "--type", "7", "first").ok(t); got != "1\n" {
		t.Errorf("pub prints %q", got)
	}
	d.ctlWith(t, "a\nb\nc", "ring", "pub", "/ticks", "--lines").says(t, "published 3 messages to /ticks").ok(t)
	d.ctlWith(t, "of\nstdin\x00", "ring", "pub", "/ticks", "-", "-t", "9").ok(t)

	var document struct{ Messages []ringMessageJSON }
	unmarshal(t, d.ctl(t, "ring", "sub", "/ticks", "--from", "oldest", "-n", "5", "-o", "json").ok(t), &document)
	bodies := []string{"first", "a", "b", "c", "of\nstdin\x00"}
	types := []int64{7, 1, 1, 1, 9}
	for i, m := range document.Messages {
		if m.Ring != "/ticks" || m.Sequence != uint64(i+1) || m.LaneID != document.Messages[0].LaneID || m.Body != bodies[i] || m.Type != types[i] || m.Lost != 0 || m.PublishTime == "" {
			t.Errorf("message %d is %+v", i, m)
		}
	}
	if got := d.ctl(t, "ring", "sub", "/ticks", "--from", "3", "-n", "2", "-o", "raw").ok(t); got != "b\nc\n" {
		t.Errorf("from 3 comes %q", got)
	}
	if got := d.ctl(t, "ring", "sub", "/ticks", "--from", "oldest", "--type", "9,7", "-n", "2", "-o", "raw", "--delimiter", ";").ok(t); got != "first;of\nstdin\x00;" {
		t.Errorf("of the types 7 and 9 comes %q", got)
	}
	if got := d.ctl(t, "ring", "sub", "/ticks", "--from", "oldest", "-n", "1", "-o", "hex").ok(t); !strings.Contains(got, "66 69 72 73 74") || !strings.Contains(got, "#1  lane") {
		t.Errorf("hex is %q", got)
	}

	rings := d.ctl(t, "ring", "ls", "-o", "json").rings(t)
	if len(rings) != 1 || rings[0].Name != "/ticks" || rings[0].Settings.CapacityBytes != 32<<20 || rings[0].Settings.Policy != "overwrite" || rings[0].Settings.Mode != "0660" ||
		len(rings[0].Lanes) != 1 || !rings[0].Lanes[0].Daemon || rings[0].Lanes[0].Sequence != 5 || rings[0].MemoryBytes < 32<<20 {
		t.Errorf("ls shows %+v", rings)
	}
	if got := d.ctl(t, "ring", "ls", "ti*", "-o", "name").ok(t); got != "/ticks\n" {
		t.Errorf("ls shows %q", got)
	}
	if got := d.ctl(t, "ring", "stat", "/ticks").ok(t); !strings.Contains(got, "Lanes\n") || !strings.Contains(got, "ipcd") || !strings.Contains(got, "Consumers") {
		t.Errorf("stat shows:\n%s", got)
	}
	if got := d.ctl(t, "info").ok(t); !strings.Contains(got, d.attach) {
		t.Errorf("info does not name %s:\n%s", d.attach, got)
	}
	d.ctl(t, "ring", "update", "/ticks", "--mode", "0600", "--stall", "2s").says(t, "updated /ticks").ok(t)
	d.ctl(t, "ring", "rm", "/ticks").exits(t, 2).says(t, "--force")
	d.ctl(t, "ring", "rm", "/ticks", "--force").says(t, "deleted /ticks").ok(t)
	d.ctl(t, "ring", "stat", "/ticks").exits(t, 3)
	if got := d.ctl(t, "ring", "ls", "-o", "json").ok(t); got != "{\"rings\":[]}\n" {
		t.Errorf("ls shows %s", got)
	}
}

func TestWrongRingsAreRefusedInWords(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB", "--max-message", "100").ok(t)
	for _, c := range []struct {
		arguments string
		exit      int
		says      string
	}{
		{"create /r --capacity 128KiB", 1, "capacity is 65536, not 131072"},
		{"create /r --capacity 64KiB --max-message 100 --exclusive", 1, "/r"},
		{"create /x --capacity 100KiB", 2, "a power of two"},
		{"create /x --capacity 4KiB", 2, "65536"},
		{"create /x --capacity 2GiB", 2, "1073741824"},
		{"create /x --capacity 64KiB --max-message 16KiB", 2, "a quarter of the capacity"},
		{"create /x --stall 1m", 2, "stall"},
		{"create /x --retain 1TiB", 2, "retain"},
		{"create /.x", 2, "name"},
		{"create /x/y", 2, "name"},
		{"update /none --mode 0600", 3, "/none"},
		{"stat /none", 3, "/none"},
		{"rm /none --force", 3, "/none"},
		{"sub /none", 3, "/none"},
		{"sub /r --lossless", 2, "lossless"},
		{"pub /none x", 3, "/none"},
		{"pub /none --lines", 3, "/none"},
		{"pub /r " + strings.Repeat("x", 101), 1, "100"},
		{"sub /r --timeout 50ms", 6, "--timeout"},
	} {
		d.ctl(t, append([]string{"ring"}, strings.Fields(c.arguments)...)...).exits(t, c.exit).says(t, c.says)
	}
	d.ctlWith(t, "ok\n"+strings.Repeat("x", 101)+"\nno\n", "ring", "pub", "/r", "--lines").exits(t, 1).says(t, "line 2", "100 bytes", "published 1 message")
	if got := d.ctl(t, "ring", "sub", "/r", "--from", "oldest", "-n", "1", "-o", "raw").ok(t); got != "ok\n" {
		t.Errorf("published %q", got)
	}
}

func TestRingFromAfar(t *testing.T) {
	t.Parallel()
	d := start(t)
	far := func(arguments ...string) result {
		return d.ctl(t, append([]string{"--address", d.tcp, "--insecure", "ring"}, arguments...)...)
	}
	d.ctl(t, "ring", "create", "/open.anyone", "--capacity", "64KiB").ok(t)
	d.ctl(t, "ring", "create", "/closed", "--capacity", "64KiB", "--mode", "0666").ok(t)
	if got := far("pub", "/open.anyone", "hello").ok(t); got != "1\n" {
		t.Errorf("pub prints %q", got)
	}
	if got := far("sub", "/open.anyone", "--from", "oldest", "-n", "1", "-o", "raw").ok(t); got != "hello\n" {
		t.Errorf("sub prints %q", got)
	}
	if got := far("ls", "-o", "name").ok(t); got != "/open.anyone\n" {
		t.Errorf("ls shows %q", got)
	}
	far("create", "/mine").exits(t, 5)
	far("pub", "/closed", "x").exits(t, 5)
	far("sub", "/closed").exits(t, 5)
	far("stat", "/closed").exits(t, 5)
	far("rm", "/open.anyone", "--force").exits(t, 5)
}

func TestSubscriberLearnsExactlyWhatItLost(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB").ok(t)
	cmd := d.command(within(t), "ipcctl", "ring", "sub", "/r", "--type", "1,2", "-o", "jsonl")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var words logBuffer
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitRing(t, d.dial(t).Ring("/r"), "the subscriber has its place", func(r client.RingInfo) bool { return len(r.Consumers) == 1 })
	// Nothing reads what it writes: it stops, and with it its stream.
	const n = 200_000
	body := strings.Repeat("x", 99)
	d.ctlWith(t, strings.Repeat(body+"\n", n), "ring", "pub", "/r", "--lines").ok(t)
	d.ctl(t, "ring", "pub", "/r", "--type", "2", "end").ok(t)

	sequence, lost := uint64(0), uint64(0)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var m ringMessageJSON
		unmarshal(t, lines.Text(), &m)
		if m.Sequence != sequence+1+m.Lost {
			t.Fatalf("%d follows %d with %d lost", m.Sequence, sequence, m.Lost)
		}
		sequence, lost = m.Sequence, lost+m.Lost
		if m.Type == 2 {
			break
		}
	}
	if sequence != n+1 || lost == 0 {
		t.Errorf("the last is %d, lost %d; want %d, and some lost", sequence, lost, n+1)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	if _, err := out.Read(make([]byte, 1)); err == nil {
		t.Error("more came after the last message")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted it ends with %v", err)
	}
	if want := fmt.Sprintf("; %d in all\n", lost); !strings.HasSuffix(words.String(), want) {
		t.Errorf("stderr %q, want %q at its end", words.String(), want)
	}
}

func TestPublishedLinesComeAtOnceAndAnInterruptIsQuiet(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB").ok(t)
	sub := background(t, d.command(within(t), "ipcctl", "ring", "sub", "/r", "-o", "raw"))
	awaitRing(t, d.dial(t).Ring("/r"), "the subscriber has its place", func(r client.RingInfo) bool { return len(r.Consumers) == 1 })
	cmd := d.command(within(t), "ipcctl", "ring", "pub", "/r", "--lines")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pub := background(t, cmd)
	want := ""
	for i := range 3 { // each line arrives before the next is given
		line := fmt.Sprintf("line %d\n", i)
		want += line
		fmt.Fprint(in, line)
		eventually(t, "the line arrives", func() bool { return sub.out.String() == want })
	}
	in.Close()
	pub.wait().says(t, "published 3 messages").ok(t)
	_ = sub.cmd.Process.Signal(syscall.SIGINT)
	if r := sub.wait(); r.exit != 0 || r.err != "" {
		t.Errorf("exit %d, stderr %q", r.exit, r.err)
	}
	awaitRing(t, d.dial(t).Ring("/r"), "the subscriber is gone", func(r client.RingInfo) bool { return len(r.Consumers) == 0 })

	sub = background(t, d.command(within(t), "ipcctl", "ring", "sub", "/r"))
	awaitRing(t, d.dial(t).Ring("/r"), "the subscriber has its place", func(r client.RingInfo) bool { return len(r.Consumers) == 1 })
	d.ctl(t, "ring", "rm", "/r", "--force").ok(t)
	sub.wait().exits(t, 3).says(t, "/r")
}

// stuck makes a lossless ring of 64KiB whose consumer reads one message and no more.
func stuck(t *testing.T) *daemon {
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB", "--policy", "lossless", "--stall", "10s").ok(t)
	c, err := ring.NewConsumer(within(t), "/r", ring.ConsumerOptions{Attach: d.attach, Lossless: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	d.ctl(t, "ring", "pub", "/r", "first").ok(t)
	if m, err := c.Next(within(t)); err != nil || string(m.Payload) != "first" {
		t.Fatalf("%q, %v", m.Payload, err)
	}
	return d
}

func TestPublishedLinesThatTimeOutAreCounted(t *testing.T) {
	t.Parallel()
	d := stuck(t)
	r := d.ctlWith(t, strings.Repeat(strings.Repeat("x", 32)+"\n", 5000), "ring", "pub", "/r", "--lines", "--timeout", "1s")
	r.exits(t, 6).says(t, "published at least ", "timed out: lines ", "it is not known whether", "the limit was 1s")
	var known, first, last, lane uint64
	if _, err := fmt.Sscanf(r.err, "published at least %d messages to /r\nipcctl: timed out: lines %d to %d:", &known, &first, &last); err != nil {
		t.Fatalf("%v:\n%s", err, r.err)
	}
	info, err := d.dial(t).Ring("/r").Info(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range info.Lanes {
		lane = l.Sequence - 1 // without the first
	}
	if known == 0 || first != known+1 || lane < known || lane > last || last-first >= 16 {
		t.Errorf("%d lines are in the ring; ipcctl says:\n%s", lane, r.err)
	}
	d.ctl(t, "ring", "pub", "/r", strings.Repeat("x", 300), "--timeout", "300ms").exits(t, 6).
		says(t, "timed out: /r: it is not known whether", "the limit was 300ms; --timeout allows more")
}

func TestPublishingGoesOnWhenNobodyReadsItsOutput(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r").ok(t)
	cmd := d.command(within(t), "ipcctl", "ring", "pub", "/r", "--lines", "-o", "jsonl")
	cmd.Stdin = strings.NewReader(strings.Repeat("x\n", 50_000))
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = writer
	_ = reader.Close()
	var words logBuffer
	cmd.Stderr = &words
	err = cmd.Run()
	_ = writer.Close()
	if err != nil || words.String() != "published 50000 messages to /r\n" {
		t.Errorf("%v, stderr %q", err, words.String())
	}
}

func TestSubscribersEndWithTheDaemon(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB").ok(t)
	sub := background(t, d.command(within(t), "ipcctl", "ring", "sub", "/r"))
	awaitRing(t, d.dial(t).Ring("/r"), "the subscriber has its place", func(r client.RingInfo) bool { return len(r.Consumers) == 1 })
	d.signal(syscall.SIGTERM)
	sub.wait().exits(t, 4)
	if code := d.awaitExit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestAttachSocketIsWhereItIsSaidToBe(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	elsewhere := filepath.Join(dir, "sub", "rings")
	d := launch(t, dir, "--attach-socket", elsewhere, "--ring-memory", "64MiB", "--ring-memory-per-uid", "32MiB")
	var started struct {
		AttachSocket string `json:"attach_socket"`
	}
	unmarshal(t, d.log.await(t, d, "ipcd started"), &started)
	info, err := os.Stat(elsewhere)
	if started.AttachSocket != elsewhere || err != nil || info.Mode()&os.ModeSocket == 0 || info.Mode().Perm() != 0o666 {
		t.Errorf("the log says %q; %s is %v, %v", started.AttachSocket, elsewhere, info, err)
	}
	d.attach = elsewhere
	d.ctl(t, "ring", "create", "/r", "--capacity", "16MiB").ok(t)
	d.join(t, "producer", memberOptions{Ring: "/r", Largest: 100})
	second := d.launchMember(t, "producer", memberOptions{Ring: "/r", Largest: 100})
	second.wait().exits(t, 1).says(t, "ring_memory_per_uid")
	d.signal(syscall.SIGTERM)
	if code := d.awaitExit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Stat(elsewhere); !os.IsNotExist(err) {
		t.Errorf("the attach socket after a clean stop: %v, want it gone", err)
	}
}

// awaitRing waits until a ring is as said.
func awaitRing(t *testing.T, r *client.Ring, what string, holds func(client.RingInfo) bool) {
	t.Helper()
	var last client.RingInfo
	deadline := time.Now().Add(patience)
	for ; ; time.Sleep(3 * time.Millisecond) {
		var err error
		if last, err = r.Info(within(t)); err != nil {
			t.Fatal(err)
		}
		if holds(last) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about: %s; the ring is %+v", what, last)
		}
	}
}
