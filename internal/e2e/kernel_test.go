//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/client"
)

// Kernel queues are charged to their maker's user, for all processes together: these tests make small
// ones and do not run at the same time.

// kernelState is a kernel queue as a native program can see it.
type kernelState struct {
	uid, gid, mode       uint32
	maxMessages, current int64
	messageSize          int64 // bytes
	inode                uint64
}

// openKernel opens a kernel queue as mq_open(3) does.
func openKernel(name string, flags int) (fd int, err error) {
	path, err := unix.BytePtrFromString(name[1:])
	if err != nil {
		return -1, err
	}
	r, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(path)), uintptr(flags), 0o600, 0, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// statKernel looks at a kernel queue with fstat(2) and mq_getattr(3).
func statKernel(name string) (k kernelState, err error) {
	fd, err := openKernel(name, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return k, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return k, err
	}
	var attributes [8]int64 // struct mq_attr: flags, maxmsg, msgsize, curmsgs
	if _, _, e := unix.Syscall(unix.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&attributes))); e != 0 {
		return k, e
	}
	return kernelState{st.Uid, st.Gid, st.Mode & 0o777, attributes[1], attributes[3], attributes[2], st.Ino}, nil
}

func unlinkKernel(names ...string) {
	for _, name := range names {
		if path, err := unix.BytePtrFromString(name[1:]); err == nil {
			_, _, _ = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(path)), 0, 0)
		}
	}
}

// doors makes a queue with small kernel queues.
func doors(t *testing.T, d *daemon, mode client.KernelMode, change ...func(*client.QueueSettings)) *client.Queue {
	t.Helper()
	s := memory(change...)
	s.Mqueue.Mode, s.Mqueue.MaxMessages = mode, 4
	if s.Mqueue.MessageSize == 0 {
		s.Mqueue.MessageSize = 128
	}
	return create(t, d.dial(t), s)
}

// native runs a C program to its end.
func native(t *testing.T, d *daemon, program string, arguments ...string) string {
	t.Helper()
	return finish(t, d.command(within(t), program, arguments...)).ok(t)
}

// kernelJSON is what stat shows of a kernel queue.
type kernelJSON struct {
	Direction       string `json:"direction"`
	Name            string `json:"name"`
	Open            bool   `json:"open"`
	Problem         string `json:"problem"`
	MaxMessages     int64  `json:"max_messages"`
	MessageSize     int64  `json:"message_size"`
	CurrentMessages int64  `json:"current_messages"`
	SkippedTotal    int64  `json:"skipped_total"`
	OwnerUID        uint32 `json:"owner_uid"`
	GroupGID        uint32 `json:"group_gid"`
	Mode            string `json:"mode"`
}

// statDoors returns what stat shows of a queue's kernel queues.
func statDoors(t *testing.T, d *daemon, queue string) []kernelJSON {
	t.Helper()
	var document struct {
		Queues []struct {
			KernelQueues []kernelJSON `json:"kernel_queues"`
		}
	}
	if err := json.Unmarshal([]byte(d.ctl(t, "stat", queue, "-o", "json").ok(t)), &document); err != nil || len(document.Queues) != 1 {
		t.Fatalf("stat %s: %v", queue, err)
	}
	return document.Queues[0].KernelQueues
}

func TestModesOwnersAndGeometryUntilDeleted_S23_S28(t *testing.T) {
	d := start(t)
	for _, c := range []struct {
		mode    uint32
		in, out uint32
	}{{0o600, 0o600, 0o600}, {0o660, 0o620, 0o640}, {0o666, 0o622, 0o644}, {0o640, 0o600, 0o640}, {0o622, 0o622, 0o600}} {
		q := doors(t, d, client.KernelBoth, func(s *client.QueueSettings) { s.Mode = new(c.mode) })
		shown := statDoors(t, d, q.Name())
		if len(shown) != 2 {
			t.Fatalf("stat shows %+v", shown)
		}
		for _, k := range shown {
			name, mode := q.Name(), c.in
			if k.Direction == "out" {
				name, mode = q.Name()+".out", c.out
			}
			have, err := statKernel(name)
			if err != nil {
				t.Fatal(err)
			}
			if want := (kernelState{uint32(os.Geteuid()), uint32(os.Getegid()), mode, 4, 0, 128, have.inode}); have != want {
				t.Errorf("queue mode %#o, kernel queue %s: %+v, want %+v", c.mode, name, have, want)
			}
			if k.Name != name || !k.Open || k.Problem != "" || k.MaxMessages != 4 || k.MessageSize != 128 || k.OwnerUID != have.uid || k.GroupGID != have.gid || k.Mode != fourOctal(have.mode) {
				t.Errorf("stat shows %+v of %+v", k, have)
			}
		}
		d.ctl(t, "rm", q.Name(), "--force").ok(t)
		for _, name := range []string{q.Name(), q.Name() + ".out"} {
			if _, err := statKernel(name); !errors.Is(err, unix.ENOENT) {
				t.Errorf("%s after rm: %v, want it gone", name, err)
			}
		}
	}
}

func fourOctal(mode uint32) string {
	const digits = "01234567"
	return "0" + string([]byte{digits[mode>>6&7], digits[mode>>3&7], digits[mode&7]})
}

func TestDefaultGeometryFollowsTheKernel_S28(t *testing.T) {
	d := start(t)
	name := unique()
	d.ctl(t, "create", name, "--max-message-size", "100").ok(t)
	if have, err := statKernel(name); err != nil || have.maxMessages != 10 || have.messageSize != 100 {
		t.Errorf("%+v, %v, want 10 messages of 100 bytes", have, err)
	}
	if _, err := statKernel(name + ".out"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the out queue of an auto door: %v, want none", err)
	}
}

func TestForeignKernelQueueIsNeverTouched_S28(t *testing.T) {
	d := start(t)
	name := unique()
	fd, err := openKernel(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC)
	if err != nil {
		t.Skipf("no kernel queue to be had: %v", err)
	}
	defer unix.Close(fd)
	defer unlinkKernel(name)
	before, err := statKernel(name)
	if err != nil {
		t.Fatal(err)
	}
	d.ctl(t, "create", name, "--mqueue", "in").exits(t, 1).says(t, name)
	d.ctl(t, "create", name).exits(t, 0).says(t, name)
	if k := statDoors(t, d, name); len(k) != 1 || k[0].Open || k[0].Problem == "" {
		t.Errorf("stat shows %+v, want a closed door and why", k)
	}
	d.ctl(t, "rm", name, "--force").ok(t)
	if after, err := statKernel(name); err != nil || after != before {
		t.Errorf("the foreign queue was %+v and is %+v, %v", before, after, err)
	}
}

func TestNativeProducerReachesTheQueue_S29(t *testing.T) {
	d := start(t)
	q := doors(t, d, client.KernelIn, func(s *client.QueueSettings) { s.Mqueue.Type = 7; s.MaxMessages = 6 })
	native(t, d, "producer", q.Name(), "3", "low", "")
	native(t, d, "producer", q.Name(), "32767", "high")
	awaitStats(t, q, "all three are in", func(s client.QueueStats) bool { return s.Ready == 3 })
	got := receive(t, q, 3, client.ReceiveOptions{AtOnce: true, Selector: client.Type(7)})
	if b := strings.Join(bodies(got), ","); b != "high,low," || got[0].Priority != 32767 || got[1].Priority != 3 {
		t.Errorf("received %q with priorities %d, %d", b, got[0].Priority, got[1].Priority)
	}

	// With the queue full, native senders wait: 6 in the queue, 4 in the kernel, the rest not sent.
	words := strings.Fields("a b c d e f g h i j k l m n")
	flood := background(t, d.command(within(t), "producer", append([]string{q.Name(), "0"}, words...)...))
	awaitStats(t, q, "the queue is full", func(s client.QueueStats) bool { return s.Ready == 6 })
	eventually(t, "the kernel queue is full", func() bool {
		k, err := statKernel(q.Name())
		return err == nil && k.current == 4
	})
	if s := info(t, q).Stats; s.Messages() != 6 {
		t.Errorf("the full queue holds %+v", s)
	}
	select {
	case <-flood.exited:
		t.Error("the native sender did not wait")
	default:
	}
	var taken []string
	for len(taken) < len(words) {
		taken = append(taken, bodies(receive(t, q, 3, client.ReceiveOptions{AtOnce: true}))...)
	}
	if strings.Join(taken, " ") != strings.Join(words, " ") {
		t.Errorf("received %q, want %q", taken, words)
	}
	flood.wait().ok(t)
}

func TestFirstBytesMayBeTheType_S29(t *testing.T) {
	d := start(t)
	q := doors(t, d, client.KernelIn, func(s *client.QueueSettings) { s.Mqueue.TypePrefix = true })
	// Little-endian "ABCDEFG\x01" as a type is 0x0147464544434241; a C string cannot carry zero bytes.
	native(t, d, "producer", q.Name(), "0", "ABCDEFG\x01body", "short")
	if m := receiveOne(t, q); m.Type != 0x0147464544434241 || string(m.Body) != "body" {
		t.Errorf("received type %#x, %q", m.Type, m.Body)
	}
	eventually(t, "what has no type is counted", func() bool { return info(t, q).KernelQueues[0].SkippedTotal == 1 })
}

func TestNativeConsumerTakesWhatWasSent_S30(t *testing.T) {
	d := start(t)
	q := doors(t, d, client.KernelOut, func(s *client.QueueSettings) { s.Mqueue.OutSelector = client.UpTo(5) })
	waiting := background(t, d.command(within(t), "consumer", q.Name()+".out", "1"))
	send(t, q, client.Message{Type: 9, Body: []byte("of no interest")}, client.Message{Type: 5, Body: make([]byte, 129)}, client.Message{Type: 1, Priority: 6, Body: []byte("for the reader")})
	if got := waiting.wait().ok(t); got != "6 for the reader\n" {
		t.Errorf("the native consumer printed %q", got)
	}
	awaitStats(t, q, "it counts as consumed", func(s client.QueueStats) bool { return s.ConsumedTotal == 1 && s.Messages() == 2 })
	eventually(t, "what is too large is counted", func() bool { return info(t, q).KernelQueues[0].SkippedTotal == 1 })

	// What nobody reads natively can still be received, purged and looked at.
	send(t, q, client.Message{Body: []byte("a")}, client.Message{Body: []byte("b")})
	eventually(t, "both are in the kernel", func() bool {
		k, err := statKernel(q.Name() + ".out")
		return err == nil && k.current == 2
	})
	if s := info(t, q).Stats; s.Leased != 2 {
		t.Errorf("%d leased to the door, want 2", s.Leased)
	}
	got := receive(t, q, 1, client.ReceiveOptions{Selector: client.Type(1), AtOnce: true})
	if string(got[0].Body) != "a" {
		t.Errorf("received %q from the door, want a", got[0].Body)
	}
	if out := native(t, d, "consumer", q.Name()+".out", "1"); out != "0 b\n" {
		t.Errorf("the native consumer printed %q", out)
	}
	send(t, q, client.Message{Body: []byte("purged")})
	eventually(t, "it is in the kernel", func() bool {
		k, err := statKernel(q.Name() + ".out")
		return err == nil && k.current == 1
	})
	d.ctl(t, "pause", q.Name()).ok(t)
	if k, err := statKernel(q.Name() + ".out"); err != nil || k.current != 0 {
		t.Errorf("after pause the kernel holds %+v, %v", k, err)
	}
	d.ctl(t, "purge", q.Name(), "--force").ok(t)
	d.ctl(t, "resume", q.Name()).ok(t)
	if s := info(t, q).Stats; s.Messages() != 0 {
		t.Errorf("after the purge: %+v", s)
	}
}

func TestNativeProgramsMeetEachOther_S29_S30(t *testing.T) {
	d := start(t)
	q := doors(t, d, client.KernelBoth)
	var words []string
	for i := range 200 {
		words = append(words, "message-"+strings.Repeat("x", i%50))
	}
	consumer := background(t, d.command(within(t), "consumer", q.Name()+".out", "200"))
	native(t, d, "producer", append([]string{q.Name(), "1"}, words...)...)
	if got := consumer.wait().ok(t); got != "1 "+strings.Join(words, "\n1 ")+"\n" {
		t.Errorf("the consumer printed something else than the producer sent:\n%s", got)
	}
	awaitStats(t, q, "all are consumed", func(s client.QueueStats) bool { return s.ConsumedTotal == 200 && s.Messages() == 0 })
}

func TestKernelLimitIsNamedAndWaitedOut_S31(t *testing.T) {
	d := start(t)
	var before unix.Rlimit
	pid := d.cmd.Process.Pid
	if err := unix.Prlimit(pid, unix.RLIMIT_MSGQUEUE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_MSGQUEUE, &unix.Rlimit{Cur: 0, Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	small := []string{"--mqueue-messages", "2", "--mqueue-size", "64"}
	create := func(more ...string) (name string, r result) {
		name = unique()
		return name, d.ctl(t, append(append([]string{"create", name}, small...), more...)...)
	}
	asked, r := create("--mqueue", "in")
	r.exits(t, 1).says(t, "RLIMIT_MSGQUEUE", "LimitMSGQUEUE", "ulimit -q")
	d.ctl(t, "stat", asked).exits(t, 3)
	auto, r := create()
	r.exits(t, 0).says(t, "RLIMIT_MSGQUEUE")
	if k := statDoors(t, d, auto); len(k) != 1 || k[0].Open || !strings.Contains(k[0].Problem, "RLIMIT_MSGQUEUE") {
		t.Errorf("stat shows %+v", k)
	}
	if ls := d.ctl(t, "ls", "-o", "wide").ok(t); !strings.Contains(ls, "closed") {
		t.Errorf("ls does not show the closed door:\n%s", ls)
	}
	d.ctl(t, "send", auto, "gRPC needs no kernel queue").ok(t)
	if err := unix.Prlimit(pid, unix.RLIMIT_MSGQUEUE, &before, nil); err != nil {
		t.Fatal(err)
	}
	q := d.dial(t).Queue(auto)
	eventually(t, "the door opens", func() bool { k := info(t, q).KernelQueues; return len(k) == 1 && k[0].Open })
	native(t, d, "producer", auto, "1", "natively")
	awaitStats(t, q, "both are in", func(s client.QueueStats) bool { return s.Ready == 2 })
	if m := receiveOne(t, q); string(m.Body) != "natively" {
		t.Errorf("received %q", m.Body)
	}
	_, r = create("--mqueue", "in", "--mqueue-messages", "65536")
	if os.Geteuid() != 0 {
		r.exits(t, 1).says(t, "msg_max")
	}
}
