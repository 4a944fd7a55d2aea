//go:build linux

// Package c_test holds the C header against the Go implementation of the same memory, over memory that the tests make: no
// daemon is needed. C programs are compiled with gcc, which must be there.
package c_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/shm"
)

const (
	capacity = shm.CapacityMin
	maxFrame = capacity / 4
	hang     = 30 * time.Second // after which a test is given up
)

var built = struct {
	sync.Mutex
	dir      string
	programs map[string]string
}{programs: map[string]string{}}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ipcd-c")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// strict are the warnings that the header promises to be free of.
var strict = []string{"-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"}

// program compiles a C program once, and returns where it is.
func program(t testing.TB, source string, flags ...string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	key := source + strings.Join(flags, " ")
	if path, ok := built.programs[key]; ok {
		return path
	}
	path := filepath.Join(built.dir, strconv.Itoa(len(built.programs)))
	// -z now: no instruction is spent on finding functions later, which the tests that count them would count.
	args := append([]string{"-std=c11", "-O2", "-I.", "-Wl,-z,now", "-o", path, source}, append(strict, flags...)...)
	if output, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	built.programs[key] = path
	return path
}

// ring is the memory of a ring, with the test in the daemon's place.
type ring struct {
	t        *testing.T
	lossless bool
	epoch    uint64
	nextID   uint64
	pageFile *os.File
	page     *shm.Memory
	stall    time.Duration
	flags    []string // that C members are compiled with
}

func newRing(t *testing.T, lossless bool) *ring {
	r := &ring{t: t, lossless: lossless, epoch: 1 << 32, nextID: 100, stall: hang}
	r.pageFile, r.page = r.memory(shm.MembersSize)
	r.raise()
	return r
}

// memory makes shared memory, mapped by the test too, which writes headers and looks on.
func (r *ring) memory(size int64) (*os.File, *shm.Memory) {
	r.t.Helper()
	f, err := shm.CreateMemory("test", size)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := shm.Map(f, size, true)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { m.Release(); f.Close() })
	return f, m
}

// raise says that the members have changed.
func (r *ring) raise() {
	r.epoch++
	page := shm.NewPage(r.page.Retain())
	page.Raise(r.epoch)
	page.Release()
}

type lane struct {
	ring      *ring
	id, epoch uint64
	slot      uint32
	file      *os.File
	memory    *shm.Memory
}

// lane makes the memory of a producer, which joins now.
func (r *ring) lane(slot uint32) *lane {
	r.raise()
	r.nextID++
	l := &lane{ring: r, id: r.nextID, epoch: r.epoch, slot: slot}
	l.file, l.memory = r.memory(shm.LaneSize(capacity))
	header := shm.LaneHeader{Lossless: r.lossless, RingID: 7, LaneID: l.id, Epoch: l.epoch, Geometry: shm.Geometry{Capacity: capacity, MaxFrame: maxFrame}, Slot: slot, Stall: r.stall}
	copy(l.memory.Bytes(), header.Bytes())
	return l
}

type consumer struct {
	ring      *ring
	id, epoch uint64
	slot      uint32
	lossless  bool
	file      *os.File
	memory    *shm.Memory
}

// consumer makes the memory of a consumer, which joins now.
func (r *ring) consumer(slot uint32) *consumer {
	r.raise()
	r.nextID++
	c := &consumer{ring: r, id: r.nextID, epoch: r.epoch, slot: slot, lossless: r.lossless}
	c.file, c.memory = r.memory(shm.ConsumerSize)
	header := shm.ConsumerHeader{Lossless: c.lossless, RingID: 7, ConsumerID: c.id, Epoch: c.epoch, Slot: slot}
	copy(c.memory.Bytes(), header.Bytes())
	return c
}

// goWriter is the Go producer of the lane.
func (l *lane) goWriter(readers ...*consumer) *shm.Writer {
	m := shm.Members{Epoch: l.ring.epoch, Page: shm.NewPage(l.ring.page.Retain())}
	for _, c := range readers {
		m.Consumers = append(m.Consumers, shm.ConsumerPeer{ID: c.id, Epoch: c.epoch, Slot: c.slot, Lossless: c.lossless, Memory: c.memory.Retain()})
	}
	w := shm.NewWriter(shm.WriterConfig{
		Memory: l.memory.Retain(), RingID: 7, LaneID: l.id, Epoch: l.epoch, Slot: l.slot,
		Geometry: shm.Geometry{Capacity: capacity, MaxFrame: maxFrame}, Lossless: l.ring.lossless, Stall: l.ring.stall,
	}, m)
	l.ring.t.Cleanup(w.Close)
	return w
}

// goReader is the Go consumer.
func (c *consumer) goReader(start shm.Start, lanes ...*lane) *shm.Reader {
	m := shm.Members{Epoch: c.ring.epoch, Page: shm.NewPage(c.ring.page.Retain())}
	for _, l := range lanes {
		m.Lanes = append(m.Lanes, shm.LanePeer{
			ID: l.id, Epoch: l.epoch, Slot: l.slot, Geometry: shm.Geometry{Capacity: capacity, MaxFrame: maxFrame},
			Lossless: c.ring.lossless, Memory: l.memory.Retain(),
		})
	}
	r := shm.NewReader(shm.ReaderConfig{Memory: c.memory.Retain(), RingID: 7, ConsumerID: c.id, Epoch: c.epoch, Slot: c.slot, Lossless: c.lossless, Start: start}, m)
	c.ring.t.Cleanup(r.Close)
	return r
}

// member is a C producer or consumer, which does what it is told: see testdata/member.c.
type member struct {
	t      *testing.T
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Scanner
}

// cProducerCommand is how to run the C producer of the lane.
func (l *lane) cProducerCommand(readers ...*consumer) *exec.Cmd {
	files := []*os.File{l.file, l.ring.pageFile}
	args := []string{"producer", "memory=3", "page=4", fmt.Sprint("id=", l.id), fmt.Sprint("epoch=", l.epoch), fmt.Sprint("slot=", l.slot), fmt.Sprint("flags=", flag(l.ring.lossless)),
		fmt.Sprint("capacity=", capacity), fmt.Sprint("maxframe=", maxFrame), fmt.Sprint("stall=", int64(l.ring.stall)), fmt.Sprint("known=", l.ring.epoch)}
	for _, c := range readers {
		args = append(args, fmt.Sprintf("peer=2:%d:%d:%d:%d:%d:0:0:%d", c.id, c.epoch, c.slot, flag(c.lossless), shm.ConsumerSize, 3+len(files)))
		files = append(files, readOnly(l.ring.t, c.file))
	}
	cmd := exec.Command(program(l.ring.t, "testdata/member.c", l.ring.flags...), args...)
	cmd.ExtraFiles = files
	return cmd
}

func (l *lane) cProducer(readers ...*consumer) *member {
	return start(l.ring.t, l.cProducerCommand(readers...))
}

// cConsumerCommand is how to run the C consumer.
func (c *consumer) cConsumerCommand(more []string, lanes ...*lane) *exec.Cmd {
	files := []*os.File{c.file, c.ring.pageFile}
	args := []string{"consumer", "memory=3", "page=4", fmt.Sprint("id=", c.id), fmt.Sprint("epoch=", c.epoch), fmt.Sprint("slot=", c.slot), fmt.Sprint("flags=", flag(c.lossless)),
		fmt.Sprint("known=", c.ring.epoch)}
	for _, l := range lanes {
		args = append(args, fmt.Sprintf("peer=1:%d:%d:%d:%d:%d:%d:%d:%d", l.id, l.epoch, l.slot, flag(c.ring.lossless), shm.LaneSize(capacity), capacity, maxFrame, 3+len(files)))
		files = append(files, readOnly(c.ring.t, l.file))
	}
	cmd := exec.Command(program(c.ring.t, "testdata/member.c", c.ring.flags...), append(args, more...)...)
	cmd.ExtraFiles = files
	return cmd
}

func (c *consumer) cConsumer(more []string, lanes ...*lane) *member {
	return start(c.ring.t, c.cConsumerCommand(more, lanes...))
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// readOnly opens memory as the daemon does for other members.
func readOnly(t *testing.T, f *os.File) *os.File {
	t.Helper()
	again, err := shm.Reopen(f, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

// start runs a member and sees it join.
func start(t *testing.T, cmd *exec.Cmd) *member {
	t.Helper()
	m := &member{t: t, cmd: cmd}
	cmd.Stderr = os.Stderr
	var err error
	if m.input, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	m.output = bufio.NewScanner(output)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(2*hang, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		m.input.Close()
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("the C member: %v", err)
		}
		watchdog.Stop()
	})
	if result := m.until("joined", nil); result != "0" {
		t.Fatalf("joining: %s, %s", result, m.until("text", nil))
	}
	return m
}

// tell sends a command.
func (m *member) tell(format string, args ...any) {
	m.t.Helper()
	if _, err := fmt.Fprintf(m.input, format+"\n", args...); err != nil {
		m.t.Fatal(err)
	}
}

// until reads lines up to the one that begins with a word, and returns what stands behind it.
func (m *member) until(word string, other func(line string)) string {
	m.t.Helper()
	for m.output.Scan() {
		first, rest, _ := strings.Cut(m.output.Text(), " ")
		if first == word {
			return rest
		}
		if other == nil {
			m.t.Fatalf("%q came instead of %s", m.output.Text(), word)
		}
		other(m.output.Text())
	}
	m.t.Fatalf("the C member ended before it said %s: %v", word, m.output.Err())
	return ""
}

// result is a number that a member answers with: a negative errno, or what was asked for.
func (m *member) result(word string, other func(line string)) int64 {
	m.t.Helper()
	n, err := strconv.ParseInt(m.until(word, other), 10, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// published waits for the answer to publish.
func (m *member) published() int64 { m.t.Helper(); return m.result("published", nil) }

// message is what a reader got, in C or in Go.
type message struct {
	typ      int64
	sequence uint64
	lost     uint64
	size     int
	good     bool // the payload is that of the type
	torn     bool // it is not, though nothing said so
	lane     uint64
}

// read waits for the answer to a read.
func (m *member) read() (got []message, result int64) {
	m.t.Helper()
	result = m.result("read", func(line string) {
		var g message
		var good int
		var nanos int64
		if _, err := fmt.Sscanf(line, "message %d %d %d %d %d %d %d", &g.typ, &g.sequence, &g.lost, &g.size, &good, &g.lane, &nanos); err != nil {
			m.t.Fatalf("%q: %v", line, err)
		}
		g.good, g.torn = good == 1, good == 0
		got = append(got, g)
	})
	return got, result
}

// stats asks for the counters.
func (m *member) stats() map[string]uint64 {
	m.t.Helper()
	m.tell("stats")
	all := map[string]uint64{}
	for _, pair := range strings.Fields(m.until("stats", nil)) {
		name, value, _ := strings.Cut(pair, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			m.t.Fatal(err)
		}
		all[name] = n
	}
	return all
}

// pattern is the payload of a message: see testdata/member.c.
func pattern(typ int64, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(typ*31 + int64(i)*7 + int64(i>>8))
	}
	return b
}

// goRead reads n messages in Go.
func goRead(t *testing.T, r *shm.Reader, n int) []message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	var got []message
	for range n {
		m, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("after %d messages: %v", len(got), err)
		}
		got = append(got, goMessage(m))
	}
	return got
}

func goMessage(m shm.Message) message {
	return message{typ: m.Type, sequence: m.Sequence, lost: m.Lost, size: len(m.Payload), good: string(m.Payload) == string(pattern(m.Type, len(m.Payload))), lane: m.Lane}
}

// goPublish publishes n messages in Go, of rising types. A size below 0 stands for sizes 0, 1, 2 and so on.
func goPublish(t *testing.T, w *shm.Writer, typ int64, size, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	for i := range n {
		length := size
		if size < 0 {
			length = i
		}
		if err := w.Publish(ctx, typ+int64(i), pattern(typ+int64(i), length)); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

// eventually waits for a state that another process brings about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(hang); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: still not so after %v", what, hang)
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// expectRun fails unless messages of rising types and sequences came, whole and without loss.
func expectRun(t *testing.T, got []message, typ int64, sequence uint64, size, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d messages came, not %d", len(got), n)
	}
	for i, m := range got {
		length := size
		if size < 0 {
			length = i
		}
		want := message{typ: typ + int64(i), sequence: sequence + uint64(i), size: length, good: true, lane: m.lane}
		if m != want {
			t.Fatalf("message %d is %+v, not %+v", i, m, want)
		}
	}
}

func uintText(n uint64) string { return strconv.FormatUint(n, 10) }
