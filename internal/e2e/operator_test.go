//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// exported reads an export without its header, and without what an import changes.
func exported(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i == 0 {
			continue
		}
		var m map[string]any
		unmarshal(t, line, &m)
		for _, name := range []string{"queue", "sequence", "lease_expire_time"} {
			delete(m, name)
		}
		if m["state"] == "leased" {
			m["state"] = "ready"
		}
		all = append(all, m)
	}
	return all
}

func TestAnExportIsImportedAsItWas(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := startIn(t, dir)
	c := d.dial(t)
	durable := memory(func(s *client.QueueSettings) {
		s.Durability, s.TypeNames = client.DurabilityJournal, map[string]int64{"created": 7}
	})
	q := create(t, c, durable)
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	all := client.Message{Type: 7, Priority: 9, Body: binary, Headers: map[string][]byte{"k": []byte("v"), "raw": binary, "empty": {}},
		TTL: time.Hour, DedupID: "d", CorrelationID: "c", ReplyTo: "/r", ContentType: "x/y"}
	send(t, q, client.Message{}, all, client.Message{Type: 1<<63 - 1, Body: []byte("late"), Delay: time.Hour},
		client.Message{Type: 2, Body: []byte("buried")}, client.Message{Type: 3, Body: []byte("failed")}, client.Message{Type: 4, Body: []byte("leased")})
	take := func(typ int64) *client.Delivery {
		t.Helper()
		got, err := q.Receive(within(t), 1, client.ReceiveOptions{Selector: client.Type(typ)})
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		return got[0]
	}
	for _, err := range []error{take(2).Bury(within(t), "no \x1b good"), take(3).Nack(within(t), 0, "once"), take(4).Nack(within(t), time.Hour, "later")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	take(3)
	want := exported(t, d.ctl(t, "export", q.Name()).ok(t))
	if len(want) != 6 {
		t.Fatalf("exported %v", want)
	}
	copies := map[string]*client.Queue{"jsonl": create(t, c, durable), "compact": create(t, c, durable)}
	for format, to := range copies {
		file := filepath.Join(t.TempDir(), "x")
		d.ctl(t, "export", q.Name(), "-f", file, "--format", format).exits(t, 0)
		d.ctl(t, "import", to.Name(), "-f", file).exits(t, 0).says(t, "imported 6 messages")
	}
	d.kill()
	d.awaitExit(t)
	d = startIn(t, dir)
	for format, to := range copies {
		if got := exported(t, d.ctl(t, "export", to.Name()).ok(t)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%v\nwant:\n%v", format, got, want)
		}
	}
}

func TestWorkRunsACommandForEachMessageOfSeveralQueues(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	dead := create(t, c, memory())
	one := create(t, c, memory(func(s *client.QueueSettings) { s.MaxAttempts, s.DeadLetterQueue = 2, dead.Name() }))
	two := create(t, c, memory())
	var want []string
	for i := range 10 {
		send(t, one, client.Message{Body: fmt.Appendf(nil, "one%d", i), Headers: map[string][]byte{"n": fmt.Append(nil, i)}})
		send(t, two, text(fmt.Sprintf("two%d", i))...)
		want = append(want, fmt.Sprintf("two%d %s", i, two.Name()))
		if i != 4 {
			want = append(want, fmt.Sprintf("one%d %s", i, one.Name()))
		}
	}
	worker := background(t, d.command(within(t), "ipcctl", "work", one.Name(), two.Name(), "-j", "4", "--", "sh", "-c",
		`test "$IPCD_HEADER_N" != 4 || { echo "four is not right" >&2; exit 7; }; echo "$(cat) $IPCD_QUEUE"`))
	eventually(t, "all is worked off", func() bool {
		return info(t, one).Stats.Messages()+info(t, two).Stats.Messages() == 0 && info(t, dead).Stats.Ready == 1
	})
	_ = worker.cmd.Process.Signal(syscall.SIGTERM)
	done := worker.wait().exits(t, 0).says(t, "worked on 21 messages: 19 acked, 2 nacked")
	got := strings.Split(strings.TrimSpace(done.out), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the commands said %q, want %q", got, want)
	}
	if m := d.ctl(t, "peek", dead.Name(), "-o", "json").messages(t); len(m) != 1 || !strings.Contains(m[0].Headers["ipcd-dead-detail"], "exit 7: four is not right") {
		t.Errorf("the dead letters are %+v", m)
	}
	d.ctl(t, "redrive", dead.Name()).exits(t, 0).says(t, "moved 1 message back")
	if s := info(t, one).Stats; s.Ready != 1 {
		t.Errorf("after the redrive: %+v", s)
	}
}

func TestWorkFinishesAtTheFirstSignalAndGivesBackAtTheSecond(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	send(t, q, text("a", "b")...)
	begun := filepath.Join(t.TempDir(), "begun")
	worker := background(t, d.command(within(t), "ipcctl", "work", q.Name(), "--", "sh", "-c", "touch "+begun+"; sleep 600"))
	eventually(t, "the command runs", func() bool { _, err := os.Stat(begun); return err == nil })
	_ = worker.cmd.Process.Signal(syscall.SIGINT)
	worker.words.await(t, d, "finishing what runs")
	_ = worker.cmd.Process.Signal(syscall.SIGTERM)
	worker.wait().exits(t, 1).says(t, "worked on 0 messages")
	if m := d.ctl(t, "peek", q.Name(), "-o", "json").messages(t); len(m) != 2 || m[0].Attempts != 0 || m[1].Attempts != 0 {
		t.Errorf("left %+v", m)
	}
}

func TestARequestIsAnsweredByWork(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	background(t, d.command(within(t), "ipcctl", "work", q.Name(), "--type", "1", "--reply", "--", "tr", "a-z", "A-Z"))
	if got := d.ctl(t, "request", q.Name(), "hello", "-o", "raw", "--delimiter", "").ok(t); got != "HELLO" {
		t.Errorf("the reply is %q", got)
	}
	d.ctl(t, "request", q.Name(), "hello", "--type", "2", "--timeout", "200ms").exits(t, 6).says(t, "no reply came in time")
	if got := d.ctl(t, "ls", "tmp.*", "-o", "name").ok(t); got != "" {
		t.Errorf("temporary queues are left: %s", got)
	}
}

func TestTapSeesWhatIsConsumedAtOnce_S21_S22(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	source, copies := create(t, c, memory()), create(t, c, memory())
	d.ctl(t, "bind", source.Name(), copies.Name(), "--type", "7", "--overflow", "skip").exits(t, 0)
	consumer := background(t, d.command(within(t), "ipcctl", "recv", source.Name(), "--follow", "--ack", "-o", "raw"))
	tap := background(t, d.command(within(t), "ipcctl", "tap", source.Name(), copies.Name(), "-o", "jsonl", "-n", "3"))
	tap.words.await(t, d, "tapping "+source.Name())
	tap.words.await(t, d, "tapping "+copies.Name())
	send(t, source, client.Message{Type: 7, Body: []byte("seven")}, client.Message{Type: 8, Body: []byte("eight")})
	seen := map[string]int{}
	for line := range strings.Lines(tap.wait().ok(t)) {
		var m messageJSON
		unmarshal(t, line, &m)
		seen[m.Queue+" "+*m.Body]++
	}
	if want := map[string]int{source.Name() + " seven": 1, source.Name() + " eight": 1, copies.Name() + " seven": 1}; !maps.Equal(seen, want) {
		t.Errorf("saw %v, want %v", seen, want)
	}
	eventually(t, "the consumer has both", func() bool { return consumer.out.String() == "seven\neight\n" })
	if got := d.ctl(t, "binds", "-o", "json").ok(t); !strings.Contains(got, `"copied_total":1,"skipped_total":0`) {
		t.Errorf("binds says %s", got)
	}
	d.ctl(t, "move", copies.Name(), source.Name(), "--type", "7").exits(t, 0).says(t, "moved 1 message")
	eventually(t, "what was moved is consumed", func() bool {
		return strings.HasSuffix(consumer.out.String(), "seven\n") && strings.Count(consumer.out.String(), "\n") == 3
	})
}
