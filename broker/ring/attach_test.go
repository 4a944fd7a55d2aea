package ring

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestMemberGetsWhatItNeedsToKnow(t *testing.T) {
	w := newWorld(t, Options{})
	i := w.create(alice, "/r", func(s *Settings) error {
		s.Stall, s.MaxMessage = 77*time.Millisecond, 1000
		return smallLossless(s)
	})
	p := w.producer(alice, "/r")
	want := Header{RingID: i.ID, MemberID: p.ID(), Lossless: true, Geometry: shm.Geometry{Capacity: capacity, MaxFrame: 1056},
		Stall: 77 * time.Millisecond, Epoch: i.Epoch + 1, Size: laneSize}
	if p.header != want {
		t.Errorf("producer: %+v, want %+v", p.header, want)
	}
	header := shm.LaneHeader{Lossless: true, RingID: i.ID, LaneID: p.ID(), Epoch: want.Epoch, Geometry: want.Geometry, Stall: want.Stall}.Bytes()
	if !slices.Equal(p.memory.Bytes()[:len(header)], header) {
		t.Error("the lane does not begin with its header")
	}
	c := w.attach(bob, AttachRequest{Name: "/r", Role: Consumer, Lossless: true, PID: 4711})
	want = Header{RingID: i.ID, MemberID: c.ID(), Lossless: true, Geometry: want.Geometry, Stall: want.Stall, Epoch: i.Epoch + 2, Size: shm.ConsumerSize}
	if c.header != want {
		t.Errorf("consumer: %+v, want %+v", c.header, want)
	}
	if p.ID() == c.ID() || p.Token() == c.Token() {
		t.Error("two members share an id or a token")
	}
	l := p.members(t)
	if len(l.Entries) != 1 || l.Entries[0].PID != 4711 || l.Entries[0].UID != bob.UID || !l.Entries[0].Lossless || l.Entries[0].ID != c.ID() || l.Entries[0].Kind != Consumer {
		t.Errorf("the producer learns %+v", l)
	}
	l = c.members(t)
	if len(l.Entries) != 1 || l.Entries[0].PID != 1 || l.Entries[0].Size != laneSize || l.Entries[0].Geometry != want.Geometry || l.Entries[0].ID != p.ID() || l.Entries[0].Kind != Producer {
		t.Errorf("the consumer learns %+v", l)
	}
}

func TestAttachingIsCheckedLikeAFile(t *testing.T) {
	w := newWorld(t, Options{Access: access.New(access.Policy{DaemonUID: 77}, nil)})
	daemon := identity.Identity{Kind: identity.Unix, UID: 77, GID: 77}
	mate := identity.Identity{Kind: identity.Unix, UID: 5, GID: 5, Groups: []uint32{100}}
	for _, c := range []struct {
		mode                        uint32
		who                         identity.Identity
		produces, consumes, holdsUp bool
	}{
		{0o000, alice, false, false, false},
		{0o200, alice, true, false, false},
		{0o400, alice, false, true, false},
		{0o600, alice, true, true, true},
		{0o066, alice, false, false, false}, // the owner's bits alone count
		{0o020, mate, true, false, false},
		{0o040, mate, false, true, false},
		{0o606, mate, false, false, false},
		{0o002, bob, true, false, false},
		{0o004, bob, false, true, false},
		{0o006, bob, true, true, true},
		{0o660, bob, false, false, false},
		{0o000, root, true, true, true},
		{0o000, daemon, true, true, true},
		{0o666, nemo, false, false, false},
	} {
		name := "/r"
		w.create(alice, name, func(s *Settings) error {
			err := smallLossless(s)
			s.Mode = c.mode
			return err
		})
		for _, q := range []struct {
			AttachRequest
			may bool
		}{
			{AttachRequest{Name: name, Role: Producer}, c.produces},
			{AttachRequest{Name: name, Role: Consumer}, c.consumes},
			{AttachRequest{Name: name, Role: Consumer, Lossless: true}, c.holdsUp},
		} {
			j, err := w.Attach(context.Background(), c.who, q.AttachRequest)
			if q.may {
				if err != nil {
					t.Errorf("mode %#o: %v as %v, lossless %v: %v", c.mode, c.who, q.Role, q.Lossless, err)
					continue
				}
				j.Abandon()
				continue
			}
			wants(t, err, reason.AccessDenied)
		}
		if _, err := w.Delete(context.Background(), root, name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSenselessAttachmentsAreRefused(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	for _, c := range []struct {
		q   AttachRequest
		why reason.Reason
	}{
		{AttachRequest{Name: "/none", Role: Producer}, reason.RingNotFound},
		{AttachRequest{Name: "r", Role: Producer}, reason.InvalidArgument},
		{AttachRequest{Name: "/../r", Role: Producer}, reason.InvalidArgument},
		{AttachRequest{Name: "/r"}, reason.InvalidArgument},
		{AttachRequest{Name: "/r", Role: 3}, reason.InvalidArgument},
		{AttachRequest{Name: "/r", Role: Consumer, Lossless: true}, reason.InvalidArgument}, // nothing waits in this ring
	} {
		_, err := w.Attach(context.Background(), alice, c.q)
		wants(t, err, c.why)
	}
	if i := w.info("/r"); i.Bytes != 0 || i.Epoch != w.run<<32 {
		t.Errorf("refused attachments left %+v", i)
	}
}

func TestMemoryIsClosedToWritersWhenItsMemberIsReady(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	p := w.producer(alice, "/r")
	c := w.consumer(bob, "/r")
	entry := c.members(t).Entries[0]
	for what, f := range map[string]*os.File{"own": p.Own(), "page": p.Page(), "entry": entry.File} {
		if m, err := shm.Map(f, shm.PageSize, true); err == nil {
			m.Release()
			t.Errorf("%s: it can be mapped writable", what)
		}
		if err := unix.Ftruncate(int(f.Fd()), 1<<30); err == nil {
			t.Errorf("%s: it can be resized", what)
		}
		again, err := shm.Reopen(f, os.O_RDWR) // this test has the daemon's uid
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.WriteAt([]byte{1}, 0); err == nil {
			t.Errorf("%s: it can be written", what)
		}
		again.Close()
	}
	p.memory.Bytes()[shm.LaneData] = 42 // the producer still can
	m, err := shm.Map(entry.File, entry.Size, false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	if m.Bytes()[shm.LaneData] != 42 {
		t.Error("the consumer does not see what the producer writes")
	}
}

func TestTamperedMemoryIsNotTaken(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	q := AttachRequest{Name: "/r", Role: Producer}
	seal := func(seals int) func(*Joining) error {
		return func(j *Joining) error {
			_, err := unix.FcntlInt(j.Memory().Fd(), unix.F_ADD_SEALS, seals)
			return err
		}
	}
	for what, tamper := range map[string]func(*Joining) error{
		"a hole": func(j *Joining) error {
			return unix.Fallocate(int(j.Memory().Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, shm.LaneData, shm.PageSize)
		},
		"another mode":           func(j *Joining) error { return j.Memory().Chmod(0o666) },
		"no seals can be added":  seal(unix.F_SEAL_SEAL),
		"a seal against writing": seal(unix.F_SEAL_WRITE),
	} {
		j, p := w.begin(alice, q)
		if what == "a seal against writing" {
			p.die() // or it could not be added
		}
		if err := tamper(j); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_, err := j.Ready()
		wants(t, err, reason.InvalidArgument, "handed out")
		p.die()
	}
	j, err := w.Attach(context.Background(), alice, q)
	if err != nil {
		t.Fatal(err)
	}
	_, err = j.Ready() // it was never populated
	wants(t, err, reason.InvalidArgument, "populate")
	if i := w.info("/r"); len(i.Lanes) != 0 || i.Epoch != w.run<<32 {
		t.Errorf("what was refused shows: %+v", i)
	}
	soon(t, "nothing is charged", func() bool { return w.info("/r").Bytes == 0 })
}

func TestAttachmentEndsOnce(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	j, p := w.begin(alice, AttachRequest{Name: "/r", Role: Producer})
	m, err := j.Ready()
	if err != nil {
		t.Fatal(err)
	}
	_, err = j.Ready()
	wants(t, err, reason.InvalidArgument)
	j.Abandon()
	if n := len(w.info("/r").Lanes); n != 1 {
		t.Errorf("%d lanes after Ready, Ready and Abandon", n)
	}
	m.Leave("done")
	m.Leave("done")
	p.die()
	j, p = w.begin(alice, AttachRequest{Name: "/r", Role: Consumer})
	j.Abandon()
	_, err = j.Ready()
	wants(t, err, reason.InvalidArgument)
	p.die()
	if n := len(w.info("/r").Consumers); n != 0 {
		t.Errorf("%d consumers after Abandon", n)
	}
}

func TestRingGoesWhileSomebodyJoins(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	first, p1 := w.begin(bob, AttachRequest{Name: "/r", Role: Producer})
	second, p2 := w.begin(bob, AttachRequest{Name: "/r", Role: Producer})
	if _, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error { s.Mode = 0o600; return nil }); err != nil {
		t.Fatal(err)
	}
	_, err := first.Ready()
	wants(t, err, reason.AccessDenied)
	if _, err := w.Delete(context.Background(), alice, "/r"); err != nil {
		t.Fatal(err)
	}
	_, err = second.Ready()
	wants(t, err, reason.RingDeleted)
	p1.die()
	p2.die()
	soon(t, "nothing is charged", func() bool { return w.Totals().Bytes == 0 })
}

func TestSixtyFourLanesEvictTheOldestThatEnded(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 1 << 30; return small(s) })
	c := w.consumer(alice, "/r")
	var all []*process
	for range limits.RingLanes {
		all = append(all, w.producer(alice, "/r"))
	}
	_, err := w.Attach(context.Background(), alice, AttachRequest{Name: "/r", Role: Producer})
	wants(t, err, reason.QuotaExceeded, "64 producers")
	for _, i := range []int{9, 3} { // they end in this order
		all[i].Leave("test")
		all[i].die()
	}
	next := w.producer(alice, "/r")
	if next.header.Slot != all[9].header.Slot {
		t.Errorf("the new lane has slot %d, not that of the lane that ended first", next.header.Slot)
	}
	ids := c.members(t).ids()
	if slices.Contains(ids, all[9].ID()) || !slices.Contains(ids, all[3].ID()) || !slices.Contains(ids, next.ID()) || len(ids) != limits.RingLanes {
		t.Errorf("lanes now: %v", ids)
	}
}

func TestSixtyFourConsumersAreAll(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	var last *process
	for range limits.RingConsumers {
		last = w.consumer(alice, "/r")
	}
	_, err := w.Attach(context.Background(), alice, AttachRequest{Name: "/r", Role: Consumer})
	wants(t, err, reason.QuotaExceeded, "64 consumers")
	last.Leave("test")
	w.consumer(alice, "/r")
}

func TestDescriptorsComeBack(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 0; return small(s) })
	cycle := func(role Role) {
		j, err := w.Attach(context.Background(), alice, AttachRequest{Name: "/r", Role: role})
		if err != nil {
			t.Fatal(err)
		}
		m, err := shm.Map(j.Memory(), j.Header().Size, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Populate(); err != nil {
			t.Fatal(err)
		}
		member, err := j.Ready()
		if err != nil {
			t.Fatal(err)
		}
		l, err := member.Members(func(uint64) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		m.Release()
		member.Leave("test")
	}
	cycle(Producer) // what is made once
	p, c := w.producer(alice, "/r"), w.consumer(alice, "/r")
	defer p.Leave("test")
	defer c.Leave("test")
	before := descriptors(t)
	epoch := w.info("/r").Epoch
	for i := range 5000 {
		cycle(Producer)
		cycle(Consumer)
		if i%1000 == 0 { // given up before it is ready
			j, err := w.Attach(context.Background(), alice, AttachRequest{Name: "/r", Role: Producer})
			if err != nil {
				t.Fatal(err)
			}
			j.Abandon()
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
	if i := w.info("/r"); i.Epoch != epoch+20000 || i.Bytes != laneSize+shm.ConsumerSize {
		t.Errorf("after 10000 members came and went the epoch rose by %d, and %d bytes are charged", i.Epoch-epoch, i.Bytes)
	}
}
