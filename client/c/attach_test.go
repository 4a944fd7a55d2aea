//go:build linux

package c_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	rings "github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/transport/shmring"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

var self = identity.Identity{Kind: identity.Unix, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}

// daemon is the part of the daemon that members of rings deal with, in this process.
type daemon struct {
	t      *testing.T
	dir    string
	path   string
	rings  *rings.Rings
	server *shmring.Server
	served chan error
}

// newDaemon serves one ring, "/ring", of the smallest capacity.
func newDaemon(t *testing.T, lossless bool) *daemon {
	t.Helper()
	short, err := os.MkdirTemp("", "ipcd-c") // the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	d := &daemon{t: t, dir: filepath.Join(short, "state"), path: filepath.Join(short, "attach.sock")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.start()
	t.Cleanup(d.stop)
	_, _, err = d.rings.Create(t.Context(), self, "/ring", func(s *rings.Settings) error {
		s.Capacity = capacity
		if lossless {
			s.Policy, s.Stall = rings.Lossless, limits.RingStallMax // the host may be busy
		}
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	var err error
	if d.rings, err = rings.Open(rings.Options{Logger: zap.NewNop(), Dir: d.dir, BootID: "boot", AdoptWindow: time.Second}); err != nil {
		d.t.Fatal(err)
	}
	l, err := shmring.Listen(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.server, d.served = shmring.New(shmring.Options{Rings: shmring.Over(d.rings), Logger: zap.NewNop()}), make(chan error, 1)
	go func(s *shmring.Server, served chan error) { served <- s.Serve(l) }(d.server, d.served)
}

func (d *daemon) stop() {
	d.server.Stop()
	if err := <-d.served; err != nil {
		d.t.Errorf("Serve: %v", err)
	}
	d.rings.Close()
}

func (d *daemon) info() rings.Info {
	d.t.Helper()
	info, err := d.rings.Get(context.Background(), self, "/ring")
	if err != nil {
		d.t.Fatal(err)
	}
	return info
}

// join attaches a C member.
func (d *daemon) join(role string, more ...string) *member {
	d.t.Helper()
	return start(d.t, exec.Command(program(d.t, "testdata/member.c"), append([]string{role, "attach=" + d.path, "name=/ring"}, more...)...))
}

// publishAndRead publishes n messages from type typ on and expects each reader to get them, from sequence on.
func publishAndRead(t *testing.T, writer *member, typ, sequence, n int, readers ...*member) {
	t.Helper()
	for _, r := range readers {
		r.tell("read next %d %d", n, int64(hang))
	}
	writer.tell("publish plain %d 40 %d %d", typ, n, int64(hang))
	if result := writer.published(); result != 0 {
		t.Fatalf("publish: %d", result)
	}
	for i, r := range readers {
		messages, result := r.read()
		if result != 0 {
			t.Fatalf("reader %d: %d", i, result)
		}
		expectRun(t, messages, int64(typ), uint64(sequence), 40, n)
	}
}

// TestMembersMeetOverTheSocket has members join while others publish, read and sleep.
func TestMembersMeetOverTheSocket(t *testing.T) {
	for _, lossless := range []bool{false, true} {
		d := newDaemon(t, lossless)
		var flags []string
		if lossless {
			flags = []string{"lossless=1"}
		}
		first := d.join("consumer", flags...)
		writer := d.join("producer")
		publishAndRead(t, writer, 1, 1, 100, first) // a lane that joined later than the consumer
		second := d.join("consumer", flags...)
		publishAndRead(t, writer, 101, 101, 100, first, second) // a consumer that joined later than the lane

		// A second lane comes to consumers that sleep, or have just been told.
		first.tell("read next 10 %d", int64(hang))
		other := d.join("producer")
		other.tell("publish plain 1 40 10 %d", int64(hang))
		if result := other.published(); result != 0 {
			t.Fatalf("publish: %d", result)
		}
		messages, _ := first.read()
		expectRun(t, messages, 1, 1, 40, 10)

		// A producer leaves: its lane is read to its end.
		other.tell("publish plain 11 40 10 %d", int64(hang))
		other.published()
		other.input.Close()
		eventually(t, "the producer has left", func() bool {
			ended := false
			for _, l := range d.info().Lanes {
				ended = ended || l.Ended
			}
			return ended
		})
		first.tell("read next 10 %d", int64(hang))
		messages, _ = first.read()
		expectRun(t, messages, 11, 11, 40, 10)
		second.tell("read next 20 %d", int64(hang))
		messages, _ = second.read()
		expectRun(t, messages, 1, 1, 40, 20)
		publishAndRead(t, writer, 201, 201, 5, first, second)
		eventually(t, "the lane that ended is given up", func() bool {
			first.tell("read next 1 0")
			first.read()
			return first.stats()["lanes"] == 1
		})
		if s := first.stats(); s["lost"] != 0 || s["corrupt"] != 0 || s["evicted"] != 0 {
			t.Errorf("stats %v", s)
		}
	}
}

// TestMembersComeBackAfterARestart stops the daemon and starts it again: data goes on meanwhile, and then members that
// the new daemon brings are met.
func TestMembersComeBackAfterARestart(t *testing.T) {
	d := newDaemon(t, false)
	reader := d.join("consumer")
	writer := d.join("producer")
	publishAndRead(t, writer, 1, 1, 100, reader)
	lane := d.info().Lanes[0].ID
	d.stop()
	publishAndRead(t, writer, 101, 101, 100, reader)
	d.start()
	eventually(t, "both members are back", func() bool {
		writer.tell("service")
		reader.tell("service")
		if w, r := writer.result("service", nil), reader.result("service", nil); w != 0 || r != 0 {
			t.Fatalf("service: %d and %d", w, r)
		}
		info := d.info()
		return len(info.Lanes) == 1 && len(info.Consumers) == 1 && !info.Lanes[0].Ended
	})
	if id := d.info().Lanes[0].ID; id != lane {
		t.Errorf("lane %d came back as %d", lane, id)
	}
	publishAndRead(t, writer, 201, 201, 100, reader)
	late := d.join("consumer")
	publishAndRead(t, writer, 301, 301, 100, reader, late)
	second := d.join("producer")
	publishAndRead(t, second, 1, 1, 10, reader, late)
	if s := reader.stats(); s["lost"] != 0 || s["received"] != 410 || s["lanes"] != 2 {
		t.Errorf("stats %v", s)
	}
	eventually(t, "the producer knows both consumers", func() bool {
		writer.tell("service")
		writer.result("service", nil)
		return writer.stats()["consumers"] == 2
	})
}

// TestLateLosslessConsumersLoseNothing has consumers join a lossless ring while a producer writes as fast as it may: from their first message
// on nothing is missing, and nobody is evicted.
func TestLateLosslessConsumersLoseNothing(t *testing.T) {
	const n = 400_000
	d := newDaemon(t, true)
	all := []*member{d.join("consumer", "lossless=1")}
	writer := d.join("producer")
	writer.tell("publish plain 1 50 %d %d", n, int64(hang))
	all[0].tell("drain next %d %d", n+1, int64(hang))
	for range 3 {
		late := d.join("consumer", "lossless=1")
		late.tell("drain next %d %d", n+1, int64(hang))
		all = append(all, late)
	}
	writer.tell("publish plain 1 50 1 %d", int64(hang)) // so that even one that comes after all others gets something
	for i, c := range all {
		result, s := c.result("drained", nil), c.stats()
		if result <= 0 || i == 0 && result != n+1 || s["lost"] != 0 || s["evicted"] != 0 || s["corrupt"] != 0 {
			t.Errorf("consumer %d: %d, %v", i, result, s)
		}
		t.Logf("consumer %d got %d", i, s["received"])
	}
	for range 2 {
		if result := writer.published(); result != 0 {
			t.Errorf("publish: %d", result)
		}
	}
}

func TestDeletedRingEndsTheMembership(t *testing.T) {
	d := newDaemon(t, false)
	reader, writer := d.join("consumer"), d.join("producer")
	reader.tell("read next 1 %d", int64(hang))
	if _, err := d.rings.Delete(t.Context(), self, "/ring"); err != nil {
		t.Fatal(err)
	}
	if _, result := reader.read(); result != -int64(unix.EIDRM) {
		t.Errorf("read: %d", result)
	}
	eventually(t, "the producer is told", func() bool {
		writer.tell("publish plain 1 1 1 0")
		result := writer.published()
		return result == -int64(unix.EIDRM)
	})
	reader.tell("text")
	if text := reader.until("text", nil); text == "" {
		t.Error("no word of what happened")
	}
}

// TestAttachErrorsAreErrnos joins in vain, in every way.
func TestAttachErrorsAreErrnos(t *testing.T) {
	d := newDaemon(t, false)
	dead := filepath.Join(filepath.Dir(d.path), "dead.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0) // bound, and nobody listens
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dead}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		want       unix.Errno
	}{
		{"/nothere", d.path, unix.ENOENT}, {"ring", d.path, unix.EINVAL}, {"/", d.path, unix.EINVAL}, {"/ring", d.path + ".no", unix.ENOENT}, {"/ring", dead, unix.ECONNREFUSED},
	} {
		cmd := exec.Command(program(t, "testdata/member.c"), "producer", "attach="+c.path, "name="+c.name)
		output, _ := cmd.Output()
		var result int64
		if _, err := fmt.Sscanf(string(output), "joined %d", &result); err != nil || result != -int64(c.want) {
			t.Errorf("%s at %s: %q, not %d", c.name, c.path, output, -int64(c.want))
		}
	}
}

// TestSocketIsFoundFromTheEnvironment joins without naming the socket.
func TestSocketIsFoundFromTheEnvironment(t *testing.T) {
	d := newDaemon(t, false)
	beside := filepath.Join(filepath.Dir(d.path), "ipcd.sock")
	for _, env := range [][]string{
		{"IPCD_ATTACH=" + d.path}, {"IPCD_ATTACH=" + d.path, "IPCD_ADDRESS=/nowhere/ipcd.sock"}, {"IPCD_ADDRESS=unix://" + beside}, {"IPCD_ADDRESS=unix:" + beside}, {"IPCD_ADDRESS=" + beside},
	} {
		cmd := exec.Command(program(t, "testdata/member.c"), "producer", "name=/ring")
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
		output, err := cmd.Output()
		var result int64
		if _, scanErr := fmt.Sscanf(string(output), "joined %d", &result); err != nil || scanErr != nil || result != 0 {
			t.Errorf("with %v: %q, %v", env, output, err)
		}
	}
}

// TestExamplesTalkToEachOther runs the two programs of the README.
func TestExamplesTalkToEachOther(t *testing.T) {
	d := newDaemon(t, false)
	pub := exec.Command(program(t, "example_pub.c"), "-s", d.path, "-t", "7", "/ring")
	sub := exec.Command(program(t, "example_sub.c"), "-s", d.path, "-n", "3", "-o", "/ring")
	input, err := pub.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := input.Write([]byte("one\ntwo\n\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three lines are published", func() bool {
		info := d.info()
		return len(info.Lanes) == 1 && info.Lanes[0].Sequence == 3
	})
	output, err := sub.Output()
	if err != nil || string(output) != "7\tone\n7\ttwo\n7\t\n" {
		t.Errorf("example_sub: %q, %v", output, err)
	}
	input.Close()
	if err := pub.Wait(); err != nil {
		t.Errorf("example_pub: %v", err)
	}
	var exit *exec.ExitError
	if _, err := exec.Command(program(t, "example_sub.c")).Output(); !errors.As(err, &exit) || exit.ExitCode() != 2 || len(exit.Stderr) < 100 {
		t.Errorf("example_sub without a ring: %v", err)
	}
}
