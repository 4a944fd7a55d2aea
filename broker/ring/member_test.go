package ring

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// isGone reports whether the member was thrown out.
func (p *process) isGone() bool {
	select {
	case <-p.Gone():
		return true
	default:
		return false
	}
}

func TestMembersLearnOfTheOtherRoleOnly(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	w.create(alice, "/other", small)
	w.producer(alice, "/other")
	w.consumer(alice, "/other")
	p, q := w.producer(alice, "/r"), w.producer(alice, "/r")
	c, d := w.consumer(alice, "/r"), w.consumer(alice, "/r")
	w.begin(alice, AttachRequest{Name: "/r", Role: Producer}) // not ready
	w.begin(alice, AttachRequest{Name: "/r", Role: Consumer})
	for _, x := range []struct {
		who  *process
		want []uint64
	}{
		{p, []uint64{c.ID(), d.ID()}}, {q, []uint64{c.ID(), d.ID()}},
		{c, []uint64{p.ID(), q.ID()}}, {d, []uint64{p.ID(), q.ID()}},
	} {
		l := x.who.members(t)
		if !slices.Equal(l.ids(), x.want) || l.Partial || l.Epoch != w.info("/r").Epoch {
			t.Errorf("%v learns %+v, want %v", x.who.role, l, x.want)
		}
	}
	l, err := c.Members(func(id uint64) bool { return id == p.ID() })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Entries[0].File != nil || l.Entries[1].File == nil {
		t.Errorf("files come for those that were not sent: %+v", l.Entries)
	}
}

func TestEpochRisesAfterTheTableHasChanged(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	watcher := w.consumer(alice, "/r")
	page, err := shm.Map(watcher.Page(), shm.MembersSize, false)
	if err != nil {
		t.Fatal(err)
	}
	epoch := shm.NewPage(page)
	defer epoch.Release()
	// Who asks because the epoch rose must be told at least of that epoch.
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			seen := epoch.Epoch()
			l, err := watcher.Members(func(uint64) bool { return true })
			if err != nil || l.Epoch < seen {
				t.Errorf("epoch %d was seen, and the list is of %d: %v", seen, l.Epoch, err)
				return
			}
		}
	})
	last := epoch.Epoch()
	for range 100 {
		p := w.producer(alice, "/r")
		if now := epoch.Epoch(); now != last+1 || p.Epoch() != now {
			t.Errorf("epoch %d after %d; the member says %d", now, last, p.Epoch())
		}
		if ids := watcher.members(t).ids(); !slices.Contains(ids, p.ID()) {
			t.Errorf("%v has no %d", ids, p.ID())
		}
		p.die()
		p.Leave("test")
		last += 2
		if now := epoch.Epoch(); now != last {
			t.Errorf("epoch %d after it left, want %d", now, last)
		}
	}
	close(stop)
	watching.Wait()
}

func TestJoinEpochsSayWhoWasInTheFirstList(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", smallLossless)
	lossless := AttachRequest{Name: "/r", Role: Consumer, Lossless: true}
	early := w.attach(alice, lossless)
	lane, p := w.begin(alice, AttachRequest{Name: "/r", Role: Producer})
	middle := w.attach(alice, lossless)
	pending, late := w.begin(alice, lossless)
	m, err := lane.Ready()
	if err != nil {
		t.Fatal(err)
	}
	p.Member = m
	first := p.members(t)
	if !slices.Equal(first.ids(), []uint64{early.ID(), middle.ID()}) {
		t.Fatalf("the producer's first list: %+v", first)
	}
	if late.Member, err = pending.Ready(); err != nil {
		t.Fatal(err)
	}
	joined := map[uint64]uint64{}
	for _, e := range p.members(t).Entries {
		joined[e.ID] = e.Epoch
	}
	at := late.members(t).Entries[0].Epoch
	if at != p.header.Epoch {
		t.Errorf("the lane was told that it joins at %d, others that it did at %d", p.header.Epoch, at)
	}
	if joined[early.ID()] >= at {
		t.Errorf("a consumer that was there before the lane joined at %d, the lane at %d", joined[early.ID()], at)
	}
	if joined[late.ID()] <= first.Epoch || late.Epoch() != joined[late.ID()] {
		t.Errorf("a consumer that is not in the list of epoch %d joined at %d, and says %d", first.Epoch, joined[late.ID()], late.Epoch())
	}
}

func TestLaneStaysWhenItsProducerLeaves(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	p := w.producer(alice, "/r")
	out := p.writer(t)
	for i := range 3 {
		if err := out.Publish(context.Background(), int64(i+1), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	out.Close()
	p.die()
	p.Leave("test")
	c := w.consumer(bob, "/r") // comes later, and reads it all the same
	l := c.members(t)
	if len(l.Entries) != 1 || !l.Entries[0].Ended {
		t.Fatalf("%+v", l)
	}
	in := c.reader(t, shm.Oldest)
	for i := range 3 {
		m, err := in.Next(context.Background())
		if err != nil || m.Type != int64(i+1) || m.Payload[0] != byte(i) || m.Sequence != uint64(i+1) || m.Lane != p.ID() {
			t.Errorf("message %d: %+v, %v", i, m, err)
		}
	}
	if p.isGone() {
		t.Error("who left is told that it is gone")
	}
	_, err := p.Members(func(uint64) bool { return true })
	wants(t, err, reason.Cancelled)
}

func TestEndedLanesAreKeptWithinRetainTheOldestGoesFirst(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 3*capacity - 1; return small(s) })
	c := w.consumer(alice, "/r")
	var all []*process
	for range 5 {
		all = append(all, w.producer(alice, "/r"))
	}
	end := func(i int) {
		all[i].die()
		all[i].Leave("test")
	}
	kept := func(want ...int) {
		t.Helper()
		var ids []uint64
		for _, i := range want {
			ids = append(ids, all[i].ID())
		}
		if got := c.members(t).ids(); !slices.Equal(got, ids) {
			t.Errorf("lanes %v, want %v", got, ids)
		}
		if got := w.info("/r").Bytes; got != int64(len(want))*laneSize+shm.ConsumerSize {
			t.Errorf("%d bytes are charged for %d lanes", got, len(want))
		}
	}
	end(3)
	end(1)
	kept(0, 1, 2, 3, 4)
	end(4)
	kept(0, 1, 2, 4)
	end(0)
	kept(0, 2, 4)
	retain := func(bytes int64) {
		t.Helper()
		if _, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error { s.Retain = bytes; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	epoch := w.info("/r").Epoch
	retain(capacity)
	kept(0, 2)
	if now := w.info("/r").Epoch; now != epoch+1 {
		t.Errorf("epoch %d after %d", now, epoch)
	}
	retain(0)
	kept(2)
	end(2)
	kept()
}

func TestHostileLaneIsChargedUntilNobodyCanWriteIt(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", func(s *Settings) error { s.Retain = 0; return small(s) })
	p := w.producer(alice, "/r")
	p.Leave("test") // and keeps its mapping
	if i := w.info("/r"); len(i.Lanes) != 0 || i.Bytes != laneSize {
		t.Errorf("%+v", i)
	}
	w.disposeLingering()
	if got := w.info("/r").Bytes; got != laneSize {
		t.Errorf("%d bytes are charged while it is still written", got)
	}
	p.die()
	soon(t, "it is not charged any more", func() bool { return w.info("/r").Bytes == 0 }) // watch looks each second
}

func TestWithdrawnAccessThrowsMembersOut(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", smallLossless)
	hers, his := w.producer(alice, "/r"), w.producer(bob, "/r")
	ended := w.producer(bob, "/r")
	ended.die()
	ended.Leave("test")
	reads := w.consumer(bob, "/r")
	holds := w.attach(bob, AttachRequest{Name: "/r", Role: Consumer, Lossless: true})
	epoch := w.info("/r").Epoch
	mode := func(mode uint32) {
		t.Helper()
		if _, err := w.Update(context.Background(), alice, "/r", func(s *Settings) error { s.Mode = mode; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	mode(0o604)
	if hers.isGone() || !his.isGone() || reads.isGone() || !holds.isGone() {
		t.Errorf("gone: %v %v %v %v", hers.isGone(), his.isGone(), reads.isGone(), holds.isGone())
	}
	wants(t, his.Err(), reason.AccessDenied)
	_, err := his.Members(func(uint64) bool { return true })
	wants(t, err, reason.AccessDenied)
	// What he wrote before he left stays; what he can still write does not.
	if ids := reads.members(t).ids(); !slices.Equal(ids, []uint64{hers.ID(), ended.ID()}) {
		t.Errorf("lanes %v", ids)
	}
	if now := w.info("/r").Epoch; now != epoch+1 {
		t.Errorf("epoch %d after %d", now, epoch)
	}
	his.Leave("hang-up")
	holds.Leave("hang-up")
	if now := w.info("/r").Epoch; now != epoch+1 {
		t.Error("leaving after that changes something")
	}
	mode(0o600)
	if !reads.isGone() || hers.Err() != nil {
		t.Errorf("gone: %v; hers: %v", reads.isGone(), hers.Err())
	}
}

func TestDeletionThrowsEverybodyOut(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	p, c := w.producer(alice, "/r"), w.consumer(bob, "/r")
	page, err := shm.Map(c.Page(), shm.MembersSize, false)
	if err != nil {
		t.Fatal(err)
	}
	epoch := shm.NewPage(page)
	defer epoch.Release()
	before := epoch.Epoch()
	if n, err := w.Delete(context.Background(), alice, "/r"); n != 2 || err != nil {
		t.Errorf("%d members, %v", n, err)
	}
	for _, m := range []*process{p, c} {
		if !m.isGone() {
			t.Fatal("not gone")
		}
		wants(t, m.Err(), reason.RingDeleted)
		_, err := m.Members(func(uint64) bool { return true })
		wants(t, err, reason.RingDeleted)
	}
	if now := epoch.Epoch(); now != before+1 {
		t.Errorf("epoch %d after %d: who sleeps is not woken", now, before)
	}
	again := w.create(alice, "/r", small)
	p.Leave("hang-up")
	c.Leave("hang-up")
	if now := w.info("/r"); now.Epoch != again.Epoch || now.ID == p.header.RingID || now.Bytes != 0 {
		t.Errorf("the new ring of that name: %+v", now)
	}
}

func TestMembersComeAndGoAtOnce(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(root, "/r", func(s *Settings) error { s.Retain = 4 * capacity; return small(s) })
	ctx := context.Background()
	var all sync.WaitGroup
	for g := range 6 {
		role := []Role{Producer, Consumer}[g%2]
		all.Go(func() {
			for range 100 {
				j, err := w.Attach(ctx, root, AttachRequest{Name: "/r", Role: role})
				if err != nil {
					t.Error(err)
					return
				}
				m, err := shm.Map(j.Memory(), j.Header().Size, true)
				if err != nil {
					t.Error(err)
					j.Abandon()
					return
				}
				_ = m.Populate()
				member, err := j.Ready()
				m.Release()
				if err != nil {
					t.Error(err)
					return
				}
				l, err := member.Members(func(uint64) bool { return false })
				if err != nil {
					t.Error(err)
				}
				l.Close()
				member.Leave("test")
				member.Leave("test")
			}
		})
	}
	all.Go(func() {
		for range 100 {
			w.info("/r")
			w.Totals()
			w.byName["/r"].sample()
			if _, err := w.Update(ctx, root, "/r", func(s *Settings) error { s.Retain ^= capacity; return nil }); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	if _, err := w.Delete(ctx, root, "/r"); err != nil {
		t.Fatal(err)
	}
	soon(t, "nothing is charged", func() bool { return w.Totals().Bytes == 0 })
}
