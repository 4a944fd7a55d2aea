package shmring

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

var root = identity.Identity{Kind: identity.Unix, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}

// realRings opens rings in dir with one ring, "/ring", of the smallest capacity.
func realRings(t *testing.T, dir string) *ring.Rings {
	t.Helper()
	r, err := ring.Open(ring.Options{Logger: zaptest.NewLogger(t), Dir: dir, BootID: "boot", Root: t.TempDir(), AdoptWindow: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	_, _, err = r.Create(context.Background(), root, "/ring", func(s *ring.Settings) error {
		s.Capacity = limits.RingCapacityMin
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// startReal serves real rings until the test ends.
func startReal(t *testing.T, dir string) (*Server, *ring.Rings, string) {
	t.Helper()
	r := realRings(t, dir)
	s := New(Options{Rings: Over(r), Logger: zaptest.NewLogger(t)})
	return s, r, serveOn(t, s, nil)
}

// realMember is a client that has attached and mapped what it was given.
type realMember struct {
	client
	role   attach.Role
	header attach.Memory
	memory *shm.Memory
	own    *os.File
	page   *os.File
	token  [32]byte
	epoch  uint64 // at which it joined
}

func joinReal(t *testing.T, path string, role attach.Role) *realMember {
	t.Helper()
	m := &realMember{client: dial(t, path), role: role}
	m.send(attach.Attach{Role: role, Name: "/ring"})
	p, files := m.receive()
	header, ok := p.(attach.Memory)
	if !ok {
		t.Fatalf("%+v", p)
	}
	m.header = header
	memory, err := shm.Map(files[0], int64(header.Size), true)
	if err == nil {
		err = memory.Populate()
	}
	if err != nil {
		t.Fatal(err)
	}
	m.memory = memory
	t.Cleanup(memory.Release)
	files[0].Close()
	m.send(attach.Got{})
	m.send(attach.Ready{})
	p, files = m.receive()
	attached, ok := p.(attach.Attached)
	if !ok {
		t.Fatalf("%+v", p)
	}
	m.own, m.page, m.token, m.epoch = files[0], files[1], attached.Token, attached.Epoch
	m.send(attach.Got{})
	return m
}

// list asks for the others and maps them.
func (m *realMember) list() shm.Members {
	m.t.Helper()
	m.send(attach.Pull{})
	p, files := m.receive()
	list, ok := p.(attach.Members)
	if !ok {
		m.t.Fatalf("%+v", p)
	}
	if len(files) > 0 {
		m.send(attach.Got{})
	}
	page, err := shm.Map(m.page, shm.MembersSize, false)
	if err != nil {
		m.t.Fatal(err)
	}
	all := shm.Members{Epoch: list.Epoch, Partial: list.Partial, Page: shm.NewPage(page)}
	for _, e := range list.Entries {
		memory, err := shm.Map(files[0], int64(e.Size), false)
		if err != nil {
			m.t.Fatal(err)
		}
		files = files[1:]
		if e.Kind == attach.EntryLane {
			all.Lanes = append(all.Lanes, shm.LanePeer{ID: e.ID, Epoch: e.Epoch, Slot: e.Slot, Lossless: e.Lossless, Ended: e.Ended,
				Geometry: shm.Geometry{Capacity: e.Capacity, MaxFrame: e.MaxFrame}, Memory: memory})
		} else {
			all.Consumers = append(all.Consumers, shm.ConsumerPeer{ID: e.ID, Epoch: e.Epoch, Slot: e.Slot, Lossless: e.Lossless, Memory: memory})
		}
	}
	return all
}

func (m *realMember) writer() *shm.Writer {
	w := shm.NewWriter(shm.WriterConfig{Memory: m.memory.Retain(), RingID: m.header.RingID, LaneID: m.header.MemberID, Epoch: m.header.Epoch, Slot: m.header.Slot,
		Geometry: shm.Geometry{Capacity: m.header.Capacity, MaxFrame: m.header.MaxFrame}, Stall: m.header.Stall, Pull: func() {}}, m.list())
	m.t.Cleanup(w.Close)
	return w
}

func (m *realMember) reader() *shm.Reader {
	r := shm.NewReader(shm.ReaderConfig{Memory: m.memory.Retain(), RingID: m.header.RingID, ConsumerID: m.header.MemberID, Epoch: m.epoch, Slot: m.header.Slot,
		Start: shm.Oldest, Pull: func() {}}, m.list())
	m.t.Cleanup(r.Close)
	return r
}

func (m *realMember) adopt() attach.Adopt {
	return attach.Adopt{Role: m.role, Lossless: m.header.Lossless, RingID: m.header.RingID, MemberID: m.header.MemberID, Epoch: m.header.Epoch,
		Slot: m.header.Slot, Token: m.token, Name: "/ring"}
}

func lanes(t *testing.T, r *ring.Rings) []ring.LaneInfo {
	t.Helper()
	info, err := r.Get(context.Background(), root, "/ring")
	if err != nil {
		t.Fatal(err)
	}
	return info.Lanes
}

func TestMessagesCrossTheMemoryThatIsHandedOut(t *testing.T) {
	_, r, path := startReal(t, t.TempDir())
	producer := joinReal(t, path, attach.Producer)
	w := producer.writer()
	consumer := joinReal(t, path, attach.Consumer)
	reader := consumer.reader()
	w.Offer(producer.list())
	for i := range 100 {
		text := fmt.Sprint("message ", i)
		if err := w.Publish(context.Background(), int64(i+1), []byte(text)); err != nil {
			t.Fatal(err)
		}
		m, err := reader.Next(context.Background())
		if err != nil || string(m.Payload) != text || m.Type != int64(i+1) || m.Lane != producer.header.MemberID {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	if l := lanes(t, r); len(l) != 1 || l[0].Sequence != 100 || l[0].Ended {
		t.Errorf("%+v", l)
	}
	producer.send(attach.Detach{})
	expect[attach.Detached](producer.client)
	if l := lanes(t, r); len(l) != 1 || !l[0].Ended {
		t.Errorf("after the producer left: %+v", l)
	}
}

func TestMembersComeBackAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s, r, path := startReal(t, dir)
	producer, consumer := joinReal(t, path, attach.Producer), joinReal(t, path, attach.Consumer)
	w := producer.writer()
	if err := w.Publish(context.Background(), 1, []byte("before")); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	r.Close()
	if err := w.Publish(context.Background(), 1, []byte("meanwhile")); err != nil {
		t.Fatal(err)
	}

	_, r, path = startReal(t, dir)
	// Another's memory, a token that was changed, and another slot do not pass.
	for what, change := range map[string]func(*attach.Adopt) *os.File{
		"another's memory": func(*attach.Adopt) *os.File { return consumer.own },
		"some memory":      func(*attach.Adopt) *os.File { f := memfd("x"); t.Cleanup(func() { f.Close() }); return f },
		"the page":         func(*attach.Adopt) *os.File { return producer.page },
		"token":            func(q *attach.Adopt) *os.File { q.Token[3]++; return producer.own },
		"slot":             func(q *attach.Adopt) *os.File { q.Slot++; return producer.own },
		"id":               func(q *attach.Adopt) *os.File { q.MemberID++; return producer.own },
		"epoch":            func(q *attach.Adopt) *os.File { q.Epoch++; return producer.own },
	} {
		c, q := dial(t, path), producer.adopt()
		c.send(q, change(&q))
		if e := expect[attach.ErrorReply](c); e.Status != uint32(unix.EACCES) && e.Status != uint32(unix.EINVAL) {
			t.Errorf("%s: %+v", what, e)
		}
	}
	for _, m := range []*realMember{producer, consumer} {
		m.client = dial(t, path)
		m.send(m.adopt(), m.own)
		p, files := m.receive()
		adopted, ok := p.(attach.Adopted)
		if !ok {
			t.Fatalf("%+v", p)
		}
		m.page, m.token = files[0], adopted.Token
		m.send(attach.Got{})
	}
	reader := consumer.reader()
	for _, want := range []string{"before", "meanwhile"} {
		if m, err := reader.Next(context.Background()); err != nil || string(m.Payload) != want || m.Lost != 0 {
			t.Errorf("%+v, %v; want %q", m, err, want)
		}
	}
	if l := lanes(t, r); len(l) != 1 || l[0].ID != producer.header.MemberID || l[0].Sequence != 2 || l[0].Ended {
		t.Errorf("%+v", l)
	}
}

// Between MEMORY and READY the memory can be had writable: what was done to it must be noticed.
func TestMemoryThatWasTamperedWithIsRefused(t *testing.T) {
	_, r, path := startReal(t, t.TempDir())
	for what, tamper := range map[string]func(fd int) error{
		"sealed": func(fd int) error {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL)
			return err
		},
		"not populated": func(int) error { return nil },
		"punched": func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 4096)
		},
	} {
		c := dial(t, path)
		c.send(attach.Attach{Role: attach.Producer, Name: "/ring"})
		p, files := c.receive()
		if what != "not populated" {
			memory, err := shm.Map(files[0], int64(p.(attach.Memory).Size), true)
			if err == nil {
				err = memory.Populate()
			}
			if err == nil {
				err = tamper(int(files[0].Fd()))
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			memory.Release()
		}
		c.send(attach.Got{})
		c.send(attach.Ready{})
		c.refused(reason.InvalidArgument)
	}
	if l := lanes(t, r); len(l) != 0 {
		t.Errorf("%+v", l)
	}
}

func TestADeletedRingEndsItsMembers(t *testing.T) {
	_, r, path := startReal(t, t.TempDir())
	m := joinReal(t, path, attach.Producer)
	if _, err := r.Delete(context.Background(), root, "/ring"); err != nil {
		t.Fatal(err)
	}
	m.send(attach.Pull{})
	if e := m.refused(reason.RingDeleted); e.Status != uint32(unix.EIDRM) {
		t.Errorf("%+v", e)
	}
	c := dial(t, path)
	c.send(attach.Attach{Role: attach.Consumer, Name: "/ring"})
	c.refused(reason.RingNotFound)
}

func TestNothingIsLeftOfRealMembers(t *testing.T) {
	s, r, path := startReal(t, t.TempDir())
	const cycles = 2000
	cycle := func(n int) {
		c := dialQuick(t, path)
		role := attach.Role(n%2 + 1)
		c.send(attach.Attach{Role: role, Name: "/ring"})
		p, files, err := attach.ReceiveReply(c.sock)
		if err != nil || len(files) != 1 {
			t.Fatalf("%+v, %v", p, err)
		}
		memory, err := shm.Map(files[0], int64(p.(attach.Memory).Size), true)
		if err == nil {
			err = memory.Populate()
		}
		files[0].Close()
		if err != nil {
			t.Fatal(err)
		}
		c.send(attach.Got{})
		c.send(attach.Ready{})
		expect[attach.Attached](c)
		c.send(attach.Got{})
		c.send(attach.Pull{})
		if expect[attach.Members](c).Files() > 0 {
			c.send(attach.Got{})
		}
		memory.Release()
		if n%3 > 0 {
			c.send(attach.Detach{})
			expect[attach.Detached](c)
		}
		c.sock.Close()
	}
	// The last producer's lane is kept, and with it its descriptors, until the next one evicts it.
	cycle(0)
	settle(t, s)
	before := openDescriptors(t)
	for n := range cycles {
		cycle(n + 1)
	}
	settle(t, s)
	descriptorsAre(t, before)
	info, err := r.Get(context.Background(), root, "/ring")
	if err != nil || len(info.Lanes) != 1 || len(info.Consumers) != 0 {
		t.Errorf("%+v, %v", info, err)
	}
}
