package ring

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

var (
	alice = identity.Identity{Kind: identity.Unix, UID: 1000, GID: 100, PID: 1}
	bob   = identity.Identity{Kind: identity.Unix, UID: 1001, GID: 101, Groups: []uint32{7}, PID: 2}
	root  = identity.Identity{Kind: identity.Unix}
	nemo  = identity.Identity{}
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	capacity = limits.RingCapacityMin
	laneSize = shm.LaneData + capacity
)

// small gives rings the smallest lanes, which everybody may use.
func small(s *Settings) error {
	s.Capacity, s.Mode = capacity, 0o666
	return nil
}

func smallLossless(s *Settings) error {
	s.Policy = Lossless
	return small(s)
}

// world is the daemon's rings on a state directory, over several runs.
type world struct {
	*testing.T
	*Rings
	o Options
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.BootID == "" {
		o.BootID = "boot"
	}
	if o.Root == "" {
		o.Root = t.TempDir() // no cgroup limits
	}
	w := &world{T: t, o: o}
	w.start()
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *world) start() {
	w.Helper()
	r, err := Open(w.o)
	if err != nil {
		w.Fatal(err)
	}
	w.Rings = r
}

// restart is another run of the daemon, while members go on.
func (w *world) restart() {
	w.Helper()
	w.Close()
	w.start()
}

func (w *world) create(id identity.Identity, name string, edit Edit) Info {
	w.Helper()
	i, created, err := w.Create(context.Background(), id, name, edit, false)
	if err != nil || !created {
		w.Fatalf("create %s: created %v, %v", name, created, err)
	}
	return i
}

func (w *world) info(name string) Info {
	w.Helper()
	i, err := w.Get(context.Background(), root, name)
	if err != nil {
		w.Fatal(err)
	}
	return i
}

// process is a member's side of things.
type process struct {
	*Member
	header Header
	memory *shm.Memory // mapped writable
	once   sync.Once
}

// die unmaps what the process has.
func (p *process) die() { p.once.Do(p.memory.Release) }

// begin attaches up to where the memory is populated.
func (w *world) begin(id identity.Identity, q AttachRequest) (*Joining, *process) {
	w.Helper()
	j, err := w.Attach(context.Background(), id, q)
	if err != nil {
		w.Fatal(err)
	}
	h := j.Header()
	m, err := shm.Map(j.Memory(), h.Size, true)
	if err == nil {
		err = m.Populate()
	}
	if err != nil {
		w.Fatal(err)
	}
	p := &process{header: h, memory: m}
	w.Cleanup(p.die)
	return j, p
}

func (w *world) attach(id identity.Identity, q AttachRequest) *process {
	w.Helper()
	j, p := w.begin(id, q)
	m, err := j.Ready()
	if err != nil {
		w.Fatal(err)
	}
	p.Member = m
	return p
}

func (w *world) producer(id identity.Identity, name string) *process {
	w.Helper()
	return w.attach(id, AttachRequest{Name: name, Role: Producer})
}

func (w *world) consumer(id identity.Identity, name string) *process {
	w.Helper()
	return w.attach(id, AttachRequest{Name: name, Role: Consumer})
}

// members lists who is there.
func (p *process) members(t *testing.T) Listing {
	t.Helper()
	l, err := p.Members(func(uint64) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// ids are those of a listing, by slot.
func (l Listing) ids() []uint64 {
	var all []uint64
	for _, e := range l.Entries {
		all = append(all, e.ID)
	}
	return all
}

// peers turns a listing into what handles take.
func (p *process) peers(t *testing.T) shm.Members {
	t.Helper()
	page, err := shm.Map(p.Page(), shm.MembersSize, false)
	if err != nil {
		t.Fatal(err)
	}
	l := p.members(t)
	all := shm.Members{Epoch: l.Epoch, Partial: l.Partial, Page: shm.NewPage(page)}
	for _, e := range l.Entries {
		m, err := shm.Map(e.File, e.Size, false)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == Producer {
			all.Lanes = append(all.Lanes, shm.LanePeer{ID: e.ID, Epoch: e.Epoch, Slot: e.Slot, Geometry: e.Geometry, Lossless: e.Lossless, Ended: e.Ended, Memory: m})
		} else {
			all.Consumers = append(all.Consumers, shm.ConsumerPeer{ID: e.ID, Epoch: e.Epoch, Slot: e.Slot, Lossless: e.Lossless, Memory: m})
		}
	}
	return all
}

// writer returns the producer's Writer.
func (p *process) writer(t *testing.T) *shm.Writer {
	t.Helper()
	w := shm.NewWriter(shm.WriterConfig{Memory: p.memory.Retain(), RingID: p.header.RingID, LaneID: p.header.MemberID, Epoch: p.header.Epoch, Slot: p.header.Slot,
		Geometry: p.header.Geometry, Lossless: p.header.Lossless, Stall: p.header.Stall, Pull: func() {}}, p.peers(t))
	t.Cleanup(w.Close)
	return w
}

// reader returns the consumer's Reader.
func (p *process) reader(t *testing.T, start shm.Start) *shm.Reader {
	t.Helper()
	r := shm.NewReader(shm.ReaderConfig{Memory: p.memory.Retain(), RingID: p.header.RingID, ConsumerID: p.header.MemberID, Epoch: p.Epoch(), Slot: p.header.Slot,
		Lossless: p.header.Lossless, Start: start, Pull: func() {}}, p.peers(t))
	t.Cleanup(r.Close)
	return r
}

// wants fails unless err has that reason, and words in its text.
func wants(t *testing.T, err error, why reason.Reason, words ...string) {
	t.Helper()
	if reason.Of(err) != why {
		t.Fatalf("got %q (%v), want %q", reason.Of(err), err, why)
	}
	for _, word := range words {
		if err != nil && !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// soon waits until something is so. It fails only where it never gets so.
func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// descriptors is how many files this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
