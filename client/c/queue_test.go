//go:build linux

package c_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestQueueClientCompilesWithoutWarnings(t *testing.T) {
	t.Parallel()
	needNghttp2(t)
	dir := t.TempDir()
	alone := filepath.Join(dir, "alone.c")
	if err := os.WriteFile(alone, []byte("#include \"ipcd.h\"\n#include \"ipcd_ring.h\"\nint main(void) { ipcd_close(0); return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := func(compiler, flags string, sources ...string) {
		t.Helper()
		args := slices.Concat(strings.Fields(flags), strict, []string{"-Wshadow", "-I.", "-o", filepath.Join(dir, "out")}, sources, []string{"-lnghttp2"})
		if output, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v\n%s", compiler, strings.Join(args, " "), err, output)
		}
	}
	for _, flags := range []string{"-std=c11 -O0 -D_GNU_SOURCE", "-std=gnu17 -O2 -Wstrict-prototypes -Wmissing-prototypes -Wvla"} {
		link("gcc", flags, alone, "ipcd.c")
	}
	for _, example := range []string{"send", "recv", "request"} {
		link("gcc", "-std=c11 -O2", "example_"+example+".c", "ipcd.c")
	}
	if _, err := exec.LookPath("g++"); err != nil {
		t.Skipf("whether the client is C++ is not tested: install g++ (%v)", err)
	}
	link("g++", "-std=c++17 -O2 -x c++", alone, "ipcd.c")
}

func TestReasonsAreThoseOfTheOneTable(t *testing.T) {
	source, err := os.ReadFile("ipcd.c")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, m := range regexp.MustCompile(`\{"([A-Z_]+)", GRPC_([A-Z_]+), (E[A-Z0-9]+)\}`).FindAllStringSubmatch(string(source), -1) {
		names[m[1]] = m[3]
		if row := reason.Reason(m[1]).Lookup(); m[1] != "OUT_OF_MEMORY" && strings.ReplaceAll(m[2], "_", "") != strings.ToUpper(row.Code.String()) && m[2] != "CANCELLED" {
			t.Errorf("%s: code %s, not %v", m[1], m[2], row.Code)
		}
	}
	for _, r := range reason.All() {
		switch {
		case strings.HasPrefix(string(r), "RING_"), r == reason.ConsumerEvicted, r == reason.ConfigInvalid, r == reason.SchemaNotFound, r == reason.SchemaInvalid, r == reason.SchemaIncompatible:
			continue // no call of this client ends so
		case r == reason.Cancelled:
			continue // by a signal: EINTR
		}
		if want := r.Lookup().Errno; names[string(r)] != want {
			t.Errorf("%s: %q, not %s", r, names[string(r)], want)
		}
	}
}

// TestEverythingOfAMessageArrives sends from C to Go and from Go to C.
func TestEverythingOfAMessageArrives(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/all", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("send /all type=77 priority=32767 size=1000 ttl=90061001 dedup=d1 correlation=c1 reply_to=/answers content=text/plain header=a:1 header=bb: header=grüße:3")
	got, err := q.Receive(t.Context(), 1, client.ReceiveOptions{AtOnce: true})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	body := make([]byte, 1000)
	for i := range body {
		body[i] = byte(i*7 + i>>8 + len(body))
	}
	want := client.Message{
		Type: 77, Priority: 32767, Body: body, TTL: 25*time.Hour + time.Minute + time.Second + time.Millisecond, DedupID: "d1", CorrelationID: "c1", ReplyTo: "/answers", ContentType: "text/plain",
		Headers: map[string][]byte{"a": []byte("1"), "bb": {}, "grüße": []byte("3")},
	}
	if len(got[0].Headers["bb"]) == 0 {
		got[0].Headers["bb"] = []byte{}
	}
	if !reflect.DeepEqual(got[0].Message, want) {
		t.Errorf("from C: %+v\nnot %+v", got[0].Message, want)
	}

	want.DedupID = "d2"
	before := time.Now()
	sent, err := q.Send(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	r := c.good("receive /all lease=60000")
	f := r.lines[0]
	headers := strings.Split(f["headers"], ";")
	slices.Sort(headers)
	expect(t, "headers", headers, "", "a:1", "bb:", "grüße:3")
	delete(f, "headers")
	sentAt, lease := time.Unix(0, f.number("sent")), time.Unix(0, f.number("lease"))
	if sentAt.Before(before.Add(-time.Second)) || sentAt.After(time.Now().Add(time.Second)) || lease.Sub(sentAt) < 59*time.Second || lease.Sub(sentAt) > 60*time.Second+hang {
		t.Errorf("sent %v, leased until %v", sentAt, lease)
	}
	for key, value := range map[string]string{
		"queue": "/all", "sequence": fmt.Sprint(sent[0].Sequence), "attempts": "0", "cut": "0", "type": "77", "priority": "32767", "size": "1000", "patterned": "1", "ttl": "90061001",
		"dedup": "d2", "correlation": "c1", "reply_to": "/answers", "content": "text/plain",
	} {
		if f[key] != value {
			t.Errorf("to C: %s is %q, not %q", key, f[key], value)
		}
	}
	c.good("settle 0:%s", f["receipt"])
	if stats, err := q.Info(t.Context()); err != nil || stats.Stats.Leased+stats.Stats.Ready != 0 {
		t.Errorf("after the ack: %+v, %v", stats.Stats, err)
	}
}

func TestBodiesOfAnySizeArrive(t *testing.T) {
	d := startDaemon(t)
	d.queue("/sizes", client.QueueSettings{MaxMessageSize: new(16 << 20)})
	c := drive(t, d.socket)
	for _, size := range []int{0, 1, 127, 128, 16379, 16384, 65536, 1 << 20, 5<<20 + 3, 16 << 20} {
		c.good("send /sizes size=%d", size)
		r := c.good("receive /sizes consume=1")
		if f := r.lines[0]; r.n != 1 || f.number("size") != int64(size) || f["patterned"] != "1" {
			t.Errorf("size %d: %v", size, r)
		}
	}
	// As many as one answer may hold, and one more.
	c.good("send /sizes count=3 size=%d", 8<<20-100)
	c.good("send /sizes size=%d", 8<<20-100)
	expect(t, "sizes", c.good("receive /sizes n=9 consume=1").all("message", "patterned"), "1", "1", "1")
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "send /sizes count=4 size=%d", 8<<20)
	c.bad(syscall.EMSGSIZE, "MESSAGE_TOO_LARGE", "send /sizes size=%d", 16<<20+1)
}

func TestBatchIsAllOrNothing(t *testing.T) {
	d := startDaemon(t)
	d.queue("/few", client.QueueSettings{MaxMessages: 5})
	c := drive(t, d.socket)
	r := c.good("send /few count=3 type=10 rising=1")
	first := r.lines[0].number("sequence")
	expect(t, "sequences", r.all("sent", "sequence"), fmt.Sprint(first), fmt.Sprint(first+1), fmt.Sprint(first+2))
	if r := c.bad(syscall.EAGAIN, "QUEUE_FULL", "send /few count=3"); r.code != 8 || r.retry <= 0 {
		t.Errorf("full: %v", r)
	}
	expect(t, "types", c.good("receive /few n=100").all("message", "type"), "10", "11", "12")
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "send /few count=0")
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "send /few count=16385")
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "send /few size=3 broken=1")
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "send /few correlation=\xff")
	if r := c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "send /few priority=40000"); r.index != 0 {
		t.Errorf("priority: %v", r)
	}
	c.bad(syscall.ENOENT, "QUEUE_NOT_FOUND", "send /none")
}

func TestDuplicatesAreTold(t *testing.T) {
	d := startDaemon(t)
	d.queue("/once", client.QueueSettings{})
	c := drive(t, d.socket)
	first := c.good("send /once dedup=x").lines[0]
	again := c.good("send /once dedup=x count=2").lines
	for _, f := range again {
		if first["duplicate"] != "0" || f["duplicate"] != "1" || f["sequence"] != first["sequence"] {
			t.Errorf("%v after %v", f, first)
		}
	}
}

func TestSelectorsChoose(t *testing.T) {
	d := startDaemon(t)
	d.queue("/types", client.QueueSettings{})
	c := drive(t, d.socket)
	for _, try := range []struct{ selector, want string }{
		{"", "1 2 3 4 5"},
		{"select=type type=4", "4"},
		{"select=upto type=3", "1 2 3"},
		{"select=not type=2", "1 3 4 5"},
		{"select=types types=5,1,9", "1 5"},
		{"select=type type=9", ""},
	} {
		c.good("send /types count=5 type=1 rising=1")
		if got := strings.Join(c.good("receive /types n=10 consume=1 %s", try.selector).all("message", "type"), " "); got != try.want {
			t.Errorf("%s: %s, not %s", try.selector, got, try.want)
		}
		if got := c.good("receive /types n=10 consume=1"); int(got.n)+len(strings.Fields(try.want)) != 5 {
			t.Errorf("%s: %d are left", try.selector, got.n)
		}
	}
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "receive /types select=types")
}

func TestSettlementsHaveOutcomesOfTheirOwn(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/jobs", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("send /jobs count=6 type=1 rising=1")
	receipts := c.good("receive /jobs n=6 lease=3600000").all("message", "receipt")
	// ack, nack, touch, release, bury, and what is stale in between
	c.good("settle 0:%s", receipts[5])
	r := c.bad(syscall.ESTALE, "STALE_RECEIPT", "settle 0:%s 1:%s 0:%s 2:%s 3:%s 4:%s delay=3600000 lease=7200000 reason=because", receipts[0], receipts[1], receipts[5], receipts[2], receipts[3], receipts[4])
	if r.index != 2 {
		t.Errorf("index %d, not 2", r.index)
	}
	expect(t, "results", r.all("settled", "1"), "0", "0", "-116", "0", "0", "0")
	for i, lease := range r.all("settled", "lease") {
		if (lease != "0") != (i == 3) {
			t.Errorf("lease %d: %s", i, lease)
		}
	}
	info, err := q.Info(t.Context())
	if s := info.Stats; err != nil || s.Ready != 1 || s.Delayed != 1 || s.Leased != 1 || s.Buried != 1 {
		t.Errorf("%+v, %v", info.Stats, err)
	}
	buried := c.good("peek /jobs states=%d", 1<<4).lines[0]
	if buried["bury"] != "because" || buried["type"] != "5" {
		t.Errorf("buried: %v", buried)
	}
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "settle 9:%s", receipts[0])
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "settle")
	expect(t, "results", c.do("settle 0:nonsense 0:%s", receipts[2]).all("settled", "1")[1:], "0")
}

func TestBackoffIsTheQueuesUnlessANackHasADelay(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/jobs", client.QueueSettings{BackoffInitial: time.Hour, BackoffMax: time.Hour})
	c := drive(t, d.socket)
	c.good("send /jobs")
	c.good("settle 1:%s delay=0", c.good("receive /jobs").lines[0]["receipt"])
	f := c.good("receive /jobs wait=30000").lines[0]
	if f["attempts"] != "1" {
		t.Errorf("attempts %s", f["attempts"])
	}
	c.good("settle 1:%s delay=-1", f["receipt"])
	if info, err := q.Info(t.Context()); err != nil || info.Stats.Delayed != 1 {
		t.Errorf("%+v, %v", info.Stats, err)
	}
}

func TestReceiveWaits(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/later", client.QueueSettings{})
	c := drive(t, d.socket)
	if r := c.good("receive /later"); r.n != 0 {
		t.Errorf("nothing was there: %v", r)
	}
	if r := c.good("receive /later wait=20"); r.n != 0 {
		t.Errorf("nothing came: %v", r)
	}
	for _, wait := range []string{"60000", "-1"} {
		c.tell("receive /later consume=1 wait=%s", wait)
		eventually(t, "the receiver waits", func() bool { info, err := q.Info(t.Context()); return err == nil && info.Stats.Receivers == 1 })
		if _, err := q.Send(t.Context(), client.Message{}); err != nil {
			t.Fatal(err)
		}
		if r := c.answer(); r.n != 1 {
			t.Errorf("wait %s: %v", wait, r)
		}
	}
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "receive /later wait=-2")
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "receive /later n=16385")
	c.tell("receive /later wait=-1")
	eventually(t, "the receiver waits", func() bool { info, err := q.Info(t.Context()); return err == nil && info.Stats.Receivers == 1 })
	if _, err := d.client().DeleteQueue(t.Context(), "/later"); err != nil {
		t.Fatal(err)
	}
	if r := c.answer(); r.n != -int64(syscall.EIDRM) || r.reason != "QUEUE_DELETED" {
		t.Errorf("deleted: %v", r)
	}
}

func TestASignalEndsAWait(t *testing.T) {
	d := startDaemon(t)
	d.queue("/quiet", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("alarm every=10000")
	c.bad(syscall.EINTR, "CANCELLED", "receive /quiet wait=-1")
	// Calls that do not wait for messages go on.
	for range 20 {
		c.good("send /quiet count=100 size=1000")
	}
	c.good("alarm every=0")
	if r := c.good("receive /quiet n=5000 consume=1"); r.n != 2000 {
		t.Errorf("%v", r)
	}
}

func TestLargeMessageForASmallBuffer(t *testing.T) {
	d := startDaemon(t)
	d.queue("/large", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("send /large size=100")
	c.bad(syscall.E2BIG, "BUFFER_TOO_SMALL", "receive /large room=99")
	if f := c.good("receive /large room=60 truncate=1").lines[0]; f["size"] != "60" || f["cut"] != "100" {
		t.Errorf("%v", f)
	}
}

func TestPeekShowsPagesAndChangesNothing(t *testing.T) {
	d := startDaemon(t)
	q := d.queue("/many", client.QueueSettings{})
	c := drive(t, d.socket)
	c.good("send /many count=700 type=1 rising=1 header=h:v")
	c.good("send /many type=1000 delay=3600000 ttl=7200000")
	for _, page := range []int64{1, 100, 300, 1024} {
		var types []string
		for cursor := ""; ; {
			command := fmt.Sprintf("peek /many n=%d", page)
			if cursor != "" {
				command += " cursor=" + cursor
			}
			r := c.good("%s", command)
			types = append(types, r.all("peeked", "type")...)
			if r.n > page {
				t.Fatalf("a page of %d has %d", page, r.n)
			}
			if cursor = r.lines[len(r.lines)-1]["1"]; cursor == "" || page == 1 && len(types) == 20 {
				break
			}
		}
		want := 700
		if page == 1 {
			want = 20
		}
		if len(types) != want || types[0] != "1" || types[want-1] != fmt.Sprint(want) {
			t.Errorf("pages of %d: %d types from %s to %s", page, len(types), types[0], types[len(types)-1])
		}
	}
	f := c.good("peek /many states=%d", 1<<2).lines[0]
	sent := f.number("sent")
	if f["state"] != "4" || f.number("due")-sent != int64(time.Hour) || f.number("expires")-sent != int64(2*time.Hour) {
		t.Errorf("delayed: %v", f)
	}
	expect(t, "narrowed", c.good("peek /many select=types types=5,6,7,8 min=6 max=7").all("peeked", "type"), "6", "7")
	if r := c.good("peek /many older=3600000"); r.n != 0 {
		t.Errorf("older: %v", r)
	}
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "peek /many n=1025")
	if info, err := q.Info(t.Context()); err != nil || info.Stats.Ready != 700 || info.Stats.DeliveredTotal != 0 {
		t.Errorf("%+v, %v", info.Stats, err)
	}
}

func TestPageOfPeekHasBoundedBytes(t *testing.T) {
	d := startDaemon(t)
	d.queue("/large", client.QueueSettings{MaxMessageSize: new(16 << 20)})
	c := drive(t, d.socket)
	for range 4 {
		c.good("send /large size=%d", 12<<20)
	}
	r := c.good("peek /large")
	cursor := r.lines[len(r.lines)-1]["1"]
	if r.n != 3 || cursor == "" {
		t.Fatalf("%d messages, cursor %q", r.n, cursor)
	}
	r = c.good("peek /large cursor=%s", cursor)
	expect(t, "the rest", r.all("peeked", "sequence"), "4")
	expect(t, "bodies", r.all("peeked", "patterned"), "1")
}

func TestQueuesAreMadeAndDeleted(t *testing.T) {
	d := startDaemon(t)
	c := drive(t, d.socket)
	settings := "messages=7 bytes=70000 message=9000 lease=5000 attempts=3 overflow=3 durability=2 mode=416"
	expect(t, "created", c.good("create /made %s", settings).all("created", "1"), "1")
	expect(t, "created", c.good("create /made %s", settings).all("created", "1"), "0")
	c.bad(syscall.EEXIST, "QUEUE_EXISTS", "create /made %s exclusive=1", settings)
	c.bad(syscall.EEXIST, "QUEUE_EXISTS", "create /made")
	c.bad(syscall.EINVAL, "INVALID_ARGUMENT", "create bad/name")
	info, err := d.client().Queue("/made").Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := info.Settings
	if s.MaxMessages != 7 || s.MaxBytes != 70000 || *s.MaxMessageSize != 9000 || s.Lease != 5*time.Second || s.MaxAttempts != 3 || *s.Mode != 0o640 || s.Overflow != client.OverflowDropOldest || s.Durability != client.DurabilityMemory {
		t.Errorf("settings %+v", s)
	}
	c.good("send /made count=4")
	expect(t, "deleted", c.good("delete /made").all("deleted", "1"), "4")
	c.bad(syscall.ENOENT, "QUEUE_NOT_FOUND", "delete /made")
}

func TestAddressesThatAreNone(t *testing.T) {
	d := startDaemon(t)
	c := drive(t, d.socket)
	for _, address := range []string{"localhost:7117", "unix://relative", "/" + strings.Repeat("x", 107)} {
		if r := c.do("open %s", address); r.n != -int64(syscall.EINVAL) || !strings.Contains(r.lines[0]["line"], "address") {
			t.Errorf("%s: %v %v", address, r, r.lines)
		}
	}
	if r := c.do("open %s agent=a\tb", d.socket); r.n != -int64(syscall.EINVAL) { // a tab is no printable character
		t.Errorf("%v", r)
	}
	for _, address := range []string{"unix://" + d.socket, "unix:" + d.socket, d.socket} {
		c.good("open %s agent=teller/1", address)
		c.good("create /there durability=2")
	}
	agents := ""
	for conn, err := range d.client().Clients(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		agents += conn.UserAgent + ","
	}
	if !strings.Contains(agents, "teller/1 ipcd-c,") {
		t.Errorf("user agents %s", agents)
	}
	c.good("open %s/none", d.dir)
	if r := c.bad(syscall.ECONNREFUSED, "UNREACHABLE", "send /there"); !strings.Contains(r.message, "is it running") {
		t.Errorf("%v", r)
	}
}
