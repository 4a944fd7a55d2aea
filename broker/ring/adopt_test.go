package ring

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// survivor is what a member keeps over restarts of the daemon.
type survivor struct {
	*process
	id  identity.Identity
	own *os.File
	q   AdoptRequest
}

// keep takes what a member needs to come back.
func (p *process) keep(t *testing.T, id identity.Identity, name string) *survivor {
	t.Helper()
	own, err := duplicate(p.Own())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	return &survivor{process: p, id: id, own: own, q: AdoptRequest{Name: name, Role: p.role, Lossless: p.header.Lossless,
		RingID: p.header.RingID, MemberID: p.header.MemberID, Slot: p.header.Slot, Epoch: p.header.Epoch, Token: p.Token()}}
}

func (w *world) adopt(s *survivor) (*Member, error) {
	return w.Adopt(context.Background(), s.id, s.q, s.own)
}

func (w *world) back(s *survivor) {
	w.Helper()
	m, err := w.adopt(s)
	if err != nil {
		w.Fatal(err)
	}
	s.Member = m
}

// watched is a context that tells when somebody waits for its end.
type watched struct {
	context.Context
	once  sync.Once
	asked chan struct{}
}

func (w *watched) Done() <-chan struct{} {
	w.once.Do(func() { close(w.asked) })
	return w.Context.Done()
}

// hour is an adoption window that does not end by itself.
const hour = time.Hour

func TestMembersGoOnOverARestart(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", smallLossless)
	p := w.producer(alice, "/r").keep(t, alice, "/r")
	c := w.attach(bob, AttachRequest{Name: "/r", Role: Consumer, Lossless: true}).keep(t, bob, "/r")
	out, in := p.writer(t), c.reader(t, shm.Oldest)
	out.Offer(p.peers(t))
	next := uint64(0)
	exchange := func() {
		t.Helper()
		next++
		if err := out.Publish(context.Background(), int64(next), nil); err != nil {
			t.Fatal(err)
		}
		m, err := in.Next(context.Background())
		if err != nil || m.Type != int64(next) || m.Sequence != next || m.Lost != 0 {
			t.Fatalf("message %d: %+v, %v", next, m, err)
		}
	}
	exchange()
	epoch := w.info("/r").Epoch
	w.Close()
	exchange() // without any daemon
	w.start()
	exchange()
	w.back(p)
	out.Offer(p.peers(t))
	w.back(c)
	in.Offer(c.peers(t))
	out.Offer(p.peers(t))
	exchange()
	i := w.info("/r")
	if len(i.Lanes) != 1 || len(i.Consumers) != 1 || i.Bytes != laneSize+shm.ConsumerSize || i.Epoch <= epoch {
		t.Fatalf("%+v, the epoch was %d", i, epoch)
	}
	if l := i.Lanes[0]; l.ID != p.q.MemberID || l.Slot != p.q.Slot || l.Sequence != next || l.Ended || l.Who.UID != alice.UID {
		t.Errorf("the lane: %+v", l)
	}
	if p.Token() != p.q.Token || p.Epoch() != w.run<<32+1 {
		t.Errorf("the token or the epoch (%#x) is another", p.Epoch())
	}
	if e := c.members(t).Entries[0]; e.Epoch != p.q.Epoch || e.Size != laneSize {
		t.Errorf("the consumer learns %+v", e)
	}
	w.restart() // and once more
	w.back(p)
	w.back(c)
	out.Offer(p.peers(t))
	in.Offer(c.peers(t))
	exchange()
	p.Leave("test")
	c.Leave("test")
}

func TestForgedAdoptionsAreRefused(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", smallLossless)
	w.create(alice, "/s", smallLossless)
	good := w.producer(alice, "/r").keep(t, alice, "/r")
	other := w.producer(alice, "/r").keep(t, alice, "/r")
	reads := w.attach(alice, AttachRequest{Name: "/r", Role: Consumer, Lossless: true}).keep(t, alice, "/r")
	_, err := w.adopt(good)
	wants(t, err, reason.AccessDenied, "this run") // it is a member
	w.restart()
	for what, forge := range map[string]struct {
		forge func(*survivor)
		why   reason.Reason
	}{
		"a token":              {func(s *survivor) { s.q.Token[31] ^= 1 }, reason.AccessDenied},
		"no token":             {func(s *survivor) { s.q.Token = [32]byte{} }, reason.AccessDenied},
		"another id":           {func(s *survivor) { s.q.MemberID++ }, reason.AccessDenied},
		"another slot":         {func(s *survivor) { s.q.Slot++ }, reason.AccessDenied},
		"no slot":              {func(s *survivor) { s.q.Slot = 64 }, reason.InvalidArgument},
		"slot -1":              {func(s *survivor) { s.q.Slot = 1<<32 - 1 }, reason.InvalidArgument},
		"another epoch":        {func(s *survivor) { s.q.Epoch-- }, reason.AccessDenied},
		"another ring's id":    {func(s *survivor) { s.q.RingID++ }, reason.RingDeleted},
		"another ring's name":  {func(s *survivor) { s.q.Name = "/s" }, reason.RingDeleted},
		"another ring":         {func(s *survivor) { s.q.Name, s.q.RingID = "/s", s.q.RingID+1 }, reason.AccessDenied},
		"no ring":              {func(s *survivor) { s.q.Name = "/none" }, reason.RingNotFound},
		"another role":         {func(s *survivor) { s.q.Role = Consumer }, reason.InvalidArgument}, // of another size
		"no role":              {func(s *survivor) { s.q.Role = 0 }, reason.InvalidArgument},
		"other flags":          {func(s *survivor) { s.q.Lossless = false }, reason.AccessDenied},
		"another uid":          {func(s *survivor) { s.id = bob }, reason.AccessDenied},
		"anonymous":            {func(s *survivor) { s.id = nemo }, reason.AccessDenied},
		"somebody else's lane": {func(s *survivor) { s.own = other.own }, reason.AccessDenied},
		"a consumer's pages":   {func(s *survivor) { s.own = reads.own }, reason.InvalidArgument},
		"all but the memory":   {func(s *survivor) { s.q = other.q }, reason.AccessDenied},
	} {
		t.Run(what, func(t *testing.T) {
			s := *good
			forge.forge(&s)
			_, err := w.adopt(&s)
			wants(t, err, forge.why)
		})
	}
	if i := w.info("/r"); len(i.Lanes)+len(i.Consumers) != 0 || i.Bytes != 0 || i.Epoch != w.run<<32 {
		t.Errorf("what was refused left %+v", i)
	}
	w.back(good) // who tells the truth still can
	w.back(other)
	w.back(reads)
}

func TestStrangersDescriptorsAreRefused(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", small)
	s := w.producer(alice, "/r").keep(t, alice, "/r")
	w.restart()
	open := func(name string, flags int) *os.File {
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	memory := func(size int64, populate bool, seals int) *os.File {
		f, err := shm.CreateMemory("test", size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		m, err := shm.Map(f, size, true)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Release)
		if populate {
			if err := m.Populate(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return f
	}
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer end.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(pair[0]), "socket")
	defer socket.Close()
	defer unix.Close(pair[1])
	regular := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(regular, make([]byte, laneSize), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := open(regular, os.O_RDONLY)
	closed.Close()
	unsealed, err := unix.MemfdCreate("test", unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	free := os.NewFile(uintptr(unsealed), "memfd")
	defer free.Close()
	if err := free.Truncate(laneSize); err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]*os.File{
		"a pipe":              pipe,
		"a socket":            socket,
		"/dev/zero":           open("/dev/zero", os.O_RDWR),
		"a directory":         open(t.TempDir(), os.O_RDONLY),
		"a file":              open(regular, os.O_RDWR),
		"a path only":         open(regular, unix.O_PATH),
		"its memory's path":   open(fmt.Sprintf("/proc/self/fd/%d", s.own.Fd()), unix.O_PATH),
		"unsealed memory":     free,
		"open memory":         memory(laneSize, true, 0),
		"too little memory":   memory(laneSize-shm.PageSize, true, unix.F_SEAL_FUTURE_WRITE),
		"too much memory":     memory(laneSize+shm.PageSize, true, unix.F_SEAL_FUTURE_WRITE),
		"memory with holes":   memory(laneSize, false, unix.F_SEAL_FUTURE_WRITE),
		"memory sealed shut":  memory(laneSize, true, unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_SEAL),
		"a closed descriptor": closed,
	} {
		t.Run(what, func(t *testing.T) {
			forged := *s
			forged.own = f
			_, err := w.adopt(&forged)
			wants(t, err, reason.InvalidArgument, "descriptor")
		})
	}
	// Memory that is right in every respect, and yet was never given out.
	forged := *s
	forged.own = memory(laneSize, true, unix.F_SEAL_FUTURE_WRITE)
	_, err = w.adopt(&forged)
	wants(t, err, reason.AccessDenied)
	if i := w.info("/r"); i.Bytes != 0 {
		t.Errorf("%d bytes are charged", i.Bytes)
	}
	before := descriptors(t)
	for range 100 {
		if _, err := w.adopt(&forged); err == nil {
			t.Fatal("adopted")
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
	w.back(s)
}

func TestAdoptionIsOnceAndForMembersOfEarlierRuns(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", small)
	p := w.producer(alice, "/r").keep(t, alice, "/r")
	c := w.consumer(alice, "/r").keep(t, alice, "/r")
	w.restart()
	for _, s := range []*survivor{p, c} {
		w.back(s)
		first := s.Member
		_, err := w.adopt(s)
		wants(t, err, reason.AccessDenied, "attach anew")
		first.Leave("test")
		_, err = w.adopt(s)
		wants(t, err, reason.AccessDenied, "attach anew")
	}
	w.restart() // its lane had ended
	_, err := w.adopt(c)
	if err != nil {
		t.Errorf("a consumer whose memory is still mapped: %v", err)
	}
}

func TestAdoptionIsCharged(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: hour})
	w.create(alice, "/r", small)
	a, b := w.producer(alice, "/r").keep(t, alice, "/r"), w.producer(alice, "/r").keep(t, alice, "/r")
	w.o.MemoryPerUID = 2*laneSize - 1
	w.restart()
	w.back(a)
	_, err := w.adopt(b)
	wants(t, err, reason.QuotaExceeded, "uid 1000")
	w.o.MemoryPerUID = 0
	w.restart()
	w.back(b) // a refusal does no harm to it
	w.back(a)
	if got := w.info("/r").Bytes; got != 2*laneSize {
		t.Errorf("%d bytes are charged", got)
	}
}

func TestAdoptionNeedsAccessAndItsSlot(t *testing.T) {
	w := newWorld(t, Options{AdoptWindow: time.Nanosecond})
	w.create(alice, "/r", small)
	his := w.producer(bob, "/r").keep(t, bob, "/r")
	w.restart()
	mode := func(mode uint32) {
		t.Helper()
		if _, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error { s.Mode = mode; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	mode(0o604)
	_, err := w.adopt(his)
	wants(t, err, reason.AccessDenied, "produce into it")
	mode(0o666)
	taken := w.producer(alice, "/r") // he came too late
	if taken.header.Slot != his.q.Slot {
		t.Fatal("another slot")
	}
	_, err = w.adopt(his)
	wants(t, err, reason.QuotaExceeded, "slot 0")
	if n := len(w.info("/r").Lanes); n != 1 {
		t.Errorf("%d lanes", n)
	}
	taken.Leave("test") // its lane is still there, but must not be in the way
	w.back(his)
	if ids := w.consumer(alice, "/r").members(t).ids(); !slices.Equal(ids, []uint64{his.q.MemberID}) {
		t.Errorf("lanes %v", ids)
	}
}
