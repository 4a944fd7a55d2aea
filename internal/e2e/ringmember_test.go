//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client/ring"
)

// Members of rings run as processes of their own, so that they can be killed: this test's program, started with
// memberVariable in its environment.

// memberVariable says what a process of this program is to be: a producer or a consumer.
const memberVariable = "E2E_RING_MEMBER"

// memberOptions is what a member is told, as JSON in its only argument.
type memberOptions struct {
	Ring     string
	Attach   string
	Lossless bool          // of a consumer
	Oldest   bool          // where a consumer begins
	Pause    time.Duration // of a consumer, now and then, so that it is too slow
	Pace     time.Duration // of a producer, between batches; 0: none
	Tell     bool          // of a producer: how far it is, on stderr, after each batch
	Largest  int           // bytes of a payload
}

// runMember is the whole of a member's process. It ends with SIGTERM, and says how it fared.
func runMember(role string) int {
	var o memberOptions
	if err := json.Unmarshal([]byte(os.Args[1]), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	member := produce
	if role == "consumer" {
		member = consume
	}
	report, err := member(ctx, o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		return 1
	}
	return 0
}

// memberReport is how a member fared, of each lane by its id.
type memberReport struct {
	Lanes    map[uint64]*laneReport
	Evicted  int
	Restarts int // times that it found another daemon
}

type laneReport struct {
	First, Last    uint64 // sequences
	Received, Lost uint64 // messages
}

// payloadOf returns what every producer publishes under a sequence: its length and bytes follow from the lane and
// the sequence, so that a consumer can tell whether it got what was published, and all of it.
func payloadOf(room []byte, lane, sequence uint64, largest int) []byte {
	x := (lane*0x9e3779b97f4a7c15 ^ sequence) * 0xbf58476d1ce4e5b9
	n := 16 + int(x>>33)%(largest-15)
	room = room[:n]
	binary.LittleEndian.PutUint64(room, lane)
	binary.LittleEndian.PutUint64(room[8:], sequence)
	for i := 16; i < n; i++ {
		room[i] = byte(x>>(i%8*8)) + byte(i)
	}
	return room
}

// typeOf returns the type of the message with a sequence.
func typeOf(sequence uint64) int64 { return int64(sequence%5 + 1) }

// toldPrefix stands before how far a producer is.
const toldPrefix = "published up to "

// told returns the last that a producer told of how far it is.
func (m *member) told() (sequence uint64) {
	lines := strings.Split(m.words.String(), "\n")
	for _, line := range lines[:len(lines)-1] { // the last one may be cut off
		if text, ok := strings.CutPrefix(line, toldPrefix); ok {
			sequence, _ = strconv.ParseUint(text, 10, 64)
		}
	}
	return sequence
}

// produce publishes until it is told to stop.
func produce(ctx context.Context, o memberOptions) (report memberReport, err error) {
	p, err := ring.NewProducer(ctx, o.Ring, ring.ProducerOptions{Attach: o.Attach, Logger: note})
	if err != nil {
		return report, err
	}
	defer p.Close()
	lane := &laneReport{First: 1}
	report.Lanes = map[uint64]*laneReport{p.Lane(): lane}
	fmt.Fprintf(os.Stderr, "produces in lane %d\n", p.Lane())
	room := make([]byte, o.Largest)
	for ctx.Err() == nil {
		for range 64 {
			next := p.Sequence() + 1
			err := p.PublishContext(ctx, typeOf(next), payloadOf(room, p.Lane(), next, o.Largest))
			if ctx.Err() != nil {
				break
			}
			if err != nil {
				return report, err
			}
		}
		if o.Tell {
			fmt.Fprintf(os.Stderr, "%s%d\n", toldPrefix, p.Sequence())
		}
		if o.Pace > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(o.Pace):
			}
		}
	}
	lane.Last = p.Sequence()
	return report, nil
}

// consume reads until it is told to stop, and holds every message against what must have been published.
func consume(ctx context.Context, o memberOptions) (report memberReport, err error) {
	from := ring.Newest
	if o.Oldest {
		from = ring.Oldest
	}
	c, err := ring.NewConsumer(ctx, o.Ring, ring.ConsumerOptions{Attach: o.Attach, From: from, Lossless: o.Lossless, Logger: note})
	if err != nil {
		return report, err
	}
	defer c.Close()
	fmt.Fprintln(os.Stderr, "consumes")
	report.Lanes = map[uint64]*laneReport{}
	room := make([]byte, o.Largest)
	batch := make([]ring.Message, 100)
	for ctx.Err() == nil {
		n, err := c.NextBatch(ctx, batch)
		for _, m := range batch[:n] {
			if err := report.add(&m, room); err != nil {
				return report, err
			}
		}
		switch {
		case errors.Is(err, ring.ErrEvicted):
			report.Evicted++
		case err != nil && ctx.Err() == nil:
			return report, err
		}
		if o.Pause > 0 && rand.IntN(50) == 0 {
			time.Sleep(rand.N(o.Pause))
		}
	}
	for { // what is there already
		m, ok, err := c.TryNext()
		if err != nil || !ok {
			return report, err
		}
		if err := report.add(&m, room); err != nil {
			return report, err
		}
	}
}

// add checks a message and counts it: sequences go on where they were, but for what is said to be lost.
func (r *memberReport) add(m *ring.Message, room []byte) error {
	lane := r.Lanes[m.Lane]
	if lane == nil {
		lane = &laneReport{First: m.Sequence - m.Lost, Last: m.Sequence - m.Lost - 1}
		r.Lanes[m.Lane] = lane
	}
	if m.Sequence != lane.Last+1+m.Lost {
		return fmt.Errorf("VIOLATION: lane %d: sequence %d after %d with %d lost", m.Lane, m.Sequence, lane.Last, m.Lost)
	}
	if m.Type != typeOf(m.Sequence) || !bytes.Equal(m.Payload, payloadOf(room, m.Lane, m.Sequence, len(room))) {
		return fmt.Errorf("VIOLATION: lane %d: message %d is not what was published: type %d, %d bytes %x", m.Lane, m.Sequence, m.Type, len(m.Payload), m.Payload)
	}
	lane.Last = m.Sequence
	lane.Received++
	lane.Lost += m.Lost
	return nil
}

func note(line string) { fmt.Fprintln(os.Stderr, "note:", line) }

// member is a member's process.
type member struct {
	*running
	role string
}

// join starts a member and waits until it has joined.
func (d *daemon) join(t *testing.T, role string, o memberOptions) *member {
	t.Helper()
	m := d.launchMember(t, role, o)
	eventually(t, "a "+role+" joins", func() bool {
		select {
		case <-m.exited:
			t.Fatalf("the %s is gone: %v: %s", role, m.cmd.ProcessState, &m.words)
		default:
		}
		return strings.Contains(m.words.String(), map[string]string{"producer": "produces", "consumer": "consumes"}[role])
	})
	return m
}

// launchMember starts a member and waits for nothing.
func (d *daemon) launchMember(t *testing.T, role string, o memberOptions) *member {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Attach = d.attach
	arguments, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, string(arguments))
	cmd.Env = environment(memberVariable + "=" + role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	m := &member{background(t, cmd), role}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the %s %d says:\n%s", role, m.pid(), &m.words)
		}
	})
	return m
}

// pid returns the process's id.
func (m *member) pid() int { return m.cmd.Process.Pid }

// kill ends a member as a crash does.
func (m *member) kill() {
	_ = m.cmd.Process.Kill()
	<-m.exited
}

// stop lets a member come to its end, and returns how it fared.
func (m *member) stop(t *testing.T) (report memberReport) {
	t.Helper()
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-time.After(patience):
		t.Fatalf("the %s %d does not stop: %s", m.role, m.pid(), &m.words)
	}
	unmarshal(t, m.wait().ok(t), &report)
	return report
}

// alive fails if a member has ended on its own, as it does when it finds what must not be.
func (m *member) alive(t *testing.T) {
	t.Helper()
	select {
	case <-m.exited:
		t.Fatalf("the %s %d is gone: %v: %s", m.role, m.pid(), m.cmd.ProcessState, &m.words)
	default:
	}
}

// seedOf returns the seed of a test with chance in it, and tells it if the test fails.
func seedOf(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if text := os.Getenv("E2E_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with E2E_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}
